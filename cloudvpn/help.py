# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what is described in the code for people: --help, the tables of the README and those of docs/status.md."""

from __future__ import annotations

import re
import textwrap
from dataclasses import Field, fields
from itertools import groupby
from typing import Any, Final

from . import facts
from .options import OPTIONS, YES_NO, Option

WIDTH: Final = 80
INDENT: Final = " " * 6

_SYNOPSIS: Final = """\
usage: cloudvpn [-OPTION VALUE ...] [FILE ...]    run a node
       cloudvpn --check [-OPTION VALUE ...] [FILE ...]
                            only check the options and the files
       cloudvpn --version   print the version
       cloudvpn --help      print this text
       cloudvpn --demo      show a small mesh at work on this machine

A FILE holds the same options without the minus, one a line, # in the first
column for comments. Later beats earlier, lists grow. - and _ in a name mean
the same, one minus or two do too; -- ends the options; -iface alone means
-iface yes. @include PATH reads another file, in a FILE or as -@include PATH.
Times are microseconds or 50us, 200ms, 5s, 5min, 1h; sizes are bytes or 64k, 1M.
On SIGHUP all files are read again; options marked (restart) keep their value
until the node is started again.
"""


def usage() -> str:
    """The text of --help, at most 80 columns wide."""
    parts = [_SYNOPSIS]
    for group, options in groupby(OPTIONS.values(), lambda option: option.group):
        parts.append(f"\n{group}\n")
        for option in options:
            details = [f"default {default}" if (default := _default(option)) else "", option.range]
            notes = "; ".join(detail for detail in details if detail)
            text = f"{option.help}{f' ({notes})' if notes else ''}{_remark(option)}".replace("`", "")
            parts.append(f"  -{_signature(option)}\n")
            parts.append(textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT) + "\n")
    return "".join(parts)


def options_table() -> str:
    """The Markdown tables of the README, one for each group."""
    parts = []
    for group, options in groupby(OPTIONS.values(), lambda option: option.group):
        parts.append(f"### {group}\n\n| option | default | meaning |\n|---|---|---|\n")
        for option in options:
            limits = f" ({option.range})" if option.range else ""
            cells = (_signature(option), _default(option), f"{option.help}{limits}{_remark(option)}")
            parts.append("| {} | {} | {} |\n".format(*(cell.replace("|", "\\|") for cell in cells)))
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def facts_tables() -> str:
    """The Markdown tables of docs/status.md, one for each kind of object in the JSON."""
    names = [name for name in vars(facts) if name.endswith("Facts")]
    parts = []
    for name in reversed(names):  # the whole first, then its parts
        kind = getattr(facts, name)
        parts.append(f"### {name.removesuffix('Facts').lower()}\n\n{kind.__doc__}\n\n")
        parts.append("| name | type | meaning |\n|---|---|---|\n")
        for one in fields(kind):
            parts.append(f"| {one.name} | {_json_type(one)} | {one.metadata['meaning']} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _json_type(one: Field[Any]) -> str:
    words = {"int": "MAC" if one.name == "mac" else "integer", "float": "number", "str": "string", "datetime": "time",
             "bool": "true or false", "dict[str, int]": "object of integers", "tuple[str, ...]": "list of strings"}
    first, *null = str(one.type).split(" | None")
    text = words.get(first) or re.sub(r"\w+", lambda word: word[0].removesuffix("Facts").lower(), first)
    unit = f", {one.metadata['unit']}" if one.metadata["unit"] else ""
    return re.sub(r"list\[(\w+)\]", r"list of \1", text) + unit + (" or null" if null else "")


def _signature(option: Option) -> str:
    metavar = "[yes|no]" if option.kind is YES_NO else option.kind.metavar
    aliases = f" (also {', '.join(option.aliases)})" if option.aliases else ""
    return f"{option.name} {metavar}{' (list)' if option.is_list else ''}{aliases}"


def _default(option: Option) -> str:
    return "" if option.default is None or option.is_list else option.kind.show(option.default)


def _remark(option: Option) -> str:
    if option.unused:
        return f" (accepted, no effect: {option.unused})"
    return "" if option.live else " (restart)"

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the manual pages: man/NAME.md with the options of the parsers put in, as roff.

    python tools/man.py     # or `make docs`: writes man/cloudvpn.8, man/cloudvpn.conf.5, man/cloudvpn-keygen.1,
                            # man/cloudvpn-sim.1

The texts know little Markdown: headings, paragraphs, indented examples, `literal`, *variable*, and a definition:

    `term`
    :   its meaning
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloudvpn import __version__  # noqa: E402
from cloudvpn.keygen.words import make_parser  # noqa: E402
from cloudvpn.options import OPTIONS, Option  # noqa: E402
from cloudvpn.sim.figures import FIGURES  # noqa: E402
from cloudvpn.sim.script import VERBS, usage  # noqa: E402
from cloudvpn.sim.words import make_parser as make_simulator_parser  # noqa: E402

FOLDER: Final = ROOT / "man"
PAGES: Final = ("cloudvpn.8", "cloudvpn.conf.5", "cloudvpn-keygen.1", "cloudvpn-sim.1")
WIDTH: Final = 78


# Markdown to roff.


def escape(text: str, literal: bool = False) -> str:
    """What roff would take for something else; in a literal a minus stays one, and a quote is not made curly."""
    special = {"\\": "\\e", "^": "\\(ha", "~": "\\(ti"} | ({"-": "\\-", "'": "\\(aq", "`": "\\(ga"} if literal else {})
    return "".join(special.get(char, char) for char in text)


def inline(text: str) -> str:
    """`x` is bold, *x* italic; of a page such as `ip(7)` the name only."""
    parts = []
    for part in re.split(r"(`[^`]+`|\*[^*\s]+\*)", text):
        if page := re.fullmatch(r"`([\w.-]+)(\([1-8]\))`", part):
            parts.append(f"\\fB{escape(page[1], True)}\\fR{page[2]}")
        elif part.startswith("`"):
            parts.append(f"\\fB{escape(part[1:-1], True)}\\fR")
        elif part.startswith("*"):
            parts.append(f"\\fI{escape(part[1:-1], True)}\\fR")
        else:
            parts.append(escape(part))
    return "".join(parts)


def fill(text: str) -> str:
    lines = textwrap.wrap(inline(" ".join(text.split())), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"\\&{line}\n" if line[0] in ".'" else f"{line}\n" for line in lines)


def example(block: str) -> str:
    lines = [escape(line, True) for line in textwrap.dedent(block).splitlines()]
    return ".EX\n" + "".join(f"\\&{line}\n" if line[:1] in (".", "'") else f"{line}\n" for line in lines) + ".EE\n"


def blocks(text: str) -> Iterator[str]:
    """Parts between empty lines."""
    yield from (block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip())


def roff(text: str, insertions: Mapping[str, Callable[[], str]]) -> str:
    """A page. `@name@` alone in a paragraph is replaced by an insertion, which is roff already."""
    first, *rest = blocks(text)
    name, section, date = first.removeprefix("% ").split()
    # No hyphens in the names of options.
    parts = [f'.TH {name} {section} {date} "cloudvpn {__version__}" CloudVPN\n.nh\n.ad l\n']
    gap = ""  # none between a heading and its text
    for block in rest:
        if block.startswith("# "):
            parts.append(f".SH {escape(block[2:], True)}\n")
        elif insertion := re.fullmatch(r"@(\w+)@", block):
            parts.append(insertions[insertion[1]]())
        elif block.startswith("    "):
            parts.append(f"{gap}.RS 4\n{example(block)}.RE\n")
        elif "\n:   " in block:
            term, meaning = block.split("\n:   ", 1)
            parts.append(f".TP\n{fill(term)}{fill(meaning)}")
        else:
            parts.append(f"{gap}{fill(block)}")
        gap = "" if block.startswith("# ") else ".PP\n"
    return '.\\" Made by tools/man.py, do not edit. SPDX-License-Identifier: GPL-3.0-or-later\n' + "".join(parts)


# The options of the daemon.


def texts() -> dict[str, str]:
    """The paragraphs of man/options.md, by the name of the option."""
    sections = re.split(r"^## (.+)\n", (FOLDER / "options.md").read_text(), flags=re.MULTILINE)[1:]
    names = sections[::2]
    assert len(names) == len(set(names)), "an option is there twice"
    return dict(zip(names, sections[1::2], strict=True))


def overview() -> str:
    return "".join(
        f".TP\n\\fI{group}\\fR\n{fill(', '.join(f'`{option.name}`' for option in options))}"
        for group, options in groupby(OPTIONS.values(), lambda option: option.group)
    )


def options() -> str:
    explained = texts()
    parts = []
    for group, rows in groupby(OPTIONS.values(), lambda option: option.group):
        parts.append(f".SS {group}\n")
        for option in rows:
            first, *more = blocks(explained[option.name])
            parts.append(f".TP\n{signature(option)}\n{fill(first)}")
            parts += [f".IP\n{example(block) if block.startswith('    ') else fill(block)}" for block in more]
            if remarks := " ".join(facts(option)):
                parts.append(f".IP\n{fill(remarks)}")
    return "".join(parts)


def signature(option: Option) -> str:
    name, metavar = escape(option.name, True), escape(option.kind.metavar, True)
    font = "I" if metavar.isupper() else "B"  # words to choose from are literal
    return f"\\fB{name}\\fR \\f{font}{metavar}\\fR"


def facts(option: Option) -> Iterator[str]:
    """What the table knows."""
    if option.aliases:
        yield f"Also written {', '.join(f'`{alias}`' for alias in option.aliases)}."
    if option.is_list:
        yield "May be given again."
    elif option.default is not None:
        yield f"Default: `{option.kind.show(option.default)}`."
    if option.range:
        yield f"Range: {option.range}."
    if not option.live and not option.unused:
        yield "A change needs a restart."


# The subcommands of the key tool.


def subcommands() -> str:
    parser = make_parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return "".join(subcommand(name, command) for name, command in commands.choices.items())


def subcommand(name: str, command: argparse.ArgumentParser) -> str:
    arguments = [action for action in command._actions if action.dest != "help"]
    words = " ".join(f"*{argument.metavar}*" for argument in arguments if not argument.option_strings)
    parts = [f".SS {name}\n", fill(f"`cloudvpn-keygen {name}` [*OPTION* ...] {words}"), ".PP\n"]
    parts.append(fill(command.description or ""))
    for argument in arguments:
        parts.append(f".TP\n{term(argument)}\n{fill(argument.help or 'see above')}")
    _, shown = (command.epilog or "").split("\n", 1)
    return "".join([*parts, ".PP\nExample:\n.PP\n.RS 4\n", example(shown), ".RE\n"])


# The simulator.


def simulator() -> str:
    flags = [action for action in make_simulator_parser()._actions if action.option_strings and action.metavar]
    switches = [action for action in make_simulator_parser()._actions if action.dest in ("paths", "json")]
    return "".join(f".TP\n{term(argument)}\n{fill(argument.help or '')}" for argument in flags + switches)


def events() -> str:
    return "".join(f".TP\n{fill(f'`{usage(verb)}`')}{fill(meaning)}" for verb, (meaning, _) in VERBS.items())


def figures() -> str:
    return "".join(f".TP\n{fill(f'`{name}`')}{fill(figure.meaning)}" for name, figure in FIGURES.items())


def term(argument: argparse.Action) -> str:
    metavar = argument.metavar
    values: Iterable[str] = [metavar] if isinstance(metavar, str) else metavar or ()
    if argument.choices:
        values = ["|".join(map(str, argument.choices))] if not isinstance(metavar, str) else values
    flags = "".join(f"\\fB{escape(flag, True)}\\fR " for flag in argument.option_strings)
    return (flags + " ".join(f"\\fI{escape(value, True)}\\fR" for value in values)).rstrip()


def page(name: str) -> str:
    insertions = {"overview": overview, "options": options, "subcommands": subcommands, "simulator": simulator,
                  "events": events, "figures": figures}  # fmt: skip
    return roff((FOLDER / f"{name}.md").read_text(), insertions)


def main() -> None:
    for name in PAGES:
        (FOLDER / name).write_text(page(name))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the command line of `cloudvpn-sim`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, NoReturn

from cloudvpn import __version__
from cloudvpn.errors import ConfigError

PROGRAM: Final = "cloudvpn-sim"
EXAMPLE: Final = """\
example:
  cloudvpn-sim mesh.toml --what-if 'cut paris-rome' --picture mesh.svg
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"command line: {message}; `{PROGRAM} --help` says more"])


def _number(low: int, high: int) -> type[int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f'"{text[:30]}" is not a whole number from {low} to {high}')
        return int(text)

    return parse  # type: ignore[return-value] # argparse wants something to call


def make_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM, description="Runs a mesh of nodes with the shipped code under a virtual clock.", epilog=EXAMPLE,
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="scenarios in TOML; several are read as if they were one")
    add("--what-if", action="append", default=[], metavar="EVENT",
        help="an event after the script, and which ways it changes; may be given again, then they follow each other")
    add("--seed", type=_number(0, 2**63 - 1), metavar="NUMBER", help="of all that is random, instead of the file's")
    add("--runs", type=_number(1, 1000), metavar="NUMBER",
        help="so many runs, with seeds that follow each other, and one report")
    add("--jobs", type=_number(1, 64), default=1, metavar="NUMBER", help="runs at the same time (default: 1)")
    add("--paths", action="store_true", help="print all ways, not only those of the traffic")
    add("--picture", type=Path, metavar="SVG", help="draw the mesh as it is in the end of the first run")
    add("--json", action="store_true", help="print all figures as JSON")
    add("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser  # fmt: skip

# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that `bench.peers` and `bench.mesh` share: measure, print, keep; or show again what was kept."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.lab.nodes import OWN_DAEMON, Program
from bench.lab.results import Results
from bench.lab.rounds import TOOLS, Subject, apt_line, measure_in_turn, missing_packages

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "performance.md"      # all tables stand here


def main(
    module: str,
    description: str,
    subjects_of: Callable[[Program], Mapping[str, Subject]],
    show: Callable[[Results], str],
    keep: Callable[[Results], None],
) -> int:
    """`show` gives what is printed; `keep` puts it into `docs/`, beside the JSON file of the run."""
    options = parser(module, description).parse_args()
    kept = DOCS / f"{module.replace('.', '-')}.json"
    if options.report:
        results = Results.load(kept)
        keep(results)
        print(show(results))
        return 0
    subjects = dict(subjects_of(Program(options.cloudvpn, tuple(options.line))))
    unknown = [name for name in options.only if name not in subjects]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: not one of {', '.join(subjects)}")
    refuse_if_impossible(TOOLS)
    end_politely()
    only = {name: subjects[name] for name in options.only or subjects}
    results = measure_in_turn(only, options.rounds, options.seconds)
    print(show(results))
    if not options.only and not options.line and options.cloudvpn == OWN_DAEMON:
        results.save(kept)
        keep(results)
    return 1 if any(row.failures for row in results.rows.values()) or (options.only and results.missing) else 0


def parser(module: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("only", nargs="*", metavar="NAME", help="measure only these, and keep nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each load (4)")
    parser.add_argument("--line", action="append", default=[], metavar="'OPTION VALUE'",
                        help="a line more for each configuration of cloudvpn; nothing is kept")
    parser.add_argument("--cloudvpn", type=Path, default=OWN_DAEMON, metavar="PATH",
                        help="another daemon than this checkout's; nothing is kept")
    parser.add_argument("--report", action="store_true", help="measure nothing, show and keep the last run again")
    return parser


def refuse_if_impossible(needs: Mapping[str, str]) -> None:
    if os.geteuid():
        sys.exit("needs root, for network namespaces")
    if packages := missing_packages(needs):
        sys.exit(f"needs: {apt_line(packages)}")


def end_politely() -> None:
    """What would end this process ends it as Ctrl-C does, which takes away all that was made."""
    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)

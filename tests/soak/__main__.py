# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks and reloads a mesh of eight daemons for some minutes, and tells whether all holds that must: `make soak`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import randrange

from bench.lab.command import end_politely
from bench.lab.hosts import uninterrupted
from tests.netns.lab import Lab, why_not
from tests.soak.judge import judge
from tests.soak.perform import Plan, perform
from tests.soak.report import write

FOLDER = Path("build/soak")
# Seconds. RSS creeps at first, the less the longer: the free lists of CPython that fill (up to 2,000 tuples of each
# size) are a likely cause.
WARM_UP_MOST = 600


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=randrange(1 << 32), help="what happens, and when; by chance")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where report, picture and logs go (build/soak)")
    options = parser.parse_args()
    seconds = options.minutes * 60
    if reason := why_not():
        sys.exit(f"cannot make network namespaces here: {reason}")
    end_politely()
    options.folder.mkdir(parents=True, exist_ok=True)
    report = options.folder / "report.md"
    report.unlink(missing_ok=True)
    with laboratory() as lab:
        run = perform(lab, Plan(seconds, options.seed, warm_up=min(seconds / 5, WARM_UP_MOST)), options.folder)
    problems = judge(run)
    picture = "soak.png" if find_spec("matplotlib") else ""     # `make soak` installs it
    if picture:
        from tests.soak.picture import draw
        draw(run, options.folder / picture)
    report.write_text(write(run, problems, picture))
    print(report.read_text())
    for problem in problems:
        print(f"did not hold: {problem}", file=sys.stderr)
    return 1 if problems else 0


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """Taken away whatever happens; a second Ctrl-C does not stop that."""
    lab = Lab()
    try:
        yield lab
    finally:
        with uninterrupted():
            lab.__exit__()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

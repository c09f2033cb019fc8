# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs what `make fuzz` has found in the build that is imported, where it must keep the limit of time that users have.

    python -m tests.fuzz.replay [--found FOLDER] [TARGET...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.driver import Fault, Watch
from tests.fuzz.targets import NAMES, target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.replay")
    parser.add_argument("targets", nargs="*", default=list(NAMES), metavar="TARGET")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz/found"), metavar="FOLDER")
    words = parser.parse_args()
    failed = 0
    for name in words.targets:
        watch = Watch(target(name))
        for path in sorted((words.found / name).iterdir()):
            try:
                watch(path.read_bytes())
            except Fault as fault:
                failed += 1
                print(f"{path}: {fault}")
        print(f"{name}: {watch.executions} found inputs, the slowest took {watch.slowest * 1000:.1f} ms", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())

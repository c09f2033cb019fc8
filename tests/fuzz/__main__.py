# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzzes one target, or each in a process of its own, guided by coverage: what `make fuzz` runs in its build.

    python -m tests.fuzz [--runs N] [--jobs N] [TARGET...]

Inputs that reached something new or took long are in found/TARGET, one that failed is in found/TARGET-crash-*.
`python -m tests.fuzz.replay` times them in a release build.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.driver import SIZE_MAX, SLOW, Watch
from tests.fuzz.targets import COMPILED, CORPUS, NAMES, target

FOUND = Path("found")
SANITIZED = 10 * SLOW  # seconds of CPU: the same input takes 20 times as long in this build


def fuzz(name: str, runs: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris  # lets a module be imported in a way that tells which lines are reached

    with atheris.instrument_imports(include=["cloudvpn"]):
        watch = Watch(target(name), SANITIZED)
    start = time.monotonic()
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        watch(data)
        if watch.last > SLOW:
            (folder / f"slow-{hashlib.sha256(data).hexdigest()}").write_bytes(data)
        if watch.executions == runs:
            print(f"{name}: {runs} inputs in {time.monotonic() - start:.0f} s, none failed, "
                  f"the slowest took {watch.slowest * 1000:.1f} ms", flush=True)  # fmt: skip

    atheris.Setup([sys.argv[0], str(folder), str(CORPUS / name), f"-runs={runs}", f"-max_len={SIZE_MAX}", "-timeout=5",
                   f"-artifact_prefix={FOUND}/{name}-", "-rss_limit_mb=4096", "-print_final_stats=1"], one)  # fmt: skip
    atheris.Fuzz()


def start(name: str, runs: int) -> tuple[str, str | None]:
    """Runs one target in a process of its own: what it said in the end, and all that it said if it failed."""
    import atheris

    environment = dict(os.environ)
    if name in COMPILED:
        environment |= {
            "LD_PRELOAD": f"{atheris.path()}/asan_with_fuzzer.so", "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        }  # fmt: skip
    command = [sys.executable, "-m", "tests.fuzz", "--here", "--runs", str(runs), name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode(errors="replace")
    last = re.findall(rf"^{name}: .*$", said, re.MULTILINE)
    is_good = done.returncode == 0 and bool(last)
    return last[-1] if is_good else f"{name}: FAILED", None if is_good else said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", default=list(NAMES), metavar="TARGET")
    parser.add_argument("--runs", type=int, default=10_000_000, help="inputs for each target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.here:
        fuzz(words.targets[0], words.runs)
    failed = 0
    with ThreadPoolExecutor(words.jobs) as pool:
        for last, said in pool.map(lambda name: start(name, words.runs), words.targets):
            print(said or "", last, sep="", flush=True)
            failed += said is not None
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())

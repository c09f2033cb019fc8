# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `cloudvpn-sim`: scenario files to a report, and the exit code 1 where an expectation is not met."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cloudvpn.errors import CloudVPNError, SetupError
from cloudvpn.sim import picture, report
from cloudvpn.sim.run import Progress, Run, run
from cloudvpn.sim.scenario import Scenario, load
from cloudvpn.sim.words import PROGRAM, make_parser


def main() -> None:
    """The only place that ends the process."""
    sys.exit(start(sys.argv[1:]))


def start(words: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 after lines on standard error."""
    try:
        return simulate(words)
    except CloudVPNError as error:
        print("\n".join(f"{PROGRAM}: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except BrokenPipeError:  # `cloudvpn-sim mesh.toml | head`
        sys.stdout = None  # at its end Python would try and complain again
        return 1
    except KeyboardInterrupt:
        return 130


def simulate(words: Sequence[str]) -> int:
    args = make_parser().parse_args(words)
    scenario = load(args.files, args.what_if)
    scenario.seed = scenario.seed if args.seed is None else args.seed
    scenario.runs = args.runs or scenario.runs
    began = time.monotonic()
    with progress_bar(scenario) as progress:
        runs = run_all(scenario, args.jobs, progress)
    verdicts = report.judge(scenario, runs)
    if args.picture is not None:
        try:
            args.picture.write_text(picture.svg(runs[0]))
        except OSError as error:
            raise SetupError(f"command line: --picture: {args.picture}: {error.strerror}") from error
    if args.json:
        print(json.dumps(report.as_json(scenario, runs, verdicts), indent=1), flush=True)
    else:
        print(report.text(scenario, runs, verdicts, time.monotonic() - began, args.paths), end="", flush=True)
    failed = [verdict for verdict in verdicts if not verdict.holds]
    for verdict in failed:
        print(f"{PROGRAM}: {verdict}", file=sys.stderr)
    return 1 if failed else 0


def run_all(scenario: Scenario, jobs: int, progress: Progress = lambda done: None) -> list[Run]:
    """All runs, by their seeds."""
    seeds = range(scenario.seed, scenario.seed + scenario.runs)
    if jobs == 1 or len(seeds) == 1:
        return [
            run(scenario, seed, lambda done, at=at: progress((at + done) / len(seeds)))  # type: ignore[misc]
            for at, seed in enumerate(seeds)
        ]
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, scenario, seed) for seed in seeds]
        for done, _ in enumerate(as_completed(futures), 1):
            progress(done / len(seeds))
        return [future.result() for future in futures]


@contextmanager
def progress_bar(scenario: Scenario) -> Iterator[Progress]:
    """On a terminal, with tqdm, if that is installed (the extra `sim`)."""
    tqdm = find_tqdm() if sys.stderr.isatty() else None
    if tqdm is None:
        yield lambda done: None
        return
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=1000, desc=scenario.name, leave=False, bar_format=form) as bar:
        yield lambda done: bar.update(round(1000 * done) - bar.n) and None


def find_tqdm() -> Any:
    try:
        return import_module("tqdm").tqdm
    except ImportError:
        return None

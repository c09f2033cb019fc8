# SPDX-License-Identifier: GPL-3.0-or-later
"""The acceptance figures of routing: scripts on topologies, from tests/sim/scenarios.

    python -m tests.sim.acceptance [RUNS [JOBS]]    # or `make sim`: all of them, 25 seeds each
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

from cloudvpn.sim import cli, report
from cloudvpn.sim.figures import Figures
from cloudvpn.sim.run import Run, merge
from cloudvpn.sim.scenario import load

FOLDER = Path(__file__).parent / "scenarios"
STUDIED = ("ring8", "ring32", "complete8", "random16", "cliques16", "grid64", "random64")

# Over all topologies of the study together: most pairs are sooner than the slowest one, which the scripts bound.
PERCENTILES = {
    "kill": {"forgotten_p95_s": 0.4, "back_p50_s": 0.15, "back_p95_s": 1.1},
    "silence": {"forgotten_p95_s": 0.4, "back_p50_s": 0.15, "back_p95_s": 1.1},
    "cut": {"back_p50_s": 0.15, "back_p95_s": 1.1},
}


class Case(NamedTuple):
    script: str
    topology: str

    @property
    def files(self) -> list[Path]:
        return [FOLDER / f"topology-{self.topology}.toml", FOLDER / f"{self.script}.toml"]

    def __str__(self) -> str:
        return f"{self.script} on {self.topology}"


CASES = [
    *(Case(script, topology) for script in ("events", "chaos") for topology in STUDIED),
    Case("restart-all", "random100"),
    Case("death", "complete32"),
    Case("load", "random16"),
    Case("moves", "random16"),
    Case("lies", "random16"),
    *(Case("version-1", topology) for topology in STUDIED),
    *(Case(script, topology) for script in ("rule-2009", "mixed") for topology in ("ring8", "complete8", "random16")),
]


def perform(case: Case, count: int, jobs: int = 1) -> tuple[list[Run], str, list[str]]:
    """The runs, the report, and what is not as it should be."""
    scenario = load(case.files)
    scenario.runs = count
    began = time.monotonic()
    runs = cli.run_all(scenario, jobs)
    verdicts = report.judge(scenario, runs)
    text = report.text(scenario, runs, verdicts, time.monotonic() - began, all_paths=False)
    return runs, text, [f"{case}: {verdict}" for verdict in verdicts if not verdict.holds]


def percentiles(pooled: dict[str, Figures]) -> list[str]:
    """What is over the bounds."""
    return [
        f"all topologies: {name} <= {most} after {after}: it is {report.show(pooled[after].value(name))}"
        for after, bounds in PERCENTILES.items()
        for name, most in bounds.items()
        if pooled[after].value(name) > most
    ]


def main(count: str = "25", jobs: str = "2") -> int:
    """Prints the report of each case, then what failed."""
    failed, pooled = list[str](), {after: Figures() for after in PERCENTILES}
    for case in CASES:
        runs, text, problems = perform(case, int(count), int(jobs))
        print(f"\n{case}\n{text}", flush=True)
        failed += problems
        for after in pooled if case.script == "events" else ():
            pooled[after].add(merge(runs, after))
    failed += percentiles(pooled)
    for after, bounds in PERCENTILES.items():
        values = (f"{name} {report.show(pooled[after].value(name))}" for name in bounds)
        print(f"all topologies after {after}:", *values)
    print("\n".join(f"FAILED: {problem}" for problem in failed) or "all is as it should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

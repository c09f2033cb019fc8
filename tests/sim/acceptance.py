# SPDX-License-Identifier: GPL-3.0-or-later
"""The acceptance figures of routing: scripts on topologies, from tests/sim/scenarios.

    python -m tests.sim.acceptance [RUNS [JOBS]]    # or `make sim`: all of them, 25 seeds each
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from cloudvpn.sim import cli

FOLDER = Path(__file__).parent / "scenarios"
STUDIED = ("ring8", "ring32", "complete8", "random16", "cliques16", "grid64", "random64")


class Case(NamedTuple):
    script: str
    topology: str

    @property
    def files(self) -> list[str]:
        return [str(FOLDER / f"topology-{self.topology}.toml"), str(FOLDER / f"{self.script}.toml")]


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


def main(runs: str = "25", jobs: str = "2") -> int:
    """Prints the report of each case, then those that failed."""
    failed = []
    for case in CASES:
        print(f"\n{case.script} on {case.topology}", flush=True)
        if cli.start([*case.files, "--runs", runs, "--jobs", jobs]):
            failed.append(f"{case.script} on {case.topology}")
    print(f"\n{len(CASES) - len(failed)} of {len(CASES)} cases are as they should be")
    print("\n".join(f"FAILED: {case}" for case in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

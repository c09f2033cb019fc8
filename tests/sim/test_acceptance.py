# SPDX-License-Identifier: GPL-3.0-or-later
"""The acceptance figures of routing with the shipped code: the small ones here, all of them by `make sim`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudvpn.sim import cli
from cloudvpn.sim.run import merge
from cloudvpn.sim.scenario import load
from tests.sim.acceptance import CASES, FOLDER, Case

RUNS = "2"
# What `make test` has time for.
QUICK = {"ring8", "complete8", "random16", "cliques16", "random100", "complete32"}


@pytest.mark.parametrize("case", [case for case in CASES if case.topology in QUICK], ids="-".join)
def test_routing_is_as_good_as_its_design(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    runs = "1" if case.topology in ("random100", "complete32") or case.script == "load" else RUNS
    code = cli.start([*case.files, "--runs", runs])
    assert (code, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize("topology", ["ring8", "random16"])
def test_a_mesh_of_which_half_is_ours_is_no_worse_than_one_of_2009(topology: str) -> None:
    figures = {}
    for script in ("rule-2009", "mixed"):
        scenario = load([Path(file) for file in Case(script, topology).files])
        scenario.runs = 5
        figures[script] = merge(cli.run_all(scenario, jobs=1))
    for name in ("loop_s", "back_s", "back_p95_s", "forgotten_s", "frames_lost", "frames_looped", "crossings_looped"):
        assert figures["mixed"].value(name) <= figures["rule-2009"].value(name), name


def test_every_scenario_is_used() -> None:
    scripts = {f"{case.script}.toml" for case in CASES} | {f"topology-{case.topology}.toml" for case in CASES}
    assert scripts == {path.name for path in FOLDER.glob("*.toml")}

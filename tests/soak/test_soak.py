# SPDX-License-Identifier: GPL-3.0-or-later
"""A soak of some seconds: the same code as `make soak`; too short to judge memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lab import NETNS, Lab, until, why_not
from tests.soak.faults import kill_node, reload_broken_file, reload_options, reset_link
from tests.soak.judge import HELD, SAMPLES_OF_REST, change_of, judge, loss_of
from tests.soak.perform import Plan, perform

pytestmark = [pytest.mark.alone, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]
ROOT = Path(__file__).parents[2]


def test_a_mesh_with_a_reset_a_kill_and_reloads_holds_all_that_it_must(tmp_path: Path) -> None:
    plan = Plan(0, 8, 0, (0.5, 1.5), 0.1, (reset_link, kill_node), (reload_options, reload_broken_file))
    with Lab() as lab:
        run = perform(lab, plan, tmp_path)
    assert judge(run) == []
    assert [event.kind for event in run.faults] == ["reset link", "kill node"]
    assert [event.kind for event in run.reloads] == ["reload options", "reload broken file"]
    assert len(run.lives) == 9, "one was started again"
    judged = [life for life in run.lives for read, _ in HELD.values() if change_of(run, life, read, SAMPLES_OF_REST)]
    assert len(judged) >= 7 * len(HELD), "descriptors, threads and tasks were seen"
    losses = {pair: loss_of(run, pair) for pair in run.flows}
    killed = run.faults[1].what
    assert any(loss.lost for pair, loss in losses.items() if killed in pair), "the killed one missed something"
    assert min(loss.judged for loss in losses.values()) > 10
    assert all(bulk.received > 0 for bulk in run.bulks.values())
    assert {path.name for path in tmp_path.glob("*.log")} == {f"{name}.log" for name in "abcdefgh"}


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_a_run_that_is_interrupted_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.soak", "--folder", tmp_path / "soak"],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: len(list(tmp_path.glob("cv*/*.held"))) == 8, 60, "all nodes")
        [directory] = tmp_path.glob("cv*n*")
        prefix = directory.name.rpartition("-")[0]
        assert len(list(NETNS.glob(f"{prefix}-*"))) == 9
        daemons = [int(held.read_text().split()[0]) for held in directory.glob("*.held")]
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, output
    assert not list(NETNS.glob(f"{prefix}-*")) and not directory.exists()
    assert not [pid for pid in daemons if Path(f"/proc/{pid}").exists()]

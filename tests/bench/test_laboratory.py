# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory of the benchmarks: what it measures arrives, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.lab.hosts import BenchError, Lab
from bench.lab.load import measure
from bench.lab.nodes import Program
from bench.peers.tunnels import direct
from tests.netns.lab import NETNS, until, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
ROOT = Path(__file__).parents[2]


def test_all_figures_of_two_daemons_are_measured() -> None:
    with Lab() as lab:
        figures = measure(lab, direct(lab, Program()), seconds=1)
    assert figures.tcp_mbit > 0 and figures.tcp_streams_mbit > 0 and figures.udp_kpps > 0
    assert figures.rtt_us > 0 and figures.loaded_rtt_us > 0 and figures.cpu_s_per_gb > 0
    assert not namespaces(lab.directory.name) and not lab.directory.exists()


def test_a_laboratory_that_fails_leaves_nothing_and_shows_its_logs() -> None:
    with pytest.raises(BenchError, match=r"(?s)never true: not within.*--- a-sh\.log\nsaid in the log"), Lab() as lab:
        lab.start(lab.host("a"), "sh", "-c", "echo said in the log; trap '' TERM; sleep 100")
        lab.until(lambda: "said" in lab.log_of(lab.host("a"), "sh").read_text(), "the log")
        lab.until(lambda: False, "never true", patience=0)
    assert not namespaces(lab.directory.name) and not lab.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "bench.peers", "cloudvpn", "--rounds", "1", "--seconds", "60"],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: list(tmp_path.glob("bench-*/*-iperf3.log")), 20, "the load")
        [directory] = tmp_path.glob("bench-*")
        assert {f"{directory.name}-a", f"{directory.name}-b"} == namespaces(directory.name)
        run.send_signal(number)
        output, _ = run.communicate(timeout=20)
    finally:
        run.kill()
    assert run.returncode == 130, output
    assert not namespaces(directory.name) and not directory.exists()


def namespaces(prefix: str) -> set[str]:
    return {path.name for path in NETNS.glob(f"{prefix}-*")}

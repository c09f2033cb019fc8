# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures every case, each of its rounds beside one of the calibration loop.

The name keeps pytest from collecting this file unless it is asked for.
"""

from __future__ import annotations

import os
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.build import build

build()

from bench.micro import calibration  # noqa: E402
from bench.micro.cases import CASES  # noqa: E402

ROUNDS = 300
# This case does its work twice: shows that a comparison notices.
SLOW = os.environ.get("BENCH_SLOW")


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, benchmark: BenchmarkFixture) -> None:
    loop = CASES[name]()
    calibrations: list[int] = []

    def prepare() -> None:
        loop.prepare()
        start = time.perf_counter_ns()
        calibration.run()
        calibrations.append(time.perf_counter_ns() - start)

    def run() -> int:
        if name == SLOW:
            loop.run()
            loop.prepare()
        return loop.run()

    done = benchmark.pedantic(run, setup=prepare, rounds=ROUNDS, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert done == loop.ops, "operations without effect were measured"
    assert benchmark.stats is not None
    benchmark.extra_info["ns"] = min(benchmark.stats.stats.data) * 1e9 / loop.ops
    benchmark.extra_info["bytes"] = loop.op_bytes
    benchmark.extra_info["calibration_ns"] = min(calibrations) / calibration.ops

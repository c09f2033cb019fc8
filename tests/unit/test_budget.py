# SPDX-License-Identifier: GPL-3.0-or-later
"""A share of the processor, on clocks that only the test moves."""

from __future__ import annotations

import pytest

from cloudvpn import budget
from cloudvpn.budget import Budget


class Clocks:
    def __init__(self) -> None:
        self.now = self.used = 100.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.used


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(budget, "time", made)
    return made


def work(clocks: Clocks, spend: Budget, seconds: float) -> None:
    with spend:
        clocks.used += seconds
        clocks.now += seconds


def test_who_works_whenever_there_is_something_left_gets_its_share(clocks: Clocks) -> None:
    spend, worked = Budget(0.2, 0.05), 0.0
    while clocks.now < 200:
        clocks.now += spend.pause()
        work(clocks, spend, 0.003)
        worked += 0.003
    assert worked == pytest.approx(0.2 * 100 + 0.05, abs=0.01)


def test_no_more_is_saved_up_than_may_be(clocks: Clocks) -> None:
    spend = Budget(0.5, 0.1)
    clocks.now += 1000
    assert spend.pause() == 0
    work(clocks, spend, 0.6)    # meanwhile it was given 0.3
    assert spend.pause() == pytest.approx((0.6 - 0.1 - 0.3) / 0.5)


def test_time_that_passes_while_others_work_is_not_charged(clocks: Clocks) -> None:
    spend = Budget(0.1, 0.1)
    with spend:
        clocks.now += 5     # it was not on the processor
    assert spend.pause() == 0


def test_work_that_fails_is_charged(clocks: Clocks) -> None:
    spend = Budget(0.1, 0.1)
    with pytest.raises(OSError), spend:
        clocks.used += 1
        raise OSError
    assert spend.pause() == pytest.approx(9)

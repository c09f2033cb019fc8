# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a peer is in the log once, and then as a count: fake clock, real log."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloudvpn.repeats import FIRST_PAUSE, LONGEST_PAUSE, MAX_KNOWN, Repeats


class Clock:
    """As much of a loop as timers need."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.numbers = itertools.count()

    def call_later(self, delay: float, callback: Callable[..., None], *words: Any) -> None:
        heapq.heappush(self.timers, (self.now + delay, next(self.numbers), callback, words))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            self.now, _, callback, words = heapq.heappop(self.timers)
            callback(*words)
        self.now = end


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repeats(clock: Clock) -> Repeats:
    return Repeats(clock)  # type: ignore[arg-type]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings since it was asked last."""
    caplog.set_level(logging.DEBUG, "cloudvpn")

    def take() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        caplog.clear()
        return lines

    yield take


def test_the_same_of_one_host_is_said_once_and_then_counted(
    clock: Clock, repeats: Repeats, said: Callable[[], list[str]]
) -> None:
    for port in range(5):
        repeats.warn("refused", f"192.0.2.7:{port}", "192.0.2.7", "expired")
        clock.advance(10)
    assert said() == ["refused 192.0.2.7:0: expired"]
    clock.advance(FIRST_PAUSE - 50)
    assert said() == ["refused 192.0.2.7 4 times more within 1 min: expired"]


def test_the_debug_log_has_each(clock: Clock, repeats: Repeats, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cloudvpn")
    for port in range(3):
        repeats.warn("refused", f"192.0.2.7:{port}", "192.0.2.7", "expired")
    assert [record.getMessage() for record in caplog.records] == [f"refused 192.0.2.7:{port}: expired"
                                                                  for port in range(3)]


def test_another_event_host_or_reason_is_said_at_once(repeats: Repeats, said: Callable[[], list[str]]) -> None:
    complaints = [("refused", "a:1", "a", "x"), ("no link to", "a:1", "a", "x"), ("refused", "b:1", "b", "x"),
                  ("refused", "a:1", "a", "y")]  # fmt: skip
    for complaint in complaints * 3:
        repeats.warn(*complaint)
    assert said() == ["refused a:1: x", "no link to a:1: x", "refused b:1: x", "refused a:1: y"]


def test_the_counts_of_a_day_come_ever_more_seldom(
    clock: Clock, repeats: Repeats, said: Callable[[], list[str]]
) -> None:
    for _ in range(24 * 360):
        repeats.warn("refused", "a:1", "a", "x")
        clock.advance(10)
    lines = said()
    assert [line.split()[-3] for line in lines[1:9]] == ["1", "2", "4", "8", "16", "32", "60", "60"]
    assert len(lines) == 1 + 6 + 22
    assert 1 + sum(int(line.split()[2]) for line in lines[1:]) > 24 * 360 - LONGEST_PAUSE / 10


def test_what_did_not_come_again_is_forgotten_and_new_when_it_comes(
    clock: Clock, repeats: Repeats, said: Callable[[], list[str]]
) -> None:
    repeats.warn("refused", "a:1", "a", "x")
    clock.advance(FIRST_PAUSE)
    assert not repeats.known and not clock.timers
    repeats.warn("refused", "a:2", "a", "x")
    assert said() == ["refused a:1: x", "refused a:2: x"]


def test_a_flood_from_everywhere_is_one_complaint_more(
    clock: Clock, repeats: Repeats, said: Callable[[], list[str]]
) -> None:
    for number in range(10 * MAX_KNOWN):
        repeats.warn("refused", f"{number}:1", str(number), "x")
    assert len(repeats.known) == len(clock.timers) == MAX_KNOWN + 1
    assert said()[MAX_KNOWN - 1:] == [f"refused {MAX_KNOWN - 1}:1: x", "refused others: too many at once to name each"]
    repeats.warn("refused", "0:2", "0", "x")
    clock.advance(FIRST_PAUSE)
    assert said() == ["refused 0 1 times more within 1 min: x",
                      f"refused others {9 * MAX_KNOWN - 1} times more within 1 min: too many at once to name each"]

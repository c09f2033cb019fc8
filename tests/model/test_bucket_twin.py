# SPDX-License-Identifier: GPL-3.0-or-later
"""The token bucket against its slow twin, which counts in fractions."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from cloudvpn._fast.bucket import TokenBucket

SECOND = 1_000_000
CATCH_UP_US = 50_000
RATES = [1, 7, 999_983, 10**6, 10**9 + 7, 1 << 40]


class NaiveBucket:
    def __init__(self, rate: int, burst: int, now: int) -> None:
        self.rate, self.burst, self.level, self.filled, self.wanted = rate, burst, Fraction(burst), now, False

    def is_open(self, now: int) -> bool:
        if now > self.filled:
            late = Fraction(self.rate * CATCH_UP_US, SECOND) if self.wanted else 0
            gained = self.level + Fraction(self.rate * (now - self.filled), SECOND)
            self.level = min(gained, max(Fraction(self.burst), Fraction(late)))
            self.filled, self.wanted = now, False
        self.wanted = self.wanted or self.level <= 0
        return self.level > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("burst", [1, 2048, 1 << 30])
@pytest.mark.parametrize("rate", RATES)
def test_bucket_and_twin_agree_at_each_moment(rate: int, burst: int, seed: int) -> None:
    chance = random.Random(seed)
    now = chance.choice([0, 1, SECOND, 1 << 50])
    bucket, twin = TokenBucket(rate, burst, now), NaiveBucket(rate, burst, now)
    shut = 0
    for _ in range(5000):
        now += chance.choice([0, 0, 1, 7, 1000, 30_000, 80_000, SECOND])
        is_open = bucket.is_open(now)
        assert is_open == twin.is_open(now)
        if is_open:
            cost = chance.choice([1, 60, 1514, 65_600, max(rate // 100, 1), max(rate // 5, 1), burst])
            bucket.charge(cost)
            twin.level -= cost
        else:
            shut += 1
            if chance.random() < 0.3:
                now = bucket.opens_at()
                assert not twin.is_open(now - 1) and not bucket.is_open(now - 1)
                assert twin.is_open(now) and bucket.is_open(now)
    assert shut


@pytest.mark.parametrize("rate", RATES)
def test_ten_thousand_seconds_of_waiting_drift_by_nothing(rate: int) -> None:
    bucket, passed, now = TokenBucket(rate, 1, 0), 0, 0
    for _ in range(10_000):
        assert bucket.is_open(now)
        bucket.charge(rate)
        passed += rate
        assert not bucket.is_open(now)
        now = bucket.opens_at()
    level = 1 + Fraction(rate * now, SECOND) - passed
    assert 0 < level <= Fraction(rate, SECOND), "exactly what has come in, and open for no more than a microsecond"


@pytest.mark.parametrize(("waited", "passes"), [(0, 0), (1, 1), (1000, 1000), (50_000, 50_000), (50_001, 50_000),
                                                (SECOND, 50_000)])  # fmt: skip
def test_who_was_refused_catches_up_on_50_ms_at_most(waited: int, passes: int) -> None:
    bucket = TokenBucket(SECOND, 10, 0)
    bucket.charge(10)
    assert not bucket.is_open(0)
    passed = 0
    while bucket.is_open(waited):
        bucket.charge(1)
        passed += 1
    assert passed == passes


def test_who_was_not_refused_finds_the_burst_and_no_more() -> None:
    bucket = TokenBucket(SECOND, 10, 0)
    bucket.charge(10)
    for now in (SECOND, 2 * SECOND):
        assert bucket.is_open(now)
        bucket.charge(10)
    assert not bucket.is_open(2 * SECOND)


def test_a_bucket_without_a_rate_is_always_open() -> None:
    bucket = TokenBucket(0, 1, 0)
    for _ in range(10):
        bucket.charge(1 << 40)
    assert bucket.is_open(0)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(SECOND, 1, SECOND)
    bucket.charge(1)
    assert not bucket.is_open(SECOND) and not bucket.is_open(0) and bucket.is_open(SECOND + 1)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The random source: repeatable with a seed, never the same without, roughly uniform in both."""

from __future__ import annotations

from collections import Counter

import pytest

from cloudvpn._fast.random import RandomSource

BLOCK = 32  # numbers that are drawn at once


def draws(source: RandomSource, count: int) -> list[int]:
    return [source.draw() for _ in range(count)]


def splitmix(seed: int, count: int) -> list[int]:
    """The published splitmix64, high halves."""
    numbers, mask = [], (1 << 64) - 1
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        word = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & mask
        numbers.append((word ^ word >> 31) >> 32)
    return numbers


@pytest.mark.parametrize("seed", [0, 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 1])
def test_a_seed_gives_the_published_sequence_across_blocks(seed: int, count: int) -> None:
    source = RandomSource(seed)
    assert source.seeded
    assert draws(source, count) == splitmix(seed, count)


def test_seeds_that_differ_give_sequences_that_differ() -> None:
    assert len({tuple(draws(RandomSource(seed), 4)) for seed in range(100)}) == 100


def test_the_system_source_never_repeats_itself() -> None:
    sources = [RandomSource() for _ in range(20)]
    assert not any(source.seeded for source in sources)
    assert len({tuple(draws(source, 4)) for source in sources}) == 20
    blocks = [tuple(draws(sources[0], BLOCK)) for _ in range(20)]
    assert len(set(blocks)) == 20


@pytest.mark.parametrize("source", [RandomSource(7), RandomSource()], ids=["seeded", "system"])
def test_numbers_are_roughly_uniform(source: RandomSource) -> None:
    count = 64_000
    numbers = draws(source, count)
    assert all(0 <= number < 1 << 32 for number in numbers)
    for shift in (0, 14, 26):
        buckets = Counter(number >> shift & 63 for number in numbers)
        # 1,000 are expected in each of 64; six standard deviations are 190: one false alarm in millions of runs.
        assert len(buckets) == 64 and all(810 < found < 1190 for found in buckets.values())

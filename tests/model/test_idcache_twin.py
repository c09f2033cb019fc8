# SPDX-License-Identifier: GPL-3.0-or-later
"""The id cache against its slow twin: seeded random ids, compared after each."""

from __future__ import annotations

import random

import pytest

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.random import RandomSource
from tests.model.naive import NaiveIdCache


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 15, 16, 17, 100])
@pytest.mark.parametrize("crowding", [1, 2, 4], ids=["few ids", "some ids", "many ids"])
def test_cache_and_twin_agree_after_each_id(capacity: int, crowding: int) -> None:
    chance = random.Random(capacity)
    cache, twin = IdCache(capacity, RandomSource(capacity)), NaiveIdCache(capacity)
    ids = [0, 0xFFFFFFFF, *(chance.getrandbits(32) for _ in range(crowding * capacity))]
    remembered = 0
    for _ in range(6000):
        broadcast_id = chance.choice(ids)
        was_seen = cache.check(broadcast_id)
        assert was_seen == twin.check(broadcast_id)
        assert cache.came_back == twin.came_back
        assert len(cache) == min(len(twin.taken), capacity)
        remembered += was_seen
    assert 50 < remembered < 6000 and cache.came_back > 50


@pytest.mark.parametrize("capacity", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("others", [-1, 0, 1])
def test_an_id_is_remembered_for_exactly_capacity_ids(capacity: int, others: int) -> None:
    cache = IdCache(capacity, RandomSource(1))
    for broadcast_id in range(capacity + others + 1):
        assert not cache.check(broadcast_id)
    assert cache.check(0) == (others < 0)
    assert cache.came_back == (0 <= others < capacity)


@pytest.mark.parametrize("capacity", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("others", [-1, 0, 1])
def test_an_id_counts_as_come_back_for_exactly_twice_capacity_ids(capacity: int, others: int) -> None:
    cache = IdCache(capacity, RandomSource(1))
    for broadcast_id in range(2 * capacity + others + 1):
        cache.check(broadcast_id)
    assert not cache.check(0)
    assert cache.came_back == (others < 0)


def test_asking_again_does_not_keep_an_id_young() -> None:
    cache = IdCache(3, RandomSource(1))
    assert [cache.check(broadcast_id) for broadcast_id in (1, 2, 1, 3, 1, 4, 1)] == [0, 0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize("capacity", [0, (1 << 24) + 1])
def test_capacities_out_of_range_are_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="16,777,216"):
        IdCache(capacity, RandomSource(1))
    assert IdCache(min(max(capacity, 1), 1 << 24), RandomSource(1)).capacity in (1, 1 << 24)

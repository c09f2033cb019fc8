# SPDX-License-Identifier: GPL-3.0-or-later
"""Multipath against its slow twin, which knows each way's probability; random offers, seeded."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest

from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.scatter import choose
from cloudvpn._fast.wire import route_packet
from tests.model.naive import NaiveRouteTable

MAC = 0x020000000001
DRAWS = 20_000
LOCAL = 0
Offer = tuple[int, int, int, int]  # port, announced dist, announced ping, ping of the link (0: not measured)


def table_of(offers: list[Offer]) -> RouteTable:
    table = RouteTable(200, 10, RandomSource(1))
    for port, dist, ping, link in offers:
        table.open_port(port)
        table.measure_port(port, link)
        table.apply(port, route_packet(1, [(MAC, dist, ping)])[4:], True)
    return table


def is_finite(offer: Offer) -> bool:
    _, _, ping, link = offer
    return link > 0 and ping + link + 2 < 0xFFFFFFFF


def chances(offers: list[Offer], source: int, ratio: int) -> dict[int, Fraction]:
    """How likely each port is, by the words of the document."""
    twin = NaiveRouteTable(200, 10)
    for port, dist, ping, link in offers:
        twin.measure(port, link)
        twin.apply_set(port, [(MAC, dist, ping)])
    _, _, own_dist = twin.best()[MAC]
    farthest = own_dist if source == LOCAL else own_dist - 1
    waiting = sorted(
        (cost - 2, port)
        for port, (cost, dist, _) in twin.candidates(MAC).items()
        if port != source and dist - 1 <= farthest
    )
    found, left = {}, Fraction(1)
    while waiting:
        group = [port for ping, port in waiting if ping < ratio * waiting[0][0]]
        waiting = waiting[len(group) :]
        each = left / (len(group) + (1 if waiting else 0))
        found.update(dict.fromkeys(group, each))
        left -= each * len(group)
    assert sum(found.values()) in (0, 1)
    return found


def counts(table: RouteTable, source: int, ratio: int) -> Counter[int | None]:
    chance = RandomSource(7)
    return Counter(choose(table, chance, MAC, source, ratio) for _ in range(DRAWS))


def assert_alike(counted: Counter[int | None], expected: dict[int, Fraction]) -> None:
    assert counted.keys() <= expected.keys()
    for port, share in expected.items():
        deviation = (float(share * (1 - share)) * DRAWS) ** 0.5
        assert abs(counted[port] - float(share) * DRAWS) <= 5 * deviation + 1e-9, (port, counted[port], share)


@pytest.mark.parametrize("seed", range(40))
def test_each_way_is_taken_as_often_as_the_document_says(seed: int) -> None:
    chance = random.Random(seed)
    pings = [1, 2, 3, 5, 100, 199, 200, 201, 1000, 20_000, 0xFFFFFFF0]
    offers = [
        (port, chance.choice([0, 1, 1, 2]), chance.choice(pings), chance.choice([0, 1, 100, 100, 5000]))
        for port in range(1, chance.randrange(2, 9))
    ]
    if not any(map(is_finite, offers)):
        offers.append((9, 1, 1, 1))
    table, ratio = table_of(offers), chance.choice([2, 3, 10, 65535])
    for source in (LOCAL, offers[0][0], 150):
        if expected := chances(offers, source, ratio):
            assert_alike(counts(table, source, ratio), expected)
        else:
            assert counts(table, source, ratio) == {source: DRAWS}


def test_equal_ways_share_alike_and_a_slower_one_gets_what_the_group_leaves() -> None:
    offers = [(1, 1, 100, 900), (2, 1, 100, 900), (3, 1, 100, 1899), (4, 1, 100, 1900)]
    assert chances(offers, LOCAL, 2) == {1: Fraction(1, 4), 2: Fraction(1, 4), 3: Fraction(1, 4), 4: Fraction(1, 4)}
    offers[2] = (3, 1, 100, 1900)
    expected = {1: Fraction(1, 3), 2: Fraction(1, 3), 3: Fraction(1, 6), 4: Fraction(1, 6)}
    assert chances(offers, LOCAL, 2) == expected
    assert_alike(counts(table_of(offers), LOCAL, 2), expected)


@pytest.mark.parametrize(("dist", "from_tap", "in_transit"), [(1, True, True), (2, True, False), (3, False, False)])
def test_only_a_nearer_neighbour_is_taken_and_at_the_start_one_as_far(
    dist: int, from_tap: bool, in_transit: bool
) -> None:
    """This node is two hops away. A neighbour that goes through it is three hops away."""
    table = table_of([(1, 1, 100, 100), (2, dist, 100, 101)])
    assert counts(table, LOCAL, 2).keys() == ({1, 2} if from_tap else {1})
    assert counts(table, 5, 2).keys() == ({1, 2} if in_transit else {1})


def test_a_way_that_the_hold_rule_excludes_is_not_taken() -> None:
    """Both neighbours are as far as this node: one has a ping that could not come from here."""
    table = table_of([(1, 1, 1000, 1000), (2, 2, 2001, 500), (3, 2, 2002, 500)])
    assert counts(table, LOCAL, 65535).keys() == {1, 2}
    table.set_mesh(MAC, 9000, 1, exclusive=True)
    assert choose(table, RandomSource(1), MAC, LOCAL, 2) == table.mesh_port


def test_a_frame_is_never_sent_to_where_it_came_from() -> None:
    table = table_of([(1, 1, 1, 1), (2, 1, 1, 500)])
    assert counts(table, 1, 2) == {2: DRAWS}
    assert counts(table_of([(1, 1, 1, 1)]), 1, 2) == {1: DRAWS}, "which the switch drops"


def test_the_own_mac_and_an_unknown_one_are_not_scattered() -> None:
    table = table_of([(1, 1, 100, 100), (2, 1, 100, 100)])
    table.set_local(MAC + 1, True)
    assert choose(table, RandomSource(1), MAC + 1, 3, 2) == LOCAL
    assert choose(table, RandomSource(1), MAC + 2, 3, 2) is None
    for port in (1, 2):
        table.close_port(port)
    assert choose(table, RandomSource(1), MAC, 3, 2) is None


@pytest.mark.parametrize("links", [63, 64, 65, 200])
def test_of_very_many_ways_the_nearest_64_are_used(links: int) -> None:
    order = random.Random(1).sample(range(1, links + 1), links)
    table = table_of([(port, 0, 1, 1000 + place) for place, port in enumerate(order)])
    assert counts(table, LOCAL, 2).keys() == set(order[:64])

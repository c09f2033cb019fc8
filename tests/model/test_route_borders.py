# SPDX-License-Identifier: GPL-3.0-or-later
"""The route table at its limits: one below, at, and one above each."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from tests.golden.streams import STREAMS, Stream
from tests.model.test_route_twin import entries, read

MAC = 0x020000000000
OWN = 0x02AA00000001
MAX = 65535 - 2     # MACs of others; with the own one, and the one it had before, they fit a route set
INFINITE = 0xFFFFFFFF
HOLD, REST = 20, 10     # heartbeats


def table(ports: int = 4, routes: int = 256, *, pings: int = 5, seed: int = 1, **limits: int) -> RouteTable:
    """A table whose ports are all open and measured."""
    made = RouteTable(ports, routes, RandomSource(seed), **limits)
    for port in range(1, ports + 1):
        made.open_port(port)
        made.measure_port(port, pings)
    return made


def rest(routes: RouteTable, beats: int) -> list[tuple[int, int, int]]:
    """So many heartbeats; what a neighbour that leads nowhere hears in them."""
    return [entry for _ in range(beats) for entry in read(routes.told(False))]


def macs(routes: RouteTable, port: int = 1) -> set[int]:
    return {mac - MAC for mac, _, _ in routes.offered_by(port)}


@pytest.mark.parametrize("whole", [True, False], ids=["set", "diff"])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
@pytest.mark.parametrize("limit", [1, 2, 16, 256])
def test_a_link_keeps_as_many_routes_as_it_may_and_those_are_the_nearest(limit: int, beyond: int, whole: bool) -> None:
    routes = table(routes=limit)
    offered = [(MAC + number, 0, 1000 - number) for number in range(limit + beyond)]
    random.Random(limit).shuffle(offered)
    routes.apply(1, entries(offered), whole)
    assert macs(routes) == set(range(max(beyond, 0), limit + beyond))
    assert routes.refused_full == max(beyond, 0)
    assert not routes.asks_again(1)
    routes.apply(1, entries([(MAC + limit + beyond - 1, 0, 0)]), False)
    assert routes.asks_again(1) == (beyond > 0)
    assert not routes.asks_again(1)
    assert routes.count_of(2) == 0 and not routes.asks_again(2)


def test_a_set_over_the_limit_keeps_the_nearest_whatever_was_there_before() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        routes = table(routes=4)
        for _ in range(3):
            offered = [(MAC + mac, 0, 1 + ping) for ping, mac in enumerate(chance.sample(range(12), 8))]
            nearest = {mac - MAC for mac, _, _ in offered[:4]}
            chance.shuffle(offered)
            routes.apply(1, entries(offered), True)
            assert macs(routes) == nearest


def test_of_the_equally_far_chance_decides_who_goes() -> None:
    kept: Counter[int] = Counter()
    for seed in range(600):
        routes = table(routes=2, seed=seed)
        routes.apply(1, entries([(MAC, 0, 1), *((MAC + number, 0, 9) for number in range(1, 5))]), True)
        assert 0 in macs(routes) and routes.count_of(1) == 2
        kept.update(macs(routes) - {0})
    # 150 are expected for each of four; five standard deviations are 53.
    assert set(kept) == {1, 2, 3, 4} and all(97 < count < 203 for count in kept.values())


def test_of_the_equally_far_chance_decides_who_makes_room_for_a_nearer_one() -> None:
    gone: Counter[int] = Counter()
    for seed in range(600):
        routes = table(routes=4, seed=seed)
        routes.apply(1, entries([(MAC + number, 0, 9) for number in range(4)]), True)
        routes.apply(1, entries([(MAC + 4, 0, 8)]), False)
        gone.update(set(range(5)) - macs(routes))
    assert set(gone) == {0, 1, 2, 3} and all(97 < count < 203 for count in gone.values())


@pytest.mark.parametrize(("dist", "is_used"), [(62, True), (63, True), (64, False), (65, False), (65535, False)])
def test_a_route_at_the_greatest_distance_is_not_used_and_removes_what_was_nearer(dist: int, is_used: bool) -> None:
    for whole in (True, False):
        routes = table()
        routes.apply(1, entries([(MAC, 0, 1)]), whole)
        routes.apply(1, entries([(MAC, dist, 1)]), whole)
        assert routes.best() == ([(MAC, 1, 8, dist + 1)] if is_used else [])
        assert routes.refused_far == (not is_used)


@pytest.mark.parametrize("announced", [1, 2, 1 << 31, INFINITE - 8, INFINITE - 7, INFINITE - 1, INFINITE])
@pytest.mark.parametrize("link", [1, 5, 6, 1 << 31, INFINITE - 4, INFINITE - 3, INFINITE - 2, INFINITE])
def test_sums_of_pings_saturate_and_what_is_infinite_is_not_used(announced: int, link: int) -> None:
    routes = table(pings=link)
    routes.apply(1, entries([(MAC, 0, announced)]), True)
    cost = announced + link + 2
    assert routes.best() == ([(MAC, 1, cost, 1)] if cost < INFINITE else [])
    assert routes.offered_by(1) == [(MAC, 0, announced)]
    routes.apply(2, entries([(MAC, 0, 1)]), True)
    routes.measure_port(2, 1)
    assert routes.port_to(MAC) == (1 if cost < 2004 else 2), "frames move for 2 ms"


def test_routes_of_a_link_without_a_ping_are_kept_and_not_used() -> None:
    routes = RouteTable(2, 256, RandomSource(1))
    routes.open_port(1)
    routes.apply(1, entries([(MAC, 0, 1)]), True)
    assert routes.offered_by(1) == [(MAC, 0, 1)]
    assert routes.best() == [] and routes.port_to(MAC) is None and routes.told(False) == routes.told(True) == b""
    routes.measure_port(1, 1)
    assert routes.best() == [(MAC, 1, 4, 1)]
    assert read(routes.told(False)) == [(MAC, 1, 4)]


@pytest.mark.parametrize("is_known_before", [True, False])
def test_no_peer_takes_the_own_mac_whatever_it_announces(is_known_before: bool) -> None:
    routes = table(pings=1)
    if is_known_before:
        routes.set_local(OWN, True)
    for port, ping in enumerate((1, INFINITE - 1, INFINITE), 1):
        routes.apply(port, entries([(OWN, 0, ping)]), True)
        routes.apply(port, entries([(OWN, 0, ping)]), False)
    if not is_known_before:
        assert routes.port_to(OWN) == 1
        routes.set_local(OWN, True)
    assert routes.port_to(OWN) == 0 and routes.best() == [(OWN, 0, 1, 0)]
    assert read(routes.told(False)) == [(OWN, 0, 1)]
    if is_known_before:
        assert routes.refused_own == 6
        routes.set_local(OWN, False)
        assert routes.port_to(OWN) is None
        assert read(routes.told(False)) == [(OWN, 0, 0)]


def test_no_group_is_taken_as_a_route() -> None:
    routes = table()
    groups = [0xFFFFFFFFFFFF, 0x01005E000001, 0x333300000001, 0x010000000000]
    for whole in (True, False):
        routes.apply(1, entries([(mac, 0, 1) for mac in groups]), whole)
    assert routes.best() == [] and routes.destination_count == 0 and routes.refused_own == 8


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_all_links_together_offer_at_most_max_offers(beyond: int) -> None:
    routes = table(ports=3, routes=8, max_offers=20)
    for port, count in ((1, 8), (2, 8), (3, 4 + beyond)):
        routes.apply(port, entries([(MAC + 100 * port + number, 0, 1) for number in range(count)]), True)
    assert routes.offer_count == min(20, 20 + beyond) and routes.refused_full == max(beyond, 0)
    assert not routes.asks_again(3)
    routes.close_port(1)
    assert routes.asks_again(3) == (beyond > 0)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_65533_macs_are_known_and_told_in_one_set(beyond: int) -> None:
    routes = table(routes=MAX)
    routes.apply(1, entries([(MAC + number, 0, 1) for number in range(MAX - 1)]), True)
    routes.apply(2, entries([(MAC + MAX + number, 0, 1) for number in range(1 + beyond)]), False)
    assert routes.destination_count == MAX + min(beyond, 0)
    assert routes.refused_full == max(beyond, 0)
    assert len(routes.told(False)) == len(routes.told(True)) == 12 * routes.destination_count
    assert not routes.asks_again(2), "there is no room yet"
    routes.apply(1, entries([(MAC, 0, 0)]), False)
    assert not routes.asks_again(2), "the neighbours do not know yet that a MAC is gone: it keeps its place"
    assert read(routes.told(False)) == [(MAC, 1, 0)]
    assert rest(routes, HOLD - 1) == [] and not routes.asks_again(2), "nor while it is held"
    rest(routes, 1)
    assert routes.asks_again(2) == (beyond > 0)


def test_the_own_mac_and_the_next_find_a_place_however_many_are_known() -> None:
    routes = table(routes=65535, max_offers=MAX)
    routes.apply(1, entries([(MAC + number, 0, 1) for number in range(MAX + 2)]), True)
    assert routes.destination_count == routes.offer_count == MAX and routes.refused_full == 2
    for number in range(3):
        routes.set_local(OWN + number, True)
        assert routes.port_to(OWN + number) == 0 and routes.destination_count == MAX + 1 + bool(number)
        assert len(routes.told(False)) == 12 * (1 + bool(number) if number else MAX + 1)
        assert len(routes.told(True)) == 12 * (MAX + 1)
        routes.set_local(OWN + number, False)
    assert read(routes.told(False)) == [(OWN + 2, 0, 0)] and routes.destination_count == MAX
    assert routes.refused_full == 2


def test_all_macs_are_exchanged_for_others_when_the_neighbours_were_told() -> None:
    routes = table(routes=MAX)
    old = {MAC + number for number in range(MAX)}
    new = {mac + MAX for mac in old}
    routes.apply(1, entries([(mac, 0, 1) for mac in old]), True)
    assert {mac for mac, _, _ in read(routes.told(False))} == old
    routes.apply(1, entries([(mac, 0, 1) for mac in new]), True)
    assert routes.refused_full == MAX
    assert {(mac, ping) for mac, _, ping in read(routes.told(False))} == {(mac, 0) for mac in old}
    assert routes.held_count == MAX
    rest(routes, HOLD)
    assert routes.held_count == routes.destination_count == 0 and routes.asks_again(1)
    routes.apply(1, entries([(mac, 0, 1) for mac in new]), True)
    assert {mac for mac, _, _ in read(routes.told(False))} == new


@pytest.mark.parametrize("moved", [-1001, -1000, -999, 999, 1000, 1001])
def test_a_ping_is_told_again_when_it_moved_by_more_than_the_limit(moved: int) -> None:
    routes = table(report_above=1000)
    routes.apply(1, entries([(MAC, 1, 5000)]), True)
    assert read(routes.told(False)) == [(MAC, 2, 5007)]
    routes.apply(1, entries([(MAC, 1, 5000 + moved)]), False)
    assert read(routes.told(False)) == ([(MAC, 2, 5007 + moved)] if abs(moved) > 1000 else [])
    routes.apply(1, entries([(MAC, 0, 5000 + moved)]), False)
    assert read(routes.told(False)) == [(MAC, 1, 5007 + moved)], "a distance is told always"


def test_steps_below_the_limit_add_up_until_they_are_told() -> None:
    routes = table(report_above=1000)
    told = []
    for ping in range(5000, 7500, 100):
        routes.apply(1, entries([(MAC, 0, ping)]), False)
        told += read(routes.told(False))
    assert told == [(MAC, 1, 5007), (MAC, 1, 6107), (MAC, 1, 7207)]


def test_a_closed_port_in_the_middle_leaves_the_others_as_they_were() -> None:
    routes = table(ports=5)
    for port in range(1, 6):
        routes.apply(port, entries([(MAC, 0, 10 * port), (MAC + port, 0, 1)]), True)
    routes.told(False)
    for port, left in ((3, {0, 1, 2, 4, 5}), (1, {0, 2, 4, 5}), (5, {0, 2, 4}), (2, {0, 4}), (4, set())):
        routes.close_port(port)
        assert routes.count_of(port) == 0
        told = read(routes.told(False))
        assert {mac - MAC for mac, _, _, _ in routes.best()} == left
        assert (MAC + port, 0) in {(mac, ping) for mac, _, ping in told}
    rest(routes, HOLD)
    assert routes.offer_count == routes.destination_count == routes.change_count == 0


def test_a_way_that_grew_by_a_hop_gives_way_to_an_equal_one_of_fewer_hops() -> None:
    routes = table()
    routes.apply(1, entries([(MAC, 1, 10)]), True)
    routes.apply(2, entries([(MAC, 2, 10)]), True)
    assert routes.port_to(MAC) == 1
    routes.apply(1, entries([(MAC, 3, 10)]), False)
    assert routes.port_to(MAC) == 1, "until the heartbeat, as it is no nearer than this node was"
    routes.told(False)
    assert routes.port_to(MAC) == 2


def test_a_port_is_not_told_of_what_it_leads_to() -> None:
    routes = table(ports=3)
    routes.set_local(OWN, True)
    routes.apply(1, entries([(MAC, 0, 9000)]), True)
    routes.apply(2, entries([(MAC, 1, 1000)]), True)
    assert [read(diff) for diff in routes.beat([1, 2, 3])] == [
        [(OWN, 0, 1), (MAC, 2, 1007)],
        [(OWN, 0, 1)],
        [(OWN, 0, 1), (MAC, 2, 1007)],
    ]
    routes.apply(2, entries([(MAC, 1, 50_000)]), False)
    assert [read(diff) for diff in routes.beat([1, 2, 3])] == [[(MAC, 1, 0)], [(MAC, 1, 9007)], [(MAC, 1, 9007)]]
    assert [read(routes.told(True, port)) for port in (1, 2)] == [[(OWN, 0, 1)], [(OWN, 0, 1), (MAC, 1, 9007)]]


def test_a_way_that_moves_to_another_port_is_news_for_those_two_ports_only() -> None:
    routes = table(ports=3)
    routes.apply(1, entries([(MAC, 0, 9000)]), True)
    routes.apply(2, entries([(MAC, 0, 9500)]), True)
    routes.beat([1, 2, 3])
    routes.close_port(1)
    assert routes.port_to(MAC) is None, "its ping is not below the least of this node"
    assert [read(diff) for diff in routes.beat([1, 2, 3])] == [[(MAC, 1, 9007)], [(MAC, 1, 0)], []]
    assert routes.port_to(MAC) == 2


def test_with_the_rule_of_2009_every_port_is_told_all_and_nothing_is_held() -> None:
    routes = table(ports=2, rule_2009=True)
    routes.apply(1, entries([(MAC, 0, 10)]), True)
    assert [read(diff) for diff in routes.beat([1, 2])] == [[(MAC, 1, 17)]] * 2
    routes.apply(2, entries([(MAC, 0, 9)]), True)
    assert routes.port_to(MAC) == 2, "a microsecond is enough"
    routes.apply(1, entries([(MAC, 60, 99)]), True)
    routes.close_port(2)
    assert routes.port_to(MAC) == 1, "it has no memory"
    routes.close_port(1)
    routes.told(False)
    assert routes.destination_count == 0 and routes.holds == 0


def test_a_mac_whose_last_feasible_offer_went_has_no_way_for_20_heartbeats() -> None:
    routes = table(ports=3)
    routes.apply(1, entries([(MAC, 0, 1000)]), True)
    routes.apply(2, entries([(MAC, 1, 1008)]), True)      # it leads through this node, for all that is known
    routes.told(False)
    routes.close_port(1)
    assert read(routes.told(False)) == [(MAC, 1, 0)] and (routes.holds, routes.held_count) == (1, 1)
    assert rest(routes, HOLD - 1) == [] and routes.port_to(MAC) is None
    assert rest(routes, 1) == [(MAC, 2, 1015)]
    assert routes.port_to(MAC) == 2 and routes.held_count == 0


@pytest.mark.parametrize(("dist", "ping", "is_taken"), [
    (0, 999, "at once"), (0, 1007, "at the heartbeat"), (1, 1006, "at the heartbeat"), (1, 1007, "never"),
    (9, 1006, "at the heartbeat"), (0, 10_000, "at the heartbeat"),
])  # fmt: skip
def test_a_feasible_offer_ends_the_hold(dist: int, ping: int, is_taken: str) -> None:
    routes = table(ports=3)
    routes.apply(1, entries([(MAC, 0, 1000)]), True)
    routes.told(False)
    routes.close_port(1)
    rest(routes, 5)
    assert routes.held_count == 1
    routes.apply(2, entries([(MAC, dist, ping)]), True)
    assert (routes.port_to(MAC) == 2) == (is_taken == "at once")
    routes.told(False)
    assert (routes.port_to(MAC) == 2) == (is_taken != "never")
    assert routes.held_count == (is_taken == "never") and routes.unfeasible == (is_taken == "never")


@pytest.mark.parametrize("beats", [REST - 1, REST])
def test_a_way_that_has_come_to_rest_makes_its_figures_the_minima(beats: int) -> None:
    routes = table()
    routes.apply(1, entries([(MAC, 0, 1000)]), True)
    rest(routes, REST)
    routes.apply(1, entries([(MAC, 0, 90_000)]), True)      # feasible by its hops alone
    routes.apply(2, entries([(MAC, 1, 9000)]), True)        # and this not at all
    rest(routes, beats)
    assert routes.port_to(MAC) == (1 if beats < REST else 2)
    assert routes.holds == 0


def test_a_way_gives_way_to_one_that_is_better_by_a_tenth_and_2_ms() -> None:
    for announced, better, moves in (
        (5000, 3001, False), (5000, 3000, True), (100_000, 90_001, False), (100_000, 89_990, True), (5000, 5000, False),
    ):  # fmt: skip
        routes = table()
        routes.apply(1, entries([(MAC, 0, announced)]), True)
        routes.apply(2, entries([(MAC, 0, better)]), True)
        routes.told(False)
        assert routes.port_to(MAC) == (2 if moves else 1), (announced, better)
        routes.apply(1, entries([(MAC, 1, announced)]), True)       # a hop more
        routes.told(False)
        assert routes.port_to(MAC) == 2, "no worse, with fewer hops"


def test_a_jittering_ping_moves_no_route() -> None:
    chance = random.Random(1)
    routes = table(report_above=5000)
    told = 0
    for beat in range(2000):
        for port in (1, 2):
            routes.measure_port(port, chance.randrange(19_000, 20_900))
            routes.apply(port, entries([(MAC, 1, 30_000 + chance.randrange(-900, 900))]), True)
        told += len(read(routes.told(False)))
        if beat == 0:
            moved = routes.way_changes
    assert (told, routes.way_changes, routes.holds) == (1, moved, 0)


# What version 2 knows.


def test_a_mac_that_version_2_has_as_its_own_is_never_taken_from_a_link() -> None:
    routes = table()
    mesh = routes.mesh_port
    routes.apply(1, entries([(MAC, 0, 1)]), True)
    assert routes.port_to(MAC) == 1
    assert routes.set_mesh(MAC, 50_000, 3, exclusive=True)
    assert routes.best() == [(MAC, mesh, 50_000, 3)] and routes.offered_by(1) == [(MAC, 0, 1)]
    assert [read(diff) for diff in routes.beat([1, 2])] == [[(MAC, 3, 50_000)]] * 2
    routes.apply(2, entries([(MAC, 0, 1)]), True)
    rest(routes, HOLD)
    assert routes.port_to(MAC) == mesh
    routes.set_mesh(MAC, 0, 0)
    assert routes.port_to(MAC) == 1, "its offers were kept, and this one is below all that this node ever had"
    assert read(routes.told(False, 2)) == [(MAC, 1, 8)]


def test_the_own_mac_is_not_lost_to_version_2_and_no_group_comes_from_there() -> None:
    routes = table()
    routes.set_local(OWN, True)
    assert routes.set_mesh(OWN, 1, 0, exclusive=True) and routes.set_mesh(0x01005E000001, 5, 1)
    assert routes.best() == [(OWN, 0, 1, 0)] and routes.refused_own == 1


def test_an_offer_of_a_link_must_be_below_what_another_border_claims() -> None:
    routes = table()
    mesh = routes.mesh_port
    routes.apply(1, entries([(MAC, 3, 12_000)]), True)
    assert routes.port_to(MAC) == 1
    routes.set_mesh(MAC, 15_000, 3, beyond_ping=10_000, beyond_dist=2)
    routes.told(False)
    assert routes.port_to(MAC) == mesh, "12 ms may lead through that border"
    routes.apply(2, entries([(MAC, 0, 500)]), True)
    assert routes.port_to(MAC) == 2, "half a millisecond may not"
    routes.apply(2, entries([]), True)
    routes.told(False)
    assert routes.port_to(MAC) is None, "and the claim is not below this node's own figures now: it may be our echo"
    rest(routes, HOLD)
    assert routes.port_to(MAC) == mesh
    routes.set_mesh(MAC, 40_000, 5, beyond_ping=35_000, beyond_dist=2)
    assert routes.port_to(MAC) == mesh, "a claim that has no more hops stays"


def test_version_2_hears_of_ways_over_links_and_of_no_others() -> None:
    routes = table()
    routes.apply(1, entries([(MAC, 0, 1000)]), True)
    routes.set_local(OWN, True)
    routes.set_mesh(MAC + 1, 2000, 1, exclusive=True)
    assert routes.crossed() == []
    routes.follow(True)
    assert routes.crossed() == [(MAC, 1, 1007, 1)] and routes.crossed() == []
    routes.measure_port(1, 300)
    routes.apply(1, entries([(MAC, 0, 900)]), False)
    assert routes.crossed() == [(MAC, 1, 1202, 1)], "once, as it is now"
    routes.set_mesh(MAC + 1, 3000, 1, exclusive=True)
    routes.set_local(OWN, False)
    assert routes.crossed() == []
    routes.close_port(1)
    rest(routes, HOLD + 1)
    assert routes.destination_count == 2, "it stays until version 2 has heard that it is gone"
    assert routes.crossed() == [(MAC, None, None, None)]
    rest(routes, 1)
    assert routes.destination_count == 1
    routes.apply(2, entries([(MAC + number, 0, 1) for number in range(9)]), True)
    routes.follow(False)
    assert routes.crossed() == [] and routes.crossing_count == 0


def test_what_version_2_knows_over_the_limit_is_refused_and_wanted_when_there_is_room() -> None:
    routes = table(routes=8, max_offers=3)
    assert all(routes.set_mesh(MAC + number, 10, 1, exclusive=True) for number in range(3))
    assert not routes.set_mesh(MAC + 3, 10, 1, exclusive=True) and routes.refused_full == 1
    assert not routes.asks_again(routes.mesh_port)
    routes.set_mesh(MAC, 0, 0)
    assert routes.asks_again(routes.mesh_port) and not routes.asks_again(routes.mesh_port)


@pytest.mark.parametrize("stream", [s for s in STREAMS if s.announced is not None], ids=lambda stream: stream.name)
def test_golden_streams_announce_what_they_say(stream: Stream) -> None:
    routes = table(max_dist=MAX)
    for name, *fields in stream.packets:
        if name in ("route_set", "route_diff"):
            data = entries([(int.from_bytes(mac, "big"), dist, ping) for mac, dist, ping in fields[0]])
            routes.apply(1, data, name == "route_set")
    assert stream.announced is not None
    expected = {(int.from_bytes(mac, "big"), *route) for mac, route in stream.announced.items() if route[0] < MAX}
    assert set(routes.offered_by(1)) == expected


def test_ports_out_of_range_are_refused() -> None:
    routes = table(ports=2)
    for port in (3, 1 << 31):
        with pytest.raises(IndexError):
            routes.open_port(port)
    for ports, each in ((0, 1), (65536, 1), (1, 0), (1, 65536)):
        with pytest.raises(ValueError, match="65,535"):
            RouteTable(ports, each, RandomSource(1))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table at its borders, and what the study of the design taught: one below, at, and one above each limit."""

from __future__ import annotations

import pytest

from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.random import RandomSource
from tests.model.test_nodes_twin import Request, Update, read_requests, read_updates, requests, updates

ME, NODE, OTHER = 77, 1, 2
INFINITE = 0xFFFFFFFF
JUMP = 1 << 16
MS = 1000
SECOND = 1_000_000
NEVER = (1 << 63) - 1


class Table:
    """A table whose ports are open and measured, with a clock; what it sends is taken with `sent`."""

    def __init__(self, ports: int = 3, *, cost: int = 1000, **limits: int) -> None:
        self.now = SECOND
        self.table = NodeTable(ME, ports, RandomSource(1), **limits)
        for port in range(1, ports + 1):
            self.table.open_port(port, self.now)
            self.table.measure_port(port, cost, self.now)
        self.sent()
        self.wait(SECOND)

    def hear(self, port: int, *routes: Update) -> None:
        self.table.receive_updates(port, updates(list(routes)), self.now)

    def hear_request(self, port: int, *entries: Request) -> None:
        self.table.receive_requests(port, requests(list(entries)), self.now)

    def sent(self) -> tuple[dict[int, list[Update]], dict[int, list[Request]]]:
        """Updates and requests by port."""
        leaving = self.table.leaving(self.now)
        return ({port: read_updates(data) for port, data, _ in leaving if data},
                {port: read_requests(data) for port, _, data in leaving if data})

    def wait(self, duration: int) -> None:
        """What is due in the meantime happens when it is, and is not sent."""
        end = self.now + duration
        while self.table.due <= end:
            self.now = max(self.table.due, self.now)
            self.table.run_timers(self.now)
        self.now = end
        self.table.run_timers(end)      # so that it knows the time

    def own_seq(self) -> int:
        return self.table.best()[0][4]

    def way(self, node: int = NODE) -> tuple[int, int, int, int] | None:
        """Port, metric, hops, seq."""
        ways = {id: (port, metric, hops, seq) for id, port, metric, hops, seq in self.table.best()}
        return ways.get(node)


def starving(**limits: int) -> Table:
    """Port 1, which had the way, is gone; what port 2 offers comes back to this node, so its label is too large."""
    table = Table(**limits)
    table.hear(1, (NODE, 5, 0, 0, 0))
    table.hear(2, (NODE, 5, 2000, 2000, 1))
    table.sent()
    table.wait(SECOND)
    table.hear(1, (NODE, 5, 0, INFINITE, 0))
    assert table.way() is None and table.table.starving() == [NODE]
    return table


# What the study taught.


def test_a_request_passed_on_for_another_does_not_silence_ones_own() -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 0, 0))
    table.hear(2, (NODE, 5, 2000, 2000, 1))
    table.sent()
    table.hear_request(3, (NODE, 6, 64))
    assert table.sent()[1] == {1: [(NODE, 6, 63)]}
    table.hear(1, (NODE, 5, 0, INFINITE, 0))
    assert table.sent()[1] == {2: [(NODE, 6, 64)]}, "passed on to where it was not yet, or its own: both is one request"
    table.wait(500 * MS)
    assert table.sent()[1] == {2: [(NODE, 6, 64)]}


def test_an_origin_goes_to_its_next_seq_and_never_to_what_it_is_asked_for() -> None:
    table = Table()
    for asked, then in ((0, 1), (1, 1), (2, 2), (60_000, 3), (4, 4), ((1 << 31) + 3, 5), ((1 << 31) + 5, 5)):
        table.hear_request(1, (ME, asked, 64))
        assert table.own_seq() == then
        table.wait(100 * MS)
    assert table.table.requests_answered == 4


@pytest.mark.parametrize("bad", [
    (NODE, 5 + JUMP + 1, 0, 10, 0), (NODE, 6, 0, 10, 65), (NODE, 6, 0, 10, 255), (NODE, 6, 11, 10, 0)])
def test_a_refused_update_takes_the_old_offer_away(bad: Update) -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 10, 0))
    table.hear(1, bad)
    assert table.way() is None and table.table.count_of(1) == 0 and table.table.refused == 1
    table.hear(1, (NODE, 5, 0, 10, 0))
    assert table.way() == (1, 1010, 1, 5)


@pytest.mark.parametrize(("hops", "asks"), [(62, True), (63, True), (64, False)])
def test_nobody_is_asked_about_offers_past_the_hop_limit(hops: int, asks: bool) -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 0, 0))
    table.hear(2, (NODE, 5, 2000, 2000, hops))
    table.sent()
    table.hear(1, (NODE, 5, 0, INFINITE, 0))
    assert table.table.starving() == ([NODE] if asks else [])
    assert table.sent()[1] == ({2: [(NODE, 6, 64)]} if asks else {})
    table.wait(100 * SECOND)
    assert table.table.requests_sent == (16 if asks else 0)
    assert table.table.count_of(2) == 1


def test_a_lane_without_room_loses_nothing_and_gets_the_state_of_then() -> None:
    table = Table(report_above=1)
    for metric in (100, 5000, 90):
        table.hear(1, *((node, 1, 0, metric + node, 1) for node in range(100, 200)))
        assert len(read_updates(table.table.updates(2, table.now, 10))) == 10
        table.wait(MS)
    told: dict[int, list[int]] = {}
    while data := table.table.updates(2, table.now, 10):
        for node, _, _, metric, _ in read_updates(data):
            told.setdefault(node, []).append(metric)
        table.wait(30 * MS)
    assert told.keys() == set(range(100, 200))
    assert all(metrics[-1] == 1090 + node for node, metrics in told.items())


def test_what_is_gone_leaves_at_once_and_before_all_else() -> None:
    table = Table()
    table.hear(1, *((node, 1, 0, 10, 0) for node in range(100, 150)))
    table.sent()
    table.hear(1, (100, 2, 0, 10, 0), (120, 1, 0, INFINITE, 0))
    assert table.sent()[0][2] == [(120, 1, 1010, INFINITE, 0)], "the new seq is gathered"
    table.wait(20 * MS - 1)
    assert not table.sent()[0]
    table.wait(1)
    assert table.sent()[0][2] == [(100, 2, 1010, 1010, 1)]
    table.wait(SECOND)
    table.hear(1, (100, 3, 0, 10, 0), (121, 1, 0, INFINITE, 0))
    assert [route[0] for route in table.sent()[0][2]] == [121, 100], "also when all may leave"


def test_retractions_leave_with_the_requests_that_follow_from_them() -> None:
    table = starving()
    told, asked = table.sent()
    assert told[2] == [(NODE, 5, 1000, INFINITE, 0)] and asked == {2: [(NODE, 6, 64)]}


def test_several_links_to_one_neighbour_are_separate_offers() -> None:
    table = Table()
    for port in (1, 2):
        table.hear(port, (NODE, 5, 0, 10, 0))
    table.table.measure_port(2, 1500, table.now)
    assert table.way() == (1, 1010, 1, 5)
    table.table.close_port(1, table.now)
    assert table.way() == (2, 1510, 1, 5) and table.table.starving() == []


# Sequence numbers.


@pytest.mark.parametrize("seq", [1, (1 << 31) - 1, (1 << 31), INFINITE - 1, INFINITE])
def test_sequence_numbers_go_round(seq: int) -> None:
    table = Table()
    table.hear(1, (NODE, seq, 5, 5, 0))
    table.hear(2, (NODE, (seq - 1) % (1 << 32), 0, 0, 0))
    assert table.way() == (1, 1005, 1, seq), "an older one is not used"
    table.hear(1, (NODE, seq, 5, INFINITE, 0))
    assert table.sent()[1] == {2: [(NODE, (seq + 1) % (1 << 32), 64)]}
    table.hear(2, (NODE, (seq + 1) % (1 << 32), 50, 50, 0))
    assert table.way() == (2, 1050, 1, (seq + 1) % (1 << 32))


@pytest.mark.parametrize(("step", "is_used"), [
    (1, True), (JUMP - 1, True), (JUMP, True), (JUMP + 1, False), ((1 << 31) - 1, False), (1 << 31, False), (-1, False),
])
def test_a_seq_that_jumps_is_not_used(step: int, is_used: bool) -> None:
    for seq in (5, INFINITE - 3):
        table = Table()
        table.hear(1, (NODE, seq, 0, 5000, 0))
        table.hear(2, (NODE, (seq + step) % (1 << 32), 0, 0, 0))
        assert table.way() == ((2, 1000, 1, (seq + step) % (1 << 32)) if is_used else (1, 6000, 1, seq))
        assert table.table.refused == (JUMP < step < 1 << 31)


def test_the_own_seq_grows_ten_times_a_second_and_what_waits_is_not_lost() -> None:
    table = Table(first_seq=INFINITE - 1)
    seqs = []
    for _ in range(100):
        table.hear_request(1, (ME, (table.own_seq() + 1) % (1 << 32), 64))
        table.wait(10 * MS)
        seqs.append(table.own_seq())
    assert seqs[0] == INFINITE and seqs[-2] == 8, "ten times within 990 ms, round the end"
    table.wait(200 * MS)
    assert table.own_seq() == 9 and table.table.due == NEVER


@pytest.mark.parametrize(("ahead", "seqs"), [
    (0, [1, 1]), (1, [3, 3]), (JUMP - 1, [JUMP + 1, JUMP + 1]), (JUMP, [JUMP + 1, JUMP + 2]), (JUMP + 1, [1, 1])])
def test_a_newer_own_seq_is_overtaken_in_steps_that_the_others_follow(ahead: int, seqs: list[int]) -> None:
    table = Table()
    table.hear(2, (ME, 1 + ahead, 0, 0, 1))
    assert table.own_seq() == seqs[0]
    table.wait(100 * MS)
    assert table.own_seq() == seqs[1]
    assert (table.table.own_heard, table.table.refused) == (0 < ahead <= JUMP, ahead > JUMP)
    assert table.table.own_heard_port == (2 if table.table.own_heard else 0)
    assert table.table.port_to(ME) == 0 and table.table.count_of(2) == 0, "nobody takes this node's own id"


def test_links_lost_together_cost_one_number() -> None:
    table = Table()
    table.table.close_port(1, table.now)
    table.table.close_port(2, table.now)
    assert table.own_seq() == 2
    table.wait(SECOND)
    assert table.own_seq() == 2
    table.table.close_port(3, table.now)
    assert table.own_seq() == 3


@pytest.mark.parametrize(("lost", "renews"), [(1, False), (2, True)])
def test_who_loses_the_ways_to_several_nodes_at_once_gives_out_a_new_number(lost: int, renews: bool) -> None:
    table = Table()
    nodes = range(100, 105)
    table.hear(1, *((node, 1, 0, 10, 0) for node in nodes))
    table.hear(2, *((node, 1, 5000, 5000, 0) for node in nodes))
    table.hear(1, *((node, 1, 0, INFINITE, 0) for node in nodes[:lost]))
    assert table.own_seq() == 1 + renews


# Metrics and hops.


@pytest.mark.parametrize("metric", [0, 1, 1 << 31, INFINITE - 2, INFINITE - 1])
@pytest.mark.parametrize("cost", [1, 2, 1 << 31, INFINITE - 1, INFINITE])
def test_sums_saturate_and_what_is_infinite_is_not_used(metric: int, cost: int) -> None:
    table = Table(cost=cost)
    table.hear(1, (NODE, 1, 0, metric, 0))
    assert table.way() == ((1, metric + cost, 1, 1) if metric + cost < INFINITE else None)
    assert table.table.offered_by(1) == [(NODE, 1, 0, metric, 0)]


@pytest.mark.parametrize(("hops", "is_used"), [(62, True), (63, True), (64, False), (65, False)])
def test_a_way_has_at_most_64_hops(hops: int, is_used: bool) -> None:
    table = Table()
    table.hear(1, (NODE, 1, 0, 10, hops))
    assert table.way() == ((1, 1010, hops + 1, 1) if is_used else None)
    assert table.table.count_of(1) == (hops <= 64) and table.table.refused == (hops > 64)


def test_offers_of_a_link_that_is_not_measured_are_kept_and_not_used() -> None:
    table = Table(cost=0)
    table.hear(1, (NODE, 1, 0, 10, 0))
    assert table.way() is None and table.table.count_of(1) == 1 and not table.sent()[0]
    table.table.measure_port(1, 7, table.now)
    assert table.way() == (1, 17, 1, 1) and table.table.changes_cost == 1


@pytest.mark.parametrize(("now", "other", "changes"), [
    (10_000, 8_001, False), (10_000, 8_000, True), (40_000, 36_001, False), (40_000, 36_000, True), (1999, 1, False)])
def test_another_next_hop_must_be_better_by_a_tenth_and_2_ms(now: int, other: int, changes: bool) -> None:
    table = Table(cost=1)
    table.hear(1, (NODE, 1, 0, now - 1, 0))
    table.hear(2, (NODE, 1, 0, other - 1, 0))
    way = table.way()
    assert way and way[:2] == ((2, other) if changes else (1, now))


@pytest.mark.parametrize(("told", "metric", "after"), [
    (50_000, 37_499, 0), (50_000, 37_500, 10_000), (50_000, 50_001, 10_000), (50_000, 62_500, 10_000),
    (50_000, 62_501, 100), (10_000, 4_999, 0), (10_000, 5_000, 10_000), (10_000, 15_000, 10_000), (10_000, 15_001, 100),
])
def test_a_metric_is_told_when_it_moved_by_a_quarter_and_5_ms_or_after_a_while(
    told: int, metric: int, after: int
) -> None:
    """Better at once, worse after 100 ms, what is not enough after 10 s."""
    table = Table(cost=told - 100)
    table.hear(1, (NODE, 1, 0, 100, 0))
    assert table.sent()[0][2] == [(NODE, 1, told, told, 1)]
    table.wait(SECOND)
    table.table.measure_port(1, metric - 100, table.now)
    if after:
        table.wait(after * MS - 1)
        assert not table.sent()[0]
        table.wait(1)
    assert table.sent()[0][2] == [(NODE, 1, min(metric, told), metric, 1)]
    table.wait(100 * SECOND)
    assert not table.sent()[0]


def test_a_small_change_that_a_neighbour_told_goes_on_sooner_and_one_that_goes_back_does_not() -> None:
    table = Table()
    table.hear(1, (NODE, 1, 0, 100, 0))
    table.sent()
    table.wait(SECOND)
    table.hear(1, (NODE, 1, 0, 101, 0))
    table.wait(500 * MS - 1)
    assert not table.sent()[0]
    table.wait(1)
    assert table.sent()[0][2] == [(NODE, 1, 1100, 1101, 1)]
    table.hear(1, (NODE, 1, 0, 100, 0))
    table.wait(400 * MS)
    table.hear(1, (NODE, 1, 0, 101, 0))
    table.wait(100 * SECOND)
    assert not table.sent()[0]


# Requests.


def test_who_starves_asks_again_after_half_a_second_doubling_to_eight() -> None:
    table = starving()
    times, start = [], table.now
    while table.now < start + 40 * SECOND:
        if table.sent()[1]:
            times.append((table.now - start) / SECOND)
        table.wait(10 * MS)
    assert times == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5, 31.5, 39.5]
    table.hear(2, (NODE, 6, 2000, 2000, 1))
    assert table.table.starving() == [] and table.way() == (2, 3000, 2, 6)


@pytest.mark.parametrize(("hops", "passed"), [(0, []), (1, [0]), (64, [63]), (65, [63]), (255, [63])])
def test_a_request_goes_on_as_far_as_it_may(hops: int, passed: list[int]) -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 10, 0))
    table.hear_request(2, (NODE, 6, hops))
    assert [left for _, _, left in table.sent()[1].get(1, [])] == passed


def test_a_request_goes_to_the_next_hop_or_if_that_asks_to_all_others() -> None:
    table = Table(ports=4)
    for port in (1, 2, 3):
        table.hear(port, (NODE, 5, 0, 10 * port, 0))
    table.hear_request(2, (NODE, 6, 64))
    assert table.sent()[1].keys() == {1}
    table.hear_request(1, (NODE, 7, 64))
    assert table.sent()[1].keys() == {2, 3}
    table.hear_request(4, (NODE, 5, 64), (999, 9, 64))
    assert not table.sent()[1], "the answer is on its way, and nobody knows 999"


def test_a_request_is_passed_on_once_a_second() -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 10, 0))
    times, start = [], table.now
    for _ in range(30):
        table.hear_request(2, (NODE, 6, 64))
        if table.sent()[1]:
            times.append((table.now - start) / SECOND)
        table.wait(100 * MS)
    assert times == [0, 1, 2]
    table.hear_request(2, (NODE, 7, 64))
    assert table.sent()[1] == {1: [(NODE, 7, 63)]}, "a newer one is another"


def test_a_short_hop_limit_does_not_silence_a_request_that_reaches_farther() -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 10, 0))
    table.hear_request(2, (NODE, 6, 1))
    table.hear_request(3, (NODE, 6, 60))
    assert table.sent()[1] == {1: [(NODE, 6, 59)]}
    assert table.table.requests_passed == 2


@pytest.mark.parametrize(("wait", "seq", "passed"), [
    (0, 5, True), (10 * SECOND - 1, 5, True), (10 * SECOND, 5, False), (0, 6, False)])
def test_a_request_follows_the_way_when_it_moves_before_the_answer(wait: int, seq: int, passed: bool) -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 50_000, 0))
    table.hear_request(3, (NODE, 6, 64))
    assert table.sent()[1] == {1: [(NODE, 6, 63)]}
    table.wait(wait)
    table.hear(2, (NODE, seq, 0, 10, 0))
    way = table.way()
    assert way and way[0] == 2
    assert table.sent()[1] == ({2: [(NODE, 6, 63)]} if passed else {})


# Room, and time.


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_so_many_nodes_are_known_and_more_are_asked_for_when_there_is_room(beyond: int) -> None:
    table = Table(max_nodes=10)
    table.hear(1, *((100 + number, 1, 0, 10, 0) for number in range(10 + beyond)))
    assert table.table.node_count == min(10, 10 + beyond) == table.table.count_of(1)
    assert table.table.refused_full == max(beyond, 0) and not table.table.asks_again(1)
    table.hear(2, (101, 1, 0, 10, 0))
    assert table.table.count_of(2) == 1, "one that is known has room"
    table.hear(1, (100, 1, 0, INFINITE, 0))
    assert not table.table.asks_again(1), "the neighbours and the hosts must still hear that it is gone"
    table.sent()
    table.table.changed()
    table.wait(60 * SECOND - 1)
    assert not table.table.asks_again(1), "a neighbour whose link is silent may not have heard"
    table.wait(1)
    assert table.table.node_count == min(10, 10 + beyond), "its distance is remembered"
    assert table.table.asks_again(1) == (beyond > 0) and not table.table.asks_again(1) and not table.table.asks_again(2)
    table.hear(1, (111, 1, 0, 10, 0))
    assert table.way(111) == (1, 1010, 1, 1)


def test_the_node_that_is_gone_longest_gives_its_place_to_one_that_is_here() -> None:
    table = Table(max_nodes=3)
    for number in (100, 101, 102):
        table.hear(1, (number, 1, 0, 10, 0))
    for number in (101, 100):
        table.hear(1, (number, 1, 0, INFINITE, 0))
        table.sent()
        table.table.changed()
        table.wait(SECOND)
    table.wait(60 * SECOND)
    table.hear(1, (103, 1, 0, 10, 0))
    assert {node for node, *_ in table.table.distances()} == {100, 102, 103}
    table.hear(1, (104, 1, 0, 10, 0))
    assert {node for node, *_ in table.table.distances()} == {102, 103, 104} and table.table.refused_full == 0
    table.hear(1, (105, 1, 0, 10, 0))
    assert table.table.refused_full == 1, "those that have a way keep their places"


def test_a_node_that_somebody_must_still_hear_of_is_not_forgotten() -> None:
    table = Table()
    table.hear(1, (NODE, 5, 0, 10, 0))
    table.sent()
    table.hear(1, (NODE, 5, 0, INFINITE, 0))
    table.wait(200 * SECOND)
    assert table.table.node_count == 1
    assert table.sent()[0].keys() == {1, 2, 3}
    table.wait(2 * SECOND)
    assert table.table.node_count == 1, "the hosts have not heard of it"
    assert [(node, port) for node, port, *_ in table.table.changed()] == [(NODE, None)]
    table.wait(2 * SECOND)
    assert table.table.node_count == 0 and table.table.distances() == []


def test_a_distance_is_forgotten_though_offers_stay_that_it_forbids() -> None:
    """A peer that lied about a seq is gone, and nobody can give out a newer one."""
    table = Table()
    table.hear(1, (NODE, 5 + JUMP, 0, 10, 0))
    table.hear(2, (NODE, 5, 0, 10, 0))
    table.table.close_port(1, table.now)
    for _ in range(1799):
        table.sent()
        table.table.changed()
        table.wait(100 * MS)
        assert table.way() is None
    table.wait(100 * MS)
    assert table.way() == (2, 1010, 1, 5)


def test_multipath_may_take_what_labels_allow_and_never_goes_back() -> None:
    table = Table(ports=6, cost=10)
    table.hear(1, (NODE, 5, 0, 90, 0))          # the distance is now 5, 100
    table.hear(2, (NODE, 5, 99, 300, 0))
    table.hear(3, (NODE, 5, 100, 100, 0))       # comes back to this node, perhaps
    table.hear(4, (NODE, 4, 0, 0, 0))
    table.hear(5, (NODE, 5, 50, 200, 0))
    table.hear(6, (NODE, 6, 60, 100, 0))        # newer, but not taken: too little better
    assert table.way() == (1, 100, 1, 5)
    assert table.table.ways(NODE, 0) == [(1, 100), (5, 210), (2, 310)]
    assert table.table.ways(NODE, 5) == [(1, 100), (2, 310)]
    assert table.table.ways(ME, 0) == table.table.ways(OTHER, 0) == []


@pytest.mark.parametrize("links", [63, 64, 65])
def test_of_very_many_ways_the_nearest_64_are_given(links: int) -> None:
    table = Table(ports=links, cost=1)
    for port in range(1, links + 1):
        table.hear(port, (NODE, 5, 0, 10 * (links - port), 0))
    ways = table.table.ways(NODE, 0)
    assert [port for port, _ in ways] == list(range(links, max(links - 64, 0), -1))


def test_a_new_neighbour_and_one_that_asks_get_everything() -> None:
    table = Table(ports=3)
    table.table.close_port(3, table.now)
    table.hear(1, (NODE, 5, 0, 10, 0), (OTHER, 5, 0, 10, 63))
    table.sent()
    table.table.open_port(3, table.now)
    everything = [(ME, 2, 0, 0, 0), (NODE, 5, 1010, 1010, 1), (OTHER, 5, 1010, 1010, 64)]
    assert table.sent()[0] == {3: everything}
    table.table.receive_route_request(2)
    assert table.sent()[0] == {2: everything}


def test_sizes_out_of_range_are_refused() -> None:
    for ports, nodes in ((0, 1), (65536, 1), (1, 0), (1, 65536)):
        with pytest.raises(ValueError, match="65,535"):
            NodeTable(ME, ports, RandomSource(1), max_nodes=nodes)
    table = NodeTable(ME, 2, RandomSource(1))
    for port in (0, 3, 1 << 31):
        with pytest.raises(IndexError):
            table.open_port(port, 0)

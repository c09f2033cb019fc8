# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of claims, one by one, and the limits of the host table: one below, at, and one above each."""

from __future__ import annotations

from typing import Any

import pytest

from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.random import RandomSource
from tests.model.naive_hosts import FOREIGN_PORT, Entry, S
from tests.model.test_hosts_twin import entries, read

ME, LOW, HIGH, OTHER = 50, 10, 90, 60
MAC, SECOND = 0x02AA00000001, 0x02AA00000002
WALL = 1_790_000_000
INFINITE = 0xFFFFFFFF


class Node:
    """A host table on a clock; ports 1 to 3 are open, port n leads to the n-th of the other nodes."""

    def __init__(self, *, wall: int = WALL, **limits: Any) -> None:
        self.table = HostTable(ME, 8, RandomSource(1), **({"max_claims": 20_000} | limits))
        self.table.wall = wall
        self.now = 0
        for port, node in enumerate((LOW, HIGH, OTHER), 1):
            self.table.open_port(port)
            self.table.reach(node, port, 1000, 1, 0)

    def sleep(self, us: int) -> None:
        """Runs what is due on the way."""
        end = self.now + us
        while (due := self.table.next_run()) is not None and due <= end:
            self.now = max(self.now, due)
            self.table.advance(self.now)
        self.now = end

    def see(self, mac: int = MAC) -> None:
        self.table.see(mac, self.now)

    def hear(self, owner: int, seq: int, flags: int = 1, *, mac: int = MAC, port: int = 1, ping: int = 0,
             hops: int = 0) -> None:
        self.table.take_in(port, entries([(mac, flags, hops, owner, seq, ping)]), self.now)

    def reach(self, node: int, port: int | None, metric: int = 1000) -> None:
        self.table.reach(node, port, metric, 1, self.now)

    def told(self, port: int) -> list[Entry]:
        return read(self.table.updates(port, self.now))

    def told_all(self) -> list[list[Entry]]:
        """What leaves on each port after the time of gathering."""
        self.sleep(20_000)
        return [self.told(port) for port in (1, 2, 3)]

    def owner(self, mac: int = MAC) -> int | None:
        found = self.table.where(mac)
        return found[1] if found else None

    def claim(self, owner: int, mac: int = MAC) -> tuple[int, int] | None:
        """Flags and seq."""
        found = [(flags, seq) for other, flags, _, node, seq, _ in self.table.claims_of_all()
                 if (other, node) == (mac, owner)]
        return found[0] if found else None


# Sequence numbers.


@pytest.mark.parametrize("wall, known, expected", [
    (1000, None, 1000), (1000, 999, 1000), (1000, 1000, 1001), (1000, 5000, 5001),
    (3, 2**32 - 1, 3), (0, 2**32 - 1, 0), (2**32 - 1, 2**32 - 1, 0), (5, 2**32 - 10, 5), (2**32 - 10, 5, 6),
])
def test_a_claim_is_newer_than_all_that_was_known_of_the_mac_and_no_older_than_the_clock(
        wall: int, known: int | None, expected: int) -> None:
    node = Node(wall=wall)
    if known is not None:
        node.hear(LOW, known)
    node.see()
    assert node.claim(ME) == (1, expected) and node.owner() == ME


def test_withdrawals_and_claims_of_unreachable_owners_count_for_the_next_sequence_number() -> None:
    node = Node()
    node.hear(LOW, WALL + 7)
    node.hear(LOW, WALL + 8, 0)
    node.see()
    assert node.claim(ME) == (1, WALL + 9)
    node.hear(77, WALL + 20, mac=SECOND)
    node.see(SECOND)
    assert node.claim(ME, SECOND) == (1, WALL + 21)


@pytest.mark.parametrize("first", [5, 2**32 - 1, 2**31])
def test_the_newest_version_of_a_claim_wins_whatever_link_brings_it(first: int) -> None:
    node = Node()
    node.hear(LOW, first, 1)
    for older in (0, -1, -1000, -2**31 + 1, 2**31):
        node.hear(LOW, (first + older) % 2**32, 3, port=2)
        assert node.claim(LOW) == (1, first)
    node.told_all()
    node.hear(LOW, (first + 1) % 2**32, 0, port=2)
    assert node.claim(LOW) == (0, (first + 1) % 2**32) and node.owner() is None
    assert [len(told) for told in node.told_all()] == [1, 0, 1]


# The choice.


def test_fixed_goes_before_learned_before_foreign() -> None:
    node = Node()
    node.hear(LOW, 900, 5)
    assert node.owner() == LOW
    node.hear(HIGH, 800, 1)
    assert node.owner() == HIGH
    node.hear(OTHER, 700, 3)
    assert node.owner() == OTHER
    node.hear(OTHER, 701, 0)
    assert node.owner() == HIGH
    node.hear(HIGH, 801, 0)
    assert node.owner() == LOW


def test_of_learned_claims_the_newest_counts_then_the_lowest_owner() -> None:
    node = Node()
    node.hear(HIGH, 10)
    node.hear(LOW, 9)
    assert node.owner() == HIGH
    node.hear(OTHER, 10)
    assert node.owner() == OTHER
    node.hear(LOW, 10)
    assert node.owner() == LOW
    node.hear(HIGH, 11)
    assert node.owner() == HIGH


def test_of_foreign_claims_the_nearest_counts_and_its_metric_is_followed() -> None:
    node = Node()
    node.hear(LOW, 5, 5, ping=5000, hops=3)
    node.hear(HIGH, 9, 5, ping=4000)
    assert node.owner() == HIGH
    node.reach(HIGH, 2, 3000)
    assert node.owner() == LOW
    assert node.table.best() == [(MAC, LOW, 1, 6000, 4, "foreign", 5)]
    node.table.offer(MAC, 5999, 2, node.now)
    assert node.owner() == ME and node.table.where(MAC) == (FOREIGN_PORT, ME)
    assert node.table.redirected(MAC) == (1, LOW) and not node.table.has(MAC)


@pytest.mark.parametrize("metric, ping, usable", [
    (INFINITE - 2, 1, True), (INFINITE - 2, 2, False), (INFINITE - 1, INFINITE, False), (1, INFINITE, False)])
def test_a_sum_of_metric_and_ping_does_not_wrap(metric: int, ping: int, usable: bool) -> None:
    node = Node()
    node.reach(LOW, 1, metric)
    node.hear(LOW, 5, 5, ping=ping)
    assert (node.owner() == LOW) == usable


def test_claims_of_an_unreachable_owner_are_not_used_and_forgotten_after_180_seconds() -> None:
    node = Node()
    node.hear(LOW, 5)
    node.hear(HIGH, 4)
    assert node.owner() == LOW
    node.reach(LOW, None)
    assert node.owner() == HIGH and node.claim(LOW)
    node.sleep(180 * S - 1)
    assert node.claim(LOW)
    node.sleep(1)
    assert node.claim(LOW) is None and node.owner() == HIGH


def test_an_owner_that_comes_back_within_180_seconds_has_its_claims_again() -> None:
    node = Node()
    node.hear(LOW, 5)
    node.reach(LOW, None)
    node.sleep(179 * S)
    node.reach(LOW, 2)
    assert node.table.where(MAC) == (2, LOW)
    node.sleep(1000 * S)
    assert node.table.where(MAC) == (2, LOW)


@pytest.mark.parametrize("owner, kept", [(LOW, 180), (ME, 190)])
def test_withdrawals_are_kept_for_180_seconds_and_own_ones_longer(owner: int, kept: int) -> None:
    node = Node()
    if owner == ME:
        node.table.fix(MAC, True, 0)
        node.table.fix(MAC, False, 0)
    else:
        node.hear(LOW, 5)
        node.hear(LOW, 6, 0)
    node.sleep(kept * S - 1)
    assert node.claim(owner) is not None
    node.sleep(1)
    assert node.claim(owner) is None and node.table.claims_of_all() == []


def test_the_withdrawal_of_an_unknown_claim_is_not_taken_and_not_passed_on() -> None:
    node = Node()
    node.hear(LOW, 5, 0)
    assert node.claim(LOW) is None and node.told_all() == [[], [], []]


@pytest.mark.parametrize("owner", [LOW, ME])
def test_who_has_not_kept_a_withdrawal_is_told_of_it_again_when_he_brings_the_claim_back(owner: int) -> None:
    node = Node()
    if owner == ME:
        node.see()
        node.table.configure(False, S, 1, node.now)
    else:
        node.hear(owner, 5)
        node.hear(owner, 6, 0)
    flags, seq = node.claim(owner) or (None, 0)
    node.told_all()
    node.hear(owner, seq, 0, port=2)    # as new: nothing to say
    assert flags == 0 and node.told_all() == [[], [], []]
    node.hear(owner, seq - 1, port=2)
    assert node.told_all() == [[], [(MAC, 0, 0, owner, seq, 0)], []]
    assert node.claim(owner) == (0, seq)


def test_a_peer_that_brings_old_claims_back_and_does_not_read_fills_a_bounded_place() -> None:
    node = Node()
    for mac in range(MAC, MAC + 10):
        node.hear(LOW, 5, mac=mac)
    node.told_all()
    for _ in range(1500):
        node.hear(LOW, 4, port=2)
    told = node.told(2)
    assert len(told) == 10 and (MAC, 1, 0, LOW, 5, 0) in told    # all, instead of 1,500 times the same


# What we claim.


def test_a_learned_claim_ends_when_anothers_is_newer() -> None:
    node = Node()
    node.see()
    node.hear(HIGH, WALL + 1)
    assert node.owner() == HIGH and node.claim(ME) == (0, WALL + 2) and not node.table.has(MAC)
    assert node.table.redirected(MAC) == (2, HIGH)


@pytest.mark.parametrize("owner, ends", [(LOW, True), (HIGH, False)])
def test_of_claims_as_new_that_of_the_lower_owner_stays(owner: int, ends: bool) -> None:
    node = Node()
    node.see()
    node.hear(owner, WALL)
    assert (node.claim(ME) == (0, WALL + 1)) == ends and (node.owner() == ME) != ends
    node.hear(owner, WALL - 1, mac=SECOND)
    node.see(SECOND)
    assert node.owner(SECOND) == ME


def test_a_learned_claim_does_not_end_for_an_older_a_foreign_or_an_unreachable_one() -> None:
    node = Node()
    node.see()
    node.hear(LOW, WALL - 1)
    node.hear(HIGH, WALL + 5, 5, ping=1)
    node.hear(77, WALL + 9)
    assert node.owner() == ME and node.claim(ME) == (1, WALL)
    node.reach(77, 3)
    assert node.owner() == 77 and node.claim(ME) == (0, WALL + 10)


def test_a_frame_of_a_host_that_others_claim_brings_it_here_and_says_so_once() -> None:
    node = Node()
    node.hear(LOW, WALL + 50)
    node.told_all()
    for _ in range(3):
        node.see()
        assert node.claim(ME) == (1, WALL + 51) and node.owner() == ME
    told = [(MAC, 1, 0, ME, WALL + 51, 0)]
    assert node.told_all() == [told, told, told] and node.table.moves == 1


def test_the_own_fixed_mac_cannot_be_taken_away_here_and_is_not_learned() -> None:
    node = Node()
    node.table.fix(MAC, True, 0)
    for owner in (LOW, HIGH):
        node.hear(owner, WALL + 1000, 3)
        node.hear(owner, WALL + 1001, 1)
        assert node.owner() == ME and node.table.has(MAC)
    node.see()
    assert node.claim(ME) == (3, WALL) and node.table.learned_count == 0


def test_of_two_fixed_claims_others_follow_the_lower_owner_and_the_conflict_names_both() -> None:
    node = Node()
    node.hear(HIGH, 5, 3)
    assert node.table.conflicts == 0
    node.hear(LOW, 4, 3)
    assert node.owner() == LOW
    table = node.table
    assert (table.conflicts, table.conflict_mac, set(table.conflict_owners)) == (1, MAC, {LOW, HIGH})
    node.table.fix(MAC, True, 0)
    assert table.conflicts == 2 and set(table.conflict_owners) == {LOW, ME}


@pytest.mark.parametrize("flags, seq, answered", [
    (1, 0, False), (1, 1, True), (1, 1000, True), (0, 0, True), (3, 0, True), (0, 1, True), (5, 2**31 - 1, True)])
def test_who_hears_his_claim_newer_or_changed_says_it_again(flags: int, seq: int, answered: bool) -> None:
    node = Node()
    node.see()
    node.told_all()
    seq = (WALL + seq) % 2**32
    node.hear(ME, seq, flags)
    assert node.owner() == ME and node.table.disputed == answered
    expected = [(MAC, 1, 0, ME, (seq + 1) % 2**32, 0)] if answered else []
    assert node.told_all() == [expected] * 3


@pytest.mark.parametrize("flags", [0, 1])
def test_who_hears_an_older_claim_of_his_repeats_to_that_link_what_he_says(flags: int) -> None:
    node = Node()
    node.see()
    node.told_all()
    node.hear(ME, WALL - 1, flags, port=2)
    assert node.owner() == ME and node.table.disputed == 0
    assert node.told_all() == [[], [(MAC, 1, 0, ME, WALL, 0)], []]


def test_who_hears_a_claim_that_he_never_made_withdraws_it() -> None:
    node = Node()
    node.hear(ME, 77, 3)
    assert node.owner() is None and not node.table.has(MAC)
    assert node.told_all() == [[(MAC, 0, 0, ME, 78, 0)]] * 3
    node.hear(ME, 99, 0, mac=SECOND)
    assert node.claim(ME, SECOND) is None


def test_hosts_are_forgotten_when_they_were_silent_for_their_age() -> None:
    node = Node(mac_age=20 * S)
    node.see()
    node.see(SECOND)
    node.sleep(15 * S)
    node.see()
    node.sleep(6 * S - 1)
    assert node.table.has(SECOND) and node.table.learned_count == 2
    node.sleep(1)
    assert not node.table.has(SECOND) and node.claim(ME, SECOND) == (0, WALL + 1) and node.table.has(MAC)
    node.sleep(15 * S)
    assert not node.table.has(MAC) and node.table.withdrawn_count == 2


def test_without_learning_what_was_learned_is_withdrawn_and_nothing_more_comes() -> None:
    node = Node()
    node.see()
    node.table.fix(SECOND, True, 0)
    node.table.configure(False, 300 * S, 4096, 0)
    assert not node.table.has(MAC) and node.table.has(SECOND)
    node.see()
    assert node.table.learned_count == 0 and node.claim(ME) == (0, WALL + 1)
    node.table.configure(True, 300 * S, 4096, 0)
    node.see()
    assert node.table.has(MAC)


def test_what_a_link_of_version_1_knows_is_claimed_and_small_changes_of_its_ping_are_not_told() -> None:
    node = Node()
    node.table.offer(MAC, 40_000, 2, 0)
    assert node.told_all() == [[(MAC, 5, 2, ME, WALL, 40_000)]] * 3
    for ping in (50_000, 30_000):
        node.table.offer(MAC, ping, 2, node.now)
        assert node.told_all() == [[]] * 3
    node.table.offer(MAC, 50_001, 2, node.now)
    assert node.told_all() == [[(MAC, 5, 2, ME, WALL + 1, 50_001)]] * 3
    node.table.offer(MAC, 50_001, 3, node.now)
    assert node.told_all() == [[(MAC, 5, 3, ME, WALL + 2, 50_001)]] * 3
    node.table.offer(MAC, 0, 0, node.now)
    assert node.told_all() == [[(MAC, 0, 0, ME, WALL + 3, 0)]] * 3


def test_a_mac_is_claimed_as_the_strongest_that_it_is() -> None:
    node = Node(mac_age=10 * S)
    node.table.offer(MAC, 1000, 1, 0)
    node.see()
    assert node.claim(ME) == (1, WALL + 1)
    node.table.offer(MAC, 90_000, 1, 0)
    assert node.claim(ME) == (1, WALL + 1)
    node.table.fix(MAC, True, 0)
    assert node.claim(ME) == (3, WALL + 2)
    node.table.fix(MAC, False, 0)
    assert node.claim(ME) == (5, WALL + 3) and node.table.best()[0][3] == 90_000


# Hosts that move too often.


def bounce(node: Node, times: int) -> None:
    """The host is here, then with LOW, then here again."""
    for _ in range(times):
        claim = node.claim(ME)
        assert claim
        node.hear(LOW, claim[1] + 1)
        node.sleep(100_000)
        node.see()


def test_a_host_that_moved_five_times_is_claimed_once_in_ten_seconds_and_not_before_it_was_seen_again() -> None:
    node = Node()
    node.see()
    bounce(node, 2)
    assert node.table.moves == 4 and node.table.moves_held == 0
    bounce(node, 1)     # the fifth move goes to LOW, the sixth here is made, and held from now on
    assert node.table.moves == 6 and node.owner() == ME
    bounce(node, 1)
    assert node.table.moves_held == 1 and node.owner() == LOW
    node.sleep(10 * S - 100_001)
    assert node.owner() == LOW
    node.sleep(1)
    assert node.owner() == ME
    # Held anew: but this time the host stays where it went.
    bounce(node, 1)
    claim = node.claim(ME)
    assert claim and node.owner() == LOW
    node.hear(LOW, claim[1] + 5)
    node.sleep(100 * S)
    assert node.owner() == LOW


def test_five_moves_in_more_than_180_seconds_do_not_hold_a_host_back() -> None:
    node = Node(mac_age=10_000 * S)
    node.see()
    for _ in range(10):
        bounce(node, 1)
        node.sleep(75 * S)
    assert node.table.moves == 20 and node.table.moves_held == 0


def test_receivers_do_not_hold_a_host_back() -> None:
    node = Node()
    for seq in range(100):
        node.hear(HIGH if seq % 2 else LOW, seq)
        assert node.owner() == (HIGH if seq % 2 else LOW)
    assert node.table.moves == 99 and node.table.moves_held == 0


# What the neighbours are told.


def test_the_first_news_leaves_at_once_and_what_comes_in_the_next_20_ms_together() -> None:
    node = Node()
    node.see()
    assert node.table.has_news() and len(node.told(1)) == 1
    node.sleep(1)
    for number in range(5):
        node.see(SECOND + number)
    assert node.told(1) == [] and node.table.next_run() == 20_000
    node.sleep(19_998)
    assert node.told(1) == []
    node.sleep(1)
    assert len(node.told(1)) == 5
    node.sleep(20_000)
    node.see(SECOND + 9)
    assert len(node.told(1)) == 1


def test_what_changes_again_before_it_left_leaves_once() -> None:
    node = Node()
    for seq in range(50):
        node.hear(HIGH, seq, port=2)
    assert node.told_all() == [[(MAC, 1, 0, HIGH, 49, 0)], [], [(MAC, 1, 0, HIGH, 49, 0)]]
    assert not node.table.has_news()


def test_news_does_not_return_to_its_link_but_to_one_that_took_its_place() -> None:
    node = Node()
    node.hear(HIGH, 5, port=1)
    node.told_all()
    node.table.close_port(1, node.now)
    node.table.open_port(1)
    assert node.told(1) == [(MAC, 1, 0, HIGH, 5, 0)]


def test_who_asks_for_everything_gets_what_he_brought_too() -> None:
    node = Node()
    node.hear(HIGH, 5, port=1)
    assert node.told_all()[0] == []
    node.table.owe(1)
    assert node.table.has_news() and node.told(1) == [(MAC, 1, 0, HIGH, 5, 0)]
    assert node.told(1) == [] and not node.table.has_news() and node.table.count_of(1) == 1


def test_a_new_link_gets_withdrawals_and_nothing_of_unreachable_owners_until_they_are_reachable() -> None:
    node = Node()
    node.hear(HIGH, 5)
    node.hear(HIGH, 6, 0)
    node.hear(OTHER, 7, mac=SECOND)
    node.reach(OTHER, None)
    node.told_all()
    node.table.open_port(4)
    assert node.told(4) == [(MAC, 0, 0, HIGH, 6, 0)]
    assert node.told(4) == [] and not node.table.has_news()
    node.reach(OTHER, 3)
    assert node.table.has_news()
    assert [node.told(port) for port in (1, 2, 3, 4)] == [[], [], [], [(SECOND, 1, 0, OTHER, 7, 0)]]


def test_what_was_denied_and_changed_before_it_could_follow_is_told_once() -> None:
    node = Node()
    node.hear(OTHER, 7)
    node.reach(OTHER, None)
    node.told_all()
    node.table.open_port(4)
    assert node.told(4) == []
    node.hear(OTHER, 8, 0)      # news goes to all, whoever is reachable
    node.reach(OTHER, 3)
    node.sleep(20_000)
    assert node.told(4) == [(MAC, 0, 0, OTHER, 8, 0)] and node.told(4) == []


def test_a_cut_sends_no_claim_with_ten_thousand_hosts_behind_ten_nodes() -> None:
    node = Node()
    owners = range(100, 110)
    for owner in owners:
        node.reach(owner, 1)
        claims: list[Entry] = [(MAC + owner * 1000 + host, 1, 0, owner, WALL, 0) for host in range(1000)]
        node.table.take_in(1, entries(claims), node.now)
    node.sleep(20_000)
    assert [len(node.told(port)) + len(node.told(port)) for port in (1, 2, 3)] == [0, 10_000, 10_000]
    for way in (None, 2, None, 3):
        for owner in owners:
            node.reach(owner, way)
        assert len(node.table.best()) == (10_000 if way else 0)
        assert node.told_all() == [[], [], []]
    assert len(node.table.claims_of_all()) == 10_000


def test_many_changes_between_two_tellings_close_the_holes_of_the_log() -> None:
    node = Node()
    for number in range(40):
        node.hear(HIGH, 1, mac=MAC + number)
    node.sleep(20_000)
    assert len(node.told(2)) == 40
    for seq in range(2, 5000):
        node.hear(HIGH, seq, mac=MAC + seq % 7)
        if seq % 1000 == 0:
            node.sleep(20_000)
            assert len(node.told(2)) == 7
    node.table.open_port(4)
    assert [len(told) for told in node.told_all()] == [0, 7, 40] and len(node.told(4)) == 40


# Bad entries and limits.


@pytest.mark.parametrize("entry", [
    (0, 1, 0, LOW, 5, 0), (0x010000000000, 1, 0, LOW, 5, 0), (0xFFFFFFFFFFFF, 1, 0, LOW, 5, 0), (MAC, 1, 0, 0, 5, 0),
    (MAC, 7, 0, LOW, 5, 0)])
def test_an_entry_that_makes_no_sense_is_refused_alone(entry: Entry) -> None:
    node = Node()
    node.table.take_in(1, entries([entry, (SECOND, 1, 0, LOW, 5, 0)]), 0)
    assert node.table.refused_bad == 1 and [row[0] for row in node.table.claims_of_all()] == [SECOND]
    node.see(entry[0] if entry[0] != MAC else 0)
    assert node.table.learned_count == 0


def test_flags_of_days_to_come_are_ignored_and_not_passed_on() -> None:
    node = Node()
    node.hear(LOW, 5, 0xF8 | 1, port=2)
    assert node.owner() == LOW
    assert node.told_all()[0] == [(MAC, 1, 0, LOW, 5, 0)]


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_link_brings_as_many_claims_as_it_may_and_asks_again_when_it_may_more(limit: int, beyond: int) -> None:
    node = Node(max_link_claims=limit)
    count, refused = limit + beyond, max(beyond, 0)
    node.table.take_in(1, entries([(MAC + number, 1, 0, LOW, 5, 0) for number in range(count)]), 0)
    assert node.table.count_of(1) == min(count, limit) and node.table.refused_link == refused
    assert not node.table.asks_again(1) and not node.table.asks_again(2)
    # New versions of what is known always come in, and those that come from elsewhere make room.
    node.table.take_in(1, entries([(MAC, 1, 0, LOW, 6, 0)] if count else []), 0)
    assert node.table.refused_link == refused
    if count:
        node.hear(LOW, 7, port=2)
        assert node.claim(LOW) == (1, 7) and node.table.count_of(2) == 1
        assert node.table.asks_again(1) == (refused > 0) and not node.table.asks_again(1)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_table_holds_as_many_claims_of_others_as_it_may_and_the_own_all_the_same(beyond: int) -> None:
    node = Node(max_claims=10)
    for number in range(10 + beyond):
        node.hear(LOW, 5, mac=MAC + number, port=1 + number % 2)
    refused = max(beyond, 0)
    assert len(node.table.claims_of_all()) == min(10, 10 + beyond) and node.table.refused_full == refused
    for number in range(20):
        node.see(MAC + 100 + number)
    assert node.table.learned_count == 20
    node.reach(LOW, None)
    node.sleep(180 * S)
    assert node.table.asks_again(1) == (beyond > 0)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_all_that_links_of_version_1_can_offer_is_claimed_and_the_fixed_mac_beyond_that(beyond: int) -> None:
    node = Node(max_claims=1, max_local=2)
    limit = node.table.max_own
    assert limit == 65535 + 6
    for number in range(limit + beyond):
        node.table.offer(MAC + number, 1000, 1, 0)
    assert len(node.table.best()) == limit + min(beyond, 0) and node.table.refused_full == max(beyond, 0)
    node.see(MAC + 100_000)
    assert node.table.learned_full == (beyond >= 0)
    node.table.fix(MAC + 200_000, True, 0)
    assert node.table.has(MAC + 200_000)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_owners_that_nobody_reaches_fill_half_of_the_places_and_reachable_ones_take_theirs(beyond: int) -> None:
    node = Node(max_owners=20)
    for owner in range(1000, 1010 + beyond):
        node.hear(owner, 5, mac=MAC + owner)
    assert node.table.refused_full == max(beyond, 0)
    held = 10 + min(beyond, 0)
    assert len(node.table.claims_of_all()) == held
    # Ourselves and three more are there: beyond the last place the one lost first makes room.
    for number in range(20 - 4 - held + 1):
        node.reach(2000 + number, 1)
    assert node.table.refused_owners == 0 and len(node.table.claims_of_all()) == held - 1
    assert node.claim(1000, MAC + 1000) is None and node.claim(1001, MAC + 1001)


def test_a_node_for_which_there_is_no_place_at_all_is_counted() -> None:
    node = Node(max_owners=4)
    node.reach(2000, 1)
    assert node.table.refused_owners == 1


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("limit", [1, 10])
def test_as_many_hosts_are_learned_as_may_be(limit: int, beyond: int) -> None:
    node = Node(max_local=limit, mac_age=30 * S)
    for number in range(limit + beyond):
        node.see(MAC + number)
    assert node.table.learned_count == min(limit, limit + beyond) and node.table.learned_full == max(beyond, 0)
    node.sleep(31 * S)
    assert node.table.learned_count == 0
    node.see(MAC + limit)
    assert node.table.has(MAC + limit)


def test_a_lower_limit_forgets_the_hosts_that_were_silent_longest() -> None:
    node = Node()
    for number in range(5):
        node.see(MAC + number)
        node.sleep(2 * S)
    node.see()
    node.table.configure(True, 300 * S, 2, node.now)
    assert [number for number in range(5) if node.table.has(MAC + number)] == [0, 4]


@pytest.mark.parametrize("beyond", [0, 1])
def test_made_up_claims_of_ours_fill_a_bounded_place(beyond: int) -> None:
    node = Node(max_local=8)
    for number in range(8 + beyond):
        node.hear(ME, 5, mac=MAC + number)
    assert len(node.table.claims_of_all()) == 8 and node.table.refused_full == beyond
    node.sleep(190 * S)
    assert node.table.claims_of_all() == []
    node.hear(ME, 5)
    assert node.claim(ME) == (0, 6)


def test_changes_for_version_1_name_every_host_at_first_and_then_what_changed() -> None:
    node = Node()
    node.hear(LOW, 5)
    assert node.table.changed() == []
    node.table.follow_changes(True)
    assert node.table.changed() == [(MAC, 1, 1000, 1, "learned")]
    node.hear(HIGH, 6)
    assert node.table.changed() == [(MAC, 2, 1000, 1, "learned")]
    node.reach(HIGH, 2, 6000)
    assert node.table.changed() == []
    node.reach(HIGH, 2, 6001)
    assert node.table.changed() == [(MAC, 2, 6001, 1, "learned")]
    node.reach(HIGH, None)
    assert node.table.changed() == [(MAC, 1, 1000, 1, "learned")]
    node.reach(LOW, None)
    node.sleep(180 * S)
    assert node.table.changed() == [(MAC, None, 0, 0, "withdrawn")] and node.table.changed() == []


def test_what_other_borders_know_is_a_change_even_while_our_own_link_of_version_1_is_nearer() -> None:
    node = Node()
    node.table.offer(MAC, 500, 1, 0)
    node.table.follow_changes(True)
    assert node.table.changed() == [(MAC, FOREIGN_PORT, 500, 1, "foreign")] and node.table.beyond(MAC) is None
    node.hear(LOW, 5, 5, ping=7000, hops=2)
    assert node.table.changed() == [(MAC, FOREIGN_PORT, 500, 1, "foreign")]
    assert node.table.beyond(MAC) == (1, 8000, 3, "foreign")
    node.table.offer(MAC, 0, 0, 0)
    assert node.table.changed() == [(MAC, 1, 8000, 3, "foreign")]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The host table against its slow twin: seeded random operations, compared after each."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.wire import hosts_packet
from tests.model.naive_hosts import Entry, NaiveHostTable, S

PORTS = 5
ME = 50
OWNERS = [10, 20, 30, 70, 80, 2**64 - 1]
MACS = [0x020000000000 + number for number in range(10)]
BAD_MACS = [0, 0x010000000000, 0xFFFFFFFFFFFF]
COUNTERS = [
    "refused_bad", "refused_link", "refused_full", "refused_owners", "conflicts", "moves", "moves_held",
    "withdrawn_count", "learned_full", "disputed",
]


def entries(claims: list[Entry]) -> bytes:
    return hosts_packet(claims)[4:]


def read(data: bytes) -> list[Entry]:
    return [(int.from_bytes(mac, "big"), flags, hops, owner, seq, ping)
            for mac, flags, hops, owner, seq, ping in struct.iter_unpack(">6sBBQII", data)]


@dataclass
class Limits:
    max_link_claims: int = 65536
    max_local: int = 4096
    mac_age: int = 300 * S
    max_claims: int = 1000
    max_owners: int = 4096
    report_above: int = 5000


@dataclass
class Pair:
    """A table and its twin, fed alike. Time goes on by up to `pace` us with each step."""

    chance: random.Random
    limits: Limits
    pace: int
    wall: int
    now: int = 0
    told: int = 0
    mirror: dict[int, tuple[int, int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = HostTable(ME, PORTS, RandomSource(self.chance.getrandbits(64)), **vars(self.limits))
        self.twin = NaiveHostTable(ME, **vars(self.limits))
        self.first_wall = self.wall
        self.table.follow_changes(True)

    def claims(self) -> list[Entry]:
        """Mostly about as new as what is known: older, equal, newer, far ahead."""
        made = []
        for _ in range(self.chance.randrange(1, 5)):
            mac = self.chance.choice(MACS if self.chance.random() < 0.97 else BAD_MACS)
            owner = self.chance.choice([*OWNERS, ME, ME, 0] if self.chance.random() < 0.3 else OWNERS)
            known = [claim.seq for claim in self.twin.of(mac).values()] or [self.wall]
            seq = (self.chance.choice(known) + self.chance.choice([-1, 0, 1, 1, 2, 3, 100])) % 2**32
            flags = self.chance.choice([0, 1, 1, 1, 1, 3, 3, 5, 5, 7, 9, 0xF1, 2, 6])
            made.append((mac, flags, self.chance.randrange(4), owner, seq,
                         self.chance.choice([0, 1, 9000, 40_000, 0xFFFFFFFF, 0xFFFF0000])))
        return made

    def bounce(self) -> None:
        """A host that is here and with another node in turns, as in a bridge loop."""
        mac, port = self.chance.choice(MACS[2:4]), self.chance.randrange(1, PORTS + 1)
        node = self.chance.choice(OWNERS)
        for _ in range(self.chance.randrange(1, 9)):
            self.now += self.chance.randrange(1, 2 * S)
            self.table.see(mac, self.now)
            self.twin.see(mac, self.now)
            if port in self.twin.ports:
                seq = max([claim.seq for claim in self.twin.of(mac).values()] or [self.wall])
                claims = [(mac, 1, 0, node, (seq + 1) % 2**32, 0)]
                self.table.take_in(port, entries(claims), self.now)
                self.twin.take_in(port, claims, self.now)
            self.compare()

    def step(self) -> None:
        self.now += self.chance.randrange(1, self.chance.choice([10, 30_000, self.pace, self.pace]))
        if self.chance.random() < 0.003:
            self.now += 181 * S
        self.wall = (self.first_wall + self.now // S) % 2**32
        self.table.wall = self.twin.wall = self.wall
        kind, mac, port = self.chance.random(), self.chance.choice(MACS), self.chance.randrange(1, PORTS + 1)
        table, twin, now = self.table, self.twin, self.now
        if kind < 0.02:
            self.bounce()
        elif kind < 0.25:
            if port in twin.ports:
                claims = self.claims()
                table.take_in(port, entries(claims), now)
                twin.take_in(port, claims, now)
        elif kind < 0.45:
            mac = mac if self.chance.random() < 0.97 else self.chance.choice(BAD_MACS)
            table.see(mac, now)
            twin.see(mac, now)
        elif kind < 0.6:
            node = self.chance.choice([*OWNERS, ME, 40])
            way = self.chance.choice([None, port, port])
            metric, hops = self.chance.choice([1, 100, 9000, 60_000, 0xFFFF0000]), self.chance.randrange(1, 5)
            table.reach(node, way, metric, hops, now)
            twin.reach(node, way, metric, hops, now)
        elif kind < 0.65:
            present = self.chance.random() < 0.5
            mac = self.chance.choice(MACS[:2])
            table.fix(mac, present, now)
            twin.fix(mac, present, now)
        elif kind < 0.72:
            ping, hops = self.chance.choice([0, 0, 1, 8000, 8100, 30_000, 33_000]), self.chance.choice([1, 1, 2])
            table.offer(mac, ping, hops, now)
            twin.offer(mac, ping, hops, now)
        elif kind < 0.73:
            on, local = self.chance.random() < 0.8, self.chance.choice([1, 3, self.limits.max_local])
            table.configure(on, self.limits.mac_age, local, now)
            twin.configure(on, self.limits.mac_age, local, now)
        elif kind < 0.77:
            if port in twin.ports:
                table.close_port(port, now)
                twin.close(port)
            else:
                table.open_port(port)
                twin.open(port)
        elif kind < 0.78:
            table.owe(port)
            twin.owe(port)
        elif kind < 0.8:
            assert table.asks_again(port) == twin.asks_again(port)
        elif kind < 0.9:
            table.advance(now)
            twin.advance(now)
            assert (due := table.next_run()) is None or due > now
        else:
            for port in range(1, PORTS + 1):
                self.tell(port)

    def tell(self, port: int) -> None:
        is_ready = self.table.has_news()
        repeats = self.twin.repeats(port)
        expected = self.twin.updates(port)
        told = read(self.table.updates(port, self.now))
        assert set(told) == expected and len(expected) <= len(told) <= len(expected) + repeats
        assert is_ready or not told
        assert not self.table.updates(port, self.now)
        self.told += len(told)

    def compare(self) -> None:
        table, twin = self.table, self.twin
        rows = table.best()
        assert set(rows) == twin.rows() and len(set(rows)) == len(rows)
        claims = table.claims_of_all()
        assert set(claims) == twin.entries() and len(claims) == len(twin.claims)
        for port in range(1, PORTS + 1):
            if port in twin.ports:
                assert table.count_of(port) == twin.brought(port)
        assert table.learned_count == twin.learned()
        assert {name: getattr(table, name) for name in COUNTERS} == {name: getattr(twin, name) for name in COUNTERS}
        for mac in MACS:
            self.compare_look_up(mac)
        for mac, port, ping, hops, kind in table.changed():
            self.mirror.pop(mac, None)
            if port is not None:
                self.mirror[mac] = ping, hops, kind
        assert {mac: (hops, kind) for mac, (_, hops, kind) in self.mirror.items()} == {
            row[0]: (row[4], row[5]) for row in rows}
        for mac, _, _, ping, _, _, _ in rows:
            told = self.mirror[mac][0]
            assert abs(ping - told) <= max(self.limits.report_above, told // 4)

    def compare_look_up(self, mac: int) -> None:
        found, best, other = self.table.where(mac), self.twin.best(mac), self.twin.best(mac, ME)
        assert (found and found[1]) == best
        row = [row for row in self.table.best() if row[0] == mac]
        assert found is None or found[0] == row[0][2]
        assert self.table.redirected(mac) == (None if other is None else (self.twin.ways[other].port, other))
        beyond = self.table.beyond(mac)
        assert (beyond and beyond[0]) == (None if other is None else self.twin.ways[other].port)
        assert beyond is None or beyond[1] == max(1, self.twin.cost(mac, other))
        assert self.table.has(mac) == self.twin.is_ours(mac)


LIMITS = {
    "roomy": Limits(),
    "report all": Limits(report_above=0, mac_age=20 * S),
    "few from a link": Limits(max_link_claims=3),
    "one from a link": Limits(max_link_claims=1),
    "few hosts": Limits(max_local=2, mac_age=5 * S),
    "no hosts": Limits(max_local=0),
    "few claims": Limits(max_claims=6),
    "one claim": Limits(max_claims=1),
    "few owners": Limits(max_owners=4),
    "two owners": Limits(max_owners=2),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_table_and_twin_agree_after_each_operation(limits: Limits, seed: int) -> None:
    pair = Pair(random.Random(seed), limits, [300_000, 2 * S, 20 * S][seed], [1000, 2**32 - 100, 1_790_000_000][seed])
    for _ in range(1200):
        pair.step()
        pair.compare()
    table, is_roomy = pair.table, limits in (Limits(), LIMITS["report all"])
    assert pair.told > 20 and table.refused_bad and (table.moves or limits.max_claims == 1)
    assert not is_roomy or (table.disputed and table.conflicts and table.moves_held)
    assert bool(table.refused_link) == (limits.max_link_claims < 10)
    assert bool(table.refused_full) != is_roomy or limits.max_link_claims < 10 or limits.max_local < 10
    assert table.learned_full or limits.max_local > 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 130))
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_table_and_twin_agree_for_a_long_time(limits: Limits, seed: int) -> None:
    pair = Pair(random.Random(seed), limits, [300_000, 2 * S, 20 * S][seed % 3], [1000, 2**32 - 100][seed % 2])
    for _ in range(5000):
        pair.step()
        pair.compare()
    assert pair.told > 100

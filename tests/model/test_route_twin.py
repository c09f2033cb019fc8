# SPDX-License-Identifier: GPL-3.0-or-later
"""The route table against its slow twin: seeded random operations, compared after each."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from tests.model.naive import Entry, NaiveRouteTable

PORTS = 6
NOBODY = 0xFFFFFFFF
LISTENERS = [*range(1, PORTS + 1), NOBODY]
BORDERS = [1, 2, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFF0, 0x80000000]
MACS = [0x020000000000 + number for number in range(16)] + [0xFFFFFFFFFFFF, 0x01005E000001, 0, 0xFE0000000000]
Routes = dict[int, tuple[int, int]]


def entries(routes: list[Entry]) -> bytes:
    return b"".join(struct.pack(">6sHI", mac.to_bytes(6, "big"), dist, ping) for mac, dist, ping in routes)


def read(data: bytes) -> list[Entry]:
    return [(int.from_bytes(mac, "big"), dist, ping) for mac, dist, ping in struct.iter_unpack(">6sHI", data)]


@dataclass
class Limits:
    """How tight the tables are; in tight ones all pings of a port differ, so that it is known who must go."""

    max_port_routes: int = 256
    max_dist: int = 64
    report_above: int = 5000
    max_offers: int = 1 << 20
    rule_2009: bool = False


@dataclass
class Pair:
    """A table and its twin, fed alike; for each port, and one that leads nowhere, a mirror that applies every diff."""

    chance: random.Random
    limits: Limits
    mirrors: dict[int, Routes] = field(default_factory=lambda: {port: {} for port in LISTENERS})
    told: int = 0

    def __post_init__(self) -> None:
        limits = vars(self.limits).copy()
        routes = limits.pop("max_port_routes")
        self.table = RouteTable(PORTS, routes, RandomSource(self.chance.getrandbits(64)), **limits)
        self.twin = NaiveRouteTable(PORTS, routes, **limits)
        self.is_tight = routes < len(MACS)
        self.pings: set[int] = set()
        for port in range(1, PORTS + 1):
            self.table.open_port(port)

    def ping(self, port: int) -> int:
        if not self.is_tight:
            return self.chance.choice([*BORDERS, self.chance.randrange(1, 30_000), self.chance.randrange(1, 9)])
        taken = {ping for _, ping in self.twin.offers[port].values()} | self.pings
        while (ping := self.chance.choice([*BORDERS, self.chance.randrange(1, 30_000)])) in taken:
            pass
        self.pings.add(ping)
        return ping

    def routes(self, port: int, most: int) -> list[Entry]:
        self.pings = set()
        # Of MACs named twice in a tight table it would depend on the order which others stay.
        pick = self.chance.sample if self.is_tight else self.chance.choices
        macs = pick(MACS, k=self.chance.randrange(most))
        far = self.limits.max_dist
        dists = [0, 0, 1, 1, 2, 3, max(far, 1) - 1, far, far + 1, 65535]
        return [(mac, self.chance.choice(dists), self.ping(port) if self.chance.random() < 0.85 else 0) for mac in macs]

    def step(self) -> None:
        port, kind = self.chance.randrange(1, PORTS + 1), self.chance.random()
        if kind < 0.25:
            routes = self.routes(port, len(MACS))
            self.table.apply(port, entries(routes), True)
            self.twin.apply_set(port, routes)
        elif kind < 0.6:
            routes = self.routes(port, 6)
            self.table.apply(port, entries(routes), False)
            self.twin.apply_diff(port, routes)
        elif kind < 0.75:
            ping = self.chance.choice([*BORDERS, *range(1, 12), 4000, 9000, 20_000])
            self.table.measure_port(port, ping)
            self.twin.measure(port, ping)
        elif kind < 0.8:
            mac, present = self.chance.choice(MACS), self.chance.random() < 0.5
            self.table.set_local(mac, present)
            self.twin.set_local(mac, present)
        elif kind < 0.85:
            self.table.close_port(port)
            self.twin.close(port)
            self.table.open_port(port)
            self.twin.open(port)
        elif kind < 0.9:
            port = self.chance.choice([port, PORTS + 1])
            assert self.table.asks_again(port) == self.twin.asks_again(port)
        elif kind < 0.93:
            mac = self.chance.choice(MACS)
            ping = self.chance.choice([0, self.chance.randrange(1, 60_000), *BORDERS])
            dist, claim_dist = self.chance.randrange(8), self.chance.randrange(4)
            route = mac, ping, dist, self.chance.random() < 0.3, self.chance.randrange(1, 30_000), claim_dist
            assert self.table.set_mesh(*route) == self.twin.set_mesh(*route)
        else:
            self.tell()
            for _ in range(self.chance.choice([0, 0, 0, 0, 8, 12, 25])):
                self.compare()
                self.tell()

    def tell(self) -> None:
        told = [read(diff) for diff in self.table.beat(LISTENERS)]
        for port, diff, expected in zip(LISTENERS, told, self.twin.beat(LISTENERS), strict=True):
            assert {mac: (dist, ping) if ping else None for mac, dist, ping in diff} == expected
            assert len(diff) == len(expected)
            mirror = self.mirrors[port]
            for mac, dist, ping in diff:
                if ping:
                    mirror[mac] = dist, ping
                else:
                    del mirror[mac]
            self.told += len(diff)
            assert self.whole(port) == mirror
        best, mirror = self.twin.best(), self.mirrors[NOBODY]
        assert best.keys() == mirror.keys()
        for mac, (_, ping, dist) in best.items():
            assert dist == mirror[mac][0] and abs(ping - mirror[mac][1]) <= self.limits.report_above

    def whole(self, port: int) -> Routes:
        routes = read(self.table.told(True, port))
        assert len({mac for mac, _, _ in routes}) == len(routes)
        assert all(ping for _, _, ping in routes)
        return {mac: (dist, ping) for mac, dist, ping in routes}

    def compare(self) -> None:
        table, twin = self.table, self.twin
        best = twin.best()
        rows = table.best()
        assert len(rows) == len(best)
        assert {mac: (port, ping, dist) for mac, port, ping, dist in rows} == best
        for port in range(PORTS + 1):
            offered = table.offered_by(port)
            assert len(offered) == table.count_of(port) == len(twin.offers[port])
            assert set(offered) == twin.offered_by(port)
        assert table.offer_count == twin.offer_count()
        assert table.destination_count == len(twin.ways)
        assert table.held_count == sum(way.line == "held" for way in twin.ways.values())
        for mac in MACS:
            assert table.port_to(mac) == (best[mac][0] if mac in best else None)
        refused = table.refused_own, table.refused_far, table.refused_full
        assert refused == (twin.refused_own, twin.refused_far, twin.refused_full)
        # At any time a set says what all diffs have said, so that later diffs fit whoever heard either.
        port = self.chance.choice(LISTENERS)
        assert self.whole(port) == twin.whole(port)


LIMITS = {
    "roomy": Limits(),
    "report all": Limits(report_above=0),
    "never report": Limits(report_above=0xFFFFFFFF),
    "near": Limits(max_dist=2),
    "nothing is near": Limits(max_dist=0),
    "one route": Limits(max_port_routes=1),
    "few routes": Limits(max_port_routes=5),
    "few routes, one less": Limits(max_port_routes=4),
    "few offers": Limits(max_port_routes=9, max_offers=20),
    "no offer": Limits(max_port_routes=9, max_offers=1),
    "2009": Limits(rule_2009=True),
    "2009, few routes": Limits(max_port_routes=5, rule_2009=True),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_table_and_twin_agree_after_each_operation(limits: Limits, seed: int) -> None:
    pair = Pair(random.Random(seed), limits)
    for _ in range(1500):
        pair.step()
        pair.compare()
    assert pair.told > 20 or limits.max_dist == 0 or limits.max_offers == 1
    assert pair.table.refused_own and pair.table.refused_far
    assert bool(pair.table.refused_full) == (limits.max_port_routes < len(MACS) and limits.max_dist > 0)


@pytest.mark.parametrize("rule_2009", [False, True], ids=["hold rule", "2009"])
@pytest.mark.parametrize("seed", range(2))
def test_many_links_that_offer_the_same_macs_agree_with_the_twin(seed: int, rule_2009: bool) -> None:
    chance = random.Random(seed)
    ports, macs = 200, MACS[:6]
    table = RouteTable(ports, 256, RandomSource(seed), report_above=100, rule_2009=rule_2009)
    twin = NaiveRouteTable(ports, 256, report_above=100, rule_2009=rule_2009)
    for step in range(2500):
        port = chance.randrange(1, ports + 1)
        kind = chance.random()
        if kind < 0.4:
            ping = chance.randrange(1, 500)
            table.measure_port(port, ping)
            twin.measure(port, ping)
        elif kind < 0.95:
            routes = [(mac, chance.randrange(3), chance.randrange(500)) for mac in macs]
            table.apply(port, entries(routes), False)
            twin.apply_diff(port, routes)
        else:
            table.close_port(port)
            twin.close(port)
            table.open_port(port)
            twin.open(port)
        if step % 9 == 0:
            told, expected = table.beat([port, NOBODY]), twin.beat([port, NOBODY])
            for diff, routes in zip(told, expected, strict=True):
                assert {mac: (dist, ping) if ping else None for mac, dist, ping in read(diff)} == routes
        if step % 5 == 0:
            assert {mac: (port, ping, dist) for mac, port, ping, dist in table.best()} == twin.best()
    assert table.offer_count == twin.offer_count() > 500

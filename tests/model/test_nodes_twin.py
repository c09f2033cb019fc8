# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table against its slow twin: seeded random operations, state and output compared after each."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.wire import node_routes_packet, seq_requests_packet
from tests.model.naive_nodes import INFINITE, JUMP, MS, SECOND, NaiveNodeTable

ME = 77
PORTS = 6
NODES = [1, 2, 3, 5, 8, 1 << 63, 0, 13, 21, 34, (1 << 64) - 1]
Update = tuple[int, int, int, int, int]
Request = tuple[int, int, int]


def updates(routes: list[Update]) -> bytes:
    return node_routes_packet(routes)[4:]


def requests(entries: list[Request]) -> bytes:
    return seq_requests_packet(entries)[4:]


def read_updates(data: bytes) -> list[Update]:
    return list(struct.iter_unpack(">QIIIB3x", data))


def read_requests(data: bytes) -> list[Request]:
    return list(struct.iter_unpack(">QIB3x", data))


@dataclass
class Limits:
    max_nodes: int = 1024
    report_above: int = 5000
    first_seq: int = 1


@dataclass
class Pair:
    """A table and its twin, fed alike."""

    chance: random.Random
    limits: Limits
    now: int = 0
    open: set[int] = field(default_factory=set)
    jumped: set[int] = field(default_factory=set)
    sent: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.table = NodeTable(ME, PORTS, RandomSource(self.chance.getrandbits(64)), **vars(self.limits))
        self.twin = NaiveNodeTable(ME, **vars(self.limits))

    def update(self) -> Update:
        """Mostly what an honest neighbour might say, at times what none would."""
        node = self.chance.choice([*NODES, ME])
        # All that is offered of a node stays within a jump, so that no offer becomes feasible by what others offer.
        known, steps = self.limits.first_seq, [0, 0, 0, 0, 1, 1, 2, -1]
        if node == ME:
            known, steps = self.twin.seq, [*steps, JUMP - 1, JUMP, JUMP + 1, 1 << 31, -JUMP]
        elif node in self.twin.distances:
            known = self.twin.distances[node][0]
            steps += [JUMP + 1] if node in self.jumped else [JUMP, JUMP + 1]
        step = self.chance.choice(steps)
        if step == JUMP:
            self.jumped.add(node)
        metric = self.chance.choice([
            self.chance.randrange(60_000), self.chance.randrange(60_000), 0, 1, INFINITE, INFINITE, INFINITE - 1,
            INFINITE - 5])
        label = metric + 1 if self.chance.random() < 0.03 else self.chance.randrange(metric + 1)
        hops = self.chance.choice([0, 1, 1, 2, 2, 3, 5, 62, 63, 64, 65, 255])
        return node, (known + step) % (1 << 32), min(label, INFINITE), metric, hops

    def request(self) -> Request:
        node = self.chance.choice([*NODES, ME, 999])
        known = self.twin.seq if node == ME else self.twin.distances.get(node, (self.limits.first_seq, 0))[0]
        step = self.chance.choice([0, 1, 1, 1, 2, -1, 70_000, 1 << 31])
        return node, (known + step) % (1 << 32), self.chance.choice([0, 1, 2, 63, 64, 64, 65, 255])

    def step(self) -> None:
        self.now += self.chance.choice([0, 0, 0, 1, 5 * MS, 20 * MS, 99 * MS, 100 * MS, SECOND, 9 * SECOND])
        if self.chance.random() < 0.004:
            self.now += 181 * SECOND
        self.run_timers()
        port, kind = self.chance.randrange(1, PORTS + 1), self.chance.random()
        if port not in self.open:
            if kind < 0.3:
                self.open.add(port)
                self.table.open_port(port, self.now)
                self.twin.open(port, self.now)
        elif kind < 0.4:
            routes = [self.update() for _ in range(self.chance.randrange(1, 5))]
            self.table.receive_updates(port, updates(routes), self.now)
            self.twin.hear_updates(port, routes, self.now)
        elif kind < 0.55:
            entries = [self.request() for _ in range(self.chance.randrange(1, 4))]
            self.table.receive_requests(port, requests(entries), self.now)
            self.twin.hear_requests(port, entries, self.now)
        elif kind < 0.65:
            cost = self.chance.choice([0, 1, 500, 2000, 2001, 10_000, self.chance.randrange(40_000), INFINITE])
            self.table.measure_port(port, cost, self.now)
            self.twin.measure(port, cost, self.now)
        elif kind < 0.66:
            cost = self.chance.choice([1, 2001, 10_000_000])
            self.table.doubt_port(port, cost, self.now)
            self.twin.doubt(port, cost, self.now)
        elif kind < 0.68:
            self.open.remove(port)
            self.table.close_port(port, self.now)
            self.twin.close(port, self.now)
        elif kind < 0.70:
            self.table.receive_route_request(port)
            self.twin.owe_everything(port)
        elif kind < 0.73:
            assert self.table.asks_again(port) == self.twin.asks_again(port)
        elif kind < 0.8:
            assert {node for node, *_ in self.table.changed()} == self.twin.changed
            self.twin.changed.clear()
        else:
            self.send(port)

    def send(self, port: int) -> None:
        told = read_updates(self.table.updates(port, self.now))
        assert len(told) == len(set(told))
        assert set(told) == self.twin.updates(port, self.now)
        asked = read_requests(self.table.requests(port, self.now))
        assert len(asked) == len(set(asked))
        assert set(asked) == self.twin.requests(port)
        self.sent += len(told)
        self.asked += len(asked)

    def compare(self) -> None:
        table, twin = self.table, self.twin
        ways = {node: (port, metric, hops, seq) for node, port, metric, hops, seq in table.best()}
        assert ways.pop(ME) == (0, 0, 0, twin.seq)
        assert ways == {node: (*way, twin.distances[node][0]) for node, way in twin.ways.items()}
        assert {node: distance for node, *distance in table.distances()} == {
            node: list(distance) for node, distance in twin.distances.items()}
        assert sorted(table.starving()) == sorted(twin.starving)
        assert table.node_count == len(twin.known)
        for port in range(1, PORTS + 1):
            offered = table.offered_by(port)
            assert len(offered) == table.count_of(port)
            assert {node: tuple(offer) for node, *offer in offered} == twin.offers.get(port, {})
        for node in NODES:
            assert table.port_to(node) == (twin.ways[node].port if node in twin.ways else None)
            found = table.ways(node, 1)
            assert set(found) == twin.multipath(node, 1)
            assert [cost for _, cost in found] == sorted(cost for _, cost in found)
        assert table.changes_offer + table.changes_lost_link + table.changes_cost == twin.moves
        assert (table.unfeasible, table.refused, table.refused_full) == (
            twin.unfeasible, twin.refused, twin.refused_full)
        assert (table.requests_sent, table.requests_passed, table.requests_answered, table.own_heard) == (
            twin.requests_sent, twin.requests_passed, twin.requests_answered, twin.own_heard)
        assert table.due <= max(twin.due(), self.now), "it would wake too late"

    def run_timers(self) -> None:
        self.table.run_timers(self.now)
        self.twin.run(self.now)
        assert self.table.ready == len(self.twin.may_leave(self.now))


LIMITS = {
    "roomy": Limits(),
    "report all": Limits(report_above=0),
    "report by the quarter": Limits(report_above=1),
    "never report": Limits(report_above=INFINITE),
    "seq wraps": Limits(first_seq=INFINITE - 3),
    "seq changes its sign": Limits(first_seq=(1 << 31) - 2),
    "few nodes": Limits(max_nodes=6),
    "one node": Limits(max_nodes=1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_table_and_twin_agree_after_each_operation(limits: Limits, seed: int) -> None:
    pair = Pair(random.Random(seed), limits)
    for _ in range(2000):
        pair.step()
        pair.compare()
    table = pair.table
    assert pair.sent > 100 and pair.asked > 5
    assert table.unfeasible and table.refused and table.own_heard and table.requests_answered
    assert table.changes_offer and table.changes_lost_link and table.changes_cost
    assert bool(table.refused_full) == (limits.max_nodes < len(NODES))

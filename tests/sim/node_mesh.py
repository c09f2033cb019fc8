# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of node tables alone: no switch; links ordered and reliable while up, a clock that only events move.

    mesh = NodeMesh(ring(8), seed=1)
    mesh.run(10 * SECOND)
    mesh.kill(3)
    mesh.run(60 * SECOND)

After every single change of a next hop the next hops towards that node are followed: a circle is an AssertionError.
All times are microseconds. Each end of a link notices a loss for itself, later than it happens.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.random import RandomSource

MS = 1000
SECOND = 1_000_000
HOP_COST = 2
HEADER_BYTES = 4
NEVER = (1 << 63) - 1
Edge = tuple[int, int]
Pair = tuple[int, int]
"""A node, and the id that it wants to reach."""


def ring(size: int) -> list[Edge]:
    return [(at, (at + 1) % size) for at in range(size)]


def clique(size: int, first: int = 0) -> list[Edge]:
    return [(first + a, first + b) for b in range(size) for a in range(b)]


def two_cliques() -> list[Edge]:
    return [*clique(8), *clique(8, 8), (0, 8)]


def grid(width: int, height: int) -> list[Edge]:
    nodes = [(x, y) for y in range(height) for x in range(width)]
    right = [(y * width + x, y * width + x + 1) for x, y in nodes if x + 1 < width]
    return right + [(y * width + x, (y + 1) * width + x) for x, y in nodes if y + 1 < height]


def random_mesh(size: int, degree: int, chance: random.Random) -> list[Edge]:
    """Connected, `degree` links a node on average: a random tree and what is missing."""
    edges = {(chance.randrange(node), node) for node in range(1, size)}
    while len(edges) < size * degree // 2:
        a, b = sorted(chance.sample(range(size), 2))
        edges.add((a, b))
    return sorted(edges)


@dataclass
class Link:
    ends: Edge
    ports: Edge
    delay: int                          # one way
    up: bool = False
    life: int = 0                       # counts its connections
    attached: set[int] = field(default_factory=set)
    carried: Counter[int] = field(default_factory=Counter)     # bytes by sender

    def other(self, node: int) -> int:
        return self.ends[1] if node == self.ends[0] else self.ends[0]

    def port(self, node: int) -> int:
        return self.ports[self.ends.index(node)]


class NodeMesh:
    """Nodes are numbers; the ids that they have in this life are `ids[node]`."""

    def __init__(self, edges: Iterable[Edge], seed: int, *, starts: bool = True) -> None:
        self.chance = random.Random(seed)
        self.now = self.ties = self.messages = self.last_message = self.changes = 0
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.tables: dict[int, NodeTable] = {}
        self.ids: dict[int, int] = {}
        self.alarms: dict[int, int] = {}
        self.links: list[Link] = []
        self.by_port: dict[int, list[Link]] = {}    # of a node
        for a, b in edges:
            # Ports are numbered from 1.
            mine, others = self.by_port.setdefault(a, []), self.by_port.setdefault(b, [])
            link = Link((a, b), (len(mine) + 1, len(others) + 1), self.chance.randrange(2 * MS, 40 * MS))
            mine.append(link)
            others.append(link)
            self.links.append(link)
        self.next_hops: dict[int, dict[int, Link]] = {}     # id -> node -> link
        self.touched: set[int] = set()      # ids towards which something changed since reachability was looked at
        self.watched = False
        self.broken: set[Pair] = set()
        self.restored: dict[Pair, int] = {}         # when it had a way again, the last time
        self.lost: dict[Pair, int] = {}             # when the node gave its next hop up, the last time
        if starts:
            for node in self.by_port:
                self.start(node)
            for link in self.links:
                self.after(self.chance.randrange(SECOND), self.join, link)

    # Time.

    def after(self, delay: int, action: Callable[..., None], *args: Any) -> None:
        self.ties += 1
        heapq.heappush(self.events, (self.now + delay, self.ties, action, args))

    def run(self, duration: int) -> None:
        end = self.now + duration
        while self.events and self.events[0][0] <= end:
            time, _, action, args = heapq.heappop(self.events)
            if self.watched and self.touched and time > self.now:
                self.look_at_reachability()
            self.now = time
            action(*args)
        if self.watched:
            self.look_at_reachability()
        self.now = end

    # Nodes and links.

    def start(self, node: int) -> None:
        self.ids[node] = self.chance.getrandbits(64)
        source = RandomSource(self.chance.getrandbits(64))
        self.tables[node] = NodeTable(self.ids[node], len(self.by_port[node]), source)

    def join(self, link: Link) -> None:
        """The link comes up, first at one end; each measures it with its first echo."""
        if link.up or link.attached or not all(end in self.tables for end in link.ends):
            return
        link.up = True
        link.life += 1
        for place, end in enumerate(link.ends):
            self.after(place * link.delay, self.attach, link, link.life, end)
            self.after((place + 2) * link.delay, self.measure, link, link.life, end, 2 * link.delay + HOP_COST)

    def attach(self, link: Link, life: int, end: int) -> None:
        if link.life == life and link.up:
            link.attached.add(end)
            self.tables[end].open_port(link.port(end), self.now)
            self.settle(end)

    def measure(self, link: Link, life: int, end: int, cost: int) -> None:
        if link.life == life and end in link.attached:
            self.tables[end].measure_port(link.port(end), cost, self.now)
            self.settle(end)

    def cut(self, link: Link, within: int = 20 * MS) -> int:
        """Each end notices within that time; gives when the later one does, us from now."""
        if not link.up:
            return 0
        link.up = False
        delays = []
        for end in link.ends:
            if end in self.tables:
                delays.append(self.chance.randrange(within))
                self.after(delays[-1], self.detach, link, link.life, end)
            link.attached -= {end} - self.tables.keys()
        self.touched |= self.next_hops.keys()
        return max(delays, default=0)

    def detach(self, link: Link, life: int, end: int) -> None:
        if link.life == life and end in link.attached:
            link.attached.remove(end)
            self.tables[end].close_port(link.port(end), self.now)
            self.settle(end)

    def kill(self, node: int, within: int = 20 * MS) -> int:
        """Each neighbour notices within that time; gives when the last one does, us from now."""
        del self.tables[node]
        self.alarms.pop(node, None)
        for hops in self.next_hops.values():
            hops.pop(node, None)
        delays = [self.cut(link, within) for link in self.by_port[node]]
        for link in self.by_port[node]:
            link.attached.discard(node)
        return max(delays)

    # Messages.

    def settle(self, node: int) -> None:
        """Sends what may leave, and looks at what changed."""
        table = self.tables[node]
        self.look_at_changes(node)
        for port, updates, requests in table.leaving(self.now):
            link = self.by_port[node][port - 1]
            size = sum(HEADER_BYTES + len(entries) for entries in (updates, requests) if entries)
            self.messages += bool(updates) + bool(requests)
            self.last_message = self.now
            link.carried[node] += size
            if link.up:
                self.after(link.delay, self.deliver, link, link.life, link.other(node), updates, requests)
        if table.due < self.alarms.get(node, NEVER):
            self.alarms[node] = table.due
            self.after(max(table.due - self.now, 0), self.wake, node, table)

    def wake(self, node: int, table: NodeTable) -> None:
        if self.tables.get(node) is table and self.alarms.get(node, NEVER) <= self.now:
            del self.alarms[node]
            self.settle(node)

    def deliver(self, link: Link, life: int, end: int, updates: bytes, requests: bytes) -> None:
        if link.life != life or not link.up or end not in link.attached:
            return
        self.tables[end].receive_updates(link.port(end), updates, self.now)
        self.look_at_changes(end)
        self.tables[end].receive_requests(link.port(end), requests, self.now)
        self.settle(end)

    # What is wrong?

    def look_at_changes(self, node: int) -> None:
        for target, port, _, _, _ in self.tables[node].changed():
            hops = self.next_hops.setdefault(target, {})
            link = None if port is None else self.by_port[node][port - 1]
            if hops.get(node) is link:
                continue
            self.changes += 1
            self.touched.add(target)
            if link is None:
                del hops[node]
                self.lost[node, target] = self.now
                continue
            hops[node] = link
            self.assert_no_circle(node, target)

    def assert_no_circle(self, node: int, target: int) -> None:
        """A circle that a change of this node's next hop closes leads through it."""
        hops = self.next_hops[target]
        at = node
        while at in hops:
            at = hops[at].other(at)
            assert at != node, f"at {self.now} us a circle towards {target:x} through node {node}"

    def watch(self) -> None:
        """From now on it is kept how long a pair was without a way."""
        self.watched = True
        self.lost.clear()
        self.broken.clear()
        self.restored.clear()
        self.touched |= self.next_hops.keys()
        self.look_at_reachability()

    def look_at_reachability(self) -> None:
        """Of all pairs towards the touched ids; until something changes they stay as they are."""
        for target in self.touched:
            reaching = self.reaching(target)
            for node in self.tables:
                if node not in reaching:
                    self.broken.add((node, target))
                elif (node, target) in self.broken:
                    self.broken.remove((node, target))
                    self.restored[node, target] = self.now
        self.touched.clear()

    def reaching(self, target: int) -> set[int]:
        """The nodes whose frames to this id arrive, over links that are up."""
        before: dict[int, list[int]] = {}
        for node, link in self.next_hops.get(target, {}).items():
            if link.up:
                before.setdefault(link.other(node), []).append(node)
        left = [node for node in self.tables if self.ids[node] == target]
        found = set(left)
        while left:
            new = before.get(left.pop(), [])
            found.update(new)
            left += new
        return found

    def component(self, node: int) -> set[int]:
        """The nodes that links which are up connect with this one."""
        found, left = {node}, [node]
        while left:
            for link in self.by_port[left.pop()]:
                for end in link.ends if link.up else ():
                    if end not in found:
                        found.add(end)
                        left.append(end)
        return found

    def pairs(self) -> set[Pair]:
        """All that links connect."""
        return {(node, self.ids[other]) for node in self.tables for other in self.component(node)}

    def detour(self) -> float:
        """How much longer the ways are than the shortest ones, on average of all pairs; 1: no longer."""
        ratios = []
        for node, table in self.tables.items():
            best = self.shortest(node)
            ratios += [metric / best[target] for target, port, metric, _, _ in table.best() if port]
        return sum(ratios) / len(ratios)

    def shortest(self, node: int) -> dict[int, int]:
        """The cost of the shortest way to each id, by Dijkstra's algorithm."""
        costs: dict[int, int] = {}
        left = [(0, node)]
        while left:
            cost, at = heapq.heappop(left)
            if self.ids[at] not in costs:
                costs[self.ids[at]] = cost
                for link in self.by_port[at]:
                    if link.up:
                        heapq.heappush(left, (cost + 2 * link.delay + HOP_COST, link.other(at)))
        return costs

    def assert_rest(self) -> None:
        """Every pair of a component is reachable, nothing else is, none starves, and it has been quiet for 30 s."""
        for node, table in self.tables.items():
            reached = {target for target, *_ in table.best()}
            assert reached == {self.ids[other] for other in self.component(node)}
            assert table.starving() == []
        for node in self.tables:
            assert self.reaching(self.ids[node]) == self.component(node)
        assert self.now - self.last_message >= 30 * SECOND, "somebody still talks"

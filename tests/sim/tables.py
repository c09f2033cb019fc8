# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of version-1 route tables alone: what they tell each other, which ways frames take, and where those circle.

    run = Run(ring(8), seed=1, old=set())
    run.settle()
    run.kill(3)
    figures = run.watch()

The shipped table on every node, links with delays, one heartbeat of 50 ms on each node in its own phase. Loops are
looked for after every event that changed a next hop. Times are microseconds. A node's name is its number.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable

MS = 1000
SECOND = 1_000_000
HEARTBEAT = 50 * MS
FRAMES_APART = 200 * MS
"""Each node sends a frame to each MAC concerned this often, for 5 s after the event."""
MAC = 0x020000000000
NOWHERE = -1
ON_THE_WAY, ARRIVES, LOST, CIRCLES = 1, 2, 3, 4

Edges: TypeAlias = "list[tuple[int, int]]"


def ring(size: int) -> Edges:
    return [(node, (node + 1) % size) for node in range(size)]


def clique(size: int, first: int = 0) -> Edges:
    return [(first + a, first + b) for b in range(size) for a in range(b)]


def two_cliques(size: int) -> Edges:
    return [*clique(size), *clique(size, size), (0, size)]


def grid(side: int) -> Edges:
    across = [(node, node + 1) for node in range(side * side) if (node + 1) % side]
    return across + [(node, node + side) for node in range(side * (side - 1))]


def random_of_degree_4(size: int, seed: int) -> Edges:
    """Two circles through all nodes, in random orders."""
    chance = random.Random(seed)
    edges = set()
    for _ in range(2):
        order = chance.sample(range(size), size)
        edges |= {(min(a, b), max(a, b)) for a, b in zip(order, order[1:] + order[:1], strict=True)}
    return sorted(edges)


@dataclass
class Figures:
    """Of one run, since its event."""

    loops: int = 0
    longest_loop: int = 0
    circling: int = 0
    """frames that came to a node twice"""
    forgotten: int = 0
    """until nobody had a way to what cannot be reached any more"""
    back: list[int] = field(default_factory=list)
    """for each pair that was cut off and can reach each other: until it did, for good"""


class Run:
    """One mesh; `old` nodes have the rule of 2009."""

    def __init__(self, edges: Edges, seed: int, old: set[int]) -> None:
        self.chance = random.Random(seed)
        self.size = 1 + max(max(edge) for edge in edges)
        self.now = 0
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.event_count = 0
        self.alive = set(range(self.size))
        self.tables: list[RouteTable] = []
        self.ways: list[dict[int, int]] = [{} for _ in range(self.size)]
        """by node: port -> neighbour"""
        self.links: dict[tuple[int, int], tuple[int, int]] = {}
        """(node, neighbour) -> port, delay; both ways"""
        self.next_hop = [[NOWHERE] * self.size for _ in range(self.size)]
        """by MAC's node, by node"""
        self.begun: int | None = None
        """when the event came"""
        self.looping: dict[int, int] = {}
        """MAC's node -> since when there is a loop"""
        self.last_seen: dict[tuple[int, int], int] = {}
        """(node, MAC's node), those not to be reached: when it last had a way"""
        self.broken: set[tuple[int, int]] = set()
        self.mended: dict[tuple[int, int], int] = {}
        self.apart: set[tuple[int, int]] = set()
        """(living node, node) between which no way is left"""
        self.figures = Figures()
        for node in range(self.size):
            table = RouteTable(16, 256, RandomSource(self.chance.getrandbits(64)), rule_2009=node in old)
            table.follow(True)
            table.set_local(MAC + node, True)
            self.tables.append(table)
            self.next_hop[node][node] = node
            self.at(self.chance.randrange(1, HEARTBEAT), partial(self.beat, node))
        for a, b in edges:
            self.open(a, b, self.chance.randrange(2 * MS, 40 * MS))

    def at(self, time: int, event: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self.events, (time, self.event_count, event))

    def advance(self, duration: int) -> None:
        end = self.now + duration
        while self.events and self.events[0][0] <= end:
            self.now, _, event = heapq.heappop(self.events)
            event()
        self.now = end

    # Links and nodes.

    def open(self, a: int, b: int, delay: int) -> None:
        for node, other in ((a, b), (b, a)):
            port = next(port for port in range(1, 17) if port not in self.ways[node])
            self.ways[node][port] = other
            self.links[node, other] = port, delay
            self.tables[node].open_port(port)
            self.tables[node].measure_port(port, 2 * delay)
        for node, other in ((a, b), (b, a)):
            port = self.links[node, other][0]
            self.carry(node, other, self.tables[node].told(True, port), True)

    def close(self, a: int, b: int) -> None:
        for node, other in ((a, b), (b, a)):
            port, _ = self.links.pop((node, other))
            del self.ways[node][port]
            self.tables[node].close_port(port)
            self.look(node)

    def carry(self, node: int, other: int, told: bytes, whole: bool) -> None:
        link = self.links[node, other]

        def arrive() -> None:
            if self.links.get((node, other)) is link:
                self.tables[other].apply(self.links[other, node][0], told, whole)
                self.look(other)

        self.at(self.now + link[1], arrive)

    def beat(self, node: int) -> None:
        if node not in self.alive:
            return
        ways = list(self.ways[node].items())
        diffs = self.tables[node].beat([port for port, _ in ways])
        for (_, other), told in zip(ways, diffs, strict=True):
            if told:
                self.carry(node, other, told, False)
        self.look(node)
        self.at(self.now + HEARTBEAT, lambda: self.beat(node))

    # What is looked at.

    def look(self, node: int) -> None:
        """Takes in the next hops that an event has changed."""
        for mac, port, _, _ in self.tables[node].crossed():
            target = mac - MAC
            self.next_hop[target][node] = NOWHERE if port is None else self.ways[node][port]
            if self.begun is not None:
                self.judge(target)

    def judge(self, target: int) -> None:
        """Where frames for this MAC end now, from everywhere."""
        hops = self.next_hop[target]
        ends = [0] * self.size
        ends[target] = ARRIVES if target in self.alive else LOST
        for start in self.alive:
            path, node = [], start
            while node != NOWHERE and not ends[node]:
                ends[node] = ON_THE_WAY
                path.append(node)
                node = hops[node]
            end = LOST if node == NOWHERE else CIRCLES if ends[node] == ON_THE_WAY else ends[node]
            for node in path:
                ends[node] = end
        loops = CIRCLES in ends
        if loops and target not in self.looping:
            self.looping[target] = self.now
            self.figures.loops += 1
        elif not loops and target in self.looping:
            self.end_loop(target)
        for node in self.alive:
            pair = node, target
            if pair in self.apart:
                if hops[node] != NOWHERE:
                    self.last_seen[pair] = -1
                elif self.last_seen.get(pair) == -1:
                    self.last_seen[pair] = self.now
            elif ends[node] != ARRIVES:
                self.broken.add(pair)
            elif pair in self.broken:
                self.broken.remove(pair)
                self.mended[pair] = self.now

    def end_loop(self, target: int) -> None:
        lasted = self.now - self.looping.pop(target)
        self.figures.longest_loop = max(self.figures.longest_loop, lasted)

    def settle(self) -> None:
        """Until all have a way to all, by links that rest."""
        for _ in range(200):
            self.advance(HEARTBEAT)
            if all(NOWHERE not in hops for hops in self.next_hop):
                break
        else:
            raise AssertionError("the mesh does not settle")
        self.advance(3 * SECOND)

    def kill(self, node: int) -> None:
        """Its neighbours notice at once."""
        self.alive.remove(node)
        self.begin([(node, other) for a, other in self.links if a == node], [node])

    def cut(self, a: int, b: int) -> None:
        self.begin([(a, b)], [a, b])

    def begin(self, lost: Edges, targets: list[int]) -> None:
        self.begun = self.now
        left = {frozenset(pair) for pair in self.links} - {frozenset(pair) for pair in lost}
        self.apart = self.pairs_apart({tuple(sorted(pair)) for pair in left})
        self.last_seen = {(node, target): -1 for node, target in self.apart if self.next_hop[target][node] != NOWHERE}
        for a, b in lost:
            self.close(a, b)
        for target in range(self.size):
            self.judge(target)
        for number in range(25):
            for node in self.alive:
                later = number * FRAMES_APART + self.chance.randrange(FRAMES_APART)
                self.at(self.now + later, partial(self.send, node, targets))

    def pairs_apart(self, edges: set[tuple[int, ...]]) -> set[tuple[int, int]]:
        """(living node, node) where no way is left."""
        island = {node: {node} for node in range(self.size)}
        for a, b in edges:
            if island[a] is not island[b]:
                island[a] |= island[b]
                for node in island[b]:
                    island[node] = island[a]
        return {(a, b) for a in self.alive for b in range(self.size) if b not in island[a]}

    def send(self, node: int, targets: list[int]) -> None:
        for target in targets:
            self.pass_on(target, node, set())

    def pass_on(self, target: int, node: int, seen: set[int]) -> None:
        """A frame is at a node; one that came to it before is counted and taken out."""
        if node in seen:
            self.figures.circling += 1
            return
        other = self.next_hop[target][node]
        if node not in (target, other) and other != NOWHERE and node in self.alive:
            seen.add(node)
            self.at(self.now + self.links[node, other][1], lambda: self.pass_on(target, other, seen))

    def watch(self, duration: int = 7 * SECOND) -> Figures:
        assert self.begun is not None
        self.advance(duration)
        for target in list(self.looping):
            self.end_loop(target)
        assert not self.broken, f"cut off for ever: {sorted(self.broken)[:5]}"
        figures = self.figures
        figures.forgotten = max((self.now if time == -1 else time for time in self.last_seen.values()),
                                default=self.begun) - self.begun    # fmt: skip
        figures.back = [time - self.begun for time in self.mended.values()]
        return figures

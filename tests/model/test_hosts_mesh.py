# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of host tables alone: ordered links with a delay, ways handed in as a node table would find them, a clock."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import pytest

from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.random import RandomSource
from tests.model.naive_hosts import S

MAC = 0x02AA00000000
WALL = 1_790_000_000
MS = 1000


@dataclass
class Node:
    table: HostTable
    clock_off: int  # s
    ports: dict[int, int] = field(default_factory=dict)  # neighbour -> port
    alive: bool = True


class Mesh:
    """Nodes 1 to n in a ring, with chords if `degree` is 2 and more.

    A node learns of a changed way within 300 ms, at once if its own link broke.
    """

    def __init__(self, seed: int, nodes: int, degree: int) -> None:
        self.chance = random.Random(seed)
        self.now, self.order = 0, count()
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.nodes: dict[int, Node] = {}
        for node in range(1, nodes + 1):
            table = HostTable(node, 2 * degree + 8, RandomSource(seed), max_claims=4096)
            self.nodes[node] = Node(table, self.chance.randrange(-3, 4))
        self.up: dict[tuple[int, int], int] = {}  # link -> its delay, us
        self.epoch: dict[tuple[int, int], int] = {}  # what was on its way over a link that broke is lost
        self.links: list[tuple[int, int]] = []
        self.sent: list[int] = []  # when each message left
        for node in range(1, nodes + 1):
            others = [node % nodes + 1, *self.chance.sample(range(1, nodes + 1), degree)][: 1 + degree // 2]
            for other in others:
                link = min(node, other), max(node, other)
                if node != other and link not in self.links:
                    self.links.append(link)
        for link in self.links:
            for node, other in (link, link[::-1]):
                self.nodes[node].ports[other] = len(self.nodes[node].ports) + 1
            self.join(link)

    def at(self, delay: int, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), do))

    def run(self, us: int) -> None:
        end = self.now + us
        while self.events and self.events[0][0] <= end:
            self.now, _, do = heapq.heappop(self.events)
            do()
        self.now = end

    def table(self, node: int) -> HostTable:
        """With its wall clock set."""
        table = self.nodes[node].table
        table.wall = WALL + self.nodes[node].clock_off + self.now // S
        return table

    # Links.

    def join(self, link: tuple[int, int]) -> None:
        if link in self.up or not all(self.nodes[node].alive for node in link):
            return
        self.up[link] = self.chance.randrange(2 * MS, 40 * MS)
        for node, other in (link, link[::-1]):
            self.nodes[node].table.open_port(self.nodes[node].ports[other])
        self.ways_changed(link)

    def cut(self, link: tuple[int, int]) -> None:
        if link not in self.up:
            return
        del self.up[link]
        self.epoch[link] = self.epoch.get(link, 0) + 1
        for node, other in (link, link[::-1]):
            self.nodes[node].table.close_port(self.nodes[node].ports[other], self.now)
        self.ways_changed(link)

    def ways_changed(self, link: tuple[int, int]) -> None:
        for node in self.nodes:
            self.at(0 if node in link else self.chance.randrange(300 * MS), partial(self.find_ways, node))
            # Whoever looked too early looks again.
            self.at(300 * MS, partial(self.find_ways, node))

    def find_ways(self, node: int) -> None:
        if not self.nodes[node].alive:
            return
        first: dict[int, int] = {node: 0}
        queue = deque([node])
        while queue:
            at = queue.popleft()
            for link in self.up:
                if at in link:
                    other = sum(link) - at
                    if other not in first:
                        first[other] = other if at == node else first[at]
                        queue.append(other)
        for other in self.nodes:
            if other != node:
                port = self.nodes[node].ports[first[other]] if other in first else None
                self.table(node).reach(other, port, 1000, 1, self.now)
        self.pump(node)

    def pump(self, node: int) -> None:
        """Runs what is due and lets leave what may leave."""
        table = self.table(node)
        if not self.nodes[node].alive:
            return
        while (due := table.next_run()) is not None and due <= self.now:
            table.advance(self.now)
        for other, port in self.nodes[node].ports.items():
            while table.has_news() and (data := table.updates(port, self.now)):
                link = min(node, other), max(node, other)
                self.sent.append(self.now)
                self.at(self.up[link], partial(self.arrive, link, self.epoch.get(link), other, node, data))
        if due is not None:
            self.at(due - self.now, partial(self.pump, node))

    def arrive(self, link: tuple[int, int], epoch: int | None, node: int, source: int, data: bytes) -> None:
        if link in self.up and self.epoch.get(link) == epoch:
            self.table(node).take_in(self.nodes[node].ports[source], data, self.now)
            self.pump(node)

    def kill(self, node: int) -> None:
        self.nodes[node].alive = False
        for link in self.links:
            if node in link:
                self.cut(link)

    # Hosts.

    def frame(self, host: int, node: int) -> None:
        if self.nodes[node].alive:
            self.table(node).see(MAC + host, self.now)
            self.pump(node)

    def claims(self, node: int) -> set[tuple[int, int, int, int]]:
        """All that are present."""
        return {(mac, flags, owner, seq)
                for mac, flags, _, owner, seq, _ in self.nodes[node].table.claims_of_all() if flags}

    def choices(self, node: int) -> dict[int, int]:
        return {mac - MAC: owner for mac, owner, _, _, _, _, _ in self.nodes[node].table.best()}


def move_hosts(mesh: Mesh, hosts: int, until: int) -> dict[int, int]:
    """Each is somewhere else every 0.1 to 2 s, and sends there every 1 to 3 s for ever; where they are."""
    places: dict[int, int] = {}

    def move(host: int) -> None:
        places[host] = mesh.chance.choice(list(mesh.nodes))
        mesh.frame(host, places[host])
        if mesh.now < until:
            mesh.at(mesh.chance.randrange(100 * MS, 2 * S), lambda: move(host))

    def send(host: int) -> None:
        mesh.frame(host, places[host])
        mesh.at(mesh.chance.randrange(1 * S, 3 * S), lambda: send(host))

    for host in range(hosts):
        move(host)
        send(host)
    return places


def break_links(mesh: Mesh, until: int, pause: int) -> None:
    def step() -> None:
        link = mesh.chance.choice(mesh.links)
        if mesh.now >= until:
            for other in mesh.links:
                mesh.join(other)
            return
        mesh.cut(link)
        mesh.at(mesh.chance.randrange(1, 4 * pause), lambda: mesh.join(link))
        mesh.at(mesh.chance.randrange(1, 2 * pause), step)

    step()


def chaos(seed: int, nodes: int, hosts: int, pause: int) -> None:
    mesh = Mesh(seed, nodes, 4)
    places = move_hosts(mesh, hosts, 15 * S)
    break_links(mesh, 15 * S, pause)
    mesh.run(15 * S)
    moves = sum(node.table.moves for node in mesh.nodes.values())
    assert moves > hosts and sum(mesh.epoch.values()) > 3
    # The last links are up again at most 4 pauses later.
    mesh.run(4 * pause)
    mesh.sent.clear()
    mesh.run(30 * S)
    settled = len(mesh.sent)
    mesh.run(30 * S)
    assert len(mesh.sent) == settled, "messages in the last 30 s"
    claims = mesh.claims(1)
    assert len(claims) == hosts
    for node in mesh.nodes:
        assert mesh.claims(node) == claims and mesh.choices(node) == places


@pytest.mark.parametrize("seed", range(25))
def test_hosts_that_move_while_links_break_are_found_by_all_in_the_end(seed: int) -> None:
    chaos(seed, 8, 12, 300 * MS)


@pytest.mark.long
@pytest.mark.parametrize("pause", [50 * MS, 300 * MS, 2 * S])
@pytest.mark.parametrize("seed", range(100, 108))
def test_the_same_in_larger_meshes(seed: int, pause: int) -> None:
    chaos(seed, 24, 40, pause)


@pytest.mark.parametrize("seed", range(5))
def test_claims_of_a_dead_owner_are_gone_everywhere_after_180_s_while_links_restart(seed: int) -> None:
    mesh = Mesh(seed, 8, 4)
    for host in range(5):
        mesh.frame(host, 8)
    mesh.run(2 * S)
    assert all(len(mesh.claims(node)) == 5 for node in range(1, 9))
    mesh.kill(8)
    break_links(mesh, mesh.now + 175 * S, 5 * S)
    mesh.run(175 * S)
    assert sum(mesh.epoch.values()) > 20
    # Whoever was cut off from all others for a moment still remembers, and uses nothing of it.
    assert any(mesh.claims(node) for node in range(1, 8)) and not any(mesh.choices(node) for node in range(1, 8))
    mesh.run(6 * S)
    assert not any(mesh.claims(node) for node in range(1, 8))
    mesh.run(200 * S)
    assert not any(mesh.claims(node) for node in range(1, 8))


@pytest.mark.parametrize("seed", range(5))
def test_a_ring_that_is_cut_sends_no_claim(seed: int) -> None:
    mesh = Mesh(seed, 10, 1)
    for host in range(200):
        mesh.frame(host, 1 + host % 10)
    mesh.run(2 * S)
    assert all(len(mesh.choices(node)) == 200 for node in mesh.nodes)
    mesh.sent.clear()
    mesh.cut(mesh.links[seed])
    lost = len(mesh.choices(mesh.links[seed][0]))
    mesh.run(20 * S)
    assert not mesh.sent and all(len(mesh.choices(node)) == 200 for node in mesh.nodes) and lost <= 200


@pytest.mark.parametrize("seed", range(5))
def test_after_a_partition_the_last_one_to_see_a_host_wins(seed: int) -> None:
    mesh = Mesh(seed, 8, 1)
    for node in mesh.nodes.values():
        node.clock_off = 0
    mesh.frame(1, 2)
    mesh.run(2 * S)
    halves = [(1, 8), (4, 5)]
    for link in halves:
        mesh.cut(link)
    mesh.run(5 * S)
    for _ in range(3):          # it moves to and fro in one half, then once, but later, in the other
        mesh.frame(1, 3)
        mesh.run(S // 2)
        mesh.frame(1, 2)
        mesh.run(S // 2)
    mesh.run(20 * S)
    mesh.frame(1, 6)
    mesh.run(5 * S)
    assert mesh.choices(3) == {1: 2} and mesh.choices(7) == {1: 6}
    for link in halves:
        mesh.join(link)
    mesh.run(2 * S)
    assert all(mesh.choices(node) == {1: 6} for node in mesh.nodes)
    assert all(len(mesh.claims(node)) == 1 for node in mesh.nodes)

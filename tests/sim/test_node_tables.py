# SPDX-License-Identifier: GPL-3.0-or-later
"""The node tables of whole meshes: no next hops ever form a circle, and the figures of docs/routing.md hold.

Circles are looked for after every single change of a next hop. `-s` prints the figures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.sim.node_mesh import (
    MS,
    SECOND,
    Edge,
    Link,
    NodeMesh,
    clique,
    grid,
    random_mesh,
    ring,
    two_cliques,
)

TOPOLOGIES: dict[str, Callable[[random.Random], list[Edge]]] = {
    "ring8": lambda chance: ring(8),
    "ring32": lambda chance: ring(32),
    "K8": lambda chance: clique(8),
    "random16": lambda chance: random_mesh(16, 4, chance),
    "random64": lambda chance: random_mesh(64, 4, chance),
    "two cliques": lambda chance: two_cliques(),
    "grid8x8": lambda chance: grid(8, 8),
}
SEEDS = [pytest.param(range(2)), pytest.param(range(2, 25), marks=pytest.mark.long, id="25")]


def meshes(seeds: range, *names: str) -> Iterator[NodeMesh]:
    """One of each topology and seed, at rest."""
    for name in names or TOPOLOGIES:
        for seed in seeds:
            mesh = NodeMesh(TOPOLOGIES[name](random.Random(seed)), seed)
            mesh.run(15 * SECOND)
            mesh.watch()
            yield mesh


def finish(mesh: NodeMesh) -> None:
    mesh.run(60 * SECOND)
    mesh.assert_rest()
    assert not mesh.broken & mesh.pairs()


class Times:
    """How long each pair was without something, seconds."""

    def __init__(self, times: list[int]) -> None:
        self.times = sorted(max(time, 0) / SECOND for time in times)

    def part(self, share: float) -> float:
        return self.times[int(share * (len(self.times) - 1))]

    def __str__(self) -> str:
        figures = " / ".join(f"{self.part(share):.3f}" for share in (0.5, 0.95, 1))
        return f"p50 / p95 / max {figures} s of {len(self.times)} pairs"


def back_since(mesh: NodeMesh, noticed: int) -> list[int]:
    """Of the pairs that were without a way and can have one: from then to when they had it."""
    pairs = mesh.pairs()
    return [time - noticed for pair, time in mesh.restored.items() if pair in pairs]


@pytest.mark.parametrize("seeds", SEEDS)
def test_after_a_death_or_a_cut_the_dead_is_forgotten_and_the_others_reach_each_other(seeds: range) -> None:
    forgotten, back = [], []
    for mesh in meshes(seeds):
        noticed = mesh.now + mesh.cut(mesh.chance.choice(mesh.links))
        finish(mesh)
        back += back_since(mesh, noticed)
    for within in (20 * MS, 5 * SECOND):        # noticed at once; silent, each neighbour notices on its own
        for mesh in meshes(seeds):
            dead = mesh.chance.choice(sorted(mesh.tables))
            noticed = mesh.now + mesh.kill(dead, within)
            finish(mesh)
            assert mesh.ids[dead] not in {target for table in mesh.tables.values() for target, *_ in table.best()}
            forgotten += [time - noticed for (_, target), time in mesh.lost.items() if target == mesh.ids[dead]]
            back += back_since(mesh, noticed)
    print(f"\nforgotten {Times(forgotten)}; back {Times(back)}")
    assert Times(forgotten).part(0.95) <= 0.4 and Times(forgotten).part(1) <= 0.6
    assert Times(back).part(0.5) <= 0.15 and Times(back).part(0.95) <= 1.1 and Times(back).part(1) <= 1.5


@pytest.mark.parametrize("seeds", SEEDS)
def test_after_a_partition_heals_all_reach_all(seeds: range) -> None:
    for mesh in meshes(seeds):
        half = set(range(len(mesh.tables) // 2))
        between = [link for link in mesh.links if len(half.intersection(link.ends)) == 1]
        for link in between:
            mesh.cut(link)
        mesh.run(mesh.chance.randrange(SECOND, 40 * SECOND))
        for node in mesh.tables:
            assert all((target in {mesh.ids[other] for other in mesh.component(node)})
                       for target, *_ in mesh.tables[node].best())
        for link in between:
            mesh.join(link)
        finish(mesh)
        assert len(mesh.pairs()) == len(mesh.tables) ** 2


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_link_that_flaps_does_no_lasting_harm(seeds: range) -> None:
    for mesh in meshes(seeds):
        link = mesh.chance.choice(mesh.links)
        for _ in range(10):
            mesh.cut(link)
            mesh.run(mesh.chance.randrange(50 * MS, SECOND))
            mesh.join(link)
            mesh.run(mesh.chance.randrange(50 * MS, SECOND))
        finish(mesh)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_node_that_starts_again_comes_back_under_another_id(seeds: range) -> None:
    for mesh in meshes(seeds):
        node = mesh.chance.choice(sorted(mesh.tables))
        old = mesh.ids[node]
        mesh.kill(node)
        mesh.run(mesh.chance.randrange(50 * MS, 3 * SECOND))
        revive(mesh, node)
        finish(mesh)
        assert old not in {target for table in mesh.tables.values() for target, *_ in table.best()}
        mesh.run(180 * SECOND)
        assert old not in {target for table in mesh.tables.values() for target, *_ in table.distances()}


def revive(mesh: NodeMesh, node: int) -> None:
    mesh.start(node)
    for link in mesh.by_port[node]:
        mesh.after(mesh.chance.randrange(300 * MS), mesh.join, link)


def disturb(mesh: NodeMesh) -> None:
    """Something happens somewhere."""
    link = mesh.chance.choice(mesh.links)
    kind = mesh.chance.choice(["cut", "cut", "join", "join", "kill", "revive", "cost", "cost"])
    dead = sorted(mesh.by_port.keys() - mesh.tables.keys())
    if kind == "cut":
        mesh.cut(link)
    elif kind == "join":
        mesh.join(mesh.chance.choice([link for link in mesh.links if not link.up] or mesh.links))
    elif kind == "kill" and len(mesh.tables) > 4:
        mesh.kill(mesh.chance.choice(sorted(mesh.tables)))
    elif kind == "revive" and dead:
        revive(mesh, mesh.chance.choice(dead))
    elif kind == "cost":
        set_cost(mesh, link, mesh.chance.randrange(4 * MS, 200 * MS))


def set_cost(mesh: NodeMesh, link: Link, cost: int) -> None:
    for end in link.ends:
        mesh.measure(link, link.life, end, cost)


@pytest.mark.parametrize("seeds", SEEDS)
def test_chaos_ends_in_order(seeds: range) -> None:
    for mesh in meshes(seeds):
        changes = mesh.changes
        for _ in range(46):
            mesh.after(mesh.chance.randrange(15 * SECOND), disturb, mesh)
        mesh.run(15 * SECOND)
        assert mesh.changes > changes
        finish(mesh)


@pytest.mark.parametrize("seeds", SEEDS)
def test_pings_that_jitter_leave_no_pair_without_a_way(seeds: range) -> None:
    for mesh in meshes(seeds):
        for time in range(30):
            for link in mesh.links:
                cost = 2 * link.delay * mesh.chance.randrange(100, 250) // 100
                mesh.after(time * SECOND + mesh.chance.randrange(SECOND), set_cost, mesh, link, cost)
        changes = mesh.changes
        mesh.run(30 * SECOND)
        assert mesh.changes > changes and not mesh.restored and not mesh.broken
        for link in mesh.links:
            set_cost(mesh, link, 2 * link.delay + 2)
        mesh.run(120 * SECOND)
        finish(mesh)
        assert mesh.detour() <= 1.1


@pytest.mark.parametrize("seeds", SEEDS)
def test_at_rest_ways_are_the_shortest_but_for_what_a_change_is_not_worth(seeds: range) -> None:
    detours = [mesh.detour() for mesh in meshes(seeds)]
    print(f"\nways are {sum(detours) / len(detours):.4f} times the best, {max(detours):.4f} in the worst mesh")
    assert sum(detours) / len(detours) <= 1.01


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_death_in_a_clique_of_32_is_cheap(seeds: range) -> None:
    messages, most = [], []
    for seed in seeds:
        mesh = NodeMesh(clique(32), seed)
        mesh.run(15 * SECOND)
        mesh.watch()
        for link in mesh.links:
            link.carried.clear()
        messages.append(-mesh.messages)
        mesh.kill(mesh.chance.randrange(32))
        finish(mesh)
        messages[-1] += mesh.messages
        most.append(max(size for link in mesh.links for size in link.carried.values()))
    print(f"\na death in K32: {max(messages)} messages, {max(most)} B a link and direction at most")
    assert max(messages) <= 25_000 and max(most) <= 2048


@pytest.mark.parametrize("seeds", SEEDS)
def test_one_death_or_cut_costs_60_bytes_for_each_node(seeds: range) -> None:
    """On the link of most traffic. What it costs to lose all ways at once: retracted, asked for and told, 64 B each."""
    shares = []
    for is_death in (True, False):
        for mesh in meshes(seeds):
            for link in mesh.links:
                link.carried.clear()
            if is_death:
                mesh.kill(mesh.chance.choice(sorted(mesh.tables)))
            else:
                mesh.cut(mesh.chance.choice(mesh.links))
            nodes = len(mesh.by_port)
            finish(mesh)
            shares.append(max(size / nodes for link in mesh.links for size in link.carried.values()))
    shares.sort()
    print(f"\na death or a cut, B for each node on a link and direction: p50 {shares[len(shares) // 2]:.1f}, "
          f"p99 {shares[int(0.99 * (len(shares) - 1))]:.1f}, max {shares[-1]:.1f}")
    assert shares[int(0.99 * (len(shares) - 1))] <= 60 and shares[-1] <= 66


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_hundred_nodes_start_within_2_seconds(seeds: range) -> None:
    most, slowest = [], []
    for seed in seeds:
        mesh = NodeMesh(random_mesh(100, 4, random.Random(seed)), seed, starts=False)
        mesh.watch()
        starts = {node: mesh.chance.randrange(2 * SECOND) for node in mesh.by_port}
        for node, start in starts.items():
            mesh.after(start, mesh.start, node)
        up = 0
        for link in mesh.links:
            delay = max(starts[end] for end in link.ends) + mesh.chance.randrange(500 * MS)
            mesh.after(delay, mesh.join, link)
            up = max(up, delay + link.delay)
        mesh.run(60 * SECOND)
        mesh.assert_rest()
        assert not mesh.broken
        slowest.append((max(mesh.restored.values()) - up) / SECOND)
        most.append(max(size for link in mesh.links for size in link.carried.values()))
    print(f"\n100 nodes start: at most {max(most)} B a link and direction, all ways {max(slowest):.2f} s after it")
    assert max(most) <= 15_000 and max(slowest) <= 0.5


def test_circles_are_seen() -> None:
    mesh = NodeMesh(ring(4), 1)
    mesh.run(5 * SECOND)
    target = mesh.ids[3]
    mesh.next_hops[target][0] = mesh.links[0]
    mesh.next_hops[target][1] = mesh.links[0]
    with pytest.raises(AssertionError, match="circle"):
        mesh.assert_no_circle(0, target)

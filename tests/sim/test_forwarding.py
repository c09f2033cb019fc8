# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes at rest: every frame arrives once, by the shortest way, and never comes back."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node, frame

UNKNOWN = 0x02FFFFFFFFFF
UNICAST = (3, 8)  # packet types, by version

pytestmark = pytest.mark.usefixtures("each_version")


def line(mesh: Mesh, length: int, *headless: int) -> list[Node]:
    nodes = [mesh.node(headless=number in headless) for number in range(length)]
    for a, b in pairwise(nodes):
        mesh.link(a, b)
    return nodes


def ring(mesh: Mesh, length: int) -> list[Node]:
    nodes = line(mesh, length)
    mesh.link(nodes[-1], nodes[0])
    return nodes


def full(mesh: Mesh, size: int) -> list[Node]:
    nodes = [mesh.node() for _ in range(size)]
    for number, node in enumerate(nodes):
        for other in nodes[:number]:
            mesh.link(node, other, mesh.chance.randrange(100, 20 * MS))
    return nodes


def random_mesh(mesh: Mesh, size: int, **limits: Any) -> list[Node]:
    """A random tree, some more links, random delays."""
    nodes = [mesh.node(**limits) for _ in range(size)]
    chance = mesh.chance
    for number in range(1, size):
        mesh.link(nodes[number], chance.choice(nodes[:number]), chance.randrange(100, 20 * MS))
    for _ in range(chance.randrange(2 * size)):
        a, b = chance.sample(nodes, 2)
        mesh.link(a, b, chance.randrange(100, 20 * MS))
    return nodes


def settle(mesh: Mesh) -> None:
    mesh.run_until(mesh.is_complete, 5 * SECOND)
    mesh.run(SECOND)
    mesh.trace.clear()
    mesh.received()


def distances(mesh: Mesh, start: Node) -> dict[Node, int]:
    """What the ping of the best way from `start` to each node must be, by Dijkstra."""
    found: dict[Node, int] = {}
    waiting = [(1, start.number, start)]
    while waiting:
        ping, _, node = heapq.heappop(waiting)
        if node not in found:
            found[node] = ping
            for link in node.links:
                other = link.nodes[link.nodes[0] is node]
                heapq.heappush(waiting, (ping + 2 * link.delay + 2, other.number, other))
    return found


def assert_nothing_came_back(mesh: Mesh, origin: Node) -> None:
    """No node sent a frame over the link by which it had come first."""
    first: dict[tuple[bytes, Node], int] = {}
    for carried in mesh.trace:
        assert carried.target is not origin or carried.kind == 4
        key, arrival = (carried.frame, carried.target), carried.time + carried.link.delay
        first[key] = min(arrival, first.get(key, arrival))
    for carried in mesh.trace:
        came_by = [
            other.link
            for other in mesh.trace
            if (other.frame, other.target) == (carried.frame, carried.source)
            and other.time + other.link.delay == first[other.frame, other.target]
        ]
        assert len(came_by) != 1 or carried.link not in came_by or carried.source is origin
    # Over one link in one direction each frame passes at most once.
    assert max(Counter((c.frame, c.link, c.source) for c in mesh.trace).values(), default=0) <= 1


@pytest.mark.parametrize("length", [2, 3, 10])
def test_nodes_on_a_line_learn_of_each_other_and_relay(length: int) -> None:
    mesh = Mesh(trace=True)
    nodes = line(mesh, length)
    settle(mesh)
    for here, node in enumerate(nodes):
        assert {mac: dist for mac, (_, _, dist) in node.routes().items()} == {
            other.mac: abs(here - there) for there, other in enumerate(nodes)
        }
    there, back = nodes[0].send(nodes[-1]), nodes[-1].send(nodes[0])
    mesh.run(SECOND)
    got = mesh.received()
    assert got.pop(nodes[-1]) == [there] and got.pop(nodes[0]) == [back] and not any(got.values())
    assert [carried.kind for carried in mesh.trace] == [UNICAST[mesh.version - 1]] * 2 * (length - 1)
    mesh.check()


def test_a_headless_relay_carries_frames_and_is_no_destination() -> None:
    mesh = Mesh()
    a, relay, b = line(mesh, 3, 1)
    settle(mesh)
    assert a.routes().keys() == relay.routes().keys() == {a.mac, b.mac}
    unicast, broadcast = a.send(b), a.send(EVERYBODY)
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: [unicast, broadcast]}
    assert relay.switch.frames_to_tap == 0
    mesh.check()


@pytest.mark.parametrize("size", [1, 13, 14, 15, 8191, 8192, 8193])
def test_frames_of_all_sizes_pass_or_are_counted(size: int) -> None:
    mesh = Mesh()
    a, relay, b = line(mesh, 3)
    settle(mesh)
    sent = frame(b.mac, a.mac, bytes(8200))[:size]
    a.switch.send_from_tap(sent)
    mesh.run(SECOND)
    fits = 14 <= size <= 8192
    assert mesh.received() == {a: [], relay: [], b: [sent] * fits}
    dropped = a.switch.dropped()
    assert (dropped["short"], dropped["long"]) == (size < 14, size > 8192)
    mesh.check()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [*(f"ring {size}" for size in range(3, 10)), "full 8", "random 5", "random 12"])
def test_a_broadcast_reaches_each_node_exactly_once(shape: str, seed: int) -> None:
    mesh = Mesh(seed, trace=True)
    kind, size = shape.split()
    nodes = {"ring": ring, "full": full, "random": random_mesh}[kind](mesh, int(size))
    settle(mesh)
    for node in nodes:
        sent = [node.send(to) for to in (EVERYBODY, 0x01005E000001, UNKNOWN)]
        mesh.run(SECOND)
        for other, got in mesh.received().items():
            assert sorted(got) == (sorted(sent) if other is not node else [])
        assert {carried.kind for carried in mesh.trace} == {4}
        assert_nothing_came_back(mesh, node)
        mesh.trace.clear()
    assert sum(node.switch.ids.came_back for node in nodes) == 0
    mesh.check()


@pytest.mark.parametrize("seed", range(6))
def test_unicast_takes_the_way_of_about_the_least_ping(seed: int) -> None:
    mesh = Mesh(seed, trace=True)
    nodes = random_mesh(mesh, 10, report_above=0)
    settle(mesh)
    own = int(Mesh.version == 1)    # us, what a node of version 1 announces for its own MAC
    taken = least = 0
    for node in nodes:
        expected = {other.mac: max(ping - 1 + own, 1) for other, ping in distances(mesh, node).items()}
        assert node.routes().keys() == expected.keys()
        for mac, (_, ping, dist) in node.routes().items():
            # Each node on the way may miss a tenth, or 2 ms: frames do not move for less.
            assert expected[mac] <= ping <= (expected[mac] + 2 * MS * dist) * 1.1**dist
            taken, least = taken + ping, least + expected[mac]
    assert taken <= 1.05 * least
    for a, b in random.Random(seed).sample([(a, b) for a in nodes for b in nodes if a is not b], 20):
        sent = a.send(b)
        mesh.run(SECOND)
        assert mesh.received() == {node: [sent] * (node is b) for node in nodes}
        assert all(carried.kind in UNICAST for carried in mesh.trace)
        way = sum(2 * carried.link.delay + 2 for carried in mesh.trace)
        assert way == a.routes()[b.mac][1] - own
        assert_nothing_came_back(mesh, a)
        mesh.trace.clear()
    mesh.check()


def test_a_frame_for_the_own_mac_goes_to_the_interface_and_nowhere_else() -> None:
    mesh = Mesh(trace=True)
    a, b, c = line(mesh, 3)
    settle(mesh)
    sent = [a.send(b), c.send(b)]
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: sent, c: []}
    assert len(mesh.trace) == 2
    b.send(b)
    mesh.run(SECOND)
    assert len(mesh.trace) == 2 and b.switch.dropped()["backward"] == 1
    mesh.check()


def test_a_closed_interface_loses_frames_and_counts_them() -> None:
    mesh = Mesh()
    a, b = line(mesh, 2)
    settle(mesh)
    b.tap.is_open = False
    a.send(b), a.send(EVERYBODY)
    mesh.run(SECOND)
    assert b.switch.dropped()["tap_refused"] == 2
    mesh.check()


def test_a_lonely_node_counts_what_goes_nowhere() -> None:
    mesh = Mesh()
    node = mesh.node()
    node.send(EVERYBODY)
    node.send(UNKNOWN)
    assert node.switch.dropped()["nowhere"] == 2
    mesh.check()


def test_a_full_mesh_of_eight_settles_and_stays_quiet() -> None:
    mesh = Mesh()
    nodes = full(mesh, 8)
    settle(mesh)
    mesh.run(10 * SECOND - mesh.now)
    before = [(port.packets_out, port.echo.unasked) for node in nodes for port in node.switch.ports()]
    mesh.run(10 * SECOND)
    after = [(port.packets_out, port.echo.unasked) for node in nodes for port in node.switch.ports()]
    # Two echoes of each side and nothing else: no routes are told when nothing moves.
    assert [(now[0] - then[0], now[1]) for now, then in zip(after, before, strict=True)] == [(4, 0)] * 56

# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes with multipath: unicast spreads over the good ways, never circles, and goes on when a way is lost.

    a ---- s1..sN ---- b        two clients over relays of equal or unequal delay
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node
from tests.sim.test_forwarding import settle

pytestmark = pytest.mark.usefixtures("each_version")

FRAMES = 1200


def over_relays(mesh: Mesh, *delays: int) -> tuple[Node, Node, list[Node]]:
    """Two clients that scatter, over one relay for each delay."""
    a, b = mesh.node(max_data=10_000), mesh.node(max_data=10_000)
    relays = [mesh.node(headless=True, max_data=10_000) for _ in delays]
    for relay, delay in zip(relays, delays, strict=True):
        mesh.link(a, relay, delay), mesh.link(relay, b)
    for client in (a, b):
        client.switch.set_policy(multi_ratio=2)
    settle(mesh)
    return a, b, relays


def send_many(mesh: Mesh, source: Node, target: Node, count: int = FRAMES) -> list[bytes]:
    sent = [source.send(target) for _ in range(count)]
    mesh.run(SECOND)
    return sent


def relayed(mesh: Mesh, source: Node) -> Counter[Node]:
    """How many frames each neighbour got from the source."""
    return Counter(carried.target for carried in mesh.trace if carried.source is source)


@pytest.mark.parametrize("delays", [[MS, MS], [MS, MS, MS], [MS, MS + 100, 2 * MS - 100]])
def test_frames_are_spread_alike_over_ways_of_about_the_same_ping(delays: list[int]) -> None:
    mesh = Mesh(trace=True)
    a, b, relays = over_relays(mesh, *delays)
    for source, target in ((a, b), (b, a)):
        sent = send_many(mesh, source, target)
        got = mesh.received()
        assert sorted(got[target]) == sorted(sent) and not got[source], "each one once"
        shares = relayed(mesh, source)
        assert shares.keys() == set(relays)
        assert all(abs(count - FRAMES / len(relays)) < 5 * FRAMES**0.5 for count in shares.values())
        mesh.trace.clear()
    mesh.check()


def test_a_way_of_twice_the_ping_is_in_the_next_group() -> None:
    mesh = Mesh(trace=True)
    a, b, relays = over_relays(mesh, MS, MS, 5 * MS)
    send_many(mesh, a, b)
    shares = relayed(mesh, a)   # 0..2 is drawn, and 2 goes on to the next group, which is the last
    assert all(abs(shares[relay] - FRAMES / 3) < 5 * FRAMES**0.5 for relay in relays)
    a.switch.set_policy(multi_ratio=2)
    mesh.links[4].close()       # the slow one, so that one group is left
    mesh.run(SECOND)
    mesh.trace.clear()
    send_many(mesh, a, b)
    shares = relayed(mesh, a)
    assert shares.keys() == set(relays[:2])
    assert all(abs(shares[relay] - FRAMES / 2) < 5 * FRAMES**0.5 for relay in relays[:2])


def test_without_multipath_only_the_best_way_is_taken() -> None:
    mesh = Mesh(trace=True)
    a, b, relays = over_relays(mesh, 5 * MS, MS, 5 * MS)
    a.switch.set_policy()
    send_many(mesh, a, b)
    assert relayed(mesh, a).keys() == {relays[1]}


def test_broadcasts_and_unknown_macs_are_not_scattered() -> None:
    mesh = Mesh(trace=True)
    a, b, relays = over_relays(mesh, MS, MS, MS)
    sent = [a.send(EVERYBODY), a.send(0x02FFFFFFFFFF)]
    mesh.run(SECOND)
    assert sorted(mesh.received()[b]) == sorted(sent)
    assert relayed(mesh, a) == dict.fromkeys(relays, 2)
    mesh.check()


def test_two_links_to_one_node_are_two_ways() -> None:
    mesh = Mesh(trace=True)
    a, b = mesh.node(max_data=10_000), mesh.node()
    links = [mesh.link(a, b), mesh.link(a, b)]
    a.switch.set_policy(multi_ratio=2)
    settle(mesh)
    sent = send_many(mesh, a, b)
    assert sorted(mesh.received()[b]) == sorted(sent)
    shares = Counter(carried.link for carried in mesh.trace)
    assert all(abs(shares[link] - FRAMES / 2) < 5 * FRAMES**0.5 for link in links)


def test_a_way_that_is_lost_loses_no_frame_that_is_sent_after_it() -> None:
    mesh = Mesh()
    a, b, relays = over_relays(mesh, MS, MS, MS)
    relays[0].kill()
    sent = send_many(mesh, a, b)
    assert sorted(mesh.received()[b]) == sorted(sent)
    mesh.check(links=False)


@pytest.mark.parametrize("seed", range(8))
def test_where_every_node_scatters_no_frame_passes_a_node_twice(seed: int) -> None:
    """Many links of about the same ping, the worst case: each frame has many ways, none of them a circle."""
    mesh = Mesh(seed, trace=True)
    nodes = [mesh.node(report_above=0) for _ in range(10)]
    pairs = {(a, b) for b in range(1, 10) for a in random.Random(seed).sample(range(b), min(b, 3))}
    for a, b in sorted(pairs):
        mesh.link(nodes[a], nodes[b], mesh.chance.randrange(MS, 2 * MS))
    for node in nodes:
        node.switch.set_policy(multi_ratio=3)
    settle(mesh)
    for a in nodes:
        for b in nodes:
            sent = send_many(mesh, a, b, 20) if a is not b else []
            assert sorted(mesh.received()[b]) == sorted(sent)
    passed = Counter((carried.frame, carried.target) for carried in mesh.trace)
    assert max(passed.values()) == 1
    assert len({carried.link for carried in mesh.trace}) == len(mesh.links)
    assert not any(sum(node.switch.dropped().values()) for node in nodes)
    mesh.check()


def test_a_ring_of_three_that_scatters_sends_nothing_the_long_way_round() -> None:
    mesh = Mesh(trace=True)
    a, b, c = (mesh.node(max_data=10_000) for _ in range(3))
    for node, other, delay in ((a, b, 2 * MS), (b, c, MS), (a, c, MS)):
        mesh.link(node, other, delay)
    for node in (a, b, c):
        node.switch.set_policy(multi_ratio=65535)
    settle(mesh)
    sent = send_many(mesh, a, b)
    assert sorted(mesh.received()[b]) == sorted(sent)
    shares = relayed(mesh, a)
    assert shares.keys() == {b, c}, "c is as far from b as a is, by a better ping: good enough for a frame of a's own"
    assert relayed(mesh, c) == {b: shares[c]}, "but c sends none of them on to a"
    mesh.check()

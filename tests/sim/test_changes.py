# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes in motion: links and nodes come, go, slow down and lie, and the tables follow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudvpn._fast.wire import bare_packet, broadcast_packet, frame_packet, route_packet
from cloudvpn.errors import PeerError
from tests.sim.mesh import EVERYBODY, HEARTBEAT, MS, SECOND, End, Mesh, Node, frame
from tests.sim.test_forwarding import full, line, random_mesh, ring, settle

OFTEN = 200 * MS  # keepalive


def arrives(mesh: Mesh, a: Node, b: Node) -> bool:
    sent = a.send(b)
    mesh.run(SECOND)
    got = mesh.received()
    return got.pop(b).count(sent) == 1 and not any(got.values())


def test_the_way_changes_when_a_ping_does() -> None:
    mesh = Mesh(trace=True)
    a, b, c = (mesh.node(keepalive=OFTEN) for _ in range(3))
    direct, first, second = mesh.link(a, c, 2 * MS), mesh.link(a, b, 10 * MS), mesh.link(b, c, 10 * MS)
    settle(mesh)
    for delay, way in ((2 * MS, [direct]), (50 * MS, [first, second]), (2 * MS, [direct])):
        direct.delay = delay
        mesh.run(2 * SECOND)    # b is no nearer than a once was: its way is good when the new ping has come to rest
        mesh.trace.clear()
        assert arrives(mesh, a, c)
        assert [carried.link for carried in mesh.trace] == way
    mesh.check()


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("seed", range(5))
def test_a_lost_link_is_gone_round_and_taken_again_when_it_is_back(seed: int) -> None:
    mesh = Mesh(seed, trace=True)
    nodes = ring(mesh, 6)
    settle(mesh)
    lost = mesh.chance.choice(mesh.links)
    a, b = lost.nodes
    lost.close()
    mesh.run(SECOND)
    mesh.run_until(mesh.is_complete)
    assert a.routes()[b.mac][2] == 5
    assert arrives(mesh, a, b)
    lost.open()
    settle(mesh)
    assert a.routes()[b.mac][2] == 1 and arrives(mesh, a, b)
    assert [carried.link for carried in mesh.trace] == [lost]
    assert len(nodes) == 6
    mesh.check()


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("shape", [ring, full, random_mesh, line])
def test_the_routes_to_a_killed_node_go_from_everywhere(shape: Callable[[Mesh, int], list[Node]]) -> None:
    mesh = Mesh(5)
    nodes = shape(mesh, 7)
    settle(mesh)
    dead = nodes[-1]
    others = {node.mac for node in nodes[:-1]}
    dead.kill()
    mesh.run_until(lambda: all(dead.mac not in node.routes() for node in nodes[:-1]), SECOND)
    mesh.run(2 * SECOND)
    assert all(dead.mac not in node.routes() for node in nodes[:-1])
    dead.start()
    for link in dead.links:
        if link.nodes[link.nodes[0] is dead].is_alive:
            link.open()
    settle(mesh)
    assert nodes[0].routes().keys() == others | {dead.mac}
    assert arrives(mesh, nodes[0], dead) and arrives(mesh, dead, nodes[0])
    mesh.check()


def test_a_silent_link_is_given_up_after_the_timeout_and_not_before() -> None:
    mesh = Mesh()
    a, b = (mesh.node(keepalive=OFTEN, timeout=2 * SECOND) for _ in range(2))
    link = mesh.link(a, b)
    settle(mesh)
    last = min(end.echo.last_reply for end in link.ends)
    link.is_silent = True
    mesh.run(last + 2 * SECOND - 1 - mesh.now)
    assert link.ends and a.routes().keys() == {a.mac, b.mac}
    # A reply may still have come after the last look.
    mesh.run(OFTEN + 2 * HEARTBEAT)
    assert not link.ends and a.routes().keys() == {a.mac}


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("lost", [0, 1])
def test_two_links_between_two_nodes_work_and_one_is_enough(lost: int) -> None:
    mesh = Mesh(trace=True)
    a, b = mesh.node(), mesh.node()
    links = mesh.link(a, b, MS), mesh.link(a, b, 9 * MS)
    settle(mesh)
    assert arrives(mesh, a, b) and arrives(mesh, b, a) and arrives_everywhere(mesh, a)
    assert {carried.link for carried in mesh.trace if carried.kind in (3, 8)} == {links[0]}
    links[lost].close()
    mesh.trace.clear()
    # The other link offers the MAC already: there is nothing to wait for.
    assert arrives(mesh, a, b) and arrives(mesh, b, a) and arrives_everywhere(mesh, b)
    assert {carried.link for carried in mesh.trace} == {links[1 - lost]}
    links[lost].open()
    settle(mesh)
    assert arrives(mesh, a, b)
    assert [carried.link for carried in mesh.trace] == [links[0]]
    mesh.check()


def arrives_everywhere(mesh: Mesh, node: Node) -> bool:
    sent = node.send(EVERYBODY)
    mesh.run(SECOND)
    return mesh.received() == {other: [sent] * (other is not node) for other in mesh.nodes}


def speak(mesh: Mesh, end: End, data: bytes) -> None:
    """Lets the peer of this end say anything."""
    assert end.node.switch.receive(end, data, mesh.now) == len(data)


@pytest.mark.parametrize("ping", [1, 2, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [1, 2])
def test_the_own_mac_is_never_lost_to_a_peer_that_lies(kind: int, ping: int) -> None:
    mesh = Mesh()
    _, b, c = line(mesh, 3)
    settle(mesh)
    liar = mesh.links[0].end_at(b)  # what b hears from a
    speak(mesh, liar, route_packet(kind, [(b.mac, 0, ping), (EVERYBODY, 0, ping), (c.mac, 1, ping)]))
    mesh.run(10 * MS)
    assert b.routes()[b.mac] == (0, 1, 0) and EVERYBODY not in b.routes()
    # A sum that wrapped would win the way to c; one that is equal is a hop longer.
    assert b.routes()[c.mac] == (mesh.links[1].end_at(b).index, 2003, 1)
    sent = c.send(b)
    mesh.run(SECOND)
    assert mesh.received()[b] == [sent]
    mesh.check()


def test_frames_that_wait_for_a_link_that_closes_are_counted() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    end = mesh.links[1].end_at(b)
    b.switch.pause(end, True)
    for _ in range(10):
        a.send(c), b.send(c), a.send(EVERYBODY)
    mesh.run(20 * MS)
    assert end.queue.waiting_data == 30
    mesh.check()
    mesh.links[1].close()
    assert b.switch.dropped()["link_closed"] == end.frames_dropped == 30
    mesh.run(SECOND)
    mesh.check()
    mesh.links[1].open()
    settle(mesh)
    assert arrives(mesh, a, c)
    mesh.check()


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("seed", range(4))
def test_no_frame_is_lost_uncounted_in_a_mesh_that_never_rests(seed: int) -> None:
    mesh = Mesh(seed)
    nodes = random_mesh(mesh, 8, keepalive=OFTEN, ids=64, max_data=8)
    settle(mesh)
    chance = mesh.chance
    targets: list[Node | int] = [*nodes, EVERYBODY, 0x02FFFFFFFFFF]
    for _ in range(600):
        link = chance.choice(mesh.links)
        kind = chance.random()
        if kind < 0.1 and link.ends:
            link.close()
        elif kind < 0.3 and not link.ends:
            link.open()
        elif kind < 0.5 and link.ends:
            end = chance.choice(link.ends)
            is_paused = end.paused
            end.node.switch.pause(end, not is_paused)
            if is_paused:
                end.flush()
        elif kind < 0.6:
            link.delay = chance.randrange(100, 50 * MS)
        else:
            for _ in range(chance.randrange(20)):
                chance.choice(nodes).send(chance.choice(targets))
        mesh.run(chance.randrange(100 * MS))
        mesh.check()
    dropped = [node.switch.dropped() for node in nodes]
    assert all(sum(drops[reason] for drops in dropped) for reason in ("duplicate", "queue_full", "link_closed"))
    for link in mesh.links:
        for end in link.ends:
            end.node.switch.pause(end, False)
            end.flush()
        if not link.ends:
            link.open()
    mesh.run_until(mesh.is_complete)
    mesh.run(SECOND)
    mesh.received()
    for _ in range(20):
        assert arrives(mesh, *chance.sample(nodes, 2))
    mesh.check()


def test_a_frame_that_its_way_leads_back_is_dropped() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    end = mesh.links[0].end_at(b)
    speak(mesh, end, frame_packet(frame(a.mac, c.mac, b"back")))
    speak(mesh, end, broadcast_packet(7, frame(a.mac, c.mac, b"back")))
    mesh.run(SECOND)
    assert b.switch.dropped()["backward"] == 2 and not any(mesh.received().values())
    mesh.check(links=False)


def test_a_broadcast_to_a_known_mac_keeps_its_id_and_goes_that_way_only() -> None:
    mesh = Mesh(trace=True)
    a, b, c = line(mesh, 3)
    d = mesh.node()
    mesh.link(b, d)
    settle(mesh)
    sent = frame(c.mac, a.mac, b"one way")
    for _ in range(2):
        speak(mesh, mesh.links[0].end_at(b), broadcast_packet(9, sent))
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: [], c: [sent], d: []}
    assert [(carried.kind, carried.target) for carried in mesh.trace] == [(4, c)]
    assert b.switch.dropped()["duplicate"] == 1
    speak(mesh, mesh.links[1].end_at(c), broadcast_packet(9, frame(EVERYBODY, a.mac, b"same id")))
    assert c.switch.dropped()["duplicate"] == 1
    mesh.check(links=False)


def test_a_frame_of_a_peer_to_nobody_known_goes_on_as_a_broadcast() -> None:
    mesh = Mesh(trace=True)
    a, b, c = line(mesh, 3)
    settle(mesh)
    sent = frame(0x02FFFFFFFFFF, a.mac, b"anybody")
    speak(mesh, mesh.links[0].end_at(b), frame_packet(sent))
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: [sent], c: [sent]}
    assert [(carried.kind, carried.target) for carried in mesh.trace] == [(4, c)]
    mesh.check(links=False)


def test_a_link_that_closes_while_it_is_read_is_read_no_further() -> None:
    mesh = Mesh()
    a, b = line(mesh, 2)
    settle(mesh)
    end = mesh.links[0].end_at(b)

    def close() -> None:
        b.switch.detach(end)

    end.flush = close  # type: ignore[method-assign]
    frames = frame_packet(frame(b.mac, a.mac, bytes(100)))
    assert b.switch.receive(end, bare_packet(5, 1) + frames, mesh.now) == 4 + len(frames)
    assert end.index == 0 and b.switch.attached_count == 0
    assert b.switch.receive(end, frames, mesh.now) == 0
    with pytest.raises(PeerError):
        a.switch.receive(mesh.links[0].end_at(a), b"\0", mesh.now)

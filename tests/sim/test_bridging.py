# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes whose interfaces are ports of a bridge: promisc, ignore_macs, broadcast_send, broadcast_nocopy."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest

from cloudvpn._fast.wire import bulk_packet, frame_packet
from tests.sim.mesh import EVERYBODY, HEARTBEAT, MS, SECOND, Mesh, Node, frame
from tests.sim.test_forwarding import line, ring, settle
from tests.sim.test_super_frames import offload, tcp_frame

pytestmark = pytest.mark.usefixtures("each_version")

HOST_A, HOST_B = 0x02AA00000001, 0x02BB00000001     # behind bridges
BPDU_MAC = 0x0180C2000000
BRIDGED = {"promisc": True, "ignore_macs": True, "broadcast_send": True}


# promisc


def test_promisc_shows_the_interface_what_only_passes() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    quiet = [a.send(c), c.send(a)]
    mesh.run(SECOND)
    assert mesh.received() == {a: quiet[1:], b: [], c: quiet[:1]}
    b.switch.set_policy(promisc=True)
    sent = [a.send(c), a.send(b), a.send(EVERYBODY)]
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: sent, c: [sent[0], sent[2]]}
    assert b.switch.copies == 2, "one for what passes, one for the broadcast"
    mesh.check()


def test_promisc_shows_a_broadcast_that_passes_to_a_known_mac_and_what_is_dropped_as_backward() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    a.switch.set_policy(broadcast_send=True)
    b.switch.set_policy(promisc=True)
    sent = a.send(c)
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: [sent], c: [sent]}
    back = frame(a.mac, c.mac, b"back")
    b.switch.receive(b.links[0].end_at(b), frame_of(mesh.version, back), mesh.now)
    assert b.tap.frames == [back] and b.switch.dropped()["backward"] == 1
    mesh.check(links=False)


def frame_of(version: int, data: bytes) -> bytes:
    """The packet of a plain unicast frame."""
    return frame_packet(data) if version == 1 else bulk_packet(data)


def test_promisc_without_an_interface_changes_nothing() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3, 1)
    b.switch.set_policy(promisc=True)
    settle(mesh)
    sent = a.send(c)
    mesh.run(SECOND)
    assert mesh.received() == {a: [], c: [sent]}
    assert b.switch.copies == 0
    mesh.check()


def test_promisc_shows_a_super_frame_in_pieces_that_are_counted() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    b.switch.set_policy(promisc=True)
    a.switch.send_from_tap(tcp_frame(a.mac, c.mac, 10_000), offload(1448))
    mesh.run(SECOND)
    got = mesh.received()
    assert len(got[b]) == 7 and got[b] == got[c]
    assert b.switch.copies == 7
    mesh.check()


# ignore_macs


def test_ignore_macs_learns_no_routes_and_floods_unicast() -> None:
    mesh = Mesh(trace=True)
    a, b, c = line(mesh, 3)
    b.switch.set_policy(ignore_macs=True)
    mesh.run(2 * SECOND)
    assert b.routes().keys() == {b.mac}
    is_told = Mesh.version == 2     # it passes on what the others say to each other, or their frames would stop here
    assert (c.mac in a.routes(), a.mac in c.routes()) == (is_told, is_told)
    mesh.trace.clear()
    sent = [a.send(c), a.send(b), b.send(c)]
    mesh.run(SECOND)
    got = {node: set(frames) for node, frames in mesh.received().items()}
    assert got[c] == {sent[0], sent[2]} and sent[1] in got[b], "b's own MAC is still b's alone"
    assert (got[a], got[b]) == ((set(), {sent[1]}) if is_told else ({sent[2]}, set(sent[:2])))
    kinds = Counter(carried.kind for carried in mesh.trace if carried.source is b)
    assert kinds == ({4: 2, 8: 1} if is_told else {4: 3})
    mesh.check()


def test_ignore_macs_can_be_switched_while_links_are_up() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    b.switch.set_policy(ignore_macs=True)
    assert b.routes().keys() == {b.mac}
    mesh.run(SECOND)
    if Mesh.version == 1:
        assert c.mac not in a.routes() and a.mac not in c.routes(), "the neighbours were told"
    b.switch.set_policy()
    assert mesh.run_until(mesh.is_complete) <= SECOND + 2 * HEARTBEAT, "all routes were asked for"
    sent = a.send(c)
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: [], c: [sent]}
    mesh.check()


# broadcast_send


def test_broadcast_send_floods_what_the_interface_sends_even_to_known_macs() -> None:
    mesh = Mesh(trace=True)
    nodes = a, b, _, d = ring(mesh, 4)
    settle(mesh)
    a.switch.set_policy(broadcast_send=True)
    sent = a.send(b)
    mesh.run(SECOND)
    assert mesh.received() == {node: [sent] * (node is b) for node in nodes}, "one of the two copies arrives"
    assert {carried.kind for carried in mesh.trace} == {4}
    assert {carried.target for carried in mesh.trace if carried.source is a} == {b, d}
    mesh.check()


def test_broadcast_send_cuts_super_frames() -> None:
    mesh = Mesh(trace=True)
    a, b = line(mesh, 2)
    settle(mesh)
    a.switch.set_policy(broadcast_send=True)
    a.switch.send_from_tap(tcp_frame(a.mac, b.mac, 10_000), offload(1448))
    mesh.run(SECOND)
    assert [carried.kind for carried in mesh.trace] == [4] * 7
    assert len(mesh.received()[b]) == 7
    mesh.check()


def test_broadcast_send_keeps_a_frame_for_the_own_mac_back() -> None:
    mesh = Mesh(trace=True)
    a, _ = line(mesh, 2)
    settle(mesh)
    a.switch.set_policy(broadcast_send=True)
    a.send(a)
    mesh.run(SECOND)
    assert not mesh.trace and a.switch.dropped()["backward"] == 1
    mesh.check()


# bridge_mode, the three at once


@pytest.mark.parametrize("shape", ["line", "ring", "two links"])
def test_every_frame_between_hosts_behind_bridges_arrives_once_at_every_bridge(shape: str) -> None:
    mesh = Mesh()
    if shape == "two links":
        nodes = [mesh.node(), mesh.node()]
        mesh.link(*nodes), mesh.link(*nodes, delay=2 * MS)
    else:
        nodes = (line if shape == "line" else ring)(mesh, 4)
    for node in nodes:
        node.switch.set_policy(**BRIDGED)
    mesh.run(2 * SECOND)
    for source, target in permutations(nodes, 2):
        for to in (HOST_B, EVERYBODY, BPDU_MAC, 0x333300000001, target.mac):
            sent = frame(to, HOST_A, bytes([source.number, target.number]) * 30)
            source.switch.send_from_tap(sent)
            mesh.run(SECOND)
            got = mesh.received()
            assert got.pop(source) == []
            if to == target.mac:
                assert got[target] == [sent]
            assert all(len(frames) == 1 for frames in got.values()) or to == target.mac
    mesh.check()


def test_a_bridge_and_nodes_that_are_none_work_in_one_mesh() -> None:
    mesh = Mesh()
    bridge, relay, node = line(mesh, 3, 1)
    bridge.switch.set_policy(**BRIDGED)
    mesh.run(2 * SECOND)
    mesh.received()
    there = node.send(HOST_A)       # unknown, so it is flooded
    back = frame(node.mac, HOST_A, b"back")
    bridge.switch.send_from_tap(back)
    own = node.send(bridge)
    mesh.run(SECOND)
    assert mesh.received() == {bridge: [there, own], node: [back]}
    assert relay.switch.dropped() == node.switch.dropped()
    mesh.check()


# broadcast_nocopy


def test_nocopy_sends_one_copy_by_a_random_link() -> None:
    mesh = Mesh(trace=True)
    a, b = mesh.node(max_data=10_000), mesh.node(max_data=10_000)
    links = [mesh.link(a, b) for _ in range(3)]
    for node in (a, b):
        node.switch.set_policy(broadcast_nocopy=True)
    settle(mesh)
    sent = [a.send(EVERYBODY) for _ in range(900)]
    mesh.run(SECOND)
    assert sorted(mesh.received()[b]) == sorted(sent)
    from_a = Counter(carried.link for carried in mesh.trace if carried.source is a)
    assert sum(from_a.values()) == 900
    assert all(abs(from_a[link] - 300) < 5 * 300**0.5 for link in links)
    from_b = [carried for carried in mesh.trace if carried.source is b]
    # A peer of version 1 has no name, so it is not known that the other links lead to it as well.
    assert len(from_b) == (900 if mesh.version == 1 else 0)
    assert a.switch.dropped()["duplicate"] == len(from_b)
    mesh.check()


def test_nocopy_still_gives_the_interface_its_own_copy_and_never_answers_the_source() -> None:
    mesh = Mesh(trace=True)
    nodes = line(mesh, 4)
    for node in nodes:
        node.switch.set_policy(broadcast_nocopy=True)
    settle(mesh)
    sent = nodes[0].send(EVERYBODY)
    mesh.run(SECOND)
    assert mesh.received() == {node: [sent] * (node is not nodes[0]) for node in nodes}
    assert len(mesh.trace) == 3
    mesh.check()


def test_nocopy_without_a_link_counts_what_goes_nowhere() -> None:
    mesh = Mesh()
    node = mesh.node()
    node.switch.set_policy(broadcast_nocopy=True)
    node.send(EVERYBODY)
    assert node.switch.dropped()["nowhere"] == 1
    mesh.check()


def loop_through_a_lan(mesh: Mesh, limit: int) -> tuple[Node, Node, Node]:
    """Two nodes whose interfaces are on one LAN that carries each frame to the other one, and a third node."""
    a, b, c = ring(mesh, 3)
    for node, other in ((a, b), (b, a)):
        node.switch.set_policy(broadcast_limit=limit)

        def onto_the_lan(data: bytes, node: Node = node, other: Node = other) -> bool:
            node.tap.taken += 1
            mesh.after(MS, lambda: other.switch.send_from_tap(data))
            return True

        node.tap.take_frame = onto_the_lan  # type: ignore[method-assign]
    c.switch.set_policy(broadcast_limit=limit)
    return a, b, c


def test_a_loop_through_a_lan_is_held_at_the_limit_and_the_rest_works_on() -> None:
    mesh = Mesh()
    a, b, c = loop_through_a_lan(mesh, 100)
    mesh.run(SECOND)
    for _ in range(50):
        a.send(EVERYBODY)
    mesh.run(3 * SECOND)
    refused = sum(node.switch.dropped()["broadcast_limit"] for node in (a, b, c))
    assert refused > 0, "there was no storm"
    mesh.received()
    before = [(port.broadcasts_in, port.broadcasts_refused) for port in c.switch.ports()]
    sent = c.send(a), c.send(b)
    mesh.run(10 * SECOND)
    assert all(c.mac in node.routes() for node in (a, b))
    taken = [
        port.broadcasts_in - came - (port.broadcasts_refused - refused)
        for port, (came, refused) in zip(c.switch.ports(), before, strict=True)
    ]
    assert all(count <= 1001 + 100 for count in taken), taken
    assert a.switch.frames_to_tap and len(sent) == 2
    mesh.check(links=False)

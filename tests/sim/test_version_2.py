# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of version 2: the hello, super-frames carried whole, the hop limit, and peers that break the rules."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from cloudvpn._fast.segment import cut
from cloudvpn._fast.wire import (
    bare_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
)
from cloudvpn.errors import PeerError
from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node, frame
from tests.sim.test_bad_input import Sink
from tests.sim.test_super_frames import UNKNOWN, offload, tcp_frame

STEP = 1448
PEER = 0x02BB00000001
PEER_ID = 7
HELLO = hello_packet(PEER_ID)
ROUTE = node_routes_packet([(PEER_ID, 1, 0, 0, 0)]) + hosts_packet([(PEER, 3, 0, PEER_ID, 1, 0)])  # its own


def line(*versions: int) -> tuple[Mesh, list[Node]]:
    """Nodes in a row; only the first and the last have an interface."""
    mesh = Mesh(trace=True)
    ends = (0, len(versions) - 1)
    nodes = [mesh.node(headless=at not in ends, version=version) for at, version in enumerate(versions)]
    for a, b in pairwise(nodes):
        mesh.link(a, b)
    mesh.run(SECOND)
    return mesh, nodes


def victim(*, greeted: bool = True) -> tuple[Mesh, Node, Sink]:
    """A node with a link of version 2 to a peer that the test plays."""
    mesh = Mesh()
    node, port = mesh.node(), Sink()
    node.switch.attach(port, node.queue(), mesh.now, 2)
    if greeted:
        echo_id = next(packet[1] for packet in read_packets(port.written, 2)[0] if packet[0] == 5)
        mesh.run(MS)
        node.switch.receive(port, HELLO + bare_packet(6, echo_id) + ROUTE, mesh.now)
        port.written = b""
    return mesh, node, port


# The hello


def test_both_sides_say_hello_first() -> None:
    mesh, node, port = victim(greeted=False)
    packets, _ = read_packets(port.written, 2)
    assert [packet[0] for packet in packets] == [9, 5, 10, 12] and packets[0][1] == node.switch.node_id
    node.switch.receive(port, HELLO, mesh.now)
    assert (port.up, port.peer_id) == (True, 7)


def test_longer_hellos_and_unknown_features_are_taken() -> None:
    mesh, node, port = victim(greeted=False)
    hello = bytes([9, 0, 0, 15]) + (7).to_bytes(8, "big") + b"\xff" * 4 + b"new"
    node.switch.receive(port, hello + bare_packet(5, 1), mesh.now)
    assert port.peer_id == 7 and (6, 1) in read_packets(port.written, 2)[0]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (bare_packet(5, 1), "type 5 before its hello"),
        (HELLO + HELLO, "second hello"),
        (hello_packet(0), "without a name"),
        (bytes([9, 0, 0, 11]) + bytes(11), "impossible size"),
        (HELLO + frame_packet(bytes(60)), "unknown type 3"),
        (HELLO + bytes([13, 0, 0, 0]), "unknown type 13"),
        (HELLO + bytes([0, 0, 0, 0]), "unknown type 0"),
        (HELLO + bytes([8, 0, 0, 19]), "impossible size"),
        (HELLO + bytes([8, 1, 0, 85]), "impossible size"),  # 65,621 bytes: one more than any frame has
        (HELLO + bytes([8, 255, 255, 255]), "impossible size"),
    ],
)  # fmt: skip
def test_who_breaks_the_rules_is_closed_at_the_header(sent: bytes, reason: str) -> None:
    mesh, node, port = victim(greeted=False)
    with pytest.raises(PeerError, match=reason):
        node.switch.receive(port, sent, mesh.now)


def test_a_node_that_meets_itself_notices() -> None:
    mesh, node, port = victim(greeted=False)
    with pytest.raises(PeerError, match="this node itself"):
        node.switch.receive(port, hello_packet(node.switch.node_id), mesh.now)
    assert port.is_ourselves


def test_version_1_knows_no_type_of_version_2() -> None:
    mesh = Mesh()
    node, port = mesh.node(), Sink()
    node.switch.attach(port, node.queue(), mesh.now)
    for packet in (HELLO, bulk_packet(bytes(60))):
        with pytest.raises(PeerError, match="unknown type"):
            node.switch.receive(port, packet, mesh.now)
    assert 9 not in [packet[0] for packet in read_packets(port.written)[0]]


# Super-frames


@pytest.mark.parametrize(
    ("versions", "kinds"),
    [((2, 2), [8]), ((2, 2, 2), [8, 8]), ((2, 2, 1), [8] + [3] * 7), ((1, 2, 2), [3] * 7 + [8] * 7),
     ((2, 1, 2), [3] * 14)],
)  # fmt: skip
def test_a_super_frame_travels_whole_as_far_as_version_2_goes(versions: tuple[int, ...], kinds: list[int]) -> None:
    mesh, nodes = line(*versions)
    first, last = nodes[0], nodes[-1]
    made = tcp_frame(first.mac, last.mac, 10_000)
    first.switch.send_from_tap(made, offload(STEP))
    mesh.run(100 * MS)
    assert mesh.received()[last] == cut(made, offload(STEP))
    assert sorted(carried.kind for carried in mesh.trace) == sorted(kinds)
    assert first.switch.frames_from_tap == last.switch.frames_to_tap == 7
    mesh.check()


@pytest.mark.parametrize("to", [UNKNOWN, EVERYBODY])
def test_broadcasts_are_never_offloaded(to: int) -> None:
    mesh, nodes = line(2, 2, 2)
    made = tcp_frame(nodes[0].mac, to, 10_000)
    nodes[0].switch.send_from_tap(made, offload(STEP))
    mesh.run(100 * MS)
    assert mesh.received()[nodes[2]] == cut(made, offload(STEP))
    assert [carried.kind for carried in mesh.trace] == [4] * 14
    mesh.check()


def test_a_super_frame_to_a_mac_that_the_peer_has_forgotten_is_flooded_in_pieces() -> None:
    mesh, nodes = line(2, 2, 2)
    made = tcp_frame(nodes[0].mac, UNKNOWN, 10_000)
    end = nodes[0].links[0].end_at(nodes[1])
    nodes[1].switch.receive(end, bulk_packet(made, offload(STEP)), mesh.now)
    mesh.run(100 * MS)
    assert mesh.received()[nodes[2]] == cut(made, offload(STEP))
    mesh.check(links=False)


def test_a_super_frame_may_be_flooded_at_once_and_the_limit_is_made_up_for_after_it() -> None:
    mesh, node, port = victim()
    node.switch.set_policy(broadcast_limit=2)
    mesh.now += SECOND
    node.switch.receive(port, bulk_packet(tcp_frame(PEER, UNKNOWN, 10_000), offload(STEP)), mesh.now)
    assert len(node.tap.frames) == 7
    for wait, taken in ((2 * SECOND, 7), (999 * MS, 7), (MS, 8)):  # 2 - 7 + 3 x 2 = 1
        mesh.now += wait
        node.switch.receive(port, bulk_packet(frame(UNKNOWN, PEER, b"")), mesh.now)
        assert len(node.tap.frames) == taken
    assert (port.broadcasts_in, port.broadcasts_refused) == (10, 2)
    mesh.check()


def test_a_frame_without_its_checksum_stays_so_until_version_2_ends() -> None:
    partial = (1, 0, 0, 0, 34, 16)
    mesh, node, port = victim()
    made = tcp_frame(node.mac, PEER, 5)
    node.switch.send_from_tap(made, partial)
    assert read_packets(port.written, 2)[0] == [(8, PEER_ID, 64, 0, partial, made)]
    node.switch.receive(port, bulk_packet(tcp_frame(PEER, node.mac, 5), partial), mesh.now)
    assert node.tap.frames == cut(tcp_frame(PEER, node.mac, 5), partial)


def test_what_waits_counts_as_the_frames_it_stands_for_when_its_link_closes() -> None:
    mesh, node, port = victim()
    node.switch.pause(port, True)
    node.switch.send_from_tap(tcp_frame(node.mac, PEER, 10_000), offload(STEP))
    assert (port.queue.waiting_data, port.queue.waiting_frames) == (1, 7)
    node.switch.detach(port)
    assert node.switch.dropped()["link_closed"] == 7
    mesh.check()


# The hop limit


@pytest.mark.parametrize(("hops", "arrives"), [(0, False), (1, False), (2, True), (64, True), (255, True)])
def test_the_hop_limit_ends_the_journey(hops: int, arrives: bool) -> None:
    mesh, nodes = line(2, 2, 2)
    sent = frame(nodes[2].mac, nodes[0].mac, b"far")
    end = nodes[0].links[0].end_at(nodes[1])
    nodes[1].switch.receive(end, bulk_packet(sent, hops=hops), mesh.now)
    mesh.run(100 * MS)
    assert mesh.received()[nodes[2]] == [sent] * arrives
    assert nodes[1].switch.dropped()["hops"] == (not arrives)
    mesh.check(links=False)


def test_each_hop_takes_one() -> None:
    mesh, node, port = victim()
    other = Sink()
    node.switch.attach(other, node.queue(), mesh.now, 2)
    node.switch.receive(other, hello_packet(8), mesh.now)
    node.switch.receive(other, bulk_packet(frame(PEER, 0x02CC00000001, b"on"), hops=9), mesh.now)
    assert [packet[2] for packet in read_packets(port.written, 2)[0] if packet[0] == 8] == [8]


# Liars


def test_a_liars_offload_header_never_reaches_the_interface() -> None:
    mesh, node, port = victim()
    made = tcp_frame(PEER, node.mac, 10_000)
    good = offload(STEP)
    lies = [
        (*good[:place], value, *good[place + 1 :])
        for place, value in ((0, 0), (0, 4), (0, 255), (1, 3), (1, 4), (1, 5), (1, 255), (3, 0), (4, 0), (4, 35),
                             (4, 65535), (5, 0), (5, 65535))
    ]  # fmt: skip
    lies += [(1, 0, 0, 0, 34, 65535), (1, 0, 0, 0, 10_053, 0), (1, 0, 0, 0, 0, 0)]
    for lie in lies:
        node.switch.receive(port, bulk_packet(made, lie), mesh.now)
    assert node.tap.frames == []
    assert node.switch.dropped()["bad_offload"] == len(lies)
    node.switch.receive(port, bulk_packet(made, good), mesh.now)
    assert node.tap.frames == cut(made, good)
    assert port.index, "the link stays"


def test_any_bytes_in_a_frame_of_version_2_are_survived() -> None:
    chance = random.Random(8)
    mesh, node, port = victim()
    base = tcp_frame(PEER, node.mac, 3000)
    for _ in range(3000):
        made = bytearray(base[: chance.choice((0, 13, 14, 33, 34, 53, 54, 55, 1500, len(base)))])
        for _ in range(chance.randrange(4)):
            if made:
                made[chance.randrange(min(len(made), 60))] = chance.randrange(256)
        fields = [*offload(chance.choice((1, 100, 1448, 65535)))]
        fields[chance.randrange(6)] = chance.choice((0, 1, 5, 16, 34, 255))
        made[:6] = node.mac.to_bytes(6, "big")[: len(made)]
        node.switch.receive(port, bulk_packet(bytes(made), tuple(fields)), mesh.now)
    dropped = node.switch.dropped()
    assert dropped["bad_offload"] > 100 and node.switch.frames_to_tap > 100
    mesh.check()

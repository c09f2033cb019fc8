# SPDX-License-Identifier: GPL-3.0-or-later
"""Any bytes from a peer, however they arrive: the parser, its slow twin and a link agree on what they say."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from cloudvpn._fast.link import Link
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.wire import (
    bare_packet,
    broadcast_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
    route_packet,
    seq_requests_packet,
)
from cloudvpn.errors import PeerError
from tests.fuzz.reader import Reader
from tests.fuzz.steps import assert_conserved, assert_empty
from tests.sim.mesh import Mesh

Packet = tuple[Any, ...]

# The entries of the kinds that are counted; a MAC is read as two numbers.
ENTRIES = {1: ">HIHI", 2: ">HIHI", 10: ">QIIIB3x", 11: ">QIB3x", 12: ">HIBBQII"}
BUILDERS: dict[int, Callable[..., bytes]] = {
    3: frame_packet, 4: broadcast_packet, 9: hello_packet, 10: node_routes_packet, 11: seq_requests_packet,
    12: hosts_packet,
}  # fmt: skip


def naive_packets(stream: bytes, version: int) -> Iterator[tuple[Packet, int] | None]:
    """Each whole packet and where it ends; a None in the end if what follows is no packet."""
    at, known = 0, {1: range(1, 8), 2: range(4, 13)}[version]
    while stream[at:]:
        kind, special = stream[at], stream[at + 1 : at + 2]
        if kind not in known:
            yield None
            return
        size = int.from_bytes(stream[at + 2 : at + 4], "big")
        body, extra = size, {4: 4}.get(kind, 0)
        if kind == 8:
            size += special[0] << 16 if special else 0
            body = size
        least, most = {8: (20, 65620), 9: (12, 65535)}.get(kind, (0, 65535))
        if len(stream) >= at + 4 and not least <= size <= most:
            yield None
            return
        if kind in ENTRIES:
            body = size * struct.calcsize(ENTRIES[kind])
        elif 5 <= kind <= 7:
            body = 0
        end = at + 4 + extra + body
        if len(stream) < max(end, at + 4):
            return
        yield read(kind, special[0], stream[at + 4 : end]), end
        at = end


def read(kind: int, special: int, body: bytes) -> Packet:
    if kind == 3:
        return kind, body
    if kind == 4:
        return kind, int.from_bytes(body[:4], "big"), body[4:]
    if 5 <= kind <= 7:
        return kind, special
    if kind == 8:
        egress, hops, flags, *offload = struct.unpack_from(">QBBBBHHHH", body)
        return kind, egress, hops, flags, tuple(offload), body[20:]
    if kind == 9:
        return kind, int.from_bytes(body[:8], "big")
    rows = struct.iter_unpack(ENTRIES[kind], body)
    return kind, [row if kind in (10, 11) else (row[0] << 32 | row[1], *row[2:]) for row in rows]


def build(packet: Packet) -> bytes:
    kind, *fields = packet
    if kind <= 2:
        return route_packet(kind, *fields)
    if 5 <= kind <= 7:
        return bare_packet(kind, *fields)
    if kind == 8:
        egress, hops, flags, offload, frame = fields
        return bulk_packet(frame, offload, hops, egress=egress, flags=flags)
    built: bytes = BUILDERS[kind](*fields)
    return built


def parse(data: bytes) -> None:
    reader = Reader(data)
    version = 1 + reader.number() % 2
    pieces = list(reader.pieces())
    stream = b"".join(pieces)
    expected = list(naive_packets(stream, version))
    is_bad = bool(expected) and expected[-1] is None
    good = [one for one in expected if one]
    end = good[-1][1] if good else 0

    packets, used = read_packets(stream[:end], version)
    assert packets == [packet for packet, _ in good] and used == end
    for packet in packets:
        assert read_packets(build(packet), version)[0] == [packet]
    came, unread, has_failed = list[Packet](), b"", False
    for piece in pieces:
        unread += piece
        try:
            packets, used = read_packets(unread, version)
        except PeerError:
            has_failed = True
            break
        came += packets
        unread = unread[used:]
    assert has_failed == is_bad
    assert came == [packet for packet, _ in good][: len(came)] and (is_bad or len(came) == len(good))


class Transport:
    """Takes everything, and forgets it."""

    is_open = True

    def write(self, data: bytes) -> None:
        assert data

    def abort(self) -> None:
        self.is_open = False

    close = abort


class Owner:
    """Lets a link be."""

    def link_made(self, link: Link, transport: Any) -> None:
        pass

    def link_up(self, link: Link) -> None:
        pass

    def link_lost(self, link: Link, error: Exception | None) -> None:
        pass


def link(data: bytes) -> None:
    reader = Reader(data)
    version = 1 + reader.number() % 2
    early = reader.number() % 4  # so many pieces come before the packets begin, as with the end of the handshake
    pieces = list(reader.pieces())
    node = Mesh().node(max_ports=1, ids=16, max_nodes=8, max_link_claims=8)  # anew, for a link goes by the real time
    transport = Transport()
    made = Link(node.switch, Owner(), None)
    made.connection_made(transport)
    for number, piece in enumerate(pieces):
        if number == early:
            made.start_packets(SendQueue(), version)
        give(made, transport, piece)
    if len(pieces) <= early:
        made.start_packets(SendQueue(), version)

    count, has_fault = expected_of(b"".join(pieces), version, node.switch.node_id)
    assert made.packets_in == count
    assert transport.is_open != has_fault and (made.reason is not None) == has_fault
    made.connection_lost(None)
    assert_empty(node.switch)
    assert_conserved(node.switch)


def give(made: Link, transport: Transport, piece: bytes) -> None:
    while piece and transport.is_open:
        room = made.get_buffer(-1)
        size = min(len(room), len(piece))
        assert size
        room[:size] = piece[:size]
        room.release()
        piece = piece[size:]
        made.buffer_updated(size)


def expected_of(stream: bytes, version: int, own: int) -> tuple[int, bool]:
    """How many packets are taken, and whether the link is cut then."""
    count = 0
    for one in naive_packets(stream, version):
        if one is None:
            return count, True
        packet, _ = one
        if version == 2 and ((packet[0] == 9) != (count == 0) or (count == 0 and packet[1] in (0, own))):
            return count, True
        count += 1
    return count, False

# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames with and without offload headers: cut, joined and passed through a TAP as their slow twins say."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
from collections import Counter
from collections.abc import Iterator

from cloudvpn._fast.coalesce import coalesce
from cloudvpn._fast.segment import cut
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.tapport import TapPort
from cloudvpn._fast.wire import (
    bare_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
    route_packet,
)
from tests.fuzz.reader import Reader
from tests.fuzz.steps import Peer, assert_all_is_forgotten, assert_conserved, assert_empty, node_with
from tests.model import naive_offload as naive
from tests.model.naive_offload import PLAIN, Offload
from tests.model.test_coalesce_twin import without_free_id

HEADER = "=BBHHHH"  # struct virtio_net_hdr
OWN = bytes.fromhex("020000000001")  # of the mesh's first node
PEER = 0x020000000002  # where the frames of tests.model.packets go to


def header_and_frame(data: bytes) -> tuple[Offload, bytes]:
    """An offload header in the byte order of the machine, and the frame behind it."""
    padded = data.ljust(10, b"\0")
    return struct.unpack_from(HEADER, padded), padded[10:]


def pieces_of(frame: bytes, offload: Offload) -> list[bytes] | None:
    """By the slow twin; None if they do not fit each other."""
    try:
        return naive.cut(frame, offload)
    except ValueError:
        return None


def segment(data: bytes) -> None:
    offload, frame = header_and_frame(data)
    try:
        pieces = cut(frame, offload)
    except ValueError:
        assert pieces_of(frame, offload) is None
    else:
        if len(pieces) <= 100:  # the twin is slow
            assert pieces == pieces_of(frame, offload)


def some_frames(reader: Reader) -> Iterator[bytes]:
    """Up to 80 frames: a size, what is done to it, and its bytes; few bytes are enough for many frames that follow."""
    last = b""
    for _ in range(80):
        if not reader:
            return
        what = reader.number()
        if what & 1 and last:
            frame = following(last, reader.number() if what & 2 else 0)
        else:
            frame = reader.take(reader.number(2) & 0x7FF)
        if what & 4:
            frame = with_sums(frame)
        last = frame
        yield frame


def following(frame: bytes, change: int) -> bytes:
    """The next frame of the flow; with `change` shorter by so many bytes."""
    layers = naive.find_layers(frame)
    if layers is None:
        return frame
    after = bytearray(frame)
    size = len(frame) - layers.payload
    if not layers.is_v6:
        naive.put(after, layers.network + 4, naive.number(frame, layers.network + 4) + 1)
    if layers.protocol == naive.TCP:
        naive.put(after, layers.transport + 4, naive.number(frame, layers.transport + 4, 4) + size, 4)
    del after[len(frame) - min(change, size) :]
    return with_sums(bytes(after))


def with_sums(frame: bytes) -> bytes:
    layers = naive.find_layers(frame)
    if layers is None or layers.payload > len(frame):
        return frame
    right = bytearray(frame)
    naive.write_lengths(right, layers)
    naive.write_checksum(right, layers)
    return bytes(right)


def join(data: bytes) -> None:
    reader = Reader(data)
    takes_udp = reader.number() & 1 == 0
    frames = list(some_frames(reader))
    written = coalesce(frames, takes_udp)
    assert written == naive.coalesce(frames, takes_udp)


@functools.cache
def ends() -> tuple[socket.socket, socket.socket]:
    """In place of a TAP, the kernel's end and ours: each write is one frame here, too."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return pair


def drain(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while frame := end.recv(1 << 17):
            yield frame


class Loop:
    """Watches nothing: the target says when a TAP is readable."""

    def add_reader(self, *_: object) -> None:
        pass

    def remove_reader(self, *_: object) -> None:
        pass


def tap(data: bytes) -> None:
    """What the kernel hands over leaves by a link, and what a link brings is handed to the kernel: the same frames."""
    reader = Reader(data)
    traits = reader.number()
    has_offloads, takes_udp, version = bool(traits & 1), bool(traits & 2), 1 + (traits >> 2 & 1)
    kernel, ours = ends()
    node = node_with(max_frame=9000, max_ports=4, max_nodes=4, max_link_claims=4)
    switch, far = node.switch, Peer()
    refused = switch.dropped()["tap_refused"]
    lost: list[int] = []
    port = TapPort(Loop(), switch, lost.append)  # type: ignore[arg-type]
    port.open(ours.fileno(), has_offloads, takes_udp)
    switch.set_tap(port, node.mac)
    learn(switch, far, version, node.mesh.now)
    frames = [with_ip_checksum(*header_and_frame(reader.take(reader.number(2) & 0x1FFF))) for _ in range(traits >> 4)]
    if not has_offloads:
        frames = [(PLAIN, frame) for _, frame in frames]

    for offload, frame in frames:
        if has_offloads or frame:
            kernel.send((struct.pack(HEADER, *offload) if has_offloads else b"") + frame)
    port.readable()
    assert plain(sent_by(far)) == [piece for piece in fitting(frames) if piece[:6] != OWN]

    egress = switch.node_id if traits & 8 else 0
    for offload, frame in frames:
        own = OWN + frame[6:]
        far.written += bulk_packet(own, offload, egress=egress) if version == 2 else frame_packet(own)
    assert switch.receive(far, far.written, node.mesh.now) == len(far.written)
    written = list(drain(kernel))
    if switch.dropped()["tap_refused"] == refused:  # many small ones do not fit the socket
        came = [(offload if version == 2 else PLAIN, OWN + frame[6:]) for offload, frame in frames]
        handed = [header_and_frame(one) if has_offloads else (PLAIN, one) for one in written]
        assert Counter(map(without_free_id, plain(handed))) == Counter(map(without_free_id, fitting(came)))
    assert not lost
    switch.detach(far, node.mesh.now)
    assert_conserved(switch)
    assert_empty(switch)
    assert_all_is_forgotten(node)


def with_ip_checksum(offload: Offload, frame: bytes) -> tuple[Offload, bytes]:
    """As kernels hand over super-frames. One of a single piece leaves as a plain frame, its IP header as it is."""
    layers = naive.find_layers(frame)
    if layers is None or offload[1] == 0 or pieces_of(frame, offload) is None:
        return offload, frame
    right = bytearray(frame)
    naive.write_lengths(right, layers)  # which are right already
    return offload, bytes(right)


def learn(switch: Switch, far: Peer, version: int, now: int) -> None:
    """The port has a peer that answers, behind which PEER is; what was written to it is forgotten."""
    switch.attach(far, SendQueue(64, 4096), now, version)
    far.look()
    answer = bare_packet(6, far.asked[0])
    if version == 1:
        said = answer + route_packet(1, [(PEER, 0, 1)])
    else:
        said = hello_packet(0xAA) + answer + node_routes_packet([(0xAA, 1, 0, 0, 0)]) + hosts_packet(
            [(PEER, 1, 0, 0xAA, 1, 0)])  # fmt: skip
    switch.receive(far, said, now + 1)
    assert switch.way_to(PEER) == far.index
    far.look()
    far.written = b""


def sent_by(far: Peer) -> list[tuple[Offload, bytes]]:
    packets, used = read_packets(far.written, far.version)
    assert used == len(far.written)
    far.written = b""
    return [(packet[-2] if packet[0] == 8 else PLAIN, packet[-1]) for packet in packets if packet[0] in (3, 4, 8)]


def plain(frames: list[tuple[Offload, bytes]]) -> list[bytes]:
    return [piece for offload, frame in frames for piece in naive.cut(frame, offload)]


def fitting(frames: list[tuple[Offload, bytes]]) -> list[bytes]:
    """The plain frames of those whose header fits and whose pieces are neither too short nor too long."""
    cuts = [pieces_of(frame, offload) for offload, frame in frames]
    return [piece for pieces in cuts if pieces and 14 <= len(pieces[0]) <= 9000 for piece in pieces]

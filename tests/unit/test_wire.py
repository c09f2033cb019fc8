# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire: any bytes give one verdict, and what the builders write is read back."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from cloudvpn._fast.wire import bare_packet, broadcast_packet, frame_packet, read_packets, route_packet
from cloudvpn.errors import PeerError
from tests.golden.streams import STREAMS, Stream

KINDS = {"route_set": 1, "route_diff": 2, "frame": 3, "broadcast": 4}
BARE = {"echo_request": 5, "echo_reply": 6, "route_request": 7}
SIZES = [*range(15), 63, 64, 1514, 8192, 65534, 65535]


def length(kind: int, size: int) -> int:
    """Of a whole packet, by the specification's table."""
    return 4 + {1: 12 * size, 2: 12 * size, 3: size, 4: 4 + size}.get(kind, 0)


def meaning(kind: int, special: int, body: bytes) -> tuple[Any, ...]:
    if kind <= 2:
        return kind, [(int.from_bytes(mac, "big"), dist, ping) for mac, dist, ping in struct.iter_unpack(">6sHI", body)]
    if kind == 3:
        return kind, body
    if kind == 4:
        return kind, int.from_bytes(body[:4], "big"), body[4:]
    return kind, special


def in_our_words(packet: tuple[Any, ...]) -> tuple[Any, ...]:
    """A packet of a golden stream as `read_packets` gives it."""
    name, *fields = packet
    if name in BARE:
        return BARE[name], fields[0] if fields else 0
    if name.startswith("route"):
        fields = [[(int.from_bytes(mac, "big"), dist, ping) for mac, dist, ping in fields[0]]]
    return KINDS[name], *fields


def build(packet: tuple[Any, ...]) -> bytes:
    kind, *fields = packet
    if kind <= 2:
        return route_packet(kind, *fields)
    if kind >= 5:
        return bare_packet(kind, *fields)
    return frame_packet(*fields) if kind == 3 else broadcast_packet(*fields)


def places(total: int, seed: int) -> list[int]:
    """Where to cut: everywhere, or in large packets at both ends and at seeded places."""
    if total <= 1600:
        return list(range(total))
    between = random.Random(seed).sample(range(64, total - 64), 60)
    return [*range(64), *sorted(between), *range(total - 64, total)]


@pytest.mark.parametrize("kind", range(1, 8))
def test_a_packet_is_read_when_its_last_byte_is_there_and_not_before(kind: int) -> None:
    for size in SIZES:
        total = length(kind, size)
        body = random.Random(size).randbytes(total - 4)
        packet = struct.pack(">BBH", kind, size % 256, size) + body
        for cut in places(total, size):
            assert read_packets(memoryview(packet)[:cut]) == ([], 0)
        expected = meaning(kind, size % 256, body)
        assert read_packets(packet) == ([expected], total)
        assert read_packets(packet + b"\3") == ([expected], total)


@pytest.mark.parametrize("kind", [0, *range(8, 256)])
def test_an_unknown_type_is_the_peers_fault_from_its_first_byte(kind: int) -> None:
    for size in (0, 1, 65535):
        packet = struct.pack(">BBH", kind, 0, size) + bytes(8)
        for cut in range(1, len(packet) + 1):
            with pytest.raises(PeerError, match=str(kind)):
                read_packets(packet[:cut])
    good = bare_packet(5, 1)
    with pytest.raises(PeerError):
        read_packets(good + bytes([kind]))


def test_any_bytes_give_packets_a_rest_or_the_peers_fault() -> None:
    chance = random.Random(1)
    faults = 0
    for _ in range(20_000):
        data = bytes([chance.randrange(9), 0, 0, chance.randrange(24)]) + chance.randbytes(chance.randrange(60))
        expected, at = [], 0
        while len(data) - at >= 4 and 1 <= data[at] <= 7:
            kind, special, size = struct.unpack_from(">BBH", data, at)
            if length(kind, size) > len(data) - at:
                break
            expected.append(meaning(kind, special, data[at + 4 : at + length(kind, size)]))
            at += length(kind, size)
        if at < len(data) and not 1 <= data[at] <= 7:
            faults += 1
            with pytest.raises(PeerError):
                read_packets(data)
        else:
            assert read_packets(data) == (expected, at)
    assert 1000 < faults < 19_000


def test_no_bytes_are_no_packets() -> None:
    assert read_packets(b"") == ([], 0)


def test_bytes_are_read_from_any_buffer() -> None:
    packet = bare_packet(7, 0)
    assert read_packets(bytearray(packet)) == read_packets(memoryview(packet)) == ([(7, 0)], 4)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_golden_streams_have_their_meaning(stream: Stream) -> None:
    assert read_packets(stream.data) == ([in_our_words(packet) for packet in stream.packets], len(stream.data))


@pytest.mark.parametrize("stream", [s for s in STREAMS if s.canonical], ids=lambda stream: stream.name)
def test_the_builders_write_the_golden_streams(stream: Stream) -> None:
    assert b"".join(build(in_our_words(packet)) for packet in stream.packets) == stream.data


@pytest.mark.parametrize("count", [0, 1, 2, 65534, 65535])
def test_route_packets_come_back_as_they_were_built(count: int) -> None:
    chance = random.Random(count)
    routes = [(chance.getrandbits(48), chance.getrandbits(16), chance.getrandbits(32)) for _ in range(count)]
    for kind in (1, 2):
        packet = route_packet(kind, routes)
        assert len(packet) == 4 + 12 * count
        assert read_packets(packet) == ([(kind, routes)], len(packet))


@pytest.mark.parametrize("size", [0, 1, 14, 1514, 65534, 65535])
def test_frames_come_back_as_they_were_built(size: int) -> None:
    frame = random.Random(size).randbytes(size)
    assert read_packets(frame_packet(frame)) == ([(3, frame)], size + 4)
    for broadcast_id in (0, 1, 0x01020304, 0xFFFFFFFF):
        assert read_packets(broadcast_packet(broadcast_id, frame)) == ([(4, broadcast_id, frame)], size + 8)


@pytest.mark.parametrize("kind", [5, 6, 7])
def test_bare_packets_come_back_with_every_special(kind: int) -> None:
    for special in range(256):
        assert bare_packet(kind, special) == bytes([kind, special, 0, 0])
        assert read_packets(bare_packet(kind, special)) == ([(kind, special)], 4)


def test_builders_refuse_what_a_header_cannot_say() -> None:
    for kind in (0, 3, 7, 8):
        with pytest.raises(ValueError, match="kind"):
            route_packet(kind, [])
    for kind in (0, 4, 8, 255):
        with pytest.raises(ValueError, match="kind"):
            bare_packet(kind, 0)
    with pytest.raises(ValueError, match="65,535"):
        route_packet(1, [(0, 0, 0)] * 65536)
    with pytest.raises(ValueError, match="65,535"):
        frame_packet(bytes(65536))
    with pytest.raises(ValueError, match="65,535"):
        broadcast_packet(0, bytes(65536))
    for route in ((-1, 0, 1), (0, 65536, 1), (0, 0, 1 << 32)):
        with pytest.raises(OverflowError):
            route_packet(1, [route])
    with pytest.raises(OverflowError):
        broadcast_packet(1 << 32, b"")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting against its slow twin: seeded random super-frames, whole and damaged."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudvpn._fast.segment import cut
from tests.model import naive_offload as naive
from tests.model.naive_offload import ACK, CWR, ECE, FIN, PSH, TCP, UDP, URG, Offload, number, put
from tests.model.packets import Flow, random_flow

SIZES = [1, 2, 7, 64, 535, 536, 1448, 8900, 65535]
FLAGS = [ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | ECE, ACK | ECE | CWR | FIN | PSH | URG]
FIELDS = (8, 8, 16, 16, 16, 16)
"""Bits of the fields of an offload header."""


def random_super_frame(chance: random.Random) -> tuple[Offload, bytes]:
    size = chance.choice(SIZES)
    payload = chance.choice([1, size - 1, size, size + 1, 2 * size, chance.randrange(30 * size)])
    flow = random_flow(chance)
    headers = flow.layers().payload - flow.layers().network
    payload = max(1, min(payload, 65535 - headers))
    seq, identification = chance.choice([1 << 32, chance.getrandbits(32)]) - size, 65536 - chance.getrandbits(8)
    return flow.super_frame(chance.randbytes(payload), size, seq, identification, chance.choice(FLAGS))


def damage(chance: random.Random, offload: Offload, frame: bytes) -> tuple[Offload, bytes]:
    fields, changed = list(offload), bytearray(frame)
    what = chance.randrange(4)
    if what == 0:
        place = chance.randrange(6)
        bits = FIELDS[place]
        fields[place] = chance.choice([0, 1 << chance.randrange(bits), fields[place] ^ 1 << chance.randrange(bits)])
    elif what == 1:
        changed[chance.randrange(12, offload[2])] ^= 1 << chance.randrange(8)
    elif what == 2:
        del changed[chance.choice([chance.randrange(offload[2] + 1), chance.randrange(len(frame))]) :]
    else:
        changed += bytes(chance.randrange(1, 9))
    flags, kind, header_size, size, start, offset = fields
    return (flags, kind, header_size, size, start, offset), bytes(changed)



def cut_by(module: object, frame: bytes, offload: Offload) -> list[bytes] | None:
    """None if it is refused."""
    try:
        return module(frame, offload)  # type: ignore[operator,no-any-return]
    except ValueError:
        return None


def check_pieces(pieces: list[bytes], frame: bytes, size: int) -> None:
    """What must be true of any cut, without the twin."""
    layers = naive.find_layers(frame)
    assert layers
    assert b"".join(piece[layers.payload :] for piece in pieces) == frame[layers.payload :]
    assert [len(piece) - layers.payload for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    for index, piece in enumerate(pieces):
        assert naive.has_right_checksums(piece, layers)
        assert layers.network + layers.packet_size(piece) == len(piece)
        assert naive.alike(piece)[: layers.transport] == naive.alike(frame)[: layers.transport]
        if layers.protocol == UDP:
            assert number(piece, layers.transport + 4) == len(piece) - layers.transport
        else:
            seq = number(frame, layers.transport + 4, 4) + index * size
            assert number(piece, layers.transport + 4, 4) == seq % (1 << 32)
        if not layers.is_v6:
            assert number(piece, layers.network + 4) == (number(frame, layers.network + 4) + index) % 65536


def check_many(seed: int, count: int) -> None:
    chance = random.Random(seed)
    cuts = refused = 0
    for _ in range(count):
        offload, frame = random_super_frame(chance)
        pieces = cut(frame, offload)
        assert pieces == naive.cut(frame, offload), (offload, frame.hex())
        check_pieces(pieces, frame, offload[3])
        cuts += len(pieces) > 1
        offload, frame = damage(chance, offload, frame)
        damaged = cut_by(cut, frame, offload)
        assert damaged == cut_by(naive.cut, frame, offload), (offload, frame.hex())
        refused += damaged is None
    assert min(cuts, refused) > count // 3


@pytest.mark.parametrize("seed", range(5))
def test_cut_and_twin_agree(seed: int) -> None:
    check_many(seed, 1000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_cut_and_twin_agree_for_long(seed: int) -> None:
    check_many(seed, 50_000)


# By name


def test_a_frame_without_offload_comes_back_as_it_is() -> None:
    for flags in (0, 2):
        for frame in (b"", b"x", bytes(14), Flow().frame(b"payload")):
            assert cut(frame, (flags, 0, 0, 0, 0, 0)) == [frame]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("is_v6", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 1459])
def test_an_unfinished_checksum_is_completed(is_v6: bool, protocol: int, size: int) -> None:
    flow = Flow(is_v6=is_v6, protocol=protocol, tags=((0x8100, 5),))
    payload = random.Random(size).randbytes(size)
    (_, _, _, _, start, offset), frame = flow.super_frame(payload, 1)
    assert cut(frame, (1, 0, 0, 0, start, offset)) == [flow.frame(payload)]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_an_unfinished_checksum_of_0_becomes_its_equal_for_both_protocols_as_in_linux(protocol: int) -> None:
    flow = Flow(protocol=protocol)
    checksum_at = flow.layers().checksum_at()
    checksum = number(flow.frame(b"\0\0"), checksum_at)
    offload, frame = flow.super_frame(checksum.to_bytes(2, "big"), 1)
    (piece,) = cut(frame, (1, 0, 0, 0, *offload[4:]))
    assert number(piece, checksum_at) == 0xFFFF


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_checksum_of_0_in_a_piece_becomes_its_equal_for_udp_alone(protocol: int) -> None:
    flow = Flow(protocol=protocol)
    checksum_at = flow.layers().checksum_at()
    checksum = flow.frame(b"\0\0")[checksum_at : checksum_at + 2]
    offload, frame = flow.super_frame(checksum * 2, 2)
    assert number(cut(frame, offload)[0], checksum_at) == (0 if protocol == TCP else 0xFFFF)


def test_headers_are_looked_through_up_to_256_bytes() -> None:
    for options, extensions in ((4, 11), (36, 9)):
        flow = Flow(is_v6=True, extensions=(60,) * extensions, tcp_options=b"\x01" * options)
        offload, frame = flow.super_frame(bytes(100), 30)
        assert (flow.layers().payload, len(cut(frame, offload))) == (254, 4)
        flow = replace(flow, tcp_options=b"\x01" * (options + 4))
        offload, frame = flow.super_frame(bytes(100), 30)
        with pytest.raises(ValueError):
            cut(frame, offload)


def test_any_protocol_may_have_an_unfinished_checksum() -> None:
    frame = bytes(range(14, 60))
    (piece,) = cut(frame, (1, 0, 0, 0, 20, 3))
    assert piece[:23] + piece[25:] == frame[:23] + frame[25:]
    assert number(piece, 23) == 65535 - naive.ones_sum(frame[20:])


@pytest.mark.parametrize("size", [1, 99, 100, 101, 65535])
def test_the_size_of_the_header_is_a_hint_only_and_sizes_may_exceed_the_payload(size: int) -> None:
    payload = bytes(range(100))
    offload, frame = Flow().super_frame(payload, size)
    pieces = cut(frame, offload)
    assert len(pieces) == -(-100 // size)
    for header_size in (0, 1, 54, len(frame), 65535):
        assert cut(frame, (*offload[:2], header_size, *offload[3:])) == pieces


def test_the_largest_frames_are_cut() -> None:
    for flow, room in ((Flow(), 65535 - 40), (Flow(is_v6=True, tags=((0x88A8, 1), (0x8100, 2))), 65535 - 20)):
        payload = random.Random(room).randbytes(room)
        for size in (48, 1448, room - 1, room):
            offload, frame = flow.super_frame(payload, size)
            pieces = cut(frame, offload)
            assert len(pieces) == -(-room // size)
            assert b"".join(piece[flow.layers().payload :] for piece in pieces) == payload


@pytest.mark.parametrize("flow", [Flow(), Flow(protocol=UDP)], ids=["TCP", "UDP"])
def test_a_frame_stands_for_2048_at_most(flow: Flow) -> None:
    """Or a link could make 65,000 frames of one packet, on each other link."""
    for size in (1, 3):
        for payload, is_cut in ((2047 * size, True), (2048 * size, True), (2048 * size + 1, False)):
            offload, frame = flow.super_frame(bytes(payload), size)
            assert bool(cut_by(cut, frame, offload)) == is_cut == bool(cut_by(naive.cut, frame, offload))


TCP4, TCP6, UDP4, UDP6 = Flow(), Flow(is_v6=True), Flow(protocol=UDP), Flow(is_v6=True, protocol=UDP)
UNFIT: dict[str, tuple[Flow, dict[str, int], dict[int, bytes]]] = {
    "no pieces": (TCP4, {"gso_size": 0}, {}),
    "flags unknown": (TCP4, {"flags": 5}, {}),
    "checksum complete": (TCP4, {"flags": 0}, {}),
    "checksum said to be right": (TCP4, {"flags": 2}, {}),
    "UFO": (UDP4, {"gso_type": 3}, {}),
    "unknown type": (TCP4, {"gso_type": 2}, {}),
    "ECN without type": (TCP4, {"gso_type": 0x80}, {}),
    "ECN with UDP": (UDP4, {"gso_type": 0x85}, {}),
    "TCPv6 on IPv4": (TCP4, {"gso_type": 4}, {}),
    "TCPv4 on IPv6": (TCP6, {"gso_type": 1}, {}),
    "UDP on TCP": (TCP4, {"gso_type": 5}, {}),
    "TCP on UDP": (UDP6, {"gso_type": 4}, {}),
    "transport before its header": (TCP4, {"csum_start": 33}, {}),
    "transport behind its header": (UDP4, {"csum_start": 35}, {}),
    "transport outside": (UDP4, {"csum_start": 65535}, {}),
    "checksum of UDP in TCP": (TCP4, {"csum_offset": 6}, {}),
    "checksum of TCP in UDP": (UDP4, {"csum_offset": 16}, {}),
    "IPv4 header of 16 bytes": (TCP4, {}, {14: b"\x44"}),
    "IPv4 header of 24 bytes": (TCP4, {}, {14: b"\x46"}),
    "IPv4 that says 6": (TCP4, {}, {14: b"\x65"}),
    "IPv6 that says 4": (TCP6, {}, {14: b"\x40"}),
    "IPv4 total length of 0": (TCP4, {}, {16: b"\0\0"}),
    "IPv6 payload length of 0": (TCP6, {}, {18: b"\0\0"}),
    "UDP length of 0": (UDP4, {}, {38: b"\0\0"}),
    "more fragments": (TCP4, {}, {20: b"\x20"}),
    "the second fragment": (TCP4, {}, {20: b"\x00\x01"}),
    "IPv6 fragment": (TCP6, {}, {20: b"\x2c"}),
    "authentication header": (TCP6, {}, {20: b"\x33"}),
    "ICMP": (TCP4, {}, {23: b"\x01"}),
    "TCP header of 16 bytes": (TCP4, {}, {46: b"\x40"}),
    "TCP header longer than the frame": (Flow(tcp_options=b"\1" * 20), {"cut": 60}, {}),
    "headers only": (TCP4, {"cut": 54}, {}),
    "TCP header cut off": (TCP4, {"cut": 53}, {}),
    "IPv4 header cut off": (TCP4, {"cut": 33}, {}),
    "IPv6 header cut off": (TCP6, {"cut": 53}, {}),
    "Ethernet header only": (TCP4, {"cut": 14}, {}),
    "three VLAN tags": (Flow(tags=((0x8100, 1),) * 3), {}, {}),
    "extension headers without end": (Flow(is_v6=True, extensions=(60,) * 12), {}, {}),
    "extension header longer than the frame": (Flow(is_v6=True, extensions=(60,)), {}, {55: b"\xff"}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_an_offload_header_that_does_not_fit_is_refused(name: str) -> None:
    flow, changes, patches = UNFIT[name]
    offload, frame = flow.super_frame(bytes(100), 30)
    assert "tags" in name or "without end" in name or len(cut(frame, offload)) == 4
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
    flags, kind, header_size, size, start, offset = (
        changes.get(name, value) for name, value in zip(names, offload, strict=True)
    )
    changed = bytearray(frame)
    for place, data in patches.items():
        changed[place : place + len(data)] = data
    if "cut" in changes:
        del changed[changes["cut"] :]
        put(changed, 18 if flow.is_v6 else 16, max(len(changed) - (54 if flow.is_v6 else 14), 0))
    with pytest.raises(ValueError):
        cut(bytes(changed[: changes.get("cut", len(frame))]), (flags, kind, header_size, size, start, offset))


@pytest.mark.parametrize("start, offset", [(0, 0), (13, 0), (34, 65), (99, 0), (100, 0), (65535, 65535), (65535, 0)])
def test_a_checksum_outside_of_the_frame_is_refused(start: int, offset: int) -> None:
    with pytest.raises(ValueError):
        cut(bytes(100), (1, 0, 0, 0, start, offset))


# Any bytes

OFFLOADS = st.tuples(
    st.integers(0, 3) | st.integers(0, 255),
    st.sampled_from([0, 1, 4, 5, 0x81, 0x84]) | st.integers(0, 255),
    *[st.integers(0, 120) | st.integers(0, 65535)] * 4,
)
STARTS = st.sampled_from([b"", *(flow.frame(b"") for flow in (TCP4, TCP6, UDP4, Flow(tags=((0x8100, 3),))))])


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(STARTS, st.integers(0, 80), st.binary(max_size=300), OFFLOADS)
def test_any_bytes_are_cut_or_refused(start: bytes, kept: int, rest: bytes, offload: Offload) -> None:
    frame = start[:kept] + rest
    assert cut_by(cut, frame, offload) == cut_by(naive.cut, frame, offload)

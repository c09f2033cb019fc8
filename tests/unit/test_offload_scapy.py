# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting and joining judged by scapy, which builds and reads the packets without any code of ours."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_RR, IPOption_Timestamp, in4_chksum
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrSegmentRouting,
    PadN,
    RouterAlert,
    in6_chksum,
)  # fmt: skip
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from cloudvpn._fast.coalesce import coalesce
from cloudvpn._fast.segment import cut

ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
STAMPED = [("NOP", None), ("NOP", None), ("Timestamp", (0x11223344, 0x55667788))]


def v4(**fields: object) -> Packet:
    return IP(**{"src": "10.9.0.1", "dst": "10.9.0.2", "id": 65534, **fields})


def v6(**fields: object) -> Packet:
    return IPv6(**{"src": "fd09::1", "dst": "fd09::2", "fl": 0x12345, "tc": 2, **fields})


def tcp(**fields: object) -> Packet:
    return TCP(**{"sport": 40000, "dport": 5201, "seq": (1 << 32) - 1000, "ack": 77, "flags": "A", **fields})


def udp() -> Packet:
    return UDP(sport=40000, dport=5201)


HEADERS: dict[str, Callable[[], Packet]] = {
    "IPv4 TCP": lambda: Ether(**ETHER) / v4() / tcp(),
    "IPv4 UDP": lambda: Ether(**ETHER) / v4() / udp(),
    "IPv6 TCP": lambda: Ether(**ETHER) / v6() / tcp(),
    "IPv6 UDP": lambda: Ether(**ETHER) / v6() / udp(),
    "timestamps": lambda: Ether(**ETHER) / v4(flags="DF", tos=3, ttl=1) / tcp(options=STAMPED),
    "SACK": lambda: Ether(**ETHER) / v6() / tcp(options=[("NOP", None), ("NOP", None), ("SAck", (1, 2, 5, 9))]),
    "echoed congestion": lambda: Ether(**ETHER) / v4() / tcp(flags="AE"),
    "VLAN": lambda: Ether(**ETHER) / Dot1Q(vlan=5, prio=3) / v4() / tcp(),
    "VLAN UDP": lambda: Ether(**ETHER) / Dot1Q(vlan=4095) / v6() / udp(),
    "service VLAN": lambda: Ether(**ETHER) / Dot1AD(vlan=7) / v6() / tcp(),
    "two VLANs": lambda: Ether(**ETHER) / Dot1AD(vlan=7) / Dot1Q(vlan=5) / v4() / tcp(options=STAMPED),
    "two customer VLANs": lambda: Ether(**ETHER) / Dot1Q(vlan=7) / Dot1Q(vlan=5) / v6() / udp(),
    "IPv4 options": lambda: Ether(**ETHER) / v4(options=[IPOption_NOP()] * 4) / tcp(),
    "route recorded": lambda: Ether(**ETHER) / v4(options=[IPOption_RR(routers=["10.9.0.7"]), IPOption_NOP()]) / udp(),
    "IPv4 timestamps": lambda: Ether(**ETHER) / v4(options=[IPOption_Timestamp()]) / tcp(options=STAMPED),
    "hop-by-hop": lambda: Ether(**ETHER) / v6() / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / tcp(),
    "destination options": lambda: Ether(**ETHER) / v6() / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / udp(),
    "routing": lambda: Ether(**ETHER) / v6() / IPv6ExtHdrSegmentRouting(addresses=["fd09::2"]) / tcp(),
    "all extensions": lambda: (
        Ether(**ETHER) / Dot1Q(vlan=5) / v6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
        / IPv6ExtHdrSegmentRouting(addresses=["fd09::2"]) / IPv6ExtHdrDestOpt() / tcp(options=STAMPED)
    ),
}  # fmt: skip
SIZES = [1, 3, 536, 1448]


def transport(packet: Packet) -> Packet:
    return packet[TCP] if TCP in packet else packet[UDP]


def plain_frames(headers: Packet, payload: bytes, size: int) -> list[bytes]:
    """What a host without offloads sends; scapy fills in lengths and checksums."""
    frames = []
    for place in range(0, len(payload), size):
        packet = headers.copy()
        if IP in packet:
            packet[IP].id = (packet[IP].id + place // size) % 65536
        if TCP in packet:
            packet[TCP].seq = (packet[TCP].seq + place) % (1 << 32)
        frames.append(bytes(packet / Raw(payload[place : place + size])))
    return frames


def super_frame(headers: Packet, payload: bytes, size: int) -> tuple[tuple[int, ...], bytes]:
    """What the kernel hands over for them."""
    packet = headers / Raw(payload)
    layer, protocol = transport(packet), 6 if TCP in packet else 17
    length = len(layer)
    # Over as many zeros as the segment has bytes, it is the pseudo-header's sum that remains.
    if IP in packet:
        kind, checksum = 1, in4_chksum(protocol, packet[IP], bytes(length))
    else:
        kind, checksum = 4, in6_chksum(protocol, packet[IPv6], bytes(length))
    layer.chksum = 0xFFFF - checksum
    data = bytes(packet)
    start = len(data) - length
    return (1, kind, start, size, start, 16) if protocol == 6 else (1, 5, start, size, start, 6), data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HEADERS)
def test_pieces_are_what_scapy_builds(name: str, size: int) -> None:
    payload = random.Random(size).randbytes(5 * size + 1)
    headers = HEADERS[name]()
    offload, frame = super_frame(headers, payload, size)
    assert cut(frame, offload) == plain_frames(headers, payload, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HEADERS)
def test_an_unfinished_checksum_is_completed_as_scapy_does(name: str, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    headers = HEADERS[name]()
    offload, frame = super_frame(headers, payload, size)
    assert cut(frame, (1, 0, 0, 0, *offload[4:])) == plain_frames(headers, payload, size)


@pytest.mark.parametrize("size", [3, 536, 1448])
@pytest.mark.parametrize("name", HEADERS)
def test_frames_of_scapy_are_joined_to_what_the_kernel_expects(name: str, size: int) -> None:
    payload = random.Random(size).randbytes(5 * size + 1)
    headers = HEADERS[name]()
    frames = plain_frames(headers, payload, size)
    ((offload, frame),) = coalesce(frames)
    (flags, kind, _, *rest), expected = super_frame(headers, payload, size)
    assert (offload[:2], offload[3:]) == ((flags, kind), tuple(rest))
    assert frame == expected
    read = Ether(frame)
    assert bytes(transport(read).payload) == payload
    assert offload[2] == len(frame) - len(payload)


@pytest.mark.parametrize("flags, first, middle, last", [
    ("FPA", "A", "A", "FPA"), ("PA", "A", "A", "PA"), ("FA", "A", "A", "FA"), ("AC", "AC", "A", "A"),
    ("AEC", "AEC", "AE", "AE"), ("FPAUEC", "AUEC", "AUE", "FPAUE"), ("SA", "SA", "SA", "SA"),
])  # fmt: skip
@pytest.mark.parametrize("is_v6", [False, True])
def test_flags_stand_where_they_belong(is_v6: bool, flags: str, first: str, middle: str, last: str) -> None:
    headers = Ether(**ETHER) / (v6() if is_v6 else v4()) / tcp(flags=flags, urgptr=3 if "U" in flags else 0)
    offload, frame = super_frame(headers, bytes(350), 100)
    if "C" in flags:
        offload = (1, offload[1] | 0x80, *offload[2:])
    pieces = [Ether(piece)[TCP] for piece in cut(frame, offload)]
    assert [set(str(piece.flags)) for piece in pieces] == [set(one) for one in (first, middle, middle, last)]
    assert [piece.seq for piece in pieces] == [((1 << 32) - 1000 + place) % (1 << 32) for place in (0, 100, 200, 300)]


def test_each_wrong_checksum_keeps_a_frame_of_scapy_alone() -> None:
    headers = HEADERS["timestamps"]()
    for layer in (IP, TCP):
        frames = plain_frames(headers, bytes(400), 100)
        packet = Ether(frames[1])
        packet[layer].chksum ^= 0x0100
        frames[1] = bytes(packet)
        written = coalesce(frames)
        assert [frame for offload, frame in written if offload[1] == 0] == frames[:2]
        assert [Ether(frame)[IP].len for offload, frame in written if offload[1]] == [20 + 32 + 200]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Deliberately slow twins of cutting and joining, written from the rules alone: a flow is the list of its frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

Offload = tuple[int, int, int, int, int, int]
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset"""

PLAIN: Offload = (0, 0, 0, 0, 0, 0)
NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_ECN = 0, 1, 4, 5, 0x80
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
VLANS = (0x8100, 0x88A8)
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
HEADERS_MAX = 256
FLOWS = 8
JOINED_MAX = 64
PIECES_MAX = 2048  # 65,535 bytes in TCP segments of 48 would be 1,366
IP_PACKET_MAX = 65535


def number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def put(data: bytearray, at: int, value: int, size: int = 2) -> None:
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")


def ones_sum(data: bytes) -> int:
    """RFC 1071's sum, not complemented: 65536 is 1 modulo 65535, so it is the remainder of the whole as one number."""
    whole = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return whole % 65535 or (65535 if whole else 0)


@dataclass
class Layers:
    """Offsets in the frame: of the IP header, of the TCP or UDP header, of what comes after it."""

    is_v6: bool
    protocol: int
    network: int
    transport: int
    payload: int

    def packet_size(self, frame: bytes) -> int:
        """Of the IP packet, as its header says."""
        return 40 + number(frame, self.network + 4) if self.is_v6 else number(frame, self.network + 2)

    def addresses(self, frame: bytes) -> bytes:
        start, size = (8, 32) if self.is_v6 else (12, 8)
        return frame[self.network + start : self.network + start + size]

    def pseudo_header(self, frame: bytes) -> bytes:
        """For a segment or datagram that goes to the end of the frame."""
        size = len(frame) - self.transport
        return self.addresses(frame) + size.to_bytes(4, "big") + self.protocol.to_bytes(4, "big")

    def checksum_at(self) -> int:
        return self.transport + (16 if self.protocol == TCP else 6)


def find_layers(frame: bytes) -> Layers | None:
    """None if it is no TCP or UDP over IP, is a fragment, or has headers that are cut off or too long."""
    network, kind = 14, number(frame, 12)
    for _ in range(2):
        if kind in VLANS:
            kind, network = number(frame, network + 2), network + 4
    header = frame[network:]
    if kind == 0x0800:
        if len(header) < 20 or header[0] >> 4 != 4 or header[0] % 16 < 5 or number(header, 6) & 0x3FFF:
            return None
        protocol, transport = header[9], network + header[0] % 16 * 4
    elif kind == 0x86DD:
        if len(header) < 40 or header[0] >> 4 != 6:
            return None
        protocol, transport = header[6], network + 40
        while protocol in EXTENSIONS:
            if len(frame) < transport + 8 or transport > HEADERS_MAX:
                return None
            protocol, transport = frame[transport], transport + 8 + 8 * frame[transport + 1]
    else:
        return None
    payload = transport + 8
    if protocol == TCP:
        if len(frame) < transport + 20 or frame[transport + 12] >> 4 < 5:
            return None
        payload = transport + (frame[transport + 12] >> 4) * 4
    elif protocol != UDP:
        return None
    if payload > min(len(frame), HEADERS_MAX):
        return None
    return Layers(kind == 0x86DD, protocol, network, transport, payload)


def write_lengths(frame: bytearray, layers: Layers) -> None:
    """Of IP and UDP, for the frame as it is, and IPv4's checksum."""
    if layers.protocol == UDP:
        put(frame, layers.transport + 4, len(frame) - layers.transport)
    if layers.is_v6:
        put(frame, layers.network + 4, len(frame) - layers.network - 40)
        return
    put(frame, layers.network + 2, len(frame) - layers.network)
    put(frame, layers.network + 10, 0)
    put(frame, layers.network + 10, ~ones_sum(frame[layers.network : layers.transport]))


def write_checksum(frame: bytearray, layers: Layers) -> None:
    put(frame, layers.checksum_at(), 0)
    checksum = 65535 - ones_sum(layers.pseudo_header(frame) + frame[layers.transport :])
    put(frame, layers.checksum_at(), checksum or (65535 if layers.protocol == UDP else 0))


def has_right_checksums(frame: bytes, layers: Layers) -> bool:
    """A UDP datagram without a checksum counts as wrong."""
    if not layers.is_v6 and ones_sum(frame[layers.network : layers.transport]) != 65535:
        return False
    if layers.protocol == UDP and number(frame, layers.checksum_at()) == 0:
        return False
    return ones_sum(layers.pseudo_header(frame) + frame[layers.transport :]) == 65535


# Cutting


def cut(frame: bytes, offload: Offload) -> list[bytes]:
    flags, kind, _, size, start, offset = offload
    if flags & ~(NEEDS_CSUM | DATA_VALID):
        raise ValueError("flags")
    if kind == GSO_NONE:
        return [complete(frame, start, offset) if flags & NEEDS_CSUM else frame]
    layers = find_layers(frame)
    if layers is None:
        raise ValueError("headers")
    if layers.protocol == TCP:
        kinds = [GSO_TCPV6, GSO_TCPV6 | GSO_ECN] if layers.is_v6 else [GSO_TCPV4, GSO_TCPV4 | GSO_ECN]
    else:
        kinds = [GSO_UDP]
    if kind not in kinds or not flags & NEEDS_CSUM:
        raise ValueError("gso_type")
    if start != layers.transport or start + offset != layers.checksum_at():
        raise ValueError("csum_start or csum_offset")
    if layers.network + layers.packet_size(frame) != len(frame):
        raise ValueError("IP length")
    if layers.protocol == UDP and number(frame, layers.transport + 4) != len(frame) - layers.transport:
        raise ValueError("UDP length")
    payload = frame[layers.payload :]
    if size == 0 or not payload or len(payload) > PIECES_MAX * size:
        raise ValueError("gso_size")
    places = range(0, len(payload), size)
    headers, length = frame[: layers.payload], len(frame) - layers.transport
    return [
        piece(headers, payload[place : place + size], layers, length, place // size, place, place == places[-1])
        for place in places
    ]


def complete(frame: bytes, start: int, offset: int) -> bytes:
    """The field holds a sum already, which is summed with the rest; 0 is written as its equal everywhere, as Linux."""
    if start < 14 or start + offset + 2 > len(frame):
        raise ValueError("csum_start or csum_offset")
    whole = bytearray(frame)
    put(whole, start + offset, 65535 - ones_sum(frame[start:]) or 65535)
    return bytes(whole)


def piece(
    headers: bytes, payload: bytes, layers: Layers, old_length: int, index: int, place: int, is_last: bool
) -> bytes:
    frame = bytearray(headers + payload)
    if not layers.is_v6:
        put(frame, layers.network + 4, number(frame, layers.network + 4) + index)
    if layers.protocol == TCP:
        put(frame, layers.transport + 4, number(frame, layers.transport + 4, 4) + place, 4)
        if not is_last:
            frame[layers.transport + 13] &= ~(FIN | PSH)
        if index > 0:
            frame[layers.transport + 13] &= ~CWR
    write_lengths(frame, layers)
    # The field has the sum of the pseudo-header, with the length of the whole.
    field = number(frame, layers.checksum_at()) - old_length + len(frame) - layers.transport
    put(frame, layers.checksum_at(), 0)
    checksum = 65535 - ((ones_sum(frame[layers.transport :]) + field) % 65535 or 65535)
    put(frame, layers.checksum_at(), checksum or (65535 if layers.protocol == UDP else 0))
    return bytes(frame)


# Joining


def coalesce(frames: Iterable[bytes], udp: bool = True) -> list[tuple[Offload, bytes]]:
    held: list[list[bytes]] = []  # the oldest first
    out: list[tuple[Offload, bytes]] = []

    def release(flow: list[bytes]) -> None:
        held.remove(flow)
        out.append(joined(flow))

    for frame in frames:
        layers = find_layers(frame)
        if layers is None:
            while held:
                release(held[0])
            out.append((PLAIN, frame))
            continue
        flow = next((flow for flow in held if flow_key(flow[0]) == flow_key(frame)), None)
        if flow is not None:
            if may_follow(flow, frame):
                flow.append(frame)
                if is_closed(flow):
                    release(flow)
                continue
            release(flow)
        if not may_begin(frame, layers, udp):
            out.append((PLAIN, frame))
            continue
        if len(held) == FLOWS:
            release(held[0])
        held.append([frame])
    while held:
        release(held[0])
    return out


def flow_key(frame: bytes) -> object:
    """Addresses, protocol, ports; None for what is no TCP or UDP."""
    layers = find_layers(frame)
    if layers is None:
        return None
    return layers.addresses(frame), layers.protocol, frame[layers.transport : layers.transport + 4]


def is_whole(frame: bytes, layers: Layers) -> bool:
    """Whether there is a payload, and all lengths are right."""
    size = len(frame) - layers.transport
    return (
        len(frame) > layers.payload
        and layers.network + layers.packet_size(frame) == len(frame)
        and (layers.protocol == TCP or number(frame, layers.transport + 4) == size)
    )


def may_begin(frame: bytes, layers: Layers, udp: bool) -> bool:
    if layers.protocol == TCP:
        return is_whole(frame, layers) and frame[layers.transport + 13] in (ACK, ACK | ECE)
    return udp and is_whole(frame, layers) and number(frame, layers.checksum_at()) != 0


def alike(frame: bytes) -> bytes:
    """The headers without what differs from frame to frame."""
    layers = find_layers(frame)
    assert layers
    headers = bytearray(frame[: layers.payload])
    if layers.is_v6:
        put(headers, layers.network + 4, 0)
    else:
        put(headers, layers.network + 2, 0, 4)
        put(headers, layers.network + 10, 0)
    put(headers, layers.checksum_at(), 0)
    put(headers, layers.transport + 4, 0, 4 if layers.protocol == TCP else 2)
    if layers.protocol == TCP:
        headers[layers.transport + 13] &= ~PSH
    return bytes(headers)


def may_follow(flow: list[bytes], frame: bytes) -> bool:
    first, layers = flow[0], find_layers(frame)
    assert layers
    if not is_whole(frame, layers) or alike(first) != alike(frame):
        return False
    payloads = [len(one) - layers.payload for one in [*flow, frame]]
    if payloads[-1] > payloads[0] or layers.payload - layers.network + sum(payloads) > IP_PACKET_MAX:
        return False
    if not layers.is_v6:
        ids = [number(one, layers.network + 4) for one in [*flow, frame]]
        steps = {(later - earlier) % 65536 for earlier, later in pairwise(ids)}
        has_df = frame[layers.network + 6] & 0x40
        if steps != {1} and not (steps == {0} and has_df):
            return False
    if layers.protocol == TCP:
        expected = number(first, layers.transport + 4, 4) + sum(payloads[:-1])
        if number(frame, layers.transport + 4, 4) != expected % (1 << 32):
            return False
    return has_right_checksums(first, layers) and has_right_checksums(frame, layers)


def is_closed(flow: list[bytes]) -> bool:
    layers = find_layers(flow[-1])
    assert layers
    has_push = layers.protocol == TCP and flow[-1][layers.transport + 13] & PSH
    return bool(has_push) or len(flow[-1]) < len(flow[0]) or len(flow) == JOINED_MAX


def joined(flow: list[bytes]) -> tuple[Offload, bytes]:
    if len(flow) == 1:
        return PLAIN, flow[0]
    layers = find_layers(flow[0])
    assert layers
    frame = bytearray(flow[0][: layers.payload] + b"".join(one[layers.payload :] for one in flow))
    write_lengths(frame, layers)
    put(frame, layers.checksum_at(), ones_sum(layers.pseudo_header(frame)))
    if layers.protocol == UDP:
        kind = GSO_UDP
    else:
        kind = GSO_TCPV6 if layers.is_v6 else GSO_TCPV4
        frame[layers.transport + 13] = flow[-1][layers.transport + 13]
    size = len(flow[0]) - layers.payload
    at = layers.checksum_at() - layers.transport
    return (NEEDS_CSUM, kind, layers.payload, size, layers.transport, at), bytes(frame)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames for the tests of cutting and joining: flows of TCP or UDP over IP, and what they send."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.model.naive_offload import (
    ACK,
    CWR,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    NEEDS_CSUM,
    TCP,
    UDP,
    Layers,
    Offload,
    ones_sum,
    put,
    write_checksum,
    write_lengths,
)  # fmt: skip

MACS = bytes.fromhex("020000000002 020000000001")
TIMESTAMPS = bytes.fromhex("0101080a0102030405060708")


@dataclass(frozen=True)
class Flow:
    """What all frames of a connection have in common."""

    is_v6: bool = False
    protocol: int = TCP
    macs: bytes = MACS
    tags: tuple[tuple[int, int], ...] = ()
    """(TPID, TCI), the outer first"""
    ip_options: bytes = b""
    """IPv4, a multiple of 4 bytes"""
    extensions: tuple[int, ...] = ()
    """IPv6: 0 hop-by-hop, 43 routing, 60 destination options; each of 8 or 16 bytes"""
    tcp_options: bytes = b""
    host: int = 1
    ports: tuple[int, int] = (40000, 5201)
    ttl: int = 64
    traffic_class: int = 0
    has_df: bool = False
    ack: int = 0x11223344
    window: int = 502
    urgent: int = 0

    def layers(self) -> Layers:
        network = 14 + 4 * len(self.tags)
        transport = network + (len(self.ipv6()) if self.is_v6 else 20 + len(self.ip_options))
        payload = transport + (20 + len(self.tcp_options) if self.protocol == TCP else 8)
        return Layers(self.is_v6, self.protocol, network, transport, payload)

    def ethernet(self) -> bytes:
        tags = b"".join(tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") for tpid, tci in self.tags)
        return self.macs + tags + (b"\x86\xdd" if self.is_v6 else b"\x08\x00")

    def ipv4(self, identification: int) -> bytes:
        header = bytearray(20)
        header[0], header[1] = 0x45 + len(self.ip_options) // 4, self.traffic_class
        put(header, 4, identification)
        header[6] = 0x40 if self.has_df else 0
        header[8], header[9] = self.ttl, self.protocol
        addresses = bytes([10, 9, 0, self.host, 10, 9, 0, 200])
        return bytes(header[:12]) + addresses + self.ip_options

    def ipv6(self) -> bytes:
        first = (6 << 28 | self.traffic_class << 20 | 0x12345).to_bytes(4, "big")
        kinds = [*self.extensions, self.protocol]
        header = first + bytes([0, 0, kinds[0], self.ttl])
        header += bytes.fromhex("fd09") + bytes(13) + bytes([self.host]) + bytes.fromhex("fd09") + bytes(13) + b"\xc8"
        for place, follows in enumerate(kinds[1:]):
            if kinds[place] == 43:  # type 4 (segment routing) of no segments
                header += bytes([follows, 0, 4, 0, 0, 0, 0, 0])
            else:  # PadN
                header += bytes([follows, 1, 1, 12]) + bytes(12)
        return header

    def bare(self, payload: bytes, seq: int, identification: int, flags: int) -> bytearray:
        """With all lengths, without the checksum of TCP or UDP."""
        ports = self.ports[0].to_bytes(2, "big") + self.ports[1].to_bytes(2, "big")
        if self.protocol == TCP:
            header = bytearray(ports + bytes(16) + self.tcp_options)
            put(header, 4, seq, 4)
            put(header, 8, self.ack, 4)
            header[12], header[13] = (5 + len(self.tcp_options) // 4) << 4, flags
            put(header, 14, self.window)
            put(header, 18, self.urgent)
        else:
            header = bytearray(ports + bytes(4))
        network = self.ipv6() if self.is_v6 else self.ipv4(identification)
        frame = bytearray(self.ethernet() + network + header + payload)
        write_lengths(frame, self.layers())
        return frame

    def frame(self, payload: bytes, seq: int = 1, identification: int = 1, flags: int = ACK) -> bytes:
        frame = self.bare(payload, seq, identification, flags)
        write_checksum(frame, self.layers())
        return bytes(frame)

    def super_frame(
        self, payload: bytes, size: int, seq: int = 1, identification: int = 1, flags: int = ACK
    ) -> tuple[Offload, bytes]:
        """Which is to be cut into payloads of `size`; the same arguments as a frame's."""
        layers = self.layers()
        frame = self.bare(payload, seq, identification, flags)
        put(frame, layers.checksum_at(), ones_sum(layers.pseudo_header(frame)))
        if self.protocol == UDP:
            kind = GSO_UDP
        else:
            kind = (GSO_TCPV6 if self.is_v6 else GSO_TCPV4) | (GSO_ECN if flags & CWR else 0)
        offset = layers.checksum_at() - layers.transport
        return (NEEDS_CSUM, kind, layers.payload, size, layers.transport, offset), bytes(frame)


def random_flow(chance: random.Random, **fixed: object) -> Flow:
    """With everything in it that a flow may have."""
    is_v6 = bool(fixed.get("is_v6", chance.random() < 0.5))
    tags = [(chance.choice([0x8100, 0x88A8]), chance.getrandbits(16)) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
    flow = Flow(
        is_v6=is_v6,
        protocol=chance.choice([TCP, TCP, UDP]),
        tags=tuple(tags),
        ip_options=b"\x01" * chance.choice([0, 0, 0, 4, 12, 40]),
        extensions=tuple(chance.choices([0, 43, 60], k=chance.choice([0, 0, 0, 1, 2, 3]))),
        tcp_options=chance.choice([b"", TIMESTAMPS, TIMESTAMPS, b"\x01" * 40]),
        host=chance.randrange(1, 200),
        ports=(chance.getrandbits(16), chance.getrandbits(16)),
        ttl=chance.randrange(1, 256),
        traffic_class=chance.getrandbits(8),
        has_df=chance.random() < 0.5,
        ack=chance.getrandbits(32),
        window=chance.getrandbits(16),
        urgent=chance.choice([0, 0, 7]),
    )
    return replace(flow, **fixed)  # type: ignore[arg-type]

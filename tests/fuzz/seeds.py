# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the inputs that a corpus begins with, made with the builders of today: `python -m tests.fuzz.seeds`."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from cloudvpn._fast.wire import (
    bare_packet,
    broadcast_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    route_packet,
    seq_requests_packet,
)
from cloudvpn.options import OPTIONS
from cloudvpn.pki import Issuer, issue, make_ca, make_crl
from tests.fuzz.certificates import NOW, pem
from tests.fuzz.frames import HEADER
from tests.fuzz.targets import CORPUS
from tests.model.naive_offload import ACK, PSH, TCP, UDP
from tests.model.packets import TIMESTAMPS, Flow, random_flow

FLOWS = [Flow(tcp_options=TIMESTAMPS), Flow(is_v6=True), Flow(protocol=UDP), Flow(is_v6=True, protocol=UDP),
         Flow(tags=((0x88A8, 3), (0x8100, 4)), ip_options=b"\1" * 8),
         Flow(is_v6=True, extensions=(0, 43, 60))]  # fmt: skip
ROUTES = [(0x020000000002, 0, 1), (0x02BB00000001, 63, 0xFFFFFFFE), (0xFFFFFFFFFFFF, 1, 0)]
FRAME = Flow().frame(b"payload")


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def streams() -> Iterator[bytes]:
    old = [route_packet(1, ROUTES), route_packet(2, ROUTES), frame_packet(FRAME), broadcast_packet(7, FRAME),
           bare_packet(5, 1), bare_packet(6, 2), bare_packet(7, 3)]  # fmt: skip
    offload, frame = FLOWS[0].super_frame(b"x" * 300, 100)
    new = [hello_packet(9), *old[3:], bulk_packet(FRAME), bulk_packet(frame, offload),
           node_routes_packet([(1, 2, 3, 4, 5)]), seq_requests_packet([(1, 2, 3)]),
           hosts_packet([(ROUTES[0][0], 1, 2, 3, 4, 5)])]  # fmt: skip
    for version, packets in ((0, old), (1, new)):
        for cuts in (b"\0", b"\2\0\1\0\7", b"\3\0\0\0\3\0\x40"):
            yield bytes([version]) + cuts + b"".join(packets)


def links() -> Iterator[bytes]:
    for number, stream in enumerate(streams()):
        yield stream[:1] + bytes([number % 4]) + stream[1:]


def tables(seed: int) -> Iterator[bytes]:
    """What the bytes choose is as good as any other choice; the first one is that of the limits."""
    chance = random.Random(seed)
    for number in range(12):
        yield bytes([number << 4]) + chance.randbytes(600)


def switch() -> Iterator[bytes]:
    peers = bytes([0, 0, 9, 0, 1, 9, 0, 0x28, 0, 0, 0x28, 1, 0])  # a port of each version, answers
    old = bytes([9, 0, 8, 2, 1, 0, 0, 5, 2, 1, 0, 9])  # routes of version 1, then nodes and a host of version 2
    new = bytes([9, 1, 7, 2, 0, 1, 0, 0, 0, 0, 5, 1, 0, 9, 3, 1, 9, 1, 10, 2, 3, 1, 0, 1, 1, 0, 0, 4, 3, 0, 6, 1, 0, 0])
    known = peers + old + new + b"\x33"
    sent = b"".join(bytes([4, 0x80, 40, to, 0]) + bytes(40) + b"\1" for to in (1, 3, 4))
    passed = b"".join(
        bytes([10, port, 5, 0x80, 20, to, 1]) + bytes(20) + bytes([1, 9, egress, 0][: 4 * port])
        for port, to, egress in ((0, 3, 0), (1, 1, 8), (1, 0, 8), (1, 3, 6), (0, 6, 0))
    )
    lost = bytes([9, 1, 7, 1, 0, 1, 0xFF, 0xFF, 0, 0, 0x53, 1, 0])
    for traits in range(4):
        yield bytes([traits]) + known + sent * 2 + passed + lost + sent + b"\x32"
    asked = bytes([9, 1, 9, 2, 7, 9, 3, 0, 2, 3, 0x32, 9, 1, 2, 2, 0, 0x33])
    yield bytes([2]) + known + asked + sent
    streams = route_packet(1, ROUTES) + frame_packet(FRAME), bulk_packet(FRAME) + bare_packet(5, 1)
    for version, stream in enumerate(streams):
        yield bytes([version]) + peers + bytes([7, version]) + sized(stream) + bytes([0x23, 0x53, 0x53])
    for flow in FLOWS[:4]:
        offload, frame = flow.super_frame(b"z" * 200, 64)
        header = bytes([0, *offload[:2]]) + struct.pack(">HHHH", *offload[2:])
        yield bytes([0]) + known + (bytes([4]) + struct.pack(">H", len(frame)) + frame + header) * 2 + b"\x43"


def segments() -> Iterator[bytes]:
    chance = random.Random(1)
    for flow in [*FLOWS, *(random_flow(chance) for _ in range(6))]:
        offload, frame = flow.super_frame(chance.randbytes(250), 100, flags=ACK | PSH)
        yield struct.pack(HEADER, *offload) + frame
    yield struct.pack(HEADER, 1, 0, 0, 0, 34, 16) + FRAME
    yield bytes(10) + FRAME


def trains() -> Iterator[bytes]:
    chance = random.Random(2)
    for flow in [*FLOWS, *(random_flow(chance) for _ in range(6))]:
        first = b"\4" + sized(flow.frame(chance.randbytes(chance.choice([1, 2, 60]))))
        yield b"\0" + first + b"\1" * 3 + b"\3\1" + first + b"\1"
    both = [b"\4" + sized(flow.frame(b"q" * 40)) + b"\1\1" for flow in FLOWS]
    yield b"\0" + b"".join(both) * 2
    assert {flow.protocol for flow in FLOWS} == {TCP, UDP}


def taps() -> Iterator[bytes]:
    for number, flow in enumerate(FLOWS):
        offload, frame = flow.super_frame(b"y" * 220, 70)
        parts = sized(struct.pack(HEADER, *offload) + frame) + sized(bytes(10) + FRAME)
        for traits in (1, 3, 5, 7, 0, 12, 13, 15)[number % 3 :: 3]:
            yield bytes([0x40 | traits]) + parts * 2


def configs() -> Iterator[bytes]:
    yield b"key k\ncert c\nca a\nlisten 0.0.0.0 15135\nconnect host.example 1\niface yes\niface_address 10.0.0.1/24\n"
    yield b"# a comment\n@include conf\nmac 02:00:00:00:00:01\nuplimit-total 10k\nconn-retry 5s\nbridge_mode\n"
    yield b"".join(f"{row.name} {row.show(row.default)}\n".encode() for row in OPTIONS.values())


def commands() -> Iterator[bytes]:
    for words in (["-iface", "yes", "-connect", "a.example", "15135"], ["--check", "x"], ["-key_pass", "x", "--", "-f"],
                  ["-listen", "::", "1", "-multipath", "-multi_ratio", "3", "-@include", "conf"]):  # fmt: skip
        yield "\0".join(words).encode()


def values() -> Iterator[bytes]:
    samples = {"ADDR/LEN": ["10.1.2.3/24", "fd00::1/64"], "MAC": ["02:00:5e:10:00:00"], "HEX": ["0x88b5"],
               "HOST PORT": ["host-1.example.org. 15135", "fe80::1%eth0 https", "192.0.2.1 1"]}  # fmt: skip
    for number, row in enumerate(OPTIONS.values()):
        for text in samples.get(row.kind.metavar, [row.show(row.default).split(", ")[0]]):
            yield bytes([number]) + text.encode()


def certificates() -> Iterator[bytes]:
    def piece(what: int, data: bytes) -> bytes:
        return bytes([what]) + sized(data)

    day = timedelta(days=1)
    times: dict[str, Any] = {"not_before": NOW - day, "not_after": NOW + day}
    ca = make_ca("CA")
    sub = Issuer(*issue(ca, "Sub", is_ca=True, **times))
    nodes = [issue(ca, "node", **times)[1], issue(sub, "under", **times)[1]]
    for signer, node in zip((ca, sub), nodes, strict=True):
        crl = make_crl(signer, [node.serial_number])
        parts = [one.public_bytes(Encoding.DER) for one in (signer.cert, node, crl)]
        yield b"".join(piece(1, part) for part in parts) + b"\1"
        labels = [b"CERTIFICATE", b"CERTIFICATE", b"X509 CRL"]
        yield b"".join(piece(0, pem(*pair)) for pair in zip(labels, parts, strict=True))


SEEDS = {"stream": streams, "link": links, "routes": lambda: tables(3), "nodes": lambda: tables(4),
         "hosts": lambda: tables(5), "switch": switch, "segment": segments,
         "coalesce": trains, "tap": taps, "config": configs, "command": commands, "addresses": values,
         "certificates": certificates}  # fmt: skip


def write(folder: Path) -> None:
    for name, make in SEEDS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(make()):
            (folder / name / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    write(CORPUS)

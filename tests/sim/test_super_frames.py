# SPDX-License-Identifier: GPL-3.0-or-later
"""Super-frames of the interface: cut for links, counted as the frames that they stand for."""

from __future__ import annotations

import pytest

from cloudvpn._fast.segment import cut
from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node

NEEDS_CHECKSUM, TCPV4, UDP_L4, TCP_CHECKSUM = 1, 1, 5, 16
HEADERS = 14 + 20 + 20
UNKNOWN = 0x02FFFFFFFFFF


def tcp_frame(source: int, to: int, payload: int) -> bytes:
    """An IPv4 and TCP frame of any size whose checksums are still to be made."""
    ip = bytes.fromhex("4500") + (HEADERS - 14 + payload).to_bytes(2, "big") + bytes.fromhex("000140004006")
    ip += bytes.fromhex("0000 0a090001 0a090002")
    tcp = bytes.fromhex("1234 5678 00000001 00000002 5018 0400 0000 0000")
    data = bytes(place * 7 % 251 for place in range(payload))
    return to.to_bytes(6, "big") + source.to_bytes(6, "big") + b"\x08\x00" + ip + tcp + data


def offload(step: int) -> tuple[int, int, int, int, int, int]:
    return (NEEDS_CHECKSUM, TCPV4, HEADERS, step, 34, TCP_CHECKSUM)


def pair() -> tuple[Mesh, Node, Node]:
    mesh = Mesh(trace=True)
    a, b = mesh.node(), mesh.node()
    mesh.link(a, b)
    mesh.run(SECOND)
    return mesh, a, b


@pytest.mark.parametrize("to", ["peer", "unknown", "everybody"])
def test_a_super_frame_arrives_as_the_plain_frames_it_stands_for(to: str) -> None:
    mesh, a, b = pair()
    made = tcp_frame(a.mac, {"peer": b.mac, "unknown": UNKNOWN, "everybody": EVERYBODY}[to], 10_000)
    a.switch.send_from_tap(made, offload(1448))
    mesh.run(100 * MS)
    expected = cut(made, offload(1448))
    assert len(expected) == 7
    assert mesh.received()[b] == expected
    assert [carried.kind for carried in mesh.trace] == [3 if to == "peer" else 4] * 7
    assert a.switch.frames_from_tap == a.switch.frames_to_links == 7
    mesh.check()


def test_a_frame_without_its_checksum_gets_it() -> None:
    mesh, a, b = pair()
    made = tcp_frame(a.mac, b.mac, 5)
    a.switch.send_from_tap(made, (NEEDS_CHECKSUM, 0, 0, 0, 34, TCP_CHECKSUM))
    mesh.run(100 * MS)
    [got] = mesh.received()[b]
    assert got[:50] == made[:50] and got[52:] == made[52:] and got[50:52] != bytes(2)
    mesh.check()


@pytest.mark.parametrize(("step", "frames"), [(8192 - HEADERS, 2), (8192 - HEADERS + 1, 0)])
def test_conn_mtu_counts_the_frames_it_stands_for(step: int, frames: int) -> None:
    mesh, a, b = pair()
    a.switch.send_from_tap(tcp_frame(a.mac, b.mac, 2 * step), offload(step))
    mesh.run(100 * MS)
    assert len(mesh.received()[b]) == frames
    assert a.switch.dropped()["long"] == 2 - frames
    mesh.check()


def test_a_super_frame_that_does_not_fit_its_offload_header_is_dropped_and_counted() -> None:
    mesh, a, b = pair()
    made = tcp_frame(a.mac, b.mac, 10_000)
    good = list(offload(1448))
    for place, value in ((0, 0), (0, 5), (1, UDP_L4), (1, 4), (1, 7), (3, 0), (4, 33), (4, 60_000), (5, 6)):
        fields = [*good[:place], value, *good[place + 1 :]]
        a.switch.send_from_tap(made, tuple(fields))
    a.switch.send_from_tap(made[:-1], offload(1448))
    a.switch.send_from_tap(made + b"\0", offload(1448))
    a.switch.send_from_tap(made[:53], offload(1448))
    a.switch.send_from_tap(b"", offload(1448))
    mesh.run(100 * MS)
    assert a.switch.dropped()["bad_offload"] == 13
    assert mesh.received()[b] == []
    mesh.check()


def test_what_a_full_queue_does_not_take_of_a_super_frame_is_counted() -> None:
    mesh = Mesh()
    a, b = mesh.node(max_data=20), mesh.node()
    link = mesh.link(a, b)
    mesh.run(SECOND)
    end = link.ends[0]
    a.switch.pause(end, True)
    a.switch.send_from_tap(tcp_frame(a.mac, b.mac, 60_000), offload(1448))
    assert a.switch.dropped()["queue_full"] == 42 - 20
    a.switch.pause(end, False)
    end.flush()
    mesh.run(100 * MS)
    assert len(mesh.received()[b]) == 20
    mesh.check()

# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be flooded: broadcast_filter_allow and broadcast_limit, and that nothing else is touched by them."""

from __future__ import annotations

import pytest

from cloudvpn._fast.wire import broadcast_packet
from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node, frame
from tests.sim.test_bridging import frame_of
from tests.sim.test_forwarding import line, ring, settle
from tests.sim.test_super_frames import offload, tcp_frame

pytestmark = pytest.mark.usefixtures("each_version")

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
UNKNOWN = 0x02FFFFFFFFFF


def typed(to: int, source: Node, kind: int) -> bytes:
    return frame(to, source.mac, b"")[:12] + kind.to_bytes(2, "big") + bytes(46)


# broadcast_filter_allow


@pytest.mark.parametrize("where", ["source", "relay"])
@pytest.mark.parametrize("to", [EVERYBODY, 0x01005E000001, UNKNOWN])
def test_only_allowed_ethertypes_are_flooded(where: str, to: int) -> None:
    mesh = Mesh()
    a, relay, c = line(mesh, 3)
    settle(mesh)
    filtering = a if where == "source" else relay
    filtering.switch.set_policy(allowed=[ARP, IPV6, 0, 0xFFFF])
    frames = {kind: typed(to, a, kind) for kind in (ARP, ARP - 1, ARP + 1, IPV4, IPV6, VLAN, 0, 1, 0xFFFE, 0xFFFF, 38)}
    for data in frames.values():
        a.switch.send_from_tap(data)
    mesh.run(SECOND)
    passing = [frames[kind] for kind in (ARP, IPV6, 0, 0xFFFF)]
    assert mesh.received()[c] == passing
    assert filtering.switch.dropped()["filtered"] == len(frames) - len(passing)
    mesh.check()


def test_a_filter_leaves_unicast_alone_even_in_a_broadcast_packet() -> None:
    mesh = Mesh()
    a, relay, c = line(mesh, 3)
    settle(mesh)
    for node in (relay, c):
        node.switch.set_policy(allowed=[ARP])
    a.switch.set_policy(broadcast_send=True)
    sent = typed(c.mac, a, IPV4)
    a.switch.send_from_tap(sent)
    a.switch.set_policy()
    a.switch.send_from_tap(sent)
    mesh.run(SECOND)
    assert mesh.received()[c] == [sent, sent]
    assert relay.switch.dropped()["filtered"] == 0
    mesh.check()


def test_every_copy_that_is_filtered_counts_as_filtered_and_its_id_is_not_remembered() -> None:
    mesh = Mesh()
    a, b, c = ring(mesh, 3)
    settle(mesh)
    c.switch.set_policy(allowed=[ARP])
    sent = typed(EVERYBODY, a, IPV4)
    a.switch.send_from_tap(sent)
    mesh.run(SECOND)
    dropped = c.switch.dropped()
    assert (dropped["filtered"], dropped["duplicate"], len(c.switch.ids)) == (2, 0, 0)
    assert mesh.received() == {a: [], b: [sent], c: []}
    mesh.check()


def test_a_super_frame_is_filtered_in_all_its_pieces() -> None:
    mesh = Mesh()
    a, b = line(mesh, 2)
    settle(mesh)
    a.switch.set_policy(allowed=[ARP])
    a.switch.send_from_tap(tcp_frame(a.mac, UNKNOWN, 10_000), offload(1448))
    a.switch.send_from_tap(tcp_frame(a.mac, b.mac, 10_000), offload(1448))
    mesh.run(SECOND)
    assert a.switch.dropped()["filtered"] == 7 and len(mesh.received()[b]) == 7
    mesh.check()


def test_no_filter_allows_all_and_a_number_that_is_no_ethertype_is_refused() -> None:
    mesh = Mesh()
    a, b = line(mesh, 2)
    settle(mesh)
    a.switch.set_policy(allowed=[ARP])
    a.switch.set_policy(allowed=[])
    a.switch.send_from_tap(typed(EVERYBODY, a, IPV4))
    mesh.run(SECOND)
    assert len(mesh.received()[b]) == 1
    with pytest.raises(ValueError, match="16 bits"):
        a.switch.set_policy(allowed=[0x10000])


# broadcast_limit


def pair(limit: int) -> tuple[Mesh, Node, Node]:
    mesh = Mesh(trace=True)
    a, b = mesh.node(max_data=100_000), mesh.node()
    mesh.link(a, b)
    b.switch.set_policy(broadcast_limit=limit)
    settle(mesh)
    return mesh, a, b


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_a_second_of_the_limit_may_come_at_once(count: int) -> None:
    mesh, a, b = pair(100)
    sent = [a.send(EVERYBODY) for _ in range(count)]
    mesh.run(5 * MS)
    assert mesh.received()[b] == sent[:100]
    [port] = b.switch.ports()
    assert (port.broadcasts_in, port.broadcasts_refused) == (count, max(0, count - 100))
    assert b.switch.dropped()["broadcast_limit"] == max(0, count - 100)
    mesh.check()


@pytest.mark.parametrize(("limit", "gap", "taken"), [(100, 20 * MS, 500), (100, 10 * MS, 1000), (100, 5 * MS, 1100)])
def test_over_ten_seconds_the_limit_is_exact(limit: int, gap: int, taken: int) -> None:
    mesh, a, b = pair(limit)
    for turn in range(10 * SECOND // gap):
        mesh.after(turn * gap, lambda: a.send(EVERYBODY))
    mesh.run(10 * SECOND + 5 * MS)
    assert abs(len(mesh.received()[b]) - taken) <= 1
    mesh.check()


@pytest.mark.parametrize("to", [EVERYBODY, 0x333300000001, UNKNOWN])
def test_multicast_and_unknown_unicast_are_limited_as_broadcasts_in_any_packet(to: int) -> None:
    mesh, a, b = pair(1)
    port = b.links[0].end_at(b)
    data = frame(to, a.mac, b"x")
    b.switch.receive(port, frame_of(mesh.version, data) + broadcast_packet(1, data) * 3, mesh.now)
    assert b.tap.frames == [data] and b.switch.dropped()["broadcast_limit"] == 3
    assert (port.broadcasts_refused, port.unicasts_refused) == (3, 3 if to == UNKNOWN else 0)
    mesh.check(links=False)


def test_unicast_is_not_limited_whatever_packet_carries_it() -> None:
    mesh, a, b = pair(1)
    a.switch.set_policy(broadcast_send=True)
    sent = [a.send(b) for _ in range(50)]
    a.switch.set_policy()
    sent += [a.send(b) for _ in range(50)]
    mesh.run(SECOND)
    assert mesh.received()[b] == sent and b.switch.dropped()["broadcast_limit"] == 0
    mesh.check()


def test_each_link_has_its_own_limit_and_what_one_may_not_bring_another_one_may() -> None:
    mesh = Mesh()
    a, _, c = ring(mesh, 3)
    c.switch.set_policy(broadcast_limit=10)
    settle(mesh)
    from_b, from_a = (link.end_at(c) for link in c.links)
    for broadcast_id in range(10):
        c.switch.receive(from_a, broadcast_packet(broadcast_id, frame(EVERYBODY, 2, b"")), mesh.now)
    assert len(mesh.received()[c]) == 10
    sent = [a.send(EVERYBODY) for _ in range(10)]
    mesh.run(3 * MS)
    assert mesh.received()[c] == sent
    assert (from_a.broadcasts_refused, from_b.broadcasts_refused) == (20, 0), "the first ten came round, too"
    assert c.switch.dropped()["duplicate"] == 0
    mesh.check(links=False)


def test_a_limit_of_zero_is_none() -> None:
    mesh, a, b = pair(0)
    sent = [a.send(EVERYBODY) for _ in range(5000)]
    mesh.run(SECOND)
    assert mesh.received()[b] == sent

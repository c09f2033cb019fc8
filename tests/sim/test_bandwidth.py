# SPDX-License-Identifier: GPL-3.0-or-later
"""Bandwidth limits on the fake clock: exact, fair, bounded in their bursts, and never in the way of the protocol.

    hub --- p1, p2, ... pN
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.sim.mesh import HEARTBEAT, MS, SECOND, Carried, End, Mesh, Node
from tests.sim.test_forwarding import settle
from tests.sim.test_super_frames import offload, tcp_frame

MB = 1_000_000
FRAME = 1000
QUEUE = {"max_data": 40}


@dataclass
class Star:
    mesh: Mesh
    hub: Node
    peers: list[Node]

    def hub_end(self, number: int) -> End:
        return self.mesh.links[number].end_at(self.hub)

    def got(self) -> list[int]:
        """Bytes that each peer's interface got since the last time."""
        received = self.mesh.received()
        return [sum(map(len, received[peer])) for peer in self.peers]


def star(peers: int, *, trace: bool = False, versions: tuple[int, ...] = (), **limits: object) -> Star:
    mesh = Mesh(cut="whole", trace=trace)
    hub = mesh.node(version=2, **QUEUE | limits)
    leaves = [mesh.node(version=version) for version in versions or (1,) * peers]
    for leaf in leaves:
        mesh.link(hub, leaf)
    settle(mesh)
    mesh.trace.clear()
    return Star(mesh, hub, leaves)


def load(mesh: Mesh, rate: int, send: Callable[[], object], size: int = FRAME) -> None:
    """Calls `send`, which sends `size` bytes, at this rate (B/s) from now on."""

    def step() -> None:
        send()
        mesh.after(size * SECOND // rate, step)

    step()


def excess(trace: list[Carried], rate: int) -> int:
    """The most bytes that left in any time beyond what the rate gives in it."""
    level, most, before = 0.0, 0.0, 0
    for carried in trace:
        level = max(0.0, level - rate * (carried.time - before) / SECOND) + len(carried.frame)
        most, before = max(most, level), carried.time
    return round(most)


# Sending


@pytest.mark.parametrize("grain", [1, MS, 7 * MS])
@pytest.mark.parametrize("peers", [1, 10])
@pytest.mark.parametrize("rate", [100_000, MB, 10 * MB])
def test_what_is_sent_in_10_seconds_is_the_limit(rate: int, peers: int, grain: int) -> None:
    """Whatever the grain of the timer that wakes the links is."""
    size = rate // 1250  # fewer frames for the same figures
    mesh = (net := star(peers, up=(rate, 0, 2048), grain=grain)).mesh
    for peer in net.peers:
        load(mesh, 3 * rate, lambda peer=peer: net.hub.send(peer, size), size)
    mesh.run(SECOND)
    net.got()
    mesh.run(10 * SECOND)
    got = net.got()
    assert sum(got) == pytest.approx(10 * rate, rel=0.005)
    assert got == pytest.approx([10 * rate / peers] * peers, rel=0.02)
    assert net.hub.switch.dropped()["queue_full"] > 0
    mesh.run(SECOND)
    mesh.check(links=False)


@pytest.mark.parametrize("grain", [1, MS])
def test_a_link_never_gets_more_than_its_own_limit_and_leaves_the_rest_to_others(grain: int) -> None:
    """Three links of 400 kB/s at most, one of which has little to send, share a megabyte."""
    net = star(3, up=(MB, 400_000, 2048), grain=grain)
    for peer, rate in zip(net.peers, (100_000, 2 * MB, 2 * MB), strict=True):
        load(net.mesh, rate, lambda peer=peer: net.hub.send(peer, FRAME))
    net.mesh.run(SECOND)
    net.got()
    net.mesh.run(10 * SECOND)
    assert net.got() == pytest.approx([MB, 4 * MB, 4 * MB], rel=0.005)


def test_what_one_link_leaves_of_the_total_is_shared_by_those_that_wait() -> None:
    net = star(3, up=(MB, 0, 2048))
    for peer, rate in zip(net.peers, (100_000, 2 * MB, 5 * MB), strict=True):
        load(net.mesh, rate, lambda peer=peer: net.hub.send(peer, FRAME))
    net.mesh.run(SECOND)
    net.got()
    net.mesh.run(10 * SECOND)
    assert net.got() == pytest.approx([MB, 4_500_000, 4_500_000], rel=0.01)
    assert net.hub_end(0).frames_dropped == 0


def test_shares_are_equal_in_bytes_and_super_frames_count_as_the_frames_they_stand_for() -> None:
    """Small frames, large ones, super-frames that stay whole and super-frames that are cut."""
    net = star(4, versions=(1, 1, 2, 1), up=(MB, 0, 2048), max_data=100)
    small, large, whole, cut = net.peers
    load(net.mesh, MB, lambda: net.hub.send(small, 100), 100)
    load(net.mesh, 2 * MB, lambda: net.hub.send(large, 8000), 8000)
    for peer, step in ((whole, 1448), (cut, 100)):
        made = tcp_frame(net.hub.mac, peer.mac, 40_000)
        load(net.mesh, 2 * MB, lambda made=made, step=step: net.hub.switch.send_from_tap(
            made, offload(step), net.mesh.now), len(made))  # fmt: skip
    net.mesh.run(SECOND)
    net.got()
    net.mesh.run(40 * SECOND)
    assert net.got() == pytest.approx([10 * MB] * 4, rel=0.02)
    assert net.mesh.trace == [] and net.hub_end(2).packets_out < net.hub_end(3).packets_out / 20, "whole, and cut"


@pytest.mark.parametrize("burst", [1, 2048, 50_000])
@pytest.mark.parametrize(("total", "conn"), [(MB, 0), (0, MB), (MB, 300_000)])
def test_no_burst_is_larger_than_allowed_by_more_than_a_frame(total: int, conn: int, burst: int) -> None:
    """After silence, and in the middle of much traffic."""
    net = star(3, trace=True, up=(total, conn, burst), max_data=200)
    mesh = net.mesh

    def volley() -> None:
        for peer in net.peers * 60:
            net.hub.send(peer, mesh.chance.randrange(60, 1500))

    for pause in (0, 10 * MS, 100 * MS, SECOND, 5 * SECOND):
        mesh.run(pause)
        volley()
    mesh.run(10 * SECOND)
    if total:
        assert burst < excess(mesh.trace, total) <= burst + 1500
    for peer in net.peers if conn else ():
        # What a link misses while the total is used up it may catch up on.
        most = max(burst, conn * 50 // 1000) if total else burst
        assert excess([one for one in mesh.trace if one.target is peer], conn) <= most + 1500
    assert sum(net.got()) == sum(len(one.frame) for one in mesh.trace) > 3 * 60 * 5 * 700
    mesh.check()


def test_one_frame_may_put_the_bucket_into_debt_and_then_the_next_waits_until_it_is_paid() -> None:
    net = star(1, trace=True, up=(100_000, 0, 500))
    for size in (499, 8000, 60):
        net.hub.send(net.peers[0], size)
    net.mesh.run(SECOND)
    begun = net.mesh.trace[0].time
    # One byte is left for the second; a debt of 7,999 takes 79.99 ms to pay.
    assert [(one.time - begun, len(one.frame)) for one in net.mesh.trace] == [(0, 499), (0, 8000), (79_991, 60)]


def test_protocol_packets_do_not_wait() -> None:
    """A kilobyte a second: a frame takes a second, and 40 wait."""
    net = star(1, up=(1000, 0, 1), keepalive=100 * MS, timeout=SECOND)
    load(net.mesh, 10_000, lambda: net.hub.send(net.peers[0], FRAME))
    net.mesh.run(10 * SECOND)
    assert net.hub_end(0).queue.waiting_data == QUEUE["max_data"] and net.hub_end(0).echo.ping == 2 * MS
    net.hub.switch.set_tap(net.hub.tap, 0x02CC00000001)
    net.mesh.run(HEARTBEAT + MS)
    assert 0x02CC00000001 in net.peers[0].routes()
    # A frame a second: 10 of 1000 bytes.
    assert sum(net.got()) == pytest.approx(10_000, abs=2 * FRAME)


def test_a_queue_that_a_limit_keeps_full_counts_what_it_loses_and_stops_the_interface() -> None:
    net = star(2, up=(0, 10_000, 2048))
    (slow, other), hub = net.peers, net.hub
    for _ in range(100):
        hub.send(slow)
    lost = 100 - QUEUE["max_data"] - 2048 // 60 - 1
    assert hub.switch.dropped()["queue_full"] == net.hub_end(0).frames_dropped == lost
    assert hub.tap.is_wanted, "the other link could take frames"
    for _ in range(100):
        hub.send(other)
    assert not hub.tap.is_wanted
    net.mesh.run(100 * MS)
    assert hub.tap.is_wanted
    net.mesh.run(SECOND)
    assert net.got() == [60 * (100 - lost)] * 2
    net.mesh.check()


def test_what_a_paused_link_was_granted_leaves_when_it_resumes_and_others_take_what_it_does_not() -> None:
    net = star(2, up=(MB, 0, 2048), keepalive=60 * SECOND)  # else the echo that waited would move the routes
    hub, end = net.hub, net.hub_end(0)
    hub.switch.pause(end, True)
    for peer in net.peers:
        load(net.mesh, 2 * MB, lambda peer=peer: hub.send(peer, FRAME))
    net.mesh.run(5 * SECOND)
    assert net.got() == pytest.approx([0, 5 * MB], rel=0.01)
    hub.switch.pause(end, False)
    hub.switch.flush(net.mesh.now)
    net.mesh.run(5 * SECOND)
    assert net.got() == pytest.approx([2.5 * MB] * 2, rel=0.02)


def test_a_limited_link_that_closes_while_frames_wait_harms_no_one() -> None:
    net = star(3, up=(100_000, 0, 2048))
    for peer in net.peers:
        load(net.mesh, MB, lambda peer=peer: net.hub.send(peer, FRAME))
    for link in net.mesh.links[:2]:
        net.mesh.run(SECOND)
        link.close()
    net.mesh.run(SECOND)
    net.got()
    net.mesh.run(10 * SECOND)
    assert net.got()[2] == pytest.approx(MB, rel=0.01)
    assert net.hub.switch.dropped()["link_closed"] > 0
    net.mesh.check(links=False)


def test_limits_change_while_frames_wait() -> None:
    net = star(2, up=(100_000, 0, 2048))
    for peer in net.peers:
        load(net.mesh, 4 * MB, lambda peer=peer: net.hub.send(peer, FRAME))
    for limits, expected in (((MB, 0, 2048), MB), ((0, 0, 1), 8 * MB), ((0, 100_000, 1), 200_000)):
        net.mesh.run(SECOND)
        net.hub.switch.set_limits(net.mesh.now, up=limits)
        net.mesh.run(MS)
        net.got()
        net.mesh.run(SECOND)
        assert sum(net.got()) == pytest.approx(expected, rel=0.03)
    net.mesh.check(links=False)


# Receiving


@pytest.mark.parametrize("peers", [1, 10])
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("rate", [100_000, MB, 10 * MB])
def test_what_is_received_in_10_seconds_is_the_limit_in_equal_shares(rate: int, peers: int, batch: int) -> None:
    size = rate // 1250
    net = star(peers, down=(rate, 0, 20480))

    def send(peer: Node) -> None:
        for _ in range(batch):
            peer.send(net.hub, size)

    for number, peer in enumerate(net.peers):
        load(net.mesh, (3 + number) * rate // 2, lambda peer=peer: send(peer), batch * size)
    net.mesh.run(SECOND)
    net.mesh.received()
    net.mesh.run(10 * SECOND)
    by_peer = Counter[int]()
    for frame in net.mesh.received()[net.hub]:
        by_peer[int.from_bytes(frame[6:12], "big")] += len(frame)
    assert sum(by_peer.values()) == pytest.approx(10 * rate, rel=0.01)
    # Of batches that are larger than the burst the last links find the bucket in debt more often than the first.
    evenness = 0.05 if batch * size <= 20480 else 0.5
    assert [by_peer[peer.mac] for peer in net.peers] == pytest.approx([10 * rate / peers] * peers, rel=evenness)
    assert net.hub.switch.dropped()["downlimit"] > 0
    net.mesh.run(SECOND)
    net.mesh.check(links=False)


def test_a_flood_on_one_link_drives_out_no_frame_of_a_link_within_its_share() -> None:
    net = star(3, down=(MB, 0, 20480))
    flood, other, quiet = net.peers
    load(net.mesh, 20 * MB, lambda: [flood.send(net.hub, FRAME) for _ in range(20)], 20 * FRAME)
    load(net.mesh, 300_000, lambda: other.send(net.hub, FRAME))
    load(net.mesh, 10_000, lambda: quiet.send(net.hub, FRAME))
    net.mesh.run(SECOND)
    net.mesh.received()
    net.mesh.run(10 * SECOND)
    got = Counter(int.from_bytes(frame[6:12], "big") for frame in net.mesh.received()[net.hub])
    assert (got[other.mac], got[quiet.mac]) == pytest.approx((3000, 100), abs=1)
    assert got[flood.mac] * FRAME == pytest.approx(6_900_000, rel=0.02)


def test_each_link_has_its_own_limit_for_receiving() -> None:
    net = star(2, down=(0, 100_000, 20480))
    for peer in net.peers:
        load(net.mesh, MB, lambda peer=peer: peer.send(net.hub, FRAME))
    net.mesh.run(SECOND)
    net.mesh.received()
    net.mesh.run(10 * SECOND)
    assert sum(map(len, net.mesh.received()[net.hub])) == pytest.approx(2 * MB, rel=0.005)


@pytest.mark.parametrize(("frames", "dropped"), [(19, 0), (20, 0), (21, 0), (22, 1), (50, 29)])
def test_what_comes_at_once_passes_up_to_the_burst_and_one_frame(frames: int, dropped: int) -> None:
    """20,480 bytes and a 21st frame, for the bucket is still open then."""
    net = star(1, down=(1000, 0, 20480))
    for _ in range(frames):
        net.peers[0].send(net.hub, 1000)
    net.mesh.run(2 * MS)
    assert len(net.mesh.received()[net.hub]) == frames - dropped
    assert net.hub.switch.dropped()["downlimit"] == dropped
    net.mesh.check()


def test_a_frame_over_the_download_limit_is_not_relayed_and_its_broadcast_may_come_another_way() -> None:
    mesh = Mesh(cut="whole")
    a, b, c = mesh.node(), mesh.node(), mesh.node(down=(0, 1000, 1))
    for ends in ((a, b), (b, c), (a, c)):
        mesh.link(*ends)
    settle(mesh)
    mesh.run(10 * SECOND)
    mesh.received()
    for _ in range(2):  # the second from a finds the bucket of its link in debt, but so does that over b
        a.send(0xFFFFFFFFFFFF, 1000)
    mesh.run(SECOND)
    assert len(mesh.received()[c]) == 1
    assert c.switch.dropped()["downlimit"] == 2
    mesh.check()


def test_protocol_packets_are_not_charged_for_receiving() -> None:
    net = star(1, down=(1, 1, 1), keepalive=10 * MS)
    net.mesh.run(10 * SECOND)
    net.peers[0].send(net.hub, 1000)
    net.mesh.run(MS)
    assert len(net.mesh.received()[net.hub]) == 1

# SPDX-License-Identifier: GPL-3.0-or-later
"""More than a node can hold or send: what is lost is counted, and afterwards all tables are right again."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import pytest

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import bare_packet, broadcast_packet, frame_packet, read_packets, route_packet
from tests.sim.mesh import EVERYBODY, HEARTBEAT, MS, SECOND, End, Mesh, Node, frame
from tests.sim.test_forwarding import full, line, settle

MAC = 0x02CC00000000


def resume(end: End) -> None:
    end.node.switch.pause(end, False)
    end.flush()


def flap(mesh: Mesh, node: Node, rounds: int) -> None:
    """Another MAC behind the node for each heartbeat, so that there is a diff each time."""
    for number in range(rounds):
        node.switch.set_tap(node.tap, MAC + number)
        mesh.run(HEARTBEAT)


def offered(end: End) -> set[tuple[int, int, int]]:
    """What the peer of this end believes that it offers; of its own MAC it takes no news."""
    other = end.other.switch
    return {route for route in other.routes.offered_by(end.peer.index) if route[0] != other.own_mac}


def known(end: End) -> set[tuple[int, int, int]]:
    """What this end's node has to offer to the other: nothing of what that is the way to."""
    routes = end.node.routes().items()
    return {
        (mac, dist, ping)
        for mac, (port, ping, dist) in routes
        if mac != end.other.switch.own_mac and port != end.index
    }


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 20])
def test_a_full_protocol_lane_ends_in_exactly_the_right_table(rounds: int) -> None:
    mesh = Mesh()
    a, b = mesh.node(max_proto=3, report_above=0), mesh.node()
    mesh.link(a, b)
    settle(mesh)
    end = mesh.links[0].end_at(a)
    a.switch.pause(end, True)
    flap(mesh, a, rounds)
    assert end.queue.waiting_proto == min(rounds, 3)
    assert (end.protocol_refused > 0) == (rounds > 3)
    resume(end)
    mesh.run(3 * HEARTBEAT)
    assert offered(end) == known(end) and b.routes().keys() == {b.mac, MAC + rounds - 1}
    mesh.check()


def test_lanes_that_overflow_everywhere_end_in_the_right_tables() -> None:
    for seed in range(5):
        mesh = Mesh(seed)
        nodes = full(mesh, 5)
        for node in nodes:
            node.limits |= {"max_proto": 1, "report_above": 0, "keepalive": 200 * MS}
            node.kill()
            node.start()
        for link in mesh.links:
            link.open()
        mesh.run_until(mesh.is_complete)
        ends = [end for link in mesh.links for end in link.ends]
        for _ in range(50):
            end = mesh.chance.choice(ends)
            end.node.switch.pause(end, mesh.chance.random() < 0.7)
            flap(mesh, mesh.chance.choice(nodes), 2)
        for end in ends:
            resume(end)
        for node in nodes:
            node.switch.set_tap(node.tap, node.mac)
        mesh.run_until(mesh.is_complete)
        mesh.run(10 * SECOND)
        assert mesh.is_complete() and all(offered(end) == known(end) for end in ends)
        assert any(end.protocol_refused for end in ends)
        mesh.check()


@pytest.mark.parametrize("beyond", [-1, 0, 1, 30])
def test_routes_over_the_limit_are_asked_for_when_there_is_room(beyond: int) -> None:
    mesh = Mesh()
    a, b = mesh.node(), mesh.node(max_port_routes=10)
    mesh.link(a, b)
    for number in range(10 + beyond - 1):
        a.switch.routes.set_local(MAC + number, True)
    mesh.run(SECOND)
    end = mesh.links[0].end_at(a)
    assert len(offered(end)) == min(10, 10 + beyond)
    packets = end.packets_in
    taken = {mac for mac, _, _ in offered(end)}
    # First those that were taken, or there would be no room for others.
    macs = sorted((MAC + number for number in range(10 + beyond - 1)), key=lambda mac: mac not in taken)
    for mac in macs[:max(beyond, 0)]:
        a.switch.routes.set_local(mac, False)
    mesh.run(2 * SECOND)
    assert offered(end) == known(end) and len(offered(end)) == 10 + min(beyond, 0)
    assert (end.packets_in > packets) == (beyond > 0), "a full set was asked for, or not"
    mesh.check()


def test_a_peer_that_flaps_at_its_limit_is_asked_once_a_second() -> None:
    node = Station(1, routes=1)
    asked = []
    for _ in range(200):
        node.hear(0, route_packet(1, [(MAC, 0, 1), (MAC + 1, 0, 2)]))
        node.hear(0, route_packet(1, []))
        node.ports[0].written.clear()
        node.beat(HEARTBEAT)
        asked += [node.now] * ((7, 0) in read_packets(b"".join(node.ports[0].written))[0])
    assert len(asked) == 10 and {later - now for now, later in pairwise(asked)} == {SECOND}


def test_a_route_request_that_finds_the_lane_full_is_sent_later() -> None:
    node = Station(1, routes=1, max_proto=1)
    port = node.ports[0]
    node.switch.pause(port, True)
    node.hear(0, route_packet(1, [(MAC, 0, 1), (MAC + 1, 0, 2)]))
    node.hear(0, bare_packet(5, 9))  # its reply fills the lane
    node.hear(0, route_packet(1, []))
    node.beat()
    node.switch.pause(port, False)
    port.flush()
    port.written.clear()
    node.beat()
    node.beat()
    assert (7, 0) in read_packets(b"".join(port.written))[0]


@pytest.mark.parametrize("was_known", [False, True])
def test_a_peer_that_is_greeted_between_two_beats_is_never_left_wrong(was_known: bool) -> None:
    node = Station(2)
    routes = [(MAC, 0, 1000)] if was_known else []
    node.hear(0, route_packet(1, routes))
    node.beat()
    node.hear(0, route_packet(1, [(MAC, 0, 90_000)]))
    late = node.attach()
    node.hear(0, route_packet(1, routes))
    node.beat()
    node.beat()
    mirror: dict[int, int] = {}
    for packet in read_packets(b"".join(late.written))[0]:
        if packet[0] in (1, 2):
            mirror = ({} if packet[0] == 1 else mirror) | {mac: ping for mac, _, ping in packet[1]}
    assert {mac: ping for mac, ping in mirror.items() if ping} == {mac: p for mac, _, p, _ in node.switch.routes.best()}


def test_a_port_that_is_closed_when_it_comes_up_changes_no_table() -> None:
    node = Station(1)
    closing = node.attach(closes_when_up=True)
    node.switch.receive(closing, route_packet(1, [(MAC, 0, 1)]), node.now)
    assert closing.index == 0 and node.switch.routes.port_to(MAC) is None


def test_frames_over_the_queue_limit_are_dropped_and_counted() -> None:
    for limit in (1, 2, 256):
        mesh = Mesh()
        a, b = mesh.node(max_data=limit), mesh.node()
        mesh.link(a, b)
        settle(mesh)
        end = mesh.links[0].end_at(a)
        a.switch.pause(end, True)
        sent = [a.send(b) for _ in range(limit + 1)]
        assert end.queue.waiting_data == limit
        assert a.switch.dropped()["queue_full"] == end.frames_dropped == 1
        resume(end)
        mesh.run(SECOND)
        assert mesh.received()[b] == sent[:limit], "the newest is refused"
        mesh.check()


@pytest.mark.parametrize(("kept", "longest_loses"), [(10, 0), (9, 1), (8, 2)])
def test_over_the_limit_of_all_queues_the_longest_loses_its_oldest_frames(kept: int, longest_loses: int) -> None:
    """Seven large frames, each a chunk of its own, wait for b, then three for c; `kept` of them have room."""
    size = 40_000
    mesh = Mesh()
    a = mesh.node(max_waiting=kept * (size + 4), max_frame=65535)
    b, c = mesh.node(max_frame=65535), mesh.node(max_frame=65535)
    to_b, to_c = (mesh.link(a, node).end_at(a) for node in (b, c))
    settle(mesh)
    for end in (to_b, to_c):
        a.switch.pause(end, True)
    sent_b = [a.send(b, size) for _ in range(7)]
    sent_c = [a.send(c, size) for _ in range(3)]
    assert a.switch.waiting_total == kept * (size + 4)
    assert (to_b.frames_dropped, to_c.frames_dropped) == (longest_loses, 0)
    assert a.switch.dropped()["queue_full"] == longest_loses
    for end in (to_b, to_c):
        resume(end)
    mesh.run(SECOND)
    assert mesh.received() == {a: [], b: sent_b[longest_loses:], c: sent_c}
    assert a.switch.waiting_total == 0
    mesh.check()


def test_the_longest_queue_itself_loses_the_newest() -> None:
    mesh = Mesh()
    a, b = mesh.node(max_waiting=2 * 64), mesh.node()
    end = mesh.link(a, b).end_at(a)
    settle(mesh)
    a.switch.pause(end, True)
    sent = [a.send(b) for _ in range(3)]
    assert end.frames_dropped == a.switch.dropped()["queue_full"] == 1
    resume(end)
    mesh.run(SECOND)
    assert mesh.received()[b] == sent[:2]
    mesh.check()


def test_what_waits_for_a_link_that_closes_counts_no_more() -> None:
    mesh = Mesh()
    a, b = mesh.node(), mesh.node()
    link = mesh.link(a, b)
    settle(mesh)
    a.switch.pause(link.end_at(a), True)
    a.send(b)
    assert a.switch.waiting_total == 64
    link.close()
    assert a.switch.waiting_total == 0
    mesh.check()


def test_a_queue_that_is_not_paused_writes_before_it_drops() -> None:
    mesh = Mesh()
    a, b = mesh.node(max_data=2), mesh.node()
    c = mesh.node()
    mesh.link(a, b), mesh.link(a, c)
    settle(mesh)
    to_a = b"".join(frame_packet(frame(c.mac, b.mac, bytes([number]))) for number in range(50))
    a.switch.receive(mesh.links[0].end_at(a), to_a, mesh.now)
    mesh.run(SECOND)
    assert len(mesh.received()[c]) == 50 and sum(a.switch.dropped().values()) == 0


def test_the_interface_is_not_read_while_every_link_is_paused() -> None:
    mesh = Mesh()
    a, b, c = line(mesh, 3)
    settle(mesh)
    ends = [link.end_at(b) for link in mesh.links]
    wanted = [b.tap.is_wanted]
    for end, paused in ((ends[0], True), (ends[1], True), (ends[0], False), (ends[0], True)):
        b.switch.pause(end, paused)
        wanted.append(b.tap.is_wanted)
    assert wanted == [True, True, False, True, False]
    mesh.links[0].close()
    assert not b.tap.is_wanted
    mesh.links[1].close()
    assert b.tap.is_wanted and a.tap.is_wanted and c.tap.is_wanted


@pytest.mark.parametrize("in_flight", [7, 8, 9, 16, 17, 24])
def test_broadcasts_circle_only_when_more_are_under_way_than_are_remembered(in_flight: int) -> None:
    mesh = Mesh()
    nodes = [mesh.node(ids=8) for _ in range(3)]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        mesh.link(nodes[a], nodes[b], 10 * MS)
    settle(mesh)
    sent = [nodes[0].send(EVERYBODY) for _ in range(in_flight)]
    mesh.run(25 * MS)  # out, and once between the other two
    got = mesh.received()
    copies = len(got[nodes[1]]) - in_flight
    assert set(got[nodes[1]]) == set(sent)
    assert (copies == 0) == (in_flight <= 8)
    came_back = sum(node.switch.ids.came_back for node in nodes)
    assert (came_back > 0) == (8 < in_flight <= 16), "only what comes back just after it was forgotten is known as such"
    mesh.check()


class Mouth(Port):
    """A port that keeps what it writes."""

    def __init__(self, closes_when_up: bool = False) -> None:
        self.written: list[bytes] = []
        self.station: Station | None = None
        self.closes_when_up = closes_when_up

    def flush(self) -> None:
        while not self.paused and (data := self.take()) is not None:
            self.written.append(data)

    def came_up(self) -> None:
        if self.closes_when_up and self.station:
            self.station.switch.detach(self)


class Station:
    """One switch whose ports are all up and measured, 100 us each."""

    def __init__(self, links: int, routes: int = 256, max_proto: int = 64) -> None:
        chance = RandomSource(1)
        self.switch = Switch(RouteTable(1100, routes, chance), IdCache(1024, chance), chance)
        self.now, self.max_proto = SECOND, max_proto
        self.ports = [self.attach() for _ in range(links)]
        self.beat()

    def attach(self, closes_when_up: bool = False) -> Mouth:
        port = Mouth(closes_when_up)
        port.station = self
        self.switch.attach(port, SendQueue(self.max_proto), self.now)
        if not closes_when_up:
            echoes = [special for kind, special in read_packets(b"".join(port.written))[0] if kind == 5]
            self.now += 100
            self.switch.receive(port, bare_packet(6, echoes[0]), self.now)
        return port

    def hear(self, port: int, data: bytes) -> None:
        assert self.switch.receive(self.ports[port], data, self.now) == len(data)

    def beat(self, after: int = 2 * SECOND) -> None:
        self.now += after
        self.switch.beat(self.now)


def test_a_thousand_links_all_carry_a_broadcast_and_the_best_carries_unicast() -> None:
    station = Station(1000)
    for number in reversed(range(1000)):
        station.hear(number, route_packet(1, [(MAC, 0, 2000 - number), (MAC + 1 + number, 0, 1)]))
    routes = station.switch.routes
    assert (routes.offer_count, routes.destination_count) == (2000, 1001)
    for number in range(999, 990, -1):  # the best goes, the next takes over
        assert routes.port_to(MAC) == station.ports[number].index
        station.switch.detach(station.ports[number])
    for port in station.ports:
        port.written.clear()
    station.hear(5, broadcast_packet(1, frame(EVERYBODY, MAC, b"")))
    assert [len(port.written) for port in station.ports] == [*[1] * 5, 0, *[1] * 985, *[0] * 9]
    assert station.switch.copies == 989
    station.hear(7, frame_packet(frame(MAC + 6, MAC, b"")))
    assert [len(port.written) for port in station.ports[4:8]] == [1, 1, 1, 1]


def test_a_frame_costs_about_the_same_with_ten_links_and_with_a_thousand() -> None:
    packets = frame_packet(frame(MAC + 1, MAC, bytes(50))) * 200
    stations = Station(10), Station(1000)
    for station in stations:
        for number in range(len(station.ports)):
            station.hear(number, route_packet(1, [(MAC + number, 0, 1), (MAC + 5000, 0, 1 + number)]))
    taken: tuple[list[int], list[int]] = [], []
    for _ in range(101):
        for station, times in zip(stations, taken, strict=True):
            station.ports[1].written.clear()
            start = time.perf_counter_ns()
            station.hear(0, packets)
            times.append(time.perf_counter_ns() - start)
            assert len(b"".join(station.ports[1].written)) == len(packets)
    assert statistics.median(taken[1]) <= 3 * statistics.median(taken[0])

# SPDX-License-Identifier: GPL-3.0-or-later
"""A peer with a good certificate that lies or makes trouble: limits hold, the others go on, and all is counted.

    a -- b -- c, and the liar on b
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cloudvpn._fast.wire import (
    bare_packet,
    broadcast_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
    route_packet,
    seq_requests_packet,
)
from cloudvpn.errors import PeerError
from tests.sim.mesh import EVERYBODY, HEARTBEAT, MS, SECOND, Mesh, Node, frame
from tests.sim.test_bad_input import Sink

ALL = 65535  # entries that one packet can have
PER_BEAT = 16384  # entries that a link may bring between two heartbeats
JUMP = 1 << 16  # of a sequence number that is believed
INFINITE = 0xFFFFFFFF
LIAR, LIAR_MAC, NOBODY = 7, 0x02BB00000001, 0x02CC00000001
PRESENT, FIXED, FOREIGN = 1, 2, 4
both_versions = pytest.mark.parametrize("version", [1, 2])


class Liar(Sink):
    """The port of a peer that the test plays; what the node has not read yet waits."""

    def __init__(self, mesh: Mesh, node: Node) -> None:
        super().__init__()
        self.mesh, self.node, self.waiting = mesh, node, b""

    def say(self, *packets: bytes) -> None:
        self.waiting += b"".join(packets)
        self.read()

    def read(self) -> None:
        if self.index:
            used = self.node.switch.receive(self, self.waiting, self.mesh.now)
            self.waiting = self.waiting[used:]

    def set_reading(self, wanted: bool) -> None:
        if wanted:
            self.mesh.after(0, self.read)

    def heard(self) -> list[Any]:
        packets, used = read_packets(self.written, self.version)
        self.written = self.written[used:]
        return packets


class Net:
    def __init__(self, version: int, delay: int = MS, **limits: Any) -> None:
        self.version, self.delay = version, delay
        self.mesh = Mesh(cut="whole")
        limits = {"version": version, "keepalive": 100 * MS} | limits
        self.a, self.b, self.c = nodes = [self.mesh.node(**{"max_link_claims": 65536} | limits) for _ in range(3)]
        self.links = [self.mesh.link(self.a, self.b, delay), self.mesh.link(self.b, self.c, delay)]
        self.switch = self.b.switch
        self.liar = Liar(self.mesh, self.b)
        self.switch.attach(self.liar, self.b.queue(), self.mesh.now, version)
        echo_id = next(packet[1] for packet in self.liar.heard() if packet[0] == 5)
        self.mesh.run(MS)
        self.liar.say(hello_packet(LIAR) * (version == 2), bare_packet(6, echo_id))
        self.mesh.run_until(lambda: all(len(node.routes()) == 3 for node in nodes))
        self.assert_others_go_on()

    def announce(self, *macs: int) -> None:
        """That these are at the liar, which is true."""
        if self.version == 1:
            self.liar.say(route_packet(1, [(mac, 0, 1) for mac in macs]))
        else:
            self.liar.say(node_routes_packet([(LIAR, 1, 0, 0, 0)]))
            self.liar.say(hosts_packet([(mac, PRESENT, 0, LIAR, 1, 0) for mac in macs]))

    def assert_others_go_on(self) -> None:
        """Frames pass each way as fast as the links are, pings are what the links take, all is counted."""
        mesh = self.mesh
        mesh.received()
        sent = [self.a.send(self.c), self.a.send(EVERYBODY)], [self.c.send(self.a), self.c.send(EVERYBODY)]
        mesh.run(2 * self.delay + MS)
        got = mesh.received()
        assert set(sent[0]) <= set(got[self.c]) and set(sent[1]) <= set(got[self.a])
        for link in self.links:
            for end in link.ends:
                assert end.echo.ping == 2 * self.delay and mesh.now - end.echo.last_reply < 200 * MS
        assert self.switch.way_to(self.b.mac) == 0
        mesh.check(links=False)

    def entries_read(self, before: int, size: int) -> int:
        return (self.liar.packets_in - before) * size


# Announcements


@pytest.mark.parametrize("kind", ["routes", "nodes", "claims"])
def test_of_65535_announcements_a_table_takes_its_limit_and_counts_the_others(kind: str) -> None:
    net = Net(1 if kind == "routes" else 2)
    switch, liar = net.switch, net.liar
    net.announce()
    if kind == "routes":
        liar.say(route_packet(1, [(NOBODY + number, 0, 10) for number in range(ALL)]))
        counts = switch.routes.count_of(liar.index), switch.routes.refused_full
        wanted = 256, ALL - 256
    elif kind == "nodes":
        liar.say(node_routes_packet([(1000 + number, 1, 0, 0, 0) for number in range(ALL)]))
        counts = switch.nodes.count_of(liar.index), switch.nodes.refused_full
        wanted = 1024 - 2, ALL - (1024 - 3)  # a and c are known, the liar is
    else:
        liar.say(hosts_packet([(NOBODY + number, PRESENT, 0, LIAR, 1, 0) for number in range(ALL)]))
        net.mesh.run(SECOND)
        liar.say(hosts_packet([(NOBODY + ALL + number, PRESENT, 0, LIAR, 1, 0) for number in range(ALL)]))
        counts = switch.hosts.count_of(liar.index), switch.hosts.refused_link
        wanted = 1 << 16, 2 * ALL - (1 << 16)
    assert counts == wanted
    assert switch.links_slowed and switch.slowed_port == liar.index
    net.assert_others_go_on()
    net.mesh.run(SECOND)
    net.assert_others_go_on()


@both_versions
def test_who_flaps_as_fast_as_it_can_is_read_as_fast_as_a_node_can_bear(version: int) -> None:
    size, beats = 5000, 40
    net = Net(version, max_port_routes=size)
    net.announce()
    states = []
    for ping in (10, 99_999):
        if version == 1:
            states.append(route_packet(1, [(NOBODY + number, 0, ping) for number in range(size)]))
        else:
            states.append(hosts_packet([(NOBODY + number, PRESENT, 0, LIAR, ping, 0) for number in range(size)]))
    before = net.liar.packets_in
    net.liar.say(b"".join(states) * 200)
    for beat in range(1, beats):
        assert net.liar.slowed and net.entries_read(before, size) <= beat * (PER_BEAT + size), "the fault"
        net.mesh.run(HEARTBEAT - 3 * MS)
        net.assert_others_go_on()
    assert net.entries_read(before, size) > beats * PER_BEAT / 2, "it is still read"
    assert net.switch.links_slowed >= beats / 2


@pytest.mark.parametrize("metrics", [(5, 99_999), (5, INFINITE)])
def test_few_entries_that_make_many_claims_be_looked_at_anew_count_as_many(metrics: tuple[int, int]) -> None:
    """Was 2.5 ms for each 28 bytes."""
    net = Net(2)
    net.announce()
    net.liar.say(node_routes_packet([(1000, 1, 0, 5, 1)]))
    net.liar.say(hosts_packet([(NOBODY + number, PRESENT | FOREIGN, 1, 1000, 1, 9) for number in range(ALL)]))
    net.mesh.run(SECOND)
    assert not net.liar.slowed and net.switch.hosts.count_of(net.liar.index) == ALL
    before = net.liar.packets_in
    net.liar.say(*(node_routes_packet([(1000, 1, 0, metric, 1)]) for _ in range(100) for metric in metrics))
    for beat in range(1, 20):
        assert 1 <= net.liar.packets_in - before <= 9 * beat and net.liar.slowed
        net.mesh.run(HEARTBEAT - 3 * MS)
        net.assert_others_go_on()


def test_one_host_that_a_thousand_nodes_claim_in_turn_counts_as_many() -> None:
    net = Net(2)
    net.announce()
    net.liar.say(node_routes_packet([(1000 + number, 1, 0, 5, 1) for number in range(1000)]))
    net.liar.say(hosts_packet([(NOBODY, PRESENT, 0, 1000 + number, 1, 0) for number in range(1000)]))
    net.mesh.run(SECOND)
    before = net.liar.packets_in
    net.liar.say(*(hosts_packet([(NOBODY, number % 2, 0, 1000, 2 + number, 0)]) for number in range(10_000)))
    assert net.liar.slowed and net.liar.packets_in - before < 2000
    net.mesh.run(SECOND)
    net.assert_others_go_on()


@both_versions
def test_pings_and_metrics_neither_wrap_nor_undercut(version: int) -> None:
    net = Net(version)
    pings = {NOBODY: 0, NOBODY + 1: 1, NOBODY + 2: INFINITE - 1, NOBODY + 3: INFINITE}
    if version == 1:
        net.liar.say(route_packet(1, [(mac, 0, ping) for mac, ping in pings.items()]))
        known = {mac: ping for mac, _, ping, _ in net.switch.routes.best() if mac >= NOBODY}
        assert known == {NOBODY + 1: 1 + net.liar.echo.smoothed + 2}
    else:
        net.liar.say(node_routes_packet([(mac, 1, 0, ping, 0) for mac, ping in pings.items()]))
        known = {node: metric for node, _, metric, _, _ in net.switch.nodes.best() if node in pings}
        assert known == {mac: pings[mac] + net.liar.echo.smoothed + 2 for mac in (NOBODY, NOBODY + 1)}
    net.assert_others_go_on()


def test_entries_that_no_node_can_mean_are_refused_and_counted() -> None:
    net = Net(2)
    nodes, hosts = net.switch.nodes, net.switch.hosts
    net.announce()
    bad = [(1000, 1, 6, 5, 1), (1001, 1, INFINITE, 0, 1), (1002, 1, 0, 5, 65), (1003, 1, 0, 5, 255)]
    net.liar.say(node_routes_packet(bad))
    assert nodes.refused == len(bad) and nodes.count_of(net.liar.index) == 1
    for number, jump in enumerate((JUMP + 1, 1 << 30, (1 << 31) - 1), 1):  # of one that is known, and then is not
        net.liar.say(node_routes_packet([(1004, 1, 0, 0, 0)]), node_routes_packet([(1004, 1 + jump, 0, 0, 0)]))
        assert nodes.refused == len(bad) + number and nodes.port_to(1004) is None
    bad_claims = [
        (0, PRESENT, 0, LIAR, 1, 0), (EVERYBODY, PRESENT, 0, LIAR, 1, 0), (0x01005E000001, PRESENT, 0, LIAR, 1, 0),
        (NOBODY, PRESENT, 0, 0, 1, 0), (NOBODY, PRESENT | FIXED | FOREIGN, 0, LIAR, 1, 0),
    ]  # fmt: skip
    net.liar.say(hosts_packet(bad_claims))
    assert hosts.refused_bad == len(bad_claims) and hosts.count_of(net.liar.index) == 0
    net.assert_others_go_on()


def test_who_speaks_of_this_node_is_overruled_and_named() -> None:
    net = Net(2)
    nodes, me = net.switch.nodes, net.switch.node_id
    for jump in (1, 1000, JUMP):
        told = nodes.best()[0][4] + jump
        heard = nodes.own_heard
        net.liar.say(node_routes_packet([(me, told, 0, 0, 0)]))
        net.mesh.run(SECOND)
        assert nodes.own_heard == heard + 1 and nodes.own_heard_port == net.liar.index
        assert nodes.best()[0][1:4] == (0, 0, 0) and nodes.best()[0][4] == told + 1
    told = nodes.best()[0][4]
    net.liar.say(node_routes_packet([(me, told + JUMP + 1, 0, 0, 0)]))
    net.mesh.run(SECOND)
    assert nodes.refused == 1 and nodes.best()[0][4] == told
    net.assert_others_go_on()


def test_who_says_that_all_are_behind_it_draws_their_frames_until_its_link_goes() -> None:
    net = Net(2, delay=20 * MS)
    before = {node.switch.node_id: net.switch.nodes.port_to(node.switch.node_id) for node in (net.a, net.c)}
    seqs = {node: seq for node, _, _, _, seq in net.switch.nodes.best()}
    net.liar.say(node_routes_packet([(node, seqs[node] + 1000, 0, 0, 0) for node in before]))
    assert {net.switch.nodes.port_to(node) for node in before} == {net.liar.index}, "the lie was believed"
    net.mesh.run(SECOND)
    assert net.a.switch.nodes.own_heard and net.c.switch.nodes.own_heard
    assert [one.switch.way_to(one.mac) for one in (net.a, net.b, net.c)] == [0, 0, 0]
    net.switch.detach(net.liar, net.mesh.now)
    assert {node: net.switch.nodes.port_to(node) for node in before} == before
    net.mesh.run(SECOND)
    net.assert_others_go_on()


@both_versions
def test_our_own_mac_and_groups_are_never_taken_from_a_peer(version: int) -> None:
    net = Net(version)
    macs = [net.b.mac, EVERYBODY, 0x01005E000001]
    net.announce()
    refused = net.switch.routes.refused_own
    for ping in (1, INFINITE):
        if version == 1:
            net.liar.say(route_packet(2, [(mac, 0, ping) for mac in macs]))
        else:
            net.liar.say(hosts_packet([(mac, PRESENT | FIXED, 0, LIAR, ping, 0) for mac in macs]))
        assert [net.switch.way_to(mac) for mac in macs] == [0, None, None]
    if version == 1:
        assert net.switch.routes.refused_own == refused + 6
    else:
        assert net.switch.hosts.refused_bad == 4 and net.switch.hosts.conflicts
        assert set(net.switch.hosts.conflict_owners) == {LIAR, net.switch.node_id}
    net.assert_others_go_on()


def test_claims_of_this_node_that_others_change_are_made_again_and_the_link_is_named() -> None:
    net = Net(2)
    hosts, me = net.switch.hosts, net.switch.node_id
    seq = next(seq for mac, *_, seq in hosts.best() if mac == net.b.mac)
    net.liar.say(hosts_packet([(net.b.mac, 0, 0, me, seq + 100, 0), (NOBODY, PRESENT, 0, me, 5, 0)]))
    assert (hosts.disputed, hosts.disputed_mac, hosts.disputed_port) == (2, NOBODY, net.liar.index)
    net.mesh.run(SECOND)
    for node in (net.a, net.c):
        assert node.routes().keys() == {one.mac for one in (net.a, net.b, net.c)}
    net.assert_others_go_on()


def test_withdrawals_of_others_hosts_last_until_their_owners_hear_of_them() -> None:
    net = Net(2)
    owner = net.a.switch.node_id
    seq = next(seq for mac, *_, seq in net.switch.hosts.best() if mac == net.a.mac)
    net.liar.say(hosts_packet([(net.a.mac, 0, 0, owner, seq + 100, 0)]))
    assert net.switch.way_to(net.a.mac) is None, "the lie was believed"
    net.mesh.run(SECOND)
    assert net.a.switch.hosts.disputed == 1
    net.assert_others_go_on()


# Requests


@both_versions
def test_who_asks_for_everything_all_the_time_gets_it_once_a_second(version: int) -> None:
    net = Net(version)
    net.mesh.run(2 * SECOND)
    net.liar.heard()
    for _ in range(100):
        net.liar.say(bare_packet(7, 0) * 1000)
        net.mesh.run(HEARTBEAT)
    told = [packet for packet in net.liar.heard() if packet[0] in (1, 12) and len(packet[1]) == 3]
    assert 4 <= len(told) <= 6
    net.assert_others_go_on()


def test_who_asks_for_newer_numbers_all_the_time_makes_ten_a_second() -> None:
    net = Net(2)
    ids = [node.switch.node_id for node in (net.a, net.b, net.c)]
    changes, last = [0, 0, 0], [node.switch.nodes.best()[0][4] for node in (net.a, net.b, net.c)]
    asked = 0
    for _ in range(200):
        asked += 10
        net.liar.say(*(seq_requests_packet([(one, seq + asked, hops) for one, seq in zip(ids, last, strict=True)])
                       for hops in (1, 64, 255)))
        net.liar.say(seq_requests_packet([(number, 9, 64) for number in range(1000, 1100)]))
        net.mesh.run(10 * MS)
        seqs = [node.switch.nodes.best()[0][4] for node in (net.a, net.b, net.c)]
        changes = [count + (new != old) for count, new, old in zip(changes, seqs, last, strict=True)]
        last = seqs
    assert all(10 <= count <= 22 for count in changes), changes
    assert net.switch.nodes.port_to(1000) is None
    net.mesh.run(SECOND)
    net.assert_others_go_on()


# Echoes


@both_versions
def test_an_echo_flood_is_answered_as_far_as_the_lane_goes(version: int) -> None:
    net, flood = Net(version), 100_000
    net.liar.heard()
    net.liar.say(bare_packet(5, 9) * flood)
    answered = net.liar.heard().count((6, 9))
    assert answered >= 64 and answered + net.liar.protocol_refused == flood
    net.assert_others_go_on()


@both_versions
def test_echo_replies_that_nobody_asked_for_are_no_sign_of_life(version: int) -> None:
    timeout = 2 * SECOND
    net = Net(version, timeout=timeout, keepalive=100 * MS)
    last, asked = net.liar.echo.last_reply, set[int]()
    while net.mesh.now < last + timeout - 200 * MS:
        asked |= {packet[1] for packet in net.liar.heard() if packet[0] == 5}
        net.liar.say(*(bare_packet(6, number) for number in range(256) if number not in asked))
        net.mesh.run(100 * MS)
    assert len(asked) > 10 and net.switch.echoes_unasked > 2000 and net.liar.echo.last_reply == last
    net.assert_others_go_on()
    net.mesh.now = last + timeout
    assert net.liar in net.switch.beat(net.mesh.now)
    net.switch.detach(net.liar, net.mesh.now)


# Frames


@both_versions
def test_a_broadcast_id_that_is_said_again_passes_once(version: int) -> None:
    net = Net(version)
    sent = frame(EVERYBODY, LIAR_MAC, b"again")
    duplicates = net.switch.dropped()["duplicate"]
    net.liar.say(broadcast_packet(99, sent) * 1000)
    net.mesh.run(10 * MS)
    got = net.mesh.received()
    assert [got[node].count(sent) for node in (net.a, net.b, net.c)] == [1, 1, 1]
    assert net.switch.dropped()["duplicate"] == duplicates + 999
    net.assert_others_go_on()


@both_versions
def test_guessed_broadcast_ids_keep_no_broadcast_back(version: int) -> None:
    """The next ones after each id that the liar hears; a right guess would have been dropped as a duplicate."""
    net = Net(version)
    net.liar.heard()
    for _ in range(200):
        sent = net.a.send(EVERYBODY)
        net.mesh.run(5 * MS)
        assert sent in net.mesh.received()[net.c]
        heard = [packet[1] for packet in net.liar.heard() if packet[0] == 4]
        assert heard
        guesses = [(heard[-1] + step) & INFINITE for step in range(1, 17)]
        net.liar.say(*(broadcast_packet(guess, frame(EVERYBODY, LIAR_MAC, b"guess")) for guess in guesses))
    assert net.liar.broadcasts_in == 200 * 16
    net.assert_others_go_on()


@both_versions
def test_of_100000_broadcasts_a_second_those_over_the_limit_are_dropped_and_counted(version: int) -> None:
    net, limit, seconds = Net(version), 10_000, 2
    net.switch.set_policy(broadcast_limit=limit)
    batch = 100_000 * HEARTBEAT // SECOND
    for beat in range(seconds * SECOND // HEARTBEAT):
        sent = frame(EVERYBODY, LIAR_MAC, b"storm")
        net.liar.say(*(broadcast_packet(beat * batch + number, sent) for number in range(batch)))
        net.mesh.run(HEARTBEAT - 3 * MS)
        net.assert_others_go_on()
    refused = net.liar.broadcasts_refused
    assert net.liar.broadcasts_in == 100_000 * seconds, "the storm"
    assert net.liar.broadcasts_in - refused <= limit * (seconds + 1)
    assert net.switch.dropped()["broadcast_limit"] == refused


@both_versions
def test_giant_sizes_of_which_nothing_comes_hold_up_nobody(version: int) -> None:
    net = Net(version)
    for kind in (1, 2, 3, 4) if version == 1 else (4, 8, 10, 11, 12):
        before, net.liar.waiting = net.liar.packets_in, b""
        net.liar.say(struct.pack(">BBH", kind, kind == 8, 84 if kind == 8 else ALL), bytes(60_000))
        assert net.liar.packets_in == before and net.liar.waiting
        net.assert_others_go_on()


@both_versions
def test_who_reads_nothing_has_what_its_queue_holds_waiting_and_no_more(version: int) -> None:
    net = Net(version)
    net.announce(LIAR_MAC)
    net.mesh.run(SECOND)
    queue, dropped = net.liar.queue, net.switch.dropped()["queue_full"]
    net.switch.pause(net.liar, True)
    for _ in range(20):
        for _ in range(100):
            net.a.send(LIAR_MAC, 1500)
            net.b.send(EVERYBODY, 1500)
        net.liar.say(bare_packet(7, 0), bare_packet(5, 0) * 100)
        net.mesh.run(HEARTBEAT)
        assert queue.waiting_data <= queue.max_data and queue.waiting_proto <= queue.max_proto
        assert queue.waiting_bytes <= queue.max_data_bytes
        net.mesh.received()
        net.assert_others_go_on()
    lost = net.switch.dropped()["queue_full"] - dropped
    assert lost == net.liar.frames_dropped > 3000, "the fault"
    assert net.liar.protocol_refused > 1000
    net.switch.pause(net.liar, False)
    net.mesh.run(2 * SECOND)
    assert len([packet for packet in net.liar.heard() if packet[0] in (3, 4, 8)]) >= queue.max_data
    net.assert_others_go_on()


def test_what_cannot_be_in_a_type_8_is_dropped_for_its_reason_or_ignored() -> None:
    net = Net(2)
    net.announce(LIAR_MAC)
    me, others = net.switch.node_id, net.a.switch.node_id
    to_us, to_a = frame(net.b.mac, LIAR_MAC, bytes(46)), frame(net.a.mac, LIAR_MAC, bytes(46))
    unknown = frame(NOBODY, LIAR_MAC, bytes(46))

    def drops(*packets: bytes) -> dict[str, int]:
        before = net.switch.dropped()
        net.liar.say(*packets)
        return {name: count - before[name] for name, count in net.switch.dropped().items() if count != before[name]}

    assert drops(*(bulk_packet(to_us, egress=me, flags=flags) for flags in range(256))) == {}
    assert net.mesh.received()[net.b] == [to_us] * 256
    assert drops(*(bulk_packet(unknown, egress=me, flags=flags) for flags in range(256))) == {"egress_missed": 256}
    assert drops(bulk_packet(to_a, egress=me)) == {}, "sent on to where it is"
    assert drops(bulk_packet(to_a, egress=me, flags=1)) == {"egress_missed": 1}
    assert drops(*(bulk_packet(unknown, egress=number) for number in range(1000, 2000))) == {"no_way": 1000}
    assert drops(*(bulk_packet(to_a, egress=others, hops=hops) for hops in (0, 1))) == {"hops": 2}
    assert drops(bulk_packet(frame(LIAR_MAC, NOBODY, bytes(46)), egress=LIAR)) == {"backward": 1}
    bad = [(flags, kind, 0, 0, 0, 0) for flags in (0, 2, 255) for kind in (1, 2, 4, 5, 128, 255)]
    assert drops(*(bulk_packet(to_us, header) for header in bad)) == {"bad_offload": len(bad)}
    assert drops(bulk_packet(b""), bulk_packet(bytes(13))) == {"short": 2}
    net.mesh.run(10 * MS)
    assert net.mesh.received()[net.a] == [to_a]
    net.assert_others_go_on()


@both_versions
def test_a_packet_that_ends_early_takes_the_next_ones_for_its_body_and_then_closes_that_link_alone(
    version: int
) -> None:
    kinds = (1, 2, 3, 4) if version == 1 else (4, 8, 10, 11, 12)
    for kind in kinds:
        net = Net(version)
        cut = struct.pack(">BBH", kind, 0, 100) + bytes(30)
        with pytest.raises(PeerError, match="type"):
            net.liar.say(cut, *(bare_packet(5, 0xEE) + bytes([0xEE] * 50) for _ in range(100)))
        net.switch.detach(net.liar, net.mesh.now)
        net.assert_others_go_on()


def test_frames_from_macs_of_others_change_no_way() -> None:
    for version in (1, 2):
        net = Net(version)
        before = [node.routes() for node in (net.a, net.b, net.c)]
        for mac in (net.a.mac, net.b.mac, net.c.mac, EVERYBODY, 0):
            sent = frame(net.c.mac, mac, bytes(46))
            net.liar.say(frame_packet(sent) if version == 1 else bulk_packet(sent))
            net.liar.say(broadcast_packet(mac & INFINITE, frame(EVERYBODY, mac, bytes(46))))
        net.mesh.run(10 * MS)
        assert len(net.mesh.received()[net.c]) == 10, "they came"
        after = [node.routes() for node in (net.a, net.b, net.c)]
        assert [{mac: way[0] for mac, way in one.items()} for one in after] == [
            {mac: way[0] for mac, way in one.items()} for one in before]
        net.assert_others_go_on()

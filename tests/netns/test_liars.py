# SPDX-License-Identifier: GPL-3.0-or-later
"""Real daemons, and a peer with a good certificate that lies or makes trouble: docs/reliability.md.

    a: daemon, tap0 --w1-- b: daemon under attack, tap0, :4000 --w2-- l: the liar, in this process

While each attack goes on a pings b; no answer may be lost or late. In the end the memory of b is what its limits are.
"""

from __future__ import annotations

import itertools
import random
import re
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudvpn._fast.wire import (
    bare_packet,
    broadcast_packet,
    bulk_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
    route_packet,
    seq_requests_packet,
)
from tests.golden.streams import Packet
from tests.golden.v1peer import V1Peer, dial, tls_context
from tests.netns.keys import identity
from tests.netns.lab import Lab
from tests.netns.test_queues import count, fresh
from tests.netns.test_refusals import CUT, read_rss

PORT = 4000
ALL = 65535
ME = 7                              # the liar's id
NOBODY = 0x02CC00000000             # MACs from here on are what liars claim
UNKNOWN = 0x02DD00000000            # nobody ever claims this one
PRESENT, FIXED, FOREIGN = 1, 2, 4
EVERYBODY = 0xFFFFFFFFFFFF
PINGS, LATE_MS = 50, 1000           # beside this process, which talks as fast as it can, on two cores
NAMES = {5: "echo_request", 6: "echo_reply"}
# docs/architecture.md: 65,536 claims with their hosts 12 MB, buckets of both 17 MB, input 4 MiB, output 3 MB; what the
# neighbours are told of them, and what allocators keep. What liars claimed is kept for 180 s after they have gone, of
# all links together four times as much.
LINK_MAX, TOTAL_MAX = 60_000_000, 90_000_000
_numbers = itertools.count()


class V2Unpacker:
    """What V1Peer wants of one."""

    def __init__(self) -> None:
        self.headers: list[tuple[int, int, int]] = []
        self._rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        packets, used = read_packets(self._rest + data, 2)
        self._rest = (self._rest + data)[used:]
        return [(NAMES.get(packet[0], str(packet[0])), *packet[1:]) for packet in packets]


class Net:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.wire = lab.wire("b", "l")
        lines = ["iface yes", "iface_dev tap0", "conn_keepalive 200ms"]
        self.b = lab.node("b", f"listen 0.0.0.0 {PORT}", "iface_address 10.9.0.2/24", *lines)
        lab.until(lambda: lab.host("b").is_listening(PORT), 15, "the daemon listens")
        target = lab.wire("a", "b").address("b")
        lab.node("a", f"connect {target} {PORT}", "iface_address 10.9.0.1/24", *lines)
        lab.wait_for_ping("a", "10.9.0.2")
        self.id = int(fresh(lab, self.b).split("\nnode: ")[1].split()[0], 16)
        self.mac = int.from_bytes(lab.host("b").mac("tap0"))
        self.before = read_rss(self.b)

    def link(self, version: int, answer_echo: bool = True, node: int = ME) -> V1Peer:
        """A peer whose first packets were taken. As a node that lied before it brings its claims back to life."""
        self.name = f"liar{next(_numbers)}"
        context = tls_context(False, *identity(self.name), version=ssl.TLSVersion.TLSv1_3)
        if version == 2:
            context.set_alpn_protocols(["cloudvpn/2", "cloudvpn/1"])
        with self.lab.host("l").inside():
            peer = dial((self.wire.address("b"), PORT), context, 5, answer_echo)
        if version == 2:
            peer._unpacker = V2Unpacker()   # type: ignore[assignment]
            peer.send_raw(hello_packet(node) + node_routes_packet([(node, 1, 0, 0, 0)]))
        peer.fence()
        return peer

    def status(self, name: str) -> int:
        return count(name, fresh(self.lab, self.b))

    def said(self, pattern: str) -> None:
        """The log names a liar; within a minute the same is said only once, of any of them."""
        self.b.wait_log(rf"warning .*liar\d+ at .*{pattern}|warning .*{pattern}.*liar\d+ at")

    def while_pinging(self, attack: Callable[[], object]) -> int:
        """Runs it, how often, while a pings b: no answer is lost or late, and b has accounted for all."""
        done = 0
        with self.lab.host("a").pings("10.9.0.2", 0.02, PINGS) as pings:
            while pings.is_alive():
                attack()
                done += 1
        assert pings.result.received == PINGS and pings.result.max_ms < LATE_MS, pings.result
        text = fresh(self.lab, self.b)
        frames = {name: count(name, text) for name in
                  ("from interface", "to interface", "from links", "to links", "copies")}
        lost = sum(map(int, re.findall(r"\d+", text.split("\ndropped: ")[1].split("\n")[0])))
        assert (frames["from interface"] + frames["from links"] + frames["copies"]
                == frames["to interface"] + frames["to links"] + lost), text
        return done

    def memory(self) -> int:
        return read_rss(self.b) - self.before


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        made = Net(lab)
        yield made
        assert made.b.exit_code is None and "Traceback" not in made.b.log_text(), made.b.report()
        assert made.b.log.stat().st_size < 20_000


def frame(to: int, source: int = NOBODY) -> bytes:
    return to.to_bytes(6, "big") + source.to_bytes(6, "big") + b"\x88\xb5" + bytes(46)


def claims(first: int, number: int, seq: int = 1, owner: int = ME, flags: int = PRESENT, ping: int = 0) -> bytes:
    return hosts_packet([(NOBODY + first + one, flags, 0, owner, seq, ping) for one in range(number)])


def test_65535_routes_of_version_1(net: Net) -> None:
    before = net.status("far 0, full")
    with net.link(1) as peer:
        routes = route_packet(1, [(NOBODY + number, 0, 10) for number in range(ALL)])
        done = net.while_pinging(lambda: (peer.send_raw(routes, 30), peer.fence(30)))
        assert net.status("far 0, full") - before >= done * (ALL - 512), "the lie"
        assert len(net.b.status().routes) <= 256 + 3
    net.said("max_remote_routes 256")
    net.said("brought more routes at once")
    assert net.memory() < LINK_MAX


def test_65535_nodes(net: Net) -> None:
    with net.link(2) as peer:
        nodes = node_routes_packet([(1000 + number, 1, 0, 0, 0) for number in range(ALL)])
        done = net.while_pinging(lambda: (peer.send_raw(nodes, 30), peer.fence(30)))
        assert net.status("refused_full") >= done * (ALL - 1024), "the lie"
        assert len(net.b.status().nodes) <= 1024 + 1
    net.said("max_nodes 1024")
    assert net.memory() < LINK_MAX


def test_more_claims_than_a_link_may_bring_that_change_as_fast_as_they_can(net: Net) -> None:
    seqs = itertools.count(1)
    with net.link(2) as peer:
        def flap() -> None:
            seq = next(seqs)
            for first in range(0, 2 * ALL, 5000):
                peer.send_raw(claims(first, 5000, seq), 30)
            peer.fence(30)

        net.while_pinging(flap)
        assert net.status("refused_link") >= 2 * ALL - (1 << 16), "the lie"
        assert net.status("links slowed") > 5
    net.said("max_link_claims 65536")
    assert net.memory() < LINK_MAX


def test_a_node_with_many_foreign_hosts_that_comes_and_goes(net: Net) -> None:
    before = net.status("links slowed")
    with net.link(2) as peer:
        peer.send_raw(node_routes_packet([(1000, 1, 0, 5, 1)]) + claims(0, 60_000, 7, 1000, PRESENT | FOREIGN, 9), 30)
        peer.fence(30)
        flaps = b"".join(node_routes_packet([(1000, 1, 0, metric, 1)]) for metric in (99_999, 5, 0xFFFFFFFF, 5))
        net.while_pinging(lambda: (peer.send_raw(flaps * 5, 30), peer.fence(30)))
        assert net.status("links slowed") > before + 3, "the fault"
    assert net.memory() < TOTAL_MAX


def test_who_speaks_of_the_node_itself_is_named(net: Net) -> None:
    with net.link(2) as peer:
        seqs = itertools.count(1000)

        def lie() -> None:
            wall = int(time.time()) + next(seqs)
            ours, stolen = (net.mac, 0, 0, net.id, wall, 0), (net.mac, PRESENT | FIXED, 0, ME, wall, 0)
            peer.send_raw(node_routes_packet([(net.id, next(seqs), 0, 0, 0)]) + hosts_packet([stolen, ours]))
            peer.fence()

        net.while_pinging(lie)
        assert net.status("own_heard") and net.status("disputed") and net.status("conflicts"), "the lies"
        assert net.b.status().hosts[":".join(re.findall("..", f"{net.mac:012x}"))][0] == "fixed"
        net.said("announces this node itself")
        net.said("says otherwise of this node's host")
        net.said("both have the MAC")


@pytest.mark.parametrize("version", [1, 2])
def test_100000_broadcasts_a_second(net: Net, version: int) -> None:
    chance = random.Random(version)
    before = net.status(", broadcast_limit")
    with net.link(version) as peer:
        said = 0
        begun = time.monotonic()

        def storm() -> None:
            nonlocal said
            if said < 100_000 * (time.monotonic() - begun):
                sent = frame(EVERYBODY)
                peer.send_raw(b"".join(broadcast_packet(chance.getrandbits(32), sent) for _ in range(2000)), 30)
                said += 2000

        net.while_pinging(storm)
        seconds = time.monotonic() - begun
        peer.fence(30)
        dropped = net.status(", broadcast_limit") - before
        assert said > 20_000 * seconds, "the storm"
        assert 0 < said - dropped <= 10_000 * (seconds + 2)
    if version == 1:
        net.said("more than broadcast_limit 10000/s")


@pytest.mark.parametrize("version", [1, 2])
def test_floods_of_echoes_and_requests(net: Net, version: int) -> None:
    asked = itertools.count(1)
    with net.link(version) as peer:
        def flood() -> None:
            packets = bare_packet(5, 9) * 5000 + bare_packet(7, 0) * 1000
            if version == 2:
                packets += seq_requests_packet([(net.id, next(asked), 64), (1000, next(asked), 255)]) * 500
            peer.send_raw(packets, 30)
            peer.poll(0.01)
            peer.received.clear()
            peer.unread.clear()

        def is_answered() -> bool:      # again and again: what finds the lane full is lost
            peer.send_echo(77)
            peer.poll(0.05)
            return ("echo_reply", 77) in peer.received

        done = net.while_pinging(flood)
        net.lab.until(is_answered, 10, "an answer after the flood")
        fresh(net.lab, net.b)
        (link,) = (one for one in net.b.status().links if net.name in one.text)
        packets = re.search(r">> in .*total \S+, (\d+)pkt", link.text)
        assert packets and int(packets[1]) >= 6000 * done > 6000, "the flood"
    assert net.memory() < TOTAL_MAX


@pytest.mark.parametrize("version", [1, 2])
def test_who_declares_giant_sizes_and_who_reads_nothing(net: Net, version: int) -> None:
    with net.link(version, node=ME + 1) as giant, net.link(version, node=ME + 2) as deaf:
        kind, special, size = (1, 0, ALL) if version == 1 else (10, 0, ALL)
        giant.send_raw(struct.pack(">BBH", kind, special, size) + bytes(100))
        asked = 0

        def ask() -> None:
            nonlocal asked
            if asked < 40:  # more than this would fill its own socket, too
                deaf.send_raw(bare_packet(5, 1) * 3000 + bare_packet(7, 0), 1)
                asked += 1
            time.sleep(0.001)

        before = net.memory()
        net.while_pinging(ask)
        assert asked == 40 and net.memory() - before < 8_000_000
        giant.reset()
        deaf.reset()


def test_bad_frames_of_version_2_and_ids_that_are_said_again_are_counted_for_their_reasons(net: Net) -> None:
    reasons = ("bad_offload", "no_way", "duplicate", ", broadcast_limit", "egress_missed")
    text = fresh(net.lab, net.b)
    before = {reason: count(reason, text) for reason in reasons}
    with net.link(2) as peer:
        sent = [
            *(bulk_packet(frame(net.mac), (flags, kind, 0, 1, 0, 0)) for flags in (0, 255) for kind in (1, 4, 5, 255)),
            *(bulk_packet(frame(UNKNOWN), egress=number) for number in range(10_000, 10_010)),
            *(bulk_packet(frame(UNKNOWN), egress=net.id, flags=flags) for flags in range(256)),
        ]
        ids = itertools.count(1 << 20)

        def send() -> None:
            peer.send_raw(b"".join(sent) + broadcast_packet(next(ids), frame(EVERYBODY)) * 11)
            peer.fence()

        done = net.while_pinging(send)
    text = fresh(net.lab, net.b)
    grown = {reason: count(reason, text) - before[reason] for reason in reasons}
    assert grown["duplicate"] and grown.pop("duplicate") + grown.pop(", broadcast_limit") >= 10 * done
    assert grown == {"bad_offload": 8 * done, "no_way": 10 * done, "egress_missed": 256 * done}


@pytest.mark.parametrize("version", [1, 2])
def test_a_packet_that_ends_early_closes_its_link(net: Net, version: int) -> None:
    with net.link(version) as peer:
        kind = 2 if version == 1 else 12
        peer.send_raw(struct.pack(">BBH", kind, 0, 100) + bytes(30) + (bare_packet(5, 0xEE) + b"\xee" * 50) * 100)
        assert peer.wait_end() in CUT
    net.b.wait_log(rf"link down: {net.name} at .*: packet of (unknown|an impossible).*type")
    net.while_pinging(lambda: time.sleep(0.01))


def test_when_all_liars_are_gone_nothing_of_them_is_left(net: Net) -> None:
    net.lab.until(lambda: len(net.b.status().links) == 1, 5, "one link")
    net.lab.until(lambda: len(net.b.status().nodes) == 2 and len(net.b.status().routes) == 2, 5, "two nodes")
    assert net.memory() < TOTAL_MAX
    assert sum(Path(net.b.log).read_text().count(word) for word in ("warning", "error")) < 20

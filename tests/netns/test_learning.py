# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts behind bridges that nodes learn and announce: `learn_macs`, docs/routing.md.

    ha --eth0-- a: br0 + tap0 --w1-- b: br0 + tap0 --eth0-- hb        a: 10.8.0.1 behind it, b: 10.8.0.2
                           \\--w2-- c --w3--/                          c: tap0, no bridge, 10.8.0.3
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.netns.lab import Host, Lab, Node, SteadyPing
from tests.netns.test_bridging import BRIDGED, EVERYBODY, is_among, links_up, make_bridge, marks, plug
from tests.netns.test_queues import count, fresh

PORT = 4000
LEARNING = "learn_macs yes"


def make_sites(lab: Lab, *lines: str, third: Sequence[str] = ()) -> dict[str, Node]:
    """The lines are for a and b, which bridge; `third` are those for c."""
    wires = {pair: lab.wire(*pair) for pair in ("ab", "ac", "bc")}
    for number, site in enumerate("ab", start=1):
        make_bridge(lab.host(site))
        plug(lab.host(f"h{site}"), lab.host(site), "eth0")
        lab.host(f"h{site}").ip(f"addr add 10.8.0.{number}/24 dev eth0")
    own = {"a": [*BRIDGED, *lines], "b": [*BRIDGED, *lines],
           "c": ["iface yes", "iface_dev tap0", "iface_address 10.8.0.3/24", "conn_retry 500ms", *third]}
    nodes = {
        name: lab.node(name, f"listen 0.0.0.0 {PORT}", *own[name],
                       *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for name in "abc"
    }
    for node in nodes.values():
        lab.until(lambda node=node: links_up(node) == 2, 15, f"links of {node.name}")
    for target in ("10.8.0.2", "10.8.0.3"):
        lab.wait_for_ping("ha", target)
    return nodes


def knows(node: Node, host: Host) -> bool:
    return host.mac("eth0").hex(":") in node.status().routes


def send(host: Host, frames: list[bytes]) -> None:
    with host.frames("eth0") as port:
        for frame in frames:
            port.send(frame)


# What is known is not flooded


@pytest.mark.parametrize("learns", [True, False], ids=["learning", "plain"])
def test_unicast_between_hosts_that_were_learned_is_not_flooded(lab: Lab, learns: bool) -> None:
    nodes = make_sites(lab, f"learn_macs {'yes' if learns else 'no'}")
    ha, hb = lab.host("ha"), lab.host("hb")
    if learns:
        for node in nodes.values():
            lab.until(lambda node=node: knows(node, ha) and knows(node, hb), 5, f"both hosts known to {node.name}")
    sent, last = marks(ha, hb.mac("eth0"), 100), marks(ha, EVERYBODY, 1)
    with lab.host("c").frames("tap0") as third, hb.frames("eth0") as far:
        send(ha, sent)
        arrived = far.expect(lambda frame: frame == sent[-1])
        assert Counter(filter(is_among(sent), arrived)) == Counter(sent)
        send(ha, last)
        seen = third.expect(lambda frame: frame == last[0])
    assert Counter(filter(is_among(sent), seen)) == ({} if learns else Counter(sent))


@pytest.mark.parametrize("lines", [[LEARNING], ["bridge_mode yes"]], ids=["learning", "bridge_mode"])
def test_tcp_between_hosts_that_were_learned_is_no_flood_that_a_limit_holds(lab: Lab, lines: list[str]) -> None:
    nodes = make_sites(lab, *lines, "iface_mtu 1500", "broadcast_limit 500/s")
    rate, _ = lab.iperf3("ha", "hb", "10.8.0.2", seconds=2)
    print(f"TCP between hosts behind bridges, {lines[0]}: {rate:.0f} Mbit/s")
    refused = sum(count(", broadcast_limit", fresh(lab, nodes[name])) for name in "abc")
    assert (refused == 0) == (lines == [LEARNING]), refused


def show_up(host: Host, number: int) -> list[bytes]:
    """So many MACs behind the host's bridge."""
    macs = [bytes.fromhex(f"0200000000{place:02x}") for place in range(number)]
    send(host, [EVERYBODY + mac + b"\x88\xb5" + bytes(46) for mac in macs])
    return macs


# Hosts move


class Cable:
    """A host's eth0 and the bridge at its other end."""

    def __init__(self, lab: Lab, name: str, address: str, into: str) -> None:
        self.host, self._lab, self._at = lab.host(name), lab, into
        # It would greet its neighbours when the cable is in.
        self.host.run(["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])
        plug(self.host, lab.host(into), name)
        self.host.ip(f"addr add {address}/24 dev eth0")

    def move(self, into: str) -> None:
        self._lab.host(self._at).ip(f"link set {self.host.name} netns {self._lab.host(into).namespace}")
        self._lab.host(into).ip(f"link set {self.host.name} master br0 up")
        self._at = into

    def call(self) -> float:
        """Any frame that leaves the bridge will do; when it was sent, in the seconds of time.time()."""
        frames = marks(self.host, EVERYBODY, 1)
        called = time.time()
        send(self.host, frames)
        return called


def first_answer(lab: Lab, ping: SteadyPing, begin: float) -> float:
    """When it came; the ping goes on from there."""
    lab.until(lambda: ping.count_since(begin) > 10, 5, f"answers to the ping {ping.name}")
    return ping.answers()[-ping.count_since(begin)]


def test_a_host_that_moves_is_reached_within_a_second_of_its_first_frame(lab: Lab) -> None:
    nodes = make_sites(lab, LEARNING)
    cable = Cable(lab, "hm", "10.8.0.9", "a")
    lab.wait_for_ping("hm", "10.8.0.2")
    lab.until(lambda: all(knows(node, cable.host) for node in nodes.values()), 5, "the host that will move is known")
    times = []
    with lab.host("hb").pinging("10.8.0.9") as near, lab.host("c").pinging("10.8.0.9") as far:
        for into in "bab":
            lab.until(lambda: near.count_since(0) and far.count_since(0), 5, "answers before the move")
            cable.host.ip("link set eth0 arp off")      # an answer would be its first frame
            cable.move(into)
            moved = time.time()
            sent = lab.host("c").counters("tap0")["tx_packets"]
            lab.until(lambda sent=sent: lab.host("c").counters("tap0")["tx_packets"] > sent + 20, 5, "pings in vain")
            assert not near.count_since(moved) and not far.count_since(moved), "the host did not move"
            cable.host.ip("link set eth0 arp on")
            called = cable.call()
            times += [first_answer(lab, ping, called) - called for ping in (near, far)]
    print(f"seconds from the first frame to the first answer: {[round(one, 3) for one in times]}")
    assert max(times) < 1


def test_a_host_that_is_silent_is_forgotten_after_mac_age_and_flooded_again(lab: Lab) -> None:
    nodes = make_sites(lab, LEARNING, "mac_age 1s")
    ha, hb = lab.host("ha"), lab.host("hb")
    lab.until(lambda: knows(nodes["b"], ha), 5, "the host is known")
    for node in nodes.values():
        lab.until(lambda node=node: not knows(node, ha), 5, f"{node.name} forgets the host")
    sent = marks(hb, ha.mac("eth0"), 10)
    with lab.host("c").frames("tap0") as third, ha.frames("eth0") as far:
        send(hb, sent)
        far.expect(lambda frame: frame == sent[-1])
        third.expect(lambda frame: frame == sent[-1])


def test_a_node_announces_at_most_max_local_macs(lab: Lab) -> None:
    nodes = make_sites(lab, LEARNING, "max_local_macs 8")
    ha = lab.host("ha")
    lab.until(lambda: knows(nodes["c"], ha), 5, "the host is known")
    ours = {node.status().mac for node in nodes.values()} | {lab.host(f"h{site}").mac("eth0").hex(":") for site in "ab"}
    crowd = show_up(ha, 20)
    lab.until(lambda: set(nodes["c"].status().routes) - ours, 5, "some of the crowd is known")
    fresh(lab, nodes["c"])
    known = [mac for mac in crowd if mac.hex(":") in nodes["c"].status().routes]
    assert 0 < len(known) <= 7
    nodes["a"].wait_log("warning .*max_local_macs")
    # The others are still reached, as before there was learning.
    mark = crowd[-1] + lab.host("hb").mac("eth0") + b"\x88\xb5" + bytes(46)
    with ha.frames("eth0") as far:
        send(lab.host("hb"), [mark])
        far.expect(lambda frame: frame == mark)


def test_a_node_takes_at_most_max_link_claims_hosts_from_a_link_and_still_reaches_the_others(lab: Lab) -> None:
    nodes = make_sites(lab, LEARNING, third=["max_link_claims 8"])
    crowd = show_up(lab.host("ha"), 30)
    lab.until(lambda: {mac.hex(":") for mac in crowd} <= set(nodes["b"].status().routes), 5, "the crowd known to b")
    nodes["c"].wait_log("warning [ab] at .* announces more hosts than max_link_claims 8")
    fresh(lab, nodes["c"])
    assert 8 <= len(nodes["c"].status().routes) - 1 <= 2 * 8, "beside its own"
    with lab.host("c").frames("tap0") as near, lab.host("ha").frames("eth0") as far:
        for mac in crowd:
            near.send(mac + lab.host("c").mac("tap0") + b"\x88\xb5" + bytes(46))
        far.expect(lambda frame: frame[:6] == crowd[-1])


def test_a_mac_that_two_nodes_see_in_turn_is_soon_held_and_the_log_says_so(lab: Lab) -> None:
    nodes = make_sites(lab, LEARNING)
    mac = bytes.fromhex("020000000099")
    sites = itertools.cycle([lab.host("ha"), lab.host("hb")])

    def appear() -> None:
        send(next(sites), [EVERYBODY + mac + b"\x88\xb5" + bytes(46)])

    def is_told() -> bool:
        appear()
        line = f"the host {mac.hex(':')} is seen here and behind other nodes"
        return any(line in nodes[name].log_text() for name in "ab")

    lab.until(is_told, 10, "a line in the log of a or b")
    moves = count("moves", fresh(lab, nodes["c"]))
    assert moves >= 4, "the host did not move"
    for _ in range(100):
        appear()
    assert count("moves", fresh(lab, nodes["c"])) - moves <= 2, "each of two nodes may claim it again after 10 s"
    assert sum(count("moves_held", fresh(lab, nodes[name])) for name in "ab") > 50

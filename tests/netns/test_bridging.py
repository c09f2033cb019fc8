# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes whose TAP is a port of a Linux bridge: hosts behind the bridges are on one Ethernet, and loops are survived.

    sites:  ha --eth0-- a: br0 + tap0 --w1 (w2)-- b: br0 + tap0 --eth0-- hb

    loop:   h --eth0-- lan (a switch) --eth1-- a: br0 + tap0 --w1-- b: br0 + tap0 --eth2-- lan
                                                        \\--w2-- c --w3--/         c, d: tap0, no bridge
                                                                 c --w4-- d
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.netns.frames import FramePort
from tests.netns.lab import Host, Lab, Node
from tests.netns.test_queues import count, fresh

PORT = 4000
BRIDGED = ["iface yes", "iface_dev tap0", "iface_up_command ip link set $IFACE master br0", "conn_retry 500ms"]
EVERYBODY = bytes.fromhex("ffffffffffff")
STP = "stp_state 1 forward_delay 200 hello_time 100 max_age 600"   # centiseconds, the least that Linux takes
BPDU = bytes.fromhex("0180c2000000")
LIMIT = 300


def make_bridge(host: Host, options: str = "") -> None:
    host.ip(f"link add br0 type bridge mcast_snooping 0 {options}")
    host.ip("link set br0 up")


def plug(host: Host, into: Host, port: str) -> None:
    """A veth between eth0 of the host and a port of the other one's bridge."""
    host.ip(f"link add eth0 type veth peer name {port} netns {into.namespace}")
    into.ip(f"link set {port} master br0 up")
    host.ip("link set eth0 up")


def make_sites(lab: Lab, *lines: str, links: int = 1) -> tuple[Host, Host]:
    """Two hosts behind two bridges, 10.8.0.1 and 10.8.0.2."""
    wires = [lab.wire("a", "b") for _ in range(links)]
    for number, site in enumerate("ab", start=1):
        make_bridge(lab.host(site))
        plug(lab.host(f"h{site}"), lab.host(site), "eth0")
        lab.host(f"h{site}").ip(f"addr add 10.8.0.{number}/24 dev eth0")
        lab.host(f"h{site}").ip(f"addr add fd08::{number}/64 dev eth0 nodad")
    nodes = [
        lab.node("a", f"listen 0.0.0.0 {PORT}", *BRIDGED, *lines),
        lab.node("b", *(f"connect {wire.address('a')} {PORT}" for wire in wires), *BRIDGED, *lines),
    ]
    for node in nodes:
        lab.until(lambda node=node: links_up(node) == links, 15, f"{links} links of {node.name}")
    lab.wait_for_ping("ha", "10.8.0.2")
    return lab.host("ha"), lab.host("hb")


def links_up(node: Node) -> int:
    return sum(link.ping > 0 for link in node.status().links)


def marks(source: Host, to: bytes, number: int) -> list[bytes]:
    return [to + source.mac("eth0") + b"\x88\xb5" + place.to_bytes(2, "big") * 30 for place in range(number)]


def is_among(frames: list[bytes]) -> Callable[[bytes], bool]:
    return set(frames).__contains__


@pytest.mark.parametrize("lines", [["bridge_mode yes"], []], ids=["bridge_mode", "plain"])
def test_hosts_behind_bridges_are_on_one_ethernet(lab: Lab, lines: list[str]) -> None:
    """Without bridge_mode, too: MACs that no node announces are flooded."""
    ha, _ = make_sites(lab, *lines)
    for target in ("10.8.0.2", "fd08::2"):
        lab.wait_for_ping("ha", target)
        assert ha.ping(target, 50, 0.01).received == 50
    assert ha.ping("10.8.0.2", 3, 0.01, 4000).received == 3, "in three pieces"
    rate, _ = lab.iperf3("ha", "hb", "10.8.0.2")
    assert rate > 1


def test_a_host_gets_its_address_by_dhcp_from_the_other_site(lab: Lab) -> None:
    ha, hb = make_sites(lab, "bridge_mode yes")
    with ha.frames("eth0") as client, hb.frames("eth0") as server:
        mac, server_mac = ha.mac("eth0"), hb.mac("eth0")
        everybody = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
        question = everybody / UDP(sport=68, dport=67) / BOOTP(chaddr=mac, xid=77)
        answer = (Ether(src=server_mac, dst=mac) / IP(src="10.8.0.2", dst="10.8.0.9") / UDP(sport=67, dport=68)
                  / BOOTP(op=2, yiaddr="10.8.0.9", chaddr=mac, xid=77))
        for asked, answered in (("discover", "offer"), ("request", "ack")):
            client.send(bytes(question / DHCP(options=[("message-type", asked), "end"])))
            expect_dhcp(server, asked)
            server.send(bytes(answer / DHCP(options=[("message-type", answered), "end"])))
            assert expect_dhcp(client, answered)[BOOTP].yiaddr == "10.8.0.9"


def expect_dhcp(port: FramePort, kind: str) -> Ether:
    number = {"discover": 1, "offer": 2, "request": 3, "ack": 5}[kind]

    def is_it(frame: bytes) -> bool:
        found = Ether(frame)
        return DHCP in found and ("message-type", number) in found[DHCP].options

    return Ether(port.expect(is_it)[-1])


@pytest.mark.parametrize("links", [1, 2])
def test_every_frame_reaches_the_other_site_once_and_none_comes_back(lab: Lab, links: int) -> None:
    ha, hb = make_sites(lab, "bridge_mode yes", links=links)
    sent = [mark for to in (EVERYBODY, bytes.fromhex("01005e000001"), bytes.fromhex("02ffffffffff"), hb.mac("eth0"))
            for mark in marks(ha, to, 50)]
    with ha.frames("eth0") as near, hb.frames("eth0") as far:
        for mark in sent:
            near.send(mark)
        arrived = far.expect(lambda frame: frame == sent[-1])
        for _ in range(3):      # what had gone round would have come by now
            lab.wait_for_ping("ha", "10.8.0.2")
        arrived += far.drain()
        assert Counter(filter(is_among(sent), arrived)) == Counter(sent)
        assert not list(filter(is_among(sent), near.drain()))
    if links == 2:
        dropped = [count("duplicate", fresh(lab, node)) for node in lab.nodes]
        assert max(dropped) >= len(sent), "there was no second copy"


def test_nocopy_sends_one_copy_over_two_links(lab: Lab) -> None:
    ha, hb = make_sites(lab, "bridge_mode yes", "broadcast_nocopy yes", links=2)
    sent = marks(ha, EVERYBODY, 200)
    with ha.frames("eth0") as near, hb.frames("eth0") as far:
        for mark in sent:
            near.send(mark)
        lab.wait_for_ping("ha", "10.8.0.2")
        assert Counter(filter(is_among(sent), far.drain())) == Counter(sent)
    for node in lab.nodes:
        text = fresh(lab, node)
        assert count("duplicate", text) == 0
        came = [int(number) for number in re.findall(r"^ >> in .*, (\d+)pkt$", text, re.MULTILINE)]
        assert node.name == "a" or (len(came) == 2 and min(came) > 50), "both links were used"


def test_bpdus_pass_and_a_filter_that_does_not_name_their_length_stops_them(lab: Lab) -> None:
    make_sites(lab, "bridge_mode yes")
    lab.host("a").ip(f"link set br0 type bridge {STP}")
    with lab.host("hb").frames("eth0") as far:      # b's own bridge knows no STP and passes them on
        for _ in range(2):
            bpdu = far.expect(lambda frame: frame[:6] == BPDU, 10)[-1]
    assert int.from_bytes(bpdu[12:14], "big") == 0x26
    for node in lab.nodes:
        node.config.write_text(node.config.read_text() + "broadcast_filter_allow 0806\n")
        node.signal(1)
        node.wait_log("SIGHUP: the configuration")
    lab.until(lambda: count("filtered", fresh(lab, lab.nodes[0])), 5, "a BPDU that was filtered")
    with lab.host("hb").frames("eth0") as far:
        lab.host("ha").run(["ping", "-c1", "-W1", "10.8.0.77"], check=False)     # asks by ARP, which is allowed
        frames = far.expect(lambda frame: frame[12:14] == b"\x08\x06")
    assert not [frame for frame in frames if frame[:6] == BPDU]


# Two nodes that bridge the same LAN


def make_loop(lab: Lab, *lines: str, bridge: str = "") -> dict[str, Node]:
    """The wires of the mesh are there before the loop is: the nodes' links come up last."""
    lan = lab.host("lan")
    make_bridge(lan)
    plug(lab.host("h"), lan, "host")
    for site in "ab":
        host = lab.host(site)
        make_bridge(host, bridge)
        host.ip(f"link add lan type veth peer name to-{site} netns {lan.namespace}")
        host.ip("link set lan master br0 up")
        lan.ip(f"link set to-{site} master br0 up")
    wires = {pair: lab.wire(*pair) for pair in ("ab", "ac", "bc", "cd")}
    common = [f"listen 0.0.0.0 {PORT}", "conn_retry 500ms", *lines]
    nodes = {
        name: lab.node(name, *common, "iface yes", "iface_dev tap0", f"iface_address 10.8.0.{number}/24",
                       *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for number, name in ((13, "c"), (14, "d"))
    }
    nodes |= {
        name: lab.node(name, *common, *BRIDGED, "bridge_mode yes",
                       *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for name in "ba"
    }
    for name, links in (("a", 2), ("b", 2), ("c", 3), ("d", 1)):
        lab.until(lambda name=name, links=links: links_up(nodes[name]) == links, 20, f"{links} links of {name}")
    return nodes


def port_states(host: Host) -> list[str]:
    return [port["state"] for port in json.loads(host.run(["bridge", "-j", "link", "show"]).stdout)
            if port.get("master") == "br0"]


def test_with_stp_on_both_bridges_a_loop_through_the_lan_settles(lab: Lab) -> None:
    make_loop(lab, bridge=STP)
    lab.host("h").ip("addr add 10.8.0.1/24 dev eth0")

    def settled() -> bool:
        states = Counter(port_states(lab.host("a")) + port_states(lab.host("b")))
        return states == {"forwarding": 3, "blocking": 1}

    lab.until(settled, 20, "one blocked port of four")
    lab.wait_for_ping("h", "10.8.0.14")
    assert lab.host("h").ping("10.8.0.14", 20, 0.02).received == 20
    sent = marks(lab.host("h"), EVERYBODY, 50)
    with lab.host("h").frames("eth0") as near, lab.host("d").frames("tap0") as far:
        for mark in sent:
            near.send(mark)
        lab.wait_for_ping("h", "10.8.0.14")
        assert Counter(filter(is_among(sent), far.drain())) == Counter(sent)
        assert not list(filter(is_among(sent), near.drain()))


def test_without_stp_the_limit_holds_the_storm_the_log_says_so_and_the_rest_works_on(lab: Lab) -> None:
    nodes = make_loop(lab, f"broadcast_limit {LIMIT}/s")
    lab.wait_for_ping("c", "10.8.0.14")
    with lab.host("h").frames("eth0") as port:
        for mark in marks(lab.host("h"), EVERYBODY, LIMIT):
            port.send(mark)
    line = nodes["c"].wait_log("warning [ab] at .* brings .*", 20)
    assert "This looks like a loop" in line
    rate = int(re.findall(r"brings (\d+) broadcasts a second, more than broadcast_limit 300/s", line)[0])
    assert rate > LIMIT and "two nodes bridge the same network" in line
    before, began = fresh(lab, nodes["c"]), time.monotonic()
    pings = lab.host("c").ping("10.8.0.14", 100, 0.02)
    assert pings.received == 100
    refused = ", broadcast_limit"
    lab.until(lambda: count(refused, fresh(lab, nodes["c"])) - count(refused, before) > LIMIT, 20, "the storm to go on")
    after, seconds = fresh(lab, nodes["c"]), time.monotonic() - began
    taken = count("to interface", after) - count("to interface", before)
    # Two links bring it to c, and each may bring a second's worth at once; what both bring is taken once.
    assert 0 < taken - pings.received <= 2 * LIMIT * (seconds + 1)
    for node in nodes.values():
        said = re.findall(r"warning (\w) at \S+ brings", node.log_text())
        assert len(said) == len(set(said)) <= 3, "once for each link within a minute"
        assert "link down" not in node.log_text()

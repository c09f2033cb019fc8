# SPDX-License-Identifier: GPL-3.0-or-later
"""Real daemons carry Ethernet: lines, rings, parallel links, and what happens when a part of them goes.

    line:  a --w1-- b (headless) --w2-- c        ring:  a --w1-- b --w2-- c --w3-- a
"""

from __future__ import annotations

import re
import time

import pytest

from tests.netns.lab import Lab, Node

PORT = 4000
QUICK = ["conn_retry 1s", "iface_mtu 8000"]


def with_tap(number: int, *lines: str) -> list[str]:
    return ["iface yes", "iface_dev tap0", f"iface_address 10.9.0.{number}/24", f"iface_address fd09::{number}/64",
            *QUICK, *lines]


def make_line(lab: Lab) -> tuple[Node, Node, Node]:
    left, right = lab.wire("a", "b"), lab.wire("b", "c")
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", *QUICK)
    a = lab.node("a", f"connect {left.address('b')} {PORT}", *with_tap(1))
    c = lab.node("c", f"connect {right.address('b')} {PORT}", *with_tap(3))
    lab.wait_for_ping("a", "10.9.0.3")
    return a, b, c


def make_ring(lab: Lab, *lines: str) -> tuple[Node, Node, Node]:
    wires = {pair: lab.wire(*pair) for pair in ("ab", "bc", "ca")}
    common = [f"listen 0.0.0.0 {PORT}", *lines]
    a = lab.node("a", *common, f"connect {wires['ab'].address('b')} {PORT}", *with_tap(1))
    b = lab.node("b", *common, f"connect {wires['bc'].address('c')} {PORT}", *with_tap(2))
    c = lab.node("c", *common, f"connect {wires['ca'].address('a')} {PORT}", *with_tap(3))
    for source, target in ("a2", "a3", "b3"):
        lab.wait_for_ping(source, f"10.9.0.{target}")
    lab.until(lambda: all(len(links_up(node)) == 2 for node in (a, b, c)), 10, "all links of the ring")
    return a, b, c


def links_up(node: Node) -> list[int]:
    return [link.number for link in node.status().links if link.ping]


def test_a_line_over_a_headless_relay_loses_no_ping(lab: Lab) -> None:
    make_line(lab)
    for target in ("10.9.0.3", "fd09::3"):
        lab.wait_for_ping("a", target)
        ping = lab.host("a").ping(target, 200, 0.005)
        assert (ping.sent, ping.received) == (200, 200)


def test_frames_of_every_size_arrive_unchanged(lab: Lab) -> None:
    """ping compares what comes back with what it sent; above the MTU of 8,000 IP cuts it in pieces."""
    make_line(lab)
    for size in (20, 64, 1472, 1473, 4000, 7971, 7972, 7973, 8192):
        assert lab.host("a").ping("10.9.0.3", 3, 0.01, size).received == 3, f"{size} bytes"


def test_tcp_and_udp_flow_both_ways_through_the_relay(lab: Lab) -> None:
    a, b, c = make_line(lab)
    for options in ((), ("-R",)):
        rate, _ = lab.iperf3("a", "c", "10.9.0.3", *options)
        assert rate > 10
    rate, report = lab.iperf3("a", "c", "10.9.0.3", "-u", "-b", "5M", "-l", 64)
    assert rate > 1 and report["end"]["sum"]["lost_percent"] < 5
    for node in (a, b, c):
        assert "Traceback" not in node.log_text()


def test_traffic_resumes_after_the_relay_was_killed_and_started_again(lab: Lab) -> None:
    _, b, _ = make_line(lab)
    b.kill()
    assert lab.host("a").ping("10.9.0.3", 2, 0.2).received == 0, "the fault did not happen"
    b.start()
    lab.until(lambda: lab.host("b").is_listening(PORT), 10, "the relay listens again")
    begun = time.monotonic()
    lab.until(lambda: lab.host("a").ping("10.9.0.3", 1, wait=1).received, 5, "traffic through the new relay")
    assert time.monotonic() - begun < 1 + 1 + 0.5, "conn_retry (1 s) + 1 s, and half a second for the last ping"


def test_a_ring_carries_a_broadcast_to_each_node_once(lab: Lab) -> None:
    make_ring(lab)
    ports = {name: lab.host(name).frames("tap0") for name in "abc"}
    marks = [bytes.fromhex("ffffffffffff") + lab.host("a").mac("tap0") + b"\x88\xb5" + bytes([i]) * 60
             for i in range(100)]
    for mark in marks:
        ports["a"].send(mark)
    for name in "bc":
        ports[name].expect(lambda frame: frame == marks[-1])
    # What went round the ring the other way has arrived too, once a second mark has gone both ways.
    for name in "bc":
        lab.wait_for_ping("a", f"10.9.0.{'abc'.index(name) + 1}")
    again = {name: [frame for frame in port.drain() if frame in marks] for name, port in ports.items()}
    assert again == {"a": [], "b": [], "c": []}


@pytest.mark.parametrize("how", ["silent", "reset"])
def test_a_ring_goes_on_over_the_other_way_when_a_wire_is_cut(lab: Lab, how: str) -> None:
    a, _, c = make_ring(lab, "conn_keepalive 200ms", "conn_timeout 1s", "handshake_timeout 2s")
    if how == "silent":
        lab.wires[2].cut()
        c.wait_log("link down: .*no echo reply for conn_timeout 1 s")
    else:
        lab.wires[2].cut()      # or it is dialled anew at once
        assert lab.host("a").run(["ss", "-HtK", "dst", lab.wires[2].address("c")]).stdout, "no connection was reset"
        lab.host("c").run(["ss", "-HtK", "dst", lab.wires[2].address("a")])
        a.wait_log(r"link down: c at [\d.:]+: (connection|software caused connection) (reset by peer|abort)$")
    lab.wait_for_ping("a", "10.9.0.3", 5)
    assert lab.host("a").ping("10.9.0.3", 20, 0.01).received == 20
    lab.wires[2].heal()
    lab.until(lambda: len(links_up(a)) == 2 and len(links_up(c)) == 2, 15, "the ring is whole again")


def test_the_routes_of_a_killed_node_go_and_the_others_stay(lab: Lab) -> None:
    a, b, c = make_ring(lab)
    mac = ":".join(f"{byte:02x}" for byte in lab.host("b").mac("tap0"))
    assert mac in a.status().routes
    b.kill()
    lab.until(lambda: mac not in a.status().routes and mac not in c.status().routes, 10, "b is forgotten")
    assert lab.host("a").ping("10.9.0.3", 20, 0.01).received == 20


def test_two_links_between_the_same_nodes_stand_side_by_side(lab: Lab) -> None:
    first, second = lab.wire("a", "b"), lab.wire("a", "b")
    soon = ["conn_keepalive 200ms", "conn_timeout 1s"]
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", *soon, *with_tap(2))
    a = lab.node("a", f"connect {first.address('b')} {PORT}", f"connect {second.address('b')} {PORT}",
                 *soon, *with_tap(1))
    lab.wait_for_ping("a", "10.9.0.2")
    lab.until(lambda: len(links_up(a)) == 2, 10, "both links")
    first.cut()
    for node in (a, b):
        node.wait_log("link down: .*no echo reply")
    assert lab.host("a").ping("10.9.0.2", 20, 0.01).received == 20
    second.cut()
    lab.until(lambda: not lab.host("a").ping("10.9.0.2", 1).received, 10, "nothing left to carry it")


def test_links_are_made_over_ipv6_and_to_names_with_several_addresses(lab: Lab) -> None:
    wire = lab.wire("a", "b")
    # Of the two addresses of `localhost` only the second answers.
    a = lab.node("a", f"listen {wire.address6('a')} {PORT}", f"listen 127.0.0.1 {PORT}", *with_tap(1))
    b = lab.node("b", f"connect {wire.address6('a')} {PORT}", *with_tap(2))
    name = lab.node("a", f"connect localhost {PORT}", *QUICK, name="n")
    b.wait_log(r"link up: a at \[fd00:0:0:1::1\]:4000, dialled, TLSv1\.3")
    name.wait_log(r"link up: a at 127\.0\.0\.1:4000")
    a.wait_log("link up: b at .*accepted")
    lab.wait_for_ping("b", "fd09::1")


def test_a_name_that_does_not_resolve_is_complained_of_once(lab: Lab) -> None:
    lab.host("a")
    a = lab.node("a", "connect nowhere.invalid 4000", "conn_retry 100ms", "log_level debug")
    a.wait_log("debug no link to nowhere.invalid 4000", 10, 2)
    assert len(re.findall("warning no link to nowhere.invalid 4000", a.log_text())) == 1


def test_a_node_that_dials_itself_notices_and_stops(lab: Lab) -> None:
    wire = lab.wire("a", "b")
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", *QUICK)
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", f"connect {wire.address('a')} {PORT}",
                 f"connect {wire.address('b')} {PORT}", "conn_retry 100ms")
    a.wait_log(f"{wire.address('a')}:{PORT} is this node itself: it is not dialled again")
    a.wait_log("link up: b at")
    accepted = a.status().text
    lab.until(lambda: a.status().text != accepted and len(links_up(a)) == 1, 5, "one link only")
    assert a.log_text().count("is this node itself") == 2 or a.log_text().count("it is not dialled again") == 1
    assert b.exit_code is None


def test_a_stopped_peer_is_noticed_and_comes_back(lab: Lab) -> None:
    a, b, c = make_ring(lab, "conn_keepalive 200ms", "conn_timeout 1s")
    b.stop()
    for node in (a, c):     # each by itself: until c has, its answers may go by way of b
        node.wait_log("link down: b at .*no echo reply for conn_timeout 1 s", 10)
    assert lab.host("a").ping("10.9.0.3", 5, 0.01).received == 5
    b.cont()
    lab.wait_for_ping("a", "10.9.0.2", 20)


def test_frames_in_are_frames_out_and_drops(lab: Lab) -> None:
    nodes = make_line(lab)
    lab.iperf3("a", "c", "10.9.0.3", "-u", "-b", 0, "-l", 64)
    lab.host("a").ip("link set tap0 down")
    lab.host("c").ip("link set tap0 down")
    for node in nodes:
        uptime = node.status().uptime
        lab.until(lambda node=node, uptime=uptime: (node.status().uptime or 0) > (uptime or 0) + 0.5, 5, "a new status")
        text = node.status().text
        frames = {name: int(count) for name, count in
                  re.findall(r"(from interface|to interface|from links|to links|copies) (\d+)", text)}
        drops = sum(int(count) for count in re.findall(r" (\d+)", re.findall("^dropped: .*$", text, re.MULTILINE)[0]))
        assert frames["from interface"] + frames["from links"] + frames["copies"] == (
            frames["to interface"] + frames["to links"] + drops)
        assert frames["to links"] > 1000 or node.name == "c"


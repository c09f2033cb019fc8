# SPDX-License-Identifier: GPL-3.0-or-later
"""Half-open TCP: a peer that is gone without a word, also in the handshake, and one that ends its direction only.

    a --w1-- b --w2-- c --w3-- a        wires carry nothing, and the hosts' kernels do not know
"""

from __future__ import annotations

import re
import time

from tests.golden.v1peer import dial, tls_context
from tests.netns.faults import (
    PORT,
    address,
    assert_not_grown,
    assert_sound,
    counter,
    drops_of,
    footprint,
    lines_of,
    triangle,
    unbroken,
    wait_links,
    wait_pings,
)
from tests.netns.keys import identity
from tests.netns.lab import Lab
from tests.netns.test_queues import fresh

FRAMES = 10_000
WAITING = 3_000_000     # bytes: a full queue, 1 MiB, what the kernel may hold, and what Python took for it


def test_when_a_wire_dies_silently_frames_go_another_way_long_before_the_link_is_given_up(lab: Lab) -> None:
    nodes = triangle(lab, "conn_keepalive 1s")
    with lab.host("a").pinging(address("c"), 0.05) as ping:
        lab.until(lambda: len(ping.answers()) > 10, 10, "answers before the fault")
        begun = time.time()
        lab.wires[2].cut()
        lab.until(lambda: all(counter(nodes[name], "doubted") for name in "ac"), 15, "the link is doubted")
        back = time.time()
        lab.until(lambda: ping.count_since(back) > 20, 15, "answers over b")
        gap = ping.longest_gap(begun)
    print(f"the longest gap is {gap:.2f} s")
    assert gap > 1, "the fault did not happen"
    assert "link down" not in nodes["a"].log_text() + nodes["c"].log_text(), "conn_timeout is a minute"
    lab.wires[2].heal()
    lab.until(lambda: all(nodes[name].status().nodes[nodes[other].status().node or ""].hops == 1
                          for name, other in ("ac", "ca")), 60, "the direct way is used again")
    assert "link down" not in nodes["a"].log_text() + nodes["c"].log_text(), "the link has lived on"
    assert_sound(lab, nodes)


def test_what_is_not_acknowledged_is_bounded_and_gone_with_the_link(lab: Lab) -> None:
    """a - b alone: there is no other way, so frames go on to the silent link until conn_timeout. What the kernel takes
    no more waits in the queue; then the interface is not read, and its own queue is full."""
    wire = lab.wire("a", "b")
    soon = ["conn_keepalive 1s", "conn_timeout 4s", "handshake_timeout 1s"]
    b = lab.node("b", *lines_of("b", *soon))
    a = lab.node("a", *lines_of("a", *soon), f"connect {wire.address('b')} {PORT}")
    nodes = {"a": a, "b": b}
    wait_pings(lab, nodes)
    head, port = lab.host("b").mac("tap0") + lab.host("a").mac("tap0") + b"\x88\xb5", lab.host("a").frames("tap0")
    before, refused = footprint(a), lab.host("a").counters("tap0")["tx_dropped"]
    wire.cut()
    for _ in range(FRAMES):
        port.send(head.ljust(1400, b"\0"))
    port.close()
    grown = footprint(a).memory - before.memory
    fresh(lab, a)
    refused = lab.host("a").counters("tap0")["tx_dropped"] - refused + drops_of(a.status().text).get("queue_full", 0)
    assert "link down" not in a.log_text(), "the link is not given up at once"
    a.wait_log("link down: b at .*: no echo reply for conn_timeout 4 s$", 20)
    b.wait_log("link down: a at .*: no echo reply for conn_timeout 4 s$", 20)
    print(f"grown by {grown} B, {refused} of {FRAMES} were too many")
    assert refused > FRAMES // 2, "more came than may wait"
    assert grown < WAITING
    wire.heal()
    wait_links(lab, nodes, 1)
    lab.wait_for_ping("a", address("b"))
    assert_not_grown(lab, a, before)
    assert_sound(lab, nodes)


def test_a_peer_that_is_gone_in_the_handshake_is_given_up_after_handshake_timeout(lab: Lab) -> None:
    """b dials a. TCP comes about, and then nothing passes that is larger than its own packets: no ClientHello."""
    wire = lab.wire("a", "b", "c")
    rules = ["add table inet gone"]
    for way in ("prerouting", "postrouting"):
        rules.append(f"add chain inet gone {way} {{ type filter hook {way} priority 0; }}")
        rules.append(f"add rule inet gone {way} meta l4proto tcp meta length > 100 drop")
    soon = ["handshake_timeout 1s", "conn_retry 200ms"]
    nodes = {
        "c": lab.node("c", *lines_of("c")),
        "a": lab.node("a", *lines_of("a", *soon, f"connect {wire.address('c')} {PORT}")),
    }
    lab.wait_for_ping("c", address("a"))
    lab.host("b").run(["nft", "; ".join(rules)])
    with unbroken(lab, "ca"):
        nodes["b"] = lab.node("b", *lines_of("b", *soon), f"connect {wire.address('a')} {PORT}")
        nodes["b"].wait_log(f"warning no link to {re.escape(wire.address('a'))} {PORT}: .*time", 15)
        lab.until(lambda: counter(nodes["a"], "handshakes_expired"), 15, "the listener has given up, too")
    assert "link up" not in nodes["b"].log_text()
    lab.host("b").run(["nft", "delete table inet gone"])
    lab.wait_for_ping("b", address("a"))
    assert_sound(lab, nodes)


def test_a_peer_that_ends_its_direction_only_is_said_goodbye_to(lab: Lab) -> None:
    """It still reads: the daemon must not go on sending to one that will never answer again."""
    wire = lab.wire("a", "b")
    b = lab.node("b", *lines_of("b"))
    lab.until(lambda: lab.host("b").is_listening(PORT), 15, "it listens")
    for turn in range(12):
        if turn == 2:
            before = footprint(b)
        with lab.host("a").inside(), dial((wire.address("b"), PORT), tls_context(False, *identity("A")), 5) as peer:
            peer.send_route_set([])
            peer.fence()
            (peer.half_close, peer.close_notify)[turn % 2]()
            assert peer.wait_end(5) in ("eof", "close_notify", "reset"), "the daemon ends its direction, too"
    b.wait_log("link down: A at .*: closed by the peer$", 5, 12)
    assert_not_grown(lab, b, before)
    assert_sound(lab, {"b": b})

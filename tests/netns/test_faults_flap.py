# SPDX-License-Identifier: GPL-3.0-or-later
"""A link that goes down and comes up each second: nobody else notices, and nothing grows.

    a --w1-- b --w2-- c --w3-- a        the link between a and b flaps: its wire is cut, its connection reset
                      c --w4-- d        d hears c over a link that no other one can stand in for
"""

from __future__ import annotations

import time

import pytest

from tests.netns.faults import (
    PORT,
    address,
    assert_not_grown,
    assert_sound,
    footprint,
    keeping_on,
    lines_of,
    links_up,
    triangle,
    unbroken,
    wait_links,
)
from tests.netns.lab import Lab

LOG_EACH = 1000     # bytes of log for each time that the link goes and comes
GAP = 3.0           # seconds; it takes a tenth, but the machine may be busy


@pytest.mark.parametrize("flaps", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_link_that_flaps_each_second_harms_no_other_pair_and_nothing_grows(lab: Lab, flaps: int) -> None:
    nodes = triangle(lab, "conn_retry 200ms", "handshake_timeout 2s")
    ends = [nodes["a"], nodes["b"]]
    nodes["d"] = lab.node("d", *lines_of("d"), f"connect {lab.wire('c', 'd').address('c')} {PORT}")
    lab.wait_for_ping("d", address("c"))
    before = {}
    with unbroken(lab, "dc"), keeping_on(lab, GAP, "ac", "bc"), lab.host("a").pinging(address("b")) as ping:
        begun = time.time()
        for flap in range(flaps):
            lab.wires[0].cut()
            for host in "ab":
                lab.host(host).run(["ss", "-HtK", "dst", lab.wires[0].address("ab".replace(host, ""))])
            for node in ends:
                node.wait_log(r"link down: [ab] at ", 10, flap + 1)
            end = time.monotonic() + 0.5
            lab.until(lambda end=end: time.monotonic() > end, 5, "half a second")
            lab.wires[0].heal()
            # The first SYN was lost: its kernel sends the next one after a second.
            for node in ends:
                lab.until(lambda node=node: links_up(node) == 2, 15, f"the link of {node.name} is up again")
            if flap == 1:
                before = {node.name: (footprint(node), node.log.stat().st_size) for node in ends}
        healed = time.time()
        lab.until(lambda: ping.count_since(healed) > 10, 10, "answers after the fault")
        gap = ping.longest_gap(begun)
    print(f"{flaps} flaps: the longest gap between a and b is {gap:.2f} s")
    assert gap < GAP
    wait_links(lab, {name: nodes[name] for name in "ab"}, 2)
    for node in ends:
        then, log = before[node.name]
        assert_not_grown(lab, node, then)
        assert node.log.stat().st_size - log < LOG_EACH * (flaps - 2), node.report()
        assert not any(f"at {lab.wires[2].address('c')}:{PORT}" in line and "link down" in line
                       for line in nodes["a"].log_text().splitlines())
    assert_sound(lab, nodes)

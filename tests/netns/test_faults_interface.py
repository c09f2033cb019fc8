# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface is changed, moved or taken away under a stream of frames.

    a: tap0 --w1-- b: tap0, whose interface has the faults
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.lab import Lab, Node
from tests.netns.test_faults_memory import count_frames, see_new_status, streaming

PORT = 4000


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        yield lab


def start(lab: Lab) -> Node:
    """10.9.0.1 in a, and the daemon in b: 10.9.0.2."""
    own = ["iface yes", "iface_dev tap0", "status-interval 200ms"]
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", *own, "iface_address 10.9.0.1/24")
    lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
    b = lab.node("b", f"connect {lab.wires[0].address('a')} {PORT}", *own, "iface_address 10.9.0.2/24")
    lab.wait_for_ping("a", "10.9.0.2")
    return b


def fix_neighbour(lab: Lab, mac: str) -> None:
    """a asks for no address that is not there: its frames go on."""
    lab.host("a").ip(f"neigh replace 10.9.0.2 lladdr {mac} dev tap0 nud permanent")


def dropped(node: Node, reason: str) -> int:
    text = node.status().text
    return int(text.partition(f"{reason} ")[2].split(",")[0].split()[0])


def assert_link_stayed(lab: Lab) -> None:
    for node in lab.nodes:
        assert "link down" not in node.log_text() and "Traceback" not in node.log_text(), node.report()
        assert "internal error" not in node.log_text(), node.report()
        see_new_status(lab, node)
        came, went = count_frames(node)
        assert came == went, node.status().text


def test_frames_for_an_interface_that_is_down_or_gone_are_counted_and_flow_again_when_it_is_back(lab: Lab) -> None:
    b = start(lab)
    host = b.host
    mac = host.mac("tap0").hex(":")
    fix_neighbour(lab, mac)
    with streaming(lab.host("a"), "10.9.0.2"):
        host.ip("link set tap0 down")
        b.wait_log("warning interface tap0 is down: frames for it are lost until it is up again$")
        lab.until(lambda: dropped(b, "tap_refused") > 100, 15, "lost frames are counted")
        assert "interface: tap0 down" in b.status().text
        host.ip("link set tap0 up")
        b.wait_log("info interface tap0 is up again$")
        see_new_status(lab, b)
        lost = dropped(b, "tap_refused")
        lab.wait_for_ping("a", "10.9.0.2")
        host.ip("link del tap0")
        b.wait_log("warning interface tap0 is gone")
        lab.until(lambda: "local interface: tap0 is gone" in b.status().text, 15, "the status says so")
        host.ip("tuntap add tap0 mode tap")
        b.wait_log("info interface tap0, MAC", 15, 2)
        lab.wait_for_ping("a", "10.9.0.2")
        assert dropped(b, "tap_refused") >= lost
    assert len([line for line in b.log_text().splitlines() if "interface tap0" in line]) == 5, b.report()
    assert_link_stayed(lab)


def test_an_interface_that_is_replaced_between_two_looks_is_used_at_once(lab: Lab) -> None:
    b = start(lab)
    host = b.host
    with streaming(host, "10.9.0.1"):
        for number in range(2, 6):
            host.ip("link del tap0")
            host.ip("tuntap add tap0 mode tap")
            b.wait_log("info interface tap0, MAC", 15, number)
            lab.wait_for_ping("b", "10.9.0.1")
    assert b.log_text().count("is gone") == 4
    assert_link_stayed(lab)


def test_an_interface_that_is_moved_to_another_namespace_counts_as_gone(lab: Lab) -> None:
    """What leads into another namespace is none of ours to follow."""
    b = start(lab)
    host, other = b.host, lab.host("other")
    host.ip(f"link set tap0 netns {other.namespace}")
    assert not host.has("tap0"), "the fault did not happen"
    b.wait_log("warning interface tap0 is gone")
    lab.until(lambda: not other.has("tap0"), 5, "it ends with its descriptor")
    host.ip("tuntap add tap0 mode tap")
    b.wait_log("info interface tap0, MAC", 15, 2)
    lab.wait_for_ping("a", "10.9.0.2")
    assert_link_stayed(lab)


def test_a_new_name_and_a_new_mac_are_followed_while_frames_flow(lab: Lab) -> None:
    b = start(lab)
    host = b.host
    with lab.host("a").pinging("10.9.0.2") as ping:
        lab.until(lambda: len(ping.answers()) > 20, 15, "answers")
        for name in ("lan0", "lan1"):
            old = "tap0" if name == "lan0" else "lan0"
            if host.run(["ip", "link", "set", old, "name", name], check=False).returncode:
                pytest.skip("this kernel renames no interface that is up")
            b.wait_log(f"info interface {old} was renamed to {name}$")
        host.ip("link set lan1 address 02:00:5e:10:00:77")
        b.wait_log("info interface lan1: MAC changed from .* to 02:00:5e:10:00:77$")
        lab.host("a").ip("neigh flush dev tap0")
        seen = len(ping.answers())
        lab.until(lambda: len(ping.answers()) > seen + 20, 15, "answers from the new MAC")
    lab.until(lambda: b.status().mac == "02:00:5e:10:00:77", 5, "the status knows")
    assert "interface: lan1 up" in b.status().text
    assert dropped(b, "tap_refused") == 0
    assert_link_stayed(lab)

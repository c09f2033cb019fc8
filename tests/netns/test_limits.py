# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of a real daemon, one below, at and one above each: a peer that the test plays runs into them.

    b: tap0, daemon, :4000 --w1-- a: peers of version 1
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.golden.v1peer import V1Peer, dial, tls_context
from tests.netns.keys import identity
from tests.netns.lab import Lab, Node
from tests.netns.test_queues import count, fresh

PORT = 4000
QUIET = ["conn_keepalive 60s", "conn_timeout 600s"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        yield lab


def start(lab: Lab, *lines: str) -> Node:
    node = lab.node("b", f"listen 0.0.0.0 {PORT}", *QUIET, *lines)
    lab.until(lambda: lab.host("b").is_listening(PORT), 15, "the daemon listens")
    return node


def link(lab: Lab, name: str = "A", answer_echo: bool = True) -> V1Peer:
    with lab.host("a").inside():
        return dial((lab.wires[0].address("b"), PORT), tls_context(False, *identity(name)), 5, answer_echo)


def active(lab: Lab, name: str = "A") -> V1Peer:
    peer = link(lab, name)
    peer.send_route_set([])
    peer.fence()
    return peer


def mac(number: int) -> bytes:
    return bytes([2, 0xCC, 0, 0, 0, number])


def known(lab: Lab, node: Node) -> set[str]:
    """The last bytes of the MACs that the node has a way to."""
    fresh(lab, node)
    return {one[-2:] for one in node.status().routes if one.startswith("02:cc:")}


def test_routes_at_route_max_dist_are_not_used(lab: Lab) -> None:
    b, peer = start(lab, "route_max_dist 5"), active(lab)
    peer.send_route_set([(mac(dist), dist, 10) for dist in (3, 4, 5, 6)])
    peer.fence()
    assert known(lab, b) == {"03", "04"}
    assert count("far", b.status().text) == 2


def test_of_more_than_max_remote_routes_the_farthest_go_and_when_there_is_room_all_are_asked_for(lab: Lab) -> None:
    b, peer = start(lab, "max_remote_routes 4"), active(lab)

    def tell(routes: int) -> set[str]:
        peer.send_route_set([(mac(number), 0, number) for number in range(1, routes + 1)])
        peer.fence()
        return known(lab, b)

    assert [len(tell(routes)) for routes in (3, 4)] == [3, 4]
    assert count("far 0, full", b.status().text) == 0 and ("route_request",) not in peer.received
    assert tell(5) == {"01", "02", "03", "04"}
    assert count("far 0, full", b.status().text) == 1 and ("route_request",) not in peer.received
    peer.send_route_diff([(mac(2), 0, 0)])
    peer.expect("route_request")
    peer.send_route_set([(mac(number), 0, number) for number in (1, 3, 4, 5)])
    peer.fence()
    assert known(lab, b) == {"01", "03", "04", "05"}
    assert peer.received.count(("route_request",)) == 1


@pytest.mark.parametrize("mtu", [14, 100])
def test_frames_over_conn_mtu_are_dropped(lab: Lab, mtu: int) -> None:
    b = start(lab, "iface yes", "iface_dev tap0", f"conn-mtu {mtu}")
    peer, host = active(lab), lab.host("b")
    to = host.mac("tap0")
    host.run(["sysctl", "-q", "net.ipv6.conf.tap0.disable_ipv6=1"])  # the kernel's own frames would be too long, too
    before = count(", long", fresh(lab, b))
    with host.frames("tap0") as tap:
        for size in (mtu - 1, mtu, mtu + 1):
            peer.send_frame((to + mac(1) + b"\x88\xb5" + bytes(size))[:size])
        peer.fence()
        dropped = fresh(lab, b)
        got = [len(one) for one in tap.drain() if one[6:12] == mac(1)]
    assert got == ([mtu] if mtu == 14 else [mtu - 1, mtu])
    assert (count("short", dropped), count(", long", dropped) - before) == (mtu == 14, 1)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize(("line", "size", "most"), [("max_waiting_data_packets 5", 60, 5),
                         ("max_waiting_data_bytes 65664", 8192, 8), ("max_waiting_total 65664", 8192, 8)])  # fmt: skip
def test_as_many_frames_as_the_queue_limits_allow_wait_and_the_next_is_lost(
    lab: Lab, line: str, size: int, most: int, beyond: int
) -> None:
    """An upload limit of a byte a second: one frame leaves, the others wait."""
    b = start(lab, line, "uplimit-conn 1", "uplimit-burst 1")
    source, target = active(lab, "A"), active(lab, "B")
    target.send_route_set([(mac(1), 0, 1)])
    target.fence()
    for number in range(1 + most + beyond):
        source.send_frame((mac(1) + mac(2) + b"\x88\xb5" + bytes([number])).ljust(size))
    source.fence()
    text = fresh(lab, b)
    assert count("= waiting", text) == min(most, most + beyond)
    assert count("queue_full", text) == max(beyond, 0)
    assert target.expect("frame")[1][14] == 0


@pytest.mark.parametrize("backlog", [1, 3])
def test_as_many_connections_as_listen_backlog_and_one_wait_for_a_daemon_that_does_not_accept(
    lab: Lab, backlog: int
) -> None:
    """The one more is Linux's way of counting; the next gets no answer until there is room."""
    b = start(lab, f"listen_backlog {backlog}", "handshake_timeout 3s")
    b.stop()
    with contextlib.ExitStack() as open_ones, lab.host("a").inside():
        for _ in range(backlog + 1):
            open_ones.enter_context(socket.create_connection((lab.wires[0].address("b"), PORT), timeout=5))
        late = open_ones.enter_context(socket.socket())
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect((lab.wires[0].address("b"), PORT))
    b.cont()
    active(lab).close()


def test_who_sends_its_first_packet_within_handshake_timeout_stays(lab: Lab) -> None:
    b = start(lab, "handshake_timeout 1s")
    begun = time.monotonic()
    late, silent = (link(lab, name, answer_echo=False) for name in ("late", "silent"))
    while time.monotonic() - begun < 0.6:
        late.poll(0.05)
    late.send_route_set([])
    silent.wait_end()
    assert time.monotonic() - begun == pytest.approx(1, abs=0.4)
    b.wait_log("no link to silent at .*no valid packet within handshake_timeout 1 s$")
    late.fence()
    assert "no link to late" not in b.log_text()


def test_pings_are_told_again_when_they_moved_by_more_than_report_ping_changes_above(lab: Lab) -> None:
    start(lab, "report_ping_changes_above 1s")
    source, listener = active(lab, "A"), active(lab, "B")
    source.send_route_set([(mac(1), 0, 5_000_000)])

    def told() -> int:
        diff = listener.expect(lambda one: one[0] == "route_diff" and any(entry[0] == mac(1) for entry in one[1]))
        return next(ping for one, _, ping in diff[1] if one == mac(1))

    before = told()
    for fence, moved in ((2, 999_999), (3, 1_000_000)):
        source.send_route_diff([(mac(1), 0, 5_000_000 + moved)])
        source.send_route_diff([(mac(fence), 0, 1)])
        listener.expect(lambda one, new=fence: one[0] == "route_diff" and any(entry[0] == mac(new) for entry in one[1]))
    source.send_route_diff([(mac(1), 0, 5_000_000 + 1_000_001)])
    assert told() == before + 1_000_001


@pytest.mark.parametrize("period", [0.1, 0.6])
def test_news_are_told_once_in_a_heartbeat(lab: Lab, period: float) -> None:
    start(lab, f"heartbeat {period * 1000:.0f}ms")
    source, listener = active(lab, "A"), active(lab, "B")
    listener.received.clear()
    end = time.monotonic() + 2
    number = 0
    while time.monotonic() < end:
        number += 1
        source.send_route_diff([(mac(1), 0, number * 1_000_000)])
        source.fence()
        listener.poll(0.01)
    diffs = sum(packet[0] == "route_diff" for packet in listener.received)
    assert number > 2 * diffs and abs(diffs - 2 / period) <= 2

# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad line between two daemons cuts anew, delays, stalls and resets: what comes is as it was, all else is counted.

    a: tap0, daemon -- lo -- proxy --w1-- b: tap0, daemon

A message is a frame whose number tells each byte of it. Both interfaces get messages as fast as those of the other side
come out. Where a message went is known by the daemons' counters: each sees what its TAP gives and takes, what it drops,
and what it gives to and gets from its link. What lies between, one's `to_links` less the other's `from_links`, can be
lost with a connection only: no more than was on the wire, as the proxy counts it, and in the buffers of the sockets.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.frames import ETH_P_ALL, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE, SOL_PACKET
from tests.netns.lab import Lab, Node

PORT, PROXY_PORT = 4000, 4001
PACKET_STATISTICS = 6
NOISE = bytes(place * place % 251 for place in range(1 << 16))
HEADERS = 14 + 8                # of Ethernet, and the number
SMALLEST = HEADERS + 38
WINDOW = 200                    # messages on their way
IDLE_SECONDS = 0.05             # without a message, until some more are sent: those on their way may have been lost
IDLE_BURST = 20
PATIENCE = 60                   # seconds without a message
KERNEL_BYTES = 65536            # a socket buffer, as address() limits it
# For each connection and way: those of the daemons and of the proxy, and a write of a daemon that waits for room.
BUFFERS = 4 * KERNEL_BYTES + 2 * 65536
ECHOES = 65536                  # bytes of packets without frames between two statuses, at most
STATUS = ["status_format json", "status-interval 100000"]
LASTING = ["conn_keepalive 1s", "conn_timeout 120s"]
IMPATIENT = ["conn_keepalive 200ms", "conn_timeout 1s", "conn_retry 100ms"]
COUNTS = [pytest.param(10_000, id="10000"), pytest.param(1_000_000, id="million", marks=pytest.mark.long)]


class Side:
    """One end: sends messages 0, 1, ... into its TAP and takes those of the other end from it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.host = lab.host(name)
        self.mac = self.host.mac("tap0")
        self.sent = self.got = 0
        self.last = -1          # message that came
        self.came_at = self.sent_at = time.monotonic()
        with self.host.inside():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.bind(("tap0", ETH_P_ALL))
        self.sock.setblocking(False)

    def send(self, other: Side, most: int) -> None:
        self.sent_at = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(most):
                self.sock.send(message(self.sent, other.mac, self.mac))
                self.sent += 1

    def take(self, other: Side) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.sock.recv(2048)
                number = int.from_bytes(data[14:HEADERS], "big")
                assert data == message(number, self.mac, other.mac), f"message {number} came as {data.hex()}"
                assert number > self.last, f"message {number} came after {self.last}"
                self.last = number
                self.got += 1
                self.came_at = time.monotonic()

    def assert_kernel_lost_none(self) -> None:
        _, dropped = struct.unpack("=II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        counters = self.host.counters("tap0")
        assert dropped == counters["tx_dropped"] == counters["rx_dropped"] == 0


def message(number: int, to: bytes, source: bytes) -> bytes:
    size = SMALLEST - HEADERS + number * 7919 % (1440 if number % 16 == 0 else 300)
    at = number * 31 % (len(NOISE) - 1500)
    return b"".join((to, source, b"\x88\xb5", number.to_bytes(8, "big"), NOISE[at : at + size]))


def exchange(lab: Lab, a: Side, b: Side, count: int) -> None:
    """`count` messages in all, half from each side, and as many more as it takes until the last one comes."""
    half = count // 2
    while min(a.sent, b.sent) < half or a.last < b.sent - 1 or b.last < a.sent - 1:
        now = time.monotonic()
        assert now - max(a.came_at, b.came_at) < PATIENCE, "\n".join(node.report() for node in lab.nodes)
        for one, other in ((a, b), (b, a)):
            one.take(other)
            if (room := min(other.last + 1 + WINDOW, half) - one.sent) > 0:
                one.send(other, room)
            elif other.last < one.sent - 1 and now - max(other.came_at, one.sent_at) > IDLE_SECONDS:
                one.send(other, IDLE_BURST)
        select.select([a.sock, b.sock], [], [], 0.002)


@contextlib.contextmanager
def noisy_wire(lab: Lab, target: str, seed: int, faults: list[str], every: int) -> Iterator[dict[str, Any]]:
    """The proxy in the namespace of `a`; what it reports is there after the block."""
    order = dict(listen=["127.0.0.1", PROXY_PORT], connect=[target, PORT], seed=seed, faults=faults, every=every,
                 stall=0.1, silence=2.0)
    report: dict[str, Any] = {}
    command = [sys.executable, Path(__file__).with_name("proxy.py"), json.dumps(order)]
    with subprocess.Popen(lab.host("a").command(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield report
            process.terminate()
            report |= json.loads(process.stdout.readline())
        finally:
            process.kill()


def address(lab: Lab) -> str:
    """That of `b`, on a wire whose sockets hold little; nothing but messages will come to the interfaces."""
    wire = lab.wire("a", "b")
    for host in map(lab.host, "ab"):
        host.run(["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1",
                  *(f"net.ipv4.tcp_{way}mem=4096 {KERNEL_BYTES} {KERNEL_BYTES}" for way in "rw")])
    return wire.address("b")


def facts(node: Node) -> dict[str, Any]:
    text = node.status_file.read_text() if node.status_file.exists() else ""
    return dict(json.loads(text)) if text else {}


def fresh(lab: Lab, node: Node) -> dict[str, Any]:
    """Facts gathered after this call."""
    before = facts(node).get("uptime_seconds", 0)
    lab.until(lambda: facts(node).get("uptime_seconds", 0) > before, 30, "a new status")
    return facts(node)


def play(lab: Lab, version: int, lines: list[str], faults: list[str], count: int, every: int) -> dict[str, Any]:
    """Exchanges the messages and accounts for them; what the proxy did, and what became of them."""
    target = address(lab)
    lines = ["iface yes", "iface_dev tap0", f"link_version {version}", *STATUS, *lines]
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", *lines)
    lab.until(lambda: b.host.is_listening(PORT), 60, "b")
    with noisy_wire(lab, target, count + version, faults, every) as report:
        nodes = [lab.node("a", f"connect 127.0.0.1 {PROXY_PORT}", *lines), b]
        lab.until(lambda: all(len(facts(node).get("routes", ())) == 2 for node in nodes), 60, "both ways")
        for node in nodes:  # queues as long as many messages that come at once
            node.host.ip("link set tap0 txqueuelen 10000")
        sides = [Side(lab, name) for name in "ab"]
        begun = time.monotonic()
        exchange(lab, *sides, count)
        report["seconds"] = time.monotonic() - begun
        ends = [fresh(lab, node) for node in nodes]
    for side, other, end in zip(sides, reversed(sides), ends, strict=True):
        side.take(other)
        side.assert_kernel_lost_none()
        side.sock.close()
        assert end["frames"]["from_interface"] == side.sent
        assert end["frames"]["to_interface"] == side.got
    lost_on_the_wire = 0
    for way in (0, 1):
        one, other = ends[way], ends[1 - way]
        lost = one["frames"]["to_links"] - other["frames"]["from_links"]
        lost_bytes = one["traffic"]["sent"]["bytes"] - other["traffic"]["received"]["bytes"]
        on_the_wire = report["came"][way] - report["passed"][way]
        assert 0 <= lost * SMALLEST <= lost_bytes + ECHOES
        assert lost_bytes <= on_the_wire + report["ended"] * BUFFERS + ECHOES
        lost_on_the_wire += lost
    dropped = Counter(ends[0]["dropped"]) + Counter(ends[1]["dropped"])
    copies = sum(end["frames"]["copies"] for end in ends)
    sent, got = sum(side.sent for side in sides), sum(side.got for side in sides)
    assert sent + copies == got + sum(dropped.values()) + lost_on_the_wire
    print(f"version {version}: {sent} sent, {got} came, dropped {dict(dropped)}, {lost_on_the_wire} lost with links")
    print(report)
    return report | {"sent": sent, "got": got, "dropped": dropped, "lost": lost_on_the_wire, "ends": ends}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_wire_that_cuts_delays_and_stalls_loses_and_changes_nothing(lab: Lab, version: int, count: int) -> None:
    done = play(lab, version, LASTING, ["stall"], count, count * 20)
    assert done["single_bytes"] and done["delays"] and done["faults"]["stall"] >= 3
    assert done["connections"] == 1 and done["ended"] == done["lost"] == 0
    assert done["dropped"].keys() <= {"queue_full"}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_wire_that_also_breaks_loses_only_what_is_counted_or_was_on_it(lab: Lab, version: int, count: int) -> None:
    done = play(lab, version, IMPATIENT, ["stall", "reset", "silence", "reset"], count, max(count * 4, 250_000))
    assert done["single_bytes"] and done["delays"] and done["faults"].keys() == {"stall", "reset", "silence"}
    assert done["connections"] >= done["ended"] >= 2
    assert any("no echo reply for conn_timeout" in node.log_text() for node in lab.nodes)
    assert all(end["events"]["links_lost"] for end in done["ends"])

# SPDX-License-Identifier: GPL-3.0-or-later
"""Bandwidth limits of real daemons: what arrives in some seconds, to 5 %.

    hub: tap0, daemon --w1-- p1: tap0, daemon
                      --w2-- p2 ...
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.netns.frames import SO_RCVBUFFORCE
from tests.netns.lab import Lab, Node
from tests.netns.repeating import repeating
from tests.netns.test_offloads import UDP_SEGMENT
from tests.netns.test_queues import count, fresh

pytestmark = pytest.mark.alone  # rates are asked for

PORT = 4000
SINK = 5001
MB = 1_000_000
DATAGRAM_BYTES = 1400
FRAME_BYTES = 14 + 20 + 8 + DATAGRAM_BYTES
GRAIN = 0.004   # seconds between two sendings
HUB = "10.9.0.100"
RUNS = [pytest.param(2, id="2 s"), pytest.param(10, id="10 s", marks=pytest.mark.long)]


def make_star(lab: Lab, peers: int, *lines: str, offload: str = "yes") -> list[Node]:
    """The hub, which takes the lines, and its peers 10.9.0.1, ..."""
    common = ["iface yes", "iface_dev tap0", f"iface_offload {offload}"]
    wires = [lab.wire("hub", f"p{number}") for number in range(1, peers + 1)]
    nodes = [lab.node("hub", f"listen 0.0.0.0 {PORT}", *common, f"iface_address {HUB}/24", *lines)]
    for number, wire in enumerate(wires, start=1):
        nodes.append(lab.node(f"p{number}", f"connect {wire.address('hub')} {PORT}", "conn_retry 200ms", *common,
                              f"iface_address 10.9.0.{number}/24"))
    for number in range(1, peers + 1):
        lab.wait_for_ping("hub", f"10.9.0.{number}")
    return nodes


def receiver(lab: Lab, host: str) -> socket.socket:
    with lab.host(host).inside():
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    sink.bind(("0.0.0.0", SINK))
    sink.setblocking(False)
    return sink


@contextlib.contextmanager
def flood(lab: Lab, host: str, addresses: Sequence[str], rate: int, together: int = 1) -> Iterator[None]:
    """Frames of this rate (B/s) to each address while the block runs, `together` in a super-frame."""
    socks = []
    owed = before = 0.0

    def send() -> None:
        nonlocal owed, before
        now = time.monotonic()
        owed, before = owed + (now - before) * rate / FRAME_BYTES / together, now
        while owed >= 1:
            owed -= 1
            for sock in socks:
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    sock.send(bytes(DATAGRAM_BYTES * together), socket.MSG_DONTWAIT)

    with contextlib.ExitStack() as stack:
        for address in addresses:
            with lab.host(host).inside():
                socks.append(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            socks[-1].connect((address, SINK))
            socks[-1].setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_BYTES)
        before = time.monotonic()
        with repeating(send, GRAIN):
            yield


def drain(sink: socket.socket) -> dict[str, int]:
    """Bytes of frames by sender."""
    got: dict[str, int] = {}
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (sender, _) = sink.recvfrom(2048)
            assert len(data) == DATAGRAM_BYTES
            got[sender] = got.get(sender, 0) + FRAME_BYTES
    return got


def measure(sinks: Sequence[socket.socket], seconds: float) -> tuple[list[dict[str, int]], float]:
    """What arrives at each sink while the time passes, and how many seconds it really took."""
    for sink in sinks:
        drain(sink)
    begun = time.monotonic()
    arrived: list[dict[str, int]] = [{} for _ in sinks]
    while (taken := time.monotonic() - begun) < seconds:
        for sink, so_far in zip(sinks, arrived, strict=True):
            for sender, size in drain(sink).items():
                so_far[sender] = so_far.get(sender, 0) + size
        time.sleep(0.02)
    return arrived, taken


@pytest.mark.parametrize("seconds", RUNS)
@pytest.mark.parametrize(("peers", "rate", "together"), [(1, MB, 1), (1, 10 * MB, 40), (3, MB, 1), (3, 6 * MB, 20),
                         pytest.param(10, MB, 1, marks=pytest.mark.long)])  # fmt: skip
def test_uplimit_total_is_what_arrives_in_equal_shares(
    lab: Lab, peers: int, rate: int, together: int, seconds: int
) -> None:
    hub, *_ = make_star(lab, peers, f"uplimit-total {rate}")
    sinks = [receiver(lab, f"p{number}") for number in range(1, peers + 1)]
    with flood(lab, "hub", [f"10.9.0.{number}" for number in range(1, peers + 1)], 3 * rate // peers, together):
        lab.until(lambda: select.select(sinks, [], [], 0)[0] == sinks, 5, "the first frames")
        arrived, taken = measure(sinks, seconds)
    got = [sum(one.values()) for one in arrived]
    assert sum(got) == pytest.approx(rate * taken, rel=0.05)
    # The hub's interface is one queue for all of them, and what it lost there no share can bring back.
    assert got == pytest.approx([rate * taken / peers] * peers, rel=0.1)
    assert "link down" not in hub.log_text()


@pytest.mark.parametrize("seconds", RUNS)
def test_uplimit_conn_holds_for_each_link(lab: Lab, seconds: int) -> None:
    make_star(lab, 2, f"uplimit-conn {MB}", offload="no")
    sinks = [receiver(lab, name) for name in ("p1", "p2")]
    with flood(lab, "hub", ["10.9.0.1", "10.9.0.2"], 2 * MB):
        lab.until(lambda: select.select(sinks, [], [], 0)[0] == sinks, 5, "the first frames")
        arrived, taken = measure(sinks, seconds)
    assert [sum(one.values()) for one in arrived] == pytest.approx([MB * taken] * 2, rel=0.05)


@pytest.mark.parametrize("seconds", RUNS)
@pytest.mark.parametrize(("peers", "line", "rate"), [(1, "downlimit-conn", MB), (3, "downlimit-total", 3 * MB),
                         pytest.param(10, "downlimit-total", MB, marks=pytest.mark.long)])  # fmt: skip
def test_what_arrives_over_a_downlimit_is_dropped_and_counted(
    lab: Lab, peers: int, line: str, rate: int, seconds: int
) -> None:
    hub, *_ = make_star(lab, peers, f"{line} {rate}")
    sink = receiver(lab, "hub")
    with contextlib.ExitStack() as floods:
        for number in range(1, peers + 1):
            floods.enter_context(flood(lab, f"p{number}", [HUB], (1 + number) * rate // peers, 1))
        heard = set[str]()
        lab.until(lambda: heard.update(drain(sink)) or len(heard) == peers, 5, "the first frames")
        (arrived,), taken = measure([sink], seconds)
        dropped = count("downlimit", fresh(lab, hub))
    assert sum(arrived.values()) == pytest.approx(rate * taken, rel=0.05)
    assert list(arrived.values()) == pytest.approx([rate * taken / peers] * peers, rel=0.1)
    assert dropped > 0


def test_behind_a_full_upload_limit_echoes_and_routes_pass_at_once(lab: Lab) -> None:
    """256 frames wait, 18 seconds at this limit; the peer would be given up after 1."""
    soon = ["conn_keepalive 100ms", "conn_timeout 1s"]
    hub, _ = make_star(lab, 1, "uplimit-conn 20k", *soon, offload="no")
    sink = receiver(lab, "p1")
    pings = []
    with flood(lab, "hub", ["10.9.0.1"], 2 * MB):
        lab.until(lambda: "= waiting 256 frames" in fresh(lab, hub), 10, "a full queue")
        for _ in range(10):
            text = fresh(lab, hub)
            assert count("= waiting", text) > 250
            pings.append(hub.status().links[0].ping)
        drain(sink)
        arrived, taken = measure([sink], 1)
    assert max(pings) < 100_000, f"{pings} us"
    assert sum(arrived[0].values()) < 25_000 * taken
    assert not re.search("link (down|up).*\n.*link (down|up)", hub.log_text()), hub.report()


def test_a_limit_is_changed_by_sighup(lab: Lab) -> None:
    hub, _ = make_star(lab, 1, f"uplimit-total {MB}")
    sink = receiver(lab, "p1")
    with flood(lab, "hub", ["10.9.0.1"], 6 * MB):
        for rate in (MB, 4 * MB):
            hub.config.write_text(hub.config.read_text() + f"uplimit-total {rate}\n")
            hub.signal(1)
            hub.wait_log("SIGHUP: the configuration, .* are in use", 5, 1 + (rate != MB))
            arrived, taken = measure([sink], 1)
            assert sum(arrived[0].values()) == pytest.approx(rate * taken, rel=0.05)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Large frames of all ways of making and cutting them pass a relay unchanged, both ways at once.

    a (version 2, offloads) --w1-- r --w2-- b (version 1, offloads)
                                   r --w3-- c (version 2, without offloads)

TCP would send a damaged segment again and the stream would look whole, so the kernel's counters of bad checksums are
looked at, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import re
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.netns.lab import Lab, Node
from tests.netns.test_offloads import UDP_SEGMENT

PORT = 4000
ADDRESSES = {"a": "10.9.0.1", "b": "10.9.0.2", "c": "10.9.0.3"}
STREAMS = 2     # for each ordered pair of nodes
DIGEST_BYTES = hashlib.sha256().digest_size
PIECES_MAX = 64     # of one UDP_SEGMENT, in all kernels that have it
DATAGRAMS_BYTES_MAX = 60_000


def make_star(lab: Lab, mtu: int, versions: Sequence[int], unoffloaded: str = "") -> dict[str, Node]:
    """A headless relay, and a node with a TAP for each version."""
    names = "abc"[: len(versions)]
    wires = {name: lab.wire("r", name) for name in names}
    nodes = {"r": lab.node("r", f"listen 0.0.0.0 {PORT}")}
    for name, version in zip(names, versions, strict=True):
        nodes[name] = lab.node(
            name, "iface yes", "iface_dev tap0", f"iface_address {ADDRESSES[name]}/24", f"iface_mtu {mtu}",
            f"iface_offload {'no' if name in unoffloaded else 'yes'}", "conn_retry 1s", f"link_version {version}",
            f"connect {wires[name].address('r')} {PORT}")  # fmt: skip
    for source, target in itertools.permutations(names, 2):
        lab.wait_for_ping(source, ADDRESSES[target])
    for name, version in zip(names, versions, strict=True):
        nodes["r"].wait_log(f"link up: {name} .*version {version}$")
    return nodes


# Streams


def send_stream(lab: Lab, source: str, target: str, number: int, size: int) -> tuple[str, str]:
    """The digests of what was sent and of what arrived."""
    where = (ADDRESSES[target], 5000 + number)
    with lab.host(target).inside():
        listener = socket.create_server(where)
    with lab.host(source).inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener, sender, ThreadPoolExecutor(1) as pool:
        sender.settimeout(120)
        listener.settimeout(120)
        sender.connect(where)
        receiver, _ = listener.accept()
        sent = pool.submit(send_seeded, sender, number, size)
        arrived = hashlib.sha256()
        with receiver:
            receiver.settimeout(120)
            while part := receiver.recv(1 << 20):
                arrived.update(part)
        return sent.result(), arrived.hexdigest()


def send_seeded(sender: socket.socket, seed: int, size: int) -> str:
    """Pieces of all sizes out of a megabyte, so that segments begin anywhere in it."""
    source = random.Random(seed)
    data = memoryview(source.randbytes(1 << 20))
    sent = hashlib.sha256()
    while size:
        start = source.randrange(len(data))
        part = data[start : start + min(size, source.choice((1, 700, 1500, 9000, 70_000, 1 << 20)))]
        sender.sendall(part)
        sent.update(part)
        size -= len(part)
    sender.shutdown(socket.SHUT_WR)
    return sent.hexdigest()


# Datagrams


@contextlib.contextmanager
def datagrams(lab: Lab, source: str, target: str, mtu: int) -> Iterator[list[int]]:
    """Sends datagrams, many in each call, while the block runs; in the end, how many arrived whole and damaged."""
    where = (ADDRESSES[target], 6000)
    with lab.host(target).inside():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.host(source).inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    over = threading.Event()
    arrived = [0, 0]

    def send() -> None:
        seeded = random.Random(f"{source} {target}")
        while not over.wait(0.01):
            size = seeded.randint(DIGEST_BYTES + 1, mtu - 28)
            count = min(PIECES_MAX, DATAGRAMS_BYTES_MAX // size)
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            bodies = [seeded.randbytes(size - DIGEST_BYTES) for _ in range(count)]
            sender.sendto(b"".join(hashlib.sha256(body).digest() + body for body in bodies), where)

    def receive() -> None:
        while select.select([receiver], [], [], 0.5)[0] or not over.is_set():
            data = receiver.recv(65536)
            arrived[hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]] += 1

    with receiver, sender, ThreadPoolExecutor(2) as pool:
        receiver.settimeout(120)
        receiver.bind(where)
        work = [pool.submit(send), pool.submit(receive)]
        try:
            yield arrived
        finally:
            over.set()
            for one in work:
                one.result()


def checksum_errors(lab: Lab, name: str) -> int:
    """Of TCP and UDP, since the host was made."""
    lines = lab.host(name).run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    tables = {head.split()[0]: dict(zip(head.split(), values.split(), strict=True))
              for head, values in zip(lines[::2], lines[1::2], strict=True)}
    return int(tables["Tcp:"]["InCsumErrors"]) + int(tables["Udp:"]["InCsumErrors"])


def carry(lab: Lab, nodes: dict[str, Node], mtu: int, stream_bytes: int) -> None:
    """Streams and datagrams between all nodes with a TAP at once; the caller's sizes are of one stream."""
    names = [name for name in nodes if name != "r"]
    pairs = list(itertools.permutations(names, 2))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(pairs) * STREAMS) as pool:
        counts = [stack.enter_context(datagrams(lab, source, target, mtu)) for source, target in pairs[:2]]
        streams = [pool.submit(send_stream, lab, source, target, number, stream_bytes)
                   for number, (source, target) in enumerate(pairs * STREAMS)]
        for stream in streams:
            sent, arrived = stream.result()
            assert sent == arrived
        # Some may be lost where a queue is full, none may be damaged.
        lab.until(lambda: all(whole > 100 for whole, _ in counts), 10, f"datagrams: {counts}")
    assert [damaged for _, damaged in counts] == [0] * len(counts), counts
    for name, node in nodes.items():
        assert checksum_errors(lab, name) == 0, name
        dropped = re.search(r"^dropped: (.*)$", node.status().text, re.MULTILINE)
        assert dropped is not None and "bad_offload 0" in dropped[1] and "long 0" in dropped[1], dropped
        assert "Traceback" not in node.log_text() and "link down" not in node.log_text()


@pytest.mark.parametrize("mtu", [1500, 8000])
def test_streams_and_datagrams_pass_a_relay_between_the_versions_unchanged(lab: Lab, mtu: int) -> None:
    carry(lab, make_star(lab, mtu, (2, 1)), mtu, 20_000_000)


@pytest.mark.parametrize("mtu", [1500, 8000])
def test_they_pass_between_three_nodes_of_both_versions_with_and_without_offloads(lab: Lab, mtu: int) -> None:
    carry(lab, make_star(lab, mtu, (2, 1, 2), unoffloaded="c"), mtu, 5_000_000)


@pytest.mark.long
@pytest.mark.parametrize("mtu", [1500, 8000])
def test_ten_gigabytes_pass_unchanged(lab: Lab, mtu: int) -> None:
    carry(lab, make_star(lab, mtu, (2, 1, 2), unoffloaded="c"), mtu, 10_000_000_000 // (6 * STREAMS))


# Pings


def test_no_ping_is_lost_while_a_stream_fills_the_relay(lab: Lab) -> None:
    nodes = make_star(lab, 1500, (2, 2))
    r = nodes["r"]

    def relayed() -> int:
        found = re.search(r"from links (\d+)", r.status().text)
        return int(found[1]) if found else 0

    with ThreadPoolExecutor(1) as pool:
        before = relayed()
        load = pool.submit(lab.iperf3, "a", "b", ADDRESSES["b"], seconds=5)
        lab.until(lambda: relayed() > before + 10_000, 10, "the load")
        ping = lab.host("a").ping(ADDRESSES["b"], 200, 0.01)
        assert not load.done(), "the load ended before the pings"
        rate, _ = load.result()
    assert rate > 10
    assert (ping.sent, ping.received) == (200, 200)

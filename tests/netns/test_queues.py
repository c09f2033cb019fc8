# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits for a slow or stopped peer is bounded, stands nobody else in the way and lets echo packets pass.

    played:  a: tap0, daemon --w1-- b: version-1 peers in this process        star:  a --w1-- r --w2-- b
                                                                                          r --w3-- c

How much a peer that does not read has taken is the growth of `<< out ... total` of its link from the moment it stopped:
the bytes given to the transport. They stand in the transport, in our kernel and in the peer's. What waits in the queue
before the transport has not been given away and does not count. The peer's kernel takes what its receive buffer holds;
that begins with 128 KiB, and Linux lets it grow to several megabytes with the traffic, which we cannot bound from our
side. So on a fresh link the whole is bounded, on a used one what stands on our side: the whole less Recv-Q of the peer.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.golden.v1peer import V1Peer, dial, tls_context
from tests.netns.keys import identity
from tests.netns.lab import Lab, Node
from tests.netns.repeating import repeating
from tests.netns.test_offloads import UDP_SEGMENT

pytestmark = pytest.mark.alone  # rates are asked for

PORT = 4000
KIB = 1024
PAUSE_BYTES = 512 * KIB
DATAGRAM_BYTES = 1400
BURST = 40
X, Y = bytes.fromhex("020000000011"), bytes.fromhex("020000000022")
PATIENT = ["conn_keepalive 60s", "conn_timeout 600s"]
SLOW_BYTES = 10_000_000 // 8    # a second
SLOW = "tbf rate 10mbit burst 32kb latency 200ms"
TIMEOUT = 3
UNITS = {"B": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3}


# What a status says


def fresh(lab: Lab, node: Node) -> str:
    """A status that was begun after this call."""
    before = node.status().uptime or 0.0
    lab.until(lambda: (node.status().uptime or 0) > before, 30, "a new status")
    return node.status().text


def count(name: str, text: str) -> int:
    """The number that stands next to the name, before `reads`, after all others."""
    found = re.search(rf"{name} (\d+)" if name != "reads" else r"(\d+) reads", text)
    assert found, f"no {name} in\n{text}"
    return int(found[1])


def recv_q(lab: Lab, host: str) -> int:
    """Bytes in the kernel that the process behind the host's only link has not read."""
    (line,) = lab.host(host).run(["ss", "-Htn", "state", "established"]).stdout.splitlines()
    return int(line.split()[0])


def link_to(lab: Lab, node: Node, address: str) -> str:
    fresh(lab, node)
    texts = [link.text for link in node.status().links if f"`{address} " in link.text]
    assert len(texts) == 1, node.status().text
    return texts[0]


def bytes_out(link: str) -> int:
    """Exact to 10 bytes below 1 MiB, to 10 KiB above."""
    found = re.search(r"<< out .*; total ([\d.]+)([KMG]?i?B),", link)
    assert found, link
    return int(float(found[1]) * UNITS[found[2]])


def still(lab: Lab, read: Callable[[], int]) -> int:
    """The number, once three statuses in a row have said the same."""
    seen: list[int] = []

    def is_still() -> bool:
        seen.append(read())
        return len(seen) >= 3 and len(set(seen[-3:])) == 1

    lab.until(is_still, 20, "a number that stands still")
    return seen[-1]


# Load


def shoot(lab: Lab, host: str, address: str, datagrams: int) -> None:
    """As fast as the kernel takes them; what the interface has no room for is lost there."""
    with lab.host(host).inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(datagrams):
            with contextlib.suppress(BlockingIOError):
                sender.sendto(bytes(DATAGRAM_BYTES), socket.MSG_DONTWAIT, (address, 5001))


@contextlib.contextmanager
def flood(lab: Lab, host: str, address: str) -> Iterator[None]:
    """About 90 Mbit/s of datagrams, 40 in each super-frame, while the block runs."""
    with lab.host(host).inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            sender.sendto(bytes(DATAGRAM_BYTES * BURST), socket.MSG_DONTWAIT, (address, 5001))

    with sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_BYTES)
        with repeating(send, 0.005):
            yield


# A peer that does not read


def make_played(lab: Lab, **peers: bytes) -> tuple[Node, list[V1Peer]]:
    """Node a, whose kernel knows the peers' MACs as 10.9.0.11, .12 and so on, and the peers, linked."""
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_dev tap0", "iface_address 10.9.0.1/24", *PATIENT)
    lab.until(lambda: lab.host("a").is_listening(PORT), 15, "the daemon's listening socket")
    linked = []
    for place, (name, mac) in enumerate(peers.items(), start=11):
        lab.host("a").ip(f"neigh add 10.9.0.{place} lladdr {mac.hex(':')} nud permanent dev tap0")
        with lab.host("b").inside():
            peer = dial((wire.address("a"), PORT), tls_context(False, *identity(name)))
        peer.send_route_set([(mac, 0, 1)])
        peer.expect("route_set")
        peer.expect("echo_request")
        peer.fence()
        linked.append(peer)
    lab.until(lambda: all(mac.hex(":") in a.status().routes for mac in peers.values()), 10, "the routes")
    return a, linked


def datagrams_of(peer: V1Peer) -> int:
    return sum(packet[0] == "frame" and len(packet[1]) == DATAGRAM_BYTES + 42 for packet in peer.received)


def pass_on(lab: Lab, address: str, peer: V1Peer) -> None:
    """100 datagrams, all of which arrive."""
    before = datagrams_of(peer)
    shoot(lab, "a", address, 100)
    peer.wait(lambda: datagrams_of(peer) == before + 100, 10, "the datagrams")


def drain(lab: Lab, peer: V1Peer) -> None:
    """The peer reads until nothing comes any more."""
    lab.until(lambda: not peer.poll(0.2), 20, "the end of what waited")


@pytest.mark.parametrize("is_fresh", [True, False], ids=["fresh_link", "used_link"])
def test_for_a_peer_that_does_not_read_at_most_512_kib_are_taken_from_the_interface(lab: Lab, is_fresh: bool) -> None:
    a, (peer,) = make_played(lab, A=X)
    address = lab.wires[0].address("b")

    def taken_in_all() -> int:
        shoot(lab, "a", "10.9.0.11", 500)
        return bytes_out(link_to(lab, a, address))

    with peer:
        for _ in range(0 if is_fresh else 20):  # few enough at once for the interface's queue
            pass_on(lab, "10.9.0.11", peer)
        before, arrived = bytes_out(link_to(lab, a, address)), datagrams_of(peer)
        taken = still(lab, taken_in_all) - before
        ours = taken - recv_q(lab, "b")
        assert 4 * KIB < (taken if is_fresh else ours) <= PAUSE_BYTES, f"{taken} bytes, {ours} of them on our side"

        reads, lost = count("reads", fresh(lab, a)), lab.host("a").counters("tap0")["tx_dropped"]
        shoot(lab, "a", "10.9.0.11", 2000)
        assert lab.host("a").counters("tap0")["tx_dropped"] > lost, "the interface's queue was not full"
        text = fresh(lab, a)
        assert (count("reads", text), count("queue_full", text)) == (reads, 0)

        peer.wait(lambda: datagrams_of(peer) > arrived + taken // DATAGRAM_BYTES, 10, "what waited")
        drain(lab, peer)
        pass_on(lab, "10.9.0.11", peer)
        text = fresh(lab, a)
        assert (count("queue_full", text), count("link_closed", text)) == (0, 0)
        peer.wait(lambda: sum(packet[0] in ("frame", "broadcast") for packet in peer.received)
                  >= count("to links", a.status().text), 10, "all that was taken from the interface")


def test_while_one_of_two_peers_reads_its_frames_go_on_and_the_others_are_dropped(lab: Lab) -> None:
    a, (stopped, reader) = make_played(lab, A=X, B=Y)
    with stopped, reader:
        shoot(lab, "a", "10.9.0.11", 1000)
        lab.until(lambda: shoot(lab, "a", "10.9.0.11", 100) or count("queue_full", fresh(lab, a)), 20, "a full queue")
        pass_on(lab, "10.9.0.12", reader)

        def reads_now() -> int:
            shoot(lab, "a", "10.9.0.12", 500)
            return count("reads", fresh(lab, a))

        reads = still(lab, reads_now)   # now neither peer reads
        full = count("queue_full", fresh(lab, a))
        shoot(lab, "a", "10.9.0.12", 500)
        text = fresh(lab, a)
        assert (count("reads", text), count("queue_full", text)) == (reads, full)
        drain(lab, reader)
        assert count("reads", fresh(lab, a)) > reads
        pass_on(lab, "10.9.0.12", reader)


@pytest.mark.parametrize("version", [1, 2])
def test_a_stopped_daemon_takes_512_kib_and_goes_on_when_it_runs_again(lab: Lab, version: int) -> None:
    wire = lab.wire("a", "b")
    common = ["iface yes", "iface_dev tap0", "conn_retry 1s", *PATIENT]
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", *common, "iface_address 10.9.0.1/24", f"link_version {version}")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", *common, "iface_address 10.9.0.2/24")
    lab.wait_for_ping("a", "10.9.0.2")
    mac = lab.host("b").mac("tap0").hex(":")
    lab.host("a").ip(f"neigh replace 10.9.0.2 lladdr {mac} nud permanent dev tap0")
    b.stop()
    before = bytes_out(link_to(lab, a, wire.address("b")))
    with flood(lab, "a", "10.9.0.2"):
        taken = still(lab, lambda: bytes_out(link_to(lab, a, wire.address("b")))) - before
        reads = count("reads", fresh(lab, a))
        text = fresh(lab, a)
    assert 4 * KIB < taken <= PAUSE_BYTES, f"{taken} bytes"
    assert (count("reads", text), count("queue_full", text)) == (reads, 0)
    b.cont()
    lab.wait_for_ping("a", "10.9.0.2")
    text = fresh(lab, a)
    assert count("reads", text) > reads and count("queue_full", text) == 0
    assert "link down" not in a.log_text() + b.log_text()


# A link that is slow


def make_star(lab: Lab, *lines: str, offload: str = "yes") -> dict[str, Node]:
    """r takes the lines; its wire to b carries 10 Mbit/s from r."""
    wires = {name: lab.wire("r", name) for name in "abc"}
    soon = ["conn_retry 1s", "conn_keepalive 200ms", f"conn_timeout {TIMEOUT}s"]
    nodes = {"r": lab.node("r", f"listen 0.0.0.0 {PORT}", *soon, *lines)}
    for number, name in enumerate("abc", start=1):
        nodes[name] = lab.node(name, f"connect {wires[name].address('r')} {PORT}", *soon, "iface yes", "iface_dev tap0",
                               f"iface_address 10.9.0.{number}/24", f"iface_offload {offload}")
    for target in ("10.9.0.2", "10.9.0.3"):
        lab.wait_for_ping("a", target)
    mac = lab.host("b").mac("tap0").hex(":")
    lab.host("a").ip(f"neigh replace 10.9.0.2 lladdr {mac} nud permanent dev tap0")
    lab.host("r").run(["tc", "qdisc", "add", "dev", wires["b"].iface, "root", *SLOW.split()])
    return nodes


def test_a_slow_link_delays_no_other_link(lab: Lab) -> None:
    nodes = make_star(lab)
    with flood(lab, "a", "10.9.0.2"):
        lab.until(lambda: count("queue_full", fresh(lab, nodes["r"])) > 0, 20, "a full queue of the slow link")
        begun = count("queue_full", fresh(lab, nodes["r"]))
        ping = lab.host("a").ping("10.9.0.3", 100, 0.02)
        assert count("queue_full", fresh(lab, nodes["r"])) > begun, "the slow link was not full all the time"
    assert (ping.sent, ping.received) == (100, 100)
    # Alone it is below 1 ms; behind the megabyte that waits for b it would be 800 ms.
    assert ping.avg_ms < 50, ping
    # A relay that stopped to read would make a's own queue run over.
    assert count("queue_full", fresh(lab, nodes["a"])) == 0
    assert "link down" not in "".join(node.log_text() for node in nodes.values())


def test_echo_packets_overtake_the_frames_that_wait_on_a_slow_link(lab: Lab) -> None:
    """6 MB take almost 5 seconds at 10 Mbit/s: behind them no echo would arrive within conn_timeout."""
    nodes = make_star(lab, "max_waiting_data_bytes 6M", "max_waiting_data_packets 100000", offload="no")
    r, address = nodes["r"], lab.wires[1].address("b")
    waiting = []
    with flood(lab, "a", "10.9.0.2"):
        lab.until(lambda: count("queue_full", fresh(lab, r)) > 0, 20, "a full queue of the slow link")
        full = r.status().uptime or 0
        while (r.status().uptime or 0) < full + TIMEOUT + 1:
            waiting.append(count("= waiting", link_to(lab, r, address)))
    # A packet is a frame here.
    assert min(waiting) * DATAGRAM_BYTES > TIMEOUT * SLOW_BYTES, waiting
    assert "link down" not in r.log_text() + nodes["b"].log_text()

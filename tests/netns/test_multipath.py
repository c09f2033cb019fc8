# SPDX-License-Identifier: GPL-3.0-or-later
"""Two clients over three relays, the picture of 2009; each relay's wires carry 20 Mbit/s each way.

         --w1-- s1 --w2--
        /                \\
       o --w3-- s2 --w4-- p         o, p: tap0, multipath
        \\                /          s1, s2, s3: no interface
         --w5-- s3 --w6--
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess

import pytest

from tests.netns.lab import Lab, Node

PORT = 4000
SLOW = "tbf rate 20mbit burst 32kb latency 50ms"
RELAYS = ("s1", "s2", "s3")
INTERVAL = 0.02     # seconds between two pings
SENDERS, OFFERED = 3, "35M"
SETTLED = 2     # seconds, of which each has ten pings


def make_picture(lab: Lab, *lines: str) -> dict[str, Node]:
    wires = {(relay, client): lab.wire(client, relay) for relay in RELAYS for client in "op"}
    for pair, wire in wires.items():
        for name in pair:
            lab.host(name).run(["tc", "qdisc", "add", "dev", wire.iface, "root", *SLOW.split()])
    common = ["conn_retry 500ms", "conn_keepalive 200ms", *lines]
    nodes = {relay: lab.node(relay, f"listen 0.0.0.0 {PORT}", *common) for relay in RELAYS}
    for number, client in enumerate("op", start=1):
        nodes[client] = lab.node(
            client, *(f"connect {wires[relay, client].address(relay)} {PORT}" for relay in RELAYS), *common,
            "multipath yes", "iface yes", "iface_dev tap0", f"iface_address 10.9.0.{number}/24")
    for client in "op":
        lab.until(lambda client=client: ways(nodes, client) == 3, 20, f"three ways from {client}")
    lab.wait_for_ping("o", "10.9.0.2")
    return nodes


def ways(nodes: dict[str, Node], client: str, margin: float = 1.4) -> int:
    """Links whose peer is so much nearer to the other client than this one ever was."""
    other, status = id_of_other(nodes, client), nodes[client].status()
    return sum(other in status.labels and other in link.labels
               and margin * link.labels[other] < status.labels[other] for link in status.links)


def id_of_other(nodes: dict[str, Node], client: str) -> str:
    return nodes["op".replace(client, "")].status().node or "not known yet"


def are_told(nodes: dict[str, Node]) -> bool:
    """Whether the first pings are over and each client has heard how near the relays were found to be.

    Of small changes it hears after 10 s. Until then its own label may fall below that of a relay, which gets nothing.
    """
    if any((node.status().uptime or 0) < SETTLED for node in nodes.values()):
        return False
    for client in "op":
        other = id_of_other(nodes, client)
        for link in nodes[client].status().links:
            (relay,) = (relay for relay in RELAYS if f"certificate `{relay}'" in link.text)
            known = nodes[relay].status().labels
            if other not in known or other not in link.labels or link.labels[other] > 1.5 * known[other]:
                return False
    return True


def udp_rate(lab: Lab) -> float:
    """What arrives of more than all relays can carry, Mbit/s."""
    rate, _ = lab.iperf3("o", "p", "10.9.0.2", "-u", "-P", SENDERS, "-b", OFFERED, "-l", 1400, seconds=3)
    return rate


@pytest.mark.alone
def test_the_throughput_of_three_relays_adds_up(lab: Lab) -> None:
    nodes = make_picture(lab)
    lab.until(lambda: are_told(nodes), 40, "what the relays have measured is known")
    assert [ways(nodes, client, 1) for client in "op"] == [3, 3]
    together = udp_rate(lab)
    for relay in RELAYS[1:]:
        nodes[relay].kill()
    for client in "op":
        lab.until(lambda client=client: len(nodes[client].status().links) == 1, 10, f"one way from {client}")
    alone = udp_rate(lab)
    assert 10 < alone < 20, "a relay's wires carry 20 Mbit/s"
    assert together > 2.4 * alone, (together, alone)


def test_tcp_works_over_scattered_ways(lab: Lab) -> None:
    make_picture(lab)
    for options in ((), ("-R",), ("-P", 4)):
        rate, _ = lab.iperf3("o", "p", "10.9.0.2", *options, seconds=2)
        assert rate > 5


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_when_a_relay_is_lost_the_clients_hear_each_other_within_a_second(lab: Lab, how: str) -> None:
    nodes = make_picture(lab, "conn_timeout 1s")
    heard = lab.directory / "heard"
    with heard.open("w") as out, subprocess.Popen(
        lab.host("o").command(["ping", "-n", "-i", INTERVAL, "-W", 1, "10.9.0.2"]), stdout=out
    ) as ping:
        try:
            lab.until(lambda: len(answered(heard.read_text())) > 50, 10, "answers before the fault")
            lost = max(RELAYS, key=lambda relay: passed(nodes[relay]))
            if how == "killed":
                nodes[lost].kill()
            else:
                nodes[lost].stop()
            for client in "op":
                nodes[client].wait_log(f"link down: {lost} at", 10)
            last = max(answered(heard.read_text()))
            lab.until(lambda: max(answered(heard.read_text())) > last + 100, 10, "answers after the fault")
        finally:
            ping.send_signal(signal.SIGINT)
            ping.wait()
    numbers = sorted(answered(heard.read_text()))
    gaps = [after - before - 1 for before, after in itertools.pairwise(numbers)]
    assert max(gaps) * INTERVAL < 1, gaps
    assert how == "killed" or max(gaps) > 0, "nothing was lost: no frame went by the relay"


def passed(node: Node) -> int:
    """Frames that it has passed on."""
    found = re.search(r"^frames: .* to links (\d+),", node.status().text, re.MULTILINE)
    return int(found[1]) if found else 0


def answered(text: str) -> list[int]:
    """Numbers of the pings that were answered."""
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)]

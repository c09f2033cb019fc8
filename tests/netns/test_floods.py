# SPDX-License-Identifier: GPL-3.0-or-later
"""Strangers that come in floods, are silent, or find no descriptor left: members go on, and new ones come in.

    a: flooder, 64 addresses --w1-- b: daemon under attack, tap0, :4000 --w2-- c: member, tap0, and one that joins
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from cloudvpn.repeats import MAX_KNOWN
from tests.netns import flooder
from tests.netns.cgroup import memory_group
from tests.netns.flooder import Report
from tests.netns.keys import identity
from tests.netns.lab import DAEMON, Host, Lab, Node
from tests.netns.test_refusals import read_rss

PORT = 4000
RATE = 1000     # connections a second
SOURCES = [f"10.77.0.{number}" for number in range(1, 65)]
HALF_LOAD = 80  # Mbit/s of 1,400 B datagrams; with twice as much the first are lost without any flood
LOG_MAX = 1_000_000
MEMORY_MAX = 16_000_000
MEMORY_LEFT = 6_000_000     # after it; there is a link more, and the traffic has filled queues
CPU_MAX = 0.5   # of one processor


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        for source in SOURCES:
            lab.host("a").ip(f"addr add {source}/32 dev w1")
        lab.host("b").ip("route add 10.77.0.0/24 dev w1")
        yield lab


def start(lab: Lab, *lines: str, command: Sequence[str] = DAEMON) -> Node:
    """The daemon in b, and a member in c: 10.9.0.2 and 10.9.0.3."""
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.9.0.2/24", *lines, command=command)
    lab.until(lambda: b.host.is_listening(PORT), 15, "the daemon listens")
    lab.node("c", f"connect {lab.wire('b', 'c').address('b')} {PORT}", "iface yes", "iface_address 10.9.0.3/24")
    lab.wait_for_ping("c", "10.9.0.2")
    return b


def join(lab: Lab, name: str = "newcomer") -> Node:
    return lab.node("c", f"connect {lab.wires[1].address('b')} {PORT}", name=name)


def seconds_to_join(node: Node) -> float:
    """From its first line to its link."""
    lines = node.log_text().splitlines()
    up = next(line for line in lines if "link up" in line)
    begun, joined = (datetime.fromisoformat(line.split()[0]) for line in (lines[0], up))
    return (joined - begun).total_seconds()


class Flood:
    """A flooder that runs in a."""

    def __init__(self, lab: Lab, kind: str, rate: float, seconds: float, sources: list[str]) -> None:
        stranger = identity("stranger", ca="other")
        words = [kind, rate, seconds, lab.wires[0].address("b"), PORT, *stranger, *sources]
        self.seconds = seconds
        self.process = subprocess.Popen(
            lab.host("a").command([sys.executable, flooder.__file__, *words]), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def stop(self) -> Report:
        assert self.process.poll() is None, "the flood has lasted"
        self.process.terminate()
        return self.report()

    def report(self) -> Report:
        """When it is over."""
        return Report(**json.loads(self.process.communicate(timeout=self.seconds + 15)[0]))


@contextlib.contextmanager
def flood(lab: Lab, kind: str, rate: float, seconds: float, sources: list[str]) -> Iterator[Flood]:
    made = Flood(lab, kind, rate, seconds, sources)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def read_cpu(node: Node) -> float:
    """Seconds of processor so far."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Use(NamedTuple):
    cpu: float      # of one processor
    memory: int     # the most, bytes


def measure(node: Node, seconds: float) -> Use:
    begun, before, most = time.monotonic(), read_cpu(node), 0
    while (now := time.monotonic()) < begun + seconds:
        most = max(most, read_rss(node))
        time.sleep(0.05)
    return Use((read_cpu(node) - before) / (now - begun), most)


def events(node: Node) -> dict[str, int]:
    """Those that the status counts."""
    line = re.findall(r"^links: (.*)$", node.status().text, re.MULTILINE)
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", line[-1] if line else "")}


def turned_away(node: Node) -> int:
    """Strangers, for any reason."""
    return sum(count for name, count in events(node).items() if name.startswith("handshakes_"))


def visitors(node: Node) -> int:
    return int(re.findall(r"^handshakes: (\d+)", node.status().text, re.MULTILINE)[0])


def lost_at_receiver(host: Host) -> int:
    """Datagrams that were there, and that the program did not fetch in time."""
    names, values = re.findall(r"^Udp: (.*)$", host.run(["cat", "/proc/net/snmp"]).stdout, re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["RcvbufErrors"])


LENGTHS = [4, pytest.param(60, marks=pytest.mark.long)]


@pytest.mark.alone
@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("kind", ["idle", "half", "garbage", "wrong", "hello"])
def test_in_a_flood_members_lose_nothing_and_a_new_one_comes_in(lab: Lab, kind: str, seconds: int) -> None:
    b = start(lab)
    memory = read_rss(b)
    with flood(lab, kind, RATE, 4 * seconds + 20, SOURCES[:40]) as flooding:
        alone = measure(b, seconds / 2)     # nothing good happens
        newcomer = join(lab)
        newcomer.wait_log("info link up: b at", 10)
        _, traffic = lab.iperf3("c", "b", "10.9.0.2", "-u", "-b", f"{HALF_LOAD}M", "-l", 1400, seconds=seconds // 2)
        memory_most = max(alone.memory, read_rss(b))
        report = flooding.stop()
    lab.until(lambda: visitors(b) == 0, 12, "the last strangers have gone")
    lab.until(lambda: read_rss(b) - memory < MEMORY_LEFT, 5, "what the strangers took is given back")
    told = f"{kind}: {report}, {alone}, grown by {memory_most - memory}, joined in {seconds_to_join(newcomer)}"
    print(told, "after it", read_rss(b) - memory, "log", b.log.stat().st_size, events(b))

    assert report.opened > RATE * seconds / 4, told  # four times as many if the machine has time
    # Where the kernel's queue was full the flooder has a connection that never was one.
    assert turned_away(b) > 0.9 * report.opened, f"{told}, {events(b)}"
    if kind in ("wrong", "hello"):
        assert report.answered > 50 * seconds, f"TLS was tried: {told}"
    if kind not in ("garbage", "wrong"):    # these leave by themselves
        assert events(b)["handshakes_crowded_out"] > 0.1 * report.opened, f"over max_handshakes: {events(b)}"
    datagrams = traffic["end"]["sum"]
    assert datagrams["packets"] > seconds // 2 * 0.5 * HALF_LOAD * 1e6 / 8 / 1400, datagrams
    assert datagrams["lost_packets"] <= lost_at_receiver(b.host), f"{datagrams}, {b.status().text}"
    assert events(b).get("links_lost", 0) == 0, b.report()
    assert seconds_to_join(newcomer) < 10, told
    assert alone.cpu < CPU_MAX, told
    assert memory_most - memory < MEMORY_MAX, told
    assert b.log.stat().st_size < LOG_MAX, told
    assert len(b.log_text().splitlines()) < MAX_KNOWN * (1 + seconds // 60) + 50
    assert "internal error" not in b.log_text()


@pytest.mark.alone
def test_a_node_that_may_have_64_MB_lives_through_a_flood_of_handshakes(lab: Lab) -> None:
    with memory_group() as group:
        group.limit(64 << 20)
        b = start(lab, command=group.command)
        with flood(lab, "hello", RATE, 30, SOURCES) as flooding:
            assert lab.host("c").ping("10.9.0.2", 200, 0.02).loss == 0
            report = flooding.stop()
        print(f"{group.most / 1e6:.1f} MB at most, {report}")
        assert report.answered > 200, report
        assert turned_away(b) > 0.9 * report.opened, events(b)
        assert group.killed == 0
        assert b.terminate() == 0


@pytest.mark.parametrize("kind", ["idle", "half", "dribble"])
def test_64_that_are_silent_or_dribble_are_cut_at_handshake_timeout_and_keep_nobody_out(lab: Lab, kind: str) -> None:
    b = start(lab, "handshake_timeout 3s", "listen_backlog 128")
    with flood(lab, kind, 0, 10, SOURCES) as flooding:
        lab.until(lambda: visitors(b) == 64, 3, "all are there")
        newcomer = join(lab)
        newcomer.wait_log("info link up: b at", 10)
        report = flooding.report()
    lab.until(lambda: events(b).get("handshakes_expired") == 64, 3, "the counter")
    assert (report.opened, report.cut, report.failed) == (64, 64, 0)
    assert 2 < report.shortest <= report.longest < 4, report
    assert turned_away(b) == 64
    assert seconds_to_join(newcomer) < 10


def free_descriptor(node: Node) -> int:
    """The lowest number that the daemon does not use: as a limit, it leaves none."""
    used = {int(name) for name in os.listdir(f"/proc/{node.pid}/fd")}
    return next(number for number in range(len(used) + 1) if number not in used)


@contextlib.contextmanager
def descriptors(node: Node, most: int) -> Iterator[None]:
    before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (most, resource.prlimit(node.pid, 7)[1]))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, before)


def test_without_a_descriptor_left_links_go_on_and_later_the_next_ones_are_accepted(lab: Lab) -> None:
    b = start(lab, "status-interval 60s")
    with descriptors(b, free_descriptor(b)):
        newcomer = join(lab)
        b.wait_log(r"warning cannot accept links on 0\.0\.0\.0:4000: Too many open files, tried again each second$", 15)
        assert lab.host("c").ping("10.9.0.2", 50, 0.02).loss == 0
        assert measure(b, 2).cpu < CPU_MAX, "it does not turn in circles"
        assert "link up" not in newcomer.log_text()
    newcomer.wait_log("info link up: b at", 10)
    assert len(re.findall("cannot accept", b.log_text())) == 1, b.report()


def test_at_the_descriptor_limit_the_silent_make_room_for_a_member(lab: Lab) -> None:
    b = start(lab, "status-interval 60s", "handshake_timeout 60s")
    with descriptors(b, free_descriptor(b) + 4), flood(lab, "idle", 20, 6, SOURCES) as flooding:
        b.wait_log(r"warning refused .*: no room to accept others: Too many open files, and it had said nothing$", 10)
        newcomer = join(lab)
        newcomer.wait_log("info link up: b at", 10)
        assert flooding.report().cut > 50
    assert lab.host("c").ping("10.9.0.2", 3).loss == 0

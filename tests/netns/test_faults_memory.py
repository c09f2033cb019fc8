# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory runs out in a running daemon: in the midst of a batch, all that it may have is used, or its cgroup kills it.

    a: tap0, and others that join --w1-- b: the daemon, tap0, :4000 --w2-- c: tap0, whose MAC changes
"""

from __future__ import annotations

import contextlib
import random
import re
import resource
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.cgroup import memory_group
from tests.netns.faults import assert_sound, keeping_on, triangle, wait_links, wait_pings
from tests.netns.lab import Host, Lab, Node
from tests.netns.repeating import repeating
from tests.netns.shortage import Shortage
from tests.netns.test_floods import events

PORT = 4000
PACKET = bytes(1200)


@contextlib.contextmanager
def streaming(host: Host, target: str) -> Iterator[None]:
    """About 1,000 datagrams a second, while the block runs."""
    with host.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        for _ in range(10):
            with contextlib.suppress(OSError):      # the target is not known now
                sender.sendto(PACKET, (target, 9))

    with sender, repeating(send, 0.01):
        yield


def count_frames(node: Node) -> tuple[int, int]:
    """What came and was copied; what was passed on or dropped. All of one status."""
    text = node.status().text
    frames = dict(re.findall(r"(from interface|to interface|from links|to links|copies) (\d+)",
                             re.findall(r"^frames: .*$", text, re.MULTILINE)[0]))
    drops = re.findall(r"\w+ (\d+)", re.findall(r"^dropped: (.*)$", text, re.MULTILINE)[0])
    came = sum(int(frames[name]) for name in ("from interface", "from links", "copies"))
    return came, int(frames["to interface"]) + int(frames["to links"]) + sum(map(int, drops))


def see_new_status(lab: Lab, node: Node) -> None:
    before = node.status().uptime or 0
    lab.until(lambda: (node.status().uptime or 0) > before, 30, "a new status")


def change_mac(host: Host, number: int) -> None:
    host.ip(f"link set tap0 address 02:00:5e:20:{number >> 8:02x}:{number & 255:02x}")


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("rounds", [8, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("version", [1, 2])
def test_an_allocation_that_fails_at_any_place_of_a_batch_costs_frames_or_a_link_and_nothing_else(
    lab: Lab, version: int, rounds: int
) -> None:
    chance = random.Random(rounds + version)
    shortage = Shortage(lab, "b")
    first, second = lab.wire("a", "b"), lab.wire("b", "c")
    own = ["iface yes", "iface_dev tap0", "conn_retry 500ms", "status-interval 300ms", f"link_version {version}"]
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", "iface_address 10.9.0.2/24", *own, command=shortage.command)
    lab.until(lambda: b.host.is_listening(PORT), 30, "the daemon listens")
    lab.node("a", f"connect {first.address('b')} {PORT}", "iface_address 10.9.0.1/24", *own)
    c = lab.node("c", f"connect {second.address('b')} {PORT}", "iface_address 10.9.0.3/24", *own)
    for name in ("a", "c"):
        lab.wait_for_ping(name, "10.9.0.2")
    ways = [("a", "10.9.0.2"), ("b", "10.9.0.3"), ("c", "10.9.0.1")]
    with contextlib.ExitStack() as streams:
        for name, target in ways:
            streams.enter_context(streaming(lab.host(name), target))
        for number in range(rounds):
            change_mac(c.host, number)
            shortage.fail(after=chance.randrange(30), count=chance.choice((1, 1, 2, 20)))
            lab.until(shortage.is_over, 60, "all allocations of the round have failed")
            if number % 8 == 7:
                see_new_status(lab, b)
                came, went = count_frames(b)
                assert came == went, b.status().text
    assert shortage["failed"] >= rounds
    for name, target in ways:
        lab.wait_for_ping(name, target, 30)
    change_mac(c.host, 0xFFFF)
    lab.until(lambda: "02:00:5e:20:ff:ff" in b.status().routes, 15, "what c says last is known")
    lab.until(lambda: len(b.status().links) == 2, 30, "links that were lost are forgotten")
    lab.until(lambda: set(b.status().routes) == {lab.host(name).mac("tap0").hex(":") for name in "abc"}, 15,
              "no MAC is left that c had before")
    came, went = count_frames(b)
    assert came == went, b.status().text
    assert events(b)["out_of_memory"] or re.search(r"no_memory [1-9]", b.status().text), b.status().text
    print(shortage["failed"], "failed", events(b), re.findall(r"no_memory \d+", b.status().text))
    assert b.exit_code is None
    assert len(re.findall("warning no memory for", b.log_text())) <= 3 + rounds // 100, b.report()
    assert b.terminate(30) == 0, b.report()


@contextlib.contextmanager
def memory(node: Node, more: int) -> Iterator[None]:
    """The daemon may take so many bytes more. RLIMIT_DATA, for glibc holds address space in reserve."""
    data = re.findall(r"^VmData:\s+(\d+) kB", Path(f"/proc/{node.pid}/status").read_text(), re.MULTILINE)[0]
    limit = int(data) * 1024 + more
    before = resource.prlimit(node.pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_DATA, before)


@pytest.mark.parametrize("more", [pytest.param(0, marks=pytest.mark.long), 3 << 20])
def test_at_a_memory_limit_links_go_on_and_new_ones_and_reloads_are_refused_until_there_is_room(
    lab: Lab, more: int
) -> None:
    first, second = lab.wire("a", "b"), lab.wire("b", "c")
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.9.0.2/24", "status-interval 300ms")
    lab.until(lambda: b.host.is_listening(PORT), 15, "the daemon listens")
    lab.node("c", f"connect {second.address('b')} {PORT}", "iface yes", "iface_address 10.9.0.3/24")
    lab.wait_for_ping("c", "10.9.0.2")
    with memory(b, more):
        crowd = [lab.node("a", f"connect {first.address('b')} {PORT}", "conn_retry 300ms", name=f"n{number}")
                 for number in range(6)]
        lab.until(lambda: events(b).get("out_of_memory", 0) > 6, 30, "some find no memory")
        b.wait_log("warning refused 198.18.1.1:.*: cannot allocate memory$")
        assert lab.host("c").ping("10.9.0.2", 50, 0.02).loss == 0
        b.signal(signal.SIGHUP)
        b.wait_log("error files cannot be read again: Cannot allocate memory; until then", 15)
        b.wait_log("error SIGHUP: the configuration stays as it was", 15)
        lab.until(lambda: events(b).get("reloads_failed") == 1, 15, "the counter")
        assert sum("link up" in node.log_text() for node in crowd) < len(crowd), "the fault did not happen"
    for node in crowd:
        node.wait_log("info link up: b at", 30)
    b.signal(signal.SIGHUP)
    b.wait_log("info SIGHUP: .* are in use$", 15)
    assert lab.host("c").ping("10.9.0.2", 5, 0.02).loss == 0
    assert b.log_text().count("cannot allocate memory") == 1, b.report()
    assert "Traceback" not in b.log_text(), b.report()
    assert "links_lost" not in events(b), b.report()
    assert b.terminate() == 0


def test_a_node_that_its_cgroup_has_killed_is_in_the_mesh_again_once_it_is_started(lab: Lab) -> None:
    """systemd's MemoryMax is such a cgroup, and Restart starts it."""
    with memory_group() as group:
        nodes = triangle(lab, "conn_retry 300ms", command_of_b=group.command)
        b, used = nodes["b"], group.used
        with keeping_on(lab, 3.0, "ac"):
            group.limit(used + (1 << 18))
            for number in range(8):
                lab.node("a", f"connect {lab.wires[0].address('b')} {PORT}", "conn_retry 300ms", name=f"n{number}")
            assert b.wait(30) == -signal.SIGKILL, b.report()
            assert group.killed == 1, "the fault did not happen"
            group.limit(used + (32 << 20))
            b.start()
            wait_links(lab, {name: nodes[name] for name in "ac"}, 2)
            wait_pings(lab, nodes)
        print(f"killed at {used / 1e6:.1f} MB; then {group.most / 1e6:.1f} MB at most with 8 links more")
        assert group.killed == 1
        assert_sound(lab, nodes)

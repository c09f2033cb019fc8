# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the laboratory itself, with stand-ins instead of the daemon."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns import frames
from tests.netns.keys import identity
from tests.netns.lab import NETNS, Lab, run, until
from tests.netns.status import parse_status

STAND_IN = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print(os.getpid(), os.stat("/proc/self/ns/net").st_ino, "ready", sys.argv[1], flush=True)
while True:
    signal.pause()
"""
STATUS = """cloudvpn status
uptime: 3.50574s

local interface: be:88:54:e7:d3:17
listening sockets: 1

connections: 2
connection 0 \tping 1572 \troute count 2 \t(fd 6)
 = connected to addr `10.77.0.2 34504'
 >> in  4B/s, 0pkt/s; total 2.73KiB, 32pkt
 `--route to 4e:ac:c9:59:37:d2 \tdist 0 \tping 1
 `--route to be:88:54:e7:d3:17 \tdist 1 \tping 2979
connection 1 \tping 1245 \troute count 1 \t(fd 7)
 `--route to 4e:ac:c9:59:37:d2 \tdist 2 \tping 3827
---

 >> total in  12B/s, 0pkt/s; total 2.77KiB, 36pkt
---

local route count: 2
route to 4e:ac:c9:59:37:d2 \tvia conn 0 \tping 1575 \tdistance 1
route to be:88:54:e7:d3:17 \tvia conn -1 \tping 1 \tdistance 0
---
"""


def frame(number: int, size: int = 60) -> bytes:
    head = b"\xff" * 6 + bytes.fromhex("02000000000188b5")
    return head + random.Random(number).randbytes(size - len(head))


def local_frames(seen: list[bytes]) -> list[bytes]:
    """Without what the kernel says of itself."""
    return [one for one in seen if one[6:12] == frame(0)[6:12]]


def test_two_hosts_on_a_wire_ping_each_other(lab: Lab) -> None:
    """a --w1-- b"""
    wire = lab.wire("a", "b")
    for target in (wire.address("b"), wire.address6("b")):
        ping = lab.host("a").ping(target, count=5, size=1000)
        assert (ping.sent, ping.received, ping.loss) == (5, 5, 0)
        assert 0 < ping.min_ms <= ping.avg_ms <= ping.max_ms


def test_three_hosts_share_a_wire_and_a_second_wire_is_apart(lab: Lab) -> None:
    """a, b and c on w1; c and d on w2"""
    first, second = lab.wire("a", "b", "c"), lab.wire("c", "d")
    assert lab.host("a").ping(first.address("c")).loss == 0
    assert lab.host("b").ping(first.address("c")).loss == 0
    assert lab.host("d").ping(second.address("c")).loss == 0
    assert lab.host("a").ping(second.address("d"), count=1).received == 0


@pytest.mark.parametrize("way", ["cut and heal", "unplug and plug"])
def test_a_broken_wire_is_seen_and_works_again_when_mended(lab: Lab, way: str) -> None:
    """a --w1-- b, broken at b"""
    wire = lab.wire("a", "b")
    a, b = lab.host("a"), lab.host("b")
    assert a.ping(wire.address6("b")).loss == 0
    cut, heal = (wire.cut, wire.heal) if way == "cut and heal" else (wire.unplug, wire.plug)
    cut("b")
    assert ("LOWER_UP" in b.ip("link show w1")[0]["flags"]) == (way == "cut and heal")
    assert "LOWER_UP" in a.ip("link show w1")[0]["flags"]
    assert a.ping(wire.address("b")).loss == 1
    heal("b")
    for target in (wire.address("b"), wire.address6("b")):
        lab.until(lambda target=target: a.ping(target, count=1).received, 5, "an answer")  # type: ignore[misc]


def test_a_cut_holds_in_both_directions_for_all_that_is_named_none(lab: Lab) -> None:
    """a --w1-- b, broken at both"""
    wire = lab.wire("a", "b")
    lab.host("a").ping(wire.address("b"))
    wire.cut()
    with lab.host("a").frames("w1") as a, lab.host("b").frames("w1") as b:
        a.send(frame(1))
        b.send(frame(2))
        wire.heal()
        a.send(frame(3))
        b.send(frame(4))
        assert local_frames(a.expect(lambda seen: seen == frame(4))) == [frame(4)]
        assert local_frames(b.expect(lambda seen: seen == frame(3))) == [frame(3)]


def test_frames_that_are_sent_are_sniffed_unchanged_at_the_other_end_only(lab: Lab) -> None:
    """a --w1-- b"""
    lab.wire("a", "b")
    tagged = frame(7)[:12] + bytes.fromhex("81002064") + frame(7)[12:]
    double = frame(8)[:12] + bytes.fromhex("88a8006481002065") + frame(8)[12:]
    sent = [frame(1, 14), frame(2, 15), frame(3, 60), frame(4, 1514), tagged, double]
    with lab.host("a").frames("w1") as a, lab.host("b").frames("w1") as b:
        for one in sent:
            a.send(one)
        assert local_frames(b.expect(lambda seen: seen == double)) == sent
        assert local_frames(a.drain()) == []


def test_the_frames_command_prints_json(lab: Lab) -> None:
    """a --w1-- b"""
    lab.wire("a", "b")
    lab.host("b").ip("link set w1 addrgenmode none")
    sniff = lab.host("b").command([sys.executable, frames.__file__, "sniff", "w1", "--count", 1000, "--seconds", 0.5])
    with subprocess.Popen(sniff, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout
        assert json.loads(sniffer.stdout.readline()) == {"ready": True}
        words = [sys.executable, frames.__file__, "send", "w1", frame(1).hex(), frame(2).hex()]
        assert json.loads(lab.host("a").run(words).stdout) == {"sent": 2}
        seen = [bytes.fromhex(text) for text in json.loads(sniffer.stdout.readline())["frames"]]
    assert local_frames(seen) == [frame(1), frame(2)]


def test_counters_count_what_was_sent(lab: Lab) -> None:
    """a --w1-- b"""
    lab.wire("a", "b")
    before = lab.host("a").counters("w1"), lab.host("b").counters("w1")
    with lab.host("a").frames("w1") as port:
        for number in range(10):
            port.send(frame(number, 1000))
    after = lab.host("a").counters("w1"), lab.host("b").counters("w1")
    assert 10_000 <= after[0]["tx_bytes"] - before[0]["tx_bytes"] < 11_000
    assert 10 <= after[1]["rx_packets"] - before[1]["rx_packets"] < 20


def test_iperf3_gives_a_number(lab: Lab) -> None:
    """a --w1-- b"""
    wire = lab.wire("a", "b")
    speed, report = lab.iperf3("a", "b", wire.address("b"))
    assert speed > 10
    assert report["start"]["test_start"]["protocol"] == "TCP"
    speed, report = lab.iperf3("a", "b", wire.address6("b"), "-u", "-b", "10M")
    assert speed == pytest.approx(10, rel=0.2)
    assert report["end"]["sum"]["lost_percent"] < 5


def test_sockets_made_inside_belong_to_the_host_and_can_be_reset(lab: Lab) -> None:
    """a --w1-- b"""
    wire = lab.wire("a", "b")
    own = os.readlink("/proc/thread-self/ns/net")
    with lab.host("b").inside():
        listener = socket.create_server((wire.address("b"), 4000))
    with lab.host("a").inside():
        near = socket.create_connection((wire.address("b"), 4000), timeout=5)
    assert os.readlink("/proc/thread-self/ns/net") == own
    assert lab.host("b").is_listening(4000) and not lab.host("a").is_listening(4000)
    with listener, near:
        far = listener.accept()[0]
        assert far.getpeername()[0] == wire.address("a")
        assert lab.host("b").reset_tcp(4000) == 1
        with far, pytest.raises(ConnectionResetError):
            near.recv(1)


def test_a_node_is_the_process_that_was_started_in_its_namespace(lab: Lab) -> None:
    node = lab.node("a", "some line", command=[sys.executable, "-c", STAND_IN])
    pid, namespace, _, config = node.wait_log(r"^.* ready .*$").split()
    assert int(pid) == node.pid
    assert int(namespace) == (NETNS / lab.host("a").namespace).stat().st_ino
    assert config == str(node.config)
    assert node.config.stat().st_mode & 0o777 == 0o600
    assert node.config.read_text().endswith("\nsome line\n")
    assert node.status().uptime is None
    node.status_file.write_text(STATUS)
    assert node.status().listening == 1


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_node_can_be_stopped_continued_ended_killed_and_started_again(lab: Lab) -> None:
    node = lab.node("a", command=[sys.executable, "-c", STAND_IN])
    node.wait_log("ready")
    node.stop()
    lab.until(lambda: process_state(node.pid) == "T", 5, "stopped process")
    node.cont()
    lab.until(lambda: process_state(node.pid) == "S", 5, "sleeping process")
    assert node.terminate() == 3
    node.start()
    node.wait_log("ready", count=2)
    node.kill()
    assert node.exit_code == -signal.SIGKILL


def test_what_does_not_happen_is_an_error_that_shows_the_ends_of_all_logs(lab: Lab) -> None:
    for name in ("a", "b"):
        lab.node(name, command=["sh", "-c", f"echo last words of {name}; exit 7"]).wait()
    with pytest.raises(AssertionError, match=r"(?s)a wonder: not within 0.05 s.*ended with 7.*of a.*of b"):
        lab.until(lambda: None, 0.05, "a wonder")
    assert until(lambda: [1], 1, "a list") == [1]


def test_nothing_is_left_even_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """a --w1-- b, a process in each"""
    monkeypatch.delenv("COVERAGE_RUN", raising=False)   # for which a process would be asked to end, before
    with pytest.raises(ZeroDivisionError), Lab() as lab:
        lab.wire("a", "b")
        nodes = [lab.node(name, command=[sys.executable, "-c", STAND_IN]) for name in ("a", "b")]
        nodes[0].wait_log("ready")
        nodes[0].stop()
        nodes[1].kill()
        raise ZeroDivisionError
    assert [node.exit_code for node in nodes] == [-signal.SIGKILL] * 2
    assert not [path for path in NETNS.iterdir() if path.name.startswith(lab.prefix)]
    assert not lab.directory.exists()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_identities_are_signed_by_their_authority_only_and_private(kind: str) -> None:
    node = identity("somebody", kind)
    assert node == identity("somebody", kind)
    assert run(["openssl", "verify", "-x509_strict", "-CAfile", node.ca, node.cert]).returncode == 0
    assert run(["openssl", "verify", "-CAfile", identity("else", ca="other").ca, node.cert], check=False).returncode
    assert node.key.stat().st_mode & 0o777 == 0o600


def test_the_status_text_is_read() -> None:
    status = parse_status(STATUS)
    assert (status.uptime, status.mac, status.listening) == (3.50574, "be:88:54:e7:d3:17", 1)
    assert status.routes == {"4e:ac:c9:59:37:d2": (0, 1575, 1), "be:88:54:e7:d3:17": (-1, 1, 0)}
    assert [(link.number, link.ping, link.routes) for link in status.links] == [
        (0, 1572, {"4e:ac:c9:59:37:d2": (0, 1), "be:88:54:e7:d3:17": (1, 2979)}),
        (1, 1245, {"4e:ac:c9:59:37:d2": (2, 3827)}),
    ]
    assert "10.77.0.2 34504" in status.links[0].text
    assert parse_status("").links == []

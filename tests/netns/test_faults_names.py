# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in `connect` that do not resolve, resolve late, move, or whose name server says nothing.

    a: listens, name server --w1, w2-- b: the daemon, tap0, with an /etc/resolv.conf of its own
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.netns.lab import DAEMON, Lab, Node
from tests.netns.test_floods import events
from tests.netns.test_security import name_server

PORT = 4000
NAMES = 20
SILENT_SECONDS = 3      # that the resolver waits for a silent server, before it asks once more


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        lab.wire("a", "b")
        a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.9.0.1/24")
        lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
        yield lab


def start(lab: Lab, *lines: str) -> Node:
    """The daemon in b: 10.9.0.2; it asks a."""
    settings = lab.directory / "resolv.conf"
    settings.write_text(f"nameserver {lab.wires[0].address('a')}\noptions timeout:{SILENT_SECONDS} attempts:2\n")
    mount = f'mount --bind {settings} /etc/resolv.conf && exec "$@"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *DAEMON]
    return lab.node("b", "iface yes", "iface_address 10.9.0.2/24", "conn_retry 200ms", "status-interval 100ms", *lines,
                    command=command)


def count_threads(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.pid}/task"))


def count_descriptors(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def test_a_name_that_is_unknown_is_said_once_then_found_and_followed_when_it_moves(lab: Lab) -> None:
    first, second = (wire.address("a") for wire in lab.wires)
    table: dict[str, str] = {}
    with name_server(lab.host("a"), lab.wires[0], table) as server:
        b = start(lab, f"connect alpha.test {PORT}")
        b.wait_log(rf"warning no link to alpha\.test {PORT}: (No address|Name or service|Temporary failure)", 15)
        lab.until(lambda: events(b).get("dials_failed", 0) > 3, 15, "it is tried again, and counted")
        assert b.log_text().count("no link to") == 1, b.report()
        asked = server.asked
        table["alpha.test"] = first
        b.wait_log(rf"info link up: a at {first}:{PORT}, dialled", 15)
        lab.wait_for_ping("b", "10.9.0.1")
        table["alpha.test"] = second
        assert lab.host("b").ping("10.9.0.1", 20, 0.02).loss == 0, "a link that is up need not follow"
        assert "link down" not in b.log_text()
        assert lab.host("a").reset_tcp(PORT), "the fault did not happen"
        b.wait_log(rf"info link up: a at {second}:{PORT}, dialled", 15)
        assert server.asked > asked, "nothing is remembered of a name"
    assert b.terminate() == 0 and "Traceback" not in b.log_text()


def test_silent_name_servers_hold_up_no_frame_no_other_name_and_not_the_end(lab: Lab) -> None:
    address = lab.wires[0].address("a")
    with lab.host("a").inside():
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind((address, 53))
    names = [f"connect silent{number}.test {PORT}" for number in range(NAMES)]
    b = start(lab, *names, f"connect {address} {PORT}", f"connect localhost {PORT}")
    b.wait_log(rf"info link up: a at {address}:{PORT}, dialled", 15)
    assert silent.recv(512), "the fault did not happen"
    b.wait_log(rf"warning no link to localhost {PORT}: 127\.0\.0\.1:{PORT}: connection refused", 15)
    lab.wait_for_ping("b", "10.9.0.1")
    threads, descriptors = count_threads(b), count_descriptors(b)
    assert lab.host("b").ping("10.9.0.1", 100, 0.02).loss == 0
    uptime = b.status().uptime or 0
    lab.until(lambda: (b.status().uptime or 0) > uptime, 5, "the status is written")
    b.wait_log(rf"warning no link to silent0\.test {PORT}: Temporary failure", 2 * SILENT_SECONDS + 15)
    assert threads >= NAMES and count_threads(b) <= threads + 1
    assert count_descriptors(b) <= descriptors + 2
    assert "link down" not in b.log_text() and "Traceback" not in b.log_text()
    assert b.terminate(4) == 0, "it did not wait for the name server"
    silent.close()

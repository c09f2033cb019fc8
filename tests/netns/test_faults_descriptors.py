# SPDX-License-Identifier: GPL-3.0-or-later
"""No descriptor is left for what a running daemon opens beside the links that it accepts (test_floods.py).

    a --w1-- b: the daemon, tap0; it is limited once its link to a is up
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.netns.lab import Lab, Node
from tests.netns.test_floods import descriptors, events, free_descriptor
from tests.netns.test_interface import addresses

PORT = 4000
FULL = "Too many open files"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        yield lab


def start(lab: Lab, *lines: str) -> Node:
    """10.9.0.1 in a, and the daemon in b: 10.9.0.2."""
    address = lab.wires[0].address("a")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.9.0.1/24")
    b = lab.node("b", f"connect {address} {PORT}", "iface yes", "iface_dev tap0", "iface_address 10.9.0.2/24",
                 "iface_address fd09::2/64", "conn_retry 200ms", *lines)
    lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
    lab.wait_for_ping("b", "10.9.0.1")
    return b


def assert_all_goes_on(lab: Lab, node: Node) -> None:
    assert lab.host("b").ping("10.9.0.1", 20, 0.02).loss == 0
    assert node.exit_code is None and "Traceback" not in node.log_text(), node.report()
    assert "link down" not in node.log_text(), node.report()


def count_up(lab: Lab, counter: Callable[[], int], most: int) -> None:
    """Until it has been tried often enough for a line of log each time to be seen."""
    lab.until(lambda: counter() >= most, 30, "it is tried again")


def test_who_dials_without_a_descriptor_counts_it_says_it_once_and_has_its_link_later(lab: Lab) -> None:
    address = lab.wires[0].address("a")
    b = start(lab, f"connect {address} 4001", f"connect localhost {PORT + 2}", "status-interval 60s")
    for port in (4001, 4002):
        b.wait_log(rf"warning no link to \S+ {port}: .*connection refused", 15)
    with descriptors(b, free_descriptor(b)):
        b.wait_log(rf"warning no link to {address} 4001: {FULL}", 15)
        b.wait_log(r"warning no link to localhost 4002: (?!127)", 15)
        late = lab.node("a", "listen 0.0.0.0 4001", name="late")
        lab.until(lambda: late.host.is_listening(4001), 15, "the other one listens")
        assert_all_goes_on(lab, b)
        assert "link up" not in late.log_text(), "the fault did not happen"
    b.wait_log(rf"info link up: late at {address}:4001, dialled", 15)
    assert b.log_text().count(FULL) <= 2, b.report()
    assert_all_goes_on(lab, b)


def test_without_a_descriptor_the_status_stays_as_it_was_and_is_written_later(lab: Lab) -> None:
    b = start(lab, f"connect {lab.wires[0].address('a')} 4001", "status-interval 100ms")
    lab.until(lambda: events(b).get("dials_failed", 0) > 1, 15, "attempts are counted")
    with descriptors(b, free_descriptor(b)):
        b.wait_log(rf"error status-file: {b.status_file}: {FULL}$", 15)
        before = b.status_file.read_bytes()
        for _ in range(3):
            assert_all_goes_on(lab, b)
        assert b.status_file.read_bytes() == before, "the fault did not happen"
        assert b.status().links, "it is whole"
        failed = events(b)["dials_failed"]
    count_up(lab, lambda: events(b)["dials_failed"], failed + 3)
    assert b.log_text().count("status-file") == 1, b.report()
    assert not list(lab.directory.glob(".b.status*")), "no part of a status is left"
    assert_all_goes_on(lab, b)


def test_a_reload_without_a_descriptor_changes_nothing_and_the_next_one_does(lab: Lab) -> None:
    b = start(lab, "status-interval 60s")
    b.config.write_text(b.config.read_text() + "max_connections 77\nconn_retry 150ms\n")
    with descriptors(b, free_descriptor(b)):
        b.signal(1)
        b.wait_log("error SIGHUP: the configuration stays as it was", 15)
        b.wait_log(FULL)
        assert "are in use" not in b.log_text()
        assert_all_goes_on(lab, b)
    b.signal(1)
    b.wait_log("info SIGHUP: the configuration, keys, CAs and CRLs were read again and are in use$", 15)
    assert "internal error" not in b.log_text(), b.report()
    assert_all_goes_on(lab, b)


def test_an_interface_that_needs_descriptors_to_come_back_waits_for_them(lab: Lab) -> None:
    """Addresses are set again through netlink, and a new interface has a descriptor of its own."""
    b = start(lab, "status-interval 60s")
    host = b.host
    with descriptors(b, free_descriptor(b)):
        host.ip("link set tap0 down")
        b.wait_log("warning interface tap0 is down")
        host.ip("link set tap0 up")
        b.wait_log("info interface tap0 is up again$")
        b.wait_log(f"error addresses of interface tap0: .*{FULL}")
        assert "fd09::2/64" not in addresses(host, "tap0"), "the fault did not happen"
        assert_all_goes_on(lab, b)
    lab.until(lambda: "fd09::2/64" in addresses(host, "tap0"), 15, "the address is back")
    host.ip("link del tap0")
    b.wait_log("warning interface tap0 is gone")
    with descriptors(b, free_descriptor(b)):
        host.ip("tuntap add tap0 mode tap")
        assert host.ping(lab.wires[0].address("a"), 20, 0.1).loss == 0, "two heartbeats"
        assert b.log_text().count("info interface tap0, MAC") == 1, "the fault did not happen"
    b.wait_log("info interface tap0, MAC", 15, 2)
    lab.wait_for_ping("b", "10.9.0.1")
    assert b.log_text().count(FULL) <= 2, b.report()
    assert_all_goes_on(lab, b)

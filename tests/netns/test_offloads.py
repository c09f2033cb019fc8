# SPDX-License-Identifier: GPL-3.0-or-later
"""Super-frames between real interfaces: streams and datagrams arrive whole, whichever end has offloads.

    a --w1-- b, both with a TAP
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import random
import re
import signal
import socket
import threading

import pytest

from cloudvpn import tap
from tests.netns.lab import Lab, Node

PORT = 4000
STREAM_BYTES = 8_000_000
DATAGRAM_BYTES, DATAGRAMS = 1000, 40
UDP_SEGMENT = 103  # linux/udp.h


def make_pair(
    lab: Lab, *, a_offload: bool = True, b_offload: bool = True, a_version: int = 2, b_version: int = 2
) -> tuple[Node, Node]:
    wire = lab.wire("a", "b")
    common = ["iface yes", "iface_dev tap0", "conn_retry 1s"]
    words = {True: "yes", False: "no"}
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", *common, "iface_address 10.9.0.1/24", "iface_address fd09::1/64",
                 f"iface_offload {words[a_offload]}", f"link_version {a_version}")  # fmt: skip
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", *common, "iface_address 10.9.0.2/24",
                 "iface_address fd09::2/64", f"iface_offload {words[b_offload]}",
                 f"link_version {b_version}")  # fmt: skip
    for address in ("10.9.0.1", "fd09::1"):
        lab.wait_for_ping("b", address)
    lab.wait_for_ping("a", "fd09::2")       # b may have asked from another address, while the kernel tried this one
    return a, b


def send_stream(lab: Lab, source: str, target: str, address: str) -> bool:
    """Whether a stream of seeded bytes arrives unchanged."""
    data = random.Random(address).randbytes(STREAM_BYTES)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.host(target).inside():
        listener = socket.create_server((address, 5000), family=family)
    with lab.host(source).inside():
        sender = socket.socket(family, socket.SOCK_STREAM)
    with listener, sender:
        sender.settimeout(30)
        sender.connect((address, 5000))
        receiver, _ = listener.accept()
        receiver.settimeout(30)

        def send() -> None:
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        digest, size = hashlib.sha256(), 0
        with receiver:
            while part := receiver.recv(1 << 20):
                digest.update(part)
                size += len(part)
        thread.join()
    return size == STREAM_BYTES and digest.digest() == hashlib.sha256(data).digest()


def send_datagrams(lab: Lab, source: str, target: str, address: str) -> list[bytes]:
    """What arrives of datagrams that were given to the kernel as one piece."""
    data = random.Random(address).randbytes(DATAGRAM_BYTES * DATAGRAMS)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.host(target).inside():
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with lab.host(source).inside():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.settimeout(10)
        receiver.bind((address, 5001))
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_BYTES)
        sender.sendto(data, (address, 5001))
        got = [receiver.recv(65536) for _ in range(DATAGRAMS)]
    assert b"".join(got) == data
    return got


def calls(lab: Lab, node: Node) -> tuple[int, int]:
    """Reads from and writes to the interface so far."""
    before = node.status().uptime or 0
    lab.until(lambda: (node.status().uptime or 0) > before, 10, "a new status")
    found = re.search(r"^interface: .*; (\d+) reads, \d+ bytes, (\d+) writes", node.status().text, re.MULTILINE)
    assert found is not None, node.report()
    return int(found[1]), int(found[2])


def test_own_super_frames_leave_room_for_what_the_link_adds(lab: Lab) -> None:
    make_pair(lab, b_offload=False)
    details = {name: lab.host(name).run(["ip", "-d", "link", "show", "tap0"]).stdout for name in "ab"}
    assert f"gso_max_size {tap.SUPER_FRAME_BYTES} " in details["a"]
    assert "gso_max_size 65536 " in details["b"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ends", ["both", "sender", "receiver", "neither"])
def test_streams_and_datagrams_arrive_unchanged_whoever_has_offloads(lab: Lab, ends: str, version: int) -> None:
    a, b = make_pair(
        lab, a_offload=ends in ("both", "sender"), b_offload=ends in ("both", "receiver"), b_version=version
    )
    for node in (a, b):
        node.wait_log(f"link up: .*, version {version}$")
    for address in ("10.9.0.2", "fd09::2"):
        assert send_stream(lab, "a", "b", address)
        assert {len(one) for one in send_datagrams(lab, "a", "b", address)} == {DATAGRAM_BYTES}
    reads, writes = calls(lab, a)[0], calls(lab, b)[1]
    frames = 2 * STREAM_BYTES // 1500
    # Where there are offloads, a call is many frames.
    assert (reads < frames / 4) == (ends in ("both", "sender")), (reads, frames)
    assert (writes < frames / 4) == (ends in ("both", "receiver")), (writes, frames)
    for node in (a, b):
        dropped = re.search(r"^dropped: (.*)$", node.status().text, re.MULTILINE)
        assert dropped is not None and "bad_offload 0" in dropped[1] and "tap_refused 0" in dropped[1]


def test_mixed_versions_and_a_relay_between_them_carry_a_stream(lab: Lab) -> None:
    """a (version 2) --w1-- r --w2-- b (version 1)"""
    left, right = lab.wire("a", "r"), lab.wire("r", "b")
    tap0 = ["iface yes", "iface_dev tap0", "conn_retry 1s"]
    r = lab.node("r", f"listen 0.0.0.0 {PORT}")
    lab.node("a", *tap0, "iface_address 10.9.0.1/24", f"connect {left.address('r')} {PORT}")
    lab.node("b", *tap0, "iface_address 10.9.0.2/24", f"connect {right.address('r')} {PORT}", "link_version 1")
    lab.wait_for_ping("a", "10.9.0.2")
    r.wait_log("link up: a .*version 2$")
    r.wait_log("link up: b .*version 1$")
    assert send_stream(lab, "a", "b", "10.9.0.2")
    assert send_stream(lab, "b", "a", "10.9.0.1")


@pytest.mark.parametrize(("a_version", "b_version"), [(1, 1), (1, 2)])
def test_the_older_version_wins(lab: Lab, a_version: int, b_version: int) -> None:
    for node in make_pair(lab, a_version=a_version, b_version=b_version):
        node.wait_log("link up: .*, version 1$")
    assert send_stream(lab, "a", "b", "10.9.0.2")


def test_a_changed_link_version_counts_for_new_links(lab: Lab) -> None:
    a, b = make_pair(lab, a_version=1)
    a.config.write_text(a.config.read_text().replace("link_version 1", "link_version 2"))
    a.signal(signal.SIGHUP)
    a.wait_log("SIGHUP: .* are in use$")
    assert "version 2" not in a.log_text()
    b.kill()
    b.start()
    b.wait_log("link up: .*, version 2$", 10)


def test_a_persistent_interface_forgets_the_offloads_of_its_last_user(lab: Lab) -> None:
    host = lab.host("b")
    host.ip("tuntap add tap0 mode tap")
    with host.inside():
        device, offloads = tap.open_device("tap0", "/dev/net/tun", True)
    assert offloads
    device.close()
    make_pair(lab, b_offload=False)
    assert send_stream(lab, "b", "a", "10.9.0.1")
    assert send_stream(lab, "a", "b", "10.9.0.2")


@pytest.mark.parametrize(
    ("refused", "granted", "words"),
    [
        (0, tap.OFFLOADS[0], "offloads for TCP and UDP"),
        (tap.TUN_F_USO4, tap.OFFLOADS[1], "offloads for TCP"),
        (tap.TUN_F_USO4 | tap.TUN_F_TSO_ECN, tap.OFFLOADS[2], "offloads for TCP"),
        (tap.TUN_F_TSO4, tap.TUN_F_CSUM, "no offloads"),
        (tap.TUN_F_CSUM, 0, "no offloads"),
    ],
)
def test_what_the_kernel_does_not_grant_is_done_without(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, refused: int, granted: int, words: str
) -> None:
    asked: list[int] = []
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: object = 0) -> object:
        if request == tap.TUNSETOFFLOAD:
            assert isinstance(argument, int)
            asked.append(argument)
            if argument & refused:
                raise OSError(errno.EINVAL, "not granted")
        return real(fd, request, argument)  # type: ignore[call-overload]

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with lab.host("a").inside():
        device, offloads = tap.open_device("tap0", "/dev/net/tun", True)
    assert (offloads, asked[-1]) == (granted, granted)
    assert tap.describe_offloads(tap.offload_kinds(offloads)) == words
    device.close()

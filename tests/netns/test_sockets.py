# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket options of links: asked of the daemon's own sockets, and seen on the packets.

    a: listens on :4000, IPv4 and IPv6 --w1-- b: dials both
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import socket
import stat
from typing import NamedTuple

import pytest

from tests.netns.keys import write_private
from tests.netns.lab import Lab, Node

PORT = 4000
PIDFD_GETFD = 438  # asm-generic/unistd.h
SERVICES = {None: 0, "lowdelay": 0x10, "throughput": 0x08, "reliability": 0x04, "mincost": 0x20}
_libc = ctypes.CDLL(None, use_errno=True)


class Packet(NamedTuple):
    """One TCP packet of a link; the service is IPv4's TOS or IPv6's traffic class, without the bits of ECN."""

    version: int
    service: int
    is_syn: bool


def make_pair(lab: Lab, of_a: list[str], of_b: list[str]) -> tuple[Node, Node]:
    wire = lab.wires[0] if lab.wires else lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", f"listen :: {PORT}", *of_a)
    lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", f"connect {wire.address6('a')} {PORT}", *of_b)
    for node in (a, b):
        node.wait_log("info link up: ", 15, 2)
    return a, b


def link_options(node: Node) -> set[tuple[bool, int]]:
    """TCP_NODELAY and service of the sockets of the two links that the status names; empty while it is stale."""
    links, found = node.status().links, set()
    are_there = len(links) == 2
    process = os.pidfd_open(node.pid)
    for link in links:
        number = int(re.findall(r"\(fd (\d+)\)", link.text)[0])
        copy = _libc.syscall(PIDFD_GETFD, process, number, 0)
        if copy < 0 and ctypes.get_errno() == errno.EBADF:  # the link went after the status was written
            are_there = False
            break
        if copy < 0:
            pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):   # the same, and its number is another file's now
            os.close(copy)
            are_there = False
            break
        with socket.socket(fileno=copy) as connection:
            is_new = connection.family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if is_new else (socket.IPPROTO_IP, socket.IP_TOS)
            nodelay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            found.add((bool(nodelay), connection.getsockopt(level, option)))
    os.close(process)
    return found if are_there else set()


def read_packet(frame: bytes) -> Packet | None:
    """None if it is no TCP packet from or to PORT."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and packet[9] == socket.IPPROTO_TCP:
        version, service, tcp = 4, packet[1], packet[(packet[0] & 15) * 4 :]
    elif kind == b"\x86\xdd" and packet[6] == socket.IPPROTO_TCP:
        version, service, tcp = 6, int.from_bytes(packet[:2], "big") >> 4 & 0xFF, packet[40:]
    else:
        return None
    ports = {int.from_bytes(tcp[at : at + 2], "big") for at in (0, 2)}
    return Packet(version, service & 0xFC, bool(tcp[13] & 2)) if PORT in ports else None


@pytest.mark.parametrize("nodelay", [True, False])
def test_tcp_nodelay_is_on_every_link_and_changes_with_the_configuration(lab: Lab, nodelay: bool) -> None:
    words = {True: "yes", False: "no"}
    line = [] if nodelay else ["tcp_nodelay no"]  # yes is the default
    for node in make_pair(lab, line, line):
        lab.until(lambda node=node: link_options(node) == {(nodelay, 0)}, 10, f"{words[nodelay]} at {node.name}")
        write_private(node.config, node.config.read_bytes() + f"tcp_nodelay {words[not nodelay]}\n".encode())
        node.signal(signal.SIGHUP)
        lab.until(lambda node=node: link_options(node) == {(not nodelay, 0)}, 10, f"the other at {node.name}")
        assert "link down" not in node.log_text()


@pytest.mark.parametrize("name", ["lowdelay", "throughput", "reliability", "mincost"])
def test_each_service_is_on_every_packet_of_both_families_from_the_first_one_on(lab: Lab, name: str) -> None:
    lab.wire("a", "b")
    ports = {"b": lab.host("a").frames("w1"), "a": lab.host("b").frames("w1")}  # what each of them sends
    a, b = make_pair(lab, [f"ip_tos {name}"], [f"ip_tos {name}"])
    for node in (a, b):
        assert lab.until(lambda node=node: link_options(node), 10, "links in the status") == {(True, SERVICES[name])}
    for sender, port in ports.items():
        packets = [packet for frame in port.drain() if (packet := read_packet(frame))]
        assert {(packet.version, packet.service) for packet in packets} == {
            (4, SERVICES[name]), (6, SERVICES[name])}, (sender, packets)  # fmt: skip
        assert {packet.version for packet in packets if packet.is_syn} == {4, 6}, sender


def test_the_service_of_open_links_and_listeners_follows_the_configuration(lab: Lab) -> None:
    a, b = make_pair(lab, ["conn_keepalive 100ms"], ["conn_keepalive 100ms", "ip_tos lowdelay", "conn_retry 200ms"])
    lab.until(lambda: link_options(a) == {(True, 0)} and link_options(b) == {(True, 0x10)}, 10, "as it was told")
    write_private(a.config, a.config.read_bytes() + b"ip_tos reliability\n")
    a.signal(signal.SIGHUP)
    sent = lab.host("b").frames("w1")
    lab.until(lambda: link_options(a) == {(True, 0x04)}, 10, "the new service")

    def is_new(frame: bytes, is_syn: bool) -> bool:
        packet = read_packet(frame)
        return packet is not None and packet.service == 0x04 and packet.is_syn == is_syn

    sent.expect(lambda frame: is_new(frame, False))
    assert "link down" not in a.log_text()
    assert a.host.reset_tcp(PORT) >= 2, "the fault did not happen"
    sent.expect(lambda frame: is_new(frame, True))
    write_private(b.config, b.config.read_bytes().replace(b"ip_tos lowdelay\n", b""))
    b.signal(signal.SIGHUP)
    lab.until(lambda: link_options(b) == {(True, 0)}, 10, "no service any more")


def test_a_wrong_service_is_named_and_nothing_starts(lab: Lab) -> None:
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "ip_tos cheap")
    assert a.wait() == 1
    place = re.escape(str(a.config))
    expected = 'ip_tos: expected lowdelay, throughput, reliability or mincost, got "cheap"'
    assert re.fullmatch(rf"cloudvpn: {place}:\d+: {expected}\n", a.log_text()), a.report()

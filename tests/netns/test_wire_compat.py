# SPDX-License-Identifier: GPL-3.0-or-later
"""The real daemon on the version-1 wire, against the plain-Python peer; everywhere the topology is

    host a: tap0 -- daemon :4000 --w1-- host b: peers A, B, C (in this process)

What concerns one link is tested over TLS 1.2 and 1.3, RSA and ECDSA, and who dials; what concerns the mesh, once.
With CLOUDVPN_ORIGINAL=/path/to/2009/daemon the same tests run with that too, but for those of its known faults.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.golden.streams import Packet
from tests.golden.v1peer import V1Peer, accept, dial, listen, tls_context
from tests.netns.keys import identity, key_directory
from tests.netns.lab import DAEMON, Lab, has_daemon, run

PORT = 4000
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
GROUP = b"\xff" * 6
X, Y, Z, NOBODY = (bytes.fromhex(f"0200000000{last}") for last in ("11", "22", "33", "99"))
CONN_MTU = 8192


class Daemon(NamedTuple):
    """A program under test; its configuration lines are made when it is first used."""

    command: Sequence[str]
    lines: Callable[[], Sequence[str]]


class Shape(NamedTuple):
    """How the link under test is made."""

    version: ssl.TLSVersion = TLS13
    kind: str = "ecdsa"
    dialler: str = "peer"


@functools.cache
def dh_file() -> Path:
    path = key_directory() / "dh.pem"
    run(["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", path])
    return path


OURS = Daemon(DAEMON, tuple)
ORIGINAL = os.environ.get("CLOUDVPN_ORIGINAL")
needs_daemon = pytest.mark.skipif(not has_daemon(), reason="needs the daemon")
DAEMONS = [pytest.param(OURS, id="ours", marks=needs_daemon)]
ours_only = pytest.mark.parametrize("daemon", list(DAEMONS), indirect=True)
if ORIGINAL:
    original = Daemon([ORIGINAL, "-@include"], lambda: ["ssl_method ssl", f"dh {dh_file()}"])
    DAEMONS.append(pytest.param(original, id="2009"))
SHAPES = [Shape(*all_of) for all_of in itertools.product((TLS12, TLS13), ("rsa", "ecdsa"), ("peer", "daemon"))]
every_shape = pytest.mark.parametrize(
    "shape", SHAPES, indirect=True, ids=lambda shape: f"{shape.version.name}-{shape.kind}-{shape.dialler}_dials"
)


class Mesh:
    """The daemon with its TAP up, and the peers that have linked with it."""

    def __init__(self, lab: Lab, daemon: Daemon, shape: Shape, lines: Sequence[str] = ()) -> None:
        self.lab, self.shape = lab, shape
        self.wire = lab.wire("a", "b")
        self.peers: list[V1Peer] = []
        self._listener = None
        line = f"listen {self.wire.address('a')} {PORT}"
        if shape.dialler == "daemon":
            line = f"connect {self.wire.address('b')} {PORT}"
            with lab.host("b").inside():
                self._listener = listen((self.wire.address("b"), PORT))
        # One echo only: the measured ping stays, so announced pings can be compared.
        common = ["iface yes", "iface_dev tap0", "conn_keepalive 60000000", "conn_timeout 600000000"]
        self.node = lab.node("a", line, *common, *daemon.lines(), *lines, command=daemon.command, kind=shape.kind)
        host = lab.host("a")
        lab.until(lambda: host.has("tap0"), 15, "tap0")
        if daemon is OURS:      # it gives the interface its MAC after it has made it
            self.node.wait_log("interface tap0, MAC ", 15)
        host.ip("link set tap0 up mtu 9000")
        self.mac = host.mac("tap0")
        self.tap = host.frames("tap0")

    def link(self, name: str = "A", answer_echo: bool = True) -> V1Peer:
        """A new peer; the daemon has not said anything to it yet."""
        host, version = self.lab.host("b"), self.shape.version
        context = tls_context(self._listener is not None, *identity(name, self.shape.kind), version=version)
        if self._listener:
            peer = accept(self._listener, context, 15, answer_echo)
        else:
            self.lab.until(lambda: self.lab.host("a").is_listening(PORT), 15, "the daemon's listening socket")
            with host.inside():
                peer = dial((self.wire.address("a"), PORT), context, 5, answer_echo)
        self.peers.append(peer)
        return peer

    def active(self, name: str = "A", *macs: bytes) -> V1Peer:
        """A new peer that has announced `macs` and whose first echo reply the daemon has."""
        peer = self.link(name)
        peer.send_route_set([(mac, 0, 1) for mac in macs])
        peer.expect("route_set")
        peer.expect("echo_request")
        peer.fence()
        return peer

    def until_tap_reaches(self, peer: V1Peer, name: str, to: bytes) -> None:
        """Sends frames out of the TAP until one comes to `peer` in a packet of the type `name`."""

        def is_there() -> bool:
            sent.append(frame(to, self.mac))
            self.tap.send(sent[-1])
            peer.poll()
            return any(packet[0] == name and packet[-1] in sent for packet in peer.received)

        sent: list[bytes] = []
        self.lab.until(is_there, 5, f"a frame from the TAP as {name}")

    def mark(self, sender: V1Peer, *receivers: V1Peer) -> list[bytes]:
        """A broadcast that overtakes nothing comes to the receivers and the TAP: what was to come before, has.

        Gives the frames that came to the TAP meanwhile.
        """
        marker = frame(GROUP)
        sender.send_broadcast(random.getrandbits(32), marker)
        for receiver in receivers:
            receiver.expect(carries(marker))
        seen = self.tap.expect(lambda one: one == marker)
        sender.fence()
        return seen

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.tap.close()
        if self._listener:
            self._listener.close()


_numbers = itertools.count()


def frame(to: bytes, source: bytes = NOBODY, size: int = 60) -> bytes:
    """A frame of its own, the same in each run."""
    body = random.Random(next(_numbers)).randbytes(max(size - 14, 0))
    return (to + source + b"\x88\xb5" + body)[:size]


def carries(wanted: bytes) -> Callable[[Packet], bool]:
    return lambda packet: packet[0] in ("frame", "broadcast") and packet[-1] == wanted


def count(peer: V1Peer, wanted: bytes) -> int:
    return sum(map(carries(wanted), peer.received))


@pytest.fixture(params=DAEMONS)
def daemon(request: pytest.FixtureRequest) -> Daemon:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def shape(request: pytest.FixtureRequest) -> Shape:
    return getattr(request, "param", Shape())


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Sequence[str]:
    return getattr(request, "param", ())


@pytest.fixture
def mesh(lab: Lab, daemon: Daemon, shape: Shape, lines: Sequence[str]) -> Iterator[Mesh]:
    made = Mesh(lab, daemon, shape, lines)
    try:
        yield made
        assert made.node.exit_code in (None, 0), made.node.report()
    finally:
        made.close()


# One link


@every_shape
def test_on_activation_the_daemon_sends_an_echo_request_and_its_own_address(mesh: Mesh, shape: Shape) -> None:
    peer = mesh.link()
    peer.wait(lambda: len(peer.received) >= 2)
    assert peer.tls_version == shape.version.name.replace("_", ".")
    assert {packet[0] for packet in peer.received[:2]} == {"echo_request", "route_set"}
    assert (mesh.mac, 0, 1) in peer.expect("route_set")[1]


@every_shape
def test_an_echo_request_is_answered_with_the_same_id(mesh: Mesh) -> None:
    peer = mesh.link()
    for special in (0, 1, 255, 254):
        peer.send_echo(special)
        assert peer.expect("echo_reply") == ("echo_reply", special)


@every_shape
def test_a_route_request_is_answered_with_a_full_set(mesh: Mesh) -> None:
    peer = mesh.active()
    for _ in range(2):
        peer.send_route_request()
        assert (mesh.mac, 0, 1) in peer.expect("route_set")[1]


@every_shape
def test_a_frame_from_the_tap_comes_as_a_frame_to_whom_announced_its_destination(mesh: Mesh) -> None:
    peer = mesh.active("A", X)
    mesh.until_tap_reaches(peer, "frame", X)
    for size in (14, 60, 1514, CONN_MTU):
        sent = frame(X, mesh.mac, size)
        mesh.tap.send(sent)
        peer.expect(("frame", sent))
        assert count(peer, sent) == 1


@every_shape
def test_a_frame_for_its_own_address_reaches_the_tap_unchanged_and_once(mesh: Mesh) -> None:
    peer = mesh.active("A", X)
    sent = [frame(mesh.mac, X, size) for size in (14, 15, 60, 1514, CONN_MTU)]
    for one in sent:
        peer.send_frame(one)
    assert [one for one in mesh.mark(peer) if one in sent] == sent


@every_shape
def test_reserved_fields_are_sent_as_0(mesh: Mesh) -> None:
    peer = mesh.active("A", X)
    mesh.until_tap_reaches(peer, "frame", X)
    mesh.until_tap_reaches(peer, "broadcast", GROUP)
    peer.send_route_request()
    peer.expect("route_set")
    assert {kind for kind, _, _ in peer.headers} >= {1, 3, 4, 5, 6}
    assert all(special == 0 for kind, special, _ in peer.headers if kind <= 4)
    assert all(size == 0 for kind, _, size in peer.headers if kind >= 5)


@every_shape
def test_reserved_fields_are_ignored_when_received(mesh: Mesh) -> None:
    peer = mesh.active("A")
    sent = frame(mesh.mac)
    peer.send_raw(b"\x01\x5a\x00\x01" + X + b"\x00\x00" + b"\x00\x00\x00\x01")
    peer.send_raw(b"\x03\xff" + len(sent).to_bytes(2, "big") + sent)
    peer.send_raw(b"\x07\x11\xff\xff" + b"\x05\x2a\x00\x09")
    assert peer.expect("echo_reply") == ("echo_reply", 0x2A)
    mesh.tap.expect(lambda one: one == sent)
    mesh.until_tap_reaches(peer, "frame", X)


@every_shape
def test_packets_may_be_cut_at_every_byte(mesh: Mesh) -> None:
    peer = mesh.active("A")
    sent = frame(mesh.mac)
    for byte in b"\x03\x00" + len(sent).to_bytes(2, "big") + sent + b"\x05\x2a\x00\x00":
        peer.send_raw(bytes([byte]))
    assert peer.expect("echo_reply") == ("echo_reply", 0x2A)
    mesh.tap.expect(lambda one: one == sent)


@every_shape
def test_sigterm_gives_close_notify_and_exit_0(mesh: Mesh) -> None:
    peer = mesh.active()
    mesh.node.signal(signal.SIGTERM)
    assert peer.wait_end() == "close_notify"
    peer.close()
    assert mesh.node.wait() == 0
    assert not mesh.lab.host("a").has("tap0")


# Broadcasts


def test_a_broadcast_from_the_tap_comes_once_and_its_id_never_again(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B")
    sent = frame(GROUP, mesh.mac)
    mesh.tap.send(sent)
    ident = a.expect(carries(sent))[1]
    assert b.expect(carries(sent)) == ("broadcast", ident, sent)
    a.send_broadcast(ident, sent)
    assert sent not in mesh.mark(a, b)
    assert (count(a, sent), count(b, sent)) == (1, 1)


def test_broadcasts_from_the_tap_have_different_ids(mesh: Mesh) -> None:
    peer = mesh.active()
    sent = [frame(GROUP, mesh.mac) for _ in range(20)]
    for one in sent:
        mesh.tap.send(one)
    assert len({peer.expect(carries(one))[1] for one in sent}) == len(sent)


def test_a_broadcast_from_a_peer_goes_to_the_tap_and_the_other_peers_once(mesh: Mesh) -> None:
    a, b, c = (mesh.active(name) for name in "ABC")
    sent = frame(GROUP)
    a.send_broadcast(0xFFFFFFFF, sent)
    a.send_broadcast(0xFFFFFFFF, sent)
    b.expect(("broadcast", 0xFFFFFFFF, sent))
    b.send_broadcast(0xFFFFFFFF, sent)
    b.fence()
    seen = mesh.mark(a, b, c)
    assert (seen.count(sent), count(a, sent), count(b, sent), count(c, sent)) == (1, 0, 1, 1)


def test_a_broadcast_with_a_known_destination_goes_along_that_route_only(mesh: Mesh) -> None:
    a, b, c = mesh.active("A"), mesh.active("B", X), mesh.active("C")
    mesh.until_tap_reaches(b, "frame", X)
    sent = frame(X)
    a.send_broadcast(5, sent)
    b.expect(("broadcast", 5, sent))
    seen = mesh.mark(a, b, c)
    assert (seen.count(sent), count(a, sent), count(b, sent), count(c, sent)) == (0, 0, 1, 0)


def test_a_broadcast_for_its_own_address_goes_to_the_tap_only(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B")
    sent = frame(mesh.mac)
    a.send_broadcast(6, sent)
    seen = mesh.mark(a, b)
    assert (seen.count(sent), count(a, sent), count(b, sent)) == (1, 0, 0)


# Frames between peers


def test_a_frame_is_relayed_along_its_route_only(mesh: Mesh) -> None:
    a, b, c = mesh.active("A"), mesh.active("B", X), mesh.active("C")
    mesh.until_tap_reaches(b, "frame", X)
    sent = frame(X)
    a.send_frame(sent)
    b.expect(("frame", sent))
    seen = mesh.mark(a, b, c)
    assert (seen.count(sent), count(a, sent), count(b, sent), count(c, sent)) == (0, 0, 1, 0)


def test_a_frame_for_an_unknown_destination_is_flooded_as_a_broadcast(mesh: Mesh) -> None:
    a, b, c = (mesh.active(name) for name in "ABC")
    sent = frame(NOBODY)
    a.send_frame(sent)
    assert b.expect(carries(sent)) == c.expect(carries(sent))
    mesh.mark(a, b, c)
    assert (count(a, sent), count(b, sent), count(c, sent)) == (0, 1, 1)
    assert all(packet[0] == "broadcast" for packet in filter(carries(sent), b.received))


def test_a_frame_from_the_tap_for_an_unknown_destination_is_flooded(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B", X)
    sent = frame(NOBODY, mesh.mac)
    mesh.tap.send(sent)
    assert a.expect(carries(sent))[0] == "broadcast"
    assert b.expect(carries(sent))[0] == "broadcast"


@ours_only
def test_a_frame_does_not_go_back_to_the_link_it_came_from(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B", X)
    mesh.until_tap_reaches(b, "frame", X)
    sent = frame(X)
    b.send_frame(sent)
    mesh.mark(b, a)
    assert count(b, sent) == 0


# Routes


def test_routes_go_on_with_a_hop_and_the_links_ping_added(mesh: Mesh) -> None:
    b = mesh.active("B")
    start = time.monotonic()
    a = mesh.link("A")
    a.send_route_set([(X, 0, 1000), (Y, 7, 5000), (Z, 1, 0x10000)])
    a.expect("echo_request")
    a.fence()
    most = int((time.monotonic() - start) * 1e6)
    b.wait(lambda: b.routes.keys() >= {X, Y, Z}, what="the routes")
    assert [b.routes[mac][0] for mac in (X, Y, Z)] == [1, 8, 2]
    link_pings = {b.routes[mac][1] - announced - 2 for mac, announced in ((X, 1000), (Y, 5000), (Z, 0x10000))}

    def measured() -> set[int]:
        """The ping of the link that announces X, from the status."""
        return {link.ping for link in mesh.node.status().links if link.routes.get(X.hex(":")) == (0, 1000)}

    assert link_pings == mesh.lab.until(measured, 5, "the link's ping in the status")
    assert 1 <= min(link_pings) <= most


def test_a_new_peer_is_told_in_its_first_set_what_the_others_have_been_told(mesh: Mesh) -> None:
    _, b = mesh.active("A", X, Y), mesh.active("B")
    b.wait(lambda: b.routes.keys() >= {X, Y}, what="the routes")
    entries = {mac: dist for mac, dist, _ in mesh.link("C").expect("route_set")[1]}
    assert entries.items() >= {mesh.mac: 0, X: 1, Y: 1}.items()


def test_of_two_routes_the_one_with_the_lower_ping_is_used(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B", X)
    a.send_route_set([(X, 0, 30_000_000)])
    mesh.until_tap_reaches(b, "frame", X)
    b.send_route_set([(X, 0, 60_000_000)])
    mesh.until_tap_reaches(a, "frame", X)


def test_a_deleted_route_is_deleted_at_the_others(mesh: Mesh) -> None:
    a, b = mesh.active("A", X, Y), mesh.active("B")
    b.wait(lambda: b.routes.keys() >= {X, Y}, what="the routes")
    a.send_route_diff([(X, 0, 0)])
    b.expect(lambda packet: packet[0] == "route_diff" and any((mac, ping) == (X, 0) for mac, _, ping in packet[1]))
    assert X not in b.routes and Y in b.routes
    mesh.until_tap_reaches(a, "broadcast", X)


def test_a_set_replaces_what_was_announced_before(mesh: Mesh) -> None:
    a, b = mesh.active("A", X), mesh.active("B")
    b.wait(lambda: X in b.routes, what="the route")
    a.send_route_set([(Y, 0, 1)])
    b.wait(lambda: Y in b.routes and X not in b.routes, what="the other route only")


@ours_only
@pytest.mark.parametrize("lines", [["heartbeat 1000000"]], indirect=True, ids=["slow_heartbeat"])
def test_a_route_that_goes_in_the_heartbeat_in_which_a_new_peer_was_told_it_is_deleted_there(mesh: Mesh) -> None:
    a = mesh.active("A", X)
    b = mesh.link("B")
    b.expect("route_set")
    a.send_route_diff([(X, 0, 0)])
    a.send_route_set([(Y, 0, 1)])
    b.wait(lambda: Y in b.routes, what="the next route")
    assert X not in b.routes


@pytest.mark.parametrize("end", [V1Peer.close, V1Peer.half_close, V1Peer.reset], ids=["close", "half_close", "reset"])
def test_the_routes_of_a_link_end_with_it(mesh: Mesh, end: Callable[[V1Peer], None]) -> None:
    a, b = mesh.active("A", X), mesh.active("B")
    b.wait(lambda: X in b.routes, what="the route")
    end(a)
    b.wait(lambda: X not in b.routes, what="the deletion")
    b.fence()


@ours_only
def test_routes_are_not_used_before_the_first_echo_reply(mesh: Mesh) -> None:
    b = mesh.active("B")
    a = mesh.link("A", answer_echo=False)
    a.send_route_set([(X, 0, 1)])
    a.expect("echo_request")
    a.fence()
    sent = frame(X, mesh.mac)
    mesh.tap.send(sent)
    assert a.expect(carries(sent))[0] == "broadcast"
    assert b.expect(carries(sent))[0] == "broadcast"
    assert X not in b.routes
    a.answer_echoes()
    mesh.until_tap_reaches(a, "frame", X)
    b.wait(lambda: X in b.routes, what="the route")


@ours_only
def test_an_echo_reply_with_another_id_is_no_first_reply(mesh: Mesh) -> None:
    a = mesh.link("A", answer_echo=False)
    a.send_route_set([(X, 0, 1)])
    special = a.expect("echo_request")[1]
    a.send_echo_reply(special ^ 0x55)
    a.fence()
    sent = frame(X, mesh.mac)
    mesh.tap.send(sent)
    assert a.expect(carries(sent))[0] == "broadcast"
    a.answer_echoes()
    mesh.until_tap_reaches(a, "frame", X)


# What a peer may not do


@ours_only
def test_group_addresses_and_its_own_are_not_taken_from_a_peer(mesh: Mesh) -> None:
    a, b = mesh.link("A"), mesh.active("B")
    a.send_route_set([(GROUP, 0, 1), (b"\x01\0\x5e\0\0\1", 0, 1), (mesh.mac, 0, 0xFFFFFFFE), (X, 0, 1)])
    mesh.until_tap_reaches(a, "frame", X)
    b.wait(lambda: X in b.routes, what="the honest route")
    assert not [mac for mac in b.routes if mac[0] & 1]
    assert b.routes[mesh.mac] == (0, 1)
    mine, everybodys = frame(mesh.mac), frame(GROUP, mesh.mac)
    b.send_frame(mine)
    mesh.tap.send(everybodys)
    for peer in (a, b):
        peer.expect(carries(everybodys))
    assert mine in mesh.mark(b, a)
    assert count(a, mine) == 0


@ours_only
@pytest.mark.parametrize("ping", [0xFFFFFFFE, 0xFFFFFFFF])
def test_a_ping_that_would_wrap_wins_nothing(mesh: Mesh, ping: int) -> None:
    a, b = mesh.active("A"), mesh.active("B", X)
    a.send_route_set([(X, 0, ping), (Y, 0, 1)])
    mesh.until_tap_reaches(a, "frame", Y)
    mesh.until_tap_reaches(b, "frame", X)
    sent = frame(X, mesh.mac)
    mesh.tap.send(sent)
    b.expect(("frame", sent))
    assert count(a, sent) == 0


@ours_only
def test_an_entry_with_ping_0_in_a_set_is_ignored_and_of_two_the_last_wins(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B")
    a.send_route_set([(X, 0, 0), (Y, 3, 1), (Y, 5, 1)])
    b.wait(lambda: Y in b.routes, what="the route")
    assert X not in b.routes
    assert b.routes[Y][0] == 6


@ours_only
@pytest.mark.parametrize("kind", [0, 8, 9, 13, 255])
def test_an_unknown_type_closes_that_link_only(mesh: Mesh, kind: int) -> None:
    a, b = mesh.active("A", X), mesh.active("B")
    b.wait(lambda: X in b.routes, what="the route")
    a.send_raw(bytes([kind, 0, 0, 0]))
    a.wait_end()
    b.wait(lambda: X not in b.routes, what="the deletion")
    b.fence()
    mesh.active("C").fence()


@ours_only
def test_a_frame_that_is_too_short_or_too_long_is_dropped_and_the_link_stays(mesh: Mesh) -> None:
    a, b = mesh.active("A"), mesh.active("B", X)
    mesh.until_tap_reaches(b, "frame", X)
    good = [frame(to, size=size) for to in (mesh.mac, X) for size in (14, CONN_MTU)]
    bad = [frame(to, size=size) for to in (mesh.mac, X, GROUP) for size in (0, 1, 13, CONN_MTU + 1, 65535)]
    for number, one in enumerate(bad + good):
        a.send_frame(one)
        if one in bad:
            a.send_broadcast(number, one)
    seen = mesh.mark(a, b)
    assert [one for one in seen if one in good + bad] == good[:2]
    assert [packet[-1] for packet in b.received if packet[-1] in good + bad] == good[2:]


@ours_only
def test_a_frame_over_conn_mtu_from_the_tap_is_dropped(mesh: Mesh) -> None:
    a = mesh.active("A", X)
    mesh.until_tap_reaches(a, "frame", X)
    bad, good = frame(X, mesh.mac, CONN_MTU + 1), frame(X, mesh.mac, CONN_MTU)
    mesh.tap.send(bad)
    mesh.tap.send(good)
    a.expect(("frame", good))
    assert count(a, bad) == 0

# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a real daemon does not let in, or lets go, and that this harms no one else.

    b: the daemon, :4000 --w1-- a: daemons, peers and sockets that want in
"""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from cloudvpn import pki
from tests.golden.v1peer import V1Peer, dial, pack, tls_context
from tests.netns.keys import Identity, authority, identity
from tests.netns.lab import Lab, Node

PORT = 4000
LOG_LINE = r"\d{4}-\d\d-\d\dT[\d:.+-]+ (info|warning|error) "
EVIL = "evil\n2026-01-01T00:00:00.000+00:00 info link up: forged\x1b[31m"
CUT = ("eof", "reset", "close_notify")
MAC = bytes.fromhex("020000000011")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.wire("a", "b")
        yield lab


def start(lab: Lab, *lines: str) -> Node:
    node = lab.node("b", f"listen 0.0.0.0 {PORT}", *lines)
    lab.until(lambda: lab.host("b").is_listening(PORT), 15, "the daemon listens")
    return node


def connect(lab: Lab) -> socket.socket:
    with lab.host("a").inside():
        return socket.create_connection((lab.wires[0].address("b"), PORT), timeout=5)


def link(lab: Lab, keys: Identity, answer_echo: bool = True) -> V1Peer:
    """A peer whose handshake is done, at least on its own side."""
    with lab.host("a").inside():
        return dial((lab.wires[0].address("b"), PORT), tls_context(False, *keys), 5, answer_echo)


def active(lab: Lab, name: str, *macs: bytes) -> V1Peer:
    peer = link(lab, identity(name))
    peer.send_route_set([(mac, 0, 1) for mac in macs])
    peer.fence()
    return peer


def name_of(sock: socket.socket) -> str:
    return ":".join(map(str, sock.getsockname()))


def wait_eof(sock: socket.socket, deadline: float = 5.0) -> None:
    sock.settimeout(deadline)
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(4096):
            pass


def certify(directory: Path, file: str, name: str, days_left: float = 1) -> Identity:
    """A node's certificate of the laboratory's CA."""
    ca_file, ca = authority("lab")
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    key, cert = pki.issue(ca, name, not_before=now - 3 * day, not_after=now + days_left * day)
    keys = Identity(directory / f"{file}.crt", directory / f"{file}.key", ca_file)
    pki.write_key(keys.key, key)
    pki.write_cert(keys.cert, cert)
    return keys


def revoke(path: Path, *revoked: Identity) -> Path:
    certs = [x509.load_pem_x509_certificate(keys.cert.read_bytes()) for keys in revoked]
    pki.write_cert(path, pki.make_crl(authority("lab")[1], [cert.serial_number for cert in certs]))
    return path


# Who does not come to the point


def test_who_does_not_become_a_link_is_cut_after_handshake_timeout(lab: Lab) -> None:
    """Silent when the daemon dials, when it was dialled, within the handshake and after it."""
    here = lab.wires[0].address("a")
    with lab.host("a").inside():
        listener = socket.create_server((here, PORT))
    listener.settimeout(15)
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", f"connect {here} {PORT}", "handshake_timeout 1s", "conn_retry 1min",
                 "log_level debug")

    def half_a_hello() -> socket.socket:
        sock = connect(lab)
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        return sock

    for silence in (lambda: listener.accept()[0], lambda: connect(lab), half_a_hello):
        with silence() as sock:
            begun = time.monotonic()
            wait_eof(sock)
            assert time.monotonic() - begun == pytest.approx(1, abs=0.5)
    peer = link(lab, identity("A"), answer_echo=False)
    begun = time.monotonic()
    assert peer.wait_end() in CUT
    assert time.monotonic() - begun == pytest.approx(1, abs=0.5)

    b.wait_log(rf"warning no link to {here} {PORT}: .*timed out$")
    b.wait_log(rf"warning refused {here}:\d+: timed out$")
    b.wait_log(rf"debug refused {here}:\d+: timed out$")      # the same of the same host
    b.wait_log(rf"warning no link to A at {here}:\d+: no valid packet within handshake_timeout 1 s$")
    assert len(re.findall("refused|no link", b.log_text())) == 4, b.report()


def test_what_is_not_tls_is_refused_and_called_so(lab: Lab) -> None:
    b = start(lab, "log_level debug")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x00" * 100, b"\xff" * 5000, b"\n" * 6):
        with connect(lab) as sock:
            sock.sendall(garbage)
            wait_eof(sock, 3)
            b.wait_log(f"(warning|debug) refused {name_of(sock)}: not TLS$")
    assert len(re.findall("warning refused", b.log_text())) == 1, b.report()
    active(lab, "A").close()


# Who has no good certificate


def test_whom_the_ca_does_not_know_is_refused_and_both_logs_say_why(lab: Lab) -> None:
    place = f"connect {lab.wires[0].address('b')} {PORT}"
    revoked = certify(lab.directory, "revoked", "fallen")
    other = identity("trusting", ca="other")
    b = start(lab, f"crl {revoke(lab.directory / 'crl.pem', revoked)}")
    lines = {
        "stranger": [],
        "trusting": [f"cert {other.cert}", f"key {other.key}", f"ca {other.ca}"],
        "fallen": [f"cert {revoked.cert}", f"key {revoked.key}"],
    }
    nodes = {
        name: lab.node("a", place, *more, name=name, ca="other" if name == "stranger" else "lab")
        for name, more in lines.items()
    }
    said = rf"warning no link to (b at )?198\.18\.1\.2[: ]{PORT}: "
    refused = r"warning refused 198\.18\.1\.1:\d+: "
    unproven = "closed by the peer before its first packet: probably refused, see its log$"
    nodes["stranger"].wait_log(f"{said}.*its certificate is not signed by a CA we load", 15)
    b.wait_log(rf"{refused}(the peer refused our certificate \(alert unknown ca\)|closed by the peer during)")
    nodes["trusting"].wait_log(rf"{said}({unproven}|.*the peer refused our certificate \(alert unknown ca\)$)", 15)
    b.wait_log(f"{refused}its certificate is not signed by a CA we load")
    nodes["fallen"].wait_log(f"{said}{unproven}", 15)
    b.wait_log(rf'{refused}"fallen" \(serial [0-9a-f]+, issuer "lab"\): it was revoked on \d{{4}}-')
    # A peer that says why it refuses us.
    with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
        link(lab, identity("A", ca="other"))
    b.wait_log(rf"{refused}the peer refused our certificate \(alert unknown ca\)$")
    for node in (b, *nodes.values()):
        assert "link up" not in node.log_text() and "Traceback" not in node.log_text(), node.report()
    lab.until(lambda: "connections: 0" in b.status().text, 5, "no link")
    active(lab, "A").close()


def test_no_certificate_and_an_expired_one_are_refused(lab: Lab) -> None:
    b = start(lab)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    with lab.host("a").inside():
        peer = dial((lab.wires[0].address("b"), PORT), bare)
    assert peer.wait_end() in ("tls: TLSV13_ALERT_CERTIFICATE_REQUIRED", *CUT)
    b.wait_log(r"warning refused 198\.18\.1\.1:\d+: the peer sent no certificate$")
    assert link(lab, certify(lab.directory, "old", "late", -1)).wait_end() in CUT
    b.wait_log(r'warning refused .*: "late" \(serial .*\): it expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC$')


def test_a_name_with_control_characters_forges_no_line(lab: Lab) -> None:
    good, bad = (certify(lab.directory, file, EVIL) for file in ("good", "bad"))
    b = start(lab, f"crl {revoke(lab.directory / 'crl.pem', bad)}")
    assert link(lab, bad).wait_end() in CUT
    peer = link(lab, good)
    peer.fence()
    shown = re.escape(EVIL.replace("\n", r"\x0a").replace("\x1b", r"\x1b"))
    b.wait_log(f'warning refused .*: "{shown}" .*: it was revoked on')
    b.wait_log(f"info link up: {shown} at .*, accepted, TLSv1.3, version 1$")
    lab.until(lambda: re.search(f"^ = certificate `{shown}', TLS", b.status().text, re.MULTILINE), 5, "the status")
    peer.close()
    b.wait_log(f"info link down: {shown} at .*: closed by the peer$")
    assert all(re.match(LOG_LINE, line) for line in b.log_text().splitlines()), b.report()
    assert "\x1b" not in b.log_text() + b.status().text
    assert not re.search("^.{0,40}(info|warning) link up: forged", b.log_text(), re.MULTILINE)


# Who is too many, or misbehaves


def test_more_than_max_connections_are_closed_at_once_until_one_goes(lab: Lab) -> None:
    b = start(lab, "max_connections 2", "log_level debug")
    first, second = active(lab, "A"), active(lab, "B")

    def is_refused() -> bool:
        with connect(lab) as sock:
            begun = time.monotonic()
            wait_eof(sock)
            b.wait_log(rf"(warning|debug) refused {name_of(sock)}: all max_connections 2 are in use$")
            return time.monotonic() - begun < 1

    assert is_refused() and is_refused()
    for leaving, name in ((first, "A"), (second, "B")):
        leaving.close()
        b.wait_log(f"info link down: {name} at .*: closed by the peer$")
    with connect(lab) as silent, active(lab, "C"):  # one that has not said anything yet leaves its place
        name = name_of(silent)
        with active(lab, "D"):
            wait_eof(silent)
            b.wait_log(f"(warning|debug) refused {name}: over max_connections 2, and it had said nothing$")
            assert is_refused()
    lab.until(lambda: "refused_full 3" in b.status().text, 5, "the count in the status")
    assert "handshakes_crowded_out 1" in b.status().text


def test_a_packet_of_unknown_type_closes_that_link_only(lab: Lab) -> None:
    b = start(lab)
    witness = active(lab, "W")
    for kind in (0, 8, 255):
        peer = active(lab, f"P{kind}")
        peer.send_raw(bytes([kind, 0, 0, 0]) + pack(("echo_request", 77)))
        assert peer.wait_end() in CUT
        assert ("echo_reply", 77) not in peer.received
        b.wait_log(rf"info link down: P{kind} at .*: packet of unknown type {kind}$")
        witness.fence()
    lab.until(lambda: [bool(one.ping) for one in b.status().links] == [True], 5, "one link")
    assert "links_lost 3" in b.status().text


def test_a_peer_that_stops_reading_harms_no_one_else(lab: Lab) -> None:
    """100 MB and more for it come through the relay, whose memory stays, while two other nodes lose no ping."""
    lab.wire("b", "c")
    b = start(lab)
    for number, name in ((1, "a"), (3, "c")):
        wire = lab.wires[name == "c"]
        lab.node(name, f"connect {wire.address('b')} {PORT}", "iface yes", f"iface_address 10.9.0.{number}/24")
    lab.wait_for_ping("a", "10.9.0.3")
    stalled, sender = active(lab, "stalled", MAC), active(lab, "sender")
    batch = pack(("frame", MAC + bytes(8000 - len(MAC)))) * 50
    before, most, offered = read_rss(b), 0, 0
    with lab.host("a").pings("10.9.0.3", 0.1, 30) as pings:
        while pings.is_alive() or offered < 100_000_000 // 8000:
            sender.send_raw(batch, 20)
            offered += 50
            most = max(most, read_rss(b))
    assert pings.result.received == 30, pings.result
    assert most - before < 20_000_000
    sender.fence(20)

    def drops() -> int:
        links = [one for one in b.status().links if "`stalled'" in one.text]
        return sum(int(count) for count in re.findall(r"dropped (\d+)", links[0].text))

    # What did not fit into the kernel's buffers, some MB, and into the queue.
    lab.until(lambda: drops() > offered * 0.8, 5, "the fault: most were dropped, and counted for that link")
    total = re.findall(r"queue_full (\d+)", b.status().text)
    assert drops() <= int(total[0]) <= offered
    stalled.fence(20)  # it reads on: the link has survived


def read_rss(node: Node) -> int:
    """Bytes."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024

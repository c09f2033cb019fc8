# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that no node of ours can be, and sessions that come back, against a real node: none gets in."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvloop

from cloudvpn.tls import CLOSED_EARLY
from tests.unit.node_lab import DEADLINE, HOST, Log, load_case, log, node, until
from tests.unit.trust_cases import CA, GOOD, make_crl

__all__ = ["log"]


@dataclass(frozen=True)
class Stranger:
    """Says these bytes, or speaks TLS in a way of its own; then it waits until it is cut, or ends itself."""

    name: str
    reason: str  # pattern
    data: bytes = b""
    tls: Callable[[ssl.SSLContext], None] | None = None
    ends: bool = False
    has_certificate: bool = True
    patience: float = 10  # seconds, of the node

    def speak(self, connection: socket.socket, folder: Path, *, is_server: bool) -> bytes:
        """What it gets to see of the node."""
        connection.settimeout(DEADLINE)
        with connection, contextlib.suppress(OSError):  # the node cuts it
            if self.tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                if self.has_certificate:
                    context.load_cert_chain(folder / "cert", folder / "key")
                self.tls(context)
                connection = context.wrap_socket(connection, server_side=is_server)
                return connection.recv(4096)
            connection.sendall(self.data)
            if self.ends:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        return b""


def speak_old(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def limit(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version

    return limit


def offer(ciphers: str) -> Callable[[ssl.SSLContext], None]:
    def limit(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)

    return limit


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
OLD_TLS = "the peer speaks no TLS version that we do, 1.2 or newer"
NO_CIPHER = r"TLS failed: no shared cipher|the peer refused the handshake \(alert"
STRANGERS = [
    Stranger("plain text", "not TLS", b"hello, is anybody there?\r\n"),
    Stranger("a web browser", "not TLS", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Stranger("a web server", "not TLS", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    Stranger("SSH", "not TLS", b"SSH-2.0-OpenSSH_9.2\r\n"),
    Stranger("zeros", "not TLS", bytes(64)),
    Stranger("nothing but an end", CLOSED_EARLY, ends=True),
    Stranger("half a hello and an end", CLOSED_EARLY, HELLO, ends=True),
    Stranger("half a hello and silence", "timed out", HELLO, patience=0.2),
    Stranger("silence", "timed out", patience=0.2),
    Stranger("a hello of garbage", "TLS failed: |not TLS", HELLO + b"\xff" * 600),
    Stranger("TLS 1.0", OLD_TLS, tls=speak_old(ssl.TLSVersion.TLSv1)),
    Stranger("TLS 1.1", OLD_TLS, tls=speak_old(ssl.TLSVersion.TLSv1_1)),
    Stranger("no encryption", NO_CIPHER, tls=offer("eNULL:@SECLEVEL=0")),
    Stranger("no forward secrecy", NO_CIPHER, tls=offer("kRSA:@SECLEVEL=0")),
    Stranger("anonymous ciphers", NO_CIPHER, tls=offer("aNULL:@SECLEVEL=0")),
    Stranger("no certificate, TLS 1.2", "the peer sent no certificate", tls=offer("DEFAULT"), has_certificate=False),
    Stranger("no certificate, TLS 1.3", "the peer sent no certificate", tls=lambda _: None, has_certificate=False),
]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize(("stranger", "bad_dials"), [
    pytest.param(one, dials, id=f"{one.name}, {'dials' if dials else 'is dialled'}")
    for one in STRANGERS for dials in (True, False) if dials or one.has_certificate  # a server needs one
])  # fmt: skip
def test_a_stranger_is_refused(stranger: Stranger, bad_dials: bool, tmp_path: Path, log: Log) -> None:
    good = load_case(GOOD[0], tmp_path)
    GOOD[1].write(tmp_path)     # an RSA key fits every cipher that wants one

    async def visit() -> tuple[int, bytes]:
        async with node(good, patience=stranger.patience) as (mesh, port):
            def dial() -> bytes:
                return stranger.speak(socket.create_connection((HOST, port)), tmp_path, is_server=False)

            got = await asyncio.to_thread(dial)
            await until(lambda: log.of(port, dials=False), lambda: log.lines)
            assert not mesh.counters["links_up"]
        return port, got

    async def wait() -> tuple[int, bytes]:
        with socket.create_server((HOST, 0)) as listener:
            port: int = listener.getsockname()[1]

            def answer() -> bytes:
                return stranger.speak(listener.accept()[0], tmp_path, is_server=True)

            listener.settimeout(DEADLINE)
            async with node(good, dials=port, patience=stranger.patience) as (mesh, _):
                got = await asyncio.to_thread(answer)
                await until(lambda: log.of(port, dials=True), lambda: log.lines)
                assert not mesh.counters["links_up"]
        return port, got

    port, got = uvloop.run(visit() if bad_dials else wait())
    said = log.of(port, dials=not bad_dials)
    assert got == b"" and len(said) == 1 and re.search(f": ({stranger.reason})", said[0])


# Resumption


def call(context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSocket, bytes]:
    """A peer's connection, and what it hears on it; b"": it was refused."""
    raw = socket.create_connection((HOST, port), DEADLINE)
    connection = context.wrap_socket(raw, session=session, do_handshake_on_connect=False)
    with contextlib.suppress(OSError):
        connection.do_handshake()
        return connection, connection.recv(4096)
    return connection, b""


@pytest.mark.parametrize("is_revoked", [False, True], ids=["same files", "revoked meanwhile"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(version: ssl.TLSVersion, is_revoked: bool, tmp_path: Path, log: Log) -> None:
    case, folders = GOOD[0], [tmp_path / "before", tmp_path / "after"]
    revoked = replace(case, crls=[make_crl(CA, [case.identity[1].serial_number])])
    paths = case.write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, version
    context.load_cert_chain(paths["cert"], paths["key"])

    async def visit() -> tuple[bytes, bool, str]:
        for folder in folders:
            folder.mkdir()
        async with node(load_case(case, folders[0])) as (mesh, port):
            first, greeting = await asyncio.to_thread(call, context, port)
            assert greeting and first.session is not None
            if is_revoked:
                mesh.credentials = load_case(revoked, folders[1])
            # The first stays open: OpenSSL forgets the session of a connection that breaks.
            second, heard = await asyncio.to_thread(call, context, port, first.session)
            name, is_reused = f"{HOST}:{second.getsockname()[1]}", bool(second.session_reused)
            second.close()
            first.close()
            await until(lambda: name in "".join(log.lines), lambda: log.lines)
            assert not mesh.counters["links_up"]
        return heard, is_reused, next(line for line in log.lines if name in line)

    heard, is_reused, said = uvloop.run(visit())
    # TLS 1.2 resumes by session id, tickets are off in both; the contexts of a new load know no old session.
    assert is_reused == (version == ssl.TLSVersion.TLSv1_2 and not is_revoked)
    if is_revoked:
        assert re.search(r'refused .*: "x" \(serial .*, issuer "CA"\): it was revoked on', said)
    if is_reused:
        assert said.endswith(": the peer resumed a session, only full handshakes are allowed")
    assert bool(heard) == (not is_reused and not is_revoked)    # who is not revoked may come back by a full handshake

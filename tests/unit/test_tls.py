# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may join, why not, and what is said about bad files: with handshakes in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudvpn.errors import ConfigError
from cloudvpn.pki import Issuer, KeyType, PrivateKey, issue, make_ca, make_crl, make_key, write_cert, write_key
from cloudvpn.tls import CLOSED_EARLY, Credentials, Refused, break_reason, handshake_reason, load

DAY = timedelta(days=1)
NOW = datetime.now(timezone.utc)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
CRL = x509.CertificateRevocationList
CA = make_ca("CA")
OTHER = make_ca("Other CA")
SUB = Issuer(*issue(CA, "Sub CA", is_ca=True))
NODE = issue(CA, "node")
SUB_NODE = issue(SUB, "sub node")


@dataclass
class Files:
    """A node's files in a folder of its own."""

    folder: Path
    identity: tuple[PrivateKey, x509.Certificate] = NODE
    above: Sequence[x509.Certificate] = ()
    cas: Sequence[x509.Certificate] = (CA.cert,)
    crls: Sequence[CRL] = ()
    password: str | None = None
    paths: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = {name: self.folder / name for name in ("key", "cert", "ca", "crl")}
        write_key(self.paths["key"], self.identity[0], self.password)
        write_cert(self.paths["cert"], self.identity[1], *self.above)
        write_cert(self.paths["ca"], *self.cas)
        write_cert(self.paths["crl"], *self.crls)

    def load(self, key_pass: str | None = None) -> Credentials:
        crl = [self.paths["crl"]] if self.paths["crl"].stat().st_size else []
        return load(self.paths["key"], self.paths["cert"], [self.paths["ca"]], crl, key_pass or self.password)

    def problems(self, key_pass: str | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(key_pass)
        assert all(line.isprintable() for line in caught.value.problems)
        return "\n".join(caught.value.problems)

    def context(self, protocol: ssl._SSLMethod) -> ssl.SSLContext:
        """A peer that shows these files and trusts everybody."""
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.paths["cert"], self.paths["key"])
        return context


def number_folders(parent: Path) -> Iterator[Path]:
    for number in itertools.count():
        (folder := parent / str(number)).mkdir()
        yield folder


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return number_folders(tmp_path)


@pytest.fixture
def ours(folders: Iterator[Path]) -> Credentials:
    return Files(next(folders)).load()


@dataclass
class Side:
    tls: ssl.SSLObject
    is_done: bool = False
    error: ssl.SSLError | None = None

    def step(self) -> None:
        try:
            if self.is_done:
                self.tls.read(1)  # with TLS 1.3 a client learns only here that it was refused
            else:
                self.tls.do_handshake()
                self.is_done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error


def shake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[Side, Side]:
    """Let two contexts meet in memory until both are done or one failed."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = Side(server.wrap_bio(up, down, server_side=True)), Side(client.wrap_bio(down, up, session=session))
    for _ in range(10):
        for side in sides:
            if side.error is None:
                side.step()
    return sides


def sign_plain(
    key: Any, signer: Any, subject: x509.Name, issuer: x509.Name, *, is_ca: bool = False
) -> x509.Certificate:
    """A certificate without any extension but the one that makes a CA."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(9).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    if is_ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(signer, hashes.SHA256())


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def meet(ours: Credentials, peer: Files, version: ssl.TLSVersion = VERSIONS[1], *, dials: bool = True) -> Side:
    """Our side after a handshake with a peer that checks nothing; `dials` tells whether the peer is the client."""
    context = peer.context(ssl.PROTOCOL_TLS_CLIENT if dials else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    if dials:
        return shake(ours.server_context, context)[0]
    return shake(context, ours.client_context)[1]


def refusal(ours: Credentials, peer: Files, now: datetime | None = None, **how: Any) -> str:
    """Why the peer may not join; the handshake itself goes well."""
    side = meet(ours, peer, **how)
    assert side.is_done and side.error is None
    with pytest.raises(Refused) as caught:
        ours.judge(side.tls, now)
    return str(caught.value)


def failure(ours: Credentials, peer: Files, **how: Any) -> str:
    side = meet(ours, peer, **how)
    assert side.error is not None
    return handshake_reason(side.error)


# Who may join


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key_type", get_args(KeyType))
def test_two_nodes_of_one_ca_join(folders: Iterator[Path], version: ssl.TLSVersion, key_type: KeyType) -> None:
    one, two = (Files(next(folders), issue(CA, name, key_type=key_type)) for name in ("one", "two"))
    server, client = one.load(), two.load()
    client.client_context.maximum_version = version
    sides = shake(server.server_context, client.client_context)
    assert [side.tls.version() for side in sides] == ["TLSv1.2" if version == VERSIONS[0] else "TLSv1.3"] * 2
    seen = server.judge(sides[0].tls).identity
    cert = two.identity[1]
    assert (seen.name, seen.serial, seen.issuer) == ("two", cert.serial_number, "CA")
    assert seen.not_after == cert.not_valid_after_utc
    assert seen.fingerprint == cert.fingerprint(hashes.SHA256()).hex()
    assert seen == client.own
    assert client.judge(sides[1].tls).identity == server.own


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_node_joins_through_an_intermediate_that_it_shows(
    folders: Iterator[Path], version: ssl.TLSVersion, dials: bool
) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders), SUB_NODE, [SUB.cert])
    assert ours.judge(meet(ours, peer, version, dials=dials).tls).identity.issuer == "Sub CA"


@pytest.mark.parametrize("cas", [[SUB.cert, CA.cert], [CA.cert, SUB.cert], [SUB.cert]])
def test_an_intermediate_that_is_loaded_need_not_be_shown(folders: Iterator[Path], cas: list[x509.Certificate]) -> None:
    peer = Files(next(folders), SUB_NODE, cas=cas)
    ours = peer.load()
    assert ours.judge(meet(ours, peer).tls).identity.name == "sub node"


def test_nodes_of_two_cas_join_if_both_are_loaded(folders: Iterator[Path]) -> None:
    ours = Files(next(folders), cas=[CA.cert, OTHER.cert]).load()
    for issuer in (CA, OTHER):
        peer = ours.judge(meet(ours, Files(next(folders), issue(issuer, "x"))).tls)
        assert peer.identity.issuer == issuer.cert.subject.rfc4514_string().removeprefix("CN=")


def test_no_extended_usages_are_good(folders: Iterator[Path]) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders), issue(CA, "plain", extended_usages=None))
    for dials in (True, False):
        assert ours.judge(meet(ours, peer, dials=dials).tls).identity.name == "plain"


@pytest.mark.parametrize("is_new_first", [True, False])
def test_a_renewed_ca_wins_over_its_expired_certificate(folders: Iterator[Path], is_new_first: bool) -> None:
    old = make_ca("CA", key=CA.key, not_before=NOW - 9 * DAY, not_after=NOW - DAY).cert
    ours = Files(next(folders), cas=[CA.cert, old] if is_new_first else [old, CA.cert]).load()
    assert ours.judge(meet(ours, Files(next(folders))).tls).identity.name == "node"
    assert sum("expired" in warning for warning in ours.warnings) == 1


def test_names_are_kept_raw_and_a_subject_without_common_name_is_shown_whole(folders: Iterator[Path]) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders), issue(CA, "evil\nline"))
    assert ours.judge(meet(ours, peer).tls).identity.name == "evil\nline"
    key, subject = make_key(), x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org")])
    peer = Files(next(folders), (key, sign_plain(key, CA.key, subject, CA.cert.subject)))
    assert ours.judge(meet(ours, peer).tls).identity.name == "O=Org"


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_the_chain_is_seen_through_event_loops_too(folders: Iterator[Path], loop_name: str) -> None:
    ours = Files(next(folders), crls=[make_crl(CA, [SUB.cert.serial_number])]).load()
    peer = Files(next(folders), SUB_NODE, [SUB.cert]).load()

    async def run() -> ssl.SSLObject:
        loop, (left, right) = asyncio.get_running_loop(), socket.socketpair()
        results = await asyncio.gather(
            loop.connect_accepted_socket(asyncio.Protocol, left, ssl=ours.server_context),
            loop.create_connection(asyncio.Protocol, sock=right, ssl=peer.client_context, server_hostname=""),
        )
        found: ssl.SSLObject = results[0][0].get_extra_info("ssl_object")
        for transport, _ in results:
            transport.abort()
        return found

    loop = pytest.importorskip("uvloop").new_event_loop() if loop_name == "uvloop" else asyncio.new_event_loop()
    try:
        seen = loop.run_until_complete(run())
        with pytest.raises(Refused, match=r'its CA "Sub CA" .* was revoked'):
            ours.judge(seen)
    finally:
        loop.close()


# Who may not: the handshake fails


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_stranger_is_refused_in_the_handshake(
    ours: Credentials, folders: Iterator[Path], version: ssl.TLSVersion, dials: bool
) -> None:
    key = make_key()
    self_signed = sign_plain(key, key, name_of("self"), name_of("self"))
    for identity in (issue(OTHER, "x"), (key, self_signed), SUB_NODE):
        reason = failure(ours, Files(next(folders), identity), version=version, dials=dials)
        assert reason.startswith("its certificate is not signed by a CA we load: ")


def test_a_namesake_of_our_ca_is_not_our_ca(folders: Iterator[Path]) -> None:
    ours, fake = Files(next(folders)).load(), make_ca("CA")
    peer = Files(next(folders), issue(fake, "x"), [fake.cert])
    assert "not" in failure(ours, peer)


def test_extended_usages_must_let_a_node_dial_and_accept(ours: Credentials, folders: Iterator[Path]) -> None:
    peer = Files(next(folders), issue(CA, "x", extended_usages=[ExtendedKeyUsageOID.SERVER_AUTH]))
    assert refusal(ours, peer, dials=False).endswith("its extended key usage does not let a node dial")
    assert failure(ours, peer, dials=True) == "its certificate is not good: its extended key usage does not fit"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_certificate_is_refused(folders: Iterator[Path], version: ssl.TLSVersion) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode, bare.maximum_version = False, ssl.CERT_NONE, version
    server, client = shake(Files(next(folders)).load().server_context, bare)
    assert server.error and handshake_reason(server.error) == "the peer sent no certificate"
    assert client.error and "alert" in handshake_reason(client.error)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("dials", [True, False])
def test_tls_1_1_is_refused(ours: Credentials, folders: Iterator[Path], dials: bool) -> None:
    server, client = (Files(next(folders)).context(one) for one in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    for old in (server, client):
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert all(side.is_done for side in shake(server, client))  # this OpenSSL does speak it
    sides = shake(ours.server_context, client) if dials else shake(server, ours.client_context)
    assert not any(side.is_done for side in sides)
    side = sides[0] if dials else sides[1]
    assert side.error and handshake_reason(side.error).startswith("the peer speaks no TLS version that we do")


@pytest.mark.parametrize("is_server", [True, False])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not TLS"),
        (bytes(64), "not TLS"),
        (bytes(range(1, 65)), "not TLS"),
        (b"", CLOSED_EARLY),
        (b"\x16\x03\x01", CLOSED_EARLY),
    ],
)
def test_what_is_not_tls_is_called_so(ours: Credentials, data: bytes, reason: str, is_server: bool) -> None:
    incoming, context = ssl.MemoryBIO(), ours.server_context if is_server else ours.client_context
    incoming.write(data)
    incoming.write_eof()
    side = Side(context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=is_server))
    side.step()
    assert side.error and handshake_reason(side.error) == reason


# Who may not: the handshake goes well, and the certificate is named


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_revoked_node_is_refused_by_name(folders: Iterator[Path], version: ssl.TLSVersion, dials: bool) -> None:
    peer = Files(next(folders), issue(CA, "lost laptop"))
    serial = peer.identity[1].serial_number
    ours = Files(next(folders), crls=[make_crl(CA, [7, serial])]).load()
    reason = refusal(ours, peer, version=version, dials=dials)
    assert reason.startswith(f'"lost laptop" (serial {serial:x}, issuer "CA"): it was revoked on 20')
    assert ours.judge(meet(ours, Files(next(folders)), version, dials=dials).tls).identity.name == "node"


@pytest.mark.parametrize("cas", [[CA.cert], [CA.cert, SUB.cert], [SUB.cert, CA.cert]])
def test_nodes_of_a_revoked_intermediate_are_refused(folders: Iterator[Path], cas: list[x509.Certificate]) -> None:
    ours = Files(next(folders), cas=cas, crls=[make_crl(CA, [SUB.cert.serial_number])]).load()
    reason = refusal(ours, Files(next(folders), SUB_NODE, [SUB.cert]))
    assert reason.startswith('"sub node"') and f'its CA "Sub CA" (serial {SUB.cert.serial_number:x}' in reason


def test_the_list_of_an_intermediate_counts(folders: Iterator[Path]) -> None:
    crls = [make_crl(CA), make_crl(SUB, [SUB_NODE[1].serial_number])]
    ours = Files(next(folders), cas=[CA.cert, SUB.cert], crls=crls).load()
    assert "it was revoked" in refusal(ours, Files(next(folders), SUB_NODE, [SUB.cert]))


def test_where_the_chain_cannot_be_seen_an_unknown_intermediate_is_refused(
    folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudvpn.tls._verified_chain", lambda tls: [])
    peer = Files(next(folders), SUB_NODE, [SUB.cert])
    assert "not signed by a CA that is loaded" in refusal(Files(next(folders)).load(), peer)
    ours = Files(next(folders), cas=[CA.cert, SUB.cert]).load()
    assert ours.judge(meet(ours, peer).tls).identity.name == "sub node"


def test_a_list_replaces_the_older_one_of_the_same_ca_in_any_order(folders: Iterator[Path]) -> None:
    old = make_crl(CA, last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    new = make_crl(CA, [NODE[1].serial_number])
    for crls in ([old, new], [new, old]):
        ours = Files(next(folders), issue(CA, "ours"), crls=crls).load()
        assert "it was revoked" in refusal(ours, Files(next(folders)))


def test_a_list_signed_by_a_new_key_of_a_ca_covers_nodes_of_the_old_key(folders: Iterator[Path]) -> None:
    new = make_ca("CA")
    ours = Files(
        next(folders), issue(new, "ours"), cas=[CA.cert, new.cert], crls=[make_crl(new, [NODE[1].serial_number])]
    ).load()
    assert "it was revoked" in refusal(ours, Files(next(folders)))


def test_an_expired_list_refuses_all_nodes_of_its_ca_and_no_others(folders: Iterator[Path]) -> None:
    crl = make_crl(CA, last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    ours = Files(next(folders), cas=[CA.cert, OTHER.cert], crls=[crl]).load()
    assert 'the CRL of "CA" expired on' in refusal(ours, Files(next(folders)))
    assert any(warning.startswith('crl: the CRL of "CA" expired on') for warning in ours.warnings)
    assert ours.judge(meet(ours, Files(next(folders), issue(OTHER, "x"))).tls)


def test_a_list_counts_until_its_last_second(folders: Iterator[Path]) -> None:
    crl = make_crl(CA, days=2)
    ours, peer = Files(next(folders), crls=[crl]).load(), Files(next(folders))
    assert crl.next_update_utc
    assert ours.judge(meet(ours, peer).tls, crl.next_update_utc)
    assert "expired" in refusal(ours, peer, crl.next_update_utc + timedelta(seconds=1))


def test_a_node_counts_from_its_first_to_its_last_second(folders: Iterator[Path]) -> None:
    ours, peer, second = Files(next(folders)).load(), Files(next(folders)), timedelta(seconds=1)
    first, last = NODE[1].not_valid_before_utc, NODE[1].not_valid_after_utc
    for now in (max(first, CA.cert.not_valid_before_utc), last):
        assert ours.judge(meet(ours, peer).tls, now)
    assert "it is not valid before" in refusal(ours, peer, first - second)
    assert "it expired on" in refusal(ours, peer, last + second)


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_expired_and_early_certificates_are_refused(
    ours: Credentials, folders: Iterator[Path], version: ssl.TLSVersion, dials: bool
) -> None:
    expired = Files(next(folders), issue(CA, "old", not_before=NOW - 9 * DAY, not_after=NOW - DAY))
    early = Files(next(folders), issue(CA, "new", not_before=NOW + DAY))
    assert refusal(ours, expired, version=version, dials=dials).startswith('"old" (serial')
    assert "it is not valid before" in refusal(ours, early, version=version, dials=dials)
    sub = Issuer(*issue(CA, "Old Sub", is_ca=True, not_before=NOW - 9 * DAY, not_after=NOW - DAY))
    reason = refusal(ours, Files(next(folders), issue(sub, "x"), [sub.cert]), version=version, dials=dials)
    assert 'its CA "Old Sub"' in reason and "it expired on" in reason


def test_a_ca_is_no_node(folders: Iterator[Path]) -> None:
    # Without any key usage, for OpenSSL itself refuses one that cannot sign a handshake.
    key = make_key()
    for ca in (
        (key, sign_plain(key, CA.key, name_of("x"), CA.cert.subject, is_ca=True)),
        (key, sign_plain(key, key, name_of("x"), name_of("x"), is_ca=True)),
    ):
        trusting = Files(next(folders), cas=[CA.cert, ca[1]]).load()
        for dials in (True, False):
            reason = refusal(trusting, Files(next(folders), ca), dials=dials)
            assert reason.endswith("it is the certificate of a CA, not of a node")


@pytest.mark.parametrize("dials", [True, False])
def test_a_key_usage_without_digital_signature_is_refused(folders: Iterator[Path], dials: bool) -> None:
    # OpenSSL itself takes keyAgreement for either role.
    reason = refusal(
        Files(next(folders)).load(), Files(next(folders), issue(CA, "x", key_type="rsa", can_sign=False)), dials=dials
    )
    assert "digitalSignature" in reason


def test_a_resumed_session_is_refused_on_both_sides(folders: Iterator[Path]) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders)).load()
    peer.client_context.maximum_version = ssl.TLSVersion.TLSv1_2  # resumes by session id: no tickets are needed
    first = shake(ours.server_context, peer.client_context)
    assert ours.judge(first[0].tls) and peer.judge(first[1].tls)
    again = shake(ours.server_context, peer.client_context, first[1].tls.session)
    assert again[0].tls.session_reused and again[1].tls.session_reused
    for credentials, side in zip((ours, peer), again, strict=True):
        with pytest.raises(Refused, match="resumed a session"):
            credentials.judge(side.tls)
    fresh = Files(next(folders)).load()
    assert not shake(fresh.server_context, peer.client_context, first[1].tls.session)[0].tls.session_reused


def test_tls_1_3_gives_nothing_to_resume(folders: Iterator[Path]) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders)).load()
    session = shake(ours.server_context, peer.client_context)[1].tls.session
    assert session is None or not session.has_ticket
    sides = shake(ours.server_context, peer.client_context, session)
    assert not sides[0].tls.session_reused and ours.judge(sides[0].tls)


def test_a_handshake_that_is_not_done_is_no_identity(ours: Credentials) -> None:
    with pytest.raises(Refused):
        ours.judge(ours.server_context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True))


def test_an_open_link_is_judged_again_without_its_connection(folders: Iterator[Path]) -> None:
    peer = Files(next(folders), SUB_NODE, [SUB.cert])
    joined = Files(next(folders)).load()
    seen = joined.judge(meet(joined, peer).tls)
    joined.judge_again(seen)
    with pytest.raises(Refused, match="it expired on"):
        joined.judge_again(seen, SUB_NODE[1].not_valid_after_utc + timedelta(seconds=1))
    other = Files(next(folders), issue(OTHER, "ours"), cas=[OTHER.cert]).load()
    revoking = Files(next(folders), crls=[make_crl(CA, [SUB.cert.serial_number])]).load()
    for credentials, words in ((other, "not signed by a CA that is loaded"), (revoking, 'its CA "Sub CA" .* revoked')):
        with pytest.raises(Refused, match=words):
            credentials.judge_again(seen)
    for cas in ([CA.cert, OTHER.cert], [SUB.cert, CA.cert]):    # other CAs, and the same way up
        Files(next(folders), cas=cas).load().judge_again(seen)


# Words for failed handshakes


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timed out"),
        (asyncio.TimeoutError(), "timed out"),
        (ConnectionAbortedError("SSL handshake is taking longer than 5 seconds: aborting"), "timed out"),
        (ConnectionResetError(), CLOSED_EARLY),
        (ConnectionResetError(104, "Connection reset by peer"), CLOSED_EARLY),
        (ConnectionAbortedError(), CLOSED_EARLY),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), CLOSED_EARLY),
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (OSError(113, "No route to host"), "no route to host"),
        (ssl.SSLError(1, "two\nlines"), "TLS failed: two lines"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_error_becomes_one_line(error: BaseException, reason: str) -> None:
    assert handshake_reason(error) == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(104, "[Errno 104] Connection reset by peer"), "connection reset by peer"),
        (TimeoutError(110, "whatever"), "connection timed out"),
        (ssl.SSLError(1, "[SSL] bad record (_ssl.c:2580)"), "TLS failed: [SSL] bad record"),
        (RuntimeError("odd"), "odd"),
    ],
)
def test_an_error_of_a_link_that_was_up_becomes_one_line(error: BaseException, reason: str) -> None:
    assert break_reason(error) == reason


@pytest.mark.parametrize("version", VERSIONS)
def test_the_refused_side_learns_why(folders: Iterator[Path], version: ssl.TLSVersion) -> None:
    ours, peer = Files(next(folders)).load(), Files(next(folders), issue(OTHER, "x"), cas=[CA.cert, OTHER.cert])
    client = peer.context(ssl.PROTOCOL_TLS_CLIENT)
    client.maximum_version = version
    refused = shake(ours.server_context, client)[1]
    assert refused.error and handshake_reason(refused.error) == "the peer refused our certificate (alert unknown ca)"


# Files


def test_each_load_gives_new_contexts(folders: Iterator[Path]) -> None:
    files = Files(next(folders), issue(CA, "x", key_type="rsa"), crls=[make_crl(CA, range(1, 1000))])
    found = [files.load(), files.load()]
    assert found[0].server_context is not found[1].server_context
    assert found[0].client_context is not found[1].client_context


def test_the_contexts_are_strict(folders: Iterator[Path]) -> None:
    loaded = Files(next(folders)).load()
    for context in (loaded.server_context, loaded.client_context):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_TICKET):
            assert context.options & option
        assert context.security_level == 2
        names = [suite["name"] for suite in context.get_ciphers()]
        assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) for name in names)   # forward secrecy
        assert all("DSS" not in name for name in names[:-2])    # DSA is the last choice
    assert loaded.server_context.num_tickets == 0


def test_a_ca_without_list_is_a_warning(folders: Iterator[Path]) -> None:
    ours = Files(next(folders), cas=[CA.cert, OTHER.cert], crls=[make_crl(CA)]).load()
    assert ours.warnings == ('ca: "Other CA" has no CRL: its certificates cannot be revoked',)


def test_an_encrypted_key_loads_with_its_password_only(folders: Iterator[Path]) -> None:
    files = Files(next(folders), password="påss")
    assert files.load()
    assert files.problems("wrong").endswith("the password is wrong or the file is damaged, correct key_pass_file")
    files.password = None
    for missing in (None, ""):
        assert files.problems(missing).endswith("it needs a password, set key_pass_file")
    assert Files(next(folders)).load("not needed")


def test_every_bad_file_is_named_in_one_run(folders: Iterator[Path]) -> None:
    files = Files(next(folders), crls=[make_crl(CA)])
    for path in files.paths.values():
        path.write_text("nothing")
    lines = sorted(files.problems().splitlines())
    assert [line.split('"')[0] for line in lines] == [f"{name}: cannot use " for name in ("ca", "cert", "crl", "key")]
    assert all(str(files.paths[line.split(":")[0]]) in line and "-----BEGIN" in line for line in lines)


@pytest.mark.parametrize("option", ["key", "cert", "ca", "crl"])
def test_what_cannot_be_read_is_told(folders: Iterator[Path], option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(next(folders), crls=[make_crl(CA)])
    path = files.paths[option]

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # root may read everything
        patch.setattr(Path, "open", deny)
        assert f'{option}: cannot use "{path}": no permission to read it, change its owner or mode' in files.problems()
    path.write_bytes(b"0\x82\x01\x00")
    assert files.problems() == f'{option}: cannot use "{path}": it is DER, not PEM, convert it with openssl'
    path.unlink()
    for words in ("it does not exist, correct the path", "it is no regular file, give a PEM file"):
        with pytest.raises(ConfigError, match=f"^{option}: cannot use .*{words}$"):
            load(files.paths["key"], files.paths["cert"], [files.paths["ca"]], [files.paths["crl"]], None)
        path.mkdir(exist_ok=True)


def test_a_pipe_and_a_nul_in_a_name_do_no_harm(folders: Iterator[Path]) -> None:
    files = Files(next(folders))
    os.mkfifo(pipe := files.folder / "pipe")
    files.paths["key"], files.paths["cert"] = pipe, Path("nul\0")
    assert "it is no regular file" in files.problems()


def test_a_key_that_does_not_fit_is_told(folders: Iterator[Path]) -> None:
    for key_type in get_args(KeyType):
        files = Files(next(folders), (make_key(key_type), NODE[1]))
        assert "it does not fit the first certificate in" in files.problems()


def test_a_key_that_tls_cannot_use_is_told(folders: Iterator[Path]) -> None:
    files = Files(next(folders))
    key = x25519.X25519PrivateKey.generate()
    files.paths["key"].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "TLS needs an ECDSA, RSA or Ed25519 key" in files.problems()


def test_an_own_certificate_that_peers_would_refuse_is_told(folders: Iterator[Path]) -> None:
    short = rsa.generate_private_key(65537, 1024)
    cases: list[tuple[tuple[PrivateKey, x509.Certificate], str]] = [
        (issue(OTHER, "x"), "it is not signed by a CA that is loaded here"),
        (SUB_NODE, "it is not signed by a CA that is loaded here"),
        (issue(CA, "x", not_before=NOW - 9 * DAY, not_after=NOW - DAY), "it expired on"),
        (issue(CA, "x", not_before=NOW + DAY), "it is not valid before"),
        ((CA.key, CA.cert), "it is the certificate of a CA"),
        (issue(CA, "x", can_sign=False), "its key usage lacks digitalSignature"),
        ((short, sign_plain(short, CA.key, name_of("x"), CA.cert.subject)), "its key (RSA 1024) is too weak"),
    ]
    for identity, words in cases:
        problem = Files(next(folders), identity).problems()
        assert problem.startswith("cert: cannot use ") and words in problem
    revoked = Files(next(folders), crls=[make_crl(CA, [NODE[1].serial_number])])
    assert "peers would refuse it" in revoked.problems() and "it was revoked on" in revoked.problems()


def test_a_node_cannot_sign_another_node(ours: Credentials, folders: Iterator[Path]) -> None:
    forged = Files(next(folders), issue(Issuer(*NODE), "forged"), [NODE[1]])
    for dials in (True, False):
        assert failure(ours, forged, dials=dials).startswith("its certificate is not good: invalid CA certificate")
    assert 'its CA "node"' in forged.problems() and "it is not a CA" in forged.problems()


def test_a_node_is_no_ca(folders: Iterator[Path]) -> None:
    problem = Files(next(folders), cas=[CA.cert, NODE[1]]).problems()
    assert problem.startswith("ca: cannot use ") and '"node"' in problem and "is not a CA" in problem


def test_a_list_of_an_unknown_ca_or_with_a_wrong_signature_is_told(folders: Iterator[Path]) -> None:
    for signer in (OTHER, make_ca("CA"), make_ca("CA", key_type="ed25519")):
        problem = Files(next(folders), crls=[make_crl(CA), make_crl(signer)]).problems()
        assert problem.startswith("crl: cannot use ") and "no CA of the ca files signed its list" in problem


def test_a_partial_list_is_told(folders: Iterator[Path]) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.cert.subject)
    builder = builder.last_update(NOW).next_update(NOW + DAY).add_extension(x509.DeltaCRLIndicator(1), critical=True)
    problem = Files(next(folders), crls=[builder.sign(CA.key, hashes.SHA256())]).problems()
    assert "is a partial one, give the complete one" in problem


def test_a_control_character_in_a_name_stays_on_its_line(folders: Iterator[Path]) -> None:
    problem = Files(next(folders), cas=[issue(CA, "evil\nca: fine")[1]]).problems()
    assert "evil\\x0aca: fine" in problem


@pytest.mark.parametrize("option", ["cert", "ca", "crl"])
def test_a_block_that_is_cut_off_is_not_skipped(folders: Iterator[Path], option: str) -> None:
    files = Files(next(folders), crls=[make_crl(CA)])
    path = files.paths[option]
    data = path.read_bytes()
    for end in range(len(data) - 30, len(data) - 1, 7):
        path.write_bytes(data + data[:end])
        assert "2 of 2 in it is damaged" in files.problems()


@pytest.mark.parametrize("option", ["key", "cert", "ca", "crl"])
def test_any_bytes_in_a_file_give_a_sentence(folders: Iterator[Path], option: str) -> None:
    files, luck = Files(next(folders), crls=[make_crl(CA, [1, 2])]), random.Random(f"garbage {option}")
    path = files.paths[option]
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(luck.randrange(1, 4)):
            bad[luck.randrange(len(lines[0]), len(data) - len(lines[-1]))] = luck.choice(b"ABCabc019+/=\n-\0\xff")
        for damaged in (bytes(bad), luck.randbytes(200), lines[0] + luck.randbytes(90) + lines[-1]):
            path.write_bytes(damaged)
            try:
                files.load()
            except ConfigError as error:
                assert all(line.isprintable() for line in error.problems)
            else:
                assert damaged == bytes(bad)  # it may still be a good file: base64 ignores newlines

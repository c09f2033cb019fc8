# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the TLS contexts of a node from its files, hands peers to `trust` after the handshake, and says why one failed.

The handshake checks signatures, purposes, path lengths and strength; OpenSSL then shows no certificate of a peer that
failed. All is judged again after it, with dates and revocation, so that the reason can name the culprit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cloudvpn import files
from cloudvpn.errors import ConfigError
from cloudvpn.pem import bad, collect, not_pem, read, read_pem
from cloudvpn.trust import Peer, PeerIdentity, Refused, Trust, identify, load_trust, parse_cert

__all__ = ["Credentials", "Peer", "PeerIdentity", "Refused", "Trust", "handshake_reason", "identify", "load"]

PROTOCOLS: Final = ("cloudvpn/2", "cloudvpn/1")  # ALPN, the best first; a peer of 2009 knows none
NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` does not name
NOT_TLS: Final = "not TLS"
TIMED_OUT: Final = "timed out"
CLOSED_EARLY: Final = "closed by the peer during the handshake, its log may say why"
KEYS: Final = (
    ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey, dsa.DSAPrivateKey,
)  # fmt: skip
# For servers that have nothing but a DSA key. As good as DHE-RSA: forward secrecy, AEAD, and both need 2048 bits.
DSS_SUITES: Final = ("DHE-DSS-AES256-GCM-SHA384", "DHE-DSS-AES128-GCM-SHA256")
# X509_V_ERR_* of OpenSSL: 2, 20 no issuer, 18 and 19 self-signed, 21 nothing but a leaf
NO_ISSUER: Final = (2, 18, 19, 20, 21)
UNSUITABLE: Final = {
    25: "there are more CAs in its chain than one of them allows",
    26: "its extended key usage does not fit",
    66: "its key is too weak",
    67: "the key of a CA in its chain is too weak",
    68: "it, or a CA in its chain, is signed with a digest that is too weak",
}
NO_DSA: Final = "the OpenSSL here takes no DSA keys any more, make another: `cloudvpn-keygen node NAME --type ecdsa`"


@dataclass(frozen=True)
class Credentials:
    """All that one load of the files gave: what this node shows to peers, and by what it judges them."""

    server_context: ssl.SSLContext
    client_context: ssl.SSLContext
    chain: tuple[x509.Certificate, ...]  # what this node shows, its own certificate first
    warnings: tuple[str, ...]
    trust: Trust

    @property
    def own(self) -> PeerIdentity:
        return identify(self.chain[0])

    @property
    def public_key(self) -> bytes:
        """Of this node, as its certificates have it (DER); it stays when they are renewed."""
        return self.chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def judge(self, ssl_object: ssl.SSLObject, now: datetime | None = None) -> Peer:
        """Decide after the handshake, and before any byte of the peer counts, whether it may join; else Refused."""
        if ssl_object.session_reused:
            # A resumed session shows the certificate of the first handshake and checks nothing again.
            raise Refused("the peer resumed a session, only full handshakes are allowed")
        with _read_or_refused():
            data = ssl_object.getpeercert(binary_form=True)
            if not data:
                raise Refused("the peer sent no certificate")
            leaf, seen = x509.load_der_x509_certificate(data), _verified_chain(ssl_object)
            chain = self.trust.follow(leaf, seen, now or datetime.now(timezone.utc))
            # What OpenSSL saw is kept, too: with other CAs another way may lead up.
            return Peer(identify(leaf), tuple(dict.fromkeys((*chain, *seen))))

    def judge_again(self, peer: Peer, now: datetime | None = None) -> None:
        """Decide whether the owner of an open link may stay; else Refused."""
        with _read_or_refused():
            self.trust.follow(peer.chain[0], peer.chain[1:], now or datetime.now(timezone.utc))


@contextlib.contextmanager
def _read_or_refused() -> Iterator[None]:
    try:
        yield
    except (Refused, MemoryError):
        raise
    except Exception as error:  # its parser and OpenSSL's differ; whatever it raises, the peer stays out
        raise Refused(f"the peer's certificate cannot be read: {error}") from error


def load(
    key: Path, cert: Path, ca: Sequence[Path], crl: Sequence[Path], key_pass: str | None, *,
    dh: Path | None = None, crl_required: bool = False, link_version: int = 2,
    in_use: tuple[x509.Certificate, ...] = (),
) -> Credentials:  # fmt: skip
    """Read all files anew, into contexts of their own; ConfigError has one sentence for each bad file.

    What is wrong with the own chain is a warning if it is `in_use` already: to refuse it would keep new CRLs out.
    """
    problems: list[str] = []
    trusts: list[Trust] = []
    try:
        trusts.append(load_trust(ca, crl, crl_required=crl_required))
    except ConfigError as error:
        problems += error.problems
    chain = collect(lambda path: read_pem("cert", path, b"CERTIFICATE", parse_cert), [cert], problems)
    keys = collect(lambda path: [_read_key(path, key_pass)], [key], problems)
    if problems:
        raise ConfigError(problems)
    if keys[0].public_key() != chain[0].public_key():
        raise bad("key", key, f'it does not fit the first certificate in "{cert}", give the key and cert of one node')
    trust, now = trusts[0], datetime.now(timezone.utc)
    warnings = list(trust.warn(now))
    try:
        # A stale list stops no start: every link is refused until a new one is there, which needs no restart.
        trust.follow(chain[0], chain[1:], now, allow_stale=True)
    except Exception as error:  # as in _read_or_refused()
        fault = bad("cert", cert, f"peers would refuse it: {error}; issue a new one or correct ca and crl")
        if tuple(chain) != in_use:
            raise fault from error
        warnings += fault.problems
    server, client = _make_context(ssl.PROTOCOL_TLS_SERVER), _make_context(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.set_alpn_protocols(PROTOCOLS[-link_version:])
        try:
            context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in trust.authorities))
        except (ssl.SSLError, ValueError) as error:
            raise bad("ca", ca[0], f"OpenSSL refuses it or another CA, give good ones: {_words(error)}") from error
        try:
            _load_own(context, key, cert, key_pass, keys[0], chain)
        except (OSError, ValueError) as error:
            what = NO_DSA if isinstance(keys[0], dsa.DSAPrivateKey) else "issue new ones"
            raise bad("cert", cert, f'OpenSSL refuses it or key "{key}": {_words(error)}; {what}') from error
    if isinstance(keys[0], dsa.DSAPrivateKey):
        _prepare_dsa(server, client, key, dh)
    elif dh is not None:
        warnings.append("dh: not used, only a DSA key needs it")
    return Credentials(server, client, tuple(chain), tuple(warnings), trust)


def _load_own(
    context: ssl.SSLContext, key: Path, cert: Path, key_pass: str | None, parsed: PrivateKeyTypes,
    chain: Sequence[x509.Certificate],
) -> None:  # fmt: skip
    """Give OpenSSL the own key and chain. Raises OSError or ValueError."""
    stage = files.stage()
    if stage is None:
        # With this function OpenSSL never asks on the terminal.
        context.load_cert_chain(cert, key, password=lambda: key_pass or "")
        return
    password = secrets.token_bytes(32).hex()
    encrypted = parsed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
    with stage.holding(encrypted + b"".join(one.public_bytes(Encoding.PEM) for one in chain)) as name:
        context.load_cert_chain(name, password=password)


def _prepare_dsa(server: ssl.SSLContext, client: ssl.SSLContext, key: Path, dh: Path | None) -> None:
    """Let a node with a DSA key accept and dial; ConfigError where this OpenSSL cannot."""
    if dh is None:
        raise bad("key", key, "a DSA key needs Diffie-Hellman parameters: write them with `cloudvpn-keygen dh`, set dh")
    data = read("dh", dh)
    try:
        with stage.holding(data) if (stage := files.stage()) else contextlib.nullcontext(str(dh)) as name:
            server.load_dh_params(name)
    except (OSError, ValueError) as error:
        what = _words(error) if b"-----BEGIN " in data else not_pem(data, b"DH PARAMETERS")
        raise bad("dh", dh, f"{what}; write new ones with `cloudvpn-keygen dh`") from error
    # TLS 1.3 has no DSA: a client that offered it would have nothing to show to a server that takes it.
    server.maximum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        _shake(server, client)  # suites may be there, and the system's policy may forbid the signatures
    except ssl.SSLError as error:
        raise bad("key", key, f"{NO_DSA} ({_words(error)})") from error


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A handshake in memory. Raises SSLError if it fails."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for side in (*sides, *sides):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    sides[0].do_handshake()


def version_of(ssl_object: ssl.SSLObject) -> int:
    """Which wire was agreed on in the handshake: 2 if both sides have it, else that of 2009."""
    return 2 if ssl_object.selected_alpn_protocol() == PROTOCOLS[0] else 1



def handshake_reason(error: BaseException) -> str:
    """Say in one line why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verify_reason(error)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return CLOSED_EARLY
    # asyncio and uvloop report their own time limit as an aborted connection; 3.10 has two classes TimeoutError.
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or "taking longer" in str(error):
        return TIMED_OUT
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, EOFError)):
        return CLOSED_EARLY
    return break_reason(error)


def break_reason(error: BaseException) -> str:
    """Say in one line why a link that was up broke."""
    if isinstance(error, ssl.SSLError):
        return _ssl_reason(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()     # event loops put words of their own into the error
    return _words(error) or type(error).__name__


def _verify_reason(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in NO_ISSUER:
        return f"its certificate is not signed by a CA we load: {error.verify_message}"
    return f"its certificate is not good: {UNSUITABLE.get(code, error.verify_message)}"


def _ssl_reason(error: ssl.SSLError) -> str:
    reason = (getattr(error, "reason", None) or "").lower().replace("_", " ")
    alert = re.search(r"\balert (.+)", reason)
    if alert:
        what = f"(alert {alert[1]})"
        if "protocol version" in reason:
            return f"the peer speaks no TLS version that we do, 1.2 or newer {what}"
        if re.search(r"certificate|unknown ca|access denied", reason):
            return f"the peer refused our certificate {what}"
        return f"the peer refused the handshake {what}"
    if "did not return a certificate" in reason:
        return "the peer sent no certificate"
    if "eof" in reason:
        return CLOSED_EARLY
    if reason in ("unsupported protocol", "version too low", "wrong ssl version"):
        return "the peer speaks no TLS version that we do, 1.2 or newer"
    if re.search(r"http|wrong version number|unknown protocol|record (layer|type|length)|packet length", reason):
        return NOT_TLS
    return f"TLS failed: {reason or _words(error)}"


def _verified_chain(ssl_object: ssl.SSLObject) -> list[x509.Certificate]:
    """The chain as OpenSSL verified it; public from Python 3.13 on (as DER), private before (as PEM).

    Where neither is left, nothing: then only loaded CAs continue the way from the peer, and others are refused.
    """
    private = getattr(getattr(ssl_object, "_sslobj", None), "get_verified_chain", None)
    found = getattr(ssl_object, "get_verified_chain", private)
    return [
        x509.load_der_x509_certificate(cert)
        if isinstance(cert, bytes)
        else x509.load_pem_x509_certificate(cert.public_bytes().encode())
        for cert in (found() if found else None) or ()
    ]


def _make_context(protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # any certificate of a CA may join, from anywhere
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # An intermediate that is loaded as a CA is trusted without its root; dates are left to judge().
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    # Some builds of Python leave suites without forward secrecy in; those of TLS 1.3 are not asked for by name.
    usual = [suite["name"] for suite in context.get_ciphers() if suite["name"].startswith(("ECDHE-", "DHE-"))]
    context.set_ciphers(":".join((*usual, *DSS_SUITES)))
    return context


def _read_key(path: Path, key_pass: str | None) -> PrivateKeyTypes:
    data = read("key", path)
    try:
        key = _parse_key(data, None)
    except TypeError:  # it is encrypted
        if not key_pass:
            raise bad("key", path, "it needs a password, set key_pass_file") from None
        try:
            key = _parse_key(data, key_pass.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise bad("key", path, "the password is wrong or the file is damaged, correct key_pass_file") from None
    except (ValueError, UnsupportedAlgorithm):
        raise bad("key", path, not_pem(data, b"PRIVATE KEY")) from None
    if not isinstance(key, KEYS):
        raise bad("key", path, "TLS needs an ECDSA, RSA or Ed25519 key, make a new one")
    return key


def _parse_key(data: bytes, password: bytes | None) -> PrivateKeyTypes:
    # The validation takes 600 ms for RSA 4096 at each load, and guards against files that strangers wrote.
    return load_pem_private_key(data, password, unsafe_skip_rsa_key_validation=True)


def _words(error: BaseException) -> str:
    """The error on one line, without the place in OpenSSL's source."""
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", " ".join(str(error).split()))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides who may join: loads key, certificates and revocation lists, makes TLS contexts and judges peers.

The handshake checks signatures, purposes and path lengths; OpenSSL then shows no certificate of a peer that failed.
Dates, revocation and what a node's certificate must be are judged after it, so that the reason can name the culprit.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from cloudvpn.errors import ConfigError, PeerError
from cloudvpn.log import escape

T = TypeVar("T")
E = TypeVar("E", bound=x509.ExtensionType)

MAX_FILE: Final = 64 << 20  # bytes: a revocation list of two million entries
NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` does not name
CLOSED_EARLY: Final = "closed by the peer during the handshake, its log may say why"
KEYS: Final = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)


class Refused(PeerError):
    """The peer finished the handshake and may not join; the text says which certificate is why."""


@dataclass(frozen=True)
class PeerIdentity:
    """Who a certificate says its owner is; names are raw, the log escapes them."""

    name: str  # common name, or the whole subject (RFC 4514) if it has none
    serial: int
    issuer: str
    not_after: datetime
    fingerprint: str  # SHA-256 of the certificate, hex

    def __str__(self) -> str:
        return f'"{self.name}" (serial {self.serial:x}, issuer "{self.issuer}")'


@dataclass(frozen=True)
class Credentials:
    """All that one load of the files gave: what this node shows to peers, and by what it judges them."""

    server_context: ssl.SSLContext
    client_context: ssl.SSLContext
    own: PeerIdentity
    warnings: tuple[str, ...]
    trust: Trust

    def judge(self, ssl_object: ssl.SSLObject, now: datetime | None = None) -> PeerIdentity:
        """Decide after the handshake, and before any byte of the peer counts, whether it may join; else Refused."""
        if ssl_object.session_reused:
            # A resumed session shows the certificate of the first handshake and checks nothing again.
            raise Refused("the peer resumed a session, only full handshakes are allowed")
        try:
            data = ssl_object.getpeercert(binary_form=True)
            if not data:
                raise Refused("the peer sent no certificate")
            chain = self.trust.follow(
                x509.load_der_x509_certificate(data), _verified_chain(ssl_object), now or datetime.now(timezone.utc)
            )
            return identify(chain[0])
        except Refused:
            raise
        except Exception as error:  # its parser and OpenSSL's differ; whatever it raises, the peer stays out
            raise Refused(f"the peer's certificate cannot be read: {error}") from error


@dataclass(frozen=True)
class Trust:
    """The CAs that this node trusts, and the newest revocation list of each."""

    authorities: tuple[x509.Certificate, ...]
    lists: tuple[x509.CertificateRevocationList, ...]

    def follow(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now: datetime, *, allow_stale: bool = False
    ) -> list[x509.Certificate]:
        """Follow the signatures from a node up to a root, and refuse what is wrong on the way.

        OpenSSL stops at the first CA that is loaded, here the way goes on: a loaded intermediate may be revoked.
        """
        constraints, usage = _find(leaf, x509.BasicConstraints), _find(leaf, x509.KeyUsage)
        if constraints and constraints.ca:
            raise _refused(leaf, leaf, "it is the certificate of a CA, not of a node")
        if usage and not usage.digital_signature:
            raise _refused(leaf, leaf, "its key usage lacks digitalSignature")
        chain = self._build(leaf, others, now)
        for cert in chain:
            if cert is not leaf and not _is_authority(cert):
                raise _refused(leaf, cert, "it is not a CA")
            if now < cert.not_valid_before_utc:
                raise _refused(leaf, cert, f"it is not valid before {_date(cert.not_valid_before_utc)}")
            if now > cert.not_valid_after_utc:
                raise _refused(leaf, cert, f"it expired on {_date(cert.not_valid_after_utc)}")
        for cert in chain:
            # By name, not by key: the lists of a CA name cover what its older keys signed, too (RFC 5280, section 5).
            lists = [one for one in self.lists if one.issuer == cert.issuer]
            for one in lists:
                entry = one.get_revoked_certificate_by_serial_number(cert.serial_number)
                if entry is not None:
                    raise _refused(leaf, cert, f"it was revoked on {_date(entry.revocation_date_utc)}")
            for one in lists:
                if _is_stale(one, now) and not allow_stale:
                    raise _refused(leaf, cert, f"it may be revoked: {_stale(one)}")
        return chain

    def _build(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now: datetime
    ) -> list[x509.Certificate]:
        chain = [leaf]
        while chain[-1] is leaf or chain[-1].issuer != chain[-1].subject:
            last = chain[-1]
            known = self.authorities if last in self.authorities else (*self.authorities, *others)
            issuers = [cert for cert in known if cert not in chain and _is_signed_by(last, cert)]
            if not issuers:
                break
            # A renewed CA has several certificates for one key: one that is valid wins over one that is not.
            issuers.sort(key=lambda cert: not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc)
            chain.append(issuers[0])
        if chain[-1] not in self.authorities:
            raise _refused(leaf, leaf, "it is not signed by a CA that is loaded here")
        return chain


def load(key: Path, cert: Path, ca: Sequence[Path], crl: Sequence[Path], key_pass: str | None) -> Credentials:
    """Read all files anew, into contexts of their own; ConfigError has one sentence for each bad file."""
    problems: list[str] = []
    authorities = _collect(_read_authorities, ca, problems)
    signers = None if problems else authorities  # a CA that could not be read may have signed any of the lists
    lists = _collect(lambda path: _read_lists(path, signers), crl, problems)
    chain = _collect(lambda path: _read_pem("cert", path, b"CERTIFICATE", _parse_cert), [cert], problems)
    keys = _collect(lambda path: [_read_key(path, key_pass)], [key], problems)
    if problems:
        raise ConfigError(problems)
    if keys[0].public_key() != chain[0].public_key():
        raise _bad("key", key, f'it does not fit the first certificate in "{cert}", give the key and cert of one node')
    now = datetime.now(timezone.utc)
    # A list replaces the one before it; each key that signs has its own.
    newest = {_find_signer(one, authorities): one for one in sorted(lists, key=lambda one: one.last_update_utc)}
    trust = Trust(tuple(dict.fromkeys(authorities)), tuple(newest.values()))
    try:
        # A stale list stops no start: every link is refused until a new one is there, which needs no restart.
        trust.follow(chain[0], chain[1:], now, allow_stale=True)
    except Exception as error:  # as in judge()
        raise _bad("cert", cert, f"peers would refuse it: {error}; issue a new one or correct ca and crl") from error
    contexts = _make_context(ssl.PROTOCOL_TLS_SERVER), _make_context(ssl.PROTOCOL_TLS_CLIENT)
    for context in contexts:
        try:
            context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in trust.authorities))
        except (ssl.SSLError, ValueError) as error:
            raise _bad("ca", ca[0], f"OpenSSL refuses it or another CA, give good ones: {_words(error)}") from error
        try:
            # With this function OpenSSL never asks on the terminal.
            context.load_cert_chain(cert, key, password=lambda: key_pass or "")
        except (OSError, ValueError) as error:  # too short a key, too old a digest
            raise _bad("cert", cert, f'OpenSSL refuses it or key "{key}", issue new ones: {_words(error)}') from error
    return Credentials(*contexts, identify(chain[0]), tuple(_warn(trust, now)), trust)


def identify(cert: x509.Certificate) -> PeerIdentity:
    return PeerIdentity(
        name=_common_name(cert.subject),
        serial=cert.serial_number,
        issuer=_common_name(cert.issuer),
        not_after=cert.not_valid_after_utc,
        fingerprint=cert.fingerprint(hashes.SHA256()).hex(),
    )


def handshake_reason(error: BaseException) -> str:
    """Say in one line why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verify_reason(error)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return CLOSED_EARLY
    if isinstance(error, ssl.SSLError):
        return _ssl_reason(error)
    # asyncio and uvloop report their own time limit as an aborted connection; 3.10 has two classes TimeoutError.
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or "taking longer" in str(error):
        return "timed out"
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, EOFError)):
        return CLOSED_EARLY
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()     # event loops put words of their own into the error
    return _words(error) or type(error).__name__


def _verify_reason(error: ssl.SSLCertVerificationError) -> str:
    # X509_V_ERR_*: 2, 20 no issuer, 18 and 19 self-signed, 21 nothing but a leaf
    if error.verify_code in (2, 18, 19, 20, 21):
        return f"its certificate is not signed by a CA we load: {error.verify_message}"
    return f"its certificate is not good: {error.verify_message}"


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
        return "not TLS"
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
    return context


def _collect(read: Callable[[Path], Iterable[T]], paths: Iterable[Path], problems: list[str]) -> list[T]:
    found: list[T] = []
    for path in paths:
        try:
            found += read(path)
        except ConfigError as error:
            problems += error.problems
    return found


def _read_authorities(path: Path) -> list[x509.Certificate]:
    authorities = _read_pem("ca", path, b"CERTIFICATE", _parse_cert)
    for cert in authorities:
        if not _is_authority(cert):
            raise _bad("ca", path, f"{identify(cert)} is not a CA (basicConstraints, keyUsage), remove it")
    return authorities


def _read_lists(path: Path, signers: list[x509.Certificate] | None) -> list[x509.CertificateRevocationList]:
    lists = _read_pem("crl", path, b"X509 CRL", _parse_list)
    for one in lists:
        if any(extension.critical for extension in one.extensions):  # of some certificates only, or only the changes
            raise _bad("crl", path, f'its list of "{_common_name(one.issuer)}" is a partial one, give the complete one')
        if signers is not None and _find_signer(one, signers) is None:
            name = _common_name(one.issuer)
            raise _bad("crl", path, f'no CA of the ca files signed its list of "{name}", add it or remove the list')
    return lists


def _read_key(path: Path, key_pass: str | None) -> PrivateKeyTypes:
    data = _read("key", path)
    try:
        key = _parse_key(data, None)
    except TypeError:  # it is encrypted
        if not key_pass:
            raise _bad("key", path, "it needs a password, set key_pass_file") from None
        try:
            key = _parse_key(data, key_pass.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _bad("key", path, "the password is wrong or the file is damaged, correct key_pass_file") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad("key", path, _not_pem(data, b"PRIVATE KEY")) from None
    if not isinstance(key, KEYS):
        raise _bad("key", path, "TLS needs an ECDSA, RSA or Ed25519 key, make a new one")
    return key


def _parse_key(data: bytes, password: bytes | None) -> PrivateKeyTypes:
    # The validation takes 600 ms for RSA 4096 at each load, and guards against files that strangers wrote.
    return load_pem_private_key(data, password, unsafe_skip_rsa_key_validation=True)


def _read_pem(option: str, path: Path, label: bytes, parse: Callable[[bytes], T]) -> list[T]:
    """Parse every block of a file; the parser of `cryptography` would skip one that is cut off without a word."""
    data = _read(option, path)
    begin = b"-----BEGIN " + label + b"-----"
    blocks = [begin + block for block in data.split(begin)[1:]]
    if not blocks:
        raise _bad(option, path, _not_pem(data, label))
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            found.append(parse(block))
        except Exception:  # any bytes may be in there, and the parser has many ways to say no
            what = f"{label.decode()} {number} of {len(blocks)} in it is damaged, write the file again"
            raise _bad(option, path, what) from None
    return found


def _parse_cert(data: bytes) -> x509.Certificate:
    cert = x509.load_pem_x509_certificate(data)
    # What is parsed at its first use only must not fail later.
    _ = (identify(cert), cert.extensions, cert.not_valid_before_utc, cert.public_key())
    return cert


def _parse_list(data: bytes) -> x509.CertificateRevocationList:
    found = x509.load_pem_x509_crl(data)
    _ = (_common_name(found.issuer), found.extensions, found.last_update_utc, found.next_update_utc)
    return found


def _read(option: str, path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before open(): that of a pipe may wait forever
            raise OSError("it is no regular file, give a PEM file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise OSError(f"it is larger than {MAX_FILE} bytes, give a PEM file")
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else errno.ENOENT  # ValueError: a NUL in the name
        known = {
            errno.ENOENT: "it does not exist, correct the path",
            errno.EACCES: "no permission to read it, change its owner or mode",
        }
        raise _bad(option, path, known.get(code or 0, str(error))) from None
    return data


def _not_pem(data: bytes, label: bytes) -> str:
    if data[:2] in (b"0\x81", b"0\x82"):
        return "it is DER, not PEM, convert it with openssl"
    return f"it holds no good {label.decode()} in PEM, give a file with -----BEGIN {label.decode()}-----"


def _bad(option: str, path: Path, what: str) -> ConfigError:
    return ConfigError([escape(f'{option}: cannot use "{path}": {what}')])


def _find_signer(
    one: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    for cert in authorities:
        try:
            if cert.subject == one.issuer and one.is_signature_valid(cert.public_key()):  # type: ignore[arg-type]
                return cert
        except (ValueError, TypeError, UnsupportedAlgorithm):  # a kind of key or digest that cannot sign lists
            continue
    return None


def _warn(trust: Trust, now: datetime) -> Iterable[str]:
    listed = {one.issuer for one in trust.lists}
    for name in dict.fromkeys(cert.subject for cert in trust.authorities):
        if name not in listed:
            yield f'ca: "{_common_name(name)}" has no CRL: its certificates cannot be revoked'
    for cert in trust.authorities:
        if not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
            yield f"ca: {identify(cert)} is expired or not valid yet: its nodes are refused"
    for one in trust.lists:
        if _is_stale(one, now):
            yield f"crl: {_stale(one)}: its nodes are refused"


def _is_stale(one: x509.CertificateRevocationList, now: datetime) -> bool:
    return one.next_update_utc is not None and now > one.next_update_utc


def _stale(one: x509.CertificateRevocationList) -> str:
    return f'the CRL of "{_common_name(one.issuer)}" expired on {_date(one.next_update_utc)}'


def _is_authority(cert: x509.Certificate) -> bool:
    constraints, usage = _find(cert, x509.BasicConstraints), _find(cert, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _is_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _find(cert: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _refused(leaf: x509.Certificate, culprit: x509.Certificate, what: str) -> Refused:
    between = "" if culprit is leaf else f" its CA {identify(culprit)}:"
    return Refused(f"{identify(leaf)}:{between} {what}")


def _common_name(name: x509.Name) -> str:
    for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME):
        if attribute.value and isinstance(attribute.value, str):
            return attribute.value
    return name.rfc4514_string()


def _date(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _words(error: BaseException) -> str:
    """The error on one line, without the place in OpenSSL's source."""
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", " ".join(str(error).split()))

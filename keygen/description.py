# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommand show: a key, a certificate, a request, a revocation list in words."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cloudvpn import pki
from cloudvpn.keygen import keys, passwords, pem
from cloudvpn.keygen.authority import list_number
from cloudvpn.keygen.files import KeygenError, find
from cloudvpn.log import escape
from cloudvpn.trust import describe_key

MAX_SHOWN: Final = 1000  # entries of a revocation list
Line = tuple[str, str]


def show(args: Namespace, now: datetime) -> None:
    """Each block of the file; of a private key only what is public."""
    args.file = find(args.file, args.dir)
    texts = pem.blocks(args.file)
    for number, (label, text) in enumerate(texts, 1):
        try:
            lines = list(_describe(label, text, args, now))
        except KeygenError:
            raise
        except Exception:  # any bytes may be in there, and the parser has many ways to say no
            raise KeygenError(f'block {number} of {len(texts)} in "{args.file}" ({label}) is damaged') from None
        for word, value in lines:
            print(escape(f"{word:<12} {value}".rstrip()))
        if number < len(texts):
            print()


def _describe(label: str, text: bytes, args: Namespace, now: datetime) -> Iterator[Line]:
    if label.endswith("PRIVATE KEY"):
        return _key(args.file, args.password_file)
    known: dict[str, Callable[[], Iterator[Line]]] = {
        "CERTIFICATE": lambda: _cert(x509.load_pem_x509_certificate(text), now),
        "CERTIFICATE REQUEST": lambda: _request(x509.load_pem_x509_csr(text)),
        "NEW CERTIFICATE REQUEST": lambda: _request(x509.load_pem_x509_csr(text)),
        "X509 CRL": lambda: _list(x509.load_pem_x509_crl(text), now),
        "PUBLIC KEY": lambda: _public(load_pem_public_key(text)),
        "DH PARAMETERS": lambda: iter([("parameters", "of Diffie-Hellman, for nodes of 2009; nothing secret")]),
    }
    return known.get(label, lambda: iter([("block", f"{label}, which CloudVPN has no use for")]))()


def _key(path: Path, password_file: Path | None) -> Iterator[Line]:
    is_asked = False

    def password() -> str:
        nonlocal is_asked
        is_asked = True
        return passwords.recall(path, password_file, "--password-file")

    key = pem.key(path, password)
    yield "private key", describe_key(key.public_key())
    yield "password", "yes" if is_asked else "no"
    yield "key id", keys.public_id(key.public_key())
    if path.stat().st_mode & 0o077:
        yield "warning", f"others may read or write this file: chmod 600 {path}"


def _public(key: object) -> Iterator[Line]:
    yield "public key", describe_key(key)
    yield "key id", keys.public_id(key)  # type: ignore[arg-type]


def _cert(cert: x509.Certificate, now: datetime) -> Iterator[Line]:
    is_root = cert.subject == cert.issuer
    yield "certificate", cert.subject.rfc4514_string()
    yield "issued by", "itself" if is_root else cert.issuer.rfc4514_string()
    yield "serial", f"{cert.serial_number:x}"
    yield "is", ("a root CA" if is_root else "an intermediate CA") if pki.is_ca(cert) else "a node"
    yield "valid from", _date(cert.not_valid_before_utc, now)
    yield "valid to", _date(cert.not_valid_after_utc, now)
    yield "key", describe_key(cert.public_key())
    yield "key id", keys.public_id(cert.public_key())
    for extension in cert.extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            yield "usage", ", ".join(usage._name for usage in extension.value)
    yield "SHA-256", cert.fingerprint(hashes.SHA256()).hex()


def _request(request: x509.CertificateSigningRequest) -> Iterator[Line]:
    yield "request", request.subject.rfc4514_string()
    yield "signature", "good" if request.is_signature_valid else "BAD: damaged or forged"
    yield "key", describe_key(request.public_key())
    yield "key id", keys.public_id(request.public_key())
    for extension in request.extensions:
        yield "asks for", _flat(extension.value)


def _list(crl: x509.CertificateRevocationList, now: datetime) -> Iterator[Line]:
    yield "revocations", f"of {crl.issuer.rfc4514_string()}"
    yield "number", str(list_number(crl))
    yield "made", _date(crl.last_update_utc, now)
    yield "good to", "ever" if crl.next_update_utc is None else _date(crl.next_update_utc, now)
    yield "revoked", str(len(crl))
    for entry, _ in zip(crl, range(MAX_SHOWN), strict=False):
        reason = [one.value.reason.value for one in entry.extensions if isinstance(one.value, x509.CRLReason)]
        yield "", f"{entry.serial_number:x} on {entry.revocation_date_utc:%Y-%m-%d %H:%M} UTC {' '.join(reason)}"
    if len(crl) > MAX_SHOWN:
        yield "", f"and {len(crl) - MAX_SHOWN} more"


def _flat(value: x509.ExtensionType) -> str:
    return re.sub(r"[<>]", "", repr(value))


def _date(time: datetime, now: datetime) -> str:
    days = abs(time - now).days
    return f"{time:%Y-%m-%d %H:%M} UTC ({f'in {days} days' if time > now else f'{days} days ago'})"

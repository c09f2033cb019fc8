# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what X.509 needs: CAs, certificates of nodes, revocation lists, and their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["ecdsa", "rsa", "ed25519"]
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

SKEW: Final = timedelta(minutes=5)  # a new certificate is good at once on a machine whose clock is late by this
RSA_BITS: Final = 3072  # 128-bit strength, as P-256 and Ed25519 have it
# Either side may dial, so a node is a server and a client.
NODE_USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Issuer:
    """A CA, root or intermediate, that can sign."""

    key: PrivateKey
    cert: x509.Certificate


def make_key(key_type: KeyType = "ecdsa") -> PrivateKey:
    if key_type == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return ed25519.Ed25519PrivateKey.generate()


def make_ca(
    name: str,
    *,
    key_type: KeyType = "ecdsa",
    days: float = 3650,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    key: PrivateKey | None = None,
) -> Issuer:
    """Make a root CA; with `key` it is a renewed certificate of the CA that has this key."""
    key = key or make_key(key_type)
    builder = _start(name, key, days, not_before, not_after, is_ca=True).issuer_name(_name(name))
    return Issuer(key, builder.sign(key, _digest(key)))


def issue(
    issuer: Issuer,
    name: str,
    *,
    key_type: KeyType = "ecdsa",
    days: float = 365,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    is_ca: bool = False,
    extended_usages: Sequence[x509.ObjectIdentifier] | None = NODE_USAGES,
    can_sign: bool = True,
) -> tuple[PrivateKey, x509.Certificate]:
    """Issue a node's certificate, or with `is_ca` an intermediate CA's; it needs no names: nobody checks a host name.

    Without `can_sign` its key usage lacks digitalSignature, without `extended_usages` it has none of these at all.
    """
    key = make_key(key_type)
    builder = _start(name, key, days, not_before, not_after, is_ca=is_ca, can_sign=can_sign)
    builder = builder.issuer_name(issuer.cert.subject).add_extension(_authority(issuer), critical=False)
    if extended_usages is not None and not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended_usages), critical=False)
    return key, builder.sign(issuer.key, _digest(issuer.key))


def make_crl(
    issuer: Issuer,
    revoked: Iterable[int] = (),
    *,
    days: float = 30,
    last_update: datetime | None = None,
    next_update: datetime | None = None,
) -> x509.CertificateRevocationList:
    """List the serial numbers `revoked`, all that the CA ever revoked: a list replaces the one before it."""
    now = datetime.now(timezone.utc)
    last_update = last_update or now - SKEW
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.cert.subject)
        .last_update(last_update)
        .next_update(next_update or max(now, last_update) + timedelta(days=days))
        .add_extension(_authority(issuer), critical=False)
        # RFC 5280 wants a growing number: the time grows, and nothing has to be remembered.
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1_000_000)), critical=False)
    )
    for serial in sorted(set(revoked)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(last_update).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, _digest(issuer.key))


def write_key(path: Path, key: PrivateKey, password: str | None = None) -> None:
    """Write a key to a new file that only its owner could ever read; a file that is there is never replaced."""
    encryption: KeySerializationEncryption = NoEncryption()
    if password is not None:
        encryption = BestAvailableEncryption(password.encode())
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)


def write_cert(path: Path, *certs: x509.Certificate | x509.CertificateRevocationList) -> None:
    """Write certificates (a node's first, then those that signed it, upwards) or revocation lists into one file."""
    path.write_bytes(b"".join(cert.public_bytes(Encoding.PEM) for cert in certs))


def _start(
    name: str,
    key: PrivateKey,
    days: float,
    not_before: datetime | None,
    not_after: datetime | None,
    *,
    is_ca: bool,
    can_sign: bool = True,
) -> x509.CertificateBuilder:
    """Begin a certificate with what roots, intermediates and nodes have in common."""
    now = datetime.now(timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=can_sign and not is_ca,
        key_encipherment=isinstance(key, rsa.RSAPrivateKey) and not is_ca,
        key_agreement=not can_sign and not is_ca,  # RFC 5280: at least one bit is set
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        data_encipherment=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - SKEW)
        .not_valid_after(not_after or now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _authority(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()  # Ed25519 has its own

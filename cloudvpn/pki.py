# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what X.509 needs: CAs, certificates of nodes, requests, revocation lists, and their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["ecdsa", "rsa", "ed25519"]
AnyKeyType: TypeAlias = KeyType | Literal["dsa"]  # meshes of 2009 have DSA keys
PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey
)

SKEW: Final = timedelta(minutes=5)  # a new certificate is good at once on a machine whose clock is late by this
# The usual size comes first: 128-bit strength, but for DSA, where it takes seconds to make.
BITS: Final[Mapping[AnyKeyType, tuple[int, ...]]] = {
    "ecdsa": (256, 384, 521),
    "rsa": (3072, 2048, 4096, 8192),
    "dsa": (2048, 3072),
    "ed25519": (),
}
CURVES: Final[Mapping[int, ec.EllipticCurve]] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
# Either side may dial, so a node is a server and a client.
NODE_USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Issuer:
    """A CA, root or intermediate, that can sign."""

    key: PrivateKey
    cert: x509.Certificate


@dataclass(frozen=True)
class Revocation:
    """One line of a revocation list."""

    serial: int
    time: datetime
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


def make_key(key_type: AnyKeyType = "ecdsa", bits: int | None = None) -> PrivateKey:
    """Make a key of the usual size, or of another one in BITS."""
    if key_type == "ed25519" and bits is None:
        return ed25519.Ed25519PrivateKey.generate()
    if bits not in (None, *BITS[key_type]):
        known = " or ".join(map(str, sorted(BITS[key_type])))
        raise ValueError(f"{key_type} keys have {known} bits, not {bits}" if known else f"{key_type} has one size only")
    bits = bits or BITS[key_type][0]
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return dsa.generate_private_key(bits) if key_type == "dsa" else ec.generate_private_key(CURVES[bits])


def make_ca(
    name: str | x509.Name,
    *,
    key_type: AnyKeyType = "ecdsa",
    days: float = 3650,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    key: PrivateKey | None = None,
) -> Issuer:
    """Make a root CA; with `key` it is a renewed certificate of the CA that has this key."""
    key = key or make_key(key_type)
    builder = _start(name, key.public_key(), days, not_before, not_after, is_ca=True).issuer_name(_name(name))
    return Issuer(key, builder.sign(key, _digest(key)))


def issue(
    issuer: Issuer,
    name: str,
    *,
    key_type: AnyKeyType = "ecdsa",
    days: float = 365,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    is_ca: bool = False,
    extended_usages: Sequence[x509.ObjectIdentifier] | None = NODE_USAGES,
    can_sign: bool = True,
) -> tuple[PrivateKey, x509.Certificate]:
    """Make a key and certify it."""
    key = make_key(key_type)
    return key, certify(
        issuer, name, key.public_key(), days=days, not_before=not_before, not_after=not_after, is_ca=is_ca,
        extended_usages=extended_usages, can_sign=can_sign,
    )  # fmt: skip


def certify(
    issuer: Issuer,
    name: str | x509.Name,
    key: CertificatePublicKeyTypes,
    *,
    days: float = 365,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    is_ca: bool = False,
    path_length: int | None = None,
    extended_usages: Sequence[x509.ObjectIdentifier] | None = NODE_USAGES,
    can_sign: bool = True,
) -> x509.Certificate:
    """Issue a node's certificate, or with `is_ca` an intermediate CA's; it needs no names: nobody checks a host name.

    Without `can_sign` its key usage lacks digitalSignature, without `extended_usages` it has none of these at all.
    """
    builder = _start(name, key, days, not_before, not_after, is_ca=is_ca, path_length=path_length, can_sign=can_sign)
    builder = builder.issuer_name(issuer.cert.subject).add_extension(_authority(issuer), critical=False)
    if extended_usages is not None and not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended_usages), critical=False)
    return builder.sign(issuer.key, _digest(issuer.key))


def make_request(name: str, key: PrivateKey, *, is_ca: bool = False) -> x509.CertificateSigningRequest:
    """Ask a CA elsewhere for a certificate; `is_ca` is a wish that it need not grant."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return builder.sign(key, _digest(key))


def make_crl(
    issuer: Issuer,
    revoked: Iterable[int | Revocation] = (),
    *,
    days: float = 30,
    last_update: datetime | None = None,
    next_update: datetime | None = None,
    number: int | None = None,
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
        .add_extension(x509.CRLNumber(number or int(now.timestamp() * 1_000_000)), critical=False)
    )
    entries = {one if isinstance(one, int) else one.serial: one for one in revoked}
    for serial, one in sorted(entries.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        entry = entry.revocation_date(last_update if isinstance(one, int) else one.time)
        # RFC 5280, 5.3.1: `unspecified` is said by saying nothing.
        if not isinstance(one, int) and one.reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(one.reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, _digest(issuer.key))


def is_ca(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def write_key(path: Path, key: PrivateKey, password: str | None = None) -> None:
    """Write a key to a new file that only its owner could ever read; a file that is there is never replaced."""
    data = key_to_pem(key, password)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)


def write_cert(path: Path, *certs: x509.Certificate | x509.CertificateRevocationList) -> None:
    """Write certificates (a node's first, then those that signed it, upwards) or revocation lists into one file."""
    path.write_bytes(to_pem(*certs))


def key_to_pem(key: PrivateKey, password: str | None = None) -> bytes:
    encryption: KeySerializationEncryption = NoEncryption()
    if password is not None:
        encryption = BestAvailableEncryption(password.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def to_pem(*parts: x509.Certificate | x509.CertificateRevocationList | x509.CertificateSigningRequest) -> bytes:
    return b"".join(part.public_bytes(Encoding.PEM) for part in parts)


def _start(
    name: str | x509.Name,
    key: CertificatePublicKeyTypes,
    days: float,
    not_before: datetime | None,
    not_after: datetime | None,
    *,
    is_ca: bool,
    path_length: int | None = None,
    can_sign: bool = True,
) -> x509.CertificateBuilder:
    """Begin a certificate with what roots, intermediates and nodes have in common."""
    now = datetime.now(timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=can_sign and not is_ca,
        key_encipherment=isinstance(key, rsa.RSAPublicKey) and not is_ca,
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
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - SKEW)
        .not_valid_after(not_after or now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(name: str | x509.Name) -> x509.Name:
    return name if isinstance(name, x509.Name) else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _authority(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # a CA that other tools made, long ago
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()  # Ed25519 has its own

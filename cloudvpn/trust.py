# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides who may join: from a chain of certificates, the CAs, their revocation lists and a time, with one reason.

New links, open links and `cloudvpn-keygen verify` all ask here. See docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudvpn.errors import ConfigError, PeerError
from cloudvpn.pem import bad, collect, read_pem

E = TypeVar("E", bound=x509.ExtensionType)

# What OpenSSL's security level 2 asks for, a strength of 112 bits: it refuses less in the handshake.
LEAST_BITS: Final = 2048  # of RSA and DSA
LEAST_CURVE: Final = 224  # bits, of a CA's curve
LEAST_DIGEST: Final = 28  # bytes: SHA-224; the strength of a digest is half its length
NODE_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")  # of which TLS has signatures in every version
# A node dials and is dialled.
USAGES: Final = {ExtendedKeyUsageOID.SERVER_AUTH: "accept links", ExtendedKeyUsageOID.CLIENT_AUTH: "dial"}
NETSCAPE_TYPE: Final = x509.ObjectIdentifier("2.16.840.1.113730.1.1")  # what key tools of 2009 wrote, OpenSSL heeds it
NETSCAPE_NODE: Final = 0xC0  # its bits for a TLS client and a TLS server
# What an extension demands that is not here and critical would not be done (RFC 5280, section 4.2).
UNDERSTOOD: Final = (
    x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName, x509.CertificatePolicies,  # have no say in who may join
)  # fmt: skip


class Refused(PeerError):
    """A node may not join; the text says which certificate is why."""


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
class Peer:
    """A node that may join, and the certificates by which it can be judged again."""

    identity: PeerIdentity
    chain: tuple[x509.Certificate, ...]  # its own first


@dataclass(frozen=True)
class Trust:
    """The CAs that this node trusts, and the newest revocation list of each."""

    authorities: tuple[x509.Certificate, ...]
    lists: tuple[x509.CertificateRevocationList, ...]
    crl_required: bool = False

    @cached_property
    def revoked(self) -> dict[x509.Name, dict[int, datetime]]:
        """When each certificate was revoked: to look one up in a list walks through it, and links are judged often.

        By the name of the CA, not by its key: its lists cover what its older keys signed, too (RFC 5280, section 5).
        """
        found: dict[x509.Name, dict[int, datetime]] = {}
        for one in self.lists:
            found.setdefault(one.issuer, {}).update(
                (entry.serial_number, entry.revocation_date_utc) for entry in one)
        return found

    def follow(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now: datetime, *, allow_stale: bool = False
    ) -> list[x509.Certificate]:
        """Follow the signatures from a node up to a root, and refuse what is wrong on the way.

        OpenSSL stops at the first CA that is loaded, here the way goes on: a loaded intermediate may be revoked.
        """
        if what := _find_node_fault(leaf):
            raise _refused(leaf, leaf, what)
        chain = self._build(leaf, others, now)
        for cert in chain:
            what = _find_fault(cert, now) or _find_usage_fault(cert)
            if cert is not leaf:
                what = what or _find_authority_fault(cert, chain)
            if what := what or _find_digest_fault(cert):
                raise _refused(leaf, cert, what)
        for cert in chain:
            if time := self.revoked.get(cert.issuer, {}).get(cert.serial_number):
                raise _refused(leaf, cert, f"it was revoked on {_date(time)}")
        for cert in chain:
            lists = self._lists_for(cert)
            for one in lists:
                if _is_stale(one, now) and not allow_stale:
                    raise _refused(leaf, cert, f"it may be revoked: {_stale(one)}")
            if self.crl_required and not lists and cert is not chain[-1]:
                name = common_name(cert.issuer)
                raise _refused(leaf, cert, f'it may be revoked: no CRL of "{name}" is loaded, and crl_required is set')
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
            # A signature with an old digest is one that nobody could check.
            what = _find_digest_fault(chain[-1])
            raise _refused(leaf, chain[-1] if what else leaf, what or "it is not signed by a CA that is loaded here")
        return chain

    def _lists_for(self, cert: x509.Certificate) -> list[x509.CertificateRevocationList]:
        return [one for one in self.lists if one.issuer == cert.issuer]

    def warn(self, now: datetime) -> Iterator[str]:
        """What the user should know although it stops nothing."""
        for name in _find_unlisted(self.authorities, self.lists):
            yield f'ca: "{name}" has no CRL: its certificates cannot be revoked'
        for cert in self.authorities:
            if not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
                yield f"ca: {identify(cert)} is expired or not valid yet: its nodes are refused"
        for one in self.lists:
            if _is_stale(one, now):
                yield f"crl: {_stale(one)}: its nodes are refused"


def load_trust(ca: Iterable[Path], crl: Iterable[Path], *, crl_required: bool = False) -> Trust:
    """Read all files anew; ConfigError has one sentence for each bad one."""
    problems: list[str] = []
    authorities = collect(_read_authorities, ca, problems)
    signers = None if problems else authorities  # a CA that could not be read may have signed any of the lists
    lists = collect(lambda path: _read_lists(path, signers), crl, problems)
    if crl_required and not problems:
        problems += [
            f'ca: "{name}" has no CRL and crl_required is set: make one with `cloudvpn-keygen crl` where its key is, '
            "and name it in crl"
            for name in _find_unlisted(authorities, lists)
        ]
    if problems:
        raise ConfigError(problems)
    # A list replaces the one before it; each key that signs has its own.
    newest = {_find_signer(one, authorities): one for one in sorted(lists, key=lambda one: one.last_update_utc)}
    trust = Trust(tuple(dict.fromkeys(authorities)), tuple(newest.values()), crl_required)
    _ = trust.revoked  # made here, where frames do not wait for it
    return trust


def identify(cert: x509.Certificate) -> PeerIdentity:
    return PeerIdentity(
        name=common_name(cert.subject),
        serial=cert.serial_number,
        issuer=common_name(cert.issuer),
        not_after=cert.not_valid_after_utc,
        fingerprint=cert.fingerprint(hashes.SHA256()).hex(),
    )


def common_name(name: x509.Name) -> str:
    for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME):
        if attribute.value and isinstance(attribute.value, str):
            return attribute.value
    return name.rfc4514_string()


def parse_cert(data: bytes) -> x509.Certificate:
    cert = x509.load_pem_x509_certificate(data)
    # What is parsed at its first use only must not fail later.
    _ = (identify(cert), cert.extensions, cert.not_valid_before_utc, cert.public_key())
    return cert


def describe_key(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, dsa.DSAPublicKey):
        return f"DSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey")


def is_good_node_key(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in NODE_CURVES
    return _is_strong(key)


# Each of these gives what is wrong, or "".


def _find_node_fault(cert: x509.Certificate) -> str:
    constraints, usage = _find(cert, x509.BasicConstraints), _find(cert, x509.KeyUsage)
    if constraints and constraints.ca:
        return "it is the certificate of a CA, not of a node"
    if usage and not usage.digital_signature:
        return "its key usage lacks digitalSignature"
    for extension in cert.extensions:
        if extension.oid == NETSCAPE_TYPE and extension.value.public_bytes()[-1] & NETSCAPE_NODE != NETSCAPE_NODE:
            return "its Netscape certificate type does not let a node accept links and dial"
    if not is_good_node_key(cert.public_key()):
        return f"its key ({describe_key(cert.public_key())}) is too weak or of a kind that TLS does not take"
    return ""


def _find_fault(cert: x509.Certificate, now: datetime) -> str:
    if now < cert.not_valid_before_utc:
        return f"it is not valid before {_date(cert.not_valid_before_utc)}"
    if now > cert.not_valid_after_utc:
        return f"it expired on {_date(cert.not_valid_after_utc)}"
    if not _is_strong(cert.public_key()):
        return f"its key ({describe_key(cert.public_key())}) is too weak"
    for extension in cert.extensions:
        if extension.critical and not isinstance(extension.value, UNDERSTOOD) and extension.oid != NETSCAPE_TYPE:
            name = extension.oid._name if "nknown" not in extension.oid._name else extension.oid.dotted_string
            return f"its extension {name} is critical and not known here"
    return ""


def _find_usage_fault(cert: x509.Certificate) -> str:
    """A certificate without extended key usage is good for everything; that of a CA binds its nodes."""
    found = _find(cert, x509.ExtendedKeyUsage)
    missing = [what for usage, what in USAGES.items() if found is not None and usage not in found]
    return f"its extended key usage does not let a node {' or '.join(missing)}" if missing else ""


def _find_authority_fault(cert: x509.Certificate, chain: Sequence[x509.Certificate]) -> str:
    if not _is_authority(cert):
        return "it is not a CA"
    constraints = _find(cert, x509.BasicConstraints)
    below = chain.index(cert) - 1
    if constraints and constraints.path_length is not None and below > constraints.path_length:
        return f"it may have {constraints.path_length} CAs below it, and there are {below}"
    return ""


def _find_digest_fault(cert: x509.Certificate) -> str:
    if cert.issuer == cert.subject:  # of a root nobody needs the signature
        return ""
    try:
        digest = cert.signature_hash_algorithm  # None: the signature has its own, that of Ed25519
    except UnsupportedAlgorithm:
        return "it is signed with a digest that is not known here"
    is_weak = digest is not None and digest.digest_size < LEAST_DIGEST
    return f"it is signed with {digest.name.upper()}, which is too weak" if digest and is_weak else ""


def _is_strong(key: object) -> bool:
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        return key.key_size >= LEAST_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.key_size >= LEAST_CURVE
    return isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))


def _is_authority(cert: x509.Certificate) -> bool:
    constraints, usage = _find(cert, x509.BasicConstraints), _find(cert, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _is_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return _is_meant(cert, issuer)


def _is_meant(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """As OpenSSL has it: an authority key identifier may tell which certificate of the issuer it is."""
    identifier, own = _find(cert, x509.AuthorityKeyIdentifier), _find(issuer, x509.SubjectKeyIdentifier)
    if identifier is None:
        return True
    if identifier.key_identifier is not None and own is not None and identifier.key_identifier != own.digest:
        return False
    return identifier.authority_cert_serial_number in (None, issuer.serial_number)


def _read_authorities(path: Path) -> list[x509.Certificate]:
    authorities = read_pem("ca", path, b"CERTIFICATE", parse_cert)
    for cert in authorities:
        if not _is_authority(cert):
            raise bad("ca", path, f"{identify(cert)} is not a CA (basicConstraints, keyUsage), remove it")
    return authorities


def _read_lists(path: Path, signers: list[x509.Certificate] | None) -> list[x509.CertificateRevocationList]:
    lists = read_pem("crl", path, b"X509 CRL", _parse_list)
    for one in lists:
        name = common_name(one.issuer)
        if any(extension.critical for extension in one.extensions):  # of some certificates only, or only the changes
            raise bad("crl", path, f'its list of "{name}" is a partial one, give the complete one')
        if signers is not None and _find_signer(one, signers) is None:
            raise bad("crl", path, f'no CA of the ca files signed its list of "{name}", add it or remove the list')
    return lists


def _parse_list(data: bytes) -> x509.CertificateRevocationList:
    found = x509.load_pem_x509_crl(data)
    _ = (common_name(found.issuer), found.extensions, found.last_update_utc, found.next_update_utc)
    return found


def _find_signer(
    one: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    for cert in authorities:
        usage = _find(cert, x509.KeyUsage)
        if cert.subject != one.issuer or (usage is not None and not usage.crl_sign):
            continue
        try:
            if one.is_signature_valid(cert.public_key()):  # type: ignore[arg-type]
                return cert
        except (ValueError, TypeError, UnsupportedAlgorithm):  # a kind of key or digest that cannot sign lists
            continue
    return None


def _find_unlisted(
    authorities: Iterable[x509.Certificate], lists: Iterable[x509.CertificateRevocationList]
) -> list[str]:
    listed = {one.issuer for one in lists}
    return [common_name(name) for name in dict.fromkeys(cert.subject for cert in authorities) if name not in listed]


def _is_stale(one: x509.CertificateRevocationList, now: datetime) -> bool:
    return one.next_update_utc is not None and now > one.next_update_utc


def _stale(one: x509.CertificateRevocationList) -> str:
    return f'the CRL of "{common_name(one.issuer)}" expired on {_date(one.next_update_utc)}'


def _find(cert: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _refused(leaf: x509.Certificate, culprit: x509.Certificate, what: str) -> Refused:
    between = "" if culprit is leaf else f" its CA {identify(culprit)}:"
    return Refused(f"{identify(leaf)}:{between} {what}")


def _date(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"

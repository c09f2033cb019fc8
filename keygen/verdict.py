# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommand verify: would nodes let the owner of this certificate in? It is the daemon's verifier that decides."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudvpn.keygen import keys, pem
from cloudvpn.keygen.authority import CERT, LIST, read_lists
from cloudvpn.keygen.files import KeygenError, find, warn
from cloudvpn.keygen.revoking import days_left
from cloudvpn.log import escape
from cloudvpn.tls import KEYS, Refused, Trust, identify


def verify(args: Namespace, now: datetime) -> None:
    leaf, *others = pem.certs(find(args.file, args.dir))
    authorities = [cert for path in args.ca or [args.dir / CERT] for cert in pem.certs(path)]
    trust = Trust(tuple(authorities), _newest(args.crl or [args.dir / LIST], bool(args.crl), authorities))
    try:
        chain = trust.follow(leaf, others, now)
        _check_handshake(leaf, chain)
    except Refused as refused:
        raise KeygenError(f"{args.file}: would be refused: {refused}") from None
    for cert in chain[1:]:
        if all(one.issuer != cert.subject for one in trust.lists):
            warn(f'no revocation list of "{keys.common_name(cert.subject)}": it cannot be told whom it revoked')
    end = min(cert.not_valid_after_utc for cert in chain)
    print(f"{escape(str(args.file))}: would be let in, for {days_left(end, now)} days: {identify(leaf)}")


def _newest(
    paths: Sequence[Path], is_asked_for: bool, authorities: Sequence[x509.Certificate]
) -> tuple[x509.CertificateRevocationList, ...]:
    """The newest list of each CA, as the daemon takes them."""
    newest = {}
    lists = [(one, path) for path in paths for one in (pem.lists(path) if is_asked_for else read_lists(path))]
    for one, path in sorted(lists, key=lambda pair: pair[0].last_update_utc):
        signer = next((cert for cert in authorities if _has_signed(cert, one)), None)
        if signer is None:
            name = keys.common_name(one.issuer)
            raise KeygenError(f'{path}: no CA given here signed its list of "{name}", add the CA or remove the list')
        newest[signer] = one
    return tuple(newest.values())


def _has_signed(cert: x509.Certificate, one: x509.CertificateRevocationList) -> bool:
    try:
        return cert.subject == one.issuer and one.is_signature_valid(cert.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a kind of key that cannot sign lists
        return False


def _check_handshake(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> None:
    """What OpenSSL checks in the handshake, before the daemon is asked."""
    keys.check(leaf.public_key())
    if isinstance(leaf.public_key(), dsa.DSAPublicKey) and not issubclass(dsa.DSAPrivateKey, KEYS):
        raise Refused("its key is a DSA key, which only nodes of 2009 take")
    for depth, cert in enumerate(chain[1:]):
        try:
            length = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        except x509.ExtensionNotFound:
            continue
        if length is not None and depth > length:
            raise Refused(f"there are more CAs below {identify(cert)} than it may have")
    try:
        usages = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:  # good for everything
        return
    roles = {ExtendedKeyUsageOID.SERVER_AUTH: "accept links", ExtendedKeyUsageOID.CLIENT_AUTH: "dial"}
    for usage, what in roles.items():
        if usage not in usages:
            raise Refused(f"its extended key usage does not let it {what}")

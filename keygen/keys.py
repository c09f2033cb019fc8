# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys in words: which kinds there are, which are good enough, and what identifies one."""

from __future__ import annotations

import ssl
from argparse import Namespace
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloudvpn import pki
from cloudvpn.keygen import passwords
from cloudvpn.keygen.files import KeygenError, warn

LEAST_BITS: Final = 2048  # of RSA and DSA: OpenSSL's default security level refuses less
CURVES: Final = tuple(curve.name for curve in pki.CURVES.values())


def make(args: Namespace) -> tuple[pki.PrivateKey, str | None]:
    """A new key as the command line wants it, and the password for its file."""
    if args.type == "dsa":
        warn_of_dsa()
    password = passwords.choose(args.password, args.password_file)
    try:
        return pki.make_key(args.type, args.bits), password
    except ValueError as error:
        raise KeygenError(str(error)) from None


def warn_of_dsa() -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers("aDSS")
        here = "the OpenSSL here still has it"
    except ssl.SSLError:
        here = "the OpenSSL here has not"
    warn(f"DSA is for meshes of 2009 only: it needs TLS 1.2 with DHE-DSS ({here}) and dh.pem; use --type ecdsa instead")


def check(key: CertificatePublicKeyTypes) -> None:
    """Refuse to certify what the nodes' TLS refuses."""
    if isinstance(key, dsa.DSAPublicKey):
        warn_of_dsa()
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        is_good = key.key_size >= LEAST_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        is_good = key.curve.name in CURVES
    else:
        is_good = isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))
    if not is_good:
        raise KeygenError(f"its key ({describe(key)}) is too weak or of a kind that TLS refuses, make a new one")


def describe(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, dsa.DSAPublicKey):
        return f"DSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey")


def public_id(key: CertificatePublicKeyTypes) -> str:
    """The same for a key, its request and its certificates: SHA-256 of the public key (SubjectPublicKeyInfo)."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def common_name(name: x509.Name) -> str:
    for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME):
        if attribute.value and isinstance(attribute.value, str):
            return attribute.value
    return name.rfc4514_string()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes keys, refuses those that TLS would not take, and tells what identifies one."""

from __future__ import annotations

import ssl
from argparse import Namespace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudvpn import pki
from cloudvpn.keygen import passwords
from cloudvpn.keygen.files import KeygenError, warn
from cloudvpn.trust import describe_key, is_good_node_key


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
    if not is_good_node_key(key):
        raise KeygenError(f"its key ({describe_key(key)}) is too weak or of a kind that TLS refuses, make a new one")


def public_id(key: CertificatePublicKeyTypes) -> str:
    """The same for a key, its request and its certificates: SHA-256 of the public key (SubjectPublicKeyInfo)."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

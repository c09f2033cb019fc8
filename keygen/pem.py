# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in PEM to objects: any file gives all of its blocks, or one line that says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloudvpn import pki
from cloudvpn.keygen.files import KeygenError, read

T = TypeVar("T")
KEYS: Final = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, dsa.DSAPrivateKey)
BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END \1-----|(?=-----BEGIN )|\Z)", re.DOTALL)


def blocks(path: Path) -> list[tuple[str, bytes]]:
    """Label and text of each block, also of one that is cut off: its parser shall refuse it, not skip it."""
    data = read(path)
    found = [(match[1].decode(), match[0] + b"\n") for match in BLOCK.finditer(data)]
    if not found:
        is_der = data[:2] in (b"0\x81", b"0\x82")
        raise KeygenError(f'"{path}" is ' + ("DER, convert it to PEM with openssl" if is_der else "no PEM file"))
    return found


def certs(path: Path) -> list[x509.Certificate]:
    return _parse_all(path, "CERTIFICATE", _parse_cert)


def lists(path: Path) -> list[x509.CertificateRevocationList]:
    return _parse_all(path, "X509 CRL", _parse_list)


def request(path: Path) -> x509.CertificateSigningRequest:
    return _parse_all(path, "CERTIFICATE REQUEST", _parse_request)[0]


def key(path: Path, password: Callable[[], str]) -> pki.PrivateKey:
    """Read a private key; `password` is called only if the key has one."""
    data = read(path)
    try:
        try:
            found = load_pem_private_key(data, None)
        except TypeError:  # it has a password
            found = load_pem_private_key(data, password().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeygenError(f'"{path}" holds no private key in PEM, or the password is wrong') from None
    if not isinstance(found, KEYS):
        raise KeygenError(f'the key in "{path}" is of a kind that TLS has no use for')
    return found


def _parse_all(path: Path, label: str, parse: Callable[[bytes], T]) -> list[T]:
    found = []
    texts = [text for name, text in blocks(path) if name.removeprefix("NEW ") == label]
    if not texts:
        raise KeygenError(f'"{path}" holds no {label} in PEM')
    for number, text in enumerate(texts, 1):
        try:
            found.append(parse(text))
        except Exception:  # any bytes may be in there, and the parser has many ways to say no
            raise KeygenError(f'{label} {number} of {len(texts)} in "{path}" is damaged') from None
    return found


# What is parsed at its first use only must not fail later.


def _parse_cert(data: bytes) -> x509.Certificate:
    cert = x509.load_pem_x509_certificate(data)
    _ = (cert.subject, cert.issuer, cert.extensions, cert.not_valid_before_utc, cert.public_key())
    return cert


def _parse_list(data: bytes) -> x509.CertificateRevocationList:
    found = x509.load_pem_x509_crl(data)
    _ = (found.issuer, found.extensions, found.last_update_utc, [one.extensions for one in found])
    return found


def _parse_request(data: bytes) -> x509.CertificateSigningRequest:
    found = x509.load_pem_x509_csr(data)
    _ = (found.subject, found.extensions, found.public_key(), found.is_signature_valid)
    return found

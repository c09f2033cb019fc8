# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and revocation lists as files: any bytes are loaded and judged, or refused with a reason."""

from __future__ import annotations

import base64
from datetime import datetime, timezone
from pathlib import Path

from cloudvpn.errors import ConfigError
from cloudvpn.pem import read_pem
from cloudvpn.trust import Refused, Trust, load_trust, parse_cert
from tests.fuzz.reader import Reader
from tests.fuzz.words import path

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def pem(label: bytes, der: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, base64.encodebytes(der), label)


def file(reader: Reader, name: str, label: bytes) -> Path:
    """The next piece of the input: as it stands, or as the DER inside of PEM, which a fuzzer finds its way into."""
    what, data = reader.number(), reader.take(reader.number(2) & 0x7FF)
    return path(name, data if what & 3 == 0 else pem(label, data))


def certificates(data: bytes) -> None:
    reader = Reader(data)
    ca = file(reader, "ca", b"CERTIFICATE")
    cert = file(reader, "cert", b"CERTIFICATE")
    crl = file(reader, "crl", b"X509 CRL")
    strict = bool(reader.number() & 1)
    trust = None
    for lists in ([crl], []):
        try:
            trust = load_trust([ca], lists, crl_required=strict and bool(lists))
            break
        except ConfigError as error:
            assert error.problems and all(problem.isprintable() for problem in error.problems)
    try:
        chain = read_pem("cert", cert, b"CERTIFICATE", parse_cert)
    except ConfigError as error:
        assert error.problems
        return
    for one in (trust, Trust((), (), strict), Trust(tuple(chain), (), strict)):
        if one is not None:
            assert all(isinstance(warning, str) for warning in one.warn(NOW))
            try:
                one.follow(chain[0], chain[1:], NOW)
            except Refused as refused:
                assert str(refused)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates, revocation lists and key files as RFC 5280 and OpenSSL want them."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudvpn.pki import Issuer, KeyType, issue, make_ca, make_crl, make_key, write_cert, write_key

KEY_TYPES = get_args(KeyType)
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def ca() -> Issuer:
    return make_ca("CA")


def usages(cert: x509.Certificate) -> set[str]:
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = ("digital_signature", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
    return {name for name in names if getattr(usage.value, name)}


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_ca_signs_itself_and_may_sign_others(key_type: KeyType) -> None:
    cert = make_ca("CA", key_type=key_type).cert
    cert.verify_directly_issued_by(cert)
    constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca
    assert usages(cert) == {"key_cert_sign", "crl_sign"}
    assert cert.version is x509.Version.v3


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_node_may_serve_and_dial_and_sign_nothing(ca: Issuer, key_type: KeyType) -> None:
    key, cert = issue(ca, "node", key_type=key_type)
    cert.verify_directly_issued_by(ca.cert)
    assert key.public_key() == cert.public_key()
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert usages(cert) == {"digital_signature"} | ({"key_encipherment"} if key_type == "rsa" else set())
    extended = set(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert extended == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_identifiers_lead_from_a_certificate_and_a_list_to_their_issuer(ca: Issuer) -> None:
    own = ca.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for signed in (issue(ca, "node")[1], make_crl(ca)):
        assert signed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_an_intermediate_is_a_ca_without_extended_usages(ca: Issuer) -> None:
    cert = issue(ca, "Sub", is_ca=True)[1]
    assert usages(cert) == {"key_cert_sign", "crl_sign"}
    with pytest.raises(x509.ExtensionNotFound):
        cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_the_knobs_for_broken_certificates_work(ca: Issuer) -> None:
    plain = issue(ca, "node", extended_usages=None, can_sign=False)[1]
    assert usages(plain) == {"key_agreement"}
    with pytest.raises(x509.ExtensionNotFound):
        plain.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    dated = issue(ca, "node", not_before=NOW - timedelta(9), not_after=NOW - timedelta(8))[1]
    assert dated.not_valid_after_utc - dated.not_valid_before_utc == timedelta(1)


def test_a_certificate_is_valid_from_five_minutes_ago_for_the_days_asked(ca: Issuer) -> None:
    cert = issue(ca, "node", days=7)[1]
    assert timedelta(minutes=4) < datetime.now(timezone.utc) - cert.not_valid_before_utc < timedelta(minutes=6)
    assert timedelta(days=6.9) < cert.not_valid_after_utc - NOW < timedelta(days=7.1)


def test_serial_numbers_are_random(ca: Issuer) -> None:
    serials = {issue(ca, "node")[1].serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials) > 2**140


def test_a_renewed_ca_has_the_same_name_and_key_and_another_serial(ca: Issuer) -> None:
    renewed = make_ca("CA", key=ca.key).cert
    issue(ca, "node")[1].verify_directly_issued_by(renewed)
    assert renewed.serial_number != ca.cert.serial_number


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_revocation_list_holds_the_serials_and_the_signature_of_its_ca(key_type: KeyType) -> None:
    ca = make_ca("CA", key_type=key_type)
    crl = make_crl(ca, [5, 7, 5])
    assert crl.is_signature_valid(ca.key.public_key())
    assert [entry.serial_number for entry in crl] == [5, 7]
    assert crl.next_update_utc is not None and timedelta(29) < crl.next_update_utc - NOW < timedelta(31)


def test_numbers_of_revocation_lists_grow(ca: Issuer) -> None:
    numbers = [make_crl(ca).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for _ in range(5)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("password", [None, "påss word"])
def test_a_key_file_is_private_from_the_start_and_gives_the_key_back(tmp_path: Path, password: str | None) -> None:
    key, path = make_key(), tmp_path / "key.pem"
    before = os.umask(0)
    try:
        write_key(path, key, password)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    found = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    assert found.public_key() == key.public_key()
    assert (b"ENCRYPTED" in path.read_bytes()) == (password is not None)


def test_a_key_file_is_never_replaced_and_no_link_is_followed(tmp_path: Path) -> None:
    path, link = tmp_path / "key.pem", tmp_path / "link.pem"
    path.write_text("precious")
    link.symlink_to(tmp_path / "elsewhere.pem")
    for place in (path, link):
        with pytest.raises(FileExistsError):
            write_key(place, make_key())
    assert path.read_text() == "precious"
    assert not (tmp_path / "elsewhere.pem").exists()


def test_a_certificate_file_keeps_the_order(ca: Issuer, tmp_path: Path) -> None:
    cert = issue(ca, "node")[1]
    write_cert(tmp_path / "cert.pem", cert, ca.cert)
    assert x509.load_pem_x509_certificates((tmp_path / "cert.pem").read_bytes()) == [cert, ca.cert]

# SPDX-License-Identifier: GPL-3.0-or-later
"""One CA as its folder holds it: key, certificate and those above it, index, revocation list; and what it signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from cloudvpn import pki
from cloudvpn.keygen import index, passwords, pem
from cloudvpn.keygen.files import KeygenError, NewFile, locked, warn
from cloudvpn.keygen.index import Entry

KEY: Final = "ca.key"
CERT: Final = "ca.crt"
LIST: Final = "crl.pem"
INDEX: Final = "index.jsonl"
# Nodes refuse everybody when a list has expired, so it lives until somebody may be expected to look again.
LIST_DAYS: Final = 365
SECOND: Final = timedelta(seconds=1)  # the resolution of times in X.509


@dataclass
class Authority:
    """`lists` is all of crl.pem: of an intermediate CA it may hold lists of those above, which are kept as they are."""

    folder: Path
    issuer: pki.Issuer
    above: Sequence[x509.Certificate]
    entries: list[Entry]
    lists: list[x509.CertificateRevocationList]

    @property
    def name(self) -> x509.Name:
        return self.issuer.cert.subject

    def chain_for(self, cert: x509.Certificate) -> Sequence[x509.Certificate]:
        """What stands below `cert` in its file: a node shows no root, a CA's file is what its nodes trust."""
        above = (self.issuer.cert, *self.above)
        return above if pki.is_ca(cert) else [one for one in above if one.subject != one.issuer]

    @property
    def own_list(self) -> x509.CertificateRevocationList | None:
        return next((one for one in self.lists if one.issuer == self.name), None)

    def sign(
        self, name: str | x509.Name, key: CertificatePublicKeyTypes, days: int, now: datetime, *, is_ca: bool = False
    ) -> x509.Certificate:
        end = self.issuer.cert.not_valid_after_utc
        if now > end:
            raise KeygenError(f"the CA itself expired on {end:%Y-%m-%d}, renew it first")
        if now + timedelta(days=days) > end:
            warn(f"the certificate ends on {end:%Y-%m-%d}, together with the CA")
        length = _path_length(self.issuer.cert)
        if is_ca and length == 0:
            raise KeygenError("this CA is an intermediate one that may sign nodes only")
        return pki.certify(
            self.issuer, name, key, not_before=now - pki.SKEW, not_after=min(now + timedelta(days=days), end),
            is_ca=is_ca, path_length=0 if is_ca else None,
        )  # fmt: skip

    def add(self, cert: x509.Certificate, name: str, file: str) -> None:
        self.entries.append(index.describe(cert, name, file))

    def find_good(self, name: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.name == name and not entry.revoked]

    def is_revoked(self, serial: int) -> bool:
        if any(entry.revoked for entry in self.entries if entry.serial == serial):
            return True
        return self.own_list is not None and self.own_list.get_revoked_certificate_by_serial_number(serial) is not None

    def set_file(self, cert: x509.Certificate, name: str, file: str) -> None:
        """Tell the index where a certificate is now, also one that other tools issued."""
        for place, entry in enumerate(self.entries):
            if entry.serial == cert.serial_number:
                self.entries[place] = replace(entry, file=file)
                return
        self.add(cert, name, file)

    def owns(self, cert: x509.Certificate) -> bool:
        """Did this CA sign it?"""
        try:
            cert.verify_directly_issued_by(self.issuer.cert)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def revoke(self, entry: Entry, reason: x509.ReasonFlags, now: datetime) -> None:
        place = self.entries.index(entry)
        self.entries[place] = replace(entry, revoked=now, reason=reason)

    def make_list(self, now: datetime, days: int | None = None) -> x509.CertificateRevocationList:
        """A list that everybody takes for newer than the one before, even when the clock went back."""
        last_update, number, before = now - pki.SKEW, int(now.timestamp() * 1_000_000), self.own_list
        revoked = {entry.serial: pki.Revocation(entry.serial, entry.revoked, entry.reason)
                   for entry in self.entries if entry.revoked}  # fmt: skip
        if before is not None:
            last_update = max(last_update, before.last_update_utc + SECOND)
            number = max(number, list_number(before) + 1)
            # What other tools revoked, or what was revoked before the index was lost, stays so.
            revoked = {one.serial_number: _revocation(one) for one in before} | revoked
            if days is None and before.next_update_utc is not None:
                days = (before.next_update_utc - before.last_update_utc).days
        if last_update > now:
            warn(f"the clock seems to have gone back: the list is dated {last_update:%Y-%m-%d %H:%M} UTC")
        end = max(now, last_update) + timedelta(days=days or LIST_DAYS)
        return pki.make_crl(
            self.issuer, revoked.values(), last_update=last_update, next_update=end, number=number
        )

    def index_file(self) -> NewFile:
        return NewFile(self.folder / INDEX, index.dump(self.entries))

    def list_file(self, new: x509.CertificateRevocationList) -> NewFile:
        others = [one for one in self.lists if one.issuer != self.name]
        return NewFile(self.folder / LIST, pki.to_pem(new, *others))


@contextmanager
def opened(folder: Path, password_file: Path | None = None) -> Iterator[Authority]:
    """Lock a CA's folder and read it."""
    with locked(folder):
        for name in (KEY, CERT):
            if not (folder / name).exists():
                raise KeygenError(f'there is no CA in "{folder}": it has no {name}; `cloudvpn-keygen ca` makes one')
        key_path = folder / KEY
        key = pem.key(key_path, lambda: passwords.recall(key_path, password_file, "--ca-password-file"))
        cert, *above = pem.certs(folder / CERT)
        if key.public_key() != cert.public_key():
            raise KeygenError(f'"{folder / KEY}" is not the key of "{folder / CERT}"')
        yield Authority(folder, pki.Issuer(key, cert), above, index.load(folder / INDEX), read_lists(folder / LIST))


def read_lists(path: Path) -> list[x509.CertificateRevocationList]:
    return pem.lists(path) if path.exists() else []


def list_number(one: x509.CertificateRevocationList) -> int:
    try:
        return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:  # a list of version 1
        return 0


def _revocation(one: x509.RevokedCertificate) -> pki.Revocation:
    try:
        reason = one.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        reason = x509.ReasonFlags.unspecified
    return pki.Revocation(one.serial_number, one.revocation_date_utc, reason)


def _path_length(cert: x509.Certificate) -> int | None:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None

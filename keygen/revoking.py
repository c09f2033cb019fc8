# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommands about who is out and who is in: revoke, crl, list."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from cloudvpn.keygen import index, pem
from cloudvpn.keygen.authority import CERT, INDEX, LIST, Authority, list_number, opened, read_lists
from cloudvpn.keygen.files import KeygenError, find, write_all
from cloudvpn.keygen.index import Entry
from cloudvpn.log import escape
from cloudvpn.trust import common_name

# Of RFC 5280, 5.3.1, without those that are not for good (certificateHold, removeFromCRL).
REASONS: Final = {
    reason.value: reason
    for reason in (
        x509.ReasonFlags.unspecified,
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.ca_compromise,
        x509.ReasonFlags.affiliation_changed,
        x509.ReasonFlags.superseded,
        x509.ReasonFlags.cessation_of_operation,
        x509.ReasonFlags.privilege_withdrawn,
    )
}
SOON: Final = timedelta(days=30)  # what ends within it is shown as ending


def revoke(args: Namespace, now: datetime) -> None:
    with opened(args.dir, args.ca_password_file) as ca:
        entries = _find(ca, args.what)
        for entry in entries:
            ca.revoke(entry, REASONS[args.reason], now)
        new = ca.make_list(now, args.days)
        # The index first: the list can be made from it, but it could not be made from the list.
        write_all([ca.index_file(), ca.list_file(new)])
    for entry in entries:
        print(f'revoked "{escape(entry.name)}", serial {entry.serial:x}')
    _tell(args.dir / LIST, new)


def make_list(args: Namespace, now: datetime) -> None:
    with opened(args.dir, args.ca_password_file) as ca:
        new = ca.make_list(now, args.days)
        write_all([ca.list_file(new)])
    _tell(args.dir / LIST, new)


def _tell(path: Path, new: x509.CertificateRevocationList) -> None:
    assert new.next_update_utc is not None
    print(f"{path}: number {list_number(new)}, {len(new)} revoked; bring it to every node before "
          f"{new.next_update_utc:%Y-%m-%d}, then it expires and nobody gets in")  # fmt: skip


def _find(ca: Authority, what: str) -> list[Entry]:
    """Whom a name, a file or a serial number means: of a name, all certificates that are not revoked yet."""
    found = [entry for entry in ca.entries if entry.name == what]
    if not found and ("/" in what or what.endswith((".crt", ".pem"))):
        return [_find_file(ca, find(Path(what), ca.folder))]
    digits = what.lower().removeprefix("0x").replace(":", "")
    if not found and re.fullmatch("[0-9a-f]{1,40}", digits):
        found = [entry for entry in ca.entries if entry.serial == int(digits, 16)]
    if not found:
        raise KeygenError(f'this CA issued nothing with the name or serial number "{what}", see `cloudvpn-keygen list`')
    left = [entry for entry in found if not entry.revoked]
    if not left:
        # A run that was killed may have left it out of the list: a run of `crl` heals that.
        raise KeygenError(f'"{what}" is revoked already; `cloudvpn-keygen crl` makes a fresh list')
    return left


def _find_file(ca: Authority, path: Path) -> Entry:
    cert = pem.certs(path)[0]
    serial = cert.serial_number
    if not ca.owns(cert) or serial == ca.issuer.cert.serial_number:
        raise KeygenError(f'"{path}" was not issued by this CA, which can revoke its own only')
    if ca.is_revoked(serial):
        raise KeygenError(f'"{path}" is revoked already; `cloudvpn-keygen crl` makes a fresh list')
    if all(entry.serial != serial for entry in ca.entries):  # from other tools, or the index was lost
        ca.add(cert, common_name(cert.subject), path.name)
    return next(entry for entry in ca.entries if entry.serial == serial)


def show_list(args: Namespace, now: datetime) -> None:
    """Needs no key: whoever may read the folder may look."""
    ca = pem.certs(args.dir / CERT)[0]
    own = index.describe(ca, common_name(ca.subject), CERT)
    rows = [("NAME", "SERIAL", "STATE", "DAYS LEFT", "FILE")]
    rows += [_row(entry, now) for entry in (own, *index.load(args.dir / INDEX))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in _list_state(args.dir, ca, now):
        print(line)


def _row(entry: Entry, now: datetime) -> tuple[str, str, str, str, str]:
    left = days_left(entry.not_after, now)
    state = "good"
    if entry.revoked:
        state = f"revoked {entry.revoked:%Y-%m-%d}"
    elif now > entry.not_after:
        state = "expired"
    elif entry.not_after - now < SOON:
        state = f"expires in {left} day{'' if left == 1 else 's'}"
    name = f"{entry.name} (CA)" if entry.is_ca else entry.name
    return escape(name), f"{entry.serial:x}", state, str(left), escape(entry.file)


def days_left(end: datetime, now: datetime) -> int:
    return max((end - now).days, 0)


def _list_state(folder: Path, ca: x509.Certificate, now: datetime) -> Iterator[str]:
    own = [one for one in read_lists(folder / LIST) if one.issuer == ca.subject]
    if not own:
        yield f"{LIST} is missing: nobody is kept out; `cloudvpn-keygen crl` makes it"
    for one in own:
        end = one.next_update_utc
        state = "never expires" if end is None else f"expires in {days_left(end, now)} days"
        if end is not None and now > end:
            state = "is EXPIRED, nodes that have it let nobody in; `cloudvpn-keygen crl` makes a fresh one"
        yield f"{LIST}: number {list_number(one)}, {len(one)} revoked, {state}"

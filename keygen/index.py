# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of a CA, `index.jsonl`: one line of JSON for each certificate that it issued, the oldest first.

serial (hex), name, is_ca, file (in the CA's folder), not_before, not_after, state (good or revoked; whether it is
expired, the dates say), and if revoked: revoked (when), reason (a word of RFC 5280). Times are UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from cloudvpn import pki
from cloudvpn.keygen.files import KeygenError, read

TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Entry:
    serial: int
    name: str
    file: str
    not_before: datetime
    not_after: datetime
    is_ca: bool = False
    revoked: datetime | None = None
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


def describe(cert: x509.Certificate, name: str, file: str) -> Entry:
    dates = cert.not_valid_before_utc, cert.not_valid_after_utc
    return Entry(cert.serial_number, name, file, *dates, is_ca=pki.is_ca(cert))


def load(path: Path) -> list[Entry]:
    """Read an index; one that is not there is empty."""
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(read(path).splitlines(), 1):
        try:
            entries.append(_parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise KeygenError(f"{path}:{number}: no good line of an index, repair it or bring a backup") from None
    return entries


def dump(entries: Iterable[Entry]) -> bytes:
    return b"".join(json.dumps(_show(entry)).encode() + b"\n" for entry in entries)


def _parse(line: dict[str, Any]) -> Entry:
    is_revoked = {"good": False, "revoked": True}[line["state"]]
    return Entry(
        serial=int(line["serial"], 16),
        name=str(line["name"]),
        file=str(line["file"]),
        not_before=_time(line["not_before"]),
        not_after=_time(line["not_after"]),
        is_ca=bool(line["is_ca"]),
        revoked=_time(line["revoked"]) if is_revoked else None,
        reason=x509.ReasonFlags(line["reason"]) if is_revoked else x509.ReasonFlags.unspecified,
    )


def _show(entry: Entry) -> dict[str, object]:
    line = {
        "serial": f"{entry.serial:x}",
        "name": entry.name,
        "is_ca": entry.is_ca,
        "file": entry.file,
        "not_before": entry.not_before.strftime(TIME),
        "not_after": entry.not_after.strftime(TIME),
        "state": "revoked" if entry.revoked else "good",
    }
    if entry.revoked:
        line |= {"revoked": entry.revoked.strftime(TIME), "reason": entry.reason.value}
    return line


def _time(text: str) -> datetime:
    return datetime.strptime(text, TIME).replace(tzinfo=timezone.utc)

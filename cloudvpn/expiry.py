# SPDX-License-Identifier: GPL-3.0-or-later
"""What is near its end, or past it: our certificate, those of peers, CAs and revocation lists."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from cloudvpn.log import escape
from cloudvpn.tls import Credentials
from cloudvpn.trust import Peer, common_name, identify

log = logging.getLogger("cloudvpn")

CERTIFICATE_WARNING: Final = timedelta(days=30)     # before the end
LIST_WARNING: Final = timedelta(days=3)
REMINDER: Final = timedelta(days=1)                 # between two lines on the same end
RENEW: Final = "renew it, `cloudvpn-keygen renew`"
FRESH: Final = "bring a fresh one, `cloudvpn-keygen crl`"


@dataclass(frozen=True)
class Ending:
    """Something that ends soon or has ended; the text is escaped."""

    what: str
    time: datetime      # UTC
    remedy: str

    def describe(self, now: datetime) -> str:
        left = self.time - now
        if left < timedelta(0):
            return f"{self.what} expired on {self.time:%Y-%m-%d %H:%M} UTC: {self.remedy}"
        days, hours = left.days, left.seconds // 3600
        amount = f"{days} days" if days > 1 else f"{days * 24 + hours} hours"
        return f"{self.what} expires on {self.time:%Y-%m-%d %H:%M} UTC, in {amount}: {self.remedy}"


def find_endings(credentials: Credentials, peers: Iterable[Peer], now: datetime) -> list[Ending]:
    """All that ends within the time of warning, the first one first, each certificate once."""
    found = {credentials.chain[0]: "own certificate"}
    for cert in (*credentials.chain[1:], *credentials.trust.authorities):
        found.setdefault(cert, "CA")
    for peer in peers:
        for cert in peer.chain:
            found.setdefault(cert, "certificate of peer" if cert is peer.chain[0] else "CA")
    endings = [
        Ending(escape(f"{kind} {identify(cert)}"), cert.not_valid_after_utc, RENEW)
        for cert, kind in found.items() if cert.not_valid_after_utc - now < CERTIFICATE_WARNING
    ]
    endings += _find_lists(credentials.trust.lists, now)
    return sorted(endings, key=lambda ending: ending.time)


def _find_lists(lists: Iterable[x509.CertificateRevocationList], now: datetime) -> Iterator[Ending]:
    for one in lists:
        end = one.next_update_utc
        if end is not None and end - now < LIST_WARNING:
            yield Ending(escape(f'CRL of "{common_name(one.issuer)}"'), end, FRESH)


class Reminder:
    """Logs each ending once a day, and once more when it is reached."""

    def __init__(self) -> None:
        self.said: dict[tuple[Ending, bool], datetime] = {}

    def remind(self, endings: Iterable[Ending], now: datetime) -> None:
        self.said = {key: time for key, time in self.said.items() if abs(now - time) < REMINDER}
        for ending in endings:
            key = (ending, ending.time < now)
            if key not in self.said:
                self.said[key] = now
                log.warning("%s", ending.describe(now))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the log short where peers come back again and again: what is wrong is said once, then counted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

log = logging.getLogger("cloudvpn")

FIRST_PAUSE: Final = 60.0       # seconds until the first count is logged; each pause is twice the one before
LONGEST_PAUSE: Final = 3600.0
MAX_KNOWN: Final = 256          # complaints that are told from each other; a flood from everywhere is one complaint
FLOOD: Final = ("refused", "others", "too many at once to name each")


@dataclass
class Repeat:
    """A complaint that was logged, and how often it has come since the last line about it."""

    pause: float = FIRST_PAUSE  # seconds
    count: int = 0


class Repeats:
    """Warnings about peers that are no links. What did not come again during a pause is new when it comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.known: dict[tuple[str, str, str], Repeat] = {}

    def warn(self, event: str, peer: str, host: str, reason: str) -> None:
        """Logs `event peer: reason`, at once or as a count; `peer` may name a port, which is another one each time."""
        key = (event, host, reason)
        if key not in self.known and len(self.known) >= MAX_KNOWN:
            key, peer = FLOOD, FLOOD[1]
        repeat = self.known.get(key)
        if repeat is None:
            self.loop.call_later(FIRST_PAUSE, self.tell, key)
            self.known[key] = Repeat()
            log.warning("%s %s: %s", event, peer, key[2])
        else:
            repeat.count += 1
            log.debug("%s %s: %s", event, peer, reason)

    def tell(self, key: tuple[str, str, str]) -> None:
        repeat = self.known[key]
        if repeat.count == 0:
            del self.known[key]
            return
        event, host, reason = key
        log.warning("%s %s %d times more within %g min: %s", event, host, repeat.count, repeat.pause / 60, reason)
        repeat.count = 0
        repeat.pause = min(2 * repeat.pause, LONGEST_PAUSE)
        self.loop.call_later(repeat.pause, self.tell, key)

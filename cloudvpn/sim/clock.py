# SPDX-License-Identifier: GPL-3.0-or-later
"""A clock that only events move."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Event = Callable[[], object]


class Clock:
    """Times are microseconds. Events of one moment happen in the order in which they were asked for."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._events: list[tuple[int, int, Event]] = []
        self._count = 0

    def at(self, time: int, event: Event) -> None:
        """Lets `event` happen at `time`; a time that has passed is now."""
        self._count += 1
        heapq.heappush(self._events, (max(time, self.now), self._count, event))

    def after(self, delay: int, event: Event) -> None:
        self.at(self.now + delay, event)

    def run_to(self, end: int) -> None:
        """Everything up to `end`, which is the time then."""
        events = self._events
        while events and events[0][0] <= end:
            self.now, _, event = heapq.heappop(events)
            event()
        self.now = end

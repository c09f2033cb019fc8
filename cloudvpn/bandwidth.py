# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the bandwidth limits to the switch, and wakes it when a limit lets more frames out."""

from __future__ import annotations

import asyncio
import math
import time

from cloudvpn._fast.switch import Switch
from cloudvpn.options import MS, SECOND, Config


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Bandwidth:
    """The one timer of all links. The grain of the loop's timers is a millisecond; the switch makes up for it."""

    def __init__(self, switch: Switch, loop: asyncio.AbstractEventLoop) -> None:
        self.switch = switch
        self.loop = loop
        self.timer: asyncio.TimerHandle | None = None
        self.limits: dict[str, tuple[int, int, int]] = {}
        switch.set_alarm(self.wake_at)

    def use(self, config: Config) -> None:
        """Buckets begin full, so limits that did not change stay as they are."""
        limits = {
            "up": (config.uplimit_total or 0, config.uplimit_conn or 0, config.uplimit_burst),
            "down": (config.downlimit_total or 0, config.downlimit_conn or 0, config.downlimit_burst),
        }
        if limits != self.limits:
            self.limits = limits
            self.switch.set_limits(monotonic_us(), **limits)

    def wake_at(self, at: int) -> None:
        if self.timer is not None:
            self.timer.cancel()
        delay = max(math.ceil((at - monotonic_us()) / MS), 1) * MS      # less than one would make the loop spin
        self.timer = self.loop.call_later(delay / SECOND, self.wake)

    def wake(self) -> None:
        self.timer = None
        self.switch.flush(monotonic_us())

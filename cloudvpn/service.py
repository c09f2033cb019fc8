# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the service manager that started us, such as systemd, what state the node is in: the protocol of sd_notify(3).

Our own few lines: a library would add a dependency for one datagram. Without a service manager nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

log = logging.getLogger("cloudvpn")

STATUS_SECONDS: Final = 10.0    # between two looks at what `systemctl status` shows
PATIENCE_SECONDS: Final = 1.0   # for the socket to take a change of state, which must not get lost
MARGIN_SECONDS: Final = 5.0     # of an end, beyond the time that links have to close


class ServiceManager:
    """The other end of $NOTIFY_SOCKET. What cannot be sent is logged once and stops nothing."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Connects at once: later the path may lie outside of a chroot. Takes its variables away from our children."""
        self.socket: socket.socket | None = None
        self.has_complained = False
        self.timer: asyncio.TimerHandle | None = None
        self.said = ""                          # what `systemctl status` shows
        self.is_stopping = False
        place = environment.pop("NOTIFY_SOCKET", "")
        self.period, self.is_watched = self.watch_period(
            environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", ""))
        if place:
            self.connect(place)

    def watch_period(self, microseconds: str, process: str) -> tuple[float, bool]:
        """Twice as often as the watchdog wants to hear of us, and whether there is one."""
        if process not in ("", str(os.getpid())) or not microseconds.isdecimal() or not int(microseconds):
            return STATUS_SECONDS, False
        return min(STATUS_SECONDS, int(microseconds) / 2e6), True

    def connect(self, place: str) -> None:
        """A path, or a name in Linux' abstract space after an @."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            manager.connect("\0" + place[1:] if place.startswith("@") else place)
        except (OSError, ValueError) as error:
            manager.close()
            self.complain(f"cannot connect to NOTIFY_SOCKET {place}: {error}")
        else:
            self.socket = manager

    # States.

    def ready(self) -> None:
        """The interface is up, the listeners are bound; or a reload is over, whatever came of it."""
        self.send("READY=1", PATIENCE_SECONDS)

    def reloading(self) -> None:
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", PATIENCE_SECONDS)

    def stopping(self, seconds: float) -> None:
        """The end has begun, and links have so many seconds to close."""
        extension = round((seconds + MARGIN_SECONDS) * 1e6)
        self.is_stopping = True
        self.send(f"STOPPING=1\nSTATUS=closing all links\nEXTEND_TIMEOUT_USEC={extension}", PATIENCE_SECONDS)

    # While it runs.

    def watch(self, loop: asyncio.AbstractEventLoop, describe: Callable[[], str]) -> None:
        """From now on the watchdog hears of us as long as the loop turns, and a changed description is shown."""
        if self.socket is None:
            return
        self.timer = loop.call_later(self.period, self.watch, loop, describe)   # first: what follows may fail
        lines = ["WATCHDOG=1"] if self.is_watched else []
        if not self.is_stopping and (words := describe()) != self.said:
            self.said = words
            lines.append(f"STATUS={words}")
        if lines:
            self.send("\n".join(lines), 0)

    def send(self, message: str, patience: float) -> None:
        if self.socket is None:
            return
        try:
            self.socket.settimeout(patience)
            self.socket.send(message.encode())
        except BlockingIOError:     # its queue is full: the next one will do
            pass
        except OSError as error:
            self.complain(f"cannot tell the service manager {message.splitlines()[0]}: {error}")

    def complain(self, problem: str) -> None:
        log.log(logging.DEBUG if self.has_complained else logging.WARNING, "%s", problem)
        self.has_complained = True

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.socket is not None:
            self.socket.close()
            self.socket = None

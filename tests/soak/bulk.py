# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP connections that go on and on, at a steady rate, and whose content is compared where it arrives.

A connection outlives all faults: the address of a node that is killed comes back, and TCP sends again until then.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from functools import partial
from random import Random

from tests.netns.lab import Host
from tests.soak.record import Bulk

RATE = 500_000      # bytes a second
WINDOW = 1 << 16    # bytes under way: fewer packets than the queue of a link holds, so the datagrams keep their room
RETRY = 1.0         # seconds
PERIOD = 1 << 16
_PATTERN = Random(2009).randbytes(PERIOD) * 2   # twice: a piece of less than a period is one slice wherever it begins


def pattern(begin: int, size: int) -> bytes:
    """`size` bytes, at most PERIOD, of the endless pattern from byte `begin` on."""
    begin %= PERIOD
    return _PATTERN[begin : begin + size]


class Connection:
    """From one host to the `place` of another; made anew when it breaks."""

    def __init__(self, source: Host, target: Host, place: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self.bulk = Bulk()
        self._source, self._place, self._selector = source, place, selector
        self._cleanup = contextlib.ExitStack()
        self._client: socket.socket | None = None
        self._position = 0      # of what is sent next on this connection
        self._resume = 0.0      # seconds: not tried again before
        with target.inside():
            self._listener = self._own(socket.socket())
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self._listener.bind(("0.0.0.0", place[1]))
        self._listener.listen()
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _own(self, made: socket.socket) -> socket.socket:
        made.setblocking(False)
        return self._cleanup.enter_context(made)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def tick(self, now: float, seconds: float) -> None:
        """Sends what that time is worth."""
        if not self.bulk.history or now - self.bulk.history[-1][0] >= 1:
            self.bulk.history.append((now, self.bulk.received))
        if not seconds or now < self._resume:
            return
        try:
            client = self._client = self._client or self._dial()
            count = client.send(pattern(self._position, int(RATE * seconds)))
        except BlockingIOError:     # not connected yet, or the other side is slow
            return
        except OSError as error:
            self.bulk.broken.append(f"{now:.0f} s: {error.strerror}")
            self._client, self._resume = None, now + RETRY
            return
        self._position += count
        self.bulk.sent += count

    def _dial(self) -> socket.socket:
        with self._source.inside():
            made = self._own(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW)
        made.connect_ex(self._place)
        self._position = 0
        return made

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            made = self._own(self._listener.accept()[0])
            self._selector.register(made, selectors.EVENT_READ, partial(self._receive, made, [0]))

    def _receive(self, made: socket.socket, position: list[int]) -> None:
        """`position`, one number: of the next byte on this connection."""
        try:
            data = made.recv(PERIOD)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(made)
            made.close()
        elif data != pattern(position[0], len(data)):
            self.bulk.corrupt += 1
        position[0] += len(data)
        self.bulk.received += len(data)

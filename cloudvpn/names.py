# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks names up in the node itself: a name server that says nothing holds up neither frames, other names nor the end.

The loop has a few threads for that, and asks them of numeric addresses, too; its end waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from typing import Any, Final

Found = tuple[socket.AddressFamily, tuple[Any, ...]]

LOOKUPS: Final = 64     # at once, a thread for each


def find(host: str, port: str, flags: int = 0) -> list[Found]:
    """The stream addresses of a name. Raises OSError, and UnicodeError for what is no name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def find_numeric(host: str, port: str, flags: int = 0) -> list[Found] | None:
    """The same without asking anybody; None: it is a name."""
    try:
        return find(host, port, flags | socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None


class Names:
    """To be made where the loop runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.places = asyncio.Semaphore(LOOKUPS)

    async def look_up(self, host: str, port: str, flags: int = 0) -> list[Found]:
        """Raises OSError."""
        answer: asyncio.Future[list[Found]] = self.loop.create_future()

        def ask() -> None:
            found: list[Found] | Exception
            try:
                found = find(host, port, flags)
            except Exception as error:
                found = error
            with contextlib.suppress(RuntimeError):     # the node has ended meanwhile
                self.loop.call_soon_threadsafe(self.settle, answer, found)

        await self.places.acquire()
        try:
            # A daemon thread: the end of the process does not wait for it.
            threading.Thread(target=ask, name="names", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self.places.release()
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        return await answer

    def settle(self, answer: asyncio.Future[list[Found]], found: list[Found] | Exception) -> None:
        self.places.release()       # only now, also where nobody waits any more
        if answer.done():
            return
        if isinstance(found, UnicodeError):
            found = socket.gaierror(socket.EAI_NONAME, "it is no valid name")
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks names up for a node in a chroot: a process outside of it, which has no more rights than the node.

So /etc/resolv.conf, /etc/hosts and the services of this system count as they are now, and no copy in the chroot.
Requests and answers are JSON, one a packet; many may be under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - getaddrinfo() would import it, from where the user may not read
import itertools
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cloudvpn.helper import Helper
from cloudvpn.names import Found, find
from cloudvpn.privileges import Confinement, lock_memory

LOOKUPS: Final = 16         # at once; each may wait for name servers that are silent
MAX_PACKET: Final = 64 << 10
MAX_ADDRESSES: Final = 256  # of one name
GONE: Final = "the process that looks names up has ended: restart the node"


class Resolver:
    """The node's side; look_up() in the loop that it was first called in."""

    def __init__(self, confinement: Confinement, *, lock: bool) -> None:
        """`lock`: what was copied from the node stays out of the swap; what comes later is names."""
        self.helper = Helper("cloudvpn-names", socket.SOCK_SEQPACKET, lambda ours: _serve(ours, confinement, lock))
        self.socket = self.helper.socket
        self.socket.setblocking(False)
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.reading: asyncio.Task[None] | None = None

    async def look_up(self, host: str, port: str, flags: int = 0) -> list[Found]:
        """The stream addresses of a name. Raises OSError, as getaddrinfo() does."""
        loop = asyncio.get_running_loop()
        if self.reading is None:
            self.reading = loop.create_task(self.read())
        elif self.reading.done():
            raise OSError(None, GONE)
        number = next(self.numbers)
        answer = self.waiting[number] = loop.create_future()
        try:
            await loop.sock_sendall(self.socket, json.dumps([number, host, port, flags]).encode())
            found = await answer
        finally:
            del self.waiting[number]
        if isinstance(found, str):
            raise socket.gaierror(socket.EAI_FAIL, found)
        return [(socket.AddressFamily(family), tuple(address)) for family, address in found]

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        while packet := await loop.sock_recv(self.socket, MAX_PACKET):
            number, found = json.loads(packet)
            if (answer := self.waiting.get(number)) and not answer.done():
                answer.set_result(found)
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(OSError(None, GONE))

    def close(self) -> None:
        self.helper.close()


def _serve(ours: socket.socket, confinement: Confinement, lock: bool) -> None:
    if lock:
        lock_memory(will_lose_rights=True, also_future=False)
    confinement.enter()

    def look_up(number: int, host: str, port: str, flags: int) -> None:
        try:
            answer: object = find(host, port, flags)[:MAX_ADDRESSES]
        except Exception as error:      # the node waits for an answer
            answer = getattr(error, "strerror", None) or str(error)
        ours.send(json.dumps([number, answer]).encode())

    threads = ThreadPoolExecutor(LOOKUPS)       # not closed: the end waits for no name server
    with contextlib.suppress(ConnectionResetError):     # the node was killed with an answer that it had not read
        while packet := ours.recv(MAX_PACKET):
            threads.submit(look_up, *json.loads(packet))

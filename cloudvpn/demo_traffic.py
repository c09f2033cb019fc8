# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic of the demonstration: pings that measure times and outages, and a TCP stream that measures a rate."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import statistics
import struct
import time
from typing import Final

from cloudvpn.demo_net import Namespace

# RFC 792
ECHO_REQUEST: Final = 8
ECHO_REPLY: Final = 0
HEADER: Final = struct.Struct("!BBHHH")     # type, code, checksum, identifier, sequence number
CHUNK: Final = 256 << 10                    # bytes of one write and one read
MOVE_LIMIT: Final = 15.0                    # seconds over the wanted ones for the last byte to arrive

_identifiers = itertools.count(os.getpid())


class Pinger:
    """Within `with`, asks `target` again and again, and notes which question was answered and how fast.

    Not the command `ping`: that is a package more, and does not tell when which answer was missing.
    """

    def __init__(self, space: Namespace, target: str, interval: float) -> None:
        self.target = target
        self.interval = interval
        self.identifier = next(_identifiers) & 0xFFFF
        self.sent: list[float] = []             # the time of each question
        self.rtts: dict[int, float] = {}        # question -> seconds
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        with space.entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)

    def __enter__(self) -> Pinger:
        self.loop.add_reader(self.socket, self.receive)
        self.send()
        return self

    def __exit__(self, *_: object) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.loop.remove_reader(self.socket)
        self.socket.close()

    def send(self) -> None:
        number = len(self.sent)
        self.sent.append(time.monotonic())
        # No data, so the checksum is the complement of three words' sum.
        total = (ECHO_REQUEST << 8) + self.identifier + (number & 0xFFFF)
        checksum = ~(total % 0xFFFF) & 0xFFFF
        with contextlib.suppress(OSError):      # no route yet, or none any more: a question without an answer
            self.socket.sendto(HEADER.pack(ECHO_REQUEST, 0, checksum, self.identifier, number & 0xFFFF),
                               (self.target, 0))
        self.timer = self.loop.call_later(self.interval, self.send)

    def receive(self) -> None:
        with contextlib.suppress(OSError):      # "no route to host" comes here too
            data = self.socket.recv(2048)
            kind, _, _, identifier, number = HEADER.unpack_from(data, (data[0] & 15) * 4)
            if kind == ECHO_REPLY and identifier == self.identifier and number < len(self.sent):
                self.rtts.setdefault(number, time.monotonic() - self.sent[number])

    def count_from(self, begin: int) -> int:
        """How many of the questions from number `begin` on were answered."""
        return sum(number >= begin for number in self.rtts)

    @property
    def rtt(self) -> float:
        """Seconds; the middle one, so that the first, which had to find the way, does not count."""
        return statistics.median(self.rtts.values())

    @property
    def outage(self) -> float:
        """Seconds, the longest between two questions that were answered."""
        answered = [self.sent[number] for number in sorted(self.rtts)]
        return max((b - a for a, b in itertools.pairwise(answered)), default=0.0)


async def move(source: Namespace, target: Namespace, address: str, seconds: float) -> float:
    """Sends all that TCP takes to `address` in `target`; bytes a second that arrived. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        with target.entered():
            listener = stack.enter_context(socket.create_server((address, 0)))
        with source.entered():
            sender = stack.enter_context(socket.socket())
        for end in (listener, sender):
            end.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(sender, listener.getsockname()), MOVE_LIMIT)
        receiver = stack.enter_context(await asyncio.wait_for(accept(listener), MOVE_LIMIT))
        return await asyncio.wait_for(flow(sender, receiver, seconds), seconds + MOVE_LIMIT)


async def accept(listener: socket.socket) -> socket.socket:
    """Not the loop's own: cancelled in the moment a connection comes, it leaves a traceback (Python 3.11)."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listener)
    receiver, _ = listener.accept()
    receiver.setblocking(False)
    return receiver


async def flow(sender: socket.socket, receiver: socket.socket, seconds: float) -> float:
    # Not given to wait_for itself, which loses the error of a gathering that is cancelled.
    _, rate = await asyncio.gather(feed(sender, seconds), drain(receiver))
    return rate


async def feed(sender: socket.socket, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    data = bytes(CHUNK)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await loop.sock_sendall(sender, data)
    sender.shutdown(socket.SHUT_WR)


async def drain(receiver: socket.socket) -> float:
    loop = asyncio.get_running_loop()
    buffer = bytearray(CHUNK)
    total, begun = 0, time.monotonic()
    while count := await loop.sock_recv_into(receiver, buffer):
        total += count
    return total / (time.monotonic() - begun)

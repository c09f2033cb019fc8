# SPDX-License-Identifier: GPL-3.0-or-later
"""Pings of which every answer is waited for.

ping(8) waits for the last ones only as long as two round trips or one interval, once any has come: on a machine with
other work it tells of losses that there were not.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import struct
import threading
import time
from statistics import fmean
from typing import NamedTuple

HEAD = struct.Struct("!BBHHH")      # type, code, checksum, identifier, sequence number
NUMBERS = 1 << 16
KINDS = {socket.AF_INET: (8, 0, socket.IPPROTO_ICMP), socket.AF_INET6: (128, 129, socket.IPPROTO_ICMPV6)}


class Ping(NamedTuple):
    sent: int
    received: int
    min_ms: float
    avg_ms: float
    max_ms: float

    @property
    def loss(self) -> float:
        return 1 - self.received / self.sent


class Pinger:
    """For one address. The sockets belong to the namespace in which it is made."""

    def __init__(self, target: str) -> None:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(target, None, type=socket.SOCK_RAW)
        self.request, self.reply, protocol = KINDS[socket.AddressFamily(family)]
        self.address, self.identifier = address, secrets.randbelow(1 << 16)
        self.socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self.socket.setblocking(False)

    def ping(
        self, count: int, interval: float, size: int, wait: float, over: threading.Event | None = None
    ) -> Ping:
        """`size` bytes each, `interval` seconds apart; `wait`: seconds for the last answer. Without any, rtts are 0.

        `over`: when it is set no more are sent.
        """
        payload, sent = secrets.token_bytes(size), list[float]()
        rtts: dict[int, float] = {}
        due = time.monotonic()
        while len(rtts) < count:
            now = time.monotonic()
            if over is not None and over.is_set() and len(sent) < count:
                count, due = len(sent), now + wait
            elif now >= due and len(sent) == count:
                break
            elif now >= due:
                with contextlib.suppress(OSError):      # no way there, as yet: not answered
                    self.socket.sendto(self.packet(len(sent), payload), self.address)
                sent.append(now)
                due = now + (interval if len(sent) < count else wait)
            elif select.select([self.socket], [], [], due - now)[0]:
                number = self.receive(payload)
                if number is not None and number < len(sent):
                    rtts.setdefault(number, time.monotonic() - sent[number])
        times = [1000 * rtt for rtt in rtts.values()] or [0.0]
        return Ping(len(sent), len(rtts), min(times), fmean(times), max(times))

    def packet(self, number: int, payload: bytes) -> bytes:
        data = HEAD.pack(self.request, 0, 0, self.identifier, number) + payload
        total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return data[:2] + struct.pack("!H", ~total & 0xFFFF) + data[4:]     # of IPv6 the kernel makes it anew

    def receive(self, payload: bytes) -> int | None:
        """The number of an answer to us, whole."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return None
        packet = data[(data[0] & 15) * 4 :] if self.socket.family == socket.AF_INET else data
        if len(packet) < HEAD.size or packet[HEAD.size :] != payload:
            return None
        kind, _, _, identifier, number = HEAD.unpack_from(packet)
        return number if (kind, identifier) == (self.reply, self.identifier) else None

    def __enter__(self) -> Pinger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Pings(threading.Thread):
    """Pings while the block runs, or `count` of them."""

    def __init__(self, pinger: Pinger, interval: float, count: int) -> None:
        super().__init__(name="pings", daemon=True)
        self._pinger, self._interval, self._count, self._over = pinger, interval, count, threading.Event()
        self._result: Ping | None = None

    @property
    def result(self) -> Ping:
        """When they are over."""
        assert self._result is not None
        return self._result

    def run(self) -> None:
        self._result = self._pinger.ping(self._count, self._interval, 56, 1, self._over)

    def __enter__(self) -> Pings:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        self._pinger.socket.close()

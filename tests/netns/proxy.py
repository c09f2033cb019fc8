# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad line for TCP: passes each connection on, cut anew and late; stalls and resets it in between.

proxy.py '{"listen": ["127.0.0.1", 4001], "connect": ["198.18.1.2", 4000], "seed": 1, "faults": ["stall", "reset"],
           "every": 400000, "stall": 0.2, "silence": 2.0}'

The faults come in turn, one for each `every` bytes that came, more or less:

- stall: nothing passes for about `stall` seconds, then all of it;
- silence: nothing passes for `silence` seconds, then the connection is reset;
- reset: a part of what came passes, the rest is lost, and both sides get an RST.

Prints "ready", and at SIGTERM a Report as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

READ_BYTES = 1 << 16
TINY_BYTES = 48             # so much of a read passes byte by byte
DELAY_SECONDS = 0.002       # the longest of many
NO_LINGER = struct.pack("=ii", 1, 0)


@dataclass
class Order:
    listen: tuple[str, int]
    connect: tuple[str, int]
    seed: int
    faults: list[str]
    every: int
    stall: float
    silence: float


@dataclass
class Report:
    """What happened; bytes are [from those who dialled, to those who dialled]."""

    connections: int = 0
    ended: int = 0
    single_bytes: int = 0       # that passed alone
    delays: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    came: list[int] = field(default_factory=lambda: [0, 0])
    passed: list[int] = field(default_factory=lambda: [0, 0])


class Reset(Exception):
    """The connection is to be reset."""


class Proxy:
    def __init__(self, order: Order) -> None:
        self.order, self.report = order, Report()
        self.chance = random.Random(order.seed)
        self.faults = itertools.cycle(order.faults)
        self.left = order.every     # bytes until the next fault
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            task = loop.create_task(Connection(self, near).run())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def next_fault(self, size: int) -> str | None:
        self.left -= size
        if self.left > 0:
            return None
        self.left = int(self.order.every * self.chance.uniform(0.5, 1.5))
        kind = next(self.faults)
        self.report.faults[kind] = self.report.faults.get(kind, 0) + 1
        return kind


class Connection:
    def __init__(self, proxy: Proxy, near: socket.socket) -> None:
        self.proxy, self.near = proxy, near
        self.report = proxy.report
        self.report.connections += 1
        self.chance = random.Random(f"{proxy.order.seed} {self.report.connections}")
        self.flows = asyncio.Event()
        self.flows.set()
        self.is_dead = False        # it was silent for so long that it is reset

    async def run(self) -> None:
        far = socket.socket()
        with self.near, far:
            far.setblocking(False)
            for one in (self.near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps: list[asyncio.Task[None]] = []
            try:
                await asyncio.get_running_loop().sock_connect(far, self.proxy.order.connect)
                ways = [(self.near, far), (far, self.near)]
                pumps = [asyncio.ensure_future(self.pump(*ends, way)) for way, ends in enumerate(ways)]
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in done:
                    pump.result()
            except (Reset, OSError):
                for one in (self.near, far):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                self.report.ended += 1

    async def pump(self, source: socket.socket, target: socket.socket, way: int) -> None:
        """To the end of the stream, which ends the connection."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, READ_BYTES):
            self.report.came[way] += len(data)
            kind = self.proxy.next_fault(len(data)) if self.flows.is_set() else None
            if kind == "reset":
                data = data[: self.chance.randrange(len(data))]
            elif kind is not None:
                self.hold(kind)
            for piece in self.pieces(data):
                await self.flows.wait()
                if self.is_dead:
                    raise Reset
                await loop.sock_sendall(target, piece)
                self.report.passed[way] += len(piece)
                self.report.single_bytes += len(piece) == 1
                if self.chance.random() < 0.02:
                    self.report.delays += 1
                    await asyncio.sleep(self.chance.uniform(0, DELAY_SECONDS))
                else:
                    await asyncio.sleep(0)      # the other side may read this piece before the next one comes
            if kind == "reset":
                raise Reset

    def hold(self, kind: str) -> None:
        order = self.proxy.order
        self.flows.clear()

        def go_on() -> None:
            self.is_dead = kind == "silence"
            self.flows.set()

        seconds = order.silence if kind == "silence" else order.stall * self.chance.uniform(0.5, 1.5)
        asyncio.get_running_loop().call_later(seconds, go_on)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        at, how = 0, self.chance.random()
        if how < 0.1:
            at = min(TINY_BYTES, len(data))
            yield from (data[place : place + 1] for place in range(at))
        while at < len(data):
            size = self.chance.randint(1, 3000) if how < 0.5 else len(data)
            yield data[at : at + size]
            at += size


async def main() -> None:
    proxy = Proxy(Order(**json.loads(sys.argv[1])))
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    with socket.create_server(tuple(proxy.order.listen)) as listener:
        listener.setblocking(False)
        serving = loop.create_task(proxy.serve(listener))
        print("ready", flush=True)
        await over.wait()
        print(json.dumps(asdict(proxy.report)), flush=True)
        for task in [serving, *proxy.tasks]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


if __name__ == "__main__":
    asyncio.run(main())

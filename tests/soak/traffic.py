# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered datagrams between all pairs: each arrives or is lost, and which one is known.

One thread does this and tends the connections of `bulk.py`, with sockets in the namespaces of all hosts.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from tests.netns.lab import Host
from tests.soak.bulk import PERIOD, Connection, pattern
from tests.soak.record import Flow, Pair, Run

PORT = 7000     # of datagrams; the connections have the ones after it
TICK = 0.05     # seconds: one datagram of each pair
RECEIVE_BUFFER = 16 << 20
SO_RCVBUFFORCE = 33
HEAD = struct.Struct(">1s1sI")      # from, to, number
LARGEST = 1400
BATCH = 64      # datagrams of one host, then others have their turn


def datagram(pair: Pair, number: int) -> bytes:
    """Of 6 to 1,405 bytes; each is of another size and content than the one before."""
    begin = (number * 7919 + sum(map(ord, pair))) % PERIOD
    head = HEAD.pack(pair[0].encode(), pair[1].encode(), number)
    return head + pattern(begin, (begin ^ number) % LARGEST)


class Traffic(threading.Thread):
    """From `start` to `stop`; what was sent and what came is in the run that it was given."""

    def __init__(self, run: Run, hosts: dict[str, Host], address: Callable[[str], str], bulks: Iterable[Pair]) -> None:
        super().__init__(name="traffic", daemon=True)
        self._record, self._address = run, address
        self._over, self._is_sending = threading.Event(), True
        self._failure: Exception | None = None
        self._cleanup = contextlib.ExitStack()
        self._selector = self._cleanup.enter_context(selectors.DefaultSelector())
        run.flows = {pair: Flow() for pair in itertools.permutations(hosts, 2)}
        self._sockets = {name: self._open(name, host) for name, host in hosts.items()}
        self._connections = [
            self._cleanup.enter_context(
                Connection(hosts[source], hosts[target], (address(target), PORT + number), self._selector))
            for number, (source, target) in enumerate(bulks, start=1)
        ]
        run.bulks = {pair: connection.bulk for pair, connection in zip(bulks, self._connections, strict=True)}

    def _open(self, name: str, host: Host) -> socket.socket:
        with host.inside():
            made = self._cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        made.bind(("0.0.0.0", PORT))
        self._selector.register(made, selectors.EVENT_READ, partial(self._receive, name, made))
        return made

    def quiet(self) -> None:
        """No more is sent; what is under way still comes in."""
        self._is_sending = False

    def is_complete(self) -> bool:
        """Whether nothing is missing any more of what must not be lost."""
        calm = [flow for pair, flow in self._record.flows.items() if self._record.is_calm(pair)]
        bulks = self._record.bulks.values()
        return all(0 not in flow.arrived for flow in calm) and all(bulk.sent == bulk.received for bulk in bulks)

    def stop(self) -> None:
        """Raises what ended the thread before."""
        self._over.set()
        if self.ident is not None:
            self.join(10)
        self._cleanup.close()
        if self._failure:
            raise self._failure

    def run(self) -> None:
        try:
            self._work()
        except Exception as failure:    # `stop` raises it
            self._failure = failure

    def _work(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            for key, _ in self._selector.select(max(due - time.monotonic(), 0)):
                key.data()
            if (now := time.monotonic()) >= due:
                due = max(due + TICK, now)      # a machine that had no time for us gets no burst
                if self._is_sending:
                    self._send()
                for connection in self._connections:
                    connection.tick(self._record.now(), TICK if self._is_sending else 0)

    def _send(self) -> None:
        number = len(self._record.sent)
        self._record.sent.append(self._record.now())
        for pair, flow in self._record.flows.items():
            flow.arrived.append(0)
            source, target = pair
            with contextlib.suppress(OSError):      # the node has no interface now: lost like any other
                self._sockets[source].sendto(datagram(pair, number), (self._address(target), PORT))

    def _receive(self, target: str, own: socket.socket) -> None:
        flows, count = self._record.flows, len(self._record.sent)
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                data = own.recv(65535)
                source, _, number = HEAD.unpack_from(data.ljust(HEAD.size))
                pair = source.decode("latin-1"), target
                if pair in flows and number < count and data == datagram(pair, number):
                    flows[pair].arrived[number] = min(flows[pair].arrived[number] + 1, 255)
                else:
                    self._record.strange.append(f"{self._record.now():.1f} s, at {target}: {data[:32].hex()}")

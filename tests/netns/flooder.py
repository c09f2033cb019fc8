# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens TCP connections at a steady rate, each of which is a nuisance of one kind, and reports what became of them.

    python flooder.py KIND RATE SECONDS HOST PORT CERT KEY CA SOURCE...    prints a Report as JSON when time is up,
                                                                           or at SIGTERM

Kinds: idle says nothing; half says half a ClientHello, hello a whole one, and no more; garbage is no TLS, or only looks
like it; wrong finishes its handshake, with a certificate that the daemon does not know; dribble says a ClientHello byte
by byte. With rate 0 one connection is opened from each source and kept until it is cut, or for SECONDS.
"""

from __future__ import annotations

import contextlib
import errno
import json
import random
import resource
import selectors
import signal
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass

LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
DRIBBLE_SECONDS = 0.2
BURST = 50


@dataclass
class Report:
    opened: int = 0         # TCP connections that the daemon's host has taken
    said: int = 0           # of those, that have said all that they wanted to
    answered: int = 0       # to which the daemon has said something
    cut: int = 0            # that the daemon has ended
    failed: int = 0         # that never were connections
    shortest: float = 0.0   # life of those, in seconds
    longest: float = 0.0
    seconds: float = 0.0    # how long it took
    cpu: float = 0.0        # seconds of processor


def make_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_verify_locations(ca)
    context.load_cert_chain(cert, key)
    return context


class Nuisance:
    """One connection."""

    def __init__(self, flood: Flood, source: str) -> None:
        self.flood, self.begun, self.is_open, self.tls = flood, 0.0, False, None
        self.left = b""
        self.socket = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The port is chosen when the connection is made: it need be free for this one only.
        self.socket.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        self.socket.bind((source, 0))
        error = self.socket.connect_ex(flood.target)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "connect")
        flood.selector.register(self.socket, selectors.EVENT_WRITE, self)

    def take(self) -> None:
        """Something has happened."""
        try:
            if not self.is_open:
                self.open()
            elif data := self.socket.recv(65536):
                self.answer(data)
            else:
                self.end()
        except BlockingIOError:
            pass
        except OSError:
            self.end()

    def open(self) -> None:
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self.is_open, self.begun = True, time.monotonic()
        self.flood.report.opened += 1
        self.flood.selector.modify(self.socket, selectors.EVENT_READ, self)
        kind = self.flood.kind
        if kind == "wrong":
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = self.flood.context.wrap_bio(self.incoming, self.outgoing)
            self.shake()
        elif kind == "dribble":
            self.left = self.flood.hello
        else:
            self.say(self.flood.words())

    def say(self, words: bytes) -> None:
        if words:
            self.socket.send(words)
        self.flood.report.said += 1

    def dribble(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(self.left[:1])
            self.left = self.left[1:]

    def answer(self, data: bytes) -> None:
        self.flood.report.answered += 1
        if self.tls is not None:
            self.incoming.write(data)
            self.shake()

    def shake(self) -> None:
        try:
            self.tls.do_handshake()
            self.flood.report.said += 1
            self.tls = None
        except ssl.SSLWantReadError:
            pass
        if data := self.outgoing.read():
            self.socket.send(data)

    def end(self) -> None:
        report = self.flood.report
        if self.is_open:
            report.cut += 1
            life = time.monotonic() - self.begun
            report.shortest = min(report.shortest or life, life)
            report.longest = max(report.longest, life)
        else:
            report.failed += 1
        self.close()

    def close(self) -> None:
        self.flood.selector.unregister(self.socket)
        self.socket.close()


class Flood:
    def __init__(self, kind: str, target: tuple[str, int], context: ssl.SSLContext, sources: list[str]) -> None:
        self.kind, self.target, self.context, self.sources = kind, target, context, sources
        self.selector = selectors.DefaultSelector()
        self.report = Report()
        self.is_over = False
        self.chance = random.Random(1)
        outgoing = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        self.hello = outgoing.read()

    def words(self) -> bytes:
        if self.kind == "half":
            return self.hello[: len(self.hello) // 2]
        if self.kind == "hello":
            return self.hello
        if self.kind == "garbage":
            noise = self.chance.randbytes(200)
            return noise if self.chance.random() < 0.5 else b"\x16\x03\x01\x00\xc3\x01" + noise[:194]
        return b""

    def stop(self, *_: object) -> None:
        self.is_over = True

    @property
    def open(self) -> list[Nuisance]:
        return [key.data for key in self.selector.get_map().values()]

    def run(self, rate: float, seconds: float) -> None:
        begun, made = time.monotonic(), 0
        total = int(rate * seconds) or len(self.sources)
        dribbled = begun
        while (now := time.monotonic()) < begun + seconds and not self.is_over:
            # What was missed in a pause is made up for in small bursts: a large one would only fill the kernel's queue.
            due = min(total, made + BURST, int((now - begun) * rate) + 1) if rate else total
            while made < due:
                try:
                    Nuisance(self, self.sources[made % len(self.sources)])
                except OSError:
                    self.report.failed += 1
                made += 1
            if not rate and not self.selector.get_map():
                break
            if self.kind == "dribble" and now - dribbled > DRIBBLE_SECONDS:
                dribbled = now
                for nuisance in self.open:
                    nuisance.dribble()
            for key, _ in self.selector.select(0.002 if rate else 0.02):
                key.data.take()
        self.report.seconds = time.monotonic() - begun
        for nuisance in self.open:
            nuisance.close()
        self.report.cpu = time.process_time()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    kind, rate, seconds, host, port, cert, key, ca, *sources = sys.argv[1:]
    flood = Flood(kind, (host, int(port)), make_context(cert, key, ca), sources)
    signal.signal(signal.SIGTERM, flood.stop)
    print("ready", flush=True)
    flood.run(float(rate), float(seconds))
    print(json.dumps(asdict(flood.report)), flush=True)


if __name__ == "__main__":
    main()

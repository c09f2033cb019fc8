# SPDX-License-Identifier: GPL-3.0-or-later
"""A version-1 peer in plain Python for tests: it says what it is told to, and keeps all that it hears.

Written from wire.md alone. TLS runs in memory over a plain socket, so that the test sees how a link ends and may end it
in every way, and so that many peers live in one thread: a peer moves on only within `poll`, `expect` and their like.
All deadlines are seconds from the call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable

from .streams import Packet, Routes

Entry = tuple[bytes, int, int]
Path = str | os.PathLike[str]

HEADER = struct.Struct(">BBH")  # type, special, size
ENTRY = struct.Struct(">6sHI")  # mac, dist in hops, ping in us
ID = struct.Struct(">I")
NAMES = dict(
    enumerate(["route_set", "route_diff", "frame", "broadcast", "echo_request", "echo_reply", "route_request"], start=1)
)
TYPES = {name: number for number, name in NAMES.items()}
READ = 1 << 16


def pack(packet: Packet) -> bytes:
    """The bytes of one packet, from its meaning (see `streams`)."""
    name, *fields = packet
    kind = TYPES[name]
    match name:
        case "route_set" | "route_diff":
            return HEADER.pack(kind, 0, len(fields[0])) + b"".join(ENTRY.pack(*entry) for entry in fields[0])
        case "frame":
            return HEADER.pack(kind, 0, len(fields[0])) + bytes(fields[0])
        case "broadcast":
            return HEADER.pack(kind, 0, len(fields[1])) + ID.pack(fields[0]) + bytes(fields[1])
    return HEADER.pack(kind, fields[0] if fields else 0, 0)


class Unpacker:
    """Cuts a byte stream into packets; an unknown type gives `('unknown', type)`, and the rest is not read."""

    def __init__(self) -> None:
        self.headers: list[tuple[int, int, int]] = []
        self._rest = b""
        self._is_lost = False

    def feed(self, data: bytes) -> list[Packet]:
        self._rest += data
        packets: list[Packet] = []
        at = 0
        while not self._is_lost and len(self._rest) - at >= HEADER.size:
            kind, special, size = HEADER.unpack_from(self._rest, at)
            start = at + HEADER.size
            end = start + {1: size * ENTRY.size, 2: size * ENTRY.size, 3: size, 4: size + ID.size}.get(kind, 0)
            if len(self._rest) < end:
                break
            self.headers.append((kind, special, size))
            packets.append(self._unpack(kind, special, self._rest[start:end]))
            self._is_lost = kind not in NAMES
            at = end
        self._rest = self._rest[at:]
        return packets

    @property
    def has_rest(self) -> bool:
        return bool(self._rest)

    @staticmethod
    def _unpack(kind: int, special: int, body: bytes) -> Packet:
        match kind:
            case 1 | 2:
                return NAMES[kind], list(ENTRY.iter_unpack(body))
            case 3:
                return NAMES[kind], body
            case 4:
                return NAMES[kind], ID.unpack_from(body)[0], body[ID.size :]
            case 5 | 6:
                return NAMES[kind], special
            case 7:
                return (NAMES[kind],)
        return "unknown", kind


def apply(routes: Routes, packet: Packet) -> Routes:
    """What a peer has announced after `packet`, if it had announced `routes` before."""
    match packet:
        case ("route_set", entries):
            return {mac: (dist, ping) for mac, dist, ping in entries if ping}
        case ("route_diff", entries):
            routes = dict(routes)
            for mac, dist, ping in entries:
                if ping:
                    routes[mac] = (dist, ping)
                else:
                    routes.pop(mac, None)
    return routes


def tls_context(
    server: bool, cert: Path, key: Path, ca: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """A certificate on both sides, no host name check, no ALPN, no resumption, exactly one TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    context.options |= ssl.OP_NO_TICKET
    if server:
        context.num_tickets = 0
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    return context


def dial(address: tuple[str, int], context: ssl.SSLContext, deadline: float = 5.0, answer_echo: bool = True) -> V1Peer:
    """A peer that has dialled `address` and finished its handshake."""
    peer = V1Peer(socket.create_connection(address, timeout=deadline), context, False, answer_echo)
    peer.wait_ready(deadline)
    return peer


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket for `accept`."""
    return socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)


def accept(listener: socket.socket, context: ssl.SSLContext, deadline: float = 5.0, answer_echo: bool = True) -> V1Peer:
    """A peer that was dialled through `listener` and finished its handshake."""
    listener.settimeout(deadline)
    peer = V1Peer(listener.accept()[0], context, True, answer_echo)
    peer.wait_ready(deadline)
    return peer


class V1Peer:
    """One link.

    received  all packets so far, in order; `headers` are their (type, special, size)
    unread    those of them that no `expect` has taken yet
    routes    what the other side has announced by now
    ended     None, or how the link ended: close_notify, eof (a FIN without it), reset, tls: REASON, unknown type N
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server: bool, answer_echo: bool = True) -> None:
        self.received: list[Packet] = []
        self.unread: list[Packet] = []
        self.routes: Routes = {}
        self.ended: str | None = None
        self.is_ready = False
        self.answer_echo = answer_echo
        self._unanswered: list[int] = []
        self._fences = 0
        self._sock = sock
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._unpacker = Unpacker()
        self._take_in()

    # Hearing

    def poll(self, timeout: float = 0.0) -> bool:
        """Takes in what has arrived, waits at most `timeout` seconds for it; whether anything had."""
        if self.ended:
            return False
        self._sock.settimeout(max(timeout, 0.0))
        try:
            data = self._sock.recv(READ)
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionError:
            self.ended = "reset"
            return True
        if data:
            self._incoming.write(data)
            self._take_in()
        else:       # a close_notify would have ended it when it came; older versions of `ssl` cannot tell the two
            self.ended = "eof"
        return True

    def _take_in(self) -> None:
        try:
            if not self.is_ready:
                self._tls.do_handshake()
                self.is_ready = True
            while plain := self._tls.read(READ):
                for packet in self._unpacker.feed(plain):
                    self._hear(packet)
            self.ended = "close_notify"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = "close_notify"
        except ssl.SSLError as error:
            self.ended = f"tls: {error.reason}"
        # The other side may be gone; how, the next read says.
        with contextlib.suppress(OSError):
            self._flush()

    def _hear(self, packet: Packet) -> None:
        self.received.append(packet)
        self.unread.append(packet)
        self.routes = apply(self.routes, packet)
        if packet[0] == "echo_request":
            self._unanswered.append(packet[1])
            if self.answer_echo:
                self._answer()
        elif packet[0] == "unknown":
            self.ended = f"unknown type {packet[1]}"

    def _answer(self) -> None:
        while self._unanswered:
            self._tls.write(pack(("echo_reply", self._unanswered.pop(0))))

    @property
    def headers(self) -> list[tuple[int, int, int]]:
        return self._unpacker.headers

    @property
    def tls_version(self) -> str | None:
        return self._tls.version()

    def wait_ready(self, deadline: float = 5.0) -> None:
        """Until our side of the handshake is finished."""
        self.wait(lambda: self.is_ready, deadline, "the TLS handshake")

    def wait_end(self, deadline: float = 5.0) -> str:
        """Until the link ends; how it did."""
        self.wait(lambda: self.ended is not None, deadline, "the end of the link")
        assert self.ended
        return self.ended

    def wait(self, condition: Callable[[], object], deadline: float = 5.0, what: str = "a condition") -> None:
        """Until `condition` holds; it is asked again whenever something has arrived."""
        end = time.monotonic() + deadline
        while not condition():
            left = end - time.monotonic()
            if self.ended or left <= 0:
                state = self.ended or f"{deadline} s over"
                raise AssertionError(f"{what} did not come ({state}); the last packets: {self.received[-10:]}")
            self.poll(left)

    def expect(self, wanted: Callable[[Packet], object] | Packet | str, deadline: float = 5.0) -> Packet:
        """Takes the first packet that matches a predicate, equals a packet or has a name out of `unread`."""
        found: list[Packet] = []
        seen = 0

        def matches(packet: Packet) -> object:
            return wanted(packet) if callable(wanted) else wanted in (packet, packet[0])

        def is_found() -> bool:
            nonlocal seen
            for number in range(seen, len(self.unread)):
                if matches(self.unread[number]):
                    found.append(self.unread.pop(number))
                    return True
            seen = len(self.unread)
            return False

        self.wait(is_found, deadline, "a packet" if callable(wanted) else repr(wanted))
        return found[0]

    def fence(self, deadline: float = 5.0) -> None:
        """Until the other side has handled all that we sent on this link (it answers an echo request)."""
        self._fences = (self._fences + 1) % 256
        self.send_echo(self._fences)
        self.expect(("echo_reply", self._fences), deadline)

    # Saying

    def send_route_set(self, entries: Iterable[Entry]) -> None:
        self.send_raw(pack(("route_set", list(entries))))

    def send_route_diff(self, entries: Iterable[Entry]) -> None:
        self.send_raw(pack(("route_diff", list(entries))))

    def send_frame(self, frame: bytes) -> None:
        self.send_raw(pack(("frame", frame)))

    def send_broadcast(self, ident: int, frame: bytes) -> None:
        self.send_raw(pack(("broadcast", ident, frame)))

    def send_echo(self, special: int = 0) -> None:
        self.send_raw(pack(("echo_request", special)))

    def send_echo_reply(self, special: int) -> None:
        self.send_raw(pack(("echo_reply", special)))

    def send_route_request(self) -> None:
        self.send_raw(pack(("route_request",)))

    def answer_echoes(self) -> None:
        """Answers what is unanswered, and from now on every echo request at once."""
        self.answer_echo = True
        self._answer()
        self._flush()

    def send_raw(self, data: bytes, deadline: float = 5.0) -> None:
        """Any bytes into the TLS stream."""
        self._tls.write(data)
        self._flush(deadline)

    def send_plain(self, data: bytes, deadline: float = 5.0) -> None:
        """Any bytes past TLS into the TCP stream."""
        self._sock.settimeout(deadline)
        self._sock.sendall(data)

    def _flush(self, deadline: float = 5.0) -> None:
        if data := self._outgoing.read():
            self.send_plain(data, deadline)

    # Ending

    def close_notify(self) -> None:
        """Says goodbye and listens on."""
        if self.is_ready:
            with contextlib.suppress(ssl.SSLError):  # it wants to read the answer; `poll` does
                self._tls.unwrap()
            self._flush()

    def half_close(self) -> None:
        """FIN without close_notify; listens on."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST; what was not sent yet is lost."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self.ended = self.ended or "reset by us"

    def close(self) -> None:
        """close_notify, then FIN; harmless if the link has ended already."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError, ssl.SSLError):
                self.close_notify()
            self._sock.close()
        self.ended = self.ended or "closed by us"

    def __enter__(self) -> V1Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

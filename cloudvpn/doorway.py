# SPDX-License-Identifier: GPL-3.0-or-later
"""Who was let into the doorway, whose turn is it, and who has to go? Accepted connections until they are links.

A stranger costs a descriptor and a timer until he has said a whole ClientHello. Only then a TLS handshake is begun, one
in a turn of the loop, sources in turns, and only as fast as its budget allows: so the links that are up go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from cloudvpn._fast.link import Link
from cloudvpn.budget import Budget
from cloudvpn.memory import give_back
from cloudvpn.options import SECOND, Config
from cloudvpn.sockets import usable
from cloudvpn.tls import CLOSED_EARLY, NOT_TLS, TIMED_OUT, handshake_reason

Address = tuple[Any, ...]

ACCEPTS: Final = 8              # at once, then frames have their turn
ACCEPT_SHARE: Final = 0.15      # of a processor, for all that comes before TLS
HANDSHAKE_SHARE: Final = 0.15   # of a processor, for TLS handshakes and what is thought of the certificates
SAVED_SECONDS: Final = 0.05     # of each share: what comes at once after a silence
GRACE_SECONDS: Final = 0.05     # from the connection to the ClientHello, which the peer sends without waiting for us
RETRY_SECONDS: Final = 1.0      # after an accept for which the system had no descriptor or memory
PEAK: Final = 16                # TLS handshakes at once, whose memory is worth giving back
GIVE_BACK_SECONDS: Final = 1.0
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

RECORD_HEADER: Final = 5        # bytes: type, version, length
RECORD_MAX: Final = 16384       # bytes of plaintext


class Stage(IntEnum):
    """How far a visitor has come."""

    SILENT = 0      # has said nothing
    HALF = 1        # less than a ClientHello
    WAITING = 2     # a whole one; TLS is not begun
    SHAKING = 3     # TLS is under way
    PROVING = 4     # has shown a good certificate, but no valid packet yet


@dataclass(eq=False)
class Visitor:
    """A connection that is no link yet."""

    connection: socket.socket
    remote: Address
    source: str
    opened: float                   # the loop's time, seconds
    deadline: asyncio.TimerHandle = field(init=False)
    stage: Stage = Stage.SILENT
    wanted: int = 1                 # bytes that must be there before we look again
    task: asyncio.Task[None] | None = None
    link: Link | None = None        # from PROVING on

    @property
    def is_quiet(self) -> bool:
        return self.stage <= Stage.HALF


def rank(visitor: Visitor) -> int:
    """Who has come less far goes first. A part of a ClientHello counts no more than none."""
    return max(visitor.stage, Stage.HALF)


class Owner(Protocol):
    """Whose links the visitors want to become."""

    config: Config
    loop: asyncio.AbstractEventLoop
    counters: Counter[str]

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
    def places(self) -> int: """How many visitors there may be beside the links."""
    def is_full(self) -> bool: """Whether there is no place for one connection more, silent ones aside."""
    def refuse_full(self, remote: Address) -> None: """Says so."""
    def refuse(self, remote: Address, reason: str) -> None: """Says why a connection was closed."""
    def cannot_accept(self, local: Address, reason: str) -> None: """Says that others have to wait."""

    async def let_in(self, connection: socket.socket, remote: Address, opened: float) -> Link:
        """Runs the TLS handshake. Raises OSError or TimeoutError."""


def source_of(remote: Address) -> str:
    """An IPv4 address; of IPv6 the /64, in which a single host may take every address."""
    host = str(remote[0])
    if ":" not in host:
        return host
    network = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    return socket.inet_ntop(socket.AF_INET6, network + bytes(8)) + "/64"


def hello_bytes(said: bytes) -> int:
    """How long the record is in which a ClientHello begins, as far as `said` tells; 0: there is none."""
    if not b"\x16\x03".startswith(said[:2]) or not b"\x01".startswith(said[5:6]):
        return 0
    if len(said) < RECORD_HEADER:
        return RECORD_HEADER
    length = int.from_bytes(said[3:5], "big")
    return RECORD_HEADER + length if 0 < length <= RECORD_MAX else 0


class Doorway:
    """Accepts, and keeps to max_handshakes and max_handshakes_per_source."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.loop = owner.loop
        self.resting: dict[socket.socket, asyncio.TimerHandle | None] = {}     # of each listener: until when
        self.visitors: dict[Visitor, None] = {}                                # in the order in which they came
        self.sources: dict[str, dict[Visitor, None]] = {}                      # the same of each source
        self.counts = [0] * len(Stage)                                         # of visitors at each stage
        self.waiting: OrderedDict[str, list[Visitor]] = OrderedDict()          # whose turn it is
        self.peak = 0                                                          # of TLS handshakes at once
        self.next_turn: asyncio.Handle | None = None
        self.accepting = Budget(ACCEPT_SHARE, SAVED_SECONDS)
        self.shaking = shaking = Budget(HANDSHAKE_SHARE, SAVED_SECONDS)

        class Metered(ssl.SSLObject):
            def do_handshake(self) -> None:
                with shaking:
                    super().do_handshake()

        self.metered = Metered

    @property
    def in_tls(self) -> int:
        """How many visitors have begun."""
        return self.counts[Stage.SHAKING] + self.counts[Stage.PROVING]

    @property
    def quiet(self) -> int:
        """How many visitors have not said a whole ClientHello."""
        return self.counts[Stage.SILENT] + self.counts[Stage.HALF]

    # Listeners.

    def open(self, listener: socket.socket) -> None:
        if listener not in self.resting:
            self.resume(listener)

    def shut(self, listener: socket.socket) -> None:
        if listener in self.resting:
            timer = self.resting.pop(listener)
            if timer is None:
                self.loop.remove_reader(listener)
            else:
                timer.cancel()

    def resume(self, listener: socket.socket) -> None:
        self.resting[listener] = None
        self.loop.add_reader(listener, self.accept_from, listener)

    def rest(self, listener: socket.socket, seconds: float) -> None:
        self.resting[listener] = self.loop.call_later(seconds, self.resume, listener)   # or it would rest for ever
        self.loop.remove_reader(listener)

    def accept_from(self, listener: socket.socket) -> None:
        with self.accepting:
            pause = self.accept_some(listener)
        pause = pause or self.accepting.pause()
        if pause:
            self.rest(listener, pause)

    def accept_some(self, listener: socket.socket) -> float:
        """Returns for how many seconds nothing more can be accepted."""
        for _ in range(ACCEPTS):
            try:
                connection, remote = listener.accept()
            except OSError as error:
                if error.errno not in NO_ROOM:      # nobody is there any more
                    return 0.0
                if self.quiet:
                    self.crowd_out(self.quietest(), f"no room to accept others: {error.strerror}")
                    continue
                self.owner.cannot_accept(listener.getsockname(), str(error.strerror))
                return RETRY_SECONDS
            except MemoryError:
                self.owner.cannot_accept(listener.getsockname(), os.strerror(errno.ENOMEM))
                return RETRY_SECONDS
            try:
                connection = usable(self.loop, connection)
            except OSError as error:
                self.owner.cannot_accept(listener.getsockname(), str(error.strerror))
                return RETRY_SECONDS
            self.welcome(connection, remote)
        return 0.0

    # Places.

    def welcome(self, connection: socket.socket, remote: Address) -> None:
        if self.owner.is_full():
            self.owner.refuse_full(remote)
            connection.close()
            return
        config, source = self.owner.config, source_of(remote)
        while len(own := self.sources.get(source, {})) >= config.max_handshakes_per_source:
            over = f"over max_handshakes_per_source {config.max_handshakes_per_source}"
            self.crowd_out(min(own, key=rank), over)
        while len(self.visitors) >= config.max_handshakes:
            self.crowd_out(self.surplus(), f"over max_handshakes {config.max_handshakes}")
        self.give_way()
        visitor = Visitor(connection, remote, source, self.loop.time())
        visitor.deadline = self.loop.call_later(config.handshake_timeout / SECOND, self.expire, visitor)
        self.visitors[visitor] = self.sources.setdefault(source, {})[visitor] = None
        self.counts[Stage.SILENT] += 1
        self.loop.add_reader(connection, self.hear, visitor)
        self.listen_to(visitor)     # a ClientHello follows the connection at once

    def give_way(self) -> None:
        """Silent visitors leave the place that one connection more needs, if the owner is not full."""
        while self.visitors and len(self.visitors) >= self.owner.places():
            self.crowd_out(self.quietest(), f"over max_connections {self.owner.config.max_connections}")

    def quietest(self) -> Visitor:
        """The oldest silent one; if there is none, the oldest of those who have come less far than the others."""
        return min(self.visitors, key=rank)

    def surplus(self) -> Visitor:
        """Who is one too many. A ClientHello may be a moment late, and then a source with few loses none."""
        visitor = self.quietest()
        if visitor.is_quiet and self.loop.time() - visitor.opened > GRACE_SECONDS:
            return visitor
        most = max(self.sources, key=lambda source: len(self.sources[source]))
        return min(self.sources[most], key=rank)

    def slowest(self) -> Visitor:
        """The visitor who has been in TLS longest, of the source with the most of these."""
        shaking = [visitor for visitor in self.visitors if visitor.stage == Stage.SHAKING]
        counts = Counter(visitor.source for visitor in shaking)
        return max(shaking, key=lambda visitor: counts[visitor.source])

    def crowd_out(self, visitor: Visitor, reason: str) -> None:
        self.dismiss(visitor, "handshakes_crowded_out", f"{reason}, {SAID[visitor.stage]}")

    def expire(self, visitor: Visitor) -> None:
        self.dismiss(visitor, "handshakes_expired", TIMED_OUT)

    def dismiss(self, visitor: Visitor, counter: str, reason: str) -> None:
        self.owner.counters[counter] += 1
        self.forget(visitor)
        if visitor.link is not None:
            visitor.link.abort(reason)
            return
        self.owner.refuse(visitor.remote, reason)
        if visitor.task is not None:
            visitor.task.cancel()
            visitor.task = None     # whose traceback leads here: a circle that would wait for the collector
        else:
            self.loop.remove_reader(visitor.connection)
            visitor.connection.close()

    def forget(self, visitor: Visitor) -> None:
        """It is a link, or no more."""
        if visitor not in self.visitors:
            return
        visitor.deadline.cancel()
        del self.visitors[visitor]
        self.counts[visitor.stage] -= 1
        own = self.sources[visitor.source]
        del own[visitor]
        if not own:
            del self.sources[visitor.source]
        if visitor.stage == Stage.WAITING:
            self.leave_queue(visitor)
        if not self.visitors and self.peak >= PEAK:
            self.peak = 0
            # What was just cut is freed when the loop has turned a few times.
            self.loop.call_later(GIVE_BACK_SECONDS, give_back)

    def move(self, visitor: Visitor, stage: Stage) -> None:
        self.counts[visitor.stage] -= 1
        self.counts[stage] += 1
        visitor.stage = stage

    # The ClientHello.

    def hear(self, visitor: Visitor) -> None:
        with self.accepting:
            self.listen_to(visitor)

    def listen_to(self, visitor: Visitor) -> None:
        """Looks at what the visitor has said and leaves it for TLS."""
        connection = visitor.connection
        try:
            said = connection.recv(RECORD_HEADER + RECORD_MAX, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.dismiss(visitor, "handshakes_failed", handshake_reason(error))
            return
        wanted = hello_bytes(said)
        if not wanted:
            self.dismiss(visitor, "handshakes_failed", NOT_TLS)
        elif len(said) >= wanted:
            self.queue(visitor)
        elif len(said) < visitor.wanted:    # and yet we were woken: nothing more will come
            self.dismiss(visitor, "handshakes_failed", CLOSED_EARLY)
        else:
            self.move(visitor, Stage.HALF)
            visitor.wanted = wanted
            # Who dribbles wakes us once for the header and once for the rest.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    # TLS.

    def queue(self, visitor: Visitor) -> None:
        self.loop.remove_reader(visitor.connection)
        if visitor.wanted > 1:
            visitor.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self.move(visitor, Stage.WAITING)
        self.waiting.setdefault(visitor.source, []).append(visitor)
        if self.next_turn is None:
            self.next_turn = self.loop.call_soon(self.take_turns)

    def leave_queue(self, visitor: Visitor) -> None:
        own = self.waiting[visitor.source]
        own.remove(visitor)
        if not own:
            del self.waiting[visitor.source]

    def take_turns(self) -> None:
        """Begins a handshake if the budget has something left for it: the next source's oldest."""
        self.next_turn = None
        if not self.waiting:
            return
        pause = self.shaking.pause()
        if not pause:
            # TLS is what costs memory, and who has its turn must find others waiting to choose from.
            if self.counts[Stage.SHAKING] >= max(1, self.owner.config.max_handshakes // 2):
                self.crowd_out(self.slowest(), f"over half of max_handshakes {self.owner.config.max_handshakes} in TLS")
            source, own = next(iter(self.waiting.items()))
            self.waiting.move_to_end(source)
            visitor = own[0]
            self.leave_queue(visitor)
            self.move(visitor, Stage.SHAKING)
            self.peak = max(self.peak, self.counts[Stage.SHAKING])
            visitor.task = self.owner.spawn(self.shake(visitor))
        self.next_turn = self.loop.call_later(pause, self.take_turns)

    async def shake(self, visitor: Visitor) -> None:
        try:
            link = await self.owner.let_in(visitor.connection, visitor.remote, visitor.opened)
        except (OSError, asyncio.TimeoutError) as error:
            self.owner.counters["handshakes_failed"] += 1
            self.owner.refuse(visitor.remote, handshake_reason(error))
            self.forget(visitor)
            return
        # From now on the link's own deadline counts.
        visitor.deadline.cancel()
        visitor.link = link
        self.move(visitor, Stage.PROVING)
        link.info.settled.add_done_callback(lambda _: self.forget(visitor))

    # The end.

    def close(self) -> None:
        """All that is not in TLS goes; the owner ends its tasks and links."""
        for visitor in list(self.visitors):
            self.forget(visitor)
            if visitor.task is None:
                self.loop.remove_reader(visitor.connection)
                visitor.connection.close()
        if self.next_turn is not None:
            self.next_turn.cancel()


SAID: Final = {
    Stage.SILENT: "and it had said nothing",
    Stage.HALF: "and it had said less than a ClientHello",
    Stage.WAITING: "and its turn had not come",
    Stage.SHAKING: "and its TLS handshake was not done",
    Stage.PROVING: "and it had sent no packet",
}

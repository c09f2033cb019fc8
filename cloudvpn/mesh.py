# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy of links: where to listen, when a link counts, how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from cloudvpn import memory
from cloudvpn._fast.link import NO_MEMORY, Link
from cloudvpn._fast.port import Port
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn.doorway import Address, Doorway, source_of
from cloudvpn.errors import PeerError, SetupError
from cloudvpn.log import escape
from cloudvpn.names import Found, Names, find_numeric
from cloudvpn.options import SECOND, Config, Endpoint
from cloudvpn.repeats import Repeats
from cloudvpn.resolver import Resolver
from cloudvpn.sockets import limit_unsent, tune
from cloudvpn.tls import Credentials, Peer, PeerIdentity, break_reason, handshake_reason, version_of
from cloudvpn.traffic import Traffic, traffic_of

log = logging.getLogger("cloudvpn")

LEAVING_SECONDS = 2.0   # over comm_close_timeout, for a link to close
UNPROVEN = "closed by the peer before its first packet: probably refused, see its log"


@dataclass(eq=False)
class Listener:
    """One bound socket of a `listen`."""

    endpoint: Endpoint
    socket: socket.socket


@dataclass(eq=False)
class Lasting:
    """Work that goes on as long as the node does: if it ends with an error, a heartbeat begins it anew."""

    work: Callable[[], Coroutine[Any, Any, None]]
    task: asyncio.Task[None]


@dataclass(eq=False)
class LinkInfo:
    """What the mesh knows of a link beyond its packets."""

    remote: Address
    opened: float                           # the loop's time, seconds
    target: Endpoint | None = None          # what was dialled; None: accepted
    local: Address = ()
    peer: Peer | None = None
    identity: PeerIdentity | None = None
    protocol: str = ""                      # TLS version
    socket: Any = None                      # the transport's
    descriptor: int = -1
    is_ourselves: bool = False
    deadline: asyncio.TimerHandle | None = None
    broadcasts_refused: int = 0             # as the last heartbeat saw it
    left: float | None = None               # the loop's time at which a heartbeat first saw it closing
    # Resolved once: True when the peer's first valid packet came, False when the link ended before.
    settled: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def describe(self) -> str:
        name = f"{escape(self.identity.name)} at " if self.identity else ""
        return name + format_address(self.remote)


def format_address(address: Address) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def listening_failed(error: OSError) -> str:
    """What the kernel's answer means and what to do about it."""
    remedies = {
        errno.EADDRINUSE: "; stop what listens there (`ss -ltnp` shows it) or take another port",
        errno.EADDRNOTAVAIL: "; no interface has this address: correct it, or take 0.0.0.0 or ::",
        errno.EACCES: "; a port below 1024 needs root or CAP_NET_BIND_SERVICE",
    }
    return f"{error.strerror or error}{remedies.get(error.errno or 0, '')}"


def ending(error: Exception | None, was_up: bool) -> str:
    """Why a link ended that we did not close."""
    if was_up:
        return "closed by the peer" if error is None else break_reason(error)
    # A reset says no more than an end: the peer has judged us after its side of the handshake.
    return UNPROVEN if error is None or isinstance(error, ConnectionError) else handshake_reason(error)


class Mesh:
    """All links of this node, open and opening; also their owner in the sense of `_fast.link`."""

    def __init__(self, config: Config, switch: Switch, credentials: Credentials) -> None:
        self.config = config
        self.switch = switch
        self.credentials = credentials
        self.loop = asyncio.get_running_loop()
        self.names = Names()
        self.resolver: Resolver | None = None   # in a chroot: names are looked up outside of it
        self.links: set[Link] = set()           # past the TLS handshake and admitted
        self.opening: set[LinkInfo] = set()     # connections in the TLS handshake
        self.listeners: list[Listener] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.lasting: set[Lasting] = set()
        self.counters: Counter[str] = Counter()
        self.repeats = Repeats(self.loop)
        self.doorway = Doorway(self)
        self.ended_traffic = Traffic()          # of links that are no more
        self.by_ends: dict[tuple[Address, Address], Link] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.finish)
        return task

    def finish(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled():
            return
        if isinstance(task.exception(), MemoryError):
            self.lack_memory("a task")
        elif task.exception() is not None:
            log.error("internal error", exc_info=task.exception())

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Lasting:
        lasting = Lasting(work, self.spawn(work()))
        self.lasting.add(lasting)
        return lasting

    def drop(self, lasting: Lasting) -> None:
        self.lasting.discard(lasting)
        lasting.task.cancel()

    def revive(self) -> None:
        """Once a heartbeat."""
        for lasting in self.lasting:
            if lasting.task.done():
                lasting.task = self.spawn(lasting.work())

    def lack_memory(self, what: str) -> None:
        """Something was not done for lack of memory."""
        self.counters["out_of_memory"] += 1
        with contextlib.suppress(MemoryError):
            self.repeats.warn("no memory for", what, what, "it is left out, everything else goes on")

    # Listening.

    async def listen(self) -> None:
        """Binds every `listen`. Raises SetupError; then nothing stays bound."""
        try:
            for endpoint in dict.fromkeys(self.config.listen):
                await self.bind(endpoint)
        except BaseException:
            self.stop_listening(self.listeners)
            raise
        self.start_accepting()

    async def listen_anew(self) -> None:
        """Follows a changed `listen`: what cannot be bound is logged. Links accepted on a socket that goes stay."""
        wanted = dict.fromkeys(self.config.listen)
        bound = {listener.endpoint for listener in self.listeners}
        leaving = [listener for listener in self.listeners if listener.endpoint not in wanted]
        failed = await self.try_to_bind(endpoint for endpoint in wanted if endpoint not in bound)
        for listener in leaving:
            log.info("no longer listening on %s", format_address(listener.socket.getsockname()))
        self.stop_listening(leaving)
        if leaving:     # such as 0.0.0.0, which leaves no room for one address of it
            failed = await self.try_to_bind(failed)
        for error in failed.values():
            log.error("%s: the other listeners go on", error)
        self.start_accepting()
        for listener in self.listeners:
            listener.socket.listen(self.config.listen_backlog)
        self.tune_again()

    def tune_again(self) -> None:
        """Gives the socket options that were configured anew to what is open."""
        for connection in [one.socket for one in self.listeners] + [link.info.socket for link in self.links]:
            with contextlib.suppress(OSError, ValueError):      # it is closing
                tune(connection, self.config)

    async def try_to_bind(self, endpoints: Iterable[Endpoint]) -> dict[Endpoint, SetupError]:
        """Returns those that failed."""
        failed = {}
        for endpoint in endpoints:
            try:
                await self.bind(endpoint)
            except SetupError as error:
                self.stop_listening([listener for listener in self.listeners if listener.endpoint == endpoint])
                failed[endpoint] = error
        return failed

    def start_accepting(self) -> None:
        for listener in self.listeners:
            self.doorway.open(listener.socket)

    async def look_up(self, endpoint: Endpoint, flags: int = 0) -> list[Found]:
        """The addresses of a name, each once. Raises OSError."""
        if found := find_numeric(endpoint.host, endpoint.port, flags):
            return found
        return await (self.resolver or self.names).look_up(endpoint.host, endpoint.port, flags)

    async def bind(self, endpoint: Endpoint) -> None:
        place = f"{self.config.place('listen', endpoint)} {endpoint.host} {endpoint.port}"
        try:
            found = await self.look_up(endpoint, socket.AI_PASSIVE)
        except OSError as error:
            raise SetupError(f"{place}: {listening_failed(error)}") from error
        for family, address in dict.fromkeys(found):
            listener = socket.socket(family, socket.SOCK_STREAM)
            self.listeners.append(Listener(endpoint, listener))
            try:
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tune(listener, self.config)
                if family == socket.AF_INET6:   # `listen 0.0.0.0` and `listen ::` must be able to stand side by side
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                listener.listen(self.config.listen_backlog)
            except OSError as error:
                raise SetupError(f"{place}: {listening_failed(error)}") from error
            log.info("listening on %s", format_address(listener.getsockname()))

    def stop_listening(self, leaving: Iterable[Listener]) -> None:
        for listener in list(leaving):
            self.doorway.shut(listener.socket)
            listener.socket.close()
            self.listeners.remove(listener)

    def cannot_accept(self, local: Address, reason: str) -> None:
        reason = f"{reason}, tried again each second"
        self.repeats.warn("cannot accept links on", format_address(local), local[0], reason)

    # How many there may be.

    def places(self) -> int:
        """How many visitors there may be beside the links and what is dialled."""
        return self.config.max_connections - len(self.links) - len(self.opening) + self.doorway.in_tls

    def is_full(self) -> bool:
        """Asked in one step with `open_link`, without an await between, nothing gets over the limit."""
        return self.places() <= len(self.doorway.visitors) - self.doorway.quiet

    def fullness(self) -> str:
        return f"all max_connections {self.config.max_connections} are in use"

    def refuse_full(self, remote: Address) -> None:
        self.counters["refused_full"] += 1
        self.refuse(remote, self.fullness())

    def refuse(self, remote: Address, reason: str) -> None:
        # Counted by source: who takes another address each time has one line, too.
        self.repeats.warn("refused", format_address(remote), source_of(remote), escape(reason))

    # A connection becomes a link.

    async def let_in(self, connection: socket.socket, remote: Address, opened: float) -> Link:
        """The doorway's visitor wants to become a link. Raises as `open_link` does."""
        return await self.open_link(connection, LinkInfo(remote, opened))

    async def open_link(self, connection: socket.socket, info: LinkInfo) -> Link:
        """Runs the TLS handshake on a connected socket. Raises OSError (ssl.SSLError too) or TimeoutError."""
        try:
            return await self.shake_hands(connection, info)
        except MemoryError as error:
            connection.close()
            self.counters["out_of_memory"] += 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error

    async def shake_hands(self, connection: socket.socket, info: LinkInfo) -> Link:
        memory.require(memory.FOR_A_LINK)
        link = Link(self.switch, self, info, self.config.max_input_queue_size)
        limits: dict[str, Any] = {
            "ssl_handshake_timeout": self.config.handshake_timeout / SECOND,
            # 0 would mean the library's default.
            "ssl_shutdown_timeout": max(self.config.comm_close_timeout / SECOND, 0.001),
        }
        if info.target is not None:
            self.doorway.give_way()
        self.opening.add(info)
        try:
            limit_unsent(connection)
            if info.target is None:
                context = self.credentials.server_context
                context.sslobject_class = self.doorway.metered
                await self.loop.connect_accepted_socket(lambda: link, connection, ssl=context, **limits)
            else:
                await self.loop.create_connection(
                    lambda: link, sock=connection, ssl=self.credentials.client_context, server_hostname="", **limits
                )
        except BaseException:
            connection.close()
            raise
        finally:
            self.opening.discard(info)
        return link

    def link_made(self, link: Link, transport: Any) -> None:
        """The TLS handshake is done: the peer is judged, then greeted; it still has to prove that it took us too."""
        info: LinkInfo = link.info
        # Nothing may gather in the transport either: it pauses as soon as the socket does.
        transport.set_write_buffer_limits(high=1, low=0)
        info.socket = transport.get_extra_info("socket")
        tune(info.socket, self.config)      # uvloop sets TCP_NODELAY on its own
        info.descriptor = info.socket.fileno()
        info.local = transport.get_extra_info("sockname") or ()
        connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
        info.protocol = connection.version() or ""
        self.opening.discard(info)
        self.links.add(link)
        left = info.opened + self.config.handshake_timeout / SECOND - self.loop.time()
        info.deadline = self.loop.call_later(max(left, 0), self.expire, link)
        try:
            with contextlib.nullcontext() if info.target else self.doorway.shaking:
                memory.require(memory.FOR_A_LINK)
                info.peer = self.credentials.judge(connection)
            info.identity = info.peer.identity
            self.notice_ourselves(link)
            link.start_packets(SendQueue(
                self.config.max_waiting_proto_packets,
                self.config.max_waiting_data_packets,
                self.config.max_waiting_data_bytes,
            ), version_of(connection))
        except PeerError as error:
            self.counters["refused"] += 1
            self.repeats.warn("refused", info.describe(), info.remote[0], escape(str(error)))
            link.abort(str(error))
        except MemoryError:
            self.counters["out_of_memory"] += 1
            link.abort(NO_MEMORY)

    def notice_ourselves(self, link: Link) -> None:
        """A dialled link whose two ends are an accepted link's two ends, swapped, is this node dialling itself."""
        info: LinkInfo = link.info
        self.by_ends[info.local, info.remote] = link
        mirror = self.by_ends.get((info.remote, info.local))
        if mirror is None or mirror is link:
            return
        for end in (link, mirror):
            end.info.is_ourselves = True
        mirror.abort("it is this node itself")
        raise PeerError("it is this node itself")

    def link_up(self, link: Link) -> None:
        info: LinkInfo = link.info
        self.counters["links_up"] += 1
        if info.deadline is not None:
            info.deadline.cancel()
        if not info.settled.done():
            info.settled.set_result(True)
        how = "accepted" if info.target is None else "dialled"
        log.info("link up: %s, %s, %s, version %d", info.describe(), how, info.protocol, link.version)

    def link_waits(self, link: Link) -> None:
        """What it has read and not used may be used now, but not within the heartbeat that says so."""
        self.loop.call_soon(link.read_on)

    def link_lost(self, link: Link, error: Exception | None) -> None:
        info: LinkInfo = link.info
        if info.deadline is not None:
            info.deadline.cancel()
        if link not in self.links:
            return
        self.links.discard(link)
        self.ended_traffic += traffic_of(link)
        if self.by_ends.get((info.local, info.remote)) is link:
            del self.by_ends[info.local, info.remote]
        info.is_ourselves = info.is_ourselves or link.is_ourselves
        was_up = info.settled.done() and info.settled.result()
        reason = link.reason or ending(error, was_up)
        if was_up:
            self.counters["links_lost"] += 1
            log.info("link down: %s: %s", info.describe(), escape(reason))
        elif link.reason is None or not (info.is_ourselves or info.identity is None):
            self.repeats.warn("no link to", info.describe(), info.remote[0], escape(reason))
        if not info.settled.done():
            info.settled.set_result(False)
        if not info.ended.done():
            info.ended.set_result(reason)

    def expire(self, link: Link) -> None:
        self.counters["handshakes_expired"] += 1
        link.abort(f"no valid packet within handshake_timeout {self.config.handshake_timeout / SECOND:g} s")

    def refuse_later(self, link: Link, reason: str) -> None:
        """The peer of a link may not be here any more."""
        self.counters["refused_later"] += 1
        log.warning("refused %s, its link is cut: %s", link.info.describe(), escape(reason))
        link.abort(reason)

    def peers(self) -> list[Peer]:
        """Of all links that are up."""
        return [link.info.peer for link in self.links if link.up and link.info.peer is not None]

    def close_silent(self, ports: list[Port]) -> None:
        """And those that failed, which have a reason already."""
        for link in ports:
            assert isinstance(link, Link)
            if link.failed:
                self.counters["out_of_memory"] += 1
            link.abort(f"no echo reply for conn_timeout {self.config.conn_timeout / SECOND:g} s")

    def forget_left(self) -> None:
        """Once a heartbeat: a transport that found no memory to say that it is closed never will."""
        now = self.loop.time()
        for link in [link for link in self.links if link.is_closing()]:
            info: LinkInfo = link.info
            if info.left is None:
                info.left = now
            elif now - info.left > self.config.comm_close_timeout / SECOND + LEAVING_SECONDS:
                self.counters["out_of_memory"] += 1
                link.connection_lost(MemoryError(os.strerror(errno.ENOMEM)))

    # The end.

    async def close(self) -> None:
        """Says goodbye on every link; what is not closed after comm_close_timeout is cut."""
        self.stop_listening(self.listeners)
        self.doorway.close()
        self.lasting.clear()
        for task in list(self.tasks):
            task.cancel()
        closing = list(self.links)
        for link in closing:
            link.close("this node is shutting down")
        endings = [link.info.ended for link in closing]
        if endings:
            _, waiting = await asyncio.wait(endings, timeout=max(self.config.comm_close_timeout / SECOND, 0.001))
            for link in closing:
                if link.info.ended in waiting:
                    link.abort("not closed by the peer within comm_close_timeout")
            if waiting:
                await asyncio.wait(waiting, timeout=1.0)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=1.0)



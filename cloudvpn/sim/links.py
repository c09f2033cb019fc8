# SPDX-License-Identifier: GPL-3.0-or-later
"""Links as TCP makes them: bytes come in order and late, or the link ends."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from cloudvpn._fast.port import Port
from cloudvpn.options import MS, SECOND

if TYPE_CHECKING:
    from cloudvpn.sim.mesh import Mesh
    from cloudvpn.sim.node import Node
    from cloudvpn.sim.scenario import LinkSettings

HANDSHAKE_ROUNDS: Final = 2  # TCP and TLS 1.3
RETRANSMIT: Final = 200 * MS  # the least time after which TCP sends again
ANNOUNCEMENTS: Final = {1: "route sets", 2: "route diffs", 7: "route requests", 10: "node routes", 11: "seq requests",
                        12: "claims"}  # fmt: skip
FRAME, BROADCAST, BULK_FRAME = 3, 4, 8
FRAME_AT: Final = {FRAME: 4, BULK_FRAME: 24}  # where the Ethernet frame begins
Told = dict[int, tuple[int, int]]  # by type: packets, bytes
ENTRY_BYTES: Final = {1: 12, 2: 12, 3: 1, 9: 1, 10: 24, 11: 16, 12: 24}


def packets(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each packet of a write, which holds whole ones."""
    at = 0
    while at < len(data):
        kind, special, size = struct.unpack_from(">BBH", data, at)
        if kind == BULK_FRAME:
            body = special << 16 | size
        elif kind == BROADCAST:
            body = 4 + size
        else:
            body = size * ENTRY_BYTES.get(kind, 0)
        yield kind, at, at + 4 + body
        at += 4 + body


class End(Port):
    """One end of a link that is open."""

    def __init__(self, link: Link, node: Node, other: Node) -> None:
        self.link, self.node, self.other = link, node, other
        self.peer: End
        self.is_open = self.is_reading = True
        self.unread = b""  # has come, is not a whole packet yet
        self.free_at = self.last_arrival = 0
        self.held: list[bytes | None] = []  # what a silent link keeps back

    def flush(self) -> None:
        while not self.paused and (data := self.take()) is not None:
            self.link.carry(self, data)

    def set_reading(self, wanted: bool) -> None:
        """Whether the node takes what comes; what comes meanwhile waits."""
        if wanted and not self.is_reading:
            self.link.mesh.clock.after(0, partial(self.link.read_on, self))
        self.is_reading = wanted


class Link:
    """Two nodes; `ends` while there is a connection. `told` counts announcements by direction."""

    def __init__(self, mesh: Mesh, a: Node, b: Node, settings: LinkSettings) -> None:
        self.mesh, self.nodes = mesh, (a, b)
        self.rtt, self.jitter = mesh.chance.randint(*settings.rtt), mesh.chance.randint(*settings.jitter)
        self.loss, self.rate, self.retry = settings.loss, settings.rate, settings.retry
        self.is_cut = self.is_silent = False
        self.ends: tuple[End, ...] = ()
        self.told: tuple[Told, Told] = {}, {}
        self._is_dialling = False
        for node in self.nodes:
            node.links.append(self)

    @property
    def name(self) -> str:
        return f"{self.nodes[0].name}-{self.nodes[1].name}"

    @property
    def works(self) -> bool:
        """Whether what one end sends reaches the other."""
        return (
            bool(self.ends) and self.ends[0].is_open and self.ends[1].is_open and not self.is_silent and not self.is_cut
        )

    @property
    def may_work(self) -> bool:
        return not self.is_cut and not self.is_silent and all(node.is_alive for node in self.nodes)

    # Comes and goes.

    def dial(self) -> None:
        if self.may_work and not self.works and not self._is_dialling:
            self._is_dialling = True
            self.mesh.clock.after(HANDSHAKE_ROUNDS * self.rtt, self._open)

    def _open(self) -> None:
        self._is_dialling = False
        if self.works or not self.may_work:
            return  # what makes it possible dials again
        for end in self.ends:
            end.node.lose(end)  # that of a life before
        a, b = self.nodes
        version = min(a.settings.version, b.settings.version)
        self.ends = ends = End(self, a, b), End(self, b, a)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        for end in ends:
            end.node.win(end, version)
        self.mesh.link_changed(self)
        self.mesh.ways.settled = self.mesh.clock.now

    def cut(self) -> None:
        """Both nodes see it at once, as a reset."""
        self.is_cut = True
        self.mesh.link_changed(self)
        for end in self.ends:
            end.node.lose(end)

    def set_silent(self, silent: bool) -> None:
        """Takes everything and carries nothing, until it carries again what it took."""
        self.is_silent = silent
        if not silent:
            for end in self.ends:
                held, end.held = end.held, []
                for data in held:
                    self._deliver_later(end, data, self.rtt // 2)
        self.mesh.link_changed(self)

    def closed(self, end: End) -> None:
        """One end is closed; the other hears of it behind all that was sent, if anything is heard."""
        if end.peer.is_open and not self.is_cut:
            self._deliver_later(end, None, self.rtt // 2)
        elif not end.peer.is_open:
            self.mesh.clock.after(self.retry, self.dial)

    # Carries.

    def carry(self, end: End, data: bytes) -> None:
        mesh, clock = self.mesh, self.mesh.clock
        data = mesh.meter(end, data)
        if not data:
            return
        delay = self.rtt // 2
        if self.rate:
            end.free_at = max(clock.now, end.free_at) + len(data) * 8 * SECOND // self.rate
            delay += end.free_at - clock.now
            if end.free_at - clock.now > MS:
                end.node.switch.pause(end, True)
                clock.at(end.free_at, partial(self._resume, end))
        if self.jitter:
            delay += mesh.chance.randint(0, self.jitter)
        while self.loss and mesh.chance.random() < self.loss:
            delay += max(RETRANSMIT, self.rtt)
        self._deliver_later(end, data, delay)

    def _resume(self, end: End) -> None:
        if end.is_open and end.node.is_alive:
            end.node.switch.pause(end, False)
            end.node.flush()

    def read_on(self, end: End) -> None:
        if end.is_open:
            end.node.receive(end, b"")

    def _deliver_later(self, end: End, data: bytes | None, delay: int) -> None:
        clock = self.mesh.clock
        # A link that became faster does not overtake itself.
        end.last_arrival = max(clock.now + delay, end.last_arrival)
        clock.at(end.last_arrival, partial(self._arrive, end, data))

    def _arrive(self, end: End, data: bytes | None) -> None:
        """At the other end; no data: it was closed at this one."""
        peer = end.peer
        if self.is_silent:
            end.held.append(data)
        elif not peer.is_open or self.is_cut:
            pass
        elif data is None:
            peer.node.lose(peer)
        else:
            peer.node.receive(peer, data)

    # What was told.

    def count(self, end: End, kind: int, size: int) -> None:
        """An announcement is sent."""
        told = self.told[end.node is self.nodes[1]]
        messages, total = told.get(kind, (0, 0))
        told[kind] = messages + 1, total + size

    def take_told(self) -> tuple[Counter[str], Counter[str]]:
        """Messages and bytes of announcements of each direction since the last time, with their sums."""
        taken = []
        for told in self.told:
            counts: Counter[str] = Counter()
            for kind, (messages, size) in told.items():
                counts.update({"messages": messages, "bytes": size, ANNOUNCEMENTS[kind]: messages})
            told.clear()
            taken.append(counts)
        return taken[0], taken[1]

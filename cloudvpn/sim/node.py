# SPDX-License-Identifier: GPL-3.0-or-later
"""One node: a switch, its interface, and the ends of its links."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloudvpn._fast.port import Tap
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn.errors import PeerError
from cloudvpn.sim import tables

if TYPE_CHECKING:
    from cloudvpn.sim.links import End, Link
    from cloudvpn.sim.mesh import Mesh
    from cloudvpn.sim.scenario import NodeSettings

SPARE_PORTS = 8  # an old end of a link may still be there when the new one comes


class NodeTap(Tap):
    """The interface: what comes out of it is looked at."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def take_frame(self, frame: bytes) -> bool:
        self.node.mesh.frames.came(self.node, frame)
        return True


class Node:
    """Dead until `start`, which gives it a new life with empty tables. `mac` is 0 without an interface."""

    switch: Switch

    def __init__(self, mesh: Mesh, number: int, name: str, settings: NodeSettings) -> None:
        self.mesh, self.number, self.name, self.settings = mesh, number, name, settings
        self.mac = 0x02C0DE000000 + number if settings.interface else 0
        self.links: list[Link] = []
        self.ends: dict[int, End] = {}  # by port
        self.is_alive = self.is_lying = False
        self.lives = 0

    def start(self) -> None:
        mesh = self.mesh
        self.is_alive = True
        self.lives += 1
        self.ends = {}
        self.switch = tables.make_switch(
            self.settings, len(self.links) + SPARE_PORTS, mesh.chance, mesh.clock.now
        )
        self.way = tables.way_of(self.switch)
        self.switch.set_alarm(self._wake_at)
        if self.mac:
            self.switch.set_tap(NodeTap(self), self.mac)
        mesh.clock.after(mesh.chance.randrange(1, self.settings.heartbeat), partial(self._beat, self.lives))
        for link in self.links:
            mesh.link_changed(link)
            link.dial()

    def stop(self, silently: bool = False) -> None:
        """Ends its life; the neighbours see the ends of the links, if it was not `silently`."""
        if not self.is_alive:
            return
        self.mesh.retire(self.switch)
        self.is_alive = self.is_lying = False
        for end in self.ends.values():
            end.is_open = False
        for end in [] if silently else list(self.ends.values()):
            end.link.closed(end)
        for link in self.links:
            self.mesh.link_changed(link)
        self.mesh.ways.refresh(self)

    def win(self, end: End, version: int) -> None:
        self.switch.attach(end, SendQueue(), self.mesh.clock.now, version)
        self.ends[end.index] = end

    def lose(self, end: End) -> None:
        """The connection of this end is gone."""
        if not end.is_open:
            return
        end.is_open = False
        self.mesh.link_changed(end.link)
        self.mesh.ways.settled = self.mesh.clock.now
        del self.ends[end.index]
        self.switch.detach(end, self.mesh.clock.now)
        self.mesh.ways.refresh(self)
        end.link.closed(end)

    def receive(self, end: End, data: bytes) -> None:
        end.unread = unread = end.unread + data
        if not end.is_reading:
            return
        try:
            used = self.switch.receive(end, unread, self.mesh.clock.now)
            end.unread = unread[used:]
        except PeerError:
            self.mesh.peer_errors += 1
            self.lose(end)
        self.mesh.ways.check(self)

    def flush(self) -> None:
        self.switch.flush(self.mesh.clock.now)
        self.mesh.ways.check(self)

    def send(self, frame: bytes) -> None:
        """A frame that the host, or one behind it, gives to the interface."""
        self.switch.send_from_tap(frame, now=self.mesh.clock.now)
        self.mesh.ways.check(self)

    def _wake_at(self, time: int) -> None:
        self.mesh.clock.at(time, partial(self._wake, self.lives))

    def _wake(self, life: int) -> None:
        if self.is_alive and life == self.lives:
            self.flush()

    def _beat(self, life: int) -> None:
        if not self.is_alive or life != self.lives:
            return
        for silent in tables.beat(self.switch, self.mesh.clock.now):
            self.lose(silent)  # type: ignore[arg-type]
        self.mesh.ways.check(self)
        self.mesh.clock.after(self.settings.heartbeat, partial(self._beat, life))

# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole mesh in one process: the shipped switch on every node, links with delays, a clock that only events move.

    mesh = Mesh(seed=1)
    a, b, c = (mesh.node() for _ in range(3))
    mesh.link(a, b, delay=1000), mesh.link(b, c)
    mesh.run(SECOND)
    a.send(c)
    mesh.run(SECOND)

Times are microseconds. A node with `headless` has no interface. `mesh.trace` keeps each frame that a link carried.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port, Tap
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import read_packets

MS = 1000
SECOND = 1_000_000
HEARTBEAT = 50 * MS
EVERYBODY = 0xFFFFFFFFFFFF


def frame(to: int, source: int, payload: bytes) -> bytes:
    return to.to_bytes(6, "big") + source.to_bytes(6, "big") + b"\x88\xb5" + payload


class Carried(NamedTuple):
    """A frame packet on a link."""

    time: int
    link: Link
    source: Node
    target: Node
    kind: int
    frame: bytes


class RecordingTap(Tap):
    """An interface that keeps what it gets; `is_open` false refuses."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.taken = 0
        self.is_open = self.is_wanted = True

    def take_frame(self, frame: bytes) -> bool:
        if self.is_open:
            self.frames.append(frame)
            self.taken += 1
        return self.is_open

    def set_wanted(self, wanted: bool) -> None:
        self.is_wanted = wanted


class End(Port):
    """One end of an open link."""

    def __init__(self, link: Link, node: Node, other: Node) -> None:
        self.link, self.node, self.other = link, node, other
        self.peer: End
        self.unread = b""  # has come, is not a whole packet yet
        self.untraced = b""
        self.last_arrival = 0
        self.in_flight = 0

    def flush(self) -> None:
        while not self.paused and (data := self.take()) is not None:
            self.link.carry(self, data)

    def set_reading(self, wanted: bool) -> None:
        if wanted:
            self.link.mesh.after(0, self.read)

    def read(self) -> None:
        if self.index:
            used = self.node.switch.receive(self, self.unread, self.link.mesh.now)
            self.unread = self.unread[used:]


class Link:
    """Two ends, a delay each way; bytes arrive in order and cut as the mesh says."""

    def __init__(self, mesh: Mesh, a: Node, b: Node, delay: int) -> None:
        self.mesh, self.nodes, self.delay = mesh, (a, b), delay
        self.ends: tuple[End, ...] = ()
        self.is_silent = False  # takes everything, carries nothing

    def open(self) -> None:
        a, b = self.nodes
        assert not self.ends and a.is_alive and b.is_alive
        self.ends = ends = End(self, a, b), End(self, b, a)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        version = min(a.version, b.version)
        for end in ends:
            end.node.switch.attach(end, end.node.queue(), self.mesh.now, version)

    def close(self) -> None:
        """Both sides see it at once; what is on its way is lost."""
        ends, self.ends = self.ends, ()
        for end in ends:
            end.node.switch.detach(end, self.mesh.now)

    def end_at(self, node: Node) -> End:
        return self.ends[self.nodes.index(node)]

    def carry(self, end: End, data: bytes) -> None:
        mesh = self.mesh
        if mesh.is_traced:
            end.untraced += data
            packets, used = read_packets(end.untraced, end.version)
            end.untraced = end.untraced[used:]
            for packet in packets:
                if packet[0] in (3, 4, 8):
                    mesh.trace.append(Carried(mesh.now, self, end.node, end.other, packet[0], packet[-1]))
        if not self.is_silent:
            end.in_flight += 1
            # A link that became faster does not overtake itself.
            end.last_arrival = max(mesh.now + self.delay, end.last_arrival)
            mesh.at(end.last_arrival, lambda: self.arrive(end, data))

    def arrive(self, end: End, data: bytes) -> None:
        end.in_flight -= 1
        peer = end.peer
        for piece in self.mesh.pieces(data):
            if end not in self.ends:
                return
            peer.unread += piece
            peer.read()


class Node:
    """A node: alive from the start, until `kill`; `start` gives it empty tables and opens no link."""

    def __init__(self, mesh: Mesh, number: int, headless: bool, **limits: Any) -> None:
        self.mesh, self.number, self.limits = mesh, number, limits
        self.version = limits.get("version", mesh.version)
        self.mac = 0 if headless else 0x020000000000 + number
        self.links: list[Link] = []
        self.lives = self.sent = 0
        self.is_alive = False
        self.start()

    def __repr__(self) -> str:
        return f"node {self.number}"

    def start(self) -> None:
        limit = self.limits.get
        self.is_alive = True
        self.lives += 1
        chance = RandomSource(self.mesh.chance.getrandbits(64))
        routes = RouteTable(
            limit("max_ports", 64), limit("max_port_routes", 256), chance, report_above=limit("report_above", 5000),
            max_offers=limit("max_offers", 1 << 20),
        )  # fmt: skip
        self.switch = Switch(
            routes,
            IdCache(limit("ids", 4096), chance),
            chance,
            max_frame=limit("max_frame", 8192),
            keepalive=limit("keepalive", 5 * SECOND),
            timeout=limit("timeout", 60 * SECOND),
            max_waiting=limit("max_waiting", 1 << 28),
            max_nodes=limit("max_nodes", 1024),
            max_link_claims=limit("max_link_claims", 4096),
        )
        self.switch.beat(self.mesh.now, self.mesh.now // SECOND)
        self.switch.set_learning(limit("learn_macs", False), limit("mac_age", 300 * SECOND), limit("max_local", 4096))
        self.switch.set_alarm(self.wake_at)
        self.switch.set_limits(self.mesh.now, up=limit("up", (0, 0, 2048)), down=limit("down", (0, 0, 20480)))
        self.tap = RecordingTap()
        if self.mac:
            self.switch.set_tap(self.tap, self.mac)
        life = self.lives
        self.mesh.after(self.mesh.chance.randrange(1, HEARTBEAT), lambda: self.beat(life))

    def queue(self) -> SendQueue:
        return SendQueue(self.limits.get("max_proto", 64), self.limits.get("max_data", 256))

    def wake_at(self, time: int) -> None:
        """As late as the grain of its timer makes it."""
        switch, grain = self.switch, self.limits.get("grain", 1)
        self.mesh.at(-(-time // grain) * grain, lambda: switch.flush(self.mesh.now))

    def beat(self, life: int) -> None:
        if self.is_alive and life == self.lives:
            for silent in self.switch.beat(self.mesh.now, self.mesh.now // SECOND):
                assert isinstance(silent, End)
                silent.link.close()
            self.mesh.after(HEARTBEAT, lambda: self.beat(life))

    def kill(self) -> None:
        """Its links are lost at once, as by a reset."""
        self.is_alive = False
        for link in self.links:
            link.close()

    def send(self, to: Node | int, size: int = 60) -> bytes:
        """A frame of its own kind from the interface; to a node, or to a MAC."""
        self.sent += 1
        payload = f"{self.number}.{self.lives}.{self.sent} ".encode().ljust(size - 14, b"\0")
        made = frame(to.mac if isinstance(to, Node) else to, self.mac, payload)
        self.switch.send_from_tap(made, now=self.mesh.now)
        return made

    def routes(self) -> dict[int, tuple[int, int, int]]:
        """MAC -> port, ping, dist."""
        return {mac: (port, ping, hops) for mac, port, ping, hops, _, _ in self.switch.known()}


class Mesh:
    """The clock, the nodes, the links. `cut` is how streams arrive: `whole`, `bytes`, or `random` pieces.

    Nodes speak `version` of the wire, if they are not given another one.
    """

    version = 1

    def __init__(self, seed: int = 1, cut: str = "random", trace: bool = False) -> None:
        self.chance, self.cuts = random.Random(seed), random.Random(seed)
        self.cut = cut
        self.now = SECOND  # 0 means 'never' in an echo meter
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.event_count = 0
        self.nodes: list[Node] = []
        self.links: list[Link] = []
        self.is_traced, self.trace = trace, list[Carried]()

    def node(self, *, headless: bool = False, **limits: Any) -> Node:
        self.nodes.append(Node(self, len(self.nodes) + 1, headless, **limits))
        return self.nodes[-1]

    def link(self, a: Node, b: Node, delay: int = MS) -> Link:
        link = Link(self, a, b, delay)
        for node in link.nodes:
            node.links.append(link)
        self.links.append(link)
        link.open()
        return link

    def at(self, time: int, event: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self.events, (time, self.event_count, event))

    def after(self, delay: int, event: Callable[[], None]) -> None:
        self.at(self.now + delay, event)

    def run(self, duration: int) -> None:
        end = self.now + duration
        while self.events and self.events[0][0] <= end:
            self.now, _, event = heapq.heappop(self.events)
            event()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: int = 20 * SECOND) -> int:
        """How long it took until the condition held, to a heartbeat."""
        start = self.now
        while not condition():
            assert self.now - start < limit, f"not so within {limit} us"
            self.run(HEARTBEAT)
        return self.now - start

    def pieces(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = {"whole": len(data), "bytes": 1}.get(self.cut) or self.cuts.choice((1, 3, 7, 60, 1500, 70_000))
            yield data[at : at + size]
            at += size

    def received(self) -> dict[Node, list[bytes]]:
        """What each interface got since the last time."""
        got = {node: node.tap.frames for node in self.nodes if node.mac}
        for node in got:
            node.tap.frames = []
        return got

    def is_complete(self) -> bool:
        """Whether every living node has a way to every living MAC, and to no other."""
        living = [node for node in self.nodes if node.is_alive]
        macs = {node.mac for node in living} - {0}
        return all(node.routes().keys() == macs for node in living)

    def check(self, links: bool = True) -> None:
        """No frame was lost uncounted: not in a node, and not between two ends (`links`) with nothing on its way."""
        for node in self.nodes:
            switch = node.switch
            came = switch.frames_from_tap + switch.frames_from_links + switch.copies
            assert came == switch.frames_to_tap + switch.frames_to_links + sum(switch.dropped().values()), node
            assert switch.frames_to_tap == node.tap.taken, node
        for link in self.links if links else ():
            for end in link.ends:
                waiting = end.queue.waiting_frames
                if not end.in_flight and not link.is_silent:
                    assert end.frames_out - waiting == end.peer.frames_in and not end.peer.unread

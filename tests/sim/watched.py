# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh that watches itself: what must hold of its frames, tables and next hops, whatever is done to it.

Each frame is told from all others by what `made` puts into it. What is watched:

- every frame that entered a node left it, or was counted as lost there;
- no interface gets a frame twice, but what `promisc` overhears, which may pass a node more than once;
- none gets what it sent itself. Two ways there are: a link of version 1 carried it, for a node on its way that does not
  know the MAC floods it anew; or its host has moved here meanwhile, and where it was sent it on to here;
- no node sends a frame on by the link it came from. In version 2 the egress may, once;
- the tables keep their limits;
- the next hops towards a node of version 2 never form a circle, and after each step multipath's do not either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloudvpn._fast.segment import cut
from cloudvpn._fast.wire import read_packets
from tests.sim.mesh import MS, End, Link, Mesh, Node, frame

if TYPE_CHECKING:
    from cloudvpn._fast.segment import Offload

FRAME, BROADCAST, BULK = 3, 4, 8
SENT_ON = 1
PLAIN = (0, 0, 0, 0, 0, 0)


def made(number: int, to: int, source: int, size: int) -> bytes:
    return frame(to, source, f"frame {number} ".encode().ljust(size - 14, b"\0"))


def name_of(data: bytes) -> bytes:
    """The same for all copies; the pieces of a super-frame have their own, the first one that of the whole."""
    return data[34:42] if data[12:14] == b"\x08\x00" else data[14:].split(b"\0", 1)[0]


class Story:
    """What became of a frame so far."""

    def __init__(self) -> None:
        self.sender: tuple[Node, int] | None = None
        self.kinds: set[int] = set()
        self.came: dict[Node, set[Link]] = defaultdict(set)
        self.sent_on: set[Node] = set()  # the egresses that did
        self.came_sent_on: set[Node] = set()
        self.got: Counter[tuple[Node, int]] = Counter()


class WatchedMesh(Mesh):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.stories: dict[bytes, Story] = defaultdict(Story)
        self.overhears: set[tuple[Node, int]] = set()
        self.hops_seen: tuple[int, ...] = ()
        self.seen = Counter[str]()  # what happened at all

    # Frames.

    def enter(self, node: Node, data: bytes, offload: Offload = PLAIN) -> None:
        """From the interface of the node."""
        for piece in cut(data, offload):
            self.stories[name_of(piece)].sender = node, node.lives
        node.switch.send_from_tap(data, offload, self.now)
        self.look()

    def carried(self, end: End, packet: Any) -> None:
        """A link takes a frame packet."""
        story = self.stories[name_of(packet[-1])]
        came = story.came[end.node]
        is_sent_on = packet[0] == BULK and packet[3] & SENT_ON
        if is_sent_on and end.node not in story.came_sent_on:
            story.sent_on.add(end.node)
            self.seen["sent on"] += 1
            assert len(story.sent_on) == 1 or FRAME in story.kinds, f"sent on twice: {name_of(packet[-1])!r}"
        elif story.sender is None or story.sender[0] is not end.node:
            assert came != {end.link}, f"{end.node} sends {name_of(packet[-1])!r} back to {end.other}"
        story.kinds.add(packet[0])
        story.came[end.other].add(end.link)
        if is_sent_on:
            story.came_sent_on.add(end.other)
        self.seen[f"type {packet[0]}"] += 1

    def collect(self) -> dict[Node, list[bytes]]:
        """What the interfaces got since the last time, and whether they should have."""
        got = self.received()
        for node, frames in got.items():
            life = node, node.lives
            for data in frames:
                story = self.stories[name_of(data)]
                story.got[life] += 1
                if life in self.overhears:
                    continue
                assert story.got[life] == 1, f"{node} gets {name_of(data)!r} twice"
                if story.sender == life and FRAME not in story.kinds:
                    assert story.sent_on, f"{node} gets its own {name_of(data)!r}"
        return got

    def free(self) -> None:
        """The tables go at once: a collector takes the many megabytes of a switch for one small object."""
        for node in self.nodes:
            node.kill()
            del node.switch
        self.events.clear()

    # Next hops.

    def at(self, time: int, event: Callable[[], None]) -> None:
        def watched() -> None:
            event()
            self.look()

        super().at(time, watched)

    def look(self) -> None:
        """After each event."""
        tables = [node.switch.nodes for node in self.nodes]
        changes = tuple(table.changes_offer + table.changes_lost_link + table.changes_cost for table in tables)
        ids = tuple(table.me for table in tables)
        if changes + ids != self.hops_seen:
            self.hops_seen = changes + ids
            hops: dict[int, dict[int, set[int]]] = defaultdict(dict)
            for node in self.nodes:
                ends = neighbours(node)
                for target, port, *_ in node.switch.nodes.best():
                    if port in ends:
                        hops[target][node.switch.node_id] = {ends[port]}
            self.assert_no_circle(hops)

    def look_at_multipath(self) -> None:
        hops: dict[int, dict[int, set[int]]] = defaultdict(dict)
        for node in self.nodes:
            ends = neighbours(node)
            for target, *_ in node.switch.nodes.best()[1:]:
                ways = {ends[port] for port, _ in node.switch.nodes.ways(target, 0)}
                hops[target][node.switch.node_id] = ways
        self.assert_no_circle(hops)

    def assert_no_circle(self, hops: dict[int, dict[int, set[int]]]) -> None:
        for target, of_target in hops.items():
            left = dict(of_target)
            while ends := [node for node, ways in left.items() if not ways & left.keys()]:
                for node in ends:
                    del left[node]
            assert not left, f"at {self.now} us next hops towards {target:x} form a circle: {left}"

    # Tables.

    def check_limits(self) -> None:
        for node in self.nodes:
            switch, limits = node.switch, node.limits
            assert switch.nodes.node_count <= limits["max_nodes"]
            assert switch.hosts.learned_count <= switch.hosts.max_local
            # A link may have more than `max_link_claims`: newer versions of what another one brought first.
            others = [claim for claim in switch.hosts.claims_of_all() if claim[3] != switch.node_id]
            assert len(others) <= switch.hosts.max_claims
            assert switch.waiting_total <= limits["max_waiting"]
            for port in switch.ports():
                assert switch.routes.count_of(port.index) <= limits["max_port_routes"]
                assert switch.nodes.count_of(port.index) <= limits["max_nodes"]
                assert port.queue.waiting_data <= limits["max_data"]

    def check_all(self) -> None:
        self.collect()
        self.check()
        self.check_limits()
        self.look_at_multipath()

    # Links that tell.

    def link(self, a: Node, b: Node, delay: int = MS) -> Link:
        link = WatchedLink(self, a, b, delay)
        for node in link.nodes:
            node.links.append(link)
        self.links.append(link)
        link.open()
        return link


class WatchedLink(Link):
    mesh: WatchedMesh

    def carry(self, end: End, data: bytes) -> None:
        end.untraced += data
        packets, used = read_packets(end.untraced, end.version)
        end.untraced = end.untraced[used:]
        for packet in packets:
            if packet[0] in (FRAME, BROADCAST, BULK):
                self.mesh.carried(end, packet)
        super().carry(end, data)


def neighbours(node: Node) -> dict[int, int]:
    """The node ids behind its ports."""
    return {port.index: port.other.switch.node_id for port in node.switch.ports() if isinstance(port, End)}

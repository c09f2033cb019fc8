# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames with numbers: where each has been, and whether it came, once, to where its receiver is."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

from cloudvpn.options import SECOND

if TYPE_CHECKING:
    from cloudvpn.sim.mesh import Host, Mesh
    from cloudvpn.sim.node import Node
    from cloudvpn.sim.scenario import Traffic

HEADER_BYTES: Final = 14
KIND: Final = b"\x88\xb5"  # the EtherType for experiments
EVERYBODY: Final = 0xFFFFFFFFFFFF
ON_THE_WAY: Final = 2 * SECOND  # a frame that did not come in this time is lost
WATCHED: Final = 60 * SECOND  # how long the steps of a frame are kept


def make_frame(to: int, source: int, number: int, size: int) -> bytes:
    head = to.to_bytes(6, "big") + source.to_bytes(6, "big") + KIND + number.to_bytes(8, "big")
    return head.ljust(size, b"\0")


class Frames:
    """Of all frames four bytes are kept, of those that may still be on their way the nodes where they were."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._came, self._had_hope = bytearray(), bytearray()
        self._sent_in = array("H")  # the number of the window
        self._steps: dict[int, list[int]] = {}
        self._ages: deque[tuple[int, int]] = deque()
        self.looped: dict[int, Counter[str]] = {}  # by window
        self.crossings: Counter[int] = Counter()
        self._circled: set[int] = set()

    def begin(self, traffic: Traffic) -> None:
        """Lets a stream flow for each pair."""
        mesh, clock = self.mesh, self.mesh.clock
        every = [node.name for node in mesh.nodes if node.mac]
        sources = every if traffic.source == "all" else [traffic.source]
        targets = every if traffic.target == "all" else [traffic.target]
        for source, target in product(sources, targets):
            if source != target:
                start = mesh.begun + traffic.start + mesh.chance.randrange(traffic.every)
                clock.at(start, partial(self._tick, traffic, source, target))

    def _tick(self, traffic: Traffic, source: str, target: str) -> None:
        clock = self.mesh.clock
        if traffic.end is not None and clock.now >= self.mesh.begun + traffic.end:
            return
        clock.after(traffic.every, partial(self._tick, traffic, source, target))
        self.send(source, target, traffic.size)

    def send(self, source: str, target: str, size: int) -> None:
        """One frame, if the node of the source is alive."""
        (node, mac), (goal, to) = self.mesh.place(source), self.mesh.place(target)
        if not node.is_alive:
            return
        component = self.mesh.components()
        number = len(self._came)
        self._came.append(0)
        self._had_hope.append(component[goal.number] == component[node.number])
        self._sent_in.append(self.mesh.window)
        self._steps[number] = [node.number]
        self._ages.append((self.mesh.clock.now, number))
        while self._ages[0][0] < self.mesh.clock.now - WATCHED:
            self._steps.pop(self._ages.popleft()[1])
        node.send(make_frame(to, mac, number, size))

    def announce(self, host: Host) -> None:
        """What a host says to everybody when its cable is plugged in."""
        if host.node.is_alive:
            head = EVERYBODY.to_bytes(6, "big") + host.mac.to_bytes(6, "big")
            host.node.send(head + b"\x08\x06".ljust(48, b"\0"))

    def crosses(self, data: bytes, at: int, target: Node) -> None:
        """A unicast frame, which lies there, is sent to this node."""
        if data[at + 12 : at + HEADER_BYTES] != KIND:
            return
        number = int.from_bytes(data[at + HEADER_BYTES : at + HEADER_BYTES + 8], "big")
        steps = self._steps.get(number)
        if steps is None:
            return
        window = self._sent_in[number]
        if target.number in steps:
            counts = self.looped.setdefault(window, Counter())
            counts["crossings"] += 1
            if number not in self._circled:
                self._circled.add(number)
                counts["looped"] += 1
        steps.append(target.number)
        self.crossings[window] = max(self.crossings[window], len(steps) - 1)

    def came(self, node: Node, frame: bytes) -> None:
        """A frame came out of this node's interface."""
        if frame[12:HEADER_BYTES] != KIND or self.mesh.at_mac(int.from_bytes(frame[:6], "big")) is not node:
            return
        number = int.from_bytes(frame[HEADER_BYTES : HEADER_BYTES + 8], "big")
        self._came[number] = min(255, self._came[number] + 1)

    def totals(self) -> dict[int, Counter[str]]:
        """For each window, what became of the frames that were sent in it. Those that may still come do not count."""
        totals: dict[int, Counter[str]] = {}
        late = self.mesh.clock.now - ON_THE_WAY
        coming = {number for time, number in self._ages if time > late and not self._came[number]}
        for number, (window, had_hope, came) in enumerate(zip(self._sent_in, self._had_hope, self._came, strict=True)):
            if number in coming:
                continue
            counts = totals.setdefault(window, Counter())
            counts["sent"] += 1
            counts["hopeless" if not had_hope and came == 0 else "lost"] += came == 0
            counts["doubled"] += came > 1
        for window, looped in self.looped.items():
            totals.setdefault(window, Counter()).update(looped)
        return totals

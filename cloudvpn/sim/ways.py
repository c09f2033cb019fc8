# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches the next hops of all nodes for all nodes, at every event that may have changed one of them.

A node's ways are asked for after each call of its switch. Where one changed, only that node's walk is made anew, and
what is known of the nodes whose ways lead through it follows. So nothing is sampled, and nothing is missed.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

from cloudvpn.sim import tables
from cloudvpn.sim.figures import Figures

if TYPE_CHECKING:
    from cloudvpn.sim.mesh import Mesh
    from cloudvpn.sim.node import Node

NOWHERE: Final = -1
Path = tuple[list[str], int]  # the nodes on a way, and its round trip in us


class Loop:
    """Next hops that lead round; it ends when one of them changes."""

    def __init__(self, members: set[int], now: int) -> None:
        self.members, self.start = members, now


class Ways:
    """For each target and node: the number of the next node, itself where the target is, or NOWHERE."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.nodes = mesh, mesh.nodes
        count = len(mesh.nodes)
        self.targets = [node.number for node in mesh.nodes if node.mac]
        self.place = {target: at for at, target in enumerate(self.targets)}  # in `ports`
        self.macs = [node.mac for node in mesh.nodes if node.mac]
        self.ports: list[list[int | None]] = [[None] * len(self.macs) for _ in range(count)]
        self.next = {target: [NOWHERE] * count for target in self.targets}
        self.arrives = {target: [False] * count for target in self.targets}
        self._before = {target: [set[int]() for _ in range(count)] for target in self.targets}
        self._loops: dict[int, dict[int, Loop]] = {target: {} for target in self.targets}
        self._arrived_at = {target: [0] * count for target in self.targets}
        self._forgot_at = {target: [0] * count for target in self.targets}
        self._stale: set[int] = set()  # nodes whose links changed under the same ports
        self.begin()

    # What changes.

    def refresh(self, node: Node) -> None:
        """Something about its links or its life changed."""
        self._stale.add(node.number)
        self.check(node)

    def check(self, node: Node) -> None:
        """Compares the node's ways with those it had."""
        number = node.number
        ports: list[int | None] = [None] * len(self.macs)
        if node.is_alive:
            ports = list(map(node.way, self.macs))
        old = self.ports[number]
        if ports == old and number not in self._stale:
            return
        self._stale.discard(number)
        self.ports[number] = ports
        now = self.mesh.clock.now
        for target, port, before in zip(self.targets, ports, old, strict=True):
            if port is None and before is not None:
                self._forgot_at[target][number] = now
            elif port is not None and before is None:
                self._known.add((target, number))
            step = self._step(node, target, port)
            if step != self.next[target][number]:
                self._change(target, number, step)

    def _step(self, node: Node, target: int, port: int | None) -> int:
        if target == node.number:
            self.figures.own_mac_lost += node.is_alive and port != 0
            return target if port == 0 else NOWHERE
        end = node.ends.get(port) if port else None
        # What a liar does with a frame is its own affair.
        return NOWHERE if end is None or node.is_lying or not end.link.works else end.other.number

    def _change(self, target: int, number: int, step: int) -> None:
        now, following = self.mesh.clock.now, self.next[target]
        self.changed_at = now
        before = following[number]
        if before not in (NOWHERE, number):
            self._before[target][before].discard(number)
        following[number] = step
        if step not in (NOWHERE, number):
            self._before[target][step].add(number)
        if number in self._loops[target]:
            self._end_loop(target, number)
        seen, at = {number}, step
        while at not in (NOWHERE, target) and at not in seen:
            seen.add(at)
            at = following[at]
        if at == number != target and self._is_real(target, seen):
            self._begin_loop(target, seen)
        arrives = at == target and following[target] == target
        if arrives != self.arrives[target][number]:
            self._spread(target, number, arrives)

    def _is_real(self, target: int, members: set[int]) -> bool:
        """Whether a frame would circle. One of version 2 carries its egress node: owners that differ do not matter."""
        mac = self.nodes[target].mac
        for member in members:
            egress = tables.egress_of(self.nodes[member].switch, mac)
            at, seen = self.nodes[member], set[int]()
            while egress is not None and at.number not in seen:
                seen.add(at.number)
                end = at.ends.get(tables.port_towards(at.switch, egress))
                if end is None or not end.link.works or at.is_lying:
                    break
                at = end.other
            else:
                return True
        return False

    def _spread(self, target: int, number: int, arrives: bool) -> None:
        """All whose ways lead through this node share its fate."""
        now, state, arrived_at = self.mesh.clock.now, self.arrives[target], self._arrived_at[target]
        todo = [number]
        while todo:
            at = todo.pop()
            if state[at] != arrives:
                state[at] = arrives
                if arrives:
                    arrived_at[at] = now
                else:
                    self._broken.add((target, at))
                todo.extend(self._before[target][at])

    def _begin_loop(self, target: int, members: set[int]) -> None:
        self.figures.loops += 1
        loop = Loop(members, self.mesh.clock.now)
        self._loops[target].update(dict.fromkeys(members, loop))
        self.mesh.note_loop(target, members)

    def _end_loop(self, target: int, number: int) -> None:
        loop = self._loops[target][number]
        self.figures.loop = max(self.figures.loop, self.mesh.clock.now - loop.start)
        for member in loop.members:
            del self._loops[target][member]

    # What it comes to.

    def begin(self) -> None:
        """A window begins: the time from one event to the next."""
        self.figures = Figures()
        self.begun = self.changed_at = self.settled = self.mesh.clock.now
        self._broken = {
            (target, number)
            for target in self.targets
            for number, arrives in enumerate(self.arrives[target])
            if not arrives
        }
        self._known = {
            (target, number)
            for number, ports in enumerate(self.ports)
            for target, port in zip(self.targets, ports, strict=True)
            if port is not None
        }

    def end(self) -> Figures:
        """The window is over; loops that go on have lasted until now."""
        figures = self.figures
        component = self.mesh.components()
        for target, number in self._broken:
            if target != number and component[target] == component[number] is not None:
                if self.arrives[target][number]:
                    arrived_at = self._arrived_at[target][number]
                    figures.back.append(max(0, arrived_at - self.settled))
                    figures.out.append(max(0, arrived_at - self.begun))
                else:
                    figures.unreachable += 1
        for target, number in self._known:
            if component[number] is not None and component[target] != component[number]:
                if self.ports[number][self.place[target]] is None:
                    figures.forgotten.append(max(0, self._forgot_at[target][number] - self.settled))
                else:
                    figures.remembered += 1
        for loops in self._loops.values():
            for loop in loops.values():
                figures.loop = max(figures.loop, self.mesh.clock.now - loop.start)
        figures.converged = max(0, self.changed_at - self.settled)
        return figures

    def path(self, source: int, target: int) -> Path | None:
        """The way of a frame now."""
        if not self.arrives[target][source]:
            return None
        names, rtt, at = [self.nodes[source].name], 0, source
        while at != target:
            port = self.ports[at][self.place[target]]
            assert port
            end = self.nodes[at].ends[port]
            rtt += end.link.rtt
            at = end.other.number
            names.append(end.other.name)
        return names, rtt

    def paths(self) -> dict[str, Path]:
        """All ways, by `a>b`, that there are now."""
        found = {}
        for target in self.targets:
            for node in self.nodes:
                if node.number != target and (path := self.path(node.number, target)):
                    found[f"{node.name}>{self.nodes[target].name}"] = path
        return found

    def best(self, source: int) -> dict[int, int]:
        """The least round trip to each node that can be reached, us."""
        least, todo = {source: 0}, [(0, source)]
        while todo:
            rtt, at = heapq.heappop(todo)
            if rtt > least[at]:
                continue
            for end in self.nodes[at].ends.values():
                far = rtt + end.link.rtt
                if end.link.works and far < least.get(end.other.number, far + 1):
                    least[end.other.number] = far
                    heapq.heappush(todo, (far, end.other.number))
        return least

    def stretches(self, paths: dict[str, Path]) -> list[float]:
        """For each way: its round trip by the best one."""
        numbers = {node.name: node.number for node in self.nodes}
        best = {node.number: self.best(node.number) for node in self.nodes if node.is_alive}
        return [
            rtt / max(1, best[numbers[names[0]]][numbers[names[-1]]]) for names, rtt in paths.values()
        ]


def components(nodes: list[Node]) -> list[int | None]:
    """For each node the least number of those that working links join it with; None: it is dead."""
    found: list[int | None] = [None] * len(nodes)
    for node in nodes:
        if not node.is_alive or found[node.number] is not None:
            continue
        found[node.number] = node.number
        todo = deque([node])
        while todo:
            for end in todo.popleft().ends.values():
                if end.link.works and found[end.other.number] is None:
                    found[end.other.number] = node.number
                    todo.append(end.other)
    return found

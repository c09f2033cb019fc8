# SPDX-License-Identifier: GPL-3.0-or-later
"""One mesh under its clock: nodes, links, hosts, and those who watch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cloudvpn._fast.switch import Switch
from cloudvpn.errors import ConfigError
from cloudvpn.options import SECOND
from cloudvpn.sim import links, ways
from cloudvpn.sim.clock import Clock
from cloudvpn.sim.links import ANNOUNCEMENTS, FRAME_AT, End, Link
from cloudvpn.sim.node import Node
from cloudvpn.sim.scenario import Scenario
from cloudvpn.sim.source import quote
from cloudvpn.sim.traffic import Frames

LOOPS_TOLD = 20


class Host:
    """A MAC behind the interface of a node."""

    def __init__(self, number: int, node: Node) -> None:
        self.mac, self.node = 0x02C0DF000000 + number, node


class Mesh:
    """All that is random comes from `seed`. Nothing is alive before `start`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.chance = random.Random(seed)
        self.clock = Clock(SECOND)  # 0 means 'never' to an echo meter
        self.begun = self.clock.now
        self.window = 0
        self.peer_errors = 0
        self.spoken_at = self.begun  # the last announcement
        self.loops: list[tuple[int, str, list[str]]] = []
        self.journal: list[tuple[int, str]] = []
        self._dropped: Counter[str] = Counter()  # by switches that are no more
        self._components: Sequence[int | None] | None = None
        self.nodes: list[Node] = []
        settings = dict(scenario.nodes)
        for share, rule in ((scenario.version_1_share, 0), (scenario.rule_2009_share, 2009)):
            for name in self.chance.sample(list(settings), round(share * len(settings))):
                settings[name] = replace(settings[name], version=1, rule=rule)
        for number, (name, one) in enumerate(settings.items()):
            self.nodes.append(Node(self, number, name, one))
        self.named = {node.name: node for node in self.nodes}
        self.links = [
            Link(self, self.named[edge.a], self.named[edge.b], edge.settings) for edge in scenario.edges(self.chance)
        ]
        self.hosts = {host.name: Host(at, self.named[host.at]) for at, host in enumerate(scenario.hosts)}
        self._hosts_by_mac = {host.mac: host for host in self.hosts.values()}
        self._nodes_by_mac = {node.mac: node for node in self.nodes if node.mac}
        self.ways = ways.Ways(self)
        self.frames = Frames(self)
        self._check_links()

    def _check_links(self) -> None:
        problems = []
        for event in self.scenario.events:
            for a, b in event.action.pairs():
                if not self.links_of(a, b):
                    problems.append(f"{event.place}: there is no link {quote(f'{a}-{b}')}")
        if problems:
            raise ConfigError(problems)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for host in self.hosts.values():
            # When the links are there.
            self.clock.after(SECOND, partial(self.frames.announce, host))
        for traffic in self.scenario.traffic:
            self.frames.begin(traffic)

    def free(self) -> None:
        """The tables go at once: to the collector their megabytes are a few objects."""
        for node in self.nodes:
            vars(node).pop("switch", None)
            vars(node).pop("way", None)

    # What is where.

    def links_of(self, a: str, b: str) -> list[Link]:
        return [link for link in self.links if {a, b} == {node.name for node in link.nodes}]

    def place(self, name: str) -> tuple[Node, int]:
        """Where a node or host is, and its MAC."""
        if (host := self.hosts.get(name)) is not None:
            return host.node, host.mac
        node = self.named[name]
        return node, node.mac

    def at_mac(self, mac: int) -> Node | None:
        host = self._hosts_by_mac.get(mac)
        return host.node if host is not None else self._nodes_by_mac.get(mac)

    def components(self) -> Sequence[int | None]:
        """Who can reach whom over links that work: see `ways.components`."""
        if self._components is None:
            self._components = ways.components(self.nodes)
        return self._components

    # What happened.

    def link_changed(self, link: Link) -> None:
        self._components = None
        for node in link.nodes:
            self.ways.refresh(node)

    def note_loop(self, target: int, members: set[int]) -> None:
        if len(self.loops) < LOOPS_TOLD:
            names = sorted(self.nodes[number].name for number in members)
            self.loops.append((self.clock.now - self.begun, self.nodes[target].name, names))

    def meter(self, end: End, data: bytes) -> bytes:
        """Counts what is sent; gives what is left of it, since a liar passes no frame on."""
        is_lying, kept = end.node.is_lying, []
        for kind, begin, stop in links.packets(data):
            if kind in ANNOUNCEMENTS:
                end.link.count(end, kind, stop - begin)
                self.spoken_at = self.clock.now
            elif is_lying and kind in (*FRAME_AT, links.BROADCAST):
                continue
            elif kind in FRAME_AT:
                self.frames.crosses(data, begin + FRAME_AT[kind], end.other)
            if is_lying:
                kept.append(data[begin:stop])
        return b"".join(kept) if is_lying else data

    def retire(self, switch: Switch) -> None:
        self._dropped.update(switch.dropped())

    def dropped(self) -> Counter[str]:
        """Lost frames by reason, of all nodes and all their lives."""
        total = Counter(self._dropped)
        for node in self.nodes:
            if node.is_alive:
                total.update(node.switch.dropped())
        return total

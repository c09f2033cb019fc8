# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the operator what is wrong with routes and hosts: a limit that is hit, a MAC that two nodes want."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from cloudvpn.mesh import Mesh
from cloudvpn.tap import format_mac

log = logging.getLogger("cloudvpn")

QUIET_SECONDS = 60.0    # between two lines of one kind


class RouteWatch:
    """`look()` runs once a heartbeat. A counter of trouble that has grown is a line, of each kind one a minute."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.seen: dict[str, int] = {}
        self.said: dict[str, float] = {}

    def look(self, now: float) -> None:
        for kind, count, describe in self.troubles():
            if count != self.seen.get(kind, 0) and now - self.said.get(kind, -QUIET_SECONDS) >= QUIET_SECONDS:
                self.seen[kind], self.said[kind] = count, now
                log.warning("%s", describe())

    def troubles(self) -> Iterator[tuple[str, int, Callable[[], str]]]:
        nodes, hosts = self.mesh.switch.nodes, self.mesh.switch.hosts
        yield "conflict", hosts.conflicts, self.describe_conflict
        yield "moves", hosts.moves_held, self.describe_moves
        yield "learned_full", hosts.learned_full, self.describe_learned_full
        yield "link_claims", hosts.refused_link, self.describe_link_claims
        yield "claims", hosts.refused_full + hosts.refused_owners, self.describe_claims
        yield "nodes", nodes.refused_full, self.describe_nodes
        yield "own", nodes.own_heard, self.describe_own
        yield "slowed", self.mesh.switch.links_slowed, self.describe_slowed

    def describe_conflict(self) -> str:
        hosts = self.mesh.switch.hosts
        first, second = (self.name(node) for node in sorted(hosts.conflict_owners))
        mac = format_mac(hosts.conflict_mac)
        return (f"{first} and {second} both have the MAC {mac} on their interfaces: frames for it go to the first one. "
                "Give one of them another MAC, with the option mac")

    def describe_moves(self) -> str:
        mac = format_mac(self.mesh.switch.hosts.held_mac)
        return (f"the host {mac} is seen here and behind other nodes in turn: it is announced at most once in 10 s. Do "
                "two nodes bridge the same network, or does somebody use its MAC?")

    def describe_learned_full(self) -> str:
        return (f"there are more hosts behind the interface than max_local_macs {self.mesh.config.max_local_macs}: "
                "frames to the others are flooded")

    def describe_link_claims(self) -> str:
        hosts, limit = self.mesh.switch.hosts, self.mesh.config.max_link_claims
        full = ", ".join(link.info.describe() for link in self.mesh.links if hosts.count_of(link.index) >= limit)
        return f"{full or 'a link'} announces more hosts than max_link_claims {limit}: frames to the others are flooded"

    def describe_claims(self) -> str:
        return "there is no room for all hosts that are announced: frames to the others are flooded"

    def describe_nodes(self) -> str:
        return (f"there are more nodes than max_nodes {self.mesh.config.max_nodes}: the others are not known here, and "
                "nobody reaches them by this node")

    def describe_own(self) -> str:
        port = self.mesh.switch.nodes.own_heard_port
        who = next((link.info.describe() for link in self.mesh.links if link.index == port), "a link that is gone")
        return f"{who} announces this node itself, newer than it ever was: somebody there lies. It is overruled"

    def describe_slowed(self) -> str:
        return "a link brought more routes at once than a node needs to take: it was read more slowly for a while"

    def name(self, node: int) -> str:
        """A node is known by its name if there is a link to it."""
        if node == self.mesh.switch.node_id:
            return "this node"
        return next((link.info.describe() for link in self.mesh.links if link.peer_id == node), f"node {node:016x}")

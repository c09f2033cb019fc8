# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the operator what is wrong with routes and hosts: a limit that is hit, a MAC that two nodes want."""

from __future__ import annotations

import logging
from collections import Counter
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
        nodes, hosts, routes = self.mesh.switch.nodes, self.mesh.switch.hosts, self.mesh.switch.routes
        yield "conflict", hosts.conflicts, self.describe_conflict
        yield "moves", hosts.moves_held, self.describe_moves
        yield "learned_full", hosts.learned_full, self.describe_learned_full
        yield "link_claims", hosts.refused_link, self.describe_link_claims
        yield "claims", hosts.refused_full + hosts.refused_owners, self.describe_claims
        yield "nodes", nodes.refused_full, self.describe_nodes
        yield "routes", routes.refused_full, self.describe_routes
        yield "own", nodes.own_heard, self.describe_own
        yield "disputed", hosts.disputed, self.describe_disputed
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
        who = self.most(self.mesh.switch.hosts.count_of)
        return (f"there is no room for all hosts that are announced, most of them by {who}: frames to the others are "
                "flooded")

    def describe_nodes(self) -> str:
        # By the ways that are taken: neighbours announce each node that they know, whoever has brought it.
        links = Counter(port for _, port, _, _, _ in self.mesh.switch.nodes.best())
        return (f"there are more nodes than max_nodes {self.mesh.config.max_nodes}, most of them behind "
                f"{self.most(links.__getitem__)}: the others are not known here, and nobody reaches them by this node")

    def describe_routes(self) -> str:
        who, limit = self.most(self.mesh.switch.routes.count_of), self.mesh.config.max_remote_routes
        return (f"there is no room for all routes that are announced, max_remote_routes {limit} for each link, most of "
                f"them by {who}: frames to the others are flooded")

    def describe_own(self) -> str:
        who = self.link(self.mesh.switch.nodes.own_heard_port)
        return f"{who} announces this node itself, newer than it ever was: somebody there lies. It is overruled"

    def describe_slowed(self) -> str:
        who = self.link(self.mesh.switch.slowed_port)
        return f"{who} brought more routes at once than a node needs to take: it was read more slowly for a while"

    def describe_disputed(self) -> str:
        hosts = self.mesh.switch.hosts
        return (f"{self.link(hosts.disputed_port)} says otherwise of this node's host {format_mac(hosts.disputed_mac)} "
                "than this node did: somebody there lies. It is overruled")

    def link(self, port: int) -> str:
        return next((link.info.describe() for link in self.mesh.links if link.index == port), "a link that is gone")

    def most(self, count_of: Callable[[int], int]) -> str:
        """The link with the most of something."""
        links = [link for link in self.mesh.links if link.index]
        return max(links, key=lambda link: count_of(link.index)).info.describe() if links else "links that are gone"

    def name(self, node: int) -> str:
        """A node is known by its name if there is a link to it."""
        if node == self.mesh.switch.node_id:
            return "this node"
        return next((link.info.describe() for link in self.mesh.links if link.peer_id == node), f"node {node:016x}")

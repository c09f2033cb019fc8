# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the operator which link brings more broadcasts than broadcast_limit, and what that looks like."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cloudvpn._fast.link import Link
from cloudvpn.mesh import Mesh

log = logging.getLogger("cloudvpn")

MEASURED_SECONDS = 1.0
QUIET_SECONDS = 60.0    # between two lines on the same peer


STORM = "a loop (do two nodes bridge the same network?) or a broadcast storm behind that link"
TRAFFIC = (
    "traffic of hosts behind bridges, unicast to MACs that no node announces: raise broadcast_limit if that is what it "
    "is, and if no two nodes bridge the same network"
)


@dataclass(frozen=True)
class Storm:
    """A link at the moment when it was first seen over its limit: the loop's time, and its counters."""

    begun: float
    came: int
    refused: int
    unicasts: int


class StormWatch:
    """`look()` runs once a heartbeat. The line on a link comes a second after its limit was hit, with the rates."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.refused = 0                        # of all links, at the last look
        self.storms: dict[Link, Storm] = {}     # being measured
        self.said: dict[str, float] = {}        # when there was a line on this peer; it may have dialled anew since

    def look(self, now: float) -> None:
        refused = self.mesh.switch.dropped()["broadcast_limit"]
        if refused != self.refused:
            self.refused = refused
            self.find(now)
        for link, storm in list(self.storms.items()):
            if now - storm.begun >= MEASURED_SECONDS:
                del self.storms[link]
                self.say(link, storm, now)

    def find(self, now: float) -> None:
        """The links that have refused broadcasts since the last look."""
        self.said = {peer: time for peer, time in self.said.items() if now - time < QUIET_SECONDS}
        for link in self.mesh.links:
            before, link.info.broadcasts_refused = link.info.broadcasts_refused, link.broadcasts_refused
            if before != link.broadcasts_refused and link not in self.storms and name_of(link) not in self.said:
                self.storms[link] = Storm(now, link.broadcasts_in, link.broadcasts_refused, link.unicasts_refused)

    def say(self, link: Link, storm: Storm, now: float) -> None:
        seconds, refused = now - storm.begun, link.broadcasts_refused - storm.refused
        is_traffic = link.unicasts_refused - storm.unicasts > refused / 2
        self.said[name_of(link)] = now
        log.warning(
            "%s brings %.0f broadcasts a second, more than broadcast_limit %d/s: %.0f a second are dropped. This looks "
            "like %s. It is said again after a minute if it goes on",
            link.info.describe(), (link.broadcasts_in - storm.came) / seconds, self.mesh.config.broadcast_limit,
            refused / seconds, TRAFFIC if is_traffic else STORM,
        )


def name_of(link: Link) -> str:
    identity = link.info.identity
    return identity.name if identity is not None else str(link.info.remote[0])

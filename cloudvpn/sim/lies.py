# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node with a good certificate may say to draw traffic, to grow tables, or to make trouble."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from cloudvpn._fast.wire import hosts_packet, node_routes_packet, route_packet, seq_requests_packet

PRESENT, FIXED = 1, 2  # flags of a claim
STRANGERS = 500  # made up in one message


class Victim(NamedTuple):
    """A node of the mesh as the liar knows it."""

    node_id: int
    mac: int
    seq: int
    wall: int  # seconds


Lie = Callable[[list[Victim], int, int, random.Random], bytes]


def _routes(victims: list[Victim], version: int, metric: int, jump: int = 0) -> bytes:
    if version == 1:
        return route_packet(1, [(victim.mac, 0, max(metric, 1)) for victim in victims if victim.mac])
    rows = [(victim.node_id, (victim.seq + jump) & 0xFFFFFFFF, metric, metric, 0) for victim in victims]
    return node_routes_packet(rows)


def _zero(victims: list[Victim], version: int, me: int, chance: random.Random) -> bytes:
    return _routes(victims, version, 0)


def _huge(victims: list[Victim], version: int, me: int, chance: random.Random) -> bytes:
    return _routes(victims, version, 0xFFFFFFFE)


def _jump(victims: list[Victim], version: int, me: int, chance: random.Random) -> bytes:
    """Small ones, which are believed, and ones that no neighbour may take."""
    return b"".join(_routes(victims, version, 0, jump) for jump in (chance.randrange(1, 1000), 1 << 20, 1 << 31))


def _strangers(victims: list[Victim], version: int, me: int, chance: random.Random) -> bytes:
    made_up = [Victim(chance.getrandbits(64), chance.getrandbits(40) | 0x02 << 40, 1, 0) for _ in range(STRANGERS)]
    if version == 1:
        return _routes(made_up, version, 1)
    claims = [(stranger.mac, PRESENT, 0, stranger.node_id, 1, 0) for stranger in made_up]
    wanted = [(stranger.node_id, 9, 64) for stranger in made_up]
    return _routes(made_up, version, 1) + hosts_packet(claims) + seq_requests_packet(wanted)


def _macs(victims: list[Victim], version: int, me: int, chance: random.Random) -> bytes:
    if version == 1:
        return _routes(victims, version, 1)
    return hosts_packet(
        [(victim.mac, PRESENT | FIXED, 0, me, victim.wall + 1_000_000, 0) for victim in victims if victim.mac]
        + [(victim.mac, 0, 0, victim.node_id, victim.wall + 1_000_000, 0) for victim in victims if victim.mac]
    )


LIES: Final[dict[str, Lie]] = {
    "zero": _zero,  # everybody is here, for nothing
    "huge": _huge,  # everybody is here, as far away as can be said
    "jump": _jump,  # the same with sequence numbers from the future
    "strangers": _strangers,  # nodes and hosts that do not exist
    "macs": _macs,  # the MACs of all nodes are mine, and their owners have them no more
}

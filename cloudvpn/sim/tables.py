# SPDX-License-Identifier: GPL-3.0-or-later
"""The only module here that knows how the switch is made and what its tables are called."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.switch import Switch
from cloudvpn.sim.scenario import NodeSettings

MAX_ROUTES = 4096  # of one version-1 link
BROADCAST_IDS = 65536


def make_switch(settings: NodeSettings, max_ports: int, chance: random.Random) -> Switch:
    """A switch with empty tables, as a daemon with these settings makes it."""
    source = RandomSource(chance.getrandbits(64))
    rule = {"rule_2009": True} if settings.rule == 2009 else {}
    routes = RouteTable(max_ports, MAX_ROUTES, source, **rule)
    return Switch(
        routes, IdCache(BROADCAST_IDS, source), source, keepalive=settings.keepalive, timeout=settings.timeout
    )


def way_of(switch: Switch) -> Callable[[int], int | None]:
    """MAC -> the port on its way, 0: here, None: no way is known."""
    return switch.routes.port_to


def sizes(switch: Switch) -> dict[str, int]:
    """How many entries each table has."""
    return {"routes": len(switch.routes.best())}


def claims(switch: Switch) -> Hashable:
    """What the node believes of who has which MAC; equal at all nodes of a mesh at rest."""
    return ()


def sequences(switch: Switch) -> dict[int, int]:
    """Node id -> its sequence number as this node knows it."""
    return {}

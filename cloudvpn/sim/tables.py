# SPDX-License-Identifier: GPL-3.0-or-later
"""The only module here that knows how the switch is made and what its tables are called."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import Final

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.switch import Switch
from cloudvpn.options import SECOND, Config
from cloudvpn.sim.scenario import NodeSettings

MAX_ROUTES: Final = 4096  # of one version-1 link
EPOCH: Final = 1_800_000_000  # the wall clock when a simulation begins, seconds


def make_switch(settings: NodeSettings, max_ports: int, chance: random.Random, now: int) -> Switch:
    """A switch with empty tables, as a daemon with these settings makes it."""
    source, default = RandomSource(chance.getrandbits(64)), Config()
    routes = RouteTable(
        max_ports, MAX_ROUTES, source, report_above=default.report_ping_changes_above, rule_2009=settings.rule == 2009
    )
    switch = Switch(
        routes, IdCache(default.br_id_cache_size, source), source, keepalive=settings.keepalive,
        timeout=settings.timeout,
    )  # fmt: skip
    beat(switch, now)  # from here on it knows the time
    switch.set_learning(settings.learn, default.mac_age, default.max_local_macs)
    return switch


def beat(switch: Switch, now: int) -> Sequence[Port]:
    """The heartbeat; gives the ports that have been silent too long."""
    return switch.beat(now, EPOCH + now // SECOND)


def way_of(switch: Switch) -> Callable[[int], int | None]:
    """MAC -> the port on its way, 0: here, None: no way is known."""
    return switch.way_to


def sizes(switch: Switch) -> dict[str, int]:
    """How many entries each table has."""
    hosts = switch.hosts
    return {
        "nodes": len(switch.nodes.best()), "hosts": len(hosts.best()), "claims": len(hosts.claims_of_all()),
        "routes": len(switch.routes.best()),
    }  # fmt: skip


def beliefs(switch: Switch) -> Hashable:
    """Who has which MAC, as (MAC, owner, kind, seq); equal at all nodes of a mesh at rest."""
    return frozenset((mac, owner, kind, seq) for mac, owner, _, _, _, kind, seq in switch.hosts.best())


def starving(switch: Switch) -> int:
    """How many nodes it has offers for, of which it may use none."""
    return len(switch.nodes.starving())


def sequences(switch: Switch) -> dict[int, int]:
    """Node id -> its sequence number as this node knows it."""
    return {node: seq for node, _, _, _, seq in switch.nodes.best()}


def egress_of(switch: Switch, mac: int) -> int | None:
    """The node to which a frame for this MAC is addressed; None: it goes by the routes of version 1."""
    where = switch.hosts.where(mac)
    return None if where is None or where[0] > switch.max_ports else where[1]


def port_towards(switch: Switch, node: int) -> int:
    """The port on the way to a node; 0: none, or this is it."""
    return switch.nodes.port_to(node) or 0

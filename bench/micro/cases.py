# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: each name with the tables, frames and routes that its loop works on.

All random choices are seeded, the keys of the hashes too: every run does the same work at the same places.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import (
    bare_packet,
    bulk_packet,
    frame_packet,
    hosts_packet,
    node_routes_packet,
    route_packet,
)
from tests.model.naive_offload import TCP, UDP, ones_sum
from tests.model.packets import TIMESTAMPS, Flow

from . import calibration
from .loops import (
    Checksum,
    Coalesce,
    CutFrame,
    Drain,
    HostChange,
    HostLearn,
    HostLookup,
    LinkStep,
    Lookup,
    Loop,
    NewIds,
    NodeLookup,
    NodeUpdate,
    Parse,
    Queue,
    RouteUpdate,
    SeenIds,
    TapStep,
)

ROUTES = 10_000         # in the table
UPDATES = 2_000         # in one set or diff
NODES = 1_000           # as many as a table has room for by default
IDS = 65_536            # remembered, as by default
INPUT_BYTES = 262_144   # what a link reads at most at once
SUPER_BYTES = 65_160    # 45 segments, all that fit an IP packet
SEGMENT_BYTES = 1448    # of TCP with timestamps in an MTU of 1500
TAP_FRAMES = 64         # what the TAP gives at most at once
BROADCAST_MAC = 0xFFFFFFFFFFFF
ROUTE_REQUEST = 7

Entry = tuple[int, int, int]


def draw_macs(count: int, seed: int) -> list[int]:
    """Different unicast MACs, disjoint from those of another seed."""
    return [0x020000000000 | seed << 32 | low for low in random.Random(seed).sample(range(1 << 32), count)]


MACS = draw_macs(ROUTES, 1)
OTHER_MACS = draw_macs(ROUTES, 2)


def entries(macs: list[int], pings: list[int]) -> bytes:
    """Route entries as on the wire."""
    routes: list[Entry] = [(mac, 1, ping) for mac, ping in zip(macs, pings, strict=True)]
    return route_packet(2, routes)[4:]


def filled_table() -> RouteTable:
    """Port 2 offers all 10,000 at 150 ms; the other links are measured and offer nothing."""
    table = RouteTable(16, 2 * ROUTES, RandomSource(1))
    for port in range(1, 17):
        table.open_port(port)
        table.measure_port(port, 1000)
    table.apply(2, entries(MACS, [150_000] * ROUTES), True)
    table.told(False)
    return table


def lookup(macs: list[int], known: bool) -> Loop:
    return Lookup(filled_table(), array("Q", random.Random(3).sample(macs, ROUTES)), known, 10)


def changes(whole: bool) -> Loop:
    """Port 1 offers some of the same MACs; half of them become better than those of port 2, half become worse."""
    draw = random.Random(4)
    macs = draw.sample(MACS, UPDATES)
    low = [draw.randrange(10_000, 100_000) for _ in macs]
    high = [draw.randrange(200_000, 300_000) for _ in macs]
    pairs = [(a, b) if draw.getrandbits(1) else (b, a) for a, b in zip(low, high, strict=True)]
    before, after = (entries(macs, [pair[side] for pair in pairs]) for side in (0, 1))
    return RouteUpdate(filled_table(), 1, before, after, whole=whole)


def comings(new: bool) -> Loop:
    """MACs that only port 1 offers appear, or disappear."""
    draw = random.Random(5)
    macs = draw.sample(OTHER_MACS, UPDATES)
    there = entries(macs, [draw.randrange(10_000, 300_000) for _ in macs])
    gone = entries(draw.sample(macs, UPDATES), [0] * UPDATES)
    return RouteUpdate(filled_table(), 1, gone, there) if new else RouteUpdate(filled_table(), 1, there, gone)


NODE_IDS = random.Random(11).sample(range(1 << 62), NODES)


def node_routes(metrics: list[int]) -> bytes:
    """Of all nodes, with labels that may always be used."""
    return node_routes_packet([(node, 1, 10, metric, 2) for node, metric in zip(NODE_IDS, metrics, strict=True)])[4:]


def filled_node_table() -> NodeTable:
    """Port 2 offers all 1,000 at 150 ms; the other links are measured and offer nothing."""
    table = NodeTable(1, 16, RandomSource(1))
    for port in range(1, 17):
        table.open_port(port, 0)
        table.measure_port(port, 1000, 0)
    table.receive_updates(2, node_routes([150_000] * NODES), 0)
    return table


def node_changes() -> Loop:
    """Port 1 offers the same nodes; half of the offers become better than those of port 2, half become worse."""
    draw = random.Random(12)
    low = [draw.randrange(10_000, 100_000) for _ in NODE_IDS]
    high = [draw.randrange(200_000, 300_000) for _ in NODE_IDS]
    pairs = [(a, b) if draw.getrandbits(1) else (b, a) for a, b in zip(low, high, strict=True)]
    before, after = (node_routes([pair[side] for pair in pairs]) for side in (0, 1))
    return NodeUpdate(filled_node_table(), before, after)


def node_lookup() -> Loop:
    return NodeLookup(filled_node_table(), array("Q", random.Random(13).sample(NODE_IDS, NODES)), 100)


def claims(macs: list[int], owners: list[int], seq: int) -> bytes:
    """Learned hosts, one owner after the other, as on the wire."""
    return hosts_packet([(mac, 1, 0, owners[at % len(owners)], seq, 0) for at, mac in enumerate(macs)])[4:]


def filled_hosts(macs: list[int]) -> HostTable:
    """These behind ten nodes that port 1 leads to."""
    hosts = HostTable(1, 16, RandomSource(6), max_local=ROUTES)
    owners = list(range(100, 110))
    for port in range(1, 17):
        hosts.open_port(port)
    for owner in owners:
        hosts.reach(owner, 1, 1000, 1, 0)
    hosts.take_in(1, claims(macs, owners, 1), 0)
    while hosts.updates(2, 0):
        pass
    return hosts


def host_lookup() -> Loop:
    return HostLookup(filled_hosts(MACS), array("Q", random.Random(11).sample(MACS, ROUTES)), 10)


def host_learn() -> Loop:
    hosts = filled_hosts(OTHER_MACS)
    for mac in MACS:
        hosts.see(mac, 0)
    return HostLearn(hosts, array("Q", random.Random(12).sample(MACS, ROUTES)), 10)


def host_change() -> Loop:
    """Each host moves between two nodes; more packets than there are rounds."""
    macs = random.Random(13).sample(MACS, UPDATES)
    return HostChange(filled_hosts(MACS), [claims(macs, [100 + seq % 2], seq) for seq in range(2, 400)])


def frame(mac: int, size: int) -> bytes:
    return mac.to_bytes(6, "big") + bytes.fromhex("020000000000 0800") + bytes(size - 14)


def parse(size: int) -> Loop:
    count = INPUT_BYTES // (size + 4)
    return Parse(frame_packet(frame(MACS[0], size)) * count, count, 160_000 // count, 1)


def parse_bulk(size: int) -> Loop:
    count = INPUT_BYTES // (size + 24)
    return Parse(bulk_packet(frame(MACS[0], size)) * count, count, 160_000 // count, 2)


def checksum(size: int, ops: int) -> Loop:
    """Areas, as many as a link reads at once, that a checksum at their end makes right."""
    draw = random.Random(8)
    count = INPUT_BYTES // size
    areas = [draw.randbytes(size - 2) for _ in range(count)]
    return Checksum(b"".join(area + (0xFFFF - ones_sum(area)).to_bytes(2, "big") for area in areas), size, ops // count)


def flow(protocol: int, port: int = 40_000) -> Flow:
    return Flow(protocol=protocol, ports=(port, 5201), tcp_options=TIMESTAMPS if protocol == TCP else b"", has_df=True)


def cut(protocol: int, size: int) -> Loop:
    """A super-frame with payloads of that size, 45 to 64 of them."""
    payload = random.Random(9).randbytes(min(SUPER_BYTES, 64 * size))
    offload, super_frame = flow(protocol).super_frame(payload, size)
    return CutFrame(super_frame, offload, 100)


def coalesce(protocol: int, flows: int, size: int) -> Loop:
    """45 frames of each flow, which take turns."""
    draw = random.Random(10)
    frames = [
        flow(protocol, 40_000 + number).frame(draw.randbytes(size), seq=1 + index * size, identification=index)
        for index in range(45) for number in range(flows)
    ]
    return Coalesce(b"".join(frames), len(frames[0]), 100 // flows)


def switch_with(links: int) -> tuple[Switch, list[Drain]]:
    """A switch with links that are up; port 2 leads to all 10,000."""
    routes = filled_table()
    switch = Switch(routes, IdCache(IDS, RandomSource(2)), RandomSource(3))
    drains = [Drain() for _ in range(links)]
    for port in drains:
        switch.attach(port, SendQueue(), 0)
        switch.receive(port, bare_packet(ROUTE_REQUEST, 0), 0)
        routes.measure_port(port.index, 1000)
    return switch, drains


def step_from_link(size: int) -> Loop:
    switch, drains = switch_with(2)
    count = INPUT_BYTES // (size + 4)
    stream = b"".join(frame_packet(frame(mac, size)) for mac in random.Random(6).sample(MACS, count))
    return LinkStep(switch, stream, drains[1:], count, 8_192 // count, drains[0])


def step_from_tap() -> Loop:
    switch, drains = switch_with(2)
    stream = b"".join(frame(mac, 1500) for mac in random.Random(7).sample(MACS, TAP_FRAMES))
    return TapStep(switch, stream, drains[1:], TAP_FRAMES, 120)


def flood_from_tap() -> Loop:
    switch, drains = switch_with(10)
    return TapStep(switch, frame(BROADCAST_MAC, 1500) * TAP_FRAMES, drains, TAP_FRAMES, 15)


class Calibration:
    """The measure itself, as a case among the others: its ratio should be 1."""

    ops = calibration.ops
    op_bytes = 0

    def prepare(self) -> None:
        pass

    def run(self) -> int:
        calibration.run()
        return self.ops


CASES: dict[str, Callable[[], Loop | Calibration]] = {
    "calibration": Calibration,
    "parse-1500": lambda: parse(1500),
    "parse-64": lambda: parse(64),
    "parse-bulk-1500": lambda: parse_bulk(1500),
    "parse-bulk-64k": lambda: parse_bulk(SUPER_BYTES),
    "checksum-64": lambda: checksum(64, 40_000),
    "checksum-1500": lambda: checksum(1500, 10_000),
    "checksum-64k": lambda: checksum(65_536, 240),
    "cut-tcp-1500": lambda: cut(TCP, SEGMENT_BYTES),
    "cut-udp-64": lambda: cut(UDP, 64),
    "coalesce-tcp-1500": lambda: coalesce(TCP, 1, SEGMENT_BYTES),
    "coalesce-8-tcp-1500": lambda: coalesce(TCP, 8, SEGMENT_BYTES),
    "coalesce-udp-64": lambda: coalesce(UDP, 1, 64),
    "lookup-hit": lambda: lookup(MACS, True),
    "lookup-miss": lambda: lookup(OTHER_MACS, False),
    "route-change": lambda: changes(False),
    "route-new": lambda: comings(True),
    "route-deleted": lambda: comings(False),
    "route-set": lambda: changes(True),
    "node-lookup": node_lookup,
    "node-change": node_changes,
    "host-lookup": host_lookup,
    "host-learn": host_learn,
    "host-change": host_change,
    "id-new": lambda: NewIds(IdCache(IDS, RandomSource(4)), 10_000),
    "id-seen": lambda: SeenIds(IdCache(IDS, RandomSource(5)), 20_000),
    "queue-1500": lambda: Queue(SendQueue(), frame_packet(frame(MACS[0], 1500)), 20_000),
    "step-link-1500": lambda: step_from_link(1500),
    "step-link-64": lambda: step_from_link(64),
    "step-tap-1500": step_from_tap,
    "flood-10-1500": flood_from_tap,
}

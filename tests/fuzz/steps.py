# SPDX-License-Identifier: GPL-3.0-or-later
"""A switch with ports that come, lie and go: no frame is lost uncounted, and in the end nothing is left."""

from __future__ import annotations

import functools
from typing import Any

from cloudvpn._fast.port import Port
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import (
    bare_packet,
    broadcast_packet,
    bulk_packet,
    frame_packet,
    hello_packet,
    hosts_packet,
    node_routes_packet,
    read_packets,
    route_packet,
    seq_requests_packet,
)
from cloudvpn.errors import PeerError
from tests.fuzz.reader import Reader
from tests.model.naive_nodes import INFINITE
from tests.model.naive_offload import Offload
from tests.sim.mesh import EVERYBODY, SECOND, Mesh, Node

OWN = 0x020000000001  # of the mesh's first node
MACS = [OWN, *(0x02BB00000000 + number for number in range(4)), EVERYBODY, 0x01005E000001, 0]
PAUSES = [0, 1, 1000, SECOND // 20, SECOND, 61 * SECOND]
PORTS_MAX = 5
PEERS = [0xAA, 0xBB, 0xCC, 0xDD, 0xEE]


class Peer(Port):
    """A port, and what its peer knows: the echo requests that wait for an answer."""

    def __init__(self) -> None:
        self.unread = self.written = b""
        self.asked: list[int] = []

    def flush(self) -> None:
        while (data := self.take()) is not None:
            self.written += data

    def look(self) -> None:
        """Whatever is written must be packets of the version."""
        packets, used = read_packets(self.written, self.version)
        self.written = self.written[used:]
        self.asked += [packet[1] for packet in packets if packet[0] == 5]


@functools.cache
def node_with(**limits: Any) -> Node:
    """Made once, for its tables take a while: an input leaves nothing in it but broadcast ids and sequence numbers."""
    node = Mesh().node(**limits)
    node.switch.set_alarm(None)  # nobody runs the mesh
    return node


def steps(data: bytes) -> None:
    reader = Reader(data)
    traits = reader.number()
    node = node_with(headless=traits & 1 == 1, learn_macs=traits & 2 == 2, max_local=2, max_ports=PORTS_MAX,
                     max_port_routes=4, max_nodes=3, max_link_claims=3, ids=16)  # fmt: skip
    mesh, switch, ports = node.mesh, node.switch, list[Peer]()
    while reader:
        step = reader.number()
        mesh.now += PAUSES[step >> 4] if step >> 4 < len(PAUSES) else 0
        if step & 15 == 0 or not ports:
            if len(ports) < PORTS_MAX:
                ports.append(attach(reader, switch, mesh.now))
        elif step & 15 == 1:
            switch.detach(ports.pop(reader.number() % len(ports)), mesh.now)
        elif step & 15 == 2:
            switch.flush(mesh.now)
        elif step & 15 == 3:
            for silent in switch.beat(mesh.now, mesh.now // SECOND):
                switch.detach(silent, mesh.now)
                ports.remove(silent)  # type: ignore[arg-type]
        elif step & 15 <= 6:
            switch.send_from_tap(frame(reader), offload(reader), mesh.now)
        else:
            port = reader.choice(ports)
            port.unread += reader.take(reader.number(2)) if step & 15 == 7 else packet(reader, switch, port)
            try:
                port.unread = port.unread[switch.receive(port, port.unread, mesh.now) :]
            except PeerError:
                switch.detach(port, mesh.now)
                ports.remove(port)
        check(node, ports)
    for port in ports:
        switch.detach(port, mesh.now)
    check(node, [])
    assert_empty(switch)
    assert_all_is_forgotten(node)


def assert_conserved(switch: Switch) -> None:
    came = switch.frames_from_tap + switch.frames_from_links + switch.copies
    assert came == switch.frames_to_tap + switch.frames_to_links + sum(switch.dropped().values())


def assert_empty(switch: Switch) -> None:
    """No link is left, and no way."""
    assert switch.attached_count == switch.up_count == switch.waiting_total == 0
    assert switch.routes.offer_count == 0  # the own MAC, too, is there only for links of version 1
    assert [node for node, *_ in switch.nodes.best()] == [switch.node_id]
    assert all(owner == switch.node_id and kind != "foreign" for _, owner, *_, kind, _ in switch.hosts.best())


def assert_all_is_forgotten(node: Node) -> None:
    """What was learned ages, is withdrawn, and then forgotten, as is what other nodes said."""
    mesh, switch = node.mesh, node.switch
    for _ in range(4):
        mesh.now += 302 * SECOND
        switch.beat(mesh.now, mesh.now // SECOND)
    assert switch.nodes.node_count == 0 and not switch.nodes.distances()
    assert [claim[0] for claim in switch.hosts.claims_of_all()] == [switch.own_mac] * bool(switch.own_mac)


def check(node: Node, ports: list[Peer]) -> None:
    assert_conserved(node.switch)
    assert node.switch.frames_to_tap == node.tap.taken
    for port in ports:
        port.look()
        assert port.index and port.queue.waiting_frames == 0
    assert node.switch.ports() == sorted(ports, key=lambda port: port.index)
    assert {way for _, way, *_ in node.switch.known()} <= {0, *(port.index for port in ports)}


def attach(reader: Reader, switch: Switch, now: int) -> Peer:
    port = Peer()
    version = 1 + reader.number() % 2
    switch.attach(port, SendQueue(8, 1 + reader.number() % 4), now, version)
    if version == 2:
        switch.receive(port, hello_packet(reader.choice(PEERS)), now)
    return port


def frame(reader: Reader) -> bytes:
    size = reader.number(2)
    return mac(reader) + mac(reader) + reader.take(size & 0x7FF) if size & 0x8000 else reader.take(size & 0x3FFF)


def mac(reader: Reader) -> bytes:
    return reader.choice(MACS).to_bytes(6, "big")


def offload(reader: Reader) -> Offload:
    if reader.number() & 1:
        return 0, 0, 0, 0, 0, 0
    flags, kind, *fields = reader.number(), reader.number(), *(reader.number(2) for _ in range(4))
    return (flags, kind, *fields)  # type: ignore[return-value]


def packet(reader: Reader, switch: Switch, port: Peer) -> bytes:
    """Of a kind that the version has; the bodies are made of what the other steps know, too."""
    kind = reader.number() % 12
    if kind <= 1:
        return bare_packet(6, port.asked.pop(0) if port.asked else reader.number())
    if kind == 2:
        return bare_packet(5 + reader.number() % 3, reader.number())
    if kind <= 4:
        return broadcast_packet(reader.number(), frame(reader))
    if kind <= 6 and port.version == 1:
        return frame_packet(frame(reader))
    nodes = [*PEERS, 0x11, 0x22, switch.node_id]
    if kind <= 6:
        return bulk_packet(frame(reader), offload(reader), reader.number(), egress=reader.choice([0, *nodes]),
                           flags=reader.number())  # fmt: skip
    count = range(reader.number() % 8)
    if port.version == 1:
        rows = [(reader.choice(MACS), reader.number(), reader.number(2)) for _ in count]
        return route_packet(1 + kind % 2, rows)
    if kind <= 8:
        return node_routes_packet([node_route(reader, nodes) for _ in count])
    if kind == 9:
        return seq_requests_packet([(reader.choice(nodes), reader.number(), reader.number()) for _ in count])
    claims = [(reader.choice(MACS), reader.number() & 0xF, reader.number(), reader.choice([0, *nodes]),
               reader.number(), reader.number(2)) for _ in count]  # fmt: skip
    return hosts_packet(claims)


def node_route(reader: Reader, nodes: list[int]) -> tuple[int, int, int, int, int]:
    """The label is at most the metric, but for a lie now and then; a metric of 0xFFFF tells that the node is gone."""
    node, seq, metric, label = reader.choice(nodes), reader.number(), reader.number(2), reader.number()
    metric = INFINITE if metric == 0xFFFF else metric
    return node, seq, label if label == 0xFF else min(label, metric), metric, reader.number()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers the facts of a running node."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime, timezone

from cloudvpn import __version__
from cloudvpn._fast.link import Link
from cloudvpn.expiry import find_endings
from cloudvpn.facts import (
    FORMAT,
    ExpiringFacts,
    FlowFacts,
    FrameFacts,
    InterfaceFacts,
    LinkFacts,
    ListenerFacts,
    NodeFacts,
    NodeOfferFacts,
    OfferFacts,
    RefusedFacts,
    RouteFacts,
    RoutingFacts,
    TrafficFacts,
    WayFacts,
)
from cloudvpn.interface import Interface
from cloudvpn.log import escape
from cloudvpn.mesh import Mesh
from cloudvpn.tap import offload_kinds
from cloudvpn.traffic import Traffic, traffic_of


class Gatherer:
    """Gathers the facts of one node; keeps what the rates are counted from."""

    def __init__(self, mesh: Mesh, interface: Interface | None) -> None:
        self.mesh = mesh
        self.interface = interface
        self.begun = self.gathered = mesh.loop.time()
        self.before: dict[Link, Traffic] = {}
        self.total_before = Traffic()

    def gather(self, with_offers: bool) -> NodeFacts:
        mesh, switch, routes = self.mesh, self.mesh.switch, self.mesh.switch.routes
        known = switch.known()
        labels = {node: label for node, _, label in switch.nodes.distances()}
        led_to = Counter(port for _, port, *_ in known)
        now, time = mesh.loop.time(), datetime.now(timezone.utc)
        seconds = max(now - self.gathered, 1e-6)
        links = sorted((link for link in mesh.links if link.index), key=lambda link: link.index)
        total = sum((traffic_of(link) for link in mesh.links), mesh.ended_traffic)
        facts = NodeFacts(
            format=FORMAT,
            program=__version__,
            process=os.getpid(),
            time=time,
            uptime_seconds=now - self.begun,
            interface=None if self.interface is None else interface_facts(self.interface),
            listeners=[ListenerFacts(*listener.socket.getsockname()[:2]) for listener in mesh.listeners],
            links=[self.link_facts(link, now, seconds, with_offers, led_to[link.index]) for link in links],
            traffic=traffic_facts(total, self.total_before, seconds),
            routes=[RouteFacts(mac, port - 1, ping, dist, kind, name_node(owner))
                    for mac, port, ping, dist, kind, owner in known],
            frames=FrameFacts(switch.frames_from_tap, switch.frames_to_tap, switch.frames_from_links,
                              switch.frames_to_links, switch.copies),
            dropped=switch.dropped(),
            routes_refused=RefusedFacts(routes.refused_own, routes.refused_far, routes.refused_full),
            node_id=f"{switch.node_id:016x}",
            nodes=[WayFacts(f"{node:016x}", port - 1, metric, hops, sequence, labels.get(node, 0))
                   for node, port, metric, hops, sequence in sorted(switch.nodes.best())],
            routing=RoutingFacts(**switch.routing_counters(), links_slowed=switch.links_slowed,
                                 links_doubted=switch.links_doubted),
            ids_came_back=switch.ids.came_back,
            expiring=[ExpiringFacts(ending.what, ending.time, ending.remedy)
                      for ending in find_endings(mesh.credentials, mesh.peers(), time)],
            handshakes=len(mesh.doorway.visitors),
            events=dict(sorted(mesh.counters.items())),
        )
        self.before = {link: traffic_of(link) for link in links}
        self.total_before = total
        self.gathered = now
        return facts

    def link_facts(self, link: Link, now: float, seconds: float, with_offers: bool, led_to: int) -> LinkFacts:
        switch, info = self.mesh.switch, link.info
        offers = node_offers = None
        if with_offers and link.version == 1:
            offers = [OfferFacts(*offer) for offer in sorted(switch.routes.offered_by(link.index))]
        elif with_offers:
            node_offers = [NodeOfferFacts(f"{node:016x}", *offer)
                           for node, *offer in sorted(switch.nodes.offered_by(link.index))]
        return LinkFacts(
            connection=link.index - 1,
            ping_us=link.echo.ping,
            route_count=switch.routes.count_of(link.index) if link.version == 1 else led_to,
            descriptor=info.descriptor,
            host=info.remote[0],
            port=info.remote[1],
            certificate=escape(info.identity.name) if info.identity else "",
            tls=info.protocol,
            version=link.version,
            age_seconds=now - info.opened,
            traffic=traffic_facts(traffic_of(link), self.before.get(link, Traffic()), seconds),
            waiting_frames=link.queue.waiting_data,
            dropped_frames=link.frames_dropped,
            broadcasts_refused=link.broadcasts_refused,
            node=name_node(link.peer_id),
            offers=offers,
            node_offers=node_offers,
        )


def name_node(node: int) -> str | None:
    return f"{node:016x}" if node else None


def traffic_facts(now: Traffic, before: Traffic, seconds: float) -> TrafficFacts:
    def flow(count: int, packets: int, old_count: int, old_packets: int) -> FlowFacts:
        return FlowFacts(count, packets, (count - old_count) / seconds, (packets - old_packets) / seconds)

    return TrafficFacts(
        received=flow(now.bytes_in, now.packets_in, before.bytes_in, before.packets_in),
        sent=flow(now.bytes_out, now.packets_out, before.bytes_out, before.packets_out),
    )


def interface_facts(interface: Interface) -> InterfaceFacts:
    port, state, device = interface.port, interface.state, interface.device
    return InterfaceFacts(
        name=escape(interface.name),
        mac=None if state is None else state.mac,
        is_up=state is not None and state.is_up,
        offloads=() if device is None else offload_kinds(device.offloads),
        reads=port.reads,
        bytes_read=port.bytes_in,
        writes=port.writes,
        bytes_written=port.bytes_out,
    )

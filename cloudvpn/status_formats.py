# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms of the status: text in the layout of 2009, and JSON, both of the same facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, Final

from cloudvpn.expiry import Ending
from cloudvpn.facts import FlowFacts, InterfaceFacts, LinkFacts, NodeFacts, TrafficFacts
from cloudvpn.tap import describe_offloads, format_mac

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


# Both in parts: of 65,536 hosts the whole would be 8 MB, in several copies.

# JSON: the names of the facts are the keys.


def as_json(facts: NodeFacts) -> Iterator[str]:
    """One object on one line; docs/status.md says what it holds."""
    for number, one in enumerate(fields(facts)):
        yield f'{", " if number else "{"}{json.dumps(one.name)}: '
        value = getattr(facts, one.name)
        if isinstance(value, list):
            yield "["
            for place, item in enumerate(value):
                yield f'{", " if place else ""}{json.dumps(item, default=_plain)}'
            yield "]"
        else:
            yield json.dumps(value, default=_plain)
    yield "}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {one.name: _show(one.name, getattr(value, one.name)) for one in fields(value)}


def _show(name: str, value: Any) -> Any:
    return format_mac(value) if name == "mac" and value is not None else value


# Text.


def as_text(facts: NodeFacts) -> Iterator[str]:
    """The lines of 2009 in their order, then one block of what it did not have."""
    return (f"{line}\n" for line in _lines(facts))


def _lines(facts: NodeFacts) -> Iterator[str]:
    yield "cloudvpn status"
    yield f"uptime: {facts.uptime_seconds:.6g}s"
    yield ""
    yield f"local interface: {_local(facts.interface)}"
    yield f"listening sockets: {len(facts.listeners)}"
    yield ""
    yield f"connections: {len(facts.links)}"
    for link in facts.links:
        yield from _link_lines(link)
    yield "---"
    yield ""
    yield from _traffic_lines("total ", facts.traffic)
    yield "---"
    yield ""
    yield f"local route count: {len(facts.routes)}"
    for route in facts.routes:
        yield (f"route to {format_mac(route.mac)} \tvia conn {route.connection} \tping {route.ping_us} "
               f"\tdistance {route.distance}")
    yield "---"
    yield ""
    yield from _new_lines(facts)
    yield "---"


def _local(interface: InterfaceFacts | None) -> str:
    if interface is None:
        return "none"
    return f"{interface.name} is gone" if interface.mac is None else format_mac(interface.mac)


def _link_lines(link: LinkFacts) -> Iterator[str]:
    yield (f"connection {link.connection} \tping {link.ping_us} \troute count {link.route_count} "
           f"\t(fd {link.descriptor})")
    yield f" = connected to addr `{link.host} {link.port}'"
    node = "" if link.node is None else f", node {link.node}"
    yield f" = certificate `{link.certificate}', {link.tls}, version {link.version}{node}"
    yield f" = connected for {link.age_seconds:.6g} seconds"
    yield from _traffic_lines("", link.traffic)
    if link.dropped_frames or link.waiting_frames:
        yield f" = waiting {link.waiting_frames} frames, dropped {link.dropped_frames}"
    if link.broadcasts_refused:
        yield f" = over broadcast_limit {link.broadcasts_refused} frames"
    for offer in link.offers or ():
        yield f" `--route to {format_mac(offer.mac)} \tdist {offer.distance} \tping {offer.ping_us}"
    for way in link.node_offers or ():
        yield f" `--node {way.node} \thops {way.hops} \tcost {way.cost_us} \tnumber {way.sequence} \tlabel {way.label}"


def _traffic_lines(label: str, traffic: TrafficFacts) -> Iterator[str]:
    yield f" >> {label}in  {_flow(traffic.received)}"
    yield f" << {label}out {_flow(traffic.sent)}"


def _flow(flow: FlowFacts) -> str:
    return (f"{format_bytes(flow.bytes_per_second)}/s, {flow.packets_per_second:.0f}pkt/s; "
            f"total {format_bytes(flow.bytes)}, {flow.packets}pkt")


def _new_lines(facts: NodeFacts) -> Iterator[str]:
    """What 2009 did not have: where frames went, each lost one by its reason."""
    yield f"written: {facts.time:%Y-%m-%d %H:%M:%S} UTC by cloudvpn {facts.program}, process {facts.process}"
    if facts.listeners:
        yield "listening: " + ", ".join(f"{listener.host} {listener.port}" for listener in facts.listeners)
    if facts.interface is not None:
        yield f"interface: {_interface(facts.interface)}"
    frames, refused = facts.frames, facts.routes_refused
    yield (f"frames: from interface {frames.from_interface}, to interface {frames.to_interface}, "
           f"from links {frames.from_links}, to links {frames.to_links}, copies {frames.copies}")
    yield f"dropped: {_counters(facts.dropped)}"
    yield (f"routes refused: own {refused.own}, far {refused.far}, full {refused.full}; "
           f"broadcast ids that came back after they were forgotten {facts.ids_came_back}")
    yield f"node: {facts.node_id}"
    hosts = Counter(route.node for route in facts.routes)
    for way in facts.nodes:
        yield (f"node {way.node} \tvia conn {way.connection} \tcost {way.cost_us} \thops {way.hops} "
               f"\tnumber {way.sequence} \tlabel {way.label} \thosts {hosts[way.node]}")
    for route in facts.routes:
        yield f"host {format_mac(route.mac)} \t{route.kind} \tat {route.node or 'no node of version 2'}"
    routing = facts.routing
    yield f"ways changed: {_counters(routing.changes)}"
    yield (f"ways announced: {_counters(routing.announcements)}; "
           f"links slowed {routing.links_slowed}, doubted {routing.links_doubted}")
    yield f"hosts: {_counters(routing.hosts)}"
    for one in facts.expiring:
        yield f"expiring: {Ending(one.what, one.time, one.remedy).describe(facts.time)}"
    yield f"handshakes: {facts.handshakes}"
    yield f"links: {_counters(facts.events) or 'none yet'}"


def _interface(interface: InterfaceFacts) -> str:
    state = "gone" if interface.mac is None else "up" if interface.is_up else "down"
    return (f"{interface.name} {state}, {describe_offloads(interface.offloads)}; {interface.reads} reads, "
            f"{interface.bytes_read} bytes, {interface.writes} writes, {interface.bytes_written} bytes")


def _counters(counters: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counters.items())


def format_bytes(count: float) -> str:
    """As 2009 wrote them: 40B, 2.73KiB."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f}{UNITS[unit]}" if unit == 0 else f"{count:.2f}{UNITS[unit]}"


FORMATS: Final[Mapping[str, Callable[[NodeFacts], Iterator[str]]]] = {"text": as_text, "json": as_json}

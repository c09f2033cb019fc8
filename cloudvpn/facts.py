# SPDX-License-Identifier: GPL-3.0-or-later
"""What is going on in a node, as one structure that every form of the status is made from."""
# ruff: noqa: RUF009 - fact() is a field() without default

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

FORMAT: Final = 1


def fact(meaning: str, unit: str = "") -> Any:
    """A field with what docs/status.md says of it."""
    return field(metadata={"meaning": meaning, "unit": unit})


@dataclass(slots=True)
class FlowFacts:
    """What went one way; bytes are counted inside TLS."""

    bytes: int = fact("since the link was made; in `traffic` since the node began", "bytes")
    packets: int = fact("the same, all types of packets", "packets")
    bytes_per_second: float = fact("since the last status", "bytes/s")
    packets_per_second: float = fact("since the last status", "packets/s")


@dataclass(slots=True)
class TrafficFacts:
    """Both ways."""

    received: FlowFacts = fact("from the peer")
    sent: FlowFacts = fact("to the peer")


@dataclass(slots=True)
class OfferFacts:
    """One route that a peer of version 1 announces."""

    mac: int = fact("the destination")
    distance: int = fact("from the peer on", "links")
    ping_us: int = fact("from the peer on", "us")


@dataclass(slots=True)
class NodeOfferFacts:
    """How a peer of version 2 reaches a node, as it says: docs/routing.md."""

    node: str = fact("id of the destination")
    sequence: int = fact("number that the destination raises when its surroundings change")
    label: int = fact("least cost that the peer ever had under this number", "us")
    cost_us: int = fact("from the peer on", "us")
    hops: int = fact("from the peer on", "links")


@dataclass(slots=True)
class LinkFacts:
    """A link whose peer was judged good; until its first packet it has yet to show that it took us too."""

    connection: int = fact("number of the link, given again when it is gone")
    ping_us: int = fact("last measured; 0: not yet", "us")
    route_count: int = fact("routes that the peer announces; in version 2 hosts that are reached by it", "routes")
    descriptor: int = fact("of its socket")
    host: str = fact("address of the peer")
    port: int = fact("of the peer")
    certificate: str = fact("name in the peer's certificate")
    tls: str = fact("version of TLS")
    version: int = fact("of the wire")
    age_seconds: float = fact("since the TCP connection", "s")
    traffic: TrafficFacts = fact("over this link")
    waiting_frames: int = fact("in the queue of the link; a super-frame is one", "frames")
    dropped_frames: int = fact("that were to go over this link and were lost", "frames")
    broadcasts_refused: int = fact("from the peer, dropped because of `broadcast_limit`", "frames")
    node: str | None = fact("who the peer is in version 2: an id that it draws at each start; null: it did not say yet")
    offers: list[OfferFacts] | None = fact(
        "what a peer of version 1 announces, sorted by MAC; null without `status-verbose`")
    node_offers: list[NodeOfferFacts] | None = fact("the same of version 2, sorted by node")


@dataclass(slots=True)
class InterfaceFacts:
    """The TAP. A super-frame, which stands for up to 64 frames, is read or written at once."""

    name: str = fact("as the kernel has it, or had it last")
    mac: int | None = fact("null: the interface was deleted")
    is_up: bool = fact("whether it is set up")
    offloads: tuple[str, ...] = fact("what the kernel hands over as super-frames: TCP, UDP")
    reads: int = fact("system calls that read a frame or a super-frame")
    bytes_read: int = fact("with 10 of offload header for each, if there are offloads", "bytes")
    writes: int = fact("the same, written")
    bytes_written: int = fact("the same, written", "bytes")


@dataclass(slots=True)
class RouteFacts:
    """The way that is used to a MAC."""

    mac: int = fact("the destination")
    connection: int = fact("the link; -1: this node itself")
    ping_us: int = fact("of the whole way", "us")
    distance: int = fact("of the whole way; 0: this node itself", "links")
    kind: str = fact(
        "`fixed`: MAC of a node's interface, `learned`: host behind one, `old`: behind one of our links of version 1, "
        "`foreign`: behind one of another node")
    node: str | None = fact("id of the node where it is; null: behind a link of version 1")


@dataclass(slots=True)
class WayFacts:
    """The way that is used to a node of version 2."""

    node: str = fact("its id")
    connection: int = fact("the link; -1: this node itself")
    cost_us: int = fact("of the whole way: smoothed pings + 2 for each link", "us")
    hops: int = fact("of the whole way", "links")
    sequence: int = fact("number that the node raises when its surroundings change")
    label: int = fact("least cost that we ever had under this number; only peers with a lower one are used", "us")


@dataclass(slots=True)
class FrameFacts:
    """Where frames went: from_interface + from_links + copies = to_interface + to_links + all that was dropped."""

    from_interface: int = fact("read from the TAP", "frames")
    to_interface: int = fact("written to the TAP", "frames")
    from_links: int = fact("received", "frames")
    to_links: int = fact("put into the queues of links", "frames")
    copies: int = fact("made by flooding", "frames")


@dataclass(slots=True)
class RefusedFacts:
    """Announcements that were not taken."""

    own: int = fact("our own MAC or a group MAC; every neighbour announces our own MAC back to us, so this grows")
    far: int = fact("at `route_max_dist` or over")
    full: int = fact("over `max_remote_routes`")


@dataclass(slots=True)
class RoutingFacts:
    """What happened to ways in version 2 since the start; docs/routing.md."""

    changes: dict[str, int] = fact("other ways were taken, by cause")
    announcements: dict[str, int] = fact("what was refused, asked for and passed on")
    hosts: dict[str, int] = fact("claims of hosts: refused, moved, disputed")
    links_slowed: int = fact("times that a link was not read for a while, because it brought too many routes")
    links_doubted: int = fact("times that a link was silent, so that other ways were preferred")


@dataclass(slots=True)
class ListenerFacts:
    """A bound socket."""

    host: str = fact("address, `0.0.0.0` and `::` mean every one")
    port: int = fact("TCP port")


@dataclass(slots=True)
class ExpiringFacts:
    """A certificate within 30 days of its end, a revocation list within 3, or one that is past it."""

    what: str = fact("whose")
    time: datetime = fact("its end")
    remedy: str = fact("what to do")


@dataclass(slots=True)
class NodeFacts:
    """One node at one time."""

    format: int = fact("of this structure; another number means that names or meanings changed")
    program: str = fact("version of CloudVPN")
    process: int = fact("process id")
    time: datetime = fact("when this was gathered")
    uptime_seconds: float = fact("since the start", "s")
    interface: InterfaceFacts | None = fact("null: headless")
    listeners: list[ListenerFacts] = fact("where links are accepted")
    links: list[LinkFacts] = fact("in the order of their numbers")
    traffic: TrafficFacts = fact("over all links, of those that ended too")
    routes: list[RouteFacts] = fact("sorted by MAC")
    frames: FrameFacts = fact("where they went")
    dropped: dict[str, int] = fact("lost frames by reason, see below", "frames")
    routes_refused: RefusedFacts = fact("since the start, from links of version 1")
    node_id: str = fact("who this node is in version 2; drawn at each start")
    nodes: list[WayFacts] = fact("of version 2, this one too, sorted by id")
    routing: RoutingFacts = fact("since the start")
    ids_came_back: int = fact("broadcasts that came after their id was forgotten: `br_id_cache_size` is too small")
    expiring: list[ExpiringFacts] = fact("the first to end comes first")
    handshakes: int = fact("accepted connections that are no links yet, see `max_handshakes`")
    events: dict[str, int] = fact("what happened to links since the start, see below")

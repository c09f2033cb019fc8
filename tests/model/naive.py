# SPDX-License-Identifier: GPL-3.0-or-later
"""Deliberately slow twins of the tables, written from the rules alone: no index, no cache, all is computed anew."""

from __future__ import annotations

from dataclasses import dataclass

INFINITE = 0xFFFFFFFF  # us
FOREIGN_MAX = 65533      # of the 65,535 that fit a set; the own MAC always finds a place
WRITE_BYTES = 65536
PROTO_BYTES_MAX = 2 * 786424
LOCAL = 0

Entry = tuple[int, int, int]
"""MAC, dist in hops, ping in us, as announced."""


@dataclass
class NaiveWay:
    """What a table remembers of a MAC: the way that frames take, and the hold rule's minima."""

    port: int | None = None
    ping: int = 0
    dist: int = 0
    least_ping: int = INFINITE
    least_dist: int = 0xFFFF
    is_lost: bool = False
    """had a way, and the heartbeat decides"""
    line: str = ""
    """`held` or `resting`, `since` a beat"""
    since: int = 0


class NaiveRouteTable:
    """Offers by port and MAC; with each change the best way is chosen anew among all offers of that MAC.

    Where two offers of one port are equally far and one must go, this twin keeps the older: with limits in reach feed
    it pings that differ.
    """

    def __init__(
        self,
        max_ports: int,
        max_port_routes: int,
        *,
        max_dist: int = 64,
        report_above: int = 5000,
        max_offers: int = 1 << 20,
        rule_2009: bool = False,
    ) -> None:
        self.max_port_routes, self.max_dist, self.report_above = max_port_routes, max_dist, report_above
        self.max_offers, self.rule_2009 = max_offers, rule_2009
        self.mesh = max_ports + 1
        self.offers: list[dict[int, tuple[int, int]]] = [{} for _ in range(max_ports + 2)]
        self.claims: dict[int, tuple[int, int]] = {}
        """MAC -> dist and ping that another border claims"""
        self.exclusive: set[int] = set()
        self.pings = [0] * (max_ports + 1)
        self.overflowed: set[int] = set()
        self.told: dict[int, tuple[int, int, int]] = {}
        """MAC -> dist, ping, and the port that was not told"""
        self.ways: dict[int, NaiveWay] = {}
        """of each MAC that takes a place"""
        self.beats = 0
        self.refused_own = self.refused_far = self.refused_full = 0

    def open(self, port: int) -> None:
        self.pings[port] = 0
        self.overflowed.discard(port)

    def close(self, port: int) -> None:
        for mac in list(self.offers[port]):
            self.drop(port, mac)

    def measure(self, port: int, ping: int) -> None:
        self.pings[port] = ping
        for mac in self.offers[port]:
            self.choose(mac)

    def apply_set(self, port: int, entries: list[Entry]) -> None:
        mine, named = self.offers[port], set()
        for mac, dist, ping in entries:
            if ping and dist < self.max_dist and mac in mine:
                named.add(mac)
                mine[mac] = dist, ping
                self.choose(mac)
        for mac in mine.keys() - named:
            self.drop(port, mac)
        for entry in entries:
            if entry[2]:
                self.put(port, *entry)

    def apply_diff(self, port: int, entries: list[Entry]) -> None:
        for mac, dist, ping in entries:
            if ping:
                self.put(port, mac, dist, ping)
            else:
                self.drop(port, mac)

    def set_local(self, mac: int, present: bool) -> None:
        self.apply_diff(LOCAL, [(mac, 0, int(present))])

    def set_mesh(self, mac: int, ping: int, dist: int, exclusive: bool, claim_ping: int, claim_dist: int) -> bool:
        if not ping:
            self.drop(self.mesh, mac)
        elif mac >> 40 & 1:
            self.refused_own += 1
        elif mac not in self.ways and len(self.ways) >= FOREIGN_MAX:
            self.refuse(self.mesh)
            return False
        else:
            self.ways.setdefault(mac, NaiveWay())
            if mac not in self.offers[self.mesh] and self.offer_count() >= self.max_offers:
                self.refuse(self.mesh)
                return False
            self.offers[self.mesh][mac] = dist, ping
            self.claims[mac] = min(claim_dist, dist), min(claim_ping, ping)
            (self.exclusive.add if exclusive else self.exclusive.discard)(mac)
            self.count_claim(mac)
            self.choose(mac)
        return True

    def put(self, port: int, mac: int, dist: int, ping: int) -> None:
        mine = self.offers[port]
        if port != LOCAL and (mac >> 40 & 1 or mac in self.offers[LOCAL]):
            self.refused_own += 1
            self.drop(port, mac)
        elif port != LOCAL and dist >= self.max_dist:
            self.refused_far += 1
            self.drop(port, mac)
        elif mac in mine:
            mine[mac] = dist, ping
            self.choose(mac)
        else:
            self.add(port, mac, dist, ping)

    def add(self, port: int, mac: int, dist: int, ping: int) -> None:
        mine = self.offers[port]
        if port != LOCAL and len(mine) >= self.max_port_routes:
            self.refuse(port)
            farthest = max(mine, key=lambda other: mine[other][1])
            if ping >= mine[farthest][1]:
                return
            self.drop(port, farthest)
        if port != LOCAL and mac not in self.ways and len(self.ways) >= FOREIGN_MAX:
            self.refuse(port)
            return
        self.ways.setdefault(mac, NaiveWay())
        if self.offer_count() >= self.max_offers + (port == LOCAL):
            self.refuse(port)
            return
        mine[mac] = dist, ping
        self.choose(mac)

    def drop(self, port: int, mac: int) -> None:
        if mac in self.offers[port]:
            del self.offers[port][mac]
            if port == self.mesh:
                del self.claims[mac]
                self.exclusive.discard(mac)
            self.choose(mac)

    def refuse(self, port: int) -> None:
        self.refused_full += 1
        self.overflowed.add(port)

    def asks_again(self, port: int) -> bool:
        has_room = (
            (port == self.mesh or len(self.offers[port]) < self.max_port_routes)
            and self.offer_count() < self.max_offers
            and len(self.ways) < FOREIGN_MAX
        )
        if port not in self.overflowed or not has_room:
            return False
        self.overflowed.remove(port)
        return True

    def offer_count(self) -> int:
        return sum(map(len, self.offers))

    def offered_by(self, port: int) -> set[Entry]:
        return {(mac, *route) for mac, route in self.offers[port].items()}

    # The best way.

    def is_link(self, port: int) -> bool:
        return port not in (LOCAL, self.mesh)

    def cost(self, port: int, ping: int) -> int:
        if not self.is_link(port):
            return ping
        return min(ping + self.pings[port] + 2, INFINITE) if self.pings[port] else INFINITE

    def below(self, mac: int, port: int) -> tuple[bool, bool]:
        """Whether the offer is below the least ping, and below the least dist."""
        way, (dist, ping) = self.ways[mac], self.offers[port][mac]
        if self.rule_2009 or port == LOCAL or (port == self.mesh and mac in self.exclusive):
            return True, True
        if port == self.mesh:
            dist, ping = self.claims[mac]
            return ping <= way.least_ping, dist <= way.least_dist
        return ping < way.least_ping, dist < way.least_dist

    def candidates(self, mac: int) -> dict[int, tuple[int, int, int]]:
        """The feasible offers: port -> cost, dist of the whole way, port."""
        found = {}
        for port, mine in enumerate(self.offers):
            if mac in mine and any(self.below(mac, port)) and not (mac in self.exclusive and self.is_link(port)):
                dist, ping = mine[mac]
                if self.cost(port, ping) < INFINITE:
                    found[port] = self.cost(port, ping), dist + self.is_link(port), port
        return found

    def wins(self, new: tuple[int, int, int], old: tuple[int, int, int]) -> bool:
        if self.rule_2009 or LOCAL in (new[2], old[2]):
            return new < old
        gain = old[0] - new[0]
        return gain >= 0 and ((gain >= 2000 and gain >= old[0] // 10) or new[1] < old[1])

    def choose(self, mac: int, at_beat: bool = False) -> None:
        if mac not in self.ways:
            return
        way, found = self.ways[mac], self.candidates(mac)
        best = found.get(way.port) if way.port is not None else None
        better = [
            new
            for new in found.values()
            if (best is None or (new != best and self.wins(new, best))) and (at_beat or all(self.below(mac, new[2])))
        ]
        self.take(mac, min(better, default=best), at_beat or self.rule_2009)

    def take(self, mac: int, best: tuple[int, int, int] | None, is_decided: bool) -> None:
        way = self.ways[mac]
        before = way.ping, way.dist, way.port
        if best is None:
            way.is_lost |= way.port is not None
            way.port, way.ping = None, 0
            if way.line == "resting":
                way.line = ""
            if way.is_lost and is_decided:
                way.is_lost = False
                if self.rule_2009 or (way.least_dist == 0 and not any(mac in mine for mine in self.offers)):
                    self.forget_minima(mac)
                else:
                    way.line, way.since = "held", self.beats
            return
        way.ping, way.dist, way.port = best
        way.least_ping, way.least_dist = min(way.least_ping, way.ping), min(way.least_dist, way.dist)
        way.is_lost = False
        if not self.rule_2009 and (before[1:] != best[1:] or (before != best and not way.line)):
            way.line, way.since = "resting", self.beats

    def forget_minima(self, mac: int) -> None:
        self.ways[mac].least_ping, self.ways[mac].least_dist = INFINITE, 0xFFFF
        self.count_claim(mac)

    def count_claim(self, mac: int) -> None:
        way = self.ways[mac]
        if mac in self.claims and mac not in self.exclusive:
            dist, ping = self.claims[mac]
            way.least_ping, way.least_dist = min(way.least_ping, ping), min(way.least_dist, dist)

    def best(self) -> dict[int, tuple[int, int, int]]:
        """MAC -> port, ping, dist."""
        return {mac: (way.port, way.ping, way.dist) for mac, way in self.ways.items() if way.port is not None}

    def beat(self, ports: list[int]) -> list[dict[int, tuple[int, int] | None]]:
        """One heartbeat: for each of these ports MAC -> dist and ping, or None if it is gone."""
        self.beats += 1
        for mac, way in self.ways.items():
            if way.line == "held" and self.beats - way.since >= 20:
                way.line = ""
                self.forget_minima(mac)
            elif way.line == "resting" and self.beats - way.since >= 10:
                way.line = ""
                way.least_ping, way.least_dist = way.ping, way.dist
                self.count_claim(mac)
            self.choose(mac, True)
        before = {port: self.whole(port) for port in ports}
        moved = set()
        for mac, way in self.ways.items():
            old = self.told.pop(mac, None)
            if way.port is not None:
                new = way.dist, way.ping
                if old and old[0] == new[0] and abs(old[1] - new[1]) <= self.report_above:
                    new = old[:2]
                else:
                    moved.add(mac)
                self.told[mac] = *new, way.port
        self.ways = {
            mac: way for mac, way in self.ways.items()
            if way.line == "held" or any(mac in mine for mine in self.offers)
        }  # fmt: skip
        diffs = []
        for port in ports:
            now, then = self.whole(port), before[port]
            news = (now.keys() ^ then.keys()) | (now.keys() & moved)
            diffs.append({mac: now.get(mac) for mac in news})
        return diffs

    def whole(self, port: int) -> dict[int, tuple[int, int]]:
        """MAC -> dist and ping, as this port was told: nothing of what it is the way to."""
        return {mac: way[:2] for mac, way in self.told.items() if self.rule_2009 or way[2] != port}


class NaiveIdCache:
    """All ids ever taken in; the last `capacity` of them are remembered, as many before them just forgotten."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken: list[int] = []
        self.came_back = 0

    def check(self, broadcast_id: int) -> bool:
        if broadcast_id in self.taken[-self.capacity :]:
            return True
        self.came_back += broadcast_id in self.taken[-2 * self.capacity :]
        self.taken.append(broadcast_id)
        return False


class NaiveSendQueue:
    """Two lists of packets."""

    def __init__(self, max_proto: int, max_data: int, max_data_bytes: int) -> None:
        self.max_proto, self.max_data, self.max_data_bytes = max_proto, max_data, max_data_bytes
        self.proto: list[bytes] = []
        self.leaving = b""          # protocol packets of which a part has left
        self.data: list[bytes] = []

    def push_proto(self, packet: bytes) -> bool:
        waiting = self.leaving + b"".join(self.proto) + packet
        has_room = len(self.proto) < self.max_proto and len(waiting) <= PROTO_BYTES_MAX
        self.proto += [packet] * has_room
        return has_room

    def push_data(self, packet: bytes) -> bool:
        has_room = len(self.data) < self.max_data and len(b"".join(self.data) + packet) <= self.max_data_bytes
        self.data += [packet] * has_room
        return has_room

    def accepts(self, popped: tuple[bytes, int] | None) -> bool:
        """Whether the next write may be this: all protocol first, then the oldest frames, 64 KiB or one; takes them."""
        if not self.leaving:
            self.leaving, self.proto = b"".join(self.proto), []
        if self.leaving:
            expected, self.leaving = self.leaving[:WRITE_BYTES], self.leaving[WRITE_BYTES:]
            return popped == (expected, 0)
        if popped is None or not self.data:
            return popped is None and not self.data
        written, frames = popped
        oldest, self.data = self.data[:frames], self.data[frames:]
        return written == b"".join(oldest) and (frames == 1 or (frames > 1 and len(written) <= WRITE_BYTES))

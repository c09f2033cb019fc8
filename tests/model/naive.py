# SPDX-License-Identifier: GPL-3.0-or-later
"""Deliberately slow twins of the tables, written from the rules alone: no index, no cache, all is computed anew."""

from __future__ import annotations

INFINITE = 0xFFFFFFFF  # us
FOREIGN_MAX = 65533      # of the 65,535 that fit a set; the own MAC always finds a place
WRITE_BYTES = 65536
PROTO_BYTES_MAX = 2 * 786424
LOCAL = 0

Entry = tuple[int, int, int]
"""MAC, dist in hops, ping in us, as announced."""


class NaiveRouteTable:
    """Offers by port and MAC; what is best and what is told follows from them each time it is asked.

    Where two offers of one port are equally far and one must go, this twin keeps the older: with limits in reach feed
    it pings that differ.
    """

    def __init__(
        self, max_ports: int, max_port_routes: int, *, max_dist: int, report_above: int, max_offers: int
    ) -> None:
        self.max_port_routes, self.max_dist, self.report_above = max_port_routes, max_dist, report_above
        self.max_offers = max_offers
        self.offers: list[dict[int, tuple[int, int]]] = [{} for _ in range(max_ports + 1)]
        self.pings = [0] * (max_ports + 1)
        self.overflowed: set[int] = set()
        self.told: dict[int, tuple[int, int]] = {}
        self.known: set[int] = set()  # MACs that take a place, until the neighbours were told that they are gone
        self.refused_own = self.refused_far = self.refused_full = 0

    def open(self, port: int) -> None:
        self.pings[port] = 0
        self.overflowed.discard(port)

    def close(self, port: int) -> None:
        self.offers[port] = {}

    def measure(self, port: int, ping: int) -> None:
        self.pings[port] = ping

    def apply_set(self, port: int, entries: list[Entry]) -> None:
        last = {mac: (dist, ping) for mac, dist, ping in entries if ping}
        kept = {mac for mac in self.offers[port] if mac in last and last[mac][0] < self.max_dist}
        self.offers[port] = {mac: last[mac] for mac in self.offers[port] if mac in kept}
        for entry in entries:
            if entry[2]:
                self.put(port, *entry)

    def apply_diff(self, port: int, entries: list[Entry]) -> None:
        for mac, dist, ping in entries:
            if ping:
                self.put(port, mac, dist, ping)
            else:
                self.offers[port].pop(mac, None)

    def set_local(self, mac: int, present: bool) -> None:
        self.apply_diff(LOCAL, [(mac, 0, int(present))])

    def put(self, port: int, mac: int, dist: int, ping: int) -> None:
        mine = self.offers[port]
        if port != LOCAL and (mac >> 40 & 1 or mac in self.offers[LOCAL]):
            self.refused_own += 1
            mine.pop(mac, None)
        elif port != LOCAL and dist >= self.max_dist:
            self.refused_far += 1
            mine.pop(mac, None)
        elif mac in mine:
            mine[mac] = dist, ping
        else:
            self.add(port, mac, dist, ping)

    def add(self, port: int, mac: int, dist: int, ping: int) -> None:
        mine = self.offers[port]
        if port != LOCAL and len(mine) >= self.max_port_routes:
            self.refuse(port)
            farthest = max(mine, key=lambda other: mine[other][1])
            if ping >= mine[farthest][1]:
                return
            del mine[farthest]
        if port != LOCAL and mac not in self.known and len(self.known) >= FOREIGN_MAX:
            self.refuse(port)
            return
        self.known.add(mac)
        if self.offer_count() >= self.max_offers + (port == LOCAL):
            self.refuse(port)
            return
        mine[mac] = dist, ping

    def refuse(self, port: int) -> None:
        self.refused_full += 1
        self.overflowed.add(port)

    def asks_again(self, port: int) -> bool:
        has_room = (
            len(self.offers[port]) < self.max_port_routes
            and self.offer_count() < self.max_offers
            and len(self.known) < FOREIGN_MAX
        )
        if port not in self.overflowed or not has_room:
            return False
        self.overflowed.remove(port)
        return True

    def offer_count(self) -> int:
        return sum(map(len, self.offers))

    def offered_by(self, port: int) -> set[Entry]:
        return {(mac, *route) for mac, route in self.offers[port].items()}

    def cost(self, port: int, ping: int) -> int:
        if port == LOCAL:
            return ping
        return min(ping + self.pings[port] + 2, INFINITE) if self.pings[port] else INFINITE

    def best(self) -> dict[int, tuple[int, int, int]]:
        """MAC -> port, ping, dist; of ways equally long the one of fewer hops, then of the lower port."""
        found: dict[int, tuple[int, int, int]] = {}
        for port, mine in enumerate(self.offers):
            for mac, (dist, ping) in mine.items():
                way = self.cost(port, ping), dist, port
                if way[0] < INFINITE and (mac not in found or way < found[mac]):
                    found[mac] = way
        return {mac: (port, cost, dist + (port != LOCAL)) for mac, (cost, dist, port) in found.items()}

    def diff(self) -> dict[int, tuple[int, int] | None]:
        """MAC -> dist and ping, or None if it is gone; told only once."""
        now = {mac: (dist, ping) for mac, (_, ping, dist) in self.best().items()}
        changes: dict[int, tuple[int, int] | None] = {}
        for mac in now.keys() | self.told.keys():
            new, old = now.get(mac), self.told.get(mac)
            if not (new and old) or new[0] != old[0] or abs(new[1] - old[1]) > self.report_above:
                changes[mac] = new
        for mac, route in changes.items():
            if route is None:
                del self.told[mac]
            else:
                self.told[mac] = route
        self.known = set().union(*self.offers)
        return changes


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
        self.data: list[bytes] = []

    def push_proto(self, packet: bytes) -> bool:
        has_room = len(self.proto) < self.max_proto and len(b"".join(self.proto) + packet) <= PROTO_BYTES_MAX
        self.proto += [packet] * has_room
        return has_room

    def push_data(self, packet: bytes) -> bool:
        has_room = len(self.data) < self.max_data and len(b"".join(self.data) + packet) <= self.max_data_bytes
        self.data += [packet] * has_room
        return has_room

    def accepts(self, popped: tuple[bytes, int] | None) -> bool:
        """Whether the next write may be this: all protocol first, then the oldest frames, 64 KiB or one; takes them."""
        if self.proto:
            expected, self.proto = b"".join(self.proto), []
            return popped == (expected, 0)
        if popped is None or not self.data:
            return popped is None and not self.data
        written, frames = popped
        oldest, self.data = self.data[:frames], self.data[frames:]
        return written == b"".join(oldest) and (frames == 1 or (frames > 1 and len(written) <= WRITE_BYTES))

# SPDX-License-Identifier: GPL-3.0-or-later
"""A deliberately slow twin of the host table, written from the rules alone: lists of claims, all choices made anew."""

from __future__ import annotations

from dataclasses import dataclass, field

PRESENT, FIXED, FOREIGN = 1, 2, 4
INFINITE = 0xFFFFFFFF
S = 1_000_000
KEPT, OWN_KEPT, HELD, GATHER = 180 * S, 190 * S, 10 * S, 20_000
KINDS = ("withdrawn", "foreign", "learned", "fixed")
FOREIGN_PORT = 0xFFFFFFFE

Entry = tuple[int, int, int, int, int, int]
"""MAC, flags, hops, owner, seq, ping, as on the wire."""
Key = tuple[int, int]
"""MAC, owner."""


def newer(a: int, b: int) -> bool:
    return 0 < (a - b) % 2**32 < 2**31


def rank(flags: int) -> int:
    """Place in KINDS."""
    if not flags & PRESENT:
        return 0
    return 3 if flags & FIXED else 1 if flags & FOREIGN else 2


@dataclass
class Claim:
    seq: int
    flags: int = 0
    hops: int = 0
    ping: int = 0
    since: int = 0  # withdrawn; of an own learned one: seen last
    source: tuple[int, int] | None = None  # port, and which of its attachments

    @property
    def kind(self) -> int:
        return rank(self.flags)


@dataclass
class Mine:
    """Why this node claims a MAC."""

    fixed: bool = False
    learned: bool = False
    ping: int = 0
    hops: int = 0
    held_since: int | None = None
    awaited: bool = False
    stranger: bool = False


@dataclass
class Neighbour:
    attachment: int
    exchange: set[Key]  # what it is owed of what there was when it came
    news: set[Key] = field(default_factory=set)
    released: set[Key] = field(default_factory=set)
    joined: set[Key] = field(default_factory=set)  # what there was when it came or asked for all, and has not changed
    whole: set[Key] = field(default_factory=set)  # the same since it asked for all
    again: set[Key] = field(default_factory=set)  # of `joined`: answers to older claims
    repeats: int = 0  # answers; more than one may say the same
    overflowed: bool = False
    may_ask: bool = False   # since then a node became reachable


@dataclass
class Way:
    port: int
    metric: int
    hops: int


class NaiveHostTable:
    def __init__(
        self, me: int, *, max_link_claims: int = 65536, max_local: int = 4096, mac_age: int = 300 * S,
        max_claims: int = 1 << 20, max_owners: int = 4096, report_above: int = 5000,
    ) -> None:
        self.me, self.wall, self.learns = me, 0, True
        self.max_link_claims, self.max_local, self.mac_age = max_link_claims, max_local, mac_age
        self.max_claims, self.max_owners, self.report_above = max_claims, max_owners, report_above
        self.max_own = 3 * max_local + 65535
        self.claims: dict[Key, Claim] = {}
        self.mine: dict[int, Mine] = {}
        self.ways: dict[int, Way] = {me: Way(0, 0, 0)}
        self.lost: dict[int, int] = {}  # unreachable owner of claims -> since when; the longest lost first
        self.moved: dict[int, list[int]] = {}
        self.ports: dict[int, Neighbour] = {}
        self.attachments = 0
        self.gathered, self.waits = -1, False
        self.refused_bad = self.refused_link = self.refused_full = self.refused_owners = 0
        self.conflicts = self.moves = self.moves_held = self.withdrawn_count = self.learned_full = self.disputed = 0

    # The choice.

    def of(self, mac: int) -> dict[int, Claim]:
        return {owner: claim for (other, owner), claim in self.claims.items() if other == mac}

    def best(self, mac: int, but: int | None = None) -> int | None:
        """The owner to follow."""
        found: int | None = None
        for owner, claim in self.of(mac).items():
            usable = claim.kind and owner in self.ways and owner != but
            if usable and (claim.kind != 1 or self.cost(mac, owner) < INFINITE) and (
                    found is None or self.beats(mac, owner, found)):
                found = owner
        return found

    def cost(self, mac: int, owner: int) -> int:
        return min(self.ways[owner].metric + self.claims[mac, owner].ping, INFINITE)

    def beats(self, mac: int, a: int, b: int) -> bool:
        one, other = self.claims[mac, a], self.claims[mac, b]
        if one.kind != other.kind:
            return one.kind > other.kind
        if one.kind == 3 and self.me in (a, b):
            return a == self.me
        if one.kind == 2 and one.seq != other.seq:
            return newer(one.seq, other.seq)
        if one.kind == 1 and self.cost(mac, a) != self.cost(mac, b):
            return self.cost(mac, a) < self.cost(mac, b)
        return a < b

    def rows(self) -> set[tuple[int, int, int, int, int, str, int]]:
        rows = set()
        for mac in {mac for mac, _ in self.claims}:
            owner = self.best(mac)
            if owner is None:
                continue
            claim, way = self.claims[mac, owner], self.ways[owner]
            port = FOREIGN_PORT if owner == self.me and claim.kind == 1 else way.port
            rows.add((mac, owner, port, max(1, min(way.metric + claim.ping, INFINITE)), way.hops + claim.hops,
                      KINDS[claim.kind], claim.seq))
        return rows

    def entries(self) -> set[Entry]:
        return {self.entry(key) for key in self.claims}

    def entry(self, key: Key) -> Entry:
        claim = self.claims[key]
        return key[0], claim.flags, claim.hops, key[1], claim.seq, claim.ping

    def is_ours(self, mac: int) -> bool:
        return (mac, self.me) in self.claims and self.claims[mac, self.me].kind >= 2

    # Every change of a claim goes through here.

    def write(self, key: Key, seq: int, flags: int, hops: int, ping: int, port: int | None, now: int) -> None:
        mac, owner = key
        before = self.best(mac)
        kind_before = self.claims[mac, before].kind if before is not None else 0
        claim = self.claims.setdefault(key, Claim(seq, since=now))
        was_seen = owner == self.me and claim.kind == 2
        claim.seq, claim.flags, claim.hops, claim.ping = seq, flags, hops, ping
        if not (was_seen and claim.kind == 2):
            claim.since = now
        neighbour = self.ports.get(port) if port is not None else None
        claim.source = (port or 0, neighbour.attachment) if neighbour else None
        for number, other in self.ports.items():
            other.exchange.discard(key)
            other.released.discard(key)
            other.news.discard(key)
            other.joined.discard(key)
            other.again.discard(key)
            other.whole.discard(key)
            if number != port:
                other.news.add(key)
        self.waits = True
        after = self.best(mac)
        if after == owner and claim.kind == kind_before == 2 and before != owner:
            self.moves += 1
            self.moved.setdefault(mac, []).append(now // S)
        if claim.kind == kind_before == 3 and owner in self.ways and before != owner:
            self.conflicts += 1
        self.give_way(mac, now)

    def give_way(self, mac: int, now: int) -> None:
        best = self.best(mac)
        if mac not in self.mine or not self.mine[mac].learned or best in (None, self.me):
            return
        assert best is not None
        theirs, ours = self.claims[mac, best].seq, self.claims[mac, self.me].seq
        if newer(theirs, ours) or (theirs == ours and best < self.me):
            self.mine[mac].learned = False
            self.declare_next(mac, now)

    def drop(self, key: Key, now: int) -> None:
        for port in self.ports.values():
            for owed in (port.exchange, port.news, port.released, port.joined, port.whole, port.again):
                owed.discard(key)
        del self.claims[key]
        if key[1] == self.me:
            del self.mine[key[0]]
        elif not self.count(key[1]):
            self.lost.pop(key[1], None)
        if not self.of(key[0]):
            self.moved.pop(key[0], None)
        self.give_way(key[0], now)

    def count(self, owner: int) -> int:
        return sum(other == owner for _, other in self.claims)

    # What others say.

    def brought(self, port: int) -> int:
        neighbour = self.ports.get(port)
        return sum(neighbour is not None and claim.source == (port, neighbour.attachment)
                   for claim in self.claims.values())

    def take_in(self, port: int, entries: list[Entry], now: int) -> None:
        for mac, flags, hops, owner, seq, ping in entries:
            if mac == 0 or mac >> 40 & 1 or owner == 0 or (flags & FIXED and flags & FOREIGN):
                self.refused_bad += 1
                continue
            flags = flags & (PRESENT | FIXED | FOREIGN) if flags & PRESENT else 0
            if not flags & FOREIGN:
                hops = ping = 0
            if owner == self.me:
                self.hear_own(port, mac, flags, hops, seq, ping, now)
            else:
                self.hear(port, (mac, owner), seq, flags, hops, ping, now)
        self.settle(now)

    def hear(self, port: int, key: Key, seq: int, flags: int, hops: int, ping: int, now: int) -> None:
        if key in self.claims:
            if not newer(seq, self.claims[key].seq):
                self.answer_older(port, key, seq)
                return
        elif not flags:
            return
        elif self.brought(port) >= self.max_link_claims:
            self.refused_link += 1
            self.ports[port].overflowed = True
            return
        elif not self.has_room(key[1]):
            self.refused_full += 1
            self.ports[port].overflowed = True
            return
        if key[1] not in self.ways and key[1] not in self.lost:
            self.lost[key[1]] = now
        self.write(key, seq, flags, hops, ping, port, now)
        if key[0] in self.mine and self.best(key[0]) == key[1]:
            self.mine[key[0]].awaited = False

    def has_room(self, owner: int | None) -> bool:
        of_others = len(self.claims) - self.count(self.me)
        known = owner in self.ways or owner in self.lost
        return of_others < self.max_claims and (known or (
            len(self.lost) < self.max_owners // 2 and len(self.ways) + len(self.lost) < self.max_owners))

    def answer_older(self, port: int, key: Key, seq: int) -> None:
        neighbour, claim = self.ports.get(port), self.claims[key]
        if neighbour is None or not newer(claim.seq, seq) or key in neighbour.news | neighbour.released or (
                claim.source == (port, neighbour.attachment) and key not in neighbour.whole):
            return
        neighbour.repeats += 1
        (neighbour.again if key in neighbour.joined else neighbour.released).add(key)

    def hear_own(self, port: int, mac: int, flags: int, hops: int, seq: int, ping: int, now: int) -> None:
        ours = self.claims.get((mac, self.me))
        if ours is None:
            if not flags:
                return
            if sum(mine.stranger for mine in self.mine.values()) >= self.max_local or not self.may_claim():
                self.refused_full += 1
                return
            self.mine[mac] = Mine(stranger=True)
        elif not newer(seq, ours.seq) and (
                seq != ours.seq or (flags, hops, ping) == (ours.flags, ours.hops, ours.ping)):
            self.answer_older(port, (mac, self.me), seq)
            return
        self.disputed += 1
        self.declare(mac, (seq + 1) % 2**32, now)

    def may_claim(self) -> bool:
        return self.count(self.me) < self.max_own

    def reach(self, node: int, port: int | None, metric: int, hops: int, now: int) -> None:
        was = node in self.ways
        if node == self.me or (port is None and not was and node not in self.lost):
            return
        if port is None:
            if was:
                del self.ways[node]
                if self.count(node):
                    self.lost[node] = now
        else:
            if not was and node not in self.lost and len(self.ways) + len(self.lost) >= self.max_owners:
                if not self.lost:
                    self.refused_owners += 1
                    return
                self.forget(next(iter(self.lost)), now)
            if not was and node not in self.lost:
                for neighbour in self.ports.values():
                    neighbour.may_ask = neighbour.overflowed
            macs = [mac for mac, owner in self.claims if owner == node]
            before = {mac: self.best(mac) for mac in macs}
            self.ways[node] = Way(port, metric, hops)
            self.lost.pop(node, None)
            for mac, best in before.items():
                if (not was and best is not None
                        and self.claims[mac, best].kind == self.claims[mac, node].kind == 3):
                    self.conflicts += 1
        for mac in [mac for mac, owner in self.claims if owner == node]:
            self.give_way(mac, now)
        self.settle(now)

    def forget(self, owner: int, now: int) -> None:
        for key in [key for key in self.claims if key[1] == owner]:
            self.drop(key, now)

    # What we say.

    def next_seq(self, mac: int) -> int:
        known = [claim.seq for claim in self.of(mac).values()]
        if not known:
            return self.wall
        highest = known[0]
        for seq in known:
            highest = seq if newer(seq, highest) else highest
        after = (highest + 1) % 2**32
        return self.wall if newer(self.wall, after) else after

    def declare_next(self, mac: int, now: int) -> None:
        self.declare(mac, self.next_seq(mac), now)

    def declare(self, mac: int, seq: int, now: int) -> None:
        mine = self.mine[mac]
        flags, hops, ping = 0, 0, 0
        if mine.fixed:
            flags = PRESENT | FIXED
        elif mine.learned:
            flags = PRESENT
        elif mine.ping:
            flags, hops, ping = PRESENT | FOREIGN, mine.hops, mine.ping
        ours = self.claims.get((mac, self.me))
        self.withdrawn_count += flags == 0 and ours is not None and ours.flags != 0
        mine.stranger = mine.stranger and flags == 0
        self.write((mac, self.me), seq, flags, hops, ping, None, now)

    def fix(self, mac: int, present: bool, now: int) -> None:
        mine = self.mine.get(mac)
        if mac == 0 or mac >> 40 & 1 or present == (mine is not None and mine.fixed):
            return
        mine = self.mine.setdefault(mac, Mine())
        mine.fixed, mine.learned, mine.awaited = present, False, False
        self.declare_next(mac, now)
        self.settle(now)

    def offer(self, mac: int, ping: int, hops: int, now: int) -> None:
        if mac == 0 or mac >> 40 & 1 or (mac not in self.mine and ping == 0):
            return
        if mac not in self.mine and not self.may_claim():
            self.refused_full += 1
            return
        mine = self.mine.setdefault(mac, Mine())
        mine.ping, mine.hops = ping, hops
        if mine.fixed or mine.learned:
            return
        ours = self.claims.get((mac, self.me), Claim(0))
        moved = abs(ping - ours.ping) > max(self.report_above, ours.ping // 4)
        if bool(ping) != bool(ours.flags) or (ping and (hops != ours.hops or moved)):
            self.declare_next(mac, now)
            self.settle(now)

    def see(self, mac: int, now: int) -> None:
        mine = self.mine.get(mac)
        if mine is not None and mine.fixed:
            return
        if mine is not None and mine.learned:
            ours = self.claims[mac, self.me]
            if now - ours.since >= S:
                ours.since = now
            return
        if not self.learns or mac == 0 or mac >> 40 & 1:
            return
        if mine is not None and mine.held_since is not None:
            mine.awaited = True
            self.moves_held += 1
        elif self.learned() >= self.max_local or (mine is None and not self.may_claim()):
            self.learned_full += 1
        else:
            self.mine.setdefault(mac, Mine())
            self.claim(mac, now)
            self.settle(now)

    def learned(self) -> int:
        return sum(mine.learned for mine in self.mine.values())

    def claim(self, mac: int, now: int) -> None:
        mine = self.mine[mac]
        mine.learned, mine.awaited = True, False
        self.declare_next(mac, now)
        recent = [at for at in self.moved.get(mac, []) if now // S - at <= 180]
        if len(recent) >= 5:
            mine.held_since = now

    def configure(self, on: bool, age: int, max_local: int, now: int) -> None:
        self.learns, self.mac_age, self.max_local = on, age, max_local
        while self.learned() > (max_local if on else 0):
            oldest = min((mac for mac, mine in self.mine.items() if mine.learned), key=self.seen)
            self.mine[oldest].learned = False
            self.declare_next(oldest, now)
        self.settle(now)

    def seen(self, mac: int) -> int:
        return self.claims[mac, self.me].since

    # What time brings.

    def advance(self, now: int) -> None:
        for mac in sorted((mac for mac, mine in self.mine.items() if mine.learned), key=self.seen):
            if self.seen(mac) + S + self.mac_age <= now:
                self.mine[mac].learned = False
                self.declare_next(mac, now)
        held = [mac for mac, mine in self.mine.items() if mine.held_since is not None]
        for mac in sorted(held, key=lambda mac: self.mine[mac].held_since or 0):
            mine = self.mine[mac]
            if mine.held_since is not None and mine.held_since + HELD <= now:
                mine.held_since = None
                if mine.awaited and self.learns and self.learned() < self.max_local:
                    self.claim(mac, now)
                mine.awaited = False
        for key, claim in list(self.claims.items()):
            if claim.kind == 0 and claim.since + (OWN_KEPT if key[1] == self.me else KEPT) <= now:
                self.drop(key, now)
        for owner, since in list(self.lost.items()):
            if since + KEPT <= now:
                self.forget(owner, now)
        self.settle(now)

    def settle(self, now: int) -> None:
        if self.waits and now >= self.gathered:
            self.waits, self.gathered = False, now + GATHER
            for port in self.ports.values():
                port.released |= port.news
                port.news = set()

    # What the neighbours are told.

    def open(self, port: int) -> None:
        self.attachments += 1
        self.ports[port] = Neighbour(self.attachments, set(self.claims), joined=set(self.claims))

    def close(self, port: int) -> None:
        self.ports.pop(port, None)

    def owe(self, port: int) -> None:
        neighbour = self.ports.get(port)
        if neighbour is not None:
            neighbour.exchange, neighbour.news, neighbour.released = set(self.claims), set(), set()
            neighbour.joined, neighbour.whole, neighbour.again = set(self.claims), set(self.claims), set()

    def asks_again(self, port: int) -> bool:
        neighbour = self.ports.get(port)
        if neighbour is None or not neighbour.overflowed or self.brought(port) >= self.max_link_claims or (
                len(self.claims) - self.count(self.me) >= self.max_claims
                or (len(self.lost) >= self.max_owners // 2 and not neighbour.may_ask)):
            return False
        neighbour.overflowed = neighbour.may_ask = False
        return True

    def repeats(self, port: int) -> int:
        """How many answers to older claims this port is owed."""
        return self.ports[port].repeats if port in self.ports else 0

    def updates(self, port: int) -> set[Entry]:
        neighbour = self.ports.get(port)
        if neighbour is None:
            return set()
        # What is denied is an owner, not a claim.
        denied = {owner for _, owner in neighbour.again} - self.ways.keys()
        neighbour.exchange |= neighbour.again | {key for key in neighbour.joined if key[1] in denied}
        neighbour.again = set()
        now = {key for key in neighbour.exchange if key[1] in self.ways} | neighbour.released
        neighbour.exchange -= now
        neighbour.released = set()
        neighbour.repeats = 0
        return {self.entry(key) for key in now}

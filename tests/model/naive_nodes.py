# SPDX-License-Identifier: GPL-3.0-or-later
"""A slow twin of the node table, written from the rules alone: dictionaries, and every choice is made anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

INFINITE = 0xFFFFFFFF
HOPS_MAX = 64
JUMP = 1 << 16
ANSWER = 1 << 15
MS = 1000
SECOND = 1_000_000
NEVER = (1 << 63) - 1
LOCAL = 0


def is_newer(a: int, b: int) -> bool:
    return 0 < (a - b) % (1 << 32) < 1 << 31


class Offer(NamedTuple):
    seq: int
    label: int
    metric: int
    hops: int


class Way(NamedTuple):
    port: int
    metric: int
    hops: int


@dataclass
class Asked:
    """What was passed on for others last."""

    at: int
    seq: int
    source: int
    hops: int


@dataclass
class Lane:
    """What one neighbour has still to hear."""

    owed: set[int] = field(default_factory=set)
    urgent: set[int] = field(default_factory=set)
    asks: dict[int, tuple[int, int]] = field(default_factory=dict)
    quiet_until: int = -NEVER


class NaiveNodeTable:
    """Told of every operation with its time; `updates` and `requests` are what may leave."""

    def __init__(self, me: int, *, max_nodes: int, report_above: int, first_seq: int) -> None:
        self.me, self.max_nodes, self.report_above = me, max_nodes, report_above
        self.seq = self.wanted_seq = first_seq
        self.renewed_at = -NEVER
        self.now = 0
        self.lanes: dict[int, Lane] = {}
        self.costs: dict[int, int] = {}
        self.offers: dict[int, dict[int, Offer]] = {}      # by port, then node
        self.known: set[int] = set()
        self.distances: dict[int, tuple[int, int]] = {}
        self.ways: dict[int, Way] = {}
        self.told: dict[int, tuple[int, int, int]] = {}      # seq, metric, hops
        self.by_cost = False                                 # what changes now, changes by the cost of a link
        self.tell_at: dict[int, int] = {}
        self.starving: dict[int, tuple[int, int]] = {}      # node -> when it is asked for again, and the next wait
        self.forget_at: dict[int, int] = {}
        self.passed: dict[int, Asked] = {}
        self.changed: set[int] = set()
        self.overflowed: set[int] = set()
        self.lost = 0
        self.is_crowded = False
        self.moves = self.unfeasible = self.refused = self.refused_full = 0
        self.requests_sent = self.requests_passed = self.requests_answered = self.own_heard = 0

    # Links.

    def open(self, port: int, now: int) -> None:
        self.now = now
        self.lanes[port], self.costs[port], self.offers[port] = Lane(), 0, {}
        self.owe_everything(port)

    def owe_everything(self, port: int) -> None:
        self.lanes[port].owed |= {self.me, *self.told}
        self.lanes[port].quiet_until = -NEVER

    def close(self, port: int, now: int) -> None:
        self.now = now
        nodes = list(self.offers[port])
        del self.lanes[port]
        for node in nodes:
            del self.offers[port][node]
            self.choose(node)
        del self.offers[port], self.costs[port]
        self.overflowed.discard(port)
        if self.renewed_at != now:
            self.renew(self.seq + 1)

    def measure(self, port: int, cost: int, now: int) -> None:
        self.now = now
        if self.costs[port] != cost:
            self.costs[port] = cost
            self.by_cost = True
            for node in self.offers[port]:
                self.choose(node)
            self.by_cost = False

    def doubt(self, port: int, cost: int, now: int) -> None:
        self.measure(port, cost, now)
        for node, way in self.ways.items():
            if way.port == port:
                self.ask_for(node, 0)
                del self.starving[node]

    # Updates.

    def hear_updates(self, port: int, entries: list[tuple[int, int, int, int, int]], now: int) -> None:
        self.now, self.lost, self.is_crowded = now, 0, False
        for node, seq, label, metric, hops in entries:
            if node == self.me:
                self.hear_own(seq)
            else:
                self.hear_update(port, node, Offer(seq, label, metric, hops))
        if self.lost >= 2:
            self.renew(self.seq + 1)

    def hear_own(self, seq: int) -> None:
        if not is_newer(seq, self.seq):
            return
        if (seq - self.seq) % (1 << 32) > JUMP:
            self.refused += 1
        else:
            self.own_heard += 1
            self.renew(seq + 1)

    def hear_update(self, port: int, node: int, offer: Offer) -> None:
        gone = offer.metric == INFINITE
        if not gone and self.is_bad(node, offer):
            self.refused += 1
            gone = True
        if gone:
            if self.offers[port].pop(node, None):
                self.choose(node)
            return
        if node not in self.known and len(self.known) >= self.max_nodes and not self.is_crowded:
            self.is_crowded = not self.gone()
            if not self.is_crowded:
                self.forget(self.gone()[0])
        if node not in self.known and len(self.known) >= self.max_nodes:
            self.refused_full += 1
            self.overflowed.add(port)
            return
        self.known.add(node)
        if self.offers[port].get(node) != offer:
            self.offers[port][node] = offer
            self.unfeasible += self.cost(port, node) < INFINITE and not self.is_feasible(port, node)
            self.choose(node)

    def is_bad(self, node: int, offer: Offer) -> bool:
        known = self.distances.get(node)
        jumps = known is not None and is_newer(offer.seq, known[0]) and (offer.seq - known[0]) % (1 << 32) > JUMP
        return jumps or offer.hops > HOPS_MAX or offer.label > offer.metric

    def renew(self, seq: int) -> None:
        seq %= 1 << 32
        if is_newer(seq, self.wanted_seq):
            self.wanted_seq = seq
        if self.now - self.renewed_at >= 100 * MS:
            self.renewed_at = self.now
            self.seq = (self.seq + min((self.wanted_seq - self.seq) % (1 << 32), JUMP)) % (1 << 32)
            self.owe(self.me, False)

    # The choice.

    def cost(self, port: int, node: int) -> int:
        offer = self.offers[port][node]
        if not self.costs[port] or offer.hops >= HOPS_MAX:
            return INFINITE
        return min(offer.metric + self.costs[port], INFINITE)

    def is_feasible(self, port: int, node: int) -> bool:
        if self.cost(port, node) == INFINITE:
            return False
        if node not in self.distances:
            return True
        seq, label = self.distances[node]
        offer = self.offers[port][node]
        return 0 < (offer.seq - seq) % (1 << 32) <= JUMP or (offer.seq == seq and offer.label < label)

    def holders(self, node: int) -> list[int]:
        return [port for port in self.offers if node in self.offers[port]]

    def choose(self, node: int) -> None:
        feasible = [port for port in self.holders(node) if self.is_feasible(port, node)]
        best = min(
            feasible, key=lambda port: (self.cost(port, node), self.offers[port][node].hops, port), default=None)
        old = self.ways.get(node)
        if old is not None and old.port in feasible:
            worth = [port for port in feasible if self.is_worth_it(port, old.port, node)]
            best = min(
                worth, key=lambda port: (self.cost(port, node), self.offers[port][node].hops, port), default=old.port)
        if best is None:
            self.ways.pop(node, None)
        else:
            offer, cost = self.offers[best][node], self.cost(best, node)
            seq, label = self.distances.get(node, (offer.seq, cost))
            self.distances[node] = (offer.seq, cost) if is_newer(offer.seq, seq) else (seq, min(label, cost))
            self.ways[node] = Way(best, cost, offer.hops + 1)
        new = self.ways.get(node)
        if new != old:
            self.changed.add(node)
        self.tell(node)
        self.starve(node)
        if (new and new.port) != (old and old.port):
            self.moves += 1
            self.lost += new is None and bool(self.holders(node))
            self.pass_on_where_it_moved(node)
        if new is not None or (node not in self.distances and self.holders(node)):
            self.forget_at.pop(node, None)
        elif old is not None:
            self.forget_at[node] = self.now + 180 * SECOND
        elif node not in self.distances:
            self.forget_at[node] = self.now

    def is_worth_it(self, port: int, current: int, node: int) -> bool:
        gain = self.cost(current, node) - self.cost(port, node)
        much = gain >= 2000 and gain * 10 >= self.cost(current, node)
        return gain >= 0 and (much or self.offers[port][node].hops < self.offers[current][node].hops)

    # Announcements.

    def tell(self, node: int) -> None:
        way, told = self.ways.get(node), self.told.get(node)
        if way is None:
            self.tell_at.pop(node, None)
            if self.told.pop(node, None):
                self.owe(node, True)
            return
        seq = self.distances[node][0]
        if told is None or told[0] != seq:
            self.tell_all(node)
            return
        moved = abs(way.metric - told[1])
        much = moved > max(self.report_above, told[1] // 4)
        if much and way.metric < told[1]:
            self.tell_all(node)
        elif (way.metric, way.hops) == told[1:]:
            self.tell_at.pop(node, None)
        elif self.tell_at.get(node, NEVER) <= self.now:
            self.tell_all(node)
        elif much or way.hops != told[2]:
            self.tell_at[node] = min(self.tell_at.get(node, NEVER), self.now + 100 * MS)
        elif node not in self.tell_at:
            self.tell_at[node] = self.now + (10 * SECOND if self.by_cost else SECOND // 2)

    def tell_all(self, node: int) -> None:
        way = self.ways[node]
        self.told[node] = self.distances[node][0], way.metric, way.hops
        self.tell_at.pop(node, None)
        self.owe(node, False)

    def owe(self, node: int, urgent: bool) -> None:
        for lane in self.lanes.values():
            lane.owed.add(node)
            if urgent:
                lane.urgent.add(node)

    def entry(self, node: int) -> tuple[int, int, int, int, int]:
        if node == self.me:
            return self.me, self.seq, 0, 0, 0
        seq, label = self.distances[node]
        _, metric, hops = self.told.get(node, (0, INFINITE, 0))
        return node, seq, label, metric, hops

    def updates(self, port: int, now: int) -> set[tuple[int, int, int, int, int]]:
        lane = self.lanes[port]
        leaving = set(lane.owed if now >= lane.quiet_until else lane.urgent)
        if leaving - lane.urgent:
            lane.quiet_until = now + 20 * MS
        lane.owed -= leaving
        lane.urgent -= leaving
        return {self.entry(node) for node in leaving}

    def requests(self, port: int) -> set[tuple[int, int, int]]:
        asks, self.lanes[port].asks = self.lanes[port].asks, {}
        return {(node, seq, hops) for node, (seq, hops) in asks.items()}

    def may_leave(self, now: int) -> set[int]:
        return {
            port for port, lane in self.lanes.items()
            if lane.urgent or lane.asks or (lane.owed and now >= lane.quiet_until)
        }

    # Requests.

    def starve(self, node: int) -> None:
        usable = [port for port in self.holders(node) if self.cost(port, node) < INFINITE]
        if node in self.ways or not usable:
            self.starving.pop(node, None)
        elif node not in self.starving:
            self.ask_for(node, 500 * MS)

    def ask_for(self, node: int, wait: int) -> None:
        for port in self.holders(node):
            if self.cost(port, node) < INFINITE:
                self.requests_sent += 1
                self.ask(port, node, (self.distances[node][0] + 1) % (1 << 32), HOPS_MAX)
        self.starving[node] = self.now + wait, min(2 * wait, 8 * SECOND)

    def ask(self, port: int, node: int, seq: int, hops: int) -> None:
        old_seq, old_hops = self.lanes[port].asks.get(node, (seq, hops))
        self.lanes[port].asks[node] = (seq if is_newer(seq, old_seq) else old_seq), max(hops, old_hops)

    def hear_requests(self, port: int, entries: list[tuple[int, int, int]], now: int) -> None:
        self.now = now
        for node, seq, hops in entries:
            if node == self.me:
                if is_newer(seq, self.seq):
                    self.requests_answered += 1
                    ahead = (seq - self.seq) % (1 << 32)
                    self.renew(self.seq + (ahead if ahead <= ANSWER else 1))
            elif node in self.known and hops and not (
                    node in self.ways and not is_newer(seq, self.distances[node][0])):
                self.pass_on(port, node, seq, min(hops, HOPS_MAX))

    def pass_on(self, port: int, node: int, seq: int, hops: int) -> None:
        old = self.passed.get(node)
        if old and self.now - old.at < SECOND and hops <= old.hops and not is_newer(seq, old.seq):
            return
        self.passed[node] = Asked(self.now, seq, port, hops)
        way = self.ways.get(node)
        targets = [way.port] if way and way.port != port else [other for other in self.holders(node) if other != port]
        for target in targets:
            self.requests_passed += 1
            self.ask(target, node, seq, hops - 1)

    def pass_on_where_it_moved(self, node: int) -> None:
        way, asked = self.ways.get(node), self.passed.get(node)
        if way and asked and self.now - asked.at < 10 * SECOND and way.port != asked.source and (
                is_newer(asked.seq, self.distances[node][0])):
            self.requests_passed += 1
            self.ask(way.port, node, asked.seq, asked.hops - 1)

    # Time.

    def run(self, now: int) -> None:
        self.now = now
        if self.wanted_seq != self.seq:
            self.renew(self.wanted_seq)
        for node, (at, wait) in list(self.starving.items()):
            if at <= now:
                self.ask_for(node, wait)
        for node, at in list(self.tell_at.items()):
            if at <= now:
                self.tell(node)
        for node, at in list(self.forget_at.items()):
            if at <= now:
                self.forget(node)

    def gone(self) -> list[int]:
        """What may be forgotten at once for lack of room, the longest gone first."""
        gone = (node for node, at in self.forget_at.items()
                if at <= self.now + 120 * SECOND and not self.holders(node) and not self.is_needed(node))
        return sorted(gone, key=lambda node: (self.forget_at[node], node))

    def is_needed(self, node: int) -> bool:
        return node in self.changed or any(node in lane.owed or node in lane.asks for lane in self.lanes.values())

    def forget(self, node: int) -> None:
        if self.is_needed(node):
            self.forget_at[node] = self.now + SECOND
            return
        del self.forget_at[node]
        self.distances.pop(node, None)
        if self.holders(node):
            self.choose(node)
            return
        self.known.remove(node)
        self.passed.pop(node, None)

    def due(self) -> int:
        """The next time at which something happens, but for what may leave already."""
        times = [at for at, _ in self.starving.values()]
        times += [*self.tell_at.values(), *self.forget_at.values()]
        times += [lane.quiet_until for lane in self.lanes.values() if lane.owed and lane.quiet_until > self.now]
        if self.wanted_seq != self.seq:
            times.append(self.renewed_at + 100 * MS)
        return min(times, default=NEVER)

    def asks_again(self, port: int) -> bool:
        if port not in self.overflowed or (len(self.known) >= self.max_nodes and not self.gone()):
            return False
        self.overflowed.remove(port)
        return True

    def multipath(self, node: int, source: int) -> set[tuple[int, int]]:
        return {
            (port, self.cost(port, node)) for port in self.holders(node)
            if port != source and self.is_feasible(port, node) and (
                self.offers[port][node].seq == self.distances[node][0])
        }

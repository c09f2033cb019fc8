# SPDX-License-Identifier: GPL-3.0-or-later
"""The version-1 route table: what each link offers, the best way to each MAC, and what the neighbours must be told."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdlib cimport calloc, free

from cloudvpn._fast.consts cimport (
    GAIN_US, HOLD_BEATS, HOP_COST_US, LOCAL_PORT, NO_PORT, NONE, OWN_PING_US, PING_INFINITE, REST_BEATS, ROUTE_BYTES,
    ROUTES_MAX,
)
from cloudvpn._fast.endian cimport is_group
from cloudvpn._fast.hash cimport buckets_for, keyed_hash
from cloudvpn._fast.wire cimport load_route, store_route

# However much the peers offer, our own MAC finds a place, and so does the next one before the neighbours have
# forgotten the last.
cdef uint32_t FOREIGN_MAX = ROUTES_MAX - 2
cdef uint16_t DIST_INFINITE = 0xFFFF


cdef class RouteTable:
    """All offers of ports 0 (local) to `max_ports`, and of the mesh port; at most 65,535 MACs, what one set can carry.

    Memory: 88 B a MAC, 44 B an offer, 8 B a bucket; untouched places cost nothing.
    """

    def __cinit__(
        self, uint32_t max_ports, uint32_t max_port_routes, RandomSource random not None, *,
        uint16_t max_dist=64, uint32_t report_above=5000, uint32_t max_offers=1 << 20,
        bint rule_2009=False,
    ):
        cdef uint64_t wanted = <uint64_t>max_ports * max_port_routes + ROUTES_MAX
        if not 1 <= max_ports <= ROUTES_MAX or not 1 <= max_port_routes <= ROUTES_MAX:
            raise ValueError("ports and routes of a port are 1 to 65,535")
        self.max_ports = max_ports
        self.max_port_routes = max_port_routes
        self.max_offers = <uint32_t>min(wanted, max_offers)
        self.max_dist = max_dist
        self.report_above = report_above
        self.mesh_port = max_ports + 1
        self.rule_2009 = rule_2009
        self.random = random
        self.key.a = random.next64()
        self.key.b = random.next64()
        self.free_destination = self.free_offer = NONE
        self.held.oldest = self.held.newest = self.resting.oldest = self.resting.newest = NONE
        self.destination_mask = <uint32_t>(buckets_for(ROUTES_MAX) - 1)
        self.offer_mask = <uint32_t>(buckets_for(self.max_offers) - 1)
        self.destinations = <Destination*>calloc(ROUTES_MAX, sizeof(Destination))
        self.destination_buckets = <uint32_t*>calloc(self.destination_mask + 1, sizeof(uint32_t))
        self.changes = <uint32_t*>calloc(ROUTES_MAX, sizeof(uint32_t))
        self.crossings = <uint32_t*>calloc(ROUTES_MAX, sizeof(uint32_t))
        self.offers = <Offer*>calloc(self.max_offers + 1, sizeof(Offer))     # one is ours
        self.offer_buckets = <uint32_t*>calloc(self.offer_mask + 1, sizeof(uint32_t))
        self.tables = <Table*>calloc(max_ports + 2, sizeof(Table))
        if (self.destinations == NULL or self.destination_buckets == NULL or self.changes == NULL
                or self.crossings == NULL or self.offers == NULL or self.offer_buckets == NULL or self.tables == NULL):
            raise MemoryError()
        self.attach(LOCAL_PORT)
        self.attach(self.mesh_port)

    def __dealloc__(self):
        cdef uint32_t port
        if self.tables != NULL:
            for port in range(self.max_ports + 2):
                PyMem_Free(self.tables[port].heap)
        free(self.tables)
        free(self.offer_buckets)
        free(self.offers)
        free(self.crossings)
        free(self.changes)
        free(self.destination_buckets)
        free(self.destinations)

    # Ports come and go.

    cdef void attach(self, uint32_t port) noexcept:
        cdef Table* table = &self.tables[port]
        table.attached = True
        table.ping = 0
        table.overflowed = False

    cdef void detach(self, uint32_t port) noexcept:
        cdef Table* table = &self.tables[port]
        self.forget(port, False)
        PyMem_Free(table.heap)
        table.heap = NULL
        table.room = 0
        table.attached = False

    cdef void forget(self, uint32_t port, bint again) noexcept:
        cdef Table* table = &self.tables[port]
        while table.count:
            self.drop_offer(table.heap[table.count - 1])
        table.overflowed = again

    cdef void set_link_ping(self, uint32_t port, uint32_t ping) noexcept:
        cdef Table* table = &self.tables[port]
        cdef uint32_t place
        if table.ping == ping:
            return
        table.ping = ping
        for place in range(table.count):
            self.offer_changed(table.heap[place])

    # What the peers announce.

    cdef void apply_set(self, uint32_t port, const uint8_t* entries, uint32_t count) noexcept:
        """Exactly these routes from now on: what the set does not name is gone, an entry with ping 0 is ignored."""
        cdef Table* table = &self.tables[port]
        cdef uint32_t at, place, offer
        cdef Route route
        self.stamp += 1
        for at in range(count):
            route = load_route(entries + at * ROUTE_BYTES)
            offer = self.find_destination(route.mac)
            if offer != NONE and route.ping != 0 and route.dist < self.max_dist:
                offer = self.find_offer(offer, port)
                if offer != NONE:
                    self.offers[offer].stamp = self.stamp
                    self.renew(offer, &route)   # before the new come: they are measured against what holds now
        # First out with the old, so that the new find room. Backwards: dropping fills the gap from the end.
        place = table.count
        while place > 0:
            place -= 1
            if self.offers[table.heap[place]].stamp != self.stamp:
                self.drop_offer(table.heap[place])
                place = min(place + 1, table.count)
        for at in range(count):
            route = load_route(entries + at * ROUTE_BYTES)
            if route.ping != 0:
                self.put(port, &route)

    cdef void apply_diff(self, uint32_t port, const uint8_t* entries, uint32_t count) noexcept:
        """Adds or changes these routes; ping 0 deletes."""
        cdef uint32_t at
        cdef Route route
        for at in range(count):
            route = load_route(entries + at * ROUTE_BYTES)
            if route.ping == 0:
                self.withdraw(port, route.mac)
            else:
                self.put(port, &route)

    cdef bint put(self, uint32_t port, const Route* route) noexcept:
        cdef Table* table = &self.tables[port]
        cdef uint32_t destination = self.find_destination(route.mac), at = NONE, draw
        if destination != NONE:
            at = self.find_offer(destination, port)
        if port != LOCAL_PORT and not self.is_welcome(destination, route):
            if at != NONE:
                self.drop_offer(at)
            return False
        if at != NONE:
            self.renew(at, route)
            return True
        draw = self.random.next32()
        if port != LOCAL_PORT and table.count >= self.max_port_routes:
            self.refused_full += 1
            table.overflowed = True
            at = table.heap[0]
            if route.ping > self.offers[at].ping or (
                    route.ping == self.offers[at].ping and draw >= self.offers[at].draw):
                return False
            self.drop_offer(at)
        if destination == NONE and (port == LOCAL_PORT or self.destination_count < FOREIGN_MAX):
            destination = self.make_destination(route.mac)
        at = self.make_offer(destination, port, route, draw) if destination != NONE else NONE
        if at == NONE:
            self.refused_full += 1
            table.overflowed = True
            return False
        self.offer_changed(at)
        return True

    cdef void renew(self, uint32_t at, const Route* route) noexcept:
        if self.offers[at].ping == route.ping and self.offers[at].dist == route.dist:
            return
        self.offers[at].ping = route.ping
        self.offers[at].dist = route.dist
        self.heap_settle(&self.tables[self.offers[at].port], self.offers[at].place)
        self.offer_changed(at)

    cdef bint is_welcome(self, uint32_t destination, const Route* route) noexcept:
        """Whether a peer may offer this: not the own MAC, no group, not too far."""
        if is_group(route.mac) or (destination != NONE and self.find_offer(destination, LOCAL_PORT) != NONE):
            self.refused_own += 1
            return False
        if route.dist >= self.max_dist:
            self.refused_far += 1
            return False
        return True

    cdef void withdraw(self, uint32_t port, uint64_t mac) noexcept:
        cdef uint32_t at = self.find_destination(mac)
        if at != NONE:
            at = self.find_offer(at, port)
            if at != NONE:
                self.drop_offer(at)

    cdef bint add_local(self, uint64_t mac) noexcept:
        cdef Route route
        route.mac = mac
        route.dist = 0
        route.ping = OWN_PING_US
        return self.put(LOCAL_PORT, &route)

    cdef void remove_local(self, uint64_t mac) noexcept:
        self.withdraw(LOCAL_PORT, mac)

    cdef bint set_mesh_route(
        self, uint64_t mac, uint32_t ping, uint16_t dist, bint exclusive, uint32_t beyond_ping, uint16_t beyond_dist,
    ) noexcept:
        cdef uint32_t destination = self.find_destination(mac), at = NONE
        cdef Route route
        if ping == 0:
            self.withdraw(self.mesh_port, mac)
            return True
        if is_group(mac):
            self.refused_own += 1
            return True
        route.mac = mac
        route.dist = dist
        route.ping = ping
        if destination != NONE:
            at = self.find_offer(destination, self.mesh_port)
        elif self.destination_count < FOREIGN_MAX:
            destination = self.make_destination(mac)
        if at == NONE and destination != NONE:
            at = self.make_offer(destination, self.mesh_port, &route, 0)
        if at == NONE:
            self.refused_full += 1
            self.tables[self.mesh_port].overflowed = True
            return False
        self.offers[at].ping = ping
        self.offers[at].dist = dist
        self.offers[at].beyond_ping = min(beyond_ping, ping)    # a part is not more than the whole
        self.offers[at].beyond_dist = min(beyond_dist, dist)
        self.heap_settle(&self.tables[self.mesh_port], self.offers[at].place)
        self.destinations[destination].exclusive = exclusive
        self.count_claim(destination)
        self.select(destination)
        return True

    cdef bint take_overflow(self, uint32_t port) noexcept:
        cdef Table* table = &self.tables[port]
        if not table.overflowed or table.count >= self.max_port_routes and port != self.mesh_port or (
                self.offer_count >= self.max_offers or self.destination_count >= FOREIGN_MAX):
            return False
        table.overflowed = False
        return True

    # Where a frame goes.

    # HOT PATH
    cdef uint32_t lookup(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = self.find_destination(mac)
        return self.destinations[at].port if at != NONE else NO_PORT

    # HOT PATH
    cdef uint32_t find_destination(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = self.destination_buckets[keyed_hash(&self.key, mac) & self.destination_mask]
        while at != 0 and self.destinations[at - 1].mac != mac:
            at = self.destinations[at - 1].next
        return at - 1 if at != 0 else NONE

    cdef uint32_t make_destination(self, uint64_t mac) noexcept:
        cdef uint32_t at = self.free_destination
        cdef uint32_t* head
        cdef Destination* destination
        if at != NONE:
            self.free_destination = self.destinations[at].next
        elif self.destinations_touched < ROUTES_MAX:
            at = self.destinations_touched
            self.destinations_touched += 1
        else:
            return NONE
        destination = &self.destinations[at]
        head = &self.destination_buckets[keyed_hash(&self.key, mac) & self.destination_mask]
        destination.mac = mac
        destination.next = head[0]
        destination.offers = destination.best = NONE
        destination.port = destination.told_port = NO_PORT
        destination.ping = destination.told_ping = 0
        destination.dist = destination.told_dist = 0
        destination.least_ping = PING_INFINITE
        destination.least_dist = DIST_INFINITE
        destination.line = NULL
        destination.exclusive = destination.is_lost = destination.waits = False
        destination.changed = destination.crossed = False
        head[0] = at + 1
        self.destination_count += 1
        return at

    cdef void forget_destination(self, uint32_t at) noexcept:
        cdef Destination* destination = &self.destinations[at]
        cdef uint32_t* link = &self.destination_buckets[keyed_hash(&self.key, destination.mac) & self.destination_mask]
        while link[0] != at + 1:
            link = &self.destinations[link[0] - 1].next
        link[0] = destination.next
        destination.next = self.free_destination
        self.free_destination = at
        self.destination_count -= 1

    # Offers.

    cdef uint32_t find_offer(self, uint32_t destination, uint32_t port) noexcept nogil:
        cdef uint32_t at = self.offer_buckets[
            keyed_hash(&self.key, (<uint64_t>destination << 32) | port) & self.offer_mask]
        while at != 0 and (self.offers[at - 1].destination != destination or self.offers[at - 1].port != port):
            at = self.offers[at - 1].next
        return at - 1 if at != 0 else NONE

    cdef uint32_t make_offer(self, uint32_t destination, uint32_t port, const Route* route, uint32_t draw) noexcept:
        cdef Table* table = &self.tables[port]
        cdef uint32_t at = self.free_offer
        cdef uint32_t* head
        cdef Offer* offer
        if self.offer_count >= self.max_offers + (port == LOCAL_PORT) or (
                table.count == table.room and not self.heap_grow(table)):
            if self.destinations[destination].offers == NONE:
                self.note_change(destination)       # made for nothing: forgotten when the neighbours are told
            return NONE
        if at != NONE:
            self.free_offer = self.offers[at].next
        else:
            at = self.offers_touched
            self.offers_touched += 1
        offer = &self.offers[at]
        offer.destination = destination
        offer.port = port
        offer.ping = route.ping
        offer.dist = route.dist
        offer.beyond_ping = 0
        offer.beyond_dist = 0
        offer.draw = draw
        offer.stamp = self.stamp
        head = &self.offer_buckets[keyed_hash(&self.key, (<uint64_t>destination << 32) | port) & self.offer_mask]
        offer.next = head[0]
        head[0] = at + 1
        offer.newer = NONE
        offer.older = self.destinations[destination].offers
        if offer.older != NONE:
            self.offers[offer.older].newer = at
        self.destinations[destination].offers = at
        self.heap_place(table, table.count, at)
        table.count += 1
        self.heap_settle(table, table.count - 1)
        self.offer_count += 1
        return at

    cdef void drop_offer(self, uint32_t at) noexcept:
        cdef Offer* offer = &self.offers[at]
        cdef Table* table = &self.tables[offer.port]
        cdef Destination* destination = &self.destinations[offer.destination]
        cdef uint32_t place = offer.place
        cdef bint is_freed = False
        cdef uint32_t* link = &self.offer_buckets[
            keyed_hash(&self.key, (<uint64_t>offer.destination << 32) | offer.port) & self.offer_mask]
        while link[0] != at + 1:
            link = &self.offers[link[0] - 1].next
        link[0] = offer.next
        if offer.newer != NONE:
            self.offers[offer.newer].older = offer.older
        else:
            destination.offers = offer.older
        if offer.older != NONE:
            self.offers[offer.older].newer = offer.newer
        table.count -= 1
        if place != table.count:
            self.heap_place(table, place, table.heap[table.count])
            self.heap_settle(table, place)
        offer.next = self.free_offer
        self.free_offer = at
        self.offer_count -= 1
        if offer.port == self.mesh_port:
            is_freed = destination.exclusive
            destination.exclusive = False
        if destination.best == at:
            destination.best = NONE
            self.select(offer.destination)
        elif is_freed:
            self.select(offer.destination)
        elif destination.offers == NONE:
            self.note_change(offer.destination)

    # The best way.

    cdef uint32_t cost(self, const Offer* offer) noexcept nogil:
        """Of the whole way by this offer, us; saturating, because a sum that wraps wins every comparison."""
        cdef uint64_t cost = offer.ping
        cdef uint32_t link = self.tables[offer.port].ping
        if self.is_link(offer.port):
            cost += <uint64_t>link + HOP_COST_US
            if link == 0:
                return PING_INFINITE
        return <uint32_t>min(cost, <uint64_t>PING_INFINITE)

    cdef bint is_link(self, uint32_t port) noexcept nogil:
        return port - 1 < self.max_ports

    cdef uint16_t dist_by(self, const Offer* offer) noexcept nogil:
        """Hops of the whole way by this offer."""
        return <uint16_t>(offer.dist + self.is_link(offer.port))

    cdef bint is_feasible(self, const Destination* destination, const Offer* offer) noexcept nogil:
        if self.rule_2009 or offer.port == LOCAL_PORT:
            return True
        if offer.port == self.mesh_port:
            return (destination.exclusive or offer.beyond_ping <= destination.least_ping
                    or offer.beyond_dist <= destination.least_dist)
        return offer.ping < destination.least_ping or offer.dist < destination.least_dist

    cdef bint is_ripe(self, uint32_t at) noexcept nogil:
        """Whether frames may move to this feasible offer now; else at the heartbeat, as the neighbours are told."""
        cdef const Offer* offer = &self.offers[at]
        cdef const Destination* destination = &self.destinations[offer.destination]
        if self.at_beat or self.rule_2009 or offer.port == LOCAL_PORT:
            return True
        if offer.port == self.mesh_port:
            return (destination.exclusive or offer.beyond_ping <= destination.least_ping
                    and offer.beyond_dist <= destination.least_dist)
        return offer.ping < destination.least_ping and offer.dist < destination.least_dist

    cdef bint is_usable(self, uint32_t at) noexcept nogil:
        cdef const Offer* offer = &self.offers[at]
        cdef const Destination* destination = &self.destinations[offer.destination]
        return (self.is_feasible(destination, offer) and not (destination.exclusive and self.is_link(offer.port))
                and self.cost(offer) != PING_INFINITE)

    cdef bint is_nearer(self, uint32_t a, uint32_t b) noexcept nogil:
        cdef uint32_t cost_a = self.cost(&self.offers[a]), cost_b = self.cost(&self.offers[b])
        cdef uint16_t dist_a = self.dist_by(&self.offers[a]), dist_b = self.dist_by(&self.offers[b])
        if cost_a != cost_b:
            return cost_a < cost_b
        if dist_a != dist_b:
            return dist_a < dist_b
        return self.offers[a].port < self.offers[b].port

    cdef bint wins(self, uint32_t a, uint32_t best) noexcept nogil:
        """Whether `a` is so much better than the best that frames should move to it."""
        cdef uint32_t cost_a = self.cost(&self.offers[a]), cost_best = self.cost(&self.offers[best])
        if self.rule_2009 or self.offers[a].port == LOCAL_PORT or self.offers[best].port == LOCAL_PORT:
            return self.is_nearer(a, best)
        if cost_a > cost_best:
            return False
        return (cost_best - cost_a >= GAIN_US and cost_best - cost_a >= cost_best // 10
                or self.dist_by(&self.offers[a]) < self.dist_by(&self.offers[best]))

    cdef void offer_changed(self, uint32_t at) noexcept:
        cdef const Offer* offer = &self.offers[at]
        cdef uint32_t destination = offer.destination, best = self.destinations[destination].best
        cdef uint32_t cost = self.cost(offer), ping = self.destinations[destination].ping
        if best == at:
            # No worse than it was, it stays the best: no need to look at the others.
            if cost <= ping and self.dist_by(offer) <= self.destinations[destination].dist and self.is_usable(at):
                self.take(destination, at)
            else:
                self.select(destination)
        elif self.is_usable(at):
            if not self.is_ripe(at):
                self.wait(destination)
            elif best == NONE or self.wins(at, best):
                self.take(destination, at)
        elif cost != PING_INFINITE and not self.destinations[destination].exclusive:
            self.unfeasible += 1

    cdef void select(self, uint32_t destination) noexcept:
        """The nearest of the ripe ones that win against the best; the best one itself, if none does."""
        cdef uint32_t at = self.destinations[destination].offers, best = self.destinations[destination].best
        cdef uint32_t nearest = NONE
        if best != NONE and not self.is_usable(best):
            best = NONE
        while at != NONE:
            if at != best and self.is_usable(at) and (best == NONE or self.wins(at, best)):
                if not self.is_ripe(at):
                    self.wait(destination)
                elif nearest == NONE or self.is_nearer(at, nearest):
                    nearest = at
            at = self.offers[at].older
        self.take(destination, nearest if nearest != NONE else best)

    cdef void take(self, uint32_t destination, uint32_t offer) noexcept:
        cdef Destination* entry = &self.destinations[destination]
        cdef uint32_t port = entry.port, ping = entry.ping
        cdef uint16_t dist = entry.dist
        entry.best = offer
        if offer == NONE:
            entry.port = NO_PORT
            entry.ping = 0
            entry.is_lost |= port != NO_PORT
            if entry.line == &self.resting:
                self.step_out(destination)
            if not entry.is_lost:
                pass
            elif self.at_beat or self.rule_2009:
                entry.is_lost = False
                self.hold(destination)
            else:
                self.wait(destination)
        else:
            entry.port = self.offers[offer].port
            entry.ping = self.cost(&self.offers[offer])
            entry.dist = self.dist_by(&self.offers[offer])
            entry.least_ping = min(entry.least_ping, entry.ping)
            entry.least_dist = min(entry.least_dist, entry.dist)
            entry.is_lost = False
            # Pings alone do not keep it from coming to rest.
            if not self.rule_2009 and (
                    entry.port != port or entry.dist != dist or entry.ping != ping and entry.line == NULL):
                self.queue_up(destination, &self.resting)
        self.way_changes += entry.port != port
        if self.tracks and not entry.crossed and (self.is_link(port) or self.is_link(entry.port)):
            self.cross(destination)
        self.note_change(destination)

    cdef void note_change(self, uint32_t destination) noexcept:
        if not self.destinations[destination].changed:
            self.destinations[destination].changed = True
            self.changes[self.change_count] = destination
            self.change_count += 1

    cdef void wait(self, uint32_t destination) noexcept:
        """To be decided at the heartbeat."""
        self.destinations[destination].waits = True
        self.note_change(destination)

    # The minima of the hold rule.

    cdef void count_claim(self, uint32_t destination) noexcept:
        """The minima count what another border claims, as if this node had had it."""
        cdef Destination* entry = &self.destinations[destination]
        cdef uint32_t at = NONE
        if self.tables[self.mesh_port].count and not entry.exclusive:
            at = self.find_offer(destination, self.mesh_port)
        if at != NONE:
            entry.least_ping = min(entry.least_ping, self.offers[at].beyond_ping)
            entry.least_dist = min(entry.least_dist, self.offers[at].beyond_dist)

    cdef void hold(self, uint32_t destination) noexcept:
        """The last feasible offer has gone."""
        cdef Destination* entry = &self.destinations[destination]
        if self.rule_2009 or entry.least_dist == 0 and entry.offers == NONE:
            self.forget_minima(destination)     # it was our own: nobody else led there
            return
        self.holds += 1
        self.queue_up(destination, &self.held)

    cdef void queue_up(self, uint32_t destination, Line* line) noexcept:
        """At the end of this line, which may be the one where it stands."""
        cdef Destination* entry = &self.destinations[destination]
        if entry.line != NULL:
            self.step_out(destination)
        entry.line = line
        entry.since = self.beat_count
        entry.newer = NONE
        entry.older = line.newest
        if entry.older != NONE:
            self.destinations[entry.older].newer = destination
        else:
            line.oldest = destination
        line.newest = destination
        line.count += 1

    cdef void step_out(self, uint32_t destination) noexcept:
        cdef Destination* entry = &self.destinations[destination]
        cdef Line* line = entry.line
        entry.line = NULL
        if entry.older != NONE:
            self.destinations[entry.older].newer = entry.newer
        else:
            line.oldest = entry.newer
        if entry.newer != NONE:
            self.destinations[entry.newer].older = entry.older
        else:
            line.newest = entry.older
        line.count -= 1

    cdef uint32_t take_first(self, Line* line, uint32_t beats) noexcept:
        """The first in line, if it stood there for so many heartbeats; or NONE."""
        cdef uint32_t at = line.oldest
        if at == NONE or self.beat_count - self.destinations[at].since < beats:
            return NONE
        self.step_out(at)
        return at

    cdef void forget_minima(self, uint32_t destination) noexcept:
        self.destinations[destination].least_ping = PING_INFINITE
        self.destinations[destination].least_dist = DIST_INFINITE
        self.count_claim(destination)

    # What version 2 is told.

    cdef void track(self, bint on) noexcept:
        cdef uint32_t at
        self.tracks = on
        while self.take_changed() != NONE:
            pass
        if on:
            for at in range(self.destinations_touched):
                if self.is_link(self.destinations[at].port):
                    self.cross(at)

    cdef void cross(self, uint32_t destination) noexcept:
        self.destinations[destination].crossed = True
        self.crossings[self.crossing_count] = destination
        self.crossing_count += 1

    cdef uint32_t take_changed(self) noexcept:
        cdef uint32_t at
        if self.crossing_count == 0:
            return NONE
        self.crossing_count -= 1
        at = self.crossings[self.crossing_count]
        self.destinations[at].crossed = False
        if self.destinations[at].best == NONE:
            self.note_change(at)        # it may have waited for this only
        return at

    # What the neighbours are told.

    cdef void begin_changes(self) noexcept:
        cdef uint32_t at, place, moved, count = 0
        cdef Destination* entry
        cdef bint is_told
        self.beat_count += 1
        self.at_beat = True
        at = self.take_first(&self.held, HOLD_BEATS)
        while at != NONE:
            self.forget_minima(at)
            self.select(at)
            at = self.take_first(&self.held, HOLD_BEATS)
        at = self.take_first(&self.resting, REST_BEATS)
        while at != NONE:
            self.destinations[at].least_ping = self.destinations[at].ping
            self.destinations[at].least_dist = self.destinations[at].dist
            self.count_claim(at)
            self.select(at)
            at = self.take_first(&self.resting, REST_BEATS)
        for place in range(self.change_count):
            at = self.changes[place]
            entry = &self.destinations[at]
            if entry.waits:
                entry.waits = False
                self.select(at)
            is_told = entry.best != NONE
            entry.was_told = entry.told_ping != 0
            moved = max(entry.ping, entry.told_ping) - min(entry.ping, entry.told_ping)
            entry.moved = is_told and (
                not entry.was_told or entry.dist != entry.told_dist or moved > self.report_above)
            if is_told == entry.was_told and not entry.moved and (self.rule_2009 or entry.port == entry.told_port):
                self.settle(at)
                continue
            if entry.moved or not is_told:
                entry.told_ping = entry.ping
                entry.told_dist = entry.dist
            self.changes[count] = at
            count += 1
        self.change_count = count
        self.at_beat = False

    cdef uint32_t write_diff(self, uint32_t port, uint8_t* out) noexcept:
        cdef uint32_t place, written = 0
        cdef const Destination* entry
        cdef bint was_told, is_told
        cdef Route route
        for place in range(self.change_count):
            entry = &self.destinations[self.changes[place]]
            was_told = entry.was_told and (self.rule_2009 or entry.told_port != port)
            is_told = entry.told_ping != 0 and (self.rule_2009 or entry.port != port)
            if is_told and (entry.moved or not was_told) or was_told and not is_told:
                route.mac = entry.mac
                route.dist = entry.told_dist
                route.ping = entry.told_ping if is_told else 0
                store_route(out + written * ROUTE_BYTES, &route)
                written += 1
        return written

    cdef void end_changes(self) noexcept:
        cdef uint32_t place
        for place in range(self.change_count):
            self.destinations[self.changes[place]].told_port = self.destinations[self.changes[place]].port
            self.settle(self.changes[place])
        self.change_count = 0

    cdef void settle(self, uint32_t destination) noexcept:
        """The neighbours know all: a MAC that nobody needs goes."""
        cdef Destination* entry = &self.destinations[destination]
        entry.changed = False
        if entry.offers == NONE and entry.line == NULL and not entry.crossed:
            self.forget_destination(destination)

    cdef uint32_t write_set(self, uint32_t port, uint8_t* out) noexcept:
        cdef uint32_t at, written = 0
        cdef const Destination* destination
        cdef Route route
        for at in range(self.destinations_touched):
            destination = &self.destinations[at]
            if destination.told_ping != 0 and (self.rule_2009 or destination.told_port != port):
                route.mac = destination.mac
                route.dist = destination.told_dist
                route.ping = destination.told_ping
                store_route(out + written * ROUTE_BYTES, &route)
                written += 1
        return written

    # A port's heap: the farthest of its offers on top, where it can be replaced by a nearer one.

    cdef bint is_farther(self, uint32_t a, uint32_t b) noexcept nogil:
        if self.offers[a].ping != self.offers[b].ping:
            return self.offers[a].ping > self.offers[b].ping
        return self.offers[a].draw > self.offers[b].draw

    cdef void heap_place(self, Table* table, uint32_t place, uint32_t offer) noexcept nogil:
        table.heap[place] = offer
        self.offers[offer].place = place

    cdef void heap_settle(self, Table* table, uint32_t place) noexcept nogil:
        """Moves the offer at this place up or down to where it belongs."""
        cdef uint32_t offer = table.heap[place], child
        while place > 0 and self.is_farther(offer, table.heap[(place - 1) // 2]):
            self.heap_place(table, place, table.heap[(place - 1) // 2])
            place = (place - 1) // 2
        while 2 * place + 1 < table.count:
            child = 2 * place + 1
            if child + 1 < table.count and self.is_farther(table.heap[child + 1], table.heap[child]):
                child += 1
            if not self.is_farther(table.heap[child], offer):
                break
            self.heap_place(table, place, table.heap[child])
            place = child
        self.heap_place(table, place, offer)

    cdef bint heap_grow(self, Table* table) noexcept:
        cdef uint32_t room = max(<uint32_t>16, 2 * table.room)
        cdef void* heap = PyMem_Realloc(table.heap, room * sizeof(uint32_t))
        if heap == NULL:
            return False
        table.heap = <uint32_t*>heap
        table.room = room
        return True

    # What Python sees, for status, tests and benchmarks.

    def best(self):
        """The used routes as `(mac, port, ping us, dist)`, port 0 being local."""
        cdef uint32_t at
        return [(self.destinations[at].mac, self.destinations[at].port, self.destinations[at].ping,
                 self.destinations[at].dist)
                for at in range(self.destinations_touched) if self.destinations[at].best != NONE]

    def offered_by(self, uint32_t port):
        """What this port offers, as announced: `(mac, dist, ping us)`."""
        cdef uint32_t place
        cdef Offer* offer
        routes = []
        for place in range(self.tables[self.checked(port)].count):
            offer = &self.offers[self.tables[port].heap[place]]
            routes.append((self.destinations[offer.destination].mac, offer.dist, offer.ping))
        return routes

    def count_of(self, uint32_t port):
        """The number of routes that this port offers."""
        return self.tables[self.checked(port)].count

    def open_port(self, uint32_t port):
        self.attach(self.checked(port))

    def close_port(self, uint32_t port):
        self.detach(self.checked(port))

    def measure_port(self, uint32_t port, uint32_t ping):
        """Sets the ping of a link, us."""
        self.set_link_ping(self.checked(port), ping)

    def apply(self, uint32_t port, const uint8_t[::1] entries not None, bint whole):
        """Takes the entries of a route set (`whole`) or diff, as on the wire."""
        cdef const uint8_t* base = &entries[0] if entries.shape[0] else NULL
        if entries.shape[0] > ROUTES_MAX * ROUTE_BYTES:
            raise ValueError("a route packet has at most 65,535 entries")
        if whole:
            self.apply_set(self.checked(port), base, <uint32_t>(entries.shape[0] // ROUTE_BYTES))
        else:
            self.apply_diff(self.checked(port), base, <uint32_t>(entries.shape[0] // ROUTE_BYTES))

    def set_local(self, uint64_t mac, bint present):
        if present:
            self.add_local(mac)
        else:
            self.remove_local(mac)

    def set_mesh(
        self, uint64_t mac, uint32_t ping, uint16_t dist, bint exclusive=False, uint32_t beyond_ping=0,
        uint16_t beyond_dist=0,
    ):
        """What version 2 knows of a MAC, as `set_mesh_route` says it; whether there was a place."""
        return self.set_mesh_route(mac, ping, dist, exclusive, beyond_ping, beyond_dist)

    def follow(self, bint on):
        """Whether `crossed` is to tell of changes; from the start of all ways over links."""
        self.track(on)

    def crossed(self):
        """MACs whose way over a link changed: `(mac, port, ping us, dist)`, each change only once.

        None for the last three: it has no way over a link now.
        """
        cdef uint32_t at = self.take_changed()
        changes = []
        while at != NONE:
            if self.is_link(self.destinations[at].port):
                changes.append((self.destinations[at].mac, self.destinations[at].port, self.destinations[at].ping,
                                self.destinations[at].dist))
            else:
                changes.append((self.destinations[at].mac, None, None, None))
            at = self.take_changed()
        return changes

    @property
    def held_count(self):
        """MACs without a way, because of the hold rule."""
        return self.held.count

    def port_to(self, uint64_t mac):
        """The port on the best way, or None."""
        cdef uint32_t port = self.lookup(mac)
        return None if port == NO_PORT else port

    def asks_again(self, uint32_t port):
        """Whether this port refused routes and has room again; True only once."""
        return self.take_overflow(port if port == self.mesh_port else self.checked(port))

    def told(self, bint whole, uint32_t port=NO_PORT):
        """What a route set (`whole`) or diff to a port would carry now, as entries on the wire.

        Without a port: to a neighbour that leads nowhere. A diff is one heartbeat, told only once, to one port only.
        """
        cdef uint8_t* out = self.scratch()
        try:
            if whole:
                return out[:self.write_set(port, out) * ROUTE_BYTES]
            self.begin_changes()
            return out[:self.write_diff(port, out) * ROUTE_BYTES]
        finally:
            if not whole:
                self.end_changes()
            PyMem_Free(out)

    def beat(self, ports):
        """One heartbeat: the diff for each of these ports, as entries on the wire."""
        cdef uint8_t* out = self.scratch()
        cdef uint32_t port
        self.begin_changes()
        try:
            diffs = []
            for port in ports:
                diffs.append(out[:self.write_diff(port, out) * ROUTE_BYTES])
            return diffs
        finally:
            self.end_changes()
            PyMem_Free(out)

    cdef uint8_t* scratch(self) except NULL:
        """Room for a route of each destination, and no more, so that sanitizers see a write beyond it."""
        cdef uint8_t* out = <uint8_t*>PyMem_Malloc(self.destinations_touched * ROUTE_BYTES)
        if out == NULL:
            raise MemoryError()
        return out

    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF:
        if port > self.max_ports:
            raise IndexError(f"port {port} of {self.max_ports}")
        return port

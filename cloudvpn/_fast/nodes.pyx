# SPDX-License-Identifier: GPL-3.0-or-later
"""The labelled distance vector of version 2: how do I reach node N, and what must the neighbours be told?"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cloudvpn._fast.announcer cimport LONG_AGO, NEVER
from cloudvpn._fast.consts cimport (
    ENTRIES_MAX, HOPS_MAX, NO_PORT, NODE_ROUTE_BYTES, NONE, PING_INFINITE, SEQ_REQUEST_BYTES,
)
from cloudvpn._fast.offers cimport SEQ_ANSWER_MAX, SEQ_JUMP_MAX, Neighbour, Node, Offer, describe
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.slotset cimport has_slot
from cloudvpn._fast.seq cimport is_newer
from cloudvpn._fast.wire cimport load_node_route, load_seq_request, store_node_route, store_seq_request

cdef enum:
    ASK_FIRST_US = 500_000
    ASK_LAST_US = 8_000_000
    PASS_AGAIN_US = 1_000_000
    PASS_MEMORY_US = 10_000_000
    WORSE_US = 100_000          # a way that got worse is told then: mostly a better one or none is found meanwhile
    DRIFT_US = 10_000_000       # a change too small to be told before
    PASS_DRIFT_US = 500_000
    RENEW_US = 100_000          # at least, between two seqs of our own
    BETTER_US = 2_000           # and by a tenth: a way so much better is worth a change

cdef int64_t FORGET_US = 180_000_000
cdef int64_t GONE_US = 60_000_000       # the default of conn_timeout
cdef int64_t RETRY_FORGET_US = 1_000_000


cdef inline bint is_worth_it(uint32_t cost, uint8_t hops, uint32_t than, uint8_t than_hops) noexcept nogil:
    """Whether a way is worth a change: it is much better, or no worse with fewer hops."""
    return cost <= than and (
        hops < than_hops or than - cost >= BETTER_US and <uint64_t>10 * (than - cost) >= than)


cdef class NodeTable(OfferTable):
    """The ways to at most `max_nodes` others over ports 1 to `max_ports`; `first_seq` is this node's own at first.

    Memory: 112 B a node; 28 B and 3 bits for each node and open link.
    """

    def __cinit__(
        self, uint64_t me, uint32_t max_ports, RandomSource random not None, *,
        uint32_t max_nodes=1024, uint32_t report_above=5000, uint32_t first_seq=1,
    ):
        self.make_tables(me, max_ports, max_nodes, random)
        self.report_above = report_above
        self.renew_at = LONG_AGO
        self.nodes[0].seq = self.nodes[0].told_seq = self.wanted_seq = first_seq

    # Links come and go.

    cdef bint attach(self, uint32_t port, int64_t now) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        if neighbour.offers != NULL:
            return True
        neighbour.offers = <Offer*>calloc(self.max_nodes + 1, sizeof(Offer))
        if neighbour.offers == NULL or not self.open_lane(port):
            free(neighbour.offers)
            neighbour.offers = NULL
            return False
        self.now = now
        self.owe_all(port)
        return True

    cdef void detach(self, uint32_t port, int64_t now) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        cdef uint32_t slot
        if neighbour.offers == NULL:
            return
        self.now = now
        self.cause = &self.changes_lost_link
        self.close_lane(port)
        for slot in range(1, self.touched):
            if neighbour.offers[slot].present:
                self.drop_offer(slot, port)
        free(neighbour.offers)
        memset(neighbour, 0, sizeof(Neighbour))
        # Whoever lost the short way to us hears a fresh number at once. Links lost together need one.
        if self.renew_at != now + RENEW_US:
            self.renew_own(self.nodes[0].seq + 1)

    cdef void set_cost(self, uint32_t port, uint32_t cost, int64_t now) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        cdef uint32_t slot
        if neighbour.offers == NULL or neighbour.cost == cost:
            return
        self.now = now
        self.cause = &self.changes_cost
        neighbour.cost = cost
        for slot in range(1, self.touched):
            if neighbour.offers[slot].present:
                self.offer_changed(slot, port)

    cdef void doubt(self, uint32_t port, uint32_t cost, int64_t now) noexcept:
        cdef uint32_t slot
        self.set_cost(port, cost, now)
        for slot in range(1, self.touched):
            if self.nodes[slot].port == port:
                self.ask_all(slot)
                self.nodes[slot].ask_at = NEVER     # it has a way: once is enough

    # What the neighbours announce.

    cdef void apply(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept:
        cdef uint32_t at
        cdef NodeRoute route
        self.now = now
        self.is_crowded = False
        self.cause = &self.changes_offer
        self.lost = 0
        for at in range(count):
            route = load_node_route(entries + at * NODE_ROUTE_BYTES)
            if route.node == self.me:
                self.hear_own(port, route.seq)
            else:
                self.take_update(port, &route)
        # Whoever loses the ways to several nodes at once is probably lost to them too: a fresh number, before they ask,
        # halves the time in which a ring comes back. One alone is just dead.
        if self.lost >= 2:
            self.renew_own(self.nodes[0].seq + 1)

    cdef void take_update(self, uint32_t port, const NodeRoute* route) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        cdef uint32_t slot = self.find(route.node)
        cdef Offer* offer
        if route.metric == PING_INFINITE or self.is_refused(slot, route):
            # A refused update that left the old offer in place would be wrong for ever.
            if slot != NONE and neighbour.offers != NULL and neighbour.offers[slot].present:
                self.drop_offer(slot, port)
            return
        if neighbour.offers != NULL and slot == NONE:
            slot = self.make_node(route.node)
            if slot == NONE and self.forget_oldest():
                slot = self.make_node(route.node)
        if neighbour.offers == NULL or slot == NONE:
            self.refused_full += 1
            neighbour.overflowed = True
            return
        offer = &neighbour.offers[slot]
        if offer.present and offer.seq == route.seq and offer.label == route.label and (
                offer.metric == route.metric and offer.hops == route.hops):
            return
        if not offer.present:
            self.add_offer(slot, port)
        offer.seq = route.seq
        offer.label = route.label
        offer.metric = route.metric
        offer.hops = route.hops
        self.unfeasible += self.cost_by(slot, port) != PING_INFINITE and not self.is_feasible(slot, port)
        self.offer_changed(slot, port)

    cdef bint is_refused(self, uint32_t slot, const NodeRoute* route) noexcept:
        cdef bint refused = route.hops > HOPS_MAX or route.label > route.metric
        if slot != NONE and self.nodes[slot].has_distance and is_newer(route.seq, self.nodes[slot].seq):
            refused |= route.seq - self.nodes[slot].seq > SEQ_JUMP_MAX
        self.refused += refused
        return refused

    cdef void hear_own(self, uint32_t port, uint32_t seq) noexcept:
        """Somebody knows a newer seq of ours than we gave out: a lie, but what we say counts only with a newer one."""
        if not is_newer(seq, self.nodes[0].seq):
            return
        if seq - self.nodes[0].seq > SEQ_JUMP_MAX:
            self.refused += 1
            return
        self.own_heard += 1
        self.own_heard_port = port
        self.renew_own(seq + 1)

    cdef void renew_own(self, uint32_t seq) noexcept:
        """Goes to this seq, when RENEW_US have passed since the last time, and no farther than the others follow."""
        cdef Node* own = &self.nodes[0]
        if is_newer(seq, self.wanted_seq):
            self.wanted_seq = seq
        if self.now >= self.renew_at:
            own.seq += min(self.wanted_seq - own.seq, <uint32_t>SEQ_JUMP_MAX)
            own.told_seq = own.seq
            self.renew_at = self.now + RENEW_US
            self.owe(0, False, self.now)
        if self.wanted_seq != own.seq:
            self.schedule(self.renew_at)

    cdef void owe_all(self, uint32_t port) noexcept:
        cdef uint32_t slot
        if self.is_open(port):
            for slot in range(self.touched):
                if self.nodes[slot].told:
                    self.owe_now(port, slot, self.now)

    cdef bint take_overflow(self, uint32_t port, int64_t now) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        self.now = now
        if not neighbour.overflowed or neighbour.offers == NULL or (
                self.node_count >= self.max_nodes and self.find_oldest() == NONE):
            return False
        neighbour.overflowed = False
        return True

    cdef uint32_t take_changed(self) noexcept:
        if self.change_count == 0:
            return NONE
        self.change_count -= 1
        self.nodes[self.changes[self.change_count]].changed = False
        return self.changes[self.change_count]

    # Nodes and their offers.

    cdef void forget_later(self, uint32_t slot, int64_t delay) noexcept:
        self.nodes[slot].forget_at = self.now + delay
        self.schedule(self.now + delay)

    cdef uint32_t find_oldest(self) noexcept:
        """Of the nodes that nobody has offered for a minute, the one that is gone longest, or NONE."""
        cdef uint32_t slot, oldest = NONE
        # Until then a neighbour that has not heard of it, because its link is silent, may have a way through here.
        cdef int64_t gone = self.now + FORGET_US - GONE_US
        cdef const Node* node
        for slot in range(1, self.touched):
            node = &self.nodes[slot]
            if node.forget_at <= gone and node.offers == NO_PORT and not node.changed and not self.is_owed(slot) and (
                    oldest == NONE or node.forget_at < self.nodes[oldest].forget_at
                    or node.forget_at == self.nodes[oldest].forget_at and node.id < self.nodes[oldest].id):
                oldest = slot
        return oldest

    cdef bint forget_oldest(self) noexcept:
        """Room for a node that is here, in place of what is only remembered of one that is not."""
        cdef uint32_t slot
        if self.is_crowded:     # a peer may announce any number of nodes that find no place
            return False
        slot = self.find_oldest()
        self.is_crowded = slot == NONE
        if slot != NONE:
            self.forget(slot)
        return slot != NONE

    cdef void forget(self, uint32_t slot) noexcept:
        """Its distance, and all of it if nobody offers it. Nobody has a way through here any more: all were told."""
        cdef Node* node = &self.nodes[slot]
        if node.changed or self.is_owed(slot):      # the hosts must hear of it, and those whose lanes were full
            self.forget_later(slot, RETRY_FORGET_US)
            return
        node.forget_at = NEVER
        node.has_distance = False
        if node.offers == NO_PORT:
            self.forget_node(slot)
        else:
            self.select(slot)

    cdef void drop_offer(self, uint32_t slot, uint32_t port) noexcept:
        cdef Node* node = &self.nodes[slot]
        self.remove_offer(slot, port)
        if node.offers == NO_PORT and not node.has_distance:
            self.forget_later(slot, 0)
        if node.port == port:
            self.select(slot)
        elif node.port == NO_PORT:
            self.check_starving(slot)

    # The next hop.

    cdef void offer_changed(self, uint32_t slot, uint32_t port) noexcept:
        cdef Node* node = &self.nodes[slot]
        cdef bint feasible = self.is_feasible(slot, port)
        cdef uint32_t cost = self.cost_by(slot, port)
        if node.port == port:
            # No worse than it was, it stays the best: no need to look at the others.
            if feasible and cost <= node.metric and self.hops_by(slot, port) <= node.hops:
                self.take(slot, port)
            else:
                self.select(slot)
        elif feasible and (node.port == NO_PORT or is_worth_it(
                cost, self.hops_by(slot, port), node.metric, node.hops)):
            self.take(slot, port)
        elif node.port == NO_PORT:
            self.check_starving(slot)

    cdef void select(self, uint32_t slot) noexcept:
        """The feasible offer of least cost, then fewest hops, then lowest port; if one is in use, of those worth it."""
        cdef uint32_t current = self.nodes[slot].port, port = self.nodes[slot].offers, best = NO_PORT
        cdef uint32_t cost, least = PING_INFINITE, now = PING_INFINITE
        cdef uint8_t hops, fewest = 0, hops_now = 0
        if current != NO_PORT and self.has_offer(slot, current) and self.is_feasible(slot, current):
            best = current
            now = self.cost_by(slot, current)
            hops_now = self.hops_by(slot, current)
        while port != NO_PORT:
            cost = self.cost_by(slot, port)
            hops = self.hops_by(slot, port)
            if self.is_feasible(slot, port) and (
                    now == PING_INFINITE or is_worth_it(cost, hops, now, hops_now)) and (
                    least == PING_INFINITE or cost < least or cost == least and (
                        hops < fewest or hops == fewest and port < best)):
                best = port
                least = cost
                fewest = hops
            port = self.neighbours[port].offers[slot].older
        self.take(slot, best)

    cdef void take(self, uint32_t slot, uint32_t port) noexcept:
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t metric = PING_INFINITE
        cdef uint8_t hops = 0
        cdef bint moved = node.port != port
        cdef const Offer* offer
        if port != NO_PORT:
            offer = &self.neighbours[port].offers[slot]
            metric = self.cost_by(slot, port)
            hops = offer.hops + 1
            if not node.has_distance or is_newer(offer.seq, node.seq):
                node.seq = offer.seq
                node.label = metric
                node.has_distance = True
            node.label = min(node.label, metric)
            node.forget_at = NEVER
        elif moved:
            self.forget_later(slot, FORGET_US)
        if (moved or metric != node.metric or hops != node.hops) and not node.changed:
            node.changed = True
            self.changes[self.change_count] = slot
            self.change_count += 1
        node.port = port
        node.metric = metric
        node.hops = hops
        self.tell(slot)
        self.check_starving(slot)
        if moved:
            self.cause[0] += 1
            self.lost += port == NO_PORT and node.offers != NO_PORT
            # The way of a request that was passed on is another now, and its answer has not come.
            if port != NO_PORT and self.now - node.passed_at < PASS_MEMORY_US and port != node.passed_from and (
                    is_newer(node.passed_seq, node.seq)):
                self.requests_passed += 1
                self.ask(slot, port, node.passed_seq, node.passed_hops - 1)

    # What the neighbours are told.

    cdef void tell(self, uint32_t slot) noexcept:
        """Owes it to all, now or later, if it is not what they know. Good news now: others may wait for them."""
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t moved = max(node.metric, node.told_metric) - min(node.metric, node.told_metric)
        cdef bint much = moved > max(self.report_above, node.told_metric // 4)
        if node.port == NO_PORT:
            node.tell_at = NEVER
            if node.told:
                node.told = False
                self.owe(slot, True, self.now)
        elif not node.told or node.seq != node.told_seq or (much and node.metric < node.told_metric):
            self.tell_all(slot)
        elif moved == 0 and node.hops == node.told_hops:
            node.tell_at = NEVER
        elif node.tell_at <= self.now:
            self.tell_all(slot)
        elif much or node.hops != node.told_hops:
            self.tell_later(slot, WORSE_US)
        elif node.tell_at == NEVER:
            # What a neighbour told has waited there already, and has a chain of nodes to go.
            self.tell_later(slot, DRIFT_US if self.cause == &self.changes_cost else PASS_DRIFT_US)

    cdef void tell_later(self, uint32_t slot, int64_t delay) noexcept:
        self.nodes[slot].tell_at = min(self.nodes[slot].tell_at, self.now + delay)
        self.schedule(self.nodes[slot].tell_at)

    cdef void tell_all(self, uint32_t slot) noexcept:
        cdef Node* node = &self.nodes[slot]
        node.told = True
        node.told_seq = node.seq
        node.told_hops = node.hops
        node.told_metric = node.metric
        node.tell_at = NEVER
        self.owe(slot, False, self.now)

    cdef uint32_t updates_for(self, uint32_t port, int64_t now) noexcept:
        return self.count_owed(port, now)

    cdef uint32_t requests_for(self, uint32_t port, int64_t now) noexcept:
        return self.count_questions(port, now)

    cdef void write_updates(self, uint32_t port, uint8_t* out, uint32_t count) noexcept:
        cdef uint32_t at
        cdef const Node* node
        cdef NodeRoute route
        for at in range(count):
            node = &self.nodes[self.take_owed(port)]
            route.node = node.id
            route.seq = node.seq
            route.label = node.label
            route.metric = node.told_metric if node.told else PING_INFINITE
            route.hops = node.told_hops if node.told else 0
            store_node_route(out + at * NODE_ROUTE_BYTES, &route)

    cdef void write_requests(self, uint32_t port, uint8_t* out, uint32_t count) noexcept:
        cdef uint32_t at, slot
        cdef SeqRequest request
        for at in range(count):
            slot = self.take_question(port)
            request.node = self.nodes[slot].id
            request.seq = self.neighbours[port].offers[slot].ask_seq
            request.hops = self.neighbours[port].offers[slot].ask_hops
            store_seq_request(out + at * SEQ_REQUEST_BYTES, &request)

    # Requests.

    cdef void check_starving(self, uint32_t slot) noexcept:
        """Asks at once when offers are there and none may be used. One past the hop limit could never be."""
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t port = node.offers
        if node.port == NO_PORT:
            while port != NO_PORT and self.cost_by(slot, port) == PING_INFINITE:
                port = self.neighbours[port].offers[slot].older
        if node.port != NO_PORT or port == NO_PORT:
            node.ask_at = NEVER
        elif node.ask_at == NEVER:
            node.ask_wait = ASK_FIRST_US
            self.ask_all(slot)

    cdef void ask_all(self, uint32_t slot) noexcept:
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t port = node.offers
        while port != NO_PORT:
            if self.cost_by(slot, port) != PING_INFINITE:
                self.requests_sent += 1
                self.ask(slot, port, node.seq + 1, HOPS_MAX)
            port = self.neighbours[port].offers[slot].older
        node.ask_at = self.now + node.ask_wait
        node.ask_wait = min(2 * node.ask_wait, <int64_t>ASK_LAST_US)
        self.schedule(node.ask_at)

    cdef void ask(self, uint32_t slot, uint32_t port, uint32_t seq, uint8_t hops) noexcept:
        """Joined with what waits for this node already: the newer seq, the larger hop limit."""
        cdef Offer* offer = &self.neighbours[port].offers[slot]
        cdef bint waits = has_slot(&self.lanes[port].asks, slot)
        if not waits or is_newer(seq, offer.ask_seq):
            offer.ask_seq = seq
        offer.ask_hops = max(hops, offer.ask_hops) if waits else hops
        self.owe_question(port, slot, self.now)

    cdef void hear_requests(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept:
        cdef uint32_t at
        cdef SeqRequest request
        self.now = now
        for at in range(count):
            request = load_seq_request(entries + at * SEQ_REQUEST_BYTES)
            request.hops = min(request.hops, <uint8_t>HOPS_MAX)
            self.hear_request(port, &request)

    cdef void hear_request(self, uint32_t port, const SeqRequest* request) noexcept:
        cdef uint32_t slot = self.find(request.node), ahead
        if slot == 0:
            if is_newer(request.seq, self.nodes[0].seq):
                # An honest node asks for the next one, or, if it was lied to, for one above the lie. Who asks for one
                # far ahead would have us refused.
                ahead = request.seq - self.nodes[0].seq
                self.requests_answered += 1
                self.renew_own(self.nodes[0].seq + (ahead if ahead <= SEQ_ANSWER_MAX else 1))
        elif slot != NONE and request.hops > 0 and (
                self.nodes[slot].port == NO_PORT or is_newer(request.seq, self.nodes[slot].seq)):
            # Else the answer is on its way to the neighbour: links are ordered.
            self.pass_on(slot, port, request)

    cdef void pass_on(self, uint32_t slot, uint32_t port, const SeqRequest* request) noexcept:
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t to = node.offers
        # A smaller hop limit that came first must not silence one that reaches farther.
        if self.now - node.passed_at < PASS_AGAIN_US and request.hops <= node.passed_hops and (
                not is_newer(request.seq, node.passed_seq)):
            return
        node.passed_at = self.now
        node.passed_seq = request.seq
        node.passed_from = port
        node.passed_hops = request.hops
        if node.port != NO_PORT and node.port != port:
            self.requests_passed += 1
            self.ask(slot, node.port, request.seq, request.hops - 1)
            return
        while to != NO_PORT:
            if to != port:
                self.requests_passed += 1
                self.ask(slot, to, request.seq, request.hops - 1)
            to = self.neighbours[to].offers[slot].older

    # Time passes.

    cdef void run(self, int64_t now) noexcept:
        cdef uint32_t slot
        cdef Node* node
        self.now = now
        if now < self.due:
            return
        self.cause = &self.changes_offer
        self.due = NEVER
        if self.wanted_seq != self.nodes[0].seq:
            self.renew_own(self.wanted_seq)
        for slot in range(1, self.touched):
            node = &self.nodes[slot]
            if node.ask_at <= now:
                self.ask_all(slot)
            if node.tell_at <= now:
                self.tell(slot)
            if node.forget_at <= now:
                self.forget(slot)
            self.schedule(min(node.ask_at, min(node.tell_at, node.forget_at)))     # as they are now
        self.wake_all(now)

    # What Python sees, for status, tests and benchmarks.

    def starving(self):
        """The nodes that are asked for."""
        cdef uint32_t slot
        return [self.nodes[slot].id for slot in range(1, self.touched) if self.nodes[slot].ask_at != NEVER]

    def changed(self):
        """The nodes whose next hop, metric or hops changed since the last call, as `best` has them, port None: gone."""
        cdef uint32_t slot = self.take_changed()
        nodes = []
        while slot != NONE:
            nodes.append(describe(&self.nodes[slot]))
            slot = self.take_changed()
        return nodes

    def open_port(self, uint32_t port, int64_t now):
        if not self.attach(self.checked(port), now):
            raise MemoryError()

    def close_port(self, uint32_t port, int64_t now):
        self.detach(self.checked(port), now)

    def measure_port(self, uint32_t port, uint32_t cost, int64_t now):
        """Sets the cost of a link, us."""
        self.set_cost(self.checked(port), cost, now)

    def doubt_port(self, uint32_t port, uint32_t cost, int64_t now):
        self.doubt(self.checked(port), cost, now)

    def receive_updates(self, uint32_t port, const uint8_t[::1] entries not None, int64_t now):
        """Takes the entries of a type 10, as on the wire."""
        self.apply(self.checked(port), &entries[0] if entries.shape[0] else NULL,
                   <uint32_t>(entries.shape[0] // NODE_ROUTE_BYTES), now)

    def receive_requests(self, uint32_t port, const uint8_t[::1] entries not None, int64_t now):
        """Takes the entries of a type 11, as on the wire."""
        self.hear_requests(self.checked(port), &entries[0] if entries.shape[0] else NULL,
                           <uint32_t>(entries.shape[0] // SEQ_REQUEST_BYTES), now)

    def receive_route_request(self, uint32_t port):
        """Takes a type 7."""
        self.owe_all(self.checked(port))

    def asks_again(self, uint32_t port):
        """Whether nodes of this port were refused and there is room again; True only once."""
        return self.take_overflow(self.checked(port), self.now)

    def run_timers(self, int64_t now):
        self.run(now)

    def updates(self, uint32_t port, int64_t now, uint32_t most=ENTRIES_MAX):
        """The entries of the next type 10 for this port, at most so many; they count as sent."""
        cdef uint32_t count = min(self.updates_for(self.checked(port), now), most)
        entries = PyBytes_FromStringAndSize(NULL, count * NODE_ROUTE_BYTES)
        self.write_updates(port, <uint8_t*>PyBytes_AS_STRING(entries), count)
        return entries

    def requests(self, uint32_t port, int64_t now, uint32_t most=ENTRIES_MAX):
        """The entries of the next type 11 for this port, at most so many; they count as sent."""
        cdef uint32_t count = min(self.requests_for(self.checked(port), now), most)
        entries = PyBytes_FromStringAndSize(NULL, count * SEQ_REQUEST_BYTES)
        self.write_requests(port, <uint8_t*>PyBytes_AS_STRING(entries), count)
        return entries

    def leaving(self, int64_t now):
        """Runs what is due and takes all that may leave now: `(port, updates, requests)`."""
        self.run(now)
        ports = [self.open_ports[at] for at in range(self.open_count)] if self.ready else []
        return [(port, self.updates(port, now), self.requests(port, now)) for port in ports
                if self.lanes[<uint32_t>port].ready]

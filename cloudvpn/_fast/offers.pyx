# SPDX-License-Identifier: GPL-3.0-or-later
"""What the neighbours offer: the nodes, and for each its offers and the feasible distance that they must beat."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cloudvpn._fast.announcer cimport LONG_AGO, NEVER
from cloudvpn._fast.consts cimport HOPS_MAX, LOCAL_PORT, NO_PORT, NONE, PING_INFINITE, ROUTES_MAX
from cloudvpn._fast.hash cimport buckets_for, keyed_hash
from cloudvpn._fast.ways cimport WAYS_MAX, add_way


cdef class OfferTable(Announcer):

    cdef int make_tables(self, uint64_t me, uint32_t max_ports, uint32_t max_nodes, RandomSource random) except -1:
        if not 1 <= max_ports <= ROUTES_MAX or not 1 <= max_nodes <= ROUTES_MAX:
            raise ValueError("ports and nodes are 1 to 65,535")
        self.me = me
        self.max_ports = max_ports
        self.max_nodes = max_nodes
        self.key.a = random.next64()
        self.key.b = random.next64()
        self.free_slot = NONE
        self.make_lanes(max_ports + 1, max_nodes + 1)
        self.bucket_mask = <uint32_t>(buckets_for(max_nodes + 1) - 1)
        self.nodes = <Node*>calloc(max_nodes + 1, sizeof(Node))
        self.buckets = <uint32_t*>calloc(self.bucket_mask + 1, sizeof(uint32_t))
        self.neighbours = <Neighbour*>calloc(max_ports + 1, sizeof(Neighbour))
        self.changes = <uint32_t*>calloc(max_nodes + 1, sizeof(uint32_t))
        if self.nodes == NULL or self.buckets == NULL or self.neighbours == NULL or self.changes == NULL:
            raise MemoryError()
        self.make_node(me)
        self.node_count = 0
        self.nodes[0].port = LOCAL_PORT
        self.nodes[0].metric = 0
        self.nodes[0].has_distance = self.nodes[0].told = True
        return 0

    def __dealloc__(self):
        cdef uint32_t port
        if self.neighbours != NULL:
            for port in range(self.max_ports + 1):
                free(self.neighbours[port].offers)
        free(self.changes)
        free(self.neighbours)
        free(self.buckets)
        free(self.nodes)

    # Where a frame goes.

    # HOT PATH
    cdef uint32_t find(self, uint64_t node) noexcept nogil:
        cdef uint32_t at = self.buckets[keyed_hash(&self.key, node) & self.bucket_mask]
        while at != 0 and self.nodes[at - 1].id != node:
            at = self.nodes[at - 1].next
        return at - 1           # 0 - 1 is NONE

    # HOT PATH
    cdef uint32_t port_of(self, uint64_t node) noexcept nogil:
        cdef uint32_t slot = self.find(node)
        return self.nodes[slot].port if slot != NONE else NO_PORT

    cdef uint32_t sort_ways(self, uint64_t node, uint32_t source, Way* ways) noexcept:
        cdef uint32_t slot = self.find(node), port, count = 0
        cdef const Offer* offer
        if slot == NONE:
            return 0
        port = self.nodes[slot].offers
        while port != NO_PORT:
            offer = &self.neighbours[port].offers[slot]
            if port != source and offer.seq == self.nodes[slot].seq and self.is_feasible(slot, port):
                count = add_way(ways, count, port, self.cost_by(slot, port))
            port = offer.older
        return count

    # Nodes and their offers.

    cdef uint32_t make_node(self, uint64_t id) noexcept:
        cdef uint32_t slot = self.free_slot
        cdef uint32_t* head = &self.buckets[keyed_hash(&self.key, id) & self.bucket_mask]
        cdef Node* node
        if slot != NONE:
            self.free_slot = self.nodes[slot].next
        elif self.touched <= self.max_nodes:
            slot = self.touched
            self.touched += 1
        else:
            return NONE
        node = &self.nodes[slot]
        memset(node, 0, sizeof(Node))
        node.id = id
        node.next = head[0]
        node.port = node.offers = NO_PORT
        node.metric = PING_INFINITE
        node.tell_at = node.ask_at = node.forget_at = NEVER
        node.passed_at = LONG_AGO
        head[0] = slot + 1
        self.node_count += 1
        return slot

    cdef void forget_node(self, uint32_t slot) noexcept:
        cdef Node* node = &self.nodes[slot]
        cdef uint32_t* link = &self.buckets[keyed_hash(&self.key, node.id) & self.bucket_mask]
        while link[0] != slot + 1:
            link = &self.nodes[link[0] - 1].next
        link[0] = node.next
        node.next = self.free_slot
        self.free_slot = slot
        self.node_count -= 1

    cdef void add_offer(self, uint32_t slot, uint32_t port) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        cdef Offer* offer = &neighbour.offers[slot]
        offer.present = True
        offer.newer = NO_PORT
        offer.older = self.nodes[slot].offers
        if offer.older != NO_PORT:
            self.neighbours[offer.older].offers[slot].newer = port
        self.nodes[slot].offers = port
        neighbour.count += 1

    cdef void remove_offer(self, uint32_t slot, uint32_t port) noexcept:
        cdef Neighbour* neighbour = &self.neighbours[port]
        cdef Offer* offer = &neighbour.offers[slot]
        if offer.newer != NO_PORT:
            self.neighbours[offer.newer].offers[slot].older = offer.older
        else:
            self.nodes[slot].offers = offer.older
        if offer.older != NO_PORT:
            self.neighbours[offer.older].offers[slot].newer = offer.newer
        offer.present = False
        neighbour.count -= 1

    cdef uint32_t cost_by(self, uint32_t slot, uint32_t port) noexcept nogil:
        """Of the whole way by this offer, us; PING_INFINITE: it cannot be used, whatever its label."""
        cdef const Neighbour* neighbour = &self.neighbours[port]
        cdef const Offer* offer = &neighbour.offers[slot]
        if neighbour.cost == 0 or offer.hops >= HOPS_MAX:
            return PING_INFINITE
        return <uint32_t>min(<uint64_t>offer.metric + neighbour.cost, <uint64_t>PING_INFINITE)

    cdef uint8_t hops_by(self, uint32_t slot, uint32_t port) noexcept nogil:
        return min(self.neighbours[port].offers[slot].hops, <uint8_t>HOPS_MAX) + 1

    cdef bint has_offer(self, uint32_t slot, uint32_t port) noexcept nogil:
        return self.neighbours[port].offers != NULL and self.neighbours[port].offers[slot].present

    cdef bint is_feasible(self, uint32_t slot, uint32_t port) noexcept nogil:
        cdef const Node* node = &self.nodes[slot]
        cdef const Offer* offer = &self.neighbours[port].offers[slot]
        if self.cost_by(slot, port) == PING_INFINITE:
            return False
        return not node.has_distance or 0 < offer.seq - node.seq <= SEQ_JUMP_MAX or (
            offer.seq == node.seq and offer.label < node.label)

    # What Python sees, for status, tests and benchmarks.

    def best(self):
        """The nodes that are reachable, this one first, as `(node, port, metric us, hops, seq)`."""
        cdef uint32_t slot
        return [describe(&self.nodes[slot]) for slot in range(self.touched) if self.nodes[slot].port != NO_PORT]

    def offered_by(self, uint32_t port):
        """What this port offers, as announced: `(node, seq, label, metric us, hops)`."""
        cdef uint32_t slot
        cdef const Offer* offer = self.neighbours[self.checked(port)].offers
        return [
            (self.nodes[slot].id, offer[slot].seq, offer[slot].label, offer[slot].metric, offer[slot].hops)
            for slot in range(1, self.touched) if offer != NULL and offer[slot].present
        ]

    def count_of(self, uint32_t port):
        """The number of nodes that this port offers."""
        return self.neighbours[self.checked(port)].count

    def distances(self):
        """The feasible distances of the others as `(node, seq, label us)`, remembered 180 s longer than their ways."""
        cdef uint32_t slot
        return [(self.nodes[slot].id, self.nodes[slot].seq, self.nodes[slot].label)
                for slot in range(1, self.touched) if self.nodes[slot].has_distance]

    def port_to(self, uint64_t node):
        """The port on the way to a node, 0 for this one, or None."""
        cdef uint32_t port = self.port_of(node)
        return None if port == NO_PORT else port

    def ways(self, uint64_t node, uint32_t source):
        """What multipath may choose from, the nearest first, as `(port, cost us)`."""
        cdef Way ways[WAYS_MAX]
        cdef uint32_t at, count = self.sort_ways(node, source, ways)
        return [(ways[at].port, ways[at].ping) for at in range(count)]

    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF:
        if not 1 <= port <= self.max_ports:
            raise IndexError(f"port {port} of {self.max_ports}")
        return port


cdef tuple describe(const Node* node):
    return node.id, None if node.port == NO_PORT else node.port, node.metric, node.hops, node.seq

# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims that a host is behind a node, and for each host the one to follow."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cloudvpn._fast.consts cimport FOREIGN_PORT, LOCAL_PORT, NO_PORT, NONE, PING_INFINITE, ROUTES_MAX
from cloudvpn._fast.hash cimport keyed_hash
from cloudvpn._fast.seq cimport is_newer
from cloudvpn._fast.slots cimport append_to, clear_list, close_slots, give_slot, open_slots, remove_from, take_slot

cdef uint32_t MOVES_WITHIN_S = 180
# Places for the MACs of our own interface, whatever else we claim.
cdef uint32_t FIXED_RESERVE = 16
KINDS = ("withdrawn", "foreign", "learned", "fixed")


cdef class ClaimTable:
    """`max_claims` claims of others, of `max_owners` nodes, at least half of them reachable, and our own: what links of
    version 1 can offer, `max_local` learned ones, as many that were withdrawn, as many that only others say we made.

    Memory: 76 B a host, 72 B a claim, 80 B an owner; untouched places cost nothing.
    """

    def __cinit__(
        self, uint64_t me, uint32_t max_ports, RandomSource random not None, *, uint32_t max_link_claims=65536,
        uint32_t max_local=4096, int64_t mac_age=300_000_000, uint32_t max_claims=1 << 20, uint32_t max_owners=4096,
        uint32_t report_above=5000,
    ):
        cdef uint32_t places
        if me == 0 or not 1 <= max_claims <= 1 << 24 or max_owners < 2 or max_local > 1 << 20:
            raise ValueError("an id is not 0, claims are 1 to 2^24, owners at least 2, learned hosts at most 2^20")
        self.max_own = 3 * max_local + ROUTES_MAX
        places = max_claims + self.max_own + FIXED_RESERVE
        self.me = me
        self.max_ports = max_ports
        self.max_claims = max_claims
        self.max_owners = max_owners
        self.report_above = report_above
        self.key.a = random.next64()
        self.key.b = random.next64()
        clear_list(&self.withdrawn[0])
        clear_list(&self.withdrawn[1])
        clear_list(&self.seen)
        clear_list(&self.lost)
        if not (open_slots(&self.host_slots, places) and open_slots(&self.claim_slots, places)
                and open_slots(&self.owner_slots, max_owners)):
            raise MemoryError()
        self.hosts = <Host*>calloc(places, sizeof(Host))
        self.claims = <ClaimEntry*>calloc(places, sizeof(ClaimEntry))
        self.of_host = <Links*>calloc(places, sizeof(Links))
        self.of_owner = <Links*>calloc(places, sizeof(Links))
        self.timed = <Links*>calloc(places, sizeof(Links))
        self.changes = <uint32_t*>calloc(places, sizeof(uint32_t))
        self.owners = <Owner*>calloc(max_owners, sizeof(Owner))
        self.lost_links = <Links*>calloc(max_owners, sizeof(Links))
        if (self.hosts == NULL or self.claims == NULL or self.of_host == NULL or self.of_owner == NULL
                or self.timed == NULL or self.changes == NULL or self.owners == NULL or self.lost_links == NULL):
            raise MemoryError()
        self.make_owner(me, True)
        self.set_reachable(ME, LOCAL_PORT, 0, 0)

    def __dealloc__(self):
        free(self.lost_links)
        free(self.owners)
        free(self.changes)
        free(self.timed)
        free(self.of_owner)
        free(self.of_host)
        free(self.claims)
        free(self.hosts)
        close_slots(&self.owner_slots)
        close_slots(&self.claim_slots)
        close_slots(&self.host_slots)

    # Where a frame goes.

    # HOT PATH
    cdef uint32_t lookup(self, uint64_t mac, uint64_t* egress) noexcept nogil:
        cdef uint32_t at = self.find_host(mac)
        cdef Host* host
        if at == NONE or self.hosts[at].best == NONE:
            return NO_PORT
        host = &self.hosts[at]
        egress[0] = self.owners[host.owner].node
        if host.owner == ME and host.kind == FOREIGN:
            return FOREIGN_PORT
        return self.owners[host.owner].port

    cdef uint32_t redirect(self, uint64_t mac, uint64_t* egress) noexcept:
        cdef uint32_t at = self.find_host(mac)
        if at != NONE:
            at = self.best_but(at, ME)
        if at == NONE:
            return NO_PORT
        egress[0] = self.owners[self.claims[at].owner].node
        return self.owners[self.claims[at].owner].port

    # HOT PATH
    cdef bint is_ours(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = self.find_host(mac)
        return at != NONE and self.hosts[at].mine != NONE and self.kind_of(self.hosts[at].mine) >= LEARNED

    # HOT PATH
    cdef uint32_t find_host(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = self.host_slots.buckets[keyed_hash(&self.key, mac) & self.host_slots.mask]
        while at != 0 and self.hosts[at - 1].mac != mac:
            at = self.host_slots.next[at - 1]
        return at - 1 if at != 0 else NONE

    # Claims come and go.

    cdef uint32_t find_claim(self, uint32_t host, uint32_t owner) noexcept nogil:
        cdef uint32_t at = self.claim_slots.buckets[
            keyed_hash(&self.key, (<uint64_t>host << 32) | owner) & self.claim_slots.mask]
        while at != 0 and (self.claims[at - 1].host != host or self.claims[at - 1].owner != owner):
            at = self.claim_slots.next[at - 1]
        return at - 1 if at != 0 else NONE

    cdef uint32_t make_claim(self, uint64_t mac, uint32_t owner, uint32_t seq) noexcept:
        cdef uint32_t host = self.find_host(mac), at
        cdef ClaimEntry* claim
        if self.claim_slots.count == self.claim_slots.capacity:
            return NONE
        if host == NONE:
            host = take_slot(&self.host_slots, keyed_hash(&self.key, mac))
            if host == NONE:
                return NONE
            memset(&self.hosts[host], 0, sizeof(Host))
            self.hosts[host].mac = mac
            self.hosts[host].best = self.hosts[host].owner = self.hosts[host].mine = NONE
            clear_list(&self.hosts[host].claims)
        at = take_slot(&self.claim_slots, keyed_hash(&self.key, (<uint64_t>host << 32) | owner))
        claim = &self.claims[at]
        claim.since = self.now
        claim.host = host
        claim.owner = owner
        claim.seq = seq
        claim.ping = claim.flags = claim.hops = 0
        append_to(&self.hosts[host].claims, self.of_host, at)
        append_to(&self.owners[owner].claims[0], self.of_owner, at)
        append_to(self.timed_list(at), self.timed, at)
        self.owners[owner].count += 1
        if owner == ME:
            self.hosts[host].mine = at
        return at

    cdef void rewrite(self, uint32_t at, uint32_t seq, uint8_t flags, uint8_t hops, uint32_t ping) noexcept:
        cdef ClaimEntry* claim = &self.claims[at]
        cdef Host* host = &self.hosts[claim.host]
        cdef Owner* owner = &self.owners[claim.owner]
        cdef Kind kind = <Kind>host.kind
        cdef uint32_t before = host.owner
        cdef List* timed = self.timed_list(at)
        remove_from(&owner.claims[self.kind_of(at) == FOREIGN], self.of_owner, at)
        claim.seq = seq
        claim.flags = flags
        claim.hops = hops
        claim.ping = ping
        append_to(&owner.claims[self.kind_of(at) == FOREIGN], self.of_owner, at)
        if timed != self.timed_list(at) or self.kind_of(at) == WITHDRAWN:
            if timed != NULL:
                remove_from(timed, self.timed, at)
            claim.since = self.now
            if self.timed_list(at) != NULL:
                append_to(self.timed_list(at), self.timed, at)
        self.reconsider(at)
        self.judge_move(at, kind, before)
        self.judge_conflict(at, kind, before)

    cdef void drop_claim(self, uint32_t at) noexcept:
        cdef uint32_t host = self.claims[at].host, owner = self.claims[at].owner
        self.dropping(at)
        if self.timed_list(at) != NULL:
            remove_from(self.timed_list(at), self.timed, at)
        remove_from(&self.owners[owner].claims[self.kind_of(at) == FOREIGN], self.of_owner, at)
        remove_from(&self.hosts[host].claims, self.of_host, at)
        give_slot(&self.claim_slots, at)
        self.owners[owner].count -= 1
        if owner == ME:
            self.hosts[host].mine = NONE
        if self.hosts[host].best == at:
            self.take(host, self.best_but(host, NONE))
        elif self.hosts[host].owner == ME:
            self.note_change(host)
        self.release_host(host)

    cdef void release_host(self, uint32_t host) noexcept:
        if self.hosts[host].claims.first == NONE and not self.hosts[host].changed:
            give_slot(&self.host_slots, host)

    cdef uint32_t next_seq(self, uint64_t mac, uint32_t least) noexcept nogil:
        cdef uint32_t host = self.find_host(mac), at, seq
        if host == NONE or self.hosts[host].claims.first == NONE:
            return least
        at = self.hosts[host].claims.first
        seq = self.claims[at].seq
        while at != NONE:
            if is_newer(self.claims[at].seq, seq):
                seq = self.claims[at].seq
            at = self.of_host[at].after
        seq += 1
        return least if is_newer(least, seq) else seq

    cdef Kind kind_of(self, uint32_t at) noexcept nogil:
        return kind_of_flags(self.claims[at].flags)

    cdef List* timed_list(self, uint32_t at) noexcept nogil:
        """The list that the claim stands in by its time, or NULL."""
        cdef bint is_mine = self.claims[at].owner == ME
        if self.kind_of(at) == WITHDRAWN:
            return &self.withdrawn[is_mine]
        return &self.seen if is_mine and self.kind_of(at) == LEARNED else NULL

    cdef void chosen(self, uint32_t host) noexcept:
        pass

    cdef void dropping(self, uint32_t at) noexcept:
        pass

    # Owners.

    cdef uint32_t find_owner(self, uint64_t node) noexcept nogil:
        cdef uint32_t at = self.owner_slots.buckets[keyed_hash(&self.key, node) & self.owner_slots.mask]
        while at != 0 and self.owners[at - 1].node != node:
            at = self.owner_slots.next[at - 1]
        return at - 1 if at != 0 else NONE

    cdef uint32_t make_owner(self, uint64_t node, bint is_reachable) noexcept:
        """What only claims speak of fills half of the table; for a node that is reachable the longest lost one goes."""
        cdef uint32_t at
        cdef Owner* owner
        if not is_reachable and self.lost_count >= self.max_owners // 2:
            return NONE
        if is_reachable and self.owner_slots.count == self.max_owners and self.lost.first != NONE:
            self.forget_owner(self.lost.first)
        at = take_slot(&self.owner_slots, keyed_hash(&self.key, node))
        if at == NONE:
            return NONE
        owner = &self.owners[at]
        owner.node = node
        owner.lost = self.now
        clear_list(&owner.claims[0])
        clear_list(&owner.claims[1])
        owner.count = 0
        owner.port = NO_PORT
        owner.metric = owner.tracked_metric = PING_INFINITE
        owner.hops = 0
        owner.denied = False
        append_to(&self.lost, self.lost_links, at)
        self.lost_count += 1
        return at

    cdef void forget_owner(self, uint32_t at) noexcept:
        cdef int kind
        for kind in range(2):
            while self.owners[at].claims[kind].first != NONE:
                self.drop_claim(self.owners[at].claims[kind].first)
        self.release_owner(at)

    cdef void release_owner(self, uint32_t at) noexcept:
        """Forgets it if it is unreachable and has no claims."""
        if self.owners[at].count == 0 and self.owners[at].port == NO_PORT:
            remove_from(&self.lost, self.lost_links, at)
            self.lost_count -= 1
            give_slot(&self.owner_slots, at)

    cdef void set_reachable(self, uint32_t at, uint32_t port, uint32_t metric, uint8_t hops) noexcept:
        """Walks the owner's claims if it became reachable or unreachable, its foreign ones if the metric changed."""
        cdef Owner* owner = &self.owners[at]
        cdef bint was = owner.port != NO_PORT, reachable = port != NO_PORT
        cdef bint is_far = owner.hops != hops or (
            max(metric, owner.tracked_metric) - min(metric, owner.tracked_metric)
            > max(self.report_above, owner.tracked_metric // 4))
        cdef int kind, first
        cdef uint32_t claim, before
        cdef Kind kind_before
        if was == reachable and owner.metric == metric and owner.hops == hops:
            owner.port = port
            return
        owner.port = port
        owner.metric = metric if reachable else PING_INFINITE
        owner.hops = hops
        if was and not reachable:
            owner.lost = self.now
            append_to(&self.lost, self.lost_links, at)
            self.lost_count += 1
        elif reachable and not was:
            remove_from(&self.lost, self.lost_links, at)
            self.lost_count -= 1
        first = 0 if was != reachable or (self.tracks and is_far) else 1
        if first == 0:
            owner.tracked_metric = owner.metric
        for kind in range(first, 2):
            claim = owner.claims[kind].first
            while claim != NONE:
                before = self.hosts[self.claims[claim].host].owner
                kind_before = <Kind>self.hosts[self.claims[claim].host].kind
                self.walked += 1
                self.reconsider(claim)
                if reachable and not was:
                    self.judge_conflict(claim, kind_before, before)
                claim = self.of_owner[claim].after
        self.release_owner(at)

    # The choice.

    cdef uint32_t cost(self, uint32_t at) noexcept nogil:
        """Of a foreign claim, us: to its owner and on; saturating, because a sum that wraps wins every comparison."""
        cdef uint64_t cost = <uint64_t>self.owners[self.claims[at].owner].metric + self.claims[at].ping
        return <uint32_t>min(cost, <uint64_t>PING_INFINITE)

    cdef bint is_usable(self, uint32_t at) noexcept nogil:
        cdef Kind kind = self.kind_of(at)
        return kind != WITHDRAWN and self.owners[self.claims[at].owner].port != NO_PORT and (
            kind != FOREIGN or self.cost(at) != PING_INFINITE)

    cdef bint is_better(self, uint32_t a, uint32_t b) noexcept nogil:
        cdef Kind kind = self.kind_of(a)
        cdef uint32_t owner_a = self.claims[a].owner, owner_b = self.claims[b].owner
        if kind != self.kind_of(b):
            return kind > self.kind_of(b)
        if kind == FIXED and (owner_a == ME or owner_b == ME):
            return owner_a == ME
        if kind == LEARNED and is_newer(self.claims[a].seq, self.claims[b].seq):
            return True
        if kind == LEARNED and is_newer(self.claims[b].seq, self.claims[a].seq):
            return False
        if kind == FOREIGN and self.cost(a) != self.cost(b):
            return self.cost(a) < self.cost(b)
        return self.owners[owner_a].node < self.owners[owner_b].node

    cdef void reconsider(self, uint32_t at) noexcept:
        """After a change of this claim or of its owner."""
        cdef uint32_t host = self.claims[at].host, best = self.hosts[host].best
        if best == at:
            self.take(host, self.best_but(host, NONE))
        elif self.is_usable(at) and (best == NONE or self.is_better(at, best)):
            self.take(host, at)
        elif self.hosts[host].owner == ME:
            self.note_change(host)      # route_beyond may be another

    cdef uint32_t best_but(self, uint32_t host, uint32_t owner) noexcept:
        """The best claim that is not of this owner, or NONE."""
        cdef uint32_t at = self.hosts[host].claims.first, best = NONE
        while at != NONE:
            self.walked += 1
            if self.claims[at].owner != owner and self.is_usable(at) and (best == NONE or self.is_better(at, best)):
                best = at
            at = self.of_host[at].after
        return best

    cdef void take(self, uint32_t host, uint32_t at) noexcept:
        cdef Host* entry = &self.hosts[host]
        entry.best = at
        entry.owner = self.claims[at].owner if at != NONE else NONE
        entry.kind = self.kind_of(at) if at != NONE else WITHDRAWN
        self.note_change(host)
        self.chosen(host)

    cdef void judge_move(self, uint32_t at, Kind kind, uint32_t owner) noexcept:
        """`kind` and `owner` of the best claim before this one came."""
        cdef Host* host = &self.hosts[self.claims[at].host]
        if host.best == at and host.kind == LEARNED and kind == LEARNED and owner != host.owner:
            self.moves += 1
            host.moves[host.move] = <uint32_t>(self.now // 1_000_000) + 1
            host.move = (host.move + 1) % MOVES_MAX

    cdef bint moves_often(self, uint32_t host) noexcept nogil:
        cdef uint32_t oldest = self.hosts[host].moves[self.hosts[host].move]
        return oldest != 0 and <uint32_t>(self.now // 1_000_000) + 1 - oldest <= MOVES_WITHIN_S

    cdef void judge_conflict(self, uint32_t at, Kind kind, uint32_t owner) noexcept:
        if kind == FIXED and self.kind_of(at) == FIXED and self.is_usable(at) and owner != self.claims[at].owner:
            self.conflicts += 1
            self.conflict_mac = self.hosts[self.claims[at].host].mac
            self.conflict_owners[0] = self.owners[owner].node
            self.conflict_owners[1] = self.owners[self.claims[at].owner].node

    # What changed, for the neighbours of version 1.

    cdef void note_change(self, uint32_t host) noexcept:
        if self.tracks and not self.hosts[host].changed:
            self.hosts[host].changed = True
            self.changes[self.change_count] = host
            self.change_count += 1

    cdef void track(self, bint on) noexcept:
        cdef uint32_t host, owner
        if on == self.tracks:
            return
        self.tracks = on
        if on:
            for owner in range(self.owner_slots.touched):
                self.owners[owner].tracked_metric = self.owners[owner].metric
            for host in range(self.host_slots.touched):
                if self.hosts[host].best != NONE:
                    self.note_change(host)
        else:
            while self.take_changed() != NONE:
                pass

    cdef uint32_t take_changed(self) noexcept:
        """A host that has no claims any more is forgotten by this, but can still be read until the next change."""
        cdef uint32_t host
        if self.change_count == 0:
            return NONE
        self.change_count -= 1
        host = self.changes[self.change_count]
        self.hosts[host].changed = False
        self.release_host(host)
        return host

    cdef HostRoute route_of(self, uint32_t host) noexcept nogil:
        return self.route_by(host, self.hosts[host].best)

    cdef HostRoute route_beyond(self, uint32_t host) noexcept:
        return self.route_by(host, self.best_but(host, ME))

    cdef HostRoute route_by(self, uint32_t host, uint32_t at) noexcept nogil:
        cdef HostRoute route
        cdef const Owner* owner
        route.mac = self.hosts[host].mac
        route.kind = WITHDRAWN
        route.port = NO_PORT
        route.ping = route.hops = route.claimed_ping = route.claimed_hops = 0
        if at != NONE:
            owner = &self.owners[self.claims[at].owner]
            route.kind = self.kind_of(at)
            route.port = FOREIGN_PORT if self.claims[at].owner == ME and route.kind == FOREIGN else owner.port
            route.claimed_ping = self.claims[at].ping
            route.claimed_hops = self.claims[at].hops
            route.ping = max(1, <uint32_t>min(
                <uint64_t>owner.metric + route.claimed_ping, <uint64_t>PING_INFINITE))
            route.hops = <uint32_t>owner.hops + route.claimed_hops
        return route

    # What Python sees, for status and tests.

    def best(self):
        """The claims that are followed as `(mac, owner, port, ping us, hops, kind, seq)`."""
        cdef uint32_t at
        cdef HostRoute route
        rows = []
        for at in range(self.host_slots.touched):
            if self.hosts[at].best != NONE:
                route = self.route_of(at)
                rows.append((route.mac, self.owners[self.hosts[at].owner].node, route.port, route.ping, route.hops,
                             KINDS[route.kind], self.claims[self.hosts[at].best].seq))
        return rows

    def claims_of_all(self):
        """All claims and withdrawals as `(mac, flags, hops, owner, seq, ping us)`."""
        cdef uint32_t owner, at, kind
        cdef ClaimEntry* claim
        rows = []
        for owner in range(self.owner_slots.touched):
            if self.owners[owner].count == 0:
                continue
            for kind in range(2):
                at = self.owners[owner].claims[kind].first
                while at != NONE:
                    claim = &self.claims[at]
                    rows.append((self.hosts[claim.host].mac, claim.flags, claim.hops, self.owners[owner].node,
                                 claim.seq, claim.ping))
                    at = self.of_owner[at].after
        return rows

    def where(self, uint64_t mac):
        """`(port, egress)` as lookup gives them, or None."""
        cdef uint64_t egress = 0
        cdef uint32_t port = self.lookup(mac, &egress)
        return None if port == NO_PORT else (port, egress)

    def redirected(self, uint64_t mac):
        """`(port, egress)` of the best owner but ourselves, or None."""
        cdef uint64_t egress = 0
        cdef uint32_t port = self.redirect(mac, &egress)
        return None if port == NO_PORT else (port, egress)

    def has(self, uint64_t mac):
        """Whether we say that it is behind our TAP."""
        return self.is_ours(mac)

    def beyond(self, uint64_t mac):
        """`(port, ping us, hops, kind)` of the best claim that is not ours, or None."""
        cdef uint32_t at = self.find_host(mac)
        cdef HostRoute route
        if at == NONE:
            return None
        route = self.route_beyond(at)
        return None if route.port == NO_PORT else (route.port, route.ping, route.hops, KINDS[route.kind])

    def follow_changes(self, bint on):
        self.track(on)

    def changed(self):
        """The hosts whose choice may have changed as `(mac, port or None, ping us, hops, kind)`; told only once."""
        cdef uint32_t at
        cdef HostRoute route
        rows = []
        while (at := self.take_changed()) != NONE:
            route = self.route_of(at)
            rows.append((route.mac, None if route.port == NO_PORT else route.port, route.ping, route.hops,
                         KINDS[route.kind]))
        return rows

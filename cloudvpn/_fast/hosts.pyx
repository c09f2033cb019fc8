# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the mesh: behind which node is a MAC? Claims of all nodes, our own, and what the neighbours are told."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cloudvpn._fast.claims cimport ME
from cloudvpn._fast.consts cimport (
    CLAIM_BYTES, CLAIM_FIXED, CLAIM_FOREIGN, CLAIM_PRESENT, ENTRIES_MAX, LOCAL_PORT, NO_PORT, NONE, ROUTES_MAX,
)
from cloudvpn._fast.endian cimport is_group
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.seq cimport is_newer
from cloudvpn._fast.slots cimport append_to, clear_list, remove_from
from cloudvpn._fast.wire cimport load_claim, store_claim

cdef int64_t KEPT_US = 180_000_000      # withdrawals, and claims of unreachable owners
# Our own withdrawals are kept longer than anybody else keeps them: a new claim has to be newer than those.
cdef int64_t OWN_KEPT_US = 190_000_000
cdef int64_t HELD_US = 10_000_000
# When a host was seen is noted once a second, so that a frame of it writes nothing most of the time.
cdef int64_t SEEN_US = 1_000_000


cdef class HostTable(ClaimTable):
    """Of node `me`. Times in microseconds: `mac_age` after its last frame, and a second at most, a host is forgotten.

    `max_owners` is at least twice as many as the node table can hold. Memory, beside what ClaimTable takes: 24 B a
    claim, 48 B more for our own, one byte for each owner and port.
    """

    def __cinit__(
        self, uint64_t me, uint32_t max_ports, RandomSource random not None, *, uint32_t max_link_claims=65536,
        uint32_t max_local=4096, int64_t mac_age=300_000_000, uint32_t max_claims=1 << 20, uint32_t max_owners=4096,
        uint32_t report_above=5000,
    ):
        if not 1 <= max_ports <= ROUTES_MAX:
            raise ValueError("ports are 1 to 65,535")
        self.max_link_claims = max_link_claims
        self.max_local = max_local
        self.mac_age = mac_age
        self.learns = True
        self.due = INT64_MAX
        clear_list(&self.held)
        self.news = News(max_ports, self.claim_slots.capacity)
        self.denied = <uint8_t*>calloc(max_owners, max_ports + 1)
        self.overflowed = <uint8_t*>calloc(1, max_ports + 1)
        self.locals = <Local*>calloc(self.claim_slots.capacity, sizeof(Local))
        self.held_links = <Links*>calloc(self.claim_slots.capacity, sizeof(Links))
        if self.denied == NULL or self.overflowed == NULL or self.locals == NULL or self.held_links == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.held_links)
        free(self.locals)
        free(self.overflowed)
        free(self.denied)

    # Ports come and go.

    cdef void attach(self, uint32_t port) noexcept:
        self.news.attach(port)
        self.ready = self.news.behind != 0

    cdef void detach(self, uint32_t port, int64_t now) noexcept:
        cdef uint32_t owner
        self.news.detach(port)
        self.overflowed[port] = False
        for owner in range(self.owner_slots.touched):
            if self.owners[owner].denied:
                self.denied_to(owner)[port] = False
        self.ready = self.news.behind != 0

    cdef void owe_all(self, uint32_t port) noexcept:
        self.news.owe_all(port)
        self.ready = self.news.behind != 0

    cdef bint take_overflow(self, uint32_t port) noexcept:
        if not self.overflowed[port] or self.news.readers[port].brought >= self.max_link_claims or (
                self.claim_slots.count - self.owners[ME].count >= self.max_claims
                or (self.lost_count >= self.max_owners // 2 and self.overflowed[port] != 2)):
            return False
        self.overflowed[port] = False
        return True

    # What others claim.

    cdef void apply(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept:
        cdef uint32_t at
        cdef Claim claim
        self.now = now
        for at in range(count):
            claim = load_claim(entries + <uint64_t>at * CLAIM_BYTES)
            if claim.mac == 0 or is_group(claim.mac) or claim.owner == 0 or (
                    claim.flags & CLAIM_FIXED and claim.flags & CLAIM_FOREIGN):
                self.refused_bad += 1
                continue
            # What a claim of this kind cannot have is nothing; flags of days to come are ignored.
            claim.flags &= CLAIM_PRESENT | CLAIM_FIXED | CLAIM_FOREIGN
            if not claim.flags & CLAIM_PRESENT:
                claim.flags = 0
            if not claim.flags & CLAIM_FOREIGN:
                claim.hops = claim.ping = 0
            if claim.owner == self.me:
                self.hear_own(port, &claim)
            else:
                self.hear(port, &claim)
        self.settle()

    cdef void hear(self, uint32_t port, const Claim* claim) noexcept:
        cdef uint32_t host = self.find_host(claim.mac), owner = self.find_owner(claim.owner), at = NONE
        if host != NONE and owner != NONE:
            at = self.find_claim(host, owner)
        if at != NONE:
            if not is_newer(claim.seq, self.claims[at].seq):
                self.answer_older(port, at, claim.seq)
                return
        elif not claim.flags & CLAIM_PRESENT:
            return      # kept, the withdrawal of what nobody here knows could wander about for ever
        elif self.news.readers[port].brought >= self.max_link_claims:
            self.refused_link += 1
            self.overflowed[port] = max(self.overflowed[port], <uint8_t>1)
            return
        elif self.claim_slots.count - self.owners[ME].count >= self.max_claims:
            self.refuse_full(port)
            return
        else:
            if owner == NONE:
                owner = self.make_owner(claim.owner, False)
            if owner != NONE:
                at = self.make_claim(claim.mac, owner, claim.seq)
            if at == NONE:
                self.refuse_full(port)
                if owner != NONE:
                    self.release_owner(owner)
                return
        self.rewrite(at, claim.seq, claim.flags, claim.hops, claim.ping)
        self.news.note(at, port)
        host = self.claims[at].host
        if self.hosts[host].best == at and self.hosts[host].mine != NONE:
            self.locals[self.hosts[host].mine].awaited = False

    cdef void refuse_full(self, uint32_t port) noexcept:
        self.refused_full += 1
        self.overflowed[port] = max(self.overflowed[port], <uint8_t>1)

    cdef void answer_older(self, uint32_t port, uint32_t at, uint32_t seq) noexcept:
        """Who says what is over was told so before it knew the claim, and has not kept it: once more."""
        if is_newer(self.claims[at].seq, seq):
            self.news.owe_late(port, at)

    cdef void hear_own(self, uint32_t port, const Claim* claim) noexcept:
        """Somebody has changed what we said, or remembers what we have forgotten."""
        cdef uint32_t host = self.find_host(claim.mac)
        cdef uint32_t at = self.hosts[host].mine if host != NONE else NONE
        if at == NONE:
            if not claim.flags & CLAIM_PRESENT:
                return
            at = self.own(claim.mac, False) if self.stranger_count < self.max_local else NONE
            if at == NONE:
                self.refused_full += 1
                return
            self.locals[at].stranger = True
            self.stranger_count += 1
        elif not is_newer(claim.seq, self.claims[at].seq) and (
                claim.seq != self.claims[at].seq
                or claim.flags == self.claims[at].flags
                and claim.hops == self.claims[at].hops and claim.ping == self.claims[at].ping):
            self.answer_older(port, at, claim.seq)
            return
        self.disputed += 1
        self.disputed_mac = claim.mac
        self.disputed_port = port
        self.declare(at, claim.seq + 1)

    cdef void set_owner(self, uint64_t node, uint32_t port, uint32_t metric, uint8_t hops, int64_t now) noexcept:
        cdef uint32_t at = self.find_owner(node), reader
        self.now = now
        if at == ME or (at == NONE and port == NO_PORT):
            return
        if at == NONE:
            at = self.make_owner(node, True)
            if at == NONE:
                self.refused_owners += 1
                return
            for reader in range(1, self.max_ports + 1):
                if self.overflowed[reader]:
                    self.overflowed[reader] = 2
        self.set_reachable(at, port, metric, hops)
        if port != NO_PORT and self.owners[at].denied:
            self.pay_denied(at)
        self.settle()

    # What we claim.

    cdef uint32_t own(self, uint64_t mac, bint always) noexcept:
        """Our claim for this MAC, a new one being withdrawn; NONE: there is no place."""
        cdef uint32_t host = self.find_host(mac), at = self.hosts[host].mine if host != NONE else NONE
        if at == NONE and (always or self.owners[ME].count < self.max_own):
            # One less than what the next one takes.
            at = self.make_claim(mac, ME, self.next_seq(mac, self.wall) - 1)
            if at != NONE:
                memset(&self.locals[at], 0, sizeof(Local))
                self.news.note(at, LOCAL_PORT)
        return at

    cdef void declare(self, uint32_t at, uint32_t seq) noexcept:
        """Says, with this sequence number, what now holds."""
        cdef Local* local = &self.locals[at]
        cdef uint8_t flags = 0, hops = 0
        cdef uint32_t ping = 0
        if local.fixed:
            flags = CLAIM_PRESENT | CLAIM_FIXED
        elif local.learned:
            flags = CLAIM_PRESENT
        elif local.ping != 0:
            flags = CLAIM_PRESENT | CLAIM_FOREIGN
            hops = local.hops
            ping = local.ping
        if flags == 0 and self.claims[at].flags != 0:
            self.withdrawn_count += 1
        if flags != 0 and local.stranger:
            local.stranger = False
            self.stranger_count -= 1
        self.rewrite(at, seq, flags, hops, ping)
        self.news.note(at, LOCAL_PORT)

    cdef void declare_next(self, uint32_t at) noexcept:
        self.declare(at, self.next_seq(self.hosts[self.claims[at].host].mac, self.wall))

    cdef void set_fixed(self, uint64_t mac, bint present, int64_t now) noexcept:
        cdef uint32_t host = self.find_host(mac), at = self.hosts[host].mine if host != NONE else NONE
        cdef Local* local
        if mac == 0 or is_group(mac) or (at != NONE and self.locals[at].fixed) == present:
            return
        self.now = now
        at = self.own(mac, True)
        if at == NONE:
            self.refused_full += 1
            return
        local = &self.locals[at]
        local.fixed = present
        local.awaited = False
        if local.learned:
            local.learned = False
            self.learned_count -= 1
        self.declare_next(at)
        self.settle()

    cdef void set_foreign(self, uint64_t mac, uint32_t ping, uint8_t hops, int64_t now) noexcept:
        cdef uint32_t host = self.find_host(mac), at = self.hosts[host].mine if host != NONE else NONE, told
        cdef Local* local
        if mac == 0 or is_group(mac) or (at == NONE and ping == 0):
            return
        self.now = now
        at = self.own(mac, False)
        if at == NONE:
            self.refused_full += 1
            return
        local = &self.locals[at]
        local.ping = ping
        local.hops = hops
        if local.fixed or local.learned:
            return
        told = self.claims[at].ping
        if (ping != 0) != (self.claims[at].flags != 0) or (ping != 0 and (
                hops != self.claims[at].hops
                or max(ping, told) - min(ping, told) > max(self.report_above, told // 4))):
            self.declare_next(at)
            self.settle()

    # HOT PATH
    cdef void learn(self, uint64_t mac, int64_t now) noexcept:
        cdef uint32_t host = self.find_host(mac), at
        if host != NONE and self.hosts[host].mine != NONE:
            at = self.hosts[host].mine
            if self.locals[at].fixed:
                return
            if self.locals[at].learned:
                if now - self.claims[at].since >= SEEN_US:
                    self.claims[at].since = now
                    remove_from(&self.seen, self.timed, at)
                    append_to(&self.seen, self.timed, at)
                return
        self.learn_new(mac, now)

    cdef void learn_new(self, uint64_t mac, int64_t now) noexcept:
        cdef uint32_t host = self.find_host(mac), at = self.hosts[host].mine if host != NONE else NONE
        if not self.learns or mac == 0 or is_group(mac):
            return
        if at != NONE and self.locals[at].held:
            self.locals[at].awaited = True
            self.moves_held += 1
            self.held_mac = mac
            return
        at = self.own(mac, False) if self.learned_count < self.max_local else NONE
        if at == NONE:
            self.learned_full += 1
            return
        self.now = now
        self.claim_learned(at)
        self.settle()

    cdef void claim_learned(self, uint32_t at) noexcept:
        cdef Local* local = &self.locals[at]
        local.learned = True
        local.awaited = False
        self.learned_count += 1
        self.declare_next(at)
        if self.moves_often(self.claims[at].host):
            local.held = True
            local.held_since = self.now
            append_to(&self.held, self.held_links, at)

    cdef void end_learned(self, uint32_t at) noexcept:
        self.locals[at].learned = False
        self.learned_count -= 1
        self.declare_next(at)

    cdef void chosen(self, uint32_t host) noexcept:
        """Our learned claim ends when the one to follow is newer, or as new and of a lower owner id."""
        cdef uint32_t at = self.hosts[host].mine, best = self.hosts[host].best
        if at == NONE or best == at or best == NONE or not self.locals[at].learned:
            return
        if is_newer(self.claims[best].seq, self.claims[at].seq) or (
                self.claims[best].seq == self.claims[at].seq and self.owners[self.hosts[host].owner].node < self.me):
            self.end_learned(at)

    cdef void set_learning(self, bint on, int64_t age, uint32_t max_local, int64_t now) noexcept:
        self.now = now
        self.learns = on
        self.mac_age = age
        self.max_local = max_local
        while self.seen.first != NONE and (not on or self.learned_count > max_local):
            self.end_learned(self.seen.first)
        self.settle()

    cdef void dropping(self, uint32_t at) noexcept:
        cdef Local* local = &self.locals[at]
        self.news.forget(at)
        if self.claims[at].owner == ME:
            self.stranger_count -= local.stranger
            if local.held:
                remove_from(&self.held, self.held_links, at)

    # What time brings.

    cdef void run(self, int64_t now) noexcept:
        cdef uint32_t owner
        self.now = now
        while self.seen.first != NONE and self.claims[self.seen.first].since + SEEN_US + self.mac_age <= now:
            self.end_learned(self.seen.first)
        self.run_held()
        while self.withdrawn[0].first != NONE and self.claims[self.withdrawn[0].first].since + KEPT_US <= now:
            owner = self.claims[self.withdrawn[0].first].owner
            self.drop_claim(self.withdrawn[0].first)
            self.release_owner(owner)
        while self.withdrawn[1].first != NONE and self.claims[self.withdrawn[1].first].since + OWN_KEPT_US <= now:
            self.drop_claim(self.withdrawn[1].first)
        while self.lost.first != NONE and self.owners[self.lost.first].lost + KEPT_US <= now:
            self.forget_owner(self.lost.first)
        self.settle()

    cdef void run_held(self) noexcept:
        cdef uint32_t at = self.held.first
        cdef Local* local
        while at != NONE and self.locals[at].held_since + HELD_US <= self.now:
            local = &self.locals[at]
            remove_from(&self.held, self.held_links, at)
            local.held = False
            if local.awaited and self.learns and self.learned_count < self.max_local:
                self.claim_learned(at)
            local.awaited = False
            at = self.held.first

    cdef void settle(self) noexcept:
        """After each change: what may leave, and when there is something to do."""
        cdef int64_t due = self.news.settle(self.now)
        self.ready = self.news.behind != 0
        if self.seen.first != NONE:
            due = min(due, self.claims[self.seen.first].since + SEEN_US + self.mac_age)
        if self.held.first != NONE:
            due = min(due, self.locals[self.held.first].held_since + HELD_US)
        if self.withdrawn[0].first != NONE:
            due = min(due, self.claims[self.withdrawn[0].first].since + KEPT_US)
        if self.withdrawn[1].first != NONE:
            due = min(due, self.claims[self.withdrawn[1].first].since + OWN_KEPT_US)
        if self.lost.first != NONE:
            due = min(due, self.owners[self.lost.first].lost + KEPT_US)
        self.due = due

    # What the neighbours are told.

    cdef uint32_t updates_for(self, uint32_t port, int64_t now) noexcept:
        return self.walk(port, NULL, ENTRIES_MAX) if self.news.readers[port].behind else 0

    cdef void write_updates(self, uint32_t port, uint8_t* out, uint32_t count) noexcept:
        self.walk(port, out, count)

    cdef uint32_t walk(self, uint32_t port, uint8_t* out, uint32_t most) noexcept:
        """Writes what the port is owed, or without `out` counts it."""
        cdef Cursor cursor = self.news.start(port)
        cdef uint32_t count = 0, at, owner
        cdef ClaimEntry* entry
        cdef Claim claim
        while count < most:
            at = self.news.next(port, &cursor)
            if at == NONE:
                break
            entry = &self.claims[at]
            owner = entry.owner
            if self.owners[owner].port == NO_PORT and self.news.items[at].stamp <= self.news.readers[port].joined:
                self.deny(port, owner)
                continue
            if out != NULL:
                claim.mac = self.hosts[entry.host].mac
                claim.owner = self.owners[owner].node
                claim.seq = entry.seq
                claim.ping = entry.ping
                claim.flags = entry.flags
                claim.hops = entry.hops
                store_claim(out + <uint64_t>count * CLAIM_BYTES, &claim)
            count += 1
        if out != NULL or count == 0:
            self.news.advance(port, &cursor)
            self.ready = self.news.behind != 0
        return count

    cdef uint8_t* denied_to(self, uint32_t owner) noexcept:
        """By port; valid if `owners[owner].denied`."""
        return self.denied + <uint64_t>owner * (self.max_ports + 1)

    cdef void deny(self, uint32_t port, uint32_t owner) noexcept:
        """Its part of the full exchange follows when it is reachable."""
        if not self.owners[owner].denied:
            self.owners[owner].denied = True
            memset(self.denied_to(owner), 0, self.max_ports + 1)
        self.denied_to(owner)[port] = True

    cdef void pay_denied(self, uint32_t owner) noexcept:
        cdef uint8_t* denied = self.denied_to(owner)
        cdef uint32_t port, at
        cdef int kind
        for port in range(1, self.max_ports + 1):
            if denied[port]:
                for kind in range(2):
                    at = self.owners[owner].claims[kind].first
                    while at != NONE:
                        if self.news.items[at].stamp <= self.news.readers[port].joined:
                            self.news.owe_late(port, at)
                        at = self.of_owner[at].after
        self.owners[owner].denied = False

    # What Python sees, for status, tests and benchmarks.

    def open_port(self, uint32_t port):
        self.attach(self.checked(port))

    def close_port(self, uint32_t port, int64_t now):
        self.detach(self.checked(port), now)

    def asks_again(self, uint32_t port):
        """Whether this port refused claims and has room again; True only once."""
        return self.take_overflow(self.checked(port))

    def owe(self, uint32_t port):
        """The port asks for everything."""
        self.owe_all(self.checked(port))

    def take_in(self, uint32_t port, const uint8_t[::1] entries not None, int64_t now):
        """Claims as on the wire."""
        cdef const uint8_t* base = &entries[0] if entries.shape[0] else NULL
        self.apply(self.checked(port), base, <uint32_t>(entries.shape[0] // CLAIM_BYTES), now)

    def reach(self, uint64_t node, port, uint32_t metric, uint8_t hops, int64_t now):
        """The way to a node; port None: there is none."""
        self.set_owner(node, NO_PORT if port is None else self.checked(port), metric, hops, now)

    def fix(self, uint64_t mac, bint present, int64_t now):
        """A MAC of our own interface."""
        self.set_fixed(mac, present, now)

    def see(self, uint64_t mac, int64_t now):
        """The source of a frame from behind the TAP."""
        self.learn(mac, now)

    def configure(self, bint on, int64_t age, uint32_t max_local, int64_t now):
        """Whether and how hosts are learned."""
        self.set_learning(on, age, max_local, now)

    def offer(self, uint64_t mac, uint32_t ping, uint8_t hops, int64_t now):
        """A MAC that a link of version 1 knows; ping 0: no more."""
        self.set_foreign(mac, ping, hops, now)

    def advance(self, int64_t now):
        """Does what is due."""
        self.run(now)

    def next_run(self):
        """When `advance` is wanted next, or None."""
        return None if self.due == INT64_MAX else self.due

    def has_news(self):
        """Whether something may leave now."""
        return self.ready

    def updates(self, uint32_t port, int64_t now):
        """What leaves on this port, as entries on the wire; at most ENTRIES_MAX, told only once."""
        cdef uint32_t count = self.updates_for(self.checked(port), now)
        packet = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count * CLAIM_BYTES)
        if count:
            self.write_updates(port, <uint8_t*>PyBytes_AS_STRING(packet), count)
        return packet

    def count_of(self, uint32_t port):
        """How many claims have their newest version from this port."""
        return self.news.readers[self.checked(port)].brought

    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF:
        if not 1 <= port <= self.max_ports:
            raise IndexError(f"port {port} of {self.max_ports}")
        return port

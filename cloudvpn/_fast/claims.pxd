# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims that a host is behind a node, and for each host the one to follow.

A claim is found by (host, owner) in one hash step. It may be followed if it is present and its owner reachable: a fixed
one before learned before foreign; of fixed ones the own, then that of the lowest owner id; of learned ones the newest,
then the lowest owner id; of foreign ones the least metric to the owner + ping, then the lowest owner id. Claims and
withdrawals (claims without CLAIM_PRESENT) are kept for their sequence numbers too, which compare as in RFC 1982.

A new claim costs O(1), unless it takes away or changes the one that is followed: then the others of that host are
looked at.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.consts cimport CLAIM_FIXED, CLAIM_FOREIGN, CLAIM_PRESENT
from cloudvpn._fast.hash cimport HashKey
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.slots cimport Links, List, Slots

cdef enum:
    ME = 0                      # slot of the owner that is this node
    MOVES_MAX = 5

cdef enum Kind:
    WITHDRAWN
    FOREIGN                     # known from a link of version 1
    LEARNED                     # seen behind the TAP
    FIXED                       # the TAP's own MAC

cdef struct Host:
    uint64_t mac
    List claims
    uint32_t best               # the claim to follow, or NONE
    uint32_t owner              # of that claim
    uint32_t mine               # this node's claim, or NONE
    uint32_t moves[MOVES_MAX]   # s, plus one: when it moved last, as a ring
    uint8_t move                # place of the oldest
    uint8_t kind                # of the best claim; WITHDRAWN: there is none
    bint changed                # stands in the list of changes

# A node that has claims or is reachable.
cdef struct Owner:
    uint64_t node
    int64_t lost                # when it became unreachable, or was heard of first without being reachable
    List claims[2]              # others, foreign
    uint32_t count              # of its claims
    uint32_t port               # next hop's; LOCAL_PORT: ourselves; NO_PORT: unreachable
    uint32_t metric             # us; PING_INFINITE: unreachable
    uint32_t tracked_metric     # as it was when its hosts were last said to have changed
    uint8_t hops
    bint denied                 # some port was denied claims of it: see HostTable.deny

cdef struct ClaimEntry:
    int64_t since               # withdrawn; or present, learned and ours: seen last
    uint32_t host
    uint32_t owner
    uint32_t seq
    uint32_t ping               # us, of a foreign one; else 0
    uint8_t flags               # CLAIM_*
    uint8_t hops                # of a foreign one; else 0

# What the neighbours of version 1 are told of a host.
cdef struct HostRoute:
    uint64_t mac
    uint32_t port               # as lookup
    uint32_t ping               # us, of the whole way; 0: there is none
    uint32_t hops
    uint32_t claimed_ping       # us, beyond its owner
    uint8_t claimed_hops        # beyond its owner
    Kind kind


cdef class ClaimTable:
    cdef readonly uint64_t me
    cdef readonly uint32_t max_ports, max_claims, max_own, max_owners
    cdef uint32_t report_above              # us: smaller changes of a ping are not told
    cdef HashKey key
    cdef int64_t now

    cdef Host* hosts
    cdef Owner* owners
    cdef ClaimEntry* claims
    cdef Slots host_slots, owner_slots, claim_slots
    cdef Links* of_host                     # by claim
    cdef Links* of_owner                    # by claim
    cdef Links* timed                       # by claim
    cdef Links* lost_links                  # by owner
    cdef List withdrawn[2]                  # claims by when they were: those of others, ours
    cdef List seen                          # learned claims of ours, by when the host was seen last
    cdef List lost                          # unreachable owners, by when they became so
    cdef uint32_t lost_count
    cdef uint32_t* changes                  # hosts
    cdef uint32_t change_count
    cdef readonly bint tracks

    cdef readonly uint64_t conflicts        # fixed claims of two nodes for one MAC
    cdef readonly uint64_t conflict_mac     # the last one
    cdef readonly uint64_t conflict_owners[2]
    cdef readonly uint64_t walked           # claims that were looked at because others, or their owners, changed
    cdef readonly uint64_t moves            # of hosts from one owner to another
    cdef readonly uint64_t refused_owners   # reachable nodes for which there was no place

    # Where frames for a MAC go: NO_PORT: unknown; LOCAL_PORT: ours; FOREIGN_PORT: known from a link of version 1 here;
    # else the port towards the node `egress`.
    cdef uint32_t lookup(self, uint64_t mac, uint64_t* egress) noexcept nogil
    # The same without our own claims, for a frame that was sent here in error.
    cdef uint32_t redirect(self, uint64_t mac, uint64_t* egress) noexcept
    # Whether we say that it is behind our TAP.
    cdef bint is_ours(self, uint64_t mac) noexcept nogil

    # Which hosts may have another route; switched on, all. A slot for route_of and route_beyond, or NONE.
    cdef void track(self, bint on) noexcept
    cdef uint32_t take_changed(self) noexcept
    # By the claim to follow, and by the best of others: what is known of it beyond our links of version 1.
    cdef HostRoute route_of(self, uint32_t host) noexcept nogil
    cdef HostRoute route_beyond(self, uint32_t host) noexcept
    cdef HostRoute route_by(self, uint32_t host, uint32_t claim) noexcept nogil

    cdef uint32_t find_host(self, uint64_t mac) noexcept nogil
    cdef uint32_t find_owner(self, uint64_t node) noexcept nogil
    cdef uint32_t find_claim(self, uint32_t host, uint32_t owner) noexcept nogil
    # The host and the claim, WITHDRAWN; NONE: the table is full.
    cdef uint32_t make_claim(self, uint64_t mac, uint32_t owner, uint32_t seq) noexcept
    # Another version of the claim; the host's choice follows.
    cdef void rewrite(
        self, uint32_t at, uint32_t seq, uint8_t flags, uint8_t hops, uint32_t ping) noexcept
    cdef void drop_claim(self, uint32_t at) noexcept
    # Reachable, or heard of only. NONE: there is no place.
    cdef uint32_t make_owner(self, uint64_t node, bint is_reachable) noexcept
    # With its claims.
    cdef void forget_owner(self, uint32_t at) noexcept
    cdef void set_reachable(self, uint32_t at, uint32_t port, uint32_t metric, uint8_t hops) noexcept
    cdef void release_owner(self, uint32_t at) noexcept
    # One more than the highest sequence number known for this MAC, or `least` if that is newer.
    cdef uint32_t next_seq(self, uint64_t mac, uint32_t least) noexcept nogil

    # For those who build on this: the host's best claim was chosen anew; this claim is about to go.
    cdef void chosen(self, uint32_t host) noexcept
    cdef void dropping(self, uint32_t at) noexcept

    cdef Kind kind_of(self, uint32_t at) noexcept nogil
    # Whether this claim made the host move, or is in conflict with another; the second needs no claim that is new.
    cdef void judge_move(self, uint32_t at, Kind kind, uint32_t owner) noexcept
    cdef void judge_conflict(self, uint32_t at, Kind kind, uint32_t owner) noexcept
    cdef bint moves_often(self, uint32_t host) noexcept nogil
    cdef List* timed_list(self, uint32_t at) noexcept nogil
    cdef uint32_t cost(self, uint32_t at) noexcept nogil
    cdef bint is_usable(self, uint32_t at) noexcept nogil
    cdef bint is_better(self, uint32_t a, uint32_t b) noexcept nogil
    cdef void reconsider(self, uint32_t at) noexcept
    cdef uint32_t best_but(self, uint32_t host, uint32_t owner) noexcept
    cdef void take(self, uint32_t host, uint32_t at) noexcept
    cdef HostRoute route_by(self, uint32_t host, uint32_t at) noexcept nogil
    cdef void note_change(self, uint32_t host) noexcept
    cdef void release_host(self, uint32_t host) noexcept


cdef inline Kind kind_of_flags(uint8_t flags) noexcept nogil:
    if not flags & CLAIM_PRESENT:
        return WITHDRAWN
    return FIXED if flags & CLAIM_FIXED else FOREIGN if flags & CLAIM_FOREIGN else LEARNED

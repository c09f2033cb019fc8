# SPDX-License-Identifier: GPL-3.0-or-later
"""What the neighbours offer: the nodes, and for each its offers and the feasible distance that they must beat.

A node is found in one hash step. Its offers stand in a row of each neighbour, by the node's slot, and are linked. What
is chosen among them, and what is told of it, decides `NodeTable`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.announcer cimport Announcer
from cloudvpn._fast.hash cimport HashKey
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.ways cimport Way

cdef enum:
    SEQ_JUMP_MAX = 1 << 16      # an honest node is never so far ahead of what was heard of it
    SEQ_ANSWER_MAX = 1 << 15    # so far it goes at once if it is asked to; who did not hear the last one takes it, too

# A node that is offered, or was reachable within the last 180 s. Slot 0 is this node itself.
cdef struct Node:
    uint64_t id
    uint32_t next               # in the bucket; plus one, 0 ends
    uint32_t port               # the next hop's; LOCAL_PORT: ourselves; NO_PORT: unreachable
    uint32_t metric             # us, of the whole way; PING_INFINITE: unreachable
    uint32_t seq                # with `label` the feasible distance, which outlives the way
    uint32_t label
    uint32_t offers             # port of the first in the list of its offers, or NO_PORT
    uint32_t told_seq           # what the neighbours know or will be told next
    uint32_t told_metric
    uint8_t told_hops
    uint8_t hops
    bint told                   # the neighbours know of a way
    bint has_distance           # seq and label are set
    bint changed                # stands in the list of changes
    int64_t tell_at             # when a change that is not told at once is told, or NEVER
    int64_t ask_at              # when it is asked for again: it starves; or NEVER
    int64_t ask_wait            # us, from then to the next time
    int64_t forget_at           # or NEVER: there is a way, or offers and no distance yet
    # The request of others that was passed on last.
    int64_t passed_at
    uint32_t passed_seq
    uint32_t passed_from        # port
    uint8_t passed_hops         # as it came

# What one link announced of one node, and what is asked of it.
cdef struct Offer:
    uint32_t seq
    uint32_t label
    uint32_t metric
    uint32_t newer, older       # ports, in the node's list
    uint32_t ask_seq            # of the request that waits
    uint8_t hops
    uint8_t ask_hops
    uint8_t present

cdef struct Neighbour:
    Offer* offers               # by slot; NULL: not attached
    uint32_t count              # of the offers that are present
    uint32_t cost               # us, of the link; 0: not measured, its offers are not used
    bint overflowed             # a node was refused since everything was asked for


cdef class OfferTable(Announcer):
    cdef readonly uint64_t me
    cdef readonly uint32_t max_ports, max_nodes
    cdef HashKey key
    cdef Node* nodes                        # by slot
    cdef uint32_t* buckets
    cdef uint32_t bucket_mask
    cdef readonly uint32_t node_count       # of others
    cdef uint32_t touched                   # slots ever used, with ours
    cdef uint32_t free_slot
    cdef uint32_t* changes                  # slots whose port, metric or hops changed
    cdef uint32_t change_count
    cdef Neighbour* neighbours              # by port

    # ValueError: a size out of range; MemoryError.
    cdef int make_tables(self, uint64_t me, uint32_t max_ports, uint32_t max_nodes, RandomSource random) except -1

    # The slot of a node, or NONE; the port on the way to it, LOCAL_PORT for ourselves, NO_PORT without a way.
    cdef uint32_t find(self, uint64_t node) noexcept nogil
    cdef uint32_t port_of(self, uint64_t node) noexcept nogil
    # All ways that labels allow a frame that came from `source`, the nearest first, and their number, WAYS_MAX at most.
    cdef uint32_t sort_ways(self, uint64_t node, uint32_t source, Way* ways) noexcept

    # A new node's slot, or NONE: there is no room.
    cdef uint32_t make_node(self, uint64_t id) noexcept
    cdef void forget_node(self, uint32_t slot) noexcept
    cdef void add_offer(self, uint32_t slot, uint32_t port) noexcept
    cdef void remove_offer(self, uint32_t slot, uint32_t port) noexcept
    cdef uint32_t cost_by(self, uint32_t slot, uint32_t port) noexcept nogil
    cdef bint is_feasible(self, uint32_t slot, uint32_t port) noexcept nogil
    cdef uint8_t hops_by(self, uint32_t slot, uint32_t port) noexcept nogil
    cdef bint has_offer(self, uint32_t slot, uint32_t port) noexcept nogil
    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF


cdef tuple describe(const Node* node)

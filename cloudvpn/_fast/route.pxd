# SPDX-License-Identifier: GPL-3.0-or-later
"""The version-1 route table: what each link offers, the best way to each MAC, and what the neighbours must be told.

A destination has a list of offers, one for each port that announced it. An offer's cost is its announced ping + the
ping of its link + 2 us, saturating; the least cost is the best. An offer is found by (MAC, port) in one hash step, so
an update costs the same with 2 links and with 1,000; only losing the best offer walks the list of the others.

Full tables: a port that offers more than `max_port_routes` keeps its nearest; a destination or offer for which there
is no place at all is refused. Both are counted and mark the port, which asks for a full set when there is room again.
Our own MAC always finds a place.
"""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cloudvpn._fast.hash cimport HashKey
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.wire cimport Route

# One MAC that some port offers, or that the neighbours still have to forget.
cdef struct Destination:
    uint64_t mac
    uint32_t next               # in the bucket; plus one, 0 ends
    uint32_t offers             # head of its offers
    uint32_t best               # offer, or NONE
    uint32_t ping               # us, of the whole way by the best offer
    uint32_t told_ping          # us, as the neighbours know it; 0: they do not
    uint32_t port               # of the best offer, or NO_PORT
    uint16_t dist               # hops by the best offer
    uint16_t told_dist
    bint changed                # stands in the list of changes

cdef struct Offer:
    uint32_t destination
    uint32_t port
    uint32_t next               # in the bucket; plus one, 0 ends
    uint32_t newer, older       # in the destination's list
    uint32_t place              # in the port's heap
    uint32_t ping               # us, as announced
    uint32_t draw               # random: decides among the equally far
    uint32_t stamp              # of the route set that named it last
    uint16_t dist               # hops, as announced

# What one port offers, as a heap with the farthest on top.
cdef struct Table:
    uint32_t* heap              # offers
    uint32_t count
    uint32_t room               # places allocated
    uint32_t ping               # us, of the link; 0: not measured, its offers are not used
    bint attached
    bint overflowed             # something was refused since the last full set was asked for


@cython.final
cdef class RouteTable:
    cdef readonly uint32_t max_ports, max_port_routes, max_offers
    cdef readonly uint16_t max_dist         # an announced distance of this and over is not used
    cdef readonly uint32_t report_above     # us: smaller changes of ping are not told
    cdef RandomSource random
    cdef HashKey key

    cdef Destination* destinations
    cdef uint32_t* destination_buckets
    cdef uint32_t destination_mask
    cdef readonly uint32_t destination_count
    cdef uint32_t destinations_touched      # places ever used
    cdef uint32_t free_destination

    cdef Offer* offers
    cdef uint32_t* offer_buckets
    cdef uint32_t offer_mask
    cdef readonly uint32_t offer_count
    cdef uint32_t offers_touched
    cdef uint32_t free_offer

    cdef Table* tables                      # by port
    cdef uint32_t* changes                  # destinations to look at when the neighbours are told
    cdef readonly uint32_t change_count
    cdef uint32_t stamp

    cdef readonly uint64_t refused_own      # our own MAC, a group MAC
    cdef readonly uint64_t refused_far      # at or over the greatest distance
    cdef readonly uint64_t refused_full     # over a limit, the farthest first

    cdef void attach(self, uint32_t port) noexcept
    cdef void detach(self, uint32_t port) noexcept
    # All that the port has offered; with `again` a full set is to be asked for.
    cdef void forget(self, uint32_t port, bint again) noexcept
    cdef void set_link_ping(self, uint32_t port, uint32_t ping) noexcept
    cdef void apply_set(self, uint32_t port, const uint8_t* entries, uint32_t count) noexcept
    cdef void apply_diff(self, uint32_t port, const uint8_t* entries, uint32_t count) noexcept
    cdef bint add_local(self, uint64_t mac) noexcept
    cdef void remove_local(self, uint64_t mac) noexcept

    # The port on the best way to a MAC, or NO_PORT.
    cdef uint32_t lookup(self, uint64_t mac) noexcept nogil
    # Whether the port refused routes and has room again; asking clears it.
    cdef bint take_overflow(self, uint32_t port) noexcept

    # Entries for the neighbours, written to `out` (room for 65,535), and their number. A diff is what has changed since
    # the last one; a set is the sum of all diffs, so that whoever gets it understands the next diff.
    cdef uint32_t write_diff(self, uint8_t* out) noexcept
    cdef uint32_t write_set(self, uint8_t* out) noexcept

    cdef uint32_t find_destination(self, uint64_t mac) noexcept nogil
    cdef uint32_t make_destination(self, uint64_t mac) noexcept
    cdef void forget_destination(self, uint32_t at) noexcept
    cdef uint32_t find_offer(self, uint32_t destination, uint32_t port) noexcept nogil
    cdef bint put(self, uint32_t port, const Route* route) noexcept
    cdef void renew(self, uint32_t at, const Route* route) noexcept
    cdef uint32_t make_offer(self, uint32_t destination, uint32_t port, const Route* route, uint32_t draw) noexcept
    cdef void drop_offer(self, uint32_t at) noexcept
    cdef bint is_welcome(self, uint32_t destination, const Route* route) noexcept
    cdef void withdraw(self, uint32_t port, uint64_t mac) noexcept
    cdef uint32_t cost(self, const Offer* offer) noexcept nogil
    cdef bint is_better(self, uint32_t a, uint32_t b) noexcept nogil
    cdef void offer_changed(self, uint32_t at) noexcept
    cdef void select(self, uint32_t destination) noexcept
    cdef void take(self, uint32_t destination, uint32_t offer) noexcept
    cdef void note_change(self, uint32_t destination) noexcept

    cdef bint is_farther(self, uint32_t a, uint32_t b) noexcept nogil
    cdef void heap_place(self, Table* table, uint32_t place, uint32_t offer) noexcept nogil
    cdef void heap_settle(self, Table* table, uint32_t place) noexcept nogil
    cdef bint heap_grow(self, Table* table) noexcept
    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF

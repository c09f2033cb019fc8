# SPDX-License-Identifier: GPL-3.0-or-later
"""The version-1 route table: what each link offers, the best way to each MAC, and what the neighbours must be told.

A destination has a list of offers, one for each port that announced it. An offer's cost is its announced ping + the
ping of its link + 2 us, saturating. An offer is found by (MAC, port) in one hash step, so an update costs the same with
2 links and with 1,000; only losing the best offer walks the list of the others.

The hold rule. An offer is feasible if its announced ping is below the least ping, or its dist below the least dist,
that this node itself had for the MAC: whoever leads through here can hardly say so. One that is below both may be taken
at once, one that is below one of them at the heartbeat, when the neighbours hear of it. The feasible offer of least
cost is the best. It gives way to one that costs a tenth and 2 ms less, or no more with fewer hops, so pings may jitter.
When the last feasible offer goes the MAC is withdrawn and has no way for 20 heartbeats, unless a feasible one comes;
then the minima are forgotten and any offer will do. That holds also if no other offer is left: what comes back at once
is mostly the echo of what was. A way that stood for 10 heartbeats, by the same port and as long in hops, makes its own
figures the minima: the mesh has heard of them. Else a ping that rises, or a way that moves twice, would end in a hold,
and a better way that was no good before would never be taken. A port is not told of what it is the way to.

What version 2 knows is one offer of the pseudo-port `mesh_port`. If its border there has it from a link of version 1 it
is feasible up to the minima, by what that border claims, and the minima count the claim. A MAC that version 2 has as
fixed or learned is `exclusive`: offers of links are kept and not used.

`rule_2009`: least cost, at once, told to every port; no memory. For simulations of what 2009 does.

Announced pings follow `report_above` alone, as in 2009: a quarter more, as version 2 has it, would change what the
option means.

Full tables: a port that offers more than `max_port_routes` keeps its nearest; a destination or offer for which there
is no place at all is refused. Both are counted and mark the port, which asks for a full set when there is room again.
Our own MAC always finds a place.
"""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cloudvpn._fast.hash cimport HashKey
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.wire cimport Route

# Destinations that wait for their beat, the longest first.
cdef struct Line:
    uint32_t oldest, newest
    uint32_t count

# One MAC that some port offers, that is held, or that the neighbours still have to forget.
cdef struct Destination:
    uint64_t mac
    uint32_t next               # in the bucket; plus one, 0 ends
    uint32_t port               # of the best offer, or NO_PORT
    uint32_t offers             # head of its offers
    uint32_t best               # offer, or NONE
    uint32_t ping               # us, of the whole way by the best offer
    uint32_t told_ping          # us, as the neighbours know it; 0: they do not
    uint32_t told_port          # the one that was not told
    uint32_t least_ping         # us, the minima of the hold rule
    Line* line                  # where it stands, or NULL
    uint32_t since              # beat in which it went there
    uint32_t newer, older       # its neighbours there
    uint16_t least_dist
    uint16_t dist               # hops by the best offer
    uint16_t told_dist
    uint8_t exclusive           # only version 2 leads there
    uint8_t is_lost             # has no way, and the heartbeat decides
    uint8_t waits               # there is something that the heartbeat decides
    uint8_t changed             # stands in the list of changes
    uint8_t crossed             # stands in the list of crossings
    uint8_t was_told, moved     # while changes are being told: before; whether the figures differ

cdef struct Offer:
    uint32_t destination
    uint32_t port
    uint32_t next               # in the bucket; plus one, 0 ends
    uint32_t newer, older       # in the destination's list
    uint32_t place              # in the port's heap
    uint32_t ping               # us, as announced; of the mesh port: of the whole way
    uint32_t beyond_ping        # us, of the mesh port: as its border claims it
    uint32_t draw               # random: decides among the equally far
    uint32_t stamp              # of the route set that named it last
    uint16_t dist               # hops, as announced; of the mesh port: of the whole way
    uint16_t beyond_dist        # hops, of the mesh port: as its border claims it

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
    cdef readonly uint32_t mesh_port        # max_ports + 1
    cdef readonly bint rule_2009
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
    cdef uint32_t* crossings                # destinations whose best way over a link changed, while `tracks`
    cdef readonly uint32_t crossing_count
    cdef readonly bint tracks
    cdef Line held                          # MACs without a way, because of the hold rule
    cdef Line resting                       # MACs whose way, or its ping, is new
    cdef uint32_t beat_count
    cdef bint at_beat                       # the neighbours are about to be told
    cdef uint32_t stamp

    cdef readonly uint64_t way_changes      # another port, or none, or one again
    cdef readonly uint64_t holds            # times that the last feasible offer went
    cdef readonly uint64_t unfeasible       # offers that came or changed and may not be used
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

    # What version 2 knows of a MAC: ping (us; 0: gone) and hops of the whole way, and the part of them that lies beyond
    # its border, as that claims it. False: no place; `take_overflow(mesh_port)` tells when there is room again.
    cdef bint set_mesh_route(
        self, uint64_t mac, uint32_t ping, uint16_t dist, bint exclusive, uint32_t beyond_ping, uint16_t beyond_dist,
    ) noexcept
    # What version 2 must hear: while on, each MAC whose best way leads, or led, over a link, and changed; at first all
    # that have one. A slot, or NONE; a way counts if its `port` is 1 to max_ports, with `mac`, `ping` and `dist`.
    cdef void track(self, bint on) noexcept
    cdef uint32_t take_changed(self) noexcept

    # The port on the best way to a MAC: LOCAL_PORT, a link's, `mesh_port` (version 2 knows it), or NO_PORT.
    cdef uint32_t lookup(self, uint64_t mac) noexcept nogil
    # Whether the port refused routes and has room again; asking clears it.
    cdef bint take_overflow(self, uint32_t port) noexcept

    # Entries for the neighbour at a port, written to `out` (room for 65,535); their number. Once a heartbeat: begin,
    # a diff for each link, end. A diff is what has changed since the last one; a set is the sum of all diffs, so that
    # whoever gets it, outside of begin and end, understands the next diff. NO_PORT: as a neighbour that leads nowhere.
    cdef void begin_changes(self) noexcept
    cdef uint32_t write_diff(self, uint32_t port, uint8_t* out) noexcept
    cdef void end_changes(self) noexcept
    cdef uint32_t write_set(self, uint32_t port, uint8_t* out) noexcept
    # Whether the offer may be used: the hold rule.
    cdef bint is_feasible(self, const Destination* destination, const Offer* offer) noexcept nogil

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
    cdef bint is_nearer(self, uint32_t a, uint32_t b) noexcept nogil
    cdef bint wins(self, uint32_t a, uint32_t best) noexcept nogil
    cdef bint is_ripe(self, uint32_t at) noexcept nogil
    cdef bint is_usable(self, uint32_t at) noexcept nogil
    cdef bint is_link(self, uint32_t port) noexcept nogil
    cdef uint16_t dist_by(self, const Offer* offer) noexcept nogil
    cdef void count_claim(self, uint32_t destination) noexcept
    cdef void wait(self, uint32_t destination) noexcept
    cdef void hold(self, uint32_t destination) noexcept
    cdef void queue_up(self, uint32_t destination, Line* line) noexcept
    cdef void step_out(self, uint32_t destination) noexcept
    cdef uint32_t take_first(self, Line* line, uint32_t beats) noexcept
    cdef void forget_minima(self, uint32_t destination) noexcept
    cdef void cross(self, uint32_t destination) noexcept
    cdef void settle(self, uint32_t destination) noexcept
    cdef void offer_changed(self, uint32_t at) noexcept
    cdef void select(self, uint32_t destination) noexcept
    cdef void take(self, uint32_t destination, uint32_t offer) noexcept
    cdef void note_change(self, uint32_t destination) noexcept

    cdef bint is_farther(self, uint32_t a, uint32_t b) noexcept nogil
    cdef void heap_place(self, Table* table, uint32_t place, uint32_t offer) noexcept nogil
    cdef void heap_settle(self, Table* table, uint32_t place) noexcept nogil
    cdef bint heap_grow(self, Table* table) noexcept
    cdef uint8_t* scratch(self) except NULL
    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF

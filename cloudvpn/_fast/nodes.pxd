# SPDX-License-Identifier: GPL-3.0-or-later
"""The labelled distance vector of version 2: how do I reach node N, and what must the neighbours be told?

What a neighbour announces of a node is an offer: seq, label, metric, hops. `seq` comes from the node itself; `label` is
the least metric that the neighbour ever had under this seq, the neighbour's feasible distance. An offer may be used if
its pair (seq, label) is better than our own feasible distance: the seq newer, or the same and the label smaller. Our
own pair only improves and is better for each node on the way, so next hops never form a loop, not for a moment. If no
offer may be used though there are some, the node starves: the neighbours are asked for a newer seq, ask in turn, and
the node they mean answers.

Told at once: that a way is gone; soon, gathered for 20 ms: a new way, a new seq, a metric that got much better; after
100 ms: one that got much worse, or other hops, because mostly a better way or none is found meanwhile (a death in a
clique costs half the messages). A small change of metric waits 10 s where it began, and 0.5 s at each node after that.

All times are microseconds of one monotonic clock, all metrics and costs microseconds, saturating: PING_INFINITE is no
way. Sequence numbers compare as in RFC 1982. Several links to one neighbour are separate offers.

Costs: a look-up is one hash step. An update is one hash step and O(1), unless it takes away or worsens the way in use:
then the other offers of this node are looked at. What must be told is a bit for each link. Losing a link, a new cost of
a link and run() walk the nodes.

Memory, with the defaults 1,024 nodes: 112 B a node; 28 B and 3 bits for each node and open link, 29 KB a link. A node
over the limit takes the place of the one that is gone longest; if none is, it is refused, counted, and marks the link,
of which everything is asked again when there is room. Nothing else grows: a link has one request waiting for a node at
most, a node one that it passes on. A node's distance is forgotten 180 s after its last way went and everybody was told:
then no way of anybody leads through here any more.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.offers cimport OfferTable
from cloudvpn._fast.wire cimport NodeRoute, SeqRequest


@cython.final
cdef class NodeTable(OfferTable):
    cdef readonly uint32_t report_above     # us: smaller changes of a metric are not told at once
    cdef int64_t now                        # of the call from outside that goes on
    cdef uint64_t* cause                    # the counter of changes that this call counts in
    cdef uint32_t lost                      # ways that this call took although there are offers
    cdef bint is_crowded                    # by what this packet brought: no node can be forgotten for another
    cdef int64_t renew_at                   # our own seq does not grow before
    cdef uint32_t wanted_seq                # what it grows to then

    # Changes of a next hop, by cause.
    cdef readonly uint64_t changes_offer, changes_lost_link, changes_cost
    cdef readonly uint64_t unfeasible       # offers that could be used but for their label
    cdef readonly uint64_t refused          # updates: a seq that jumps, too many hops, a label above its metric
    cdef readonly uint64_t refused_full     # updates of nodes for which there was no room
    cdef readonly uint64_t requests_sent    # because a node starved
    cdef readonly uint64_t requests_passed
    cdef readonly uint64_t requests_answered
    cdef readonly uint64_t own_heard        # a newer seq of our own than we gave out ...
    cdef readonly uint32_t own_heard_port   # ... and who said so last

    # Links of version 2 come and go. A new neighbour is owed everything.
    # False: no memory, it is not attached.
    cdef bint attach(self, uint32_t port, int64_t now) noexcept
    cdef void detach(self, uint32_t port, int64_t now) noexcept
    # What a frame pays for the link, us, at least 1. 0: not measured yet, its offers are kept and not used.
    cdef void set_cost(self, uint32_t port, uint32_t cost, int64_t now) noexcept
    # The same for a link that may be dead: newer numbers are asked for where no other way is safe.
    cdef void doubt(self, uint32_t port, uint32_t cost, int64_t now) noexcept
    # `count` entries of types 10 and 11.
    cdef void apply(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept
    cdef void hear_requests(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept
    # The neighbour asked for everything again.
    cdef void owe_all(self, uint32_t port) noexcept
    # Whether nodes of this port were refused and there is room again; asking clears it.
    cdef bint take_overflow(self, uint32_t port, int64_t now) noexcept
    # Does what is due. Every other call may bring `due` forward.
    cdef void run(self, int64_t now) noexcept

    # What leaves, updates before requests: how many entries may now, ENTRIES_MAX at most; then so many of them, or
    # fewer, are written. What is not written is not lost, and tells the state of the moment when it is.
    cdef uint32_t updates_for(self, uint32_t port, int64_t now) noexcept
    cdef uint32_t requests_for(self, uint32_t port, int64_t now) noexcept
    cdef void write_updates(self, uint32_t port, uint8_t* out, uint32_t count) noexcept
    cdef void write_requests(self, uint32_t port, uint8_t* out, uint32_t count) noexcept

    # A slot whose port, metric or hops changed since it was taken last, or NONE.
    cdef uint32_t take_changed(self) noexcept

    cdef void take_update(self, uint32_t port, const NodeRoute* route) noexcept
    cdef bint is_refused(self, uint32_t slot, const NodeRoute* route) noexcept
    cdef void hear_own(self, uint32_t port, uint32_t seq) noexcept
    cdef void renew_own(self, uint32_t seq) noexcept
    cdef void forget_later(self, uint32_t slot, int64_t delay) noexcept
    cdef void forget(self, uint32_t slot) noexcept
    cdef uint32_t find_oldest(self) noexcept
    cdef bint forget_oldest(self) noexcept
    cdef void drop_offer(self, uint32_t slot, uint32_t port) noexcept
    cdef void offer_changed(self, uint32_t slot, uint32_t port) noexcept
    cdef void select(self, uint32_t slot) noexcept
    cdef void take(self, uint32_t slot, uint32_t port) noexcept
    cdef void tell(self, uint32_t slot) noexcept
    cdef void tell_later(self, uint32_t slot, int64_t delay) noexcept
    cdef void tell_all(self, uint32_t slot) noexcept
    cdef void check_starving(self, uint32_t slot) noexcept
    cdef void ask_all(self, uint32_t slot) noexcept
    cdef void ask(self, uint32_t slot, uint32_t port, uint32_t seq, uint8_t hops) noexcept
    cdef void hear_request(self, uint32_t port, const SeqRequest* request) noexcept
    cdef void pass_on(self, uint32_t slot, uint32_t port, const SeqRequest* request) noexcept

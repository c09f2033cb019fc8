# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the mesh: behind which node is a MAC? Claims of all nodes, our own, and what the neighbours are told.

Each node claims its TAP's MAC (fixed), the hosts that it sees behind the TAP (learned) and what its links of version 1
know (foreign). Claims are flooded: news goes to all links of version 2 but the one that brought it. A new link gets
all, withdrawals included, but nothing of unreachable owners; that follows when they become reachable. A link that
breaks, and an owner that is lost for a moment, cost no message.

A claim takes the larger of one more than the highest sequence number that anybody used for the MAC, and the wall clock
in seconds. When a host moves, its new owner's claim is newer and the old one withdraws. Who hears a claim of his own
that is newer than what he said, or differs, says it again with its sequence number + 1. A withdrawal of what a node
does not know is not kept there; so who hears a claim that is older than what he knows tells that link what he knows.

All times are microseconds of one monotonic clock. Nothing here asks it: `now` comes with each call, `due` says when
run() is wanted next.

Full tables: a link that brings more than `max_link_claims`, and claims over `max_claims` or of too many unknown owners,
are refused, counted, and mark the port, which asks for everything again when there is room. A host over `max_local` is
not learned; the next frame of it tries again.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.claims cimport ClaimEntry, ClaimTable
from cloudvpn._fast.news cimport Cursor, News
from cloudvpn._fast.slots cimport Links, List
from cloudvpn._fast.wire cimport Claim

# Beside a claim of ours: why it is made.
cdef struct Local:
    int64_t held_since          # when it was claimed last, if it is held
    uint32_t ping               # us, over a link of version 1; 0: none knows it
    uint8_t hops                # over that link
    bint fixed
    bint learned
    bint held                   # its host moves too often: it is not claimed again before 10 s are over
    bint awaited                # it would have been claimed
    bint stranger               # only others say that it is ours


@cython.final
cdef class HostTable(ClaimTable):
    cdef readonly uint32_t max_link_claims, max_local
    cdef public uint32_t wall               # s: the wall clock, for new sequence numbers
    cdef bint ready                         # something may leave now on some port
    cdef int64_t due                        # INT64_MAX: never

    cdef News news
    cdef uint8_t* denied                    # by owner and port: the port was denied claims of it
    # By port: something was refused since everything was asked for last; 2: since then a node became reachable whose
    # claims may have been among it.
    cdef uint8_t* overflowed
    cdef Local* locals                      # by claim
    cdef Links* held_links                  # by claim
    cdef List held                          # by held_since
    cdef bint learns
    cdef int64_t mac_age
    cdef readonly uint32_t learned_count
    cdef uint32_t stranger_count

    cdef readonly uint64_t refused_bad      # entries with a group MAC, MAC 0, owner 0, or fixed and foreign at once
    cdef readonly uint64_t refused_link     # over what one link may bring
    cdef readonly uint64_t refused_full     # there was no place
    cdef readonly uint64_t moves_held       # frames of hosts that move too often, not claimed for that
    cdef readonly uint64_t held_mac         # the last such host
    cdef readonly uint64_t withdrawn_count  # claims of ours that ended
    cdef readonly uint64_t learned_full     # frames of hosts over `max_local`
    cdef readonly uint64_t disputed         # claims of ours that others have changed ...
    cdef readonly uint64_t disputed_mac     # ... the last of them ...
    cdef readonly uint32_t disputed_port    # ... and who said so

    # A link of version 2 comes and goes; owe_all: it asks for everything.
    cdef void attach(self, uint32_t port) noexcept
    cdef void detach(self, uint32_t port, int64_t now) noexcept
    cdef void owe_all(self, uint32_t port) noexcept
    # Whether the port refused claims and has room again; asking clears it.
    cdef bint take_overflow(self, uint32_t port) noexcept
    # The entries of a type 12.
    cdef void apply(self, uint32_t port, const uint8_t* entries, uint32_t count, int64_t now) noexcept
    # How a node is reached now; NO_PORT: not at all.
    cdef void set_owner(self, uint64_t node, uint32_t port, uint32_t metric, uint8_t hops, int64_t now) noexcept

    cdef void set_fixed(self, uint64_t mac, bint present, int64_t now) noexcept
    # The source of a frame that the TAP has read. One hash step, if the host is known.
    cdef void learn(self, uint64_t mac, int64_t now) noexcept
    cdef void set_learning(self, bint on, int64_t age, uint32_t max_local, int64_t now) noexcept
    # What the links of version 1 know of a MAC; ping 0: nothing more.
    cdef void set_foreign(self, uint64_t mac, uint32_t ping, uint8_t hops, int64_t now) noexcept
    cdef void run(self, int64_t now) noexcept

    # How many entries may leave on this port now, ENTRIES_MAX at most; exactly so many are then written, or none.
    cdef uint32_t updates_for(self, uint32_t port, int64_t now) noexcept
    cdef void write_updates(self, uint32_t port, uint8_t* out, uint32_t count) noexcept

    cdef void hear(self, uint32_t port, const Claim* claim) noexcept
    cdef void answer_older(self, uint32_t port, uint32_t at, uint32_t seq) noexcept
    cdef void hear_own(self, uint32_t port, const Claim* claim) noexcept
    cdef void refuse_full(self, uint32_t port) noexcept
    cdef uint32_t own(self, uint64_t mac, bint always) noexcept
    cdef void declare(self, uint32_t at, uint32_t seq) noexcept
    cdef void declare_next(self, uint32_t at) noexcept
    cdef void learn_new(self, uint64_t mac, int64_t now) noexcept
    cdef void claim_learned(self, uint32_t at) noexcept
    cdef void end_learned(self, uint32_t at) noexcept
    cdef void run_held(self) noexcept
    cdef void settle(self) noexcept
    cdef uint32_t walk(self, uint32_t port, uint8_t* out, uint32_t most) noexcept
    cdef uint8_t* denied_to(self, uint32_t owner) noexcept
    cdef void deny(self, uint32_t port, uint32_t owner) noexcept
    cdef void pay_denied(self, uint32_t owner) noexcept
    cdef uint32_t checked(self, uint32_t port) except? 0xFFFFFFFF

# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports of a switch: which links there are, what waits for each, and when it leaves.

What of this node knows no table and looks into no frame: slots, queues with their limits, the upload limits, the
counters of what was lost. `_fast/router` and `_fast/switch` stand on it.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.consts cimport PacketType
from cloudvpn._fast.policer cimport Policer
from cloudvpn._fast.port cimport Port, Tap
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.shaper cimport Shaper

# Why a frame, or one copy of it, was lost. frames in + copies = frames to the TAP + frames to links + drops.
cdef enum:
    DROP_SHORT          # under 14 B
    DROP_LONG           # over conn-mtu
    DROP_DUPLICATE      # a broadcast that passed before
    DROP_BACKWARD       # its only way leads where it came from
    DROP_NOWHERE        # no other link, no interface
    DROP_QUEUE_FULL     # the link takes less than comes
    DROP_NO_MEMORY
    DROP_LINK_CLOSED    # waited for a link that closed
    DROP_TAP_REFUSED    # the interface is down or gone
    DROP_BAD_OFFLOAD    # a frame that does not fit its offload header
    DROP_HOPS           # was sent on too often
    DROP_FILTERED       # not in broadcast_filter_allow
    DROP_BROADCAST_LIMIT  # the link brings more broadcasts than broadcast_limit
    DROP_DOWNLIMIT      # came faster than the download limits allow
    DROP_NO_WAY         # the node that it was sent to is not reachable from here now
    DROP_EGRESS_MISSED  # the host is not here any more, and nowhere else that we know, or it was sent on once already
    DROPS


cdef class Ports:
    cdef RandomSource random
    cdef Tap tap                            # None: headless
    cdef readonly uint32_t max_ports
    cdef int64_t now                        # us, when the batch at hand began
    cdef Shaper shaper
    cdef Policer policer
    cdef object alarm                       # called with the time (us) at which `flush` is wanted; None: nobody cares
    cdef int64_t alarm_at                   # us, what it was called with since the last `flush`; INT64_MAX: it was not

    # Nothing of this takes memory while ports come and go.
    cdef list slots                         # Port or None, by index
    cdef uint32_t* free_slots
    cdef uint32_t free_count, used_count    # slots that are free again, slots that were ever used
    cdef PyObject** attached                # borrowed from `slots`, in any order
    cdef readonly uint32_t attached_count
    cdef PyObject** up                      # those that frames may go to
    cdef readonly uint32_t up_count
    cdef uint32_t stopped_count             # of those that are up: paused or clogged
    cdef PyObject** touched                 # those with something new in their queue
    cdef uint32_t touched_count
    cdef bint tap_wanted
    cdef readonly uint64_t waiting_total    # bytes of frames in all queues
    cdef uint64_t max_waiting

    cdef readonly uint64_t frames_to_links
    cdef uint64_t drops[DROPS]

    # Gives the port a place; its queue is empty, nothing was said yet.
    cdef int take_in(self, Port port, SendQueue queue, int64_t now, uint32_t version) except -1
    # Takes its place away; what waits for it is dropped and counted.
    cdef void let_go(self, Port port) noexcept
    # Frames may go there from now on.
    cdef void bring_up(self, Port port) noexcept
    # Whether the port's transport takes nothing now. When it takes again: `flush_touched`, too.
    cdef void set_paused(self, Port port, bint paused) noexcept
    cdef void set_stopped(self, Port port, bint paused, bint clogged) noexcept
    cdef void watch_tap(self) noexcept

    # Room in the port's queue for a packet that stands for so many frames; NULL: dropped and counted.
    cdef uint8_t* begin_packet(self, Port port, uint32_t size, uint32_t frames) noexcept
    cdef void end_packet(self, Port port, uint32_t frames) noexcept
    # Whether the limits allow a packet that stands for so many frames; if not, it is counted as dropped.
    cdef bint admit(self, Port port, uint32_t size, uint32_t frames) noexcept
    cdef bint make_room(self, Port port, uint32_t size) noexcept
    # The header of a protocol packet, in the port's lane, and room for its body behind it; NULL: the lane is full.
    cdef uint8_t* reserve(self, Port port, PacketType kind, uint8_t special, uint32_t count, uint32_t size) noexcept
    cdef void drop(self, uint32_t reason, uint32_t frames) noexcept
    # Counts what the port's queue has lost.
    cdef void count_lost(self, Port port) noexcept

    cdef void touch(self, Port port) noexcept
    # Lets every port with something new write: once after each batch.
    cdef void flush_touched(self) noexcept
    cdef void flush_early(self, Port port) noexcept
    cdef void flush_shaped(self) noexcept
    # `flush` is wanted at this time.
    cdef void wake_at(self, int64_t time) noexcept

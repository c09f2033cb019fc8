# SPDX-License-Identifier: GPL-3.0-or-later
"""What the switch sees of its surroundings: ports to other nodes, and the TAP."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cloudvpn._fast.bucket cimport Bucket
from cloudvpn._fast.echo cimport EchoMeter
from cloudvpn._fast.segment cimport Cut
from cloudvpn._fast.sendq cimport SendQueue

cdef class Port:
    cdef readonly uint32_t index            # in the switch, 1..max_ports; 0: not attached
    cdef readonly uint32_t version          # of the wire, 1 or 2
    cdef readonly uint64_t peer_id          # version 2: who it is; 0: it has not said hello yet
    cdef readonly bint is_ourselves         # it said our own name
    cdef readonly bint up                   # the peer has sent a valid packet
    cdef readonly bint paused               # the transport takes nothing now
    cdef readonly bint failed               # packets were lost for lack of memory: the next heartbeat closes it
    cdef bint clogged                       # its queue is full because of a limit
    cdef bint touched                       # stands in the switch's list of ports to flush
    cdef bint wants_set                     # a full route set is owed
    cdef bint asks_set                      # the peer has asked for one
    cdef uint32_t place_attached, place_up  # in the switch's lists
    cdef int64_t asked_set, given_set       # us, when a full set was requested last, of the peer and by it
    cdef uint32_t told                      # entries that it was told since the last heartbeat
    cdef uint64_t entries                   # of routing packets, less what each heartbeat allows
    cdef readonly bint slowed               # brought too many: it is not read until those were allowed for
    cdef readonly SendQueue queue
    cdef readonly EchoMeter echo
    cdef uint32_t unheard                   # echo requests since the peer's last byte
    cdef int64_t unheard_since, asked_at    # us, of the first and the last one of these
    cdef readonly bint doubted              # version 2: it is silent, so other ways are preferred

    cdef Bucket up_limit, down_limit, down_share    # bytes of frames
    cdef int64_t deficit                    # B that are left of its turn to send; below 0: sent ahead of turns to come
    cdef uint64_t left_round                # when it had nothing to send
    cdef uint32_t place_waiting             # in the shaper's list, plus one; 0: not there
    cdef bint has_grant                     # stands in the shaper's list of those that may write
    cdef uint64_t down_spell                # in which the policer saw it last

    # Packets and frames count when they are parsed and when they are queued; bytes when they are read and written.
    cdef readonly uint64_t bytes_in, bytes_out, packets_in, packets_out, frames_in, frames_out
    cdef readonly uint64_t frames_dropped   # for this link: queue full, or it closed
    cdef readonly uint64_t protocol_refused  # protocol packets that found the lane full
    # Frames of the peer that would be flooded: all of them, those that were not because of broadcast_limit, and of
    # these the ones for a single MAC.
    cdef readonly uint64_t broadcasts_in, broadcasts_refused, unicasts_refused
    cdef Bucket flood_limit                 # frames of the peer that may be flooded

    # Writes what waits, until nothing does or the transport pauses. Must not attach or detach a port. What it takes
    # and cannot write it adds to the queue's `lost`.
    cpdef flush(self)
    # Whether the peer's bytes shall be read now. After True what was read and not used is to be fed again.
    cpdef set_reading(self, bint wanted)
    # Called once, when `up` becomes true.
    cpdef came_up(self)

cdef class Tap:
    cdef uint32_t refused       # frames that were not taken, since the last flush

    # Takes a frame, which must stay where it is until the flush.
    cdef void deliver(self, const Cut* cut) noexcept
    # Writes what is held. How many frames were refused since the last flush: they are lost.
    cdef uint32_t flush(self) noexcept
    # Whether frames shall be read now: not while no link can take one.
    cpdef set_wanted(self, bint wanted)

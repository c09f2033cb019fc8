# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits to be sent on one link: protocol packets first, then frames, each within limits.

Frames are copied once, straight into the bytes objects that the transport is given; not even that for a packet that
comes in one of its own. When a limit is reached the newest is refused; the caller counts it. Memory of one queue: at
most `max_data_bytes` + 3 x 64 KiB of frames (chunks are not always full, and of the oldest a part may have left), and
PROTO_BYTES_MAX of protocol, `max_proto` packets and those of which a part has left.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    # Room for one full set of 65,535 routes and as much again for diffs and echoes.
    PROTO_BYTES_MAX = 2 * 786424


@cython.final
cdef class SendQueue:
    cdef readonly uint32_t max_proto, max_data      # packets, frames
    cdef readonly uint32_t max_data_bytes
    cdef readonly uint32_t waiting_proto, waiting_data
    cdef readonly uint32_t waiting_frames           # that the data packets stand for
    cdef readonly uint64_t waiting_bytes            # of data
    cdef uint64_t* total        # bytes of data in all queues of the switch; of this one alone while it has none
    cdef uint64_t own_total
    cdef readonly uint64_t lost                     # frames that went for lack of memory and are not counted yet

    cdef uint8_t* proto
    cdef uint32_t proto_used, proto_room
    cdef uint8_t* leaving           # more than one write of protocol, of which a part has left; NULL: none
    cdef uint32_t leaving_start, leaving_used

    cdef list chunks                # full ones, the oldest first: exact bytes, packets, frames
    cdef uint32_t front_used        # bytes of the oldest one that have left
    cdef PyObject* open_chunk       # the chunk being filled, owned; NULL: none
    cdef uint32_t open_used, open_room, open_packets, open_frames

    cdef bint limited               # of the frames only those that were granted leave
    cdef uint64_t granted           # bytes, from the oldest on, that may leave
    cdef uint32_t granted_packets, granted_frames

    # Room for the body of one protocol packet of so many bytes, or NULL if a limit is reached.
    cdef uint8_t* reserve_proto(self, uint32_t size) noexcept
    cdef bint has_room(self, uint32_t size) noexcept
    # Room for one data packet of so many bytes on the wire, which stands for so many frames; NULL: no memory. Asks no
    # limit.
    cdef uint8_t* reserve_data(self, uint32_t size, uint32_t frames) noexcept
    # The same for a packet that lies at the start of a bytes object of so much room already: the object becomes the
    # queue's, without a copy, and `*packet` NULL. False: no memory, nothing has changed.
    cdef bint take_over(self, PyObject** packet, uint32_t room, uint32_t size, uint32_t frames) noexcept
    cdef bint is_empty(self) noexcept

    # The next bytes to write, or None: all protocol packets, then frames, at most 64 KiB or one frame at a time.
    # `*frames` is how many frames they carry. MemoryError: what waits still does, but for what `lost` says.
    cdef object take(self, uint32_t* frames)
    cdef object take_part(self)
    cdef void forget_leaving(self) noexcept
    cdef object take_data(self, uint64_t most, uint32_t* frames)
    # The oldest packet that is not granted, and how many bytes stand from it on to the end of its chunk.
    cdef const uint8_t* look(self, size_t* size) noexcept
    # Lets that packet leave, which has so many bytes and stands for so many frames.
    cdef void grant(self, uint32_t size, uint32_t frames) noexcept
    # Throws the oldest chunk away and gives the number of frames in it; 0: no memory, it is still there or `lost`.
    cdef uint32_t drop_oldest(self) noexcept
    cdef void close_chunk(self) except *
    cdef bint has_closed_chunk(self) noexcept       # False: no memory
    cdef void forget_open(self) noexcept
    # Throws everything away and gives the number of frames that waited.
    cdef uint32_t clear(self) noexcept

# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP: frames of its file descriptor <-> the switch, in batches.

A TAP with offloads hands over super-frames, up to 64 KiB in one read, and takes them: what links bring in one batch is
joined first (`_fast/coalesce`).
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cloudvpn._fast.coalesce cimport Coalescer
from cloudvpn._fast.offload cimport OFFLOAD_BYTES, SUPER_FRAME_MAX
from cloudvpn._fast.port cimport Tap
from cloudvpn._fast.segment cimport Cut
from cloudvpn._fast.switch cimport Switch

cdef enum:
    # Read at one wake-up: frames, and bytes. More would make links wait; fewer would make small writes.
    BATCH_FRAMES = 64
    BATCH_BYTES = 524288
    # Linux takes no more datagrams in one super-frame, and before 6.9 half as many.
    UDP_PIECES_MAX = 64


@cython.final
cdef class TapWriter(Coalescer):
    cdef int fd                     # -1: none
    cdef bint offloads              # each frame has an offload header
    cdef uint32_t refused           # frames, since the last flush
    cdef int refused_errno
    cdef uint64_t writes, bytes_out

    cdef void count(self, Py_ssize_t written, uint32_t size, uint32_t frames) noexcept


@cython.final
cdef class TapPort(Tap):
    cdef Switch switch
    cdef object loop
    cdef object lost                # called with an errno when the descriptor is dead
    cdef readonly int fd            # -1: none
    cdef bint wanted, reading
    cdef TapWriter writer
    cdef readonly uint64_t reads, bytes_in
    cdef uint8_t piece[OFFLOAD_BYTES + 65535]   # what is cut to be written

    cdef void set_reading(self)
    cdef void deliver_pieces(self, const Cut* cut) noexcept

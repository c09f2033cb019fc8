# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP: frames of its file descriptor <-> the switch, in batches."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cloudvpn._fast.port cimport Tap
from cloudvpn._fast.switch cimport Switch

cdef enum:
    # Frames read at one wake-up. More would make links wait; fewer would make small writes.
    BATCH_FRAMES = 64
    # The largest MTU, an Ethernet header and two VLAN tags.
    TAP_FRAME_MAX = 65535 + 14 + 8

cdef class TapPort(Tap):
    cdef Switch switch
    cdef object loop
    cdef object lost            # called with an errno when the descriptor is dead
    cdef readonly int fd        # -1: none
    cdef bint wanted, reading
    cdef readonly uint64_t frames_in, frames_out, bytes_in, bytes_out
    cdef readonly int write_errno   # why the last refused frame was refused
    cdef uint8_t buffer[TAP_FRAME_MAX]

    cdef void set_reading(self)

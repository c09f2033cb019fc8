# SPDX-License-Identifier: GPL-3.0-or-later
"""What the switch sees of its surroundings: ports to other nodes, and the TAP."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from cloudvpn._fast.segment cimport piece_size, write_piece


cdef class Port:
    """One link as the switch sees it. `_fast/link` puts a TLS transport under it, simulations a fake one."""

    cpdef flush(self):
        raise NotImplementedError

    cpdef set_reading(self, bint wanted):
        pass

    cpdef came_up(self):
        pass

    def take(self):
        """The next bytes for the wire: all protocol packets, then frames, at most 64 KiB; None: nothing waits."""
        cdef uint32_t frames
        data = self.queue.take(&frames)
        if data is not None:
            self.bytes_out += <uint64_t>len(data)
        return data


cdef class Tap:
    """The local interface as the switch sees it. `_fast/tapport` puts a file descriptor under it."""

    cdef void deliver(self, const Cut* cut) noexcept:
        cdef uint32_t index
        for index in range(cut.pieces):
            frame = PyBytes_FromStringAndSize(NULL, piece_size(cut, index))
            write_piece(cut, index, <uint8_t*>PyBytes_AS_STRING(frame))
            self.refused += not self.take_frame(frame)

    cdef uint32_t flush(self) noexcept:
        cdef uint32_t refused = self.refused
        self.refused = 0
        return refused

    cpdef set_wanted(self, bint wanted):
        pass

    def take_frame(self, frame):
        """For interfaces written in Python: whether the plain frame was taken."""
        raise NotImplementedError

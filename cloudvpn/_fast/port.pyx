# SPDX-License-Identifier: GPL-3.0-or-later
"""What the switch sees of its surroundings: ports to other nodes, and the TAP."""

from cpython.bytes cimport PyBytes_FromStringAndSize


cdef class Port:
    """One link as the switch sees it. `_fast/link` puts a TLS transport under it, simulations a fake one."""

    cpdef flush(self):
        raise NotImplementedError

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

    cdef bint deliver(self, const uint8_t* frame, uint32_t size) noexcept:
        return self.take_frame(PyBytes_FromStringAndSize(<const char*>frame, size))

    cpdef set_wanted(self, bint wanted):
        pass

    def take_frame(self, frame):
        """For interfaces written in Python: whether the frame was taken."""
        raise NotImplementedError

# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP: frames of its file descriptor <-> the switch, in batches."""

from libc.errno cimport EAGAIN, EINTR, errno
from posix.unistd cimport read, write


cdef class TapPort(Tap):
    """Reads and writes a non-blocking TAP descriptor, one frame a call. `lost(errno)` is called when it is dead."""

    def __cinit__(self, loop not None, Switch switch not None, lost not None):
        self.loop = loop
        self.switch = switch
        self.lost = lost
        self.fd = -1
        self.wanted = True

    def open(self, int fd):
        """Takes this descriptor into use; the caller keeps owning it."""
        self.fd = fd
        self.set_reading()

    def close(self):
        """Lets the descriptor go, without closing it."""
        if self.reading:
            self.loop.remove_reader(self.fd)
            self.reading = False
        self.fd = -1

    cpdef set_wanted(self, bint wanted):
        self.wanted = wanted
        self.set_reading()

    cdef void set_reading(self):
        cdef bint reading = self.wanted and self.fd >= 0
        if reading == self.reading:
            return
        self.reading = reading
        if reading:
            self.loop.add_reader(self.fd, self.readable)
        else:
            self.loop.remove_reader(self.fd)

    def readable(self):
        """One wake-up: frames until there is none, the batch is full, or every link is paused."""
        cdef int frames = 0, failed = 0
        cdef Py_ssize_t size
        while frames < BATCH_FRAMES and self.reading:
            size = read(self.fd, self.buffer, TAP_FRAME_MAX)
            if size <= 0:
                failed = errno if size < 0 else EAGAIN
                break
            frames += 1
            self.frames_in += 1
            self.bytes_in += <uint64_t>size
            self.switch.frame_from_tap(self.buffer, <uint32_t>size)
        self.switch.flush_touched()
        if failed and failed != EAGAIN and failed != EINTR:
            self.close()        # or the loop would wake up for it without end
            self.lost(failed)

    # HOT PATH
    cdef bint deliver(self, const uint8_t* frame, uint32_t size) noexcept:
        cdef Py_ssize_t written = write(self.fd, frame, size)
        if written != <Py_ssize_t>size:
            self.write_errno = errno
            return False
        self.frames_out += 1
        self.bytes_out += size
        return True

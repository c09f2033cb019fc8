# SPDX-License-Identifier: GPL-3.0-or-later
"""A link to one peer: the bytes of a TLS transport <-> the packets of a port."""

from cpython.buffer cimport PyBUF_WRITE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memmove

from cloudvpn._fast.clock cimport monotonic_us
from cloudvpn._fast.consts cimport PACKET_BYTES_MAX

from cloudvpn.errors import PeerError

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* start, Py_ssize_t size, int flags)


NO_MEMORY = "out of memory"      # where it is, some libraries say SystemError


cdef class Link(Port):
    """One TLS connection. `owner` hears `link_made`, `link_up`, `link_waits`, `link_lost`; it starts or refuses it."""

    def __cinit__(self, Switch switch not None, owner not None, info, size_t max_input=4194304):
        if max_input < PACKET_BYTES_MAX:
            raise ValueError(f"max_input must hold the largest packet, {PACKET_BYTES_MAX} bytes")
        self.switch = switch
        self.owner = owner
        self.info = info
        self.max_input = max_input
        self.room = INPUT_BYTES
        self.buffer = <uint8_t*>PyMem_RawMalloc(self.room)
        if self.buffer == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.buffer)

    # The transport calls these, in this order.

    def connection_made(self, transport):
        self.transport = transport
        self.owner.link_made(self, transport)

    def get_buffer(self, Py_ssize_t hint):
        cdef size_t room
        cdef void* grown
        if self.start == self.end:
            self.start = self.end = 0
            if self.room > INPUT_BYTES:     # a large route set has passed
                grown = PyMem_RawRealloc(self.buffer, INPUT_BYTES)
                if grown != NULL:
                    self.buffer = <uint8_t*>grown
                    self.room = INPUT_BYTES
        elif self.start and self.room - self.end < INPUT_ROOM_MIN:
            memmove(self.buffer, self.buffer + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        if self.end == self.room:
            # Only what has really come makes the buffer grow, not what a header promises.
            room = min(2 * self.room, self.max_input)
            if room == self.room:
                raise PeerError("a packet larger than any valid one")
            grown = PyMem_RawRealloc(self.buffer, room)
            if grown == NULL:
                raise MemoryError()
            self.buffer = <uint8_t*>grown
            self.room = room
        return PyMemoryView_FromMemory(<char*>self.buffer + self.end, <Py_ssize_t>(self.room - self.end), PyBUF_WRITE)

    def buffer_updated(self, Py_ssize_t size):
        self.end += <size_t>size
        self.bytes_in += <size_t>size
        if self.index:
            self.parse()

    cdef void parse(self):
        cdef int64_t now = monotonic_us()
        cdef bint has_parsed = False
        # If this process was stopped, what is read first was sent long ago: the heartbeat, which is due, cuts the link.
        if now - self.echo.last_reply >= self.switch.timeout:
            return
        try:
            self.start += self.switch.feed(self, self.buffer + self.start, self.end - self.start, now)
            has_parsed = True
        except PeerError as error:
            self.abort(str(error))
        except MemoryError:
            pass                # nothing else, here and below: see `has_closed_chunk` of the queue
        if not has_parsed:
            self.abort(NO_MEMORY)       # if it is not already
        self.switch.flush_touched()

    def pause_writing(self):
        self.switch.set_paused(self, True)

    def resume_writing(self):
        self.switch.now = monotonic_us()
        self.switch.set_paused(self, False)
        self.switch.flush_touched()

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.switch.detach(self, monotonic_us())
        self.transport = None
        self.owner.link_lost(self, error)

    # The owner calls these.

    def start_packets(self, SendQueue queue not None, uint32_t version=1):
        """Joins the switch: the peer is greeted, and what it has sent already is read."""
        self.switch.attach(self, queue, monotonic_us(), version)
        if self.end > self.start:
            self.parse()

    def close(self, reason):
        """Leaves the switch and says goodbye (close_notify); `link_lost` follows."""
        if self.reason is None:
            self.reason = reason
        self.switch.detach(self, monotonic_us())
        if self.transport is not None:
            self.transport.close()

    def abort(self, reason):
        """Leaves the switch and cuts the connection; `link_lost` follows."""
        if self.reason is None:
            self.reason = reason
        self.switch.detach(self, monotonic_us())
        if self.transport is not None:
            self.transport.abort()

    def read_on(self):
        """Reads what came before the link was slowed and was left."""
        if self.index:
            self.parse()

    def is_closing(self):
        """It has begun to close, from our side or the other, and `link_lost` did not follow yet."""
        return self.transport is not None and bool(self.transport.is_closing())

    # The switch calls these.

    cpdef came_up(self):
        cdef bint is_done = False
        try:
            self.owner.link_up(self)
            is_done = True
        except (MemoryError, SystemError):
            pass
        if not is_done:
            self.fail()

    cpdef set_reading(self, bint wanted):
        cdef bint is_done = False
        if self.transport is None or self.transport.is_closing():
            return
        try:
            if wanted:
                self.transport.resume_reading()
                if self.end > self.start:
                    self.owner.link_waits(self)
            else:
                self.transport.pause_reading()
            is_done = True
        except (MemoryError, SystemError):
            pass
        if not is_done:
            self.fail()

    cdef void fail(self) noexcept:
        self.failed = True
        if self.reason is None:
            self.reason = NO_MEMORY

    cpdef flush(self):
        cdef uint32_t frames
        cdef bint is_done
        if self.transport is None:
            return
        while not self.paused:
            data = None
            try:
                data = self.queue.take(&frames)
            except MemoryError:     # what waits still does
                pass
            if data is None:
                return
            self.bytes_out += <size_t>len(data)
            is_done = False
            try:
                self.transport.write(data)
                is_done = True
            except (MemoryError, SystemError):
                pass
            if not is_done:         # the peer will miss it
                self.queue.lost += frames
                self.fail()
                return

# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits to be sent on one link: protocol packets first, then frames, each within limits."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stddef cimport size_t
from libc.string cimport memcpy

from cloudvpn._fast.consts cimport WRITE_BYTES
from cloudvpn._fast.pybytes cimport PyErr_Clear, bytes_start, decref, new_bytes, resize_bytes

cdef extern from "Python.h":
    PyObject* PyErr_NoMemory() except NULL
    # Empties a list without taking memory.
    int PyList_SetSlice(list items, Py_ssize_t low, Py_ssize_t high, PyObject* none) except -1


cdef class SendQueue:
    """The two lanes of one link. Limits: packets, and for frames bytes too; the tighter one holds."""

    def __cinit__(self, uint32_t max_proto=64, uint32_t max_data=256, uint32_t max_data_bytes=1 << 20):
        self.max_proto = max_proto
        self.max_data = max_data
        self.max_data_bytes = max_data_bytes
        self.chunks = []
        self.total = &self.own_total

    def __dealloc__(self):
        PyMem_Free(self.proto)
        PyMem_Free(self.leaving)
        decref(self.open_chunk)

    cdef uint8_t* reserve_proto(self, uint32_t size) noexcept:
        cdef uint32_t room
        cdef void* grown
        cdef uint8_t* at
        if self.waiting_proto >= self.max_proto or size > PROTO_BYTES_MAX - self.leaving_used - self.proto_used:
            return NULL
        if size > self.proto_room - self.proto_used:
            room = max(<uint32_t>64, 2 * self.proto_room, self.proto_used + size)
            grown = PyMem_Realloc(self.proto, room)
            if grown == NULL:
                return NULL
            self.proto = <uint8_t*>grown
            self.proto_room = room
        at = self.proto + self.proto_used
        self.proto_used += size
        self.waiting_proto += 1
        return at

    # HOT PATH
    cdef bint has_room(self, uint32_t size) noexcept:
        return self.waiting_data < self.max_data and self.waiting_bytes + size <= self.max_data_bytes

    # HOT PATH
    cdef uint8_t* reserve_data(self, uint32_t size, uint32_t frames) noexcept:
        cdef uint8_t* at
        if size > self.open_room - self.open_used:
            if not self.has_closed_chunk():
                return NULL
            self.open_room = max(<uint32_t>WRITE_BYTES, size)
            self.open_chunk = new_bytes(NULL, self.open_room)
            if self.open_chunk == NULL:
                PyErr_Clear()
                self.open_room = 0
                return NULL
        at = <uint8_t*>bytes_start(self.open_chunk) + self.open_used
        self.open_used += size
        self.open_packets += 1
        self.open_frames += frames
        self.waiting_data += 1
        self.waiting_frames += frames
        self.waiting_bytes += size
        self.total[0] += size
        return at

    # HOT PATH
    cdef bint take_over(self, PyObject** packet, uint32_t room, uint32_t size, uint32_t frames) noexcept:
        if not self.has_closed_chunk():
            return False
        self.open_chunk = packet[0]
        packet[0] = NULL
        self.open_room = room
        self.open_used = 0
        self.reserve_data(size, frames)
        return True

    cdef bint is_empty(self) noexcept:
        return self.waiting_proto == 0 and self.leaving_used == 0 and self.waiting_data == 0

    cdef void close_chunk(self) except *:
        if self.open_chunk == NULL:
            return
        if resize_bytes(&self.open_chunk, self.open_used) < 0:      # the chunk is gone with it
            self.lost += self.open_frames
            self.waiting_data -= self.open_packets
            self.waiting_frames -= self.open_frames
            self.waiting_bytes -= self.open_used
            self.total[0] -= self.open_used
            self.granted = self.granted_packets = self.granted_frames = 0   # of the others it is granted anew
            self.forget_open()
            PyErr_NoMemory()
        self.open_room = self.open_used     # it stays the open one, and full, if there is no memory for this
        self.chunks.append((<object>self.open_chunk, self.open_packets, self.open_frames))
        decref(self.open_chunk)
        self.forget_open()

    cdef bint has_closed_chunk(self) noexcept:
        cdef bint is_closed = False
        try:
            self.close_chunk()
            is_closed = True
        except MemoryError:
            pass                # nothing else: what Cython makes of it needs a traceback, and memory for one
        return is_closed

    cdef void forget_open(self) noexcept:
        self.open_chunk = NULL
        self.open_used = self.open_room = self.open_packets = self.open_frames = 0

    cdef object take(self, uint32_t* frames):
        frames[0] = 0
        if self.leaving_used == 0 and self.proto_used > WRITE_BYTES:
            # A transport keeps several copies of what it is given, and their room for good: it gets this in parts.
            self.leaving = self.proto
            self.leaving_used = self.proto_used
            self.leaving_start = 0
            self.proto = NULL
            self.proto_room = self.proto_used = self.waiting_proto = 0
        if self.leaving_used:
            return self.take_part()
        if self.waiting_proto:
            data = PyBytes_FromStringAndSize(<const char*>self.proto, self.proto_used)
            self.proto_used = self.waiting_proto = 0
            return data
        return self.take_data(self.granted if self.limited else <uint64_t>-1, frames)

    cdef object take_part(self):
        cdef uint32_t size = min(self.leaving_used, <uint32_t>WRITE_BYTES)
        data = PyBytes_FromStringAndSize(<const char*>self.leaving + self.leaving_start, size)
        self.leaving_start += size
        self.leaving_used -= size
        if self.leaving_used == 0:
            self.forget_leaving()
        return data

    cdef void forget_leaving(self) noexcept:
        PyMem_Free(self.leaving)
        self.leaving = NULL
        self.leaving_used = 0

    cdef object take_data(self, uint64_t most, uint32_t* frames):
        """The rest of the oldest chunk, or `most` bytes of it if that is less: then those that were granted."""
        cdef uint32_t packets, size, start = self.front_used
        cdef uint64_t rest
        if most == 0:
            return None
        if not self.chunks:
            self.close_chunk()
            if not self.chunks:
                return None
        data, packets, frames[0] = self.chunks[0]
        rest = <uint64_t>len(data) - start
        size = <uint32_t>min(rest, most)
        part = data
        if size < <uint32_t>len(data):
            part = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, size)
        # Nothing has changed until here, where memory may run out.
        if size == rest:
            self.chunks.pop(0)
            self.front_used = 0
        else:
            self.chunks[0] = (data, packets - self.granted_packets, frames[0] - self.granted_frames)
            packets = self.granted_packets
            frames[0] = self.granted_frames
            self.front_used += size
        self.waiting_data -= packets
        self.waiting_frames -= frames[0]
        self.waiting_bytes -= size
        self.total[0] -= size
        if self.granted:
            self.granted -= min(<uint64_t>size, self.granted)
            self.granted_packets -= min(packets, self.granted_packets)
            self.granted_frames -= min(frames[0], self.granted_frames)
        return part

    # What a limit lets out.

    cdef const uint8_t* look(self, size_t* size) noexcept:
        cdef uint64_t skip = self.granted + self.front_used
        for data, _, _ in self.chunks:
            if skip < <uint64_t>len(data):
                size[0] = <size_t>(<uint64_t>len(data) - skip)
                return <const uint8_t*>PyBytes_AS_STRING(data) + skip
            skip -= <uint64_t>len(data)
        size[0] = <size_t>(self.open_used - skip)
        return <const uint8_t*>bytes_start(self.open_chunk) + skip

    cdef void grant(self, uint32_t size, uint32_t frames) noexcept:
        self.granted += size
        self.granted_packets += 1
        self.granted_frames += frames

    cdef uint32_t clear(self) noexcept:
        cdef uint32_t lost = self.waiting_frames
        decref(self.open_chunk)
        self.forget_open()
        PyList_SetSlice(self.chunks, 0, len(self.chunks), NULL)
        self.front_used = 0
        self.granted = self.granted_packets = self.granted_frames = 0
        self.forget_leaving()
        PyMem_Free(self.proto)
        self.proto = NULL
        self.proto_used = self.proto_room = 0
        self.waiting_proto = self.waiting_data = self.waiting_frames = 0
        self.total[0] -= self.waiting_bytes
        self.waiting_bytes = 0
        return lost

    cdef uint32_t drop_oldest(self) noexcept:
        cdef uint32_t frames = 0
        cdef bint is_taken = False
        try:
            self.take_data(<uint64_t>-1, &frames)
            is_taken = True
        except MemoryError:
            pass                # see `has_closed_chunk`
        return frames if is_taken else 0

    # What Python sees, for tests and benchmarks.

    def push_proto(self, const uint8_t[::1] packet not None):
        """Whether the protocol packet found a place."""
        cdef uint8_t* at = self.reserve_proto(<uint32_t>packet.shape[0])
        if at == NULL:
            return False
        if packet.shape[0]:
            memcpy(at, &packet[0], <size_t>packet.shape[0])
        return True

    def push_data(self, const uint8_t[::1] packet not None, uint32_t frames=1):
        """Whether the data packet, which stands for so many frames, found a place."""
        cdef uint8_t* at = NULL
        if self.has_room(packet.shape[0]):
            at = self.reserve_data(<uint32_t>packet.shape[0], frames)
        if at == NULL:
            return False
        if packet.shape[0]:
            memcpy(at, &packet[0], <size_t>packet.shape[0])
        return True

    def pop(self):
        """The next bytes to write and how many frames they carry, or None."""
        cdef uint32_t frames
        data = self.take(&frames)
        return None if data is None else (data, frames)

    def limit(self):
        """From now on frames leave only as `let` allows."""
        self.limited = True

    def let(self, uint32_t size, uint32_t frames=1):
        """Lets the next packet leave, which has so many bytes; False: it has not, nothing changes."""
        cdef size_t rest = 0
        if self.waiting_bytes < self.granted + size or self.look(&rest) == NULL or rest < size:
            return False
        self.grant(size, frames)
        return True

    def drop_chunk(self):
        """Throws the oldest chunk away and gives the number of frames in it."""
        return self.drop_oldest()

    def drop_all(self):
        """Throws everything away and gives the number of frames that waited."""
        return self.clear()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the changing items of a table each neighbour still has to be told."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT64_MAX, INT64_MIN
from libc.stdlib cimport calloc, free

from cloudvpn._fast.consts cimport NONE

cdef int64_t GATHER_US = 20_000
cdef uint32_t SLACK = 1024      # holes that the log may have in any case


cdef class News:
    """Items 0 to `max_items` - 1, ports 1 to `max_ports`. 24 B an item and, for each port, 4 B an item that is late."""

    def __cinit__(self, uint32_t max_ports, uint32_t max_items):
        self.max_ports = max_ports
        self.log_room = 2 * max_items + SLACK + 2
        self.gathered = INT64_MIN
        self.items = <Item*>calloc(max_items, sizeof(Item))
        self.readers = <Reader*>calloc(max_ports + 1, sizeof(Reader))
        self.log = <uint32_t*>calloc(self.log_room, sizeof(uint32_t))
        if self.items == NULL or self.readers == NULL or self.log == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t port
        if self.readers != NULL:
            for port in range(self.max_ports + 1):
                PyMem_Free(self.readers[port].late)
        free(self.log)
        free(self.readers)
        free(self.items)

    cdef void attach(self, uint32_t port) noexcept:
        cdef Reader* reader = &self.readers[port]
        self.detach(port)
        self.serial += 1
        reader.serial = self.serial
        reader.joined = self.last
        reader.brought = reader.told = reader.whole = 0
        self.set_behind(reader, self.last != 0)

    cdef void detach(self, uint32_t port) noexcept:
        cdef Reader* reader = &self.readers[port]
        reader.serial = 0
        PyMem_Free(reader.late)
        reader.late = NULL
        reader.late_count = reader.late_told = reader.late_room = 0
        self.set_behind(reader, False)

    cdef void owe_all(self, uint32_t port) noexcept:
        cdef Reader* reader = &self.readers[port]
        if reader.serial == 0:
            return
        reader.told = 0
        reader.joined = reader.whole = self.last
        reader.late_count = reader.late_told = 0
        self.set_behind(reader, self.last != 0)

    cdef void note(self, uint32_t item, uint32_t port) noexcept:
        cdef Item* entry = &self.items[item]
        if entry.stamp != 0:
            self.forget(item)
        if self.last >= 2 * self.item_count + SLACK:
            self.compact()
        self.item_count += 1
        self.last += 1
        self.log[self.last] = item
        entry.stamp = self.last
        entry.port = port
        entry.source = self.readers[port].serial        # 0 for LOCAL_PORT, which is never attached
        self.readers[port].brought += entry.source != 0

    cdef void forget(self, uint32_t item) noexcept:
        cdef Item* entry = &self.items[item]
        if entry.source != 0 and entry.source == self.readers[entry.port].serial:
            self.readers[entry.port].brought -= 1
        entry.stamp = 0
        self.item_count -= 1

    cdef void owe_late(self, uint32_t port, uint32_t item) noexcept:
        cdef Reader* reader = &self.readers[port]
        cdef uint32_t room
        cdef void* late
        if reader.serial == 0 or self.items[item].stamp > reader.told or not self.is_for(reader, item):
            return      # it is still to come, or never will
        if reader.late_count > self.item_count + SLACK:     # a peer that asks for the same again and again
            self.owe_all(port)
            return
        if reader.late_count == reader.late_room:
            room = max(<uint32_t>64, 2 * reader.late_room)
            late = PyMem_Realloc(reader.late, room * sizeof(uint32_t))
            if late == NULL:
                self.owe_all(port)
                return
            reader.late = <uint32_t*>late
            reader.late_room = room
        reader.late[reader.late_count] = item
        reader.late_count += 1
        self.set_behind(reader, True)

    cdef int64_t settle(self, int64_t now) noexcept:
        cdef uint32_t port
        if self.released == self.last:
            return INT64_MAX
        if now < self.gathered:
            return self.gathered
        self.released = self.last
        self.gathered = now + GATHER_US
        for port in range(1, self.max_ports + 1):
            if self.readers[port].serial != 0:
                self.set_behind(&self.readers[port], True)
        return INT64_MAX

    cdef Cursor start(self, uint32_t port) noexcept nogil:
        cdef Cursor cursor
        cursor.late = self.readers[port].late_told
        cursor.stamp = self.readers[port].told
        return cursor

    cdef uint32_t next(self, uint32_t port, Cursor* cursor) noexcept nogil:
        cdef Reader* reader = &self.readers[port]
        cdef uint32_t end = self.end_for(reader), item
        while cursor.late < reader.late_count:
            item = reader.late[cursor.late]
            cursor.late += 1
            # Not if it has changed since, and so is news, or has made its place free for another.
            if 0 < self.items[item].stamp <= reader.told:
                return item
        while cursor.stamp < end:
            cursor.stamp += 1
            item = self.log[cursor.stamp]
            if self.items[item].stamp == cursor.stamp and self.is_for(reader, item):
                return item
        return NONE

    cdef bint is_for(self, const Reader* reader, uint32_t item) noexcept nogil:
        return self.items[item].source != reader.serial or self.items[item].stamp <= reader.whole

    cdef void advance(self, uint32_t port, const Cursor* cursor) noexcept:
        cdef Reader* reader = &self.readers[port]
        reader.told = cursor.stamp
        reader.late_told = cursor.late
        if reader.late_told == reader.late_count:
            PyMem_Free(reader.late)
            reader.late = NULL
            reader.late_count = reader.late_told = reader.late_room = 0
        self.set_behind(reader, reader.late_count != 0 or reader.told < self.end_for(reader))

    cdef uint32_t end_for(self, const Reader* reader) noexcept nogil:
        return max(self.released, reader.joined)

    cdef void set_behind(self, Reader* reader, bint behind) noexcept:
        self.behind += <uint32_t>behind - <uint32_t>reader.behind
        reader.behind = behind

    cdef void compact(self) noexcept:
        """Closes the holes. All stamps change, their order does not."""
        cdef uint32_t stamp, port, item, end = 0
        cdef Reader* reader
        for stamp in range(1, self.last + 1):
            item = self.log[stamp]
            if self.items[item].stamp == stamp:
                end += 1
                self.log[end] = item
        self.last = end
        self.released = self.rank(self.released)
        for port in range(1, self.max_ports + 1):
            reader = &self.readers[port]
            if reader.serial != 0:
                reader.told = self.rank(reader.told)
                reader.joined = self.rank(reader.joined)
                reader.whole = self.rank(reader.whole)
        for stamp in range(1, end + 1):
            self.items[self.log[stamp]].stamp = stamp

    cdef uint32_t rank(self, uint32_t stamp) noexcept nogil:
        """How many items of the log, which has no holes any more, still bear a stamp of this or less."""
        cdef uint32_t low = 0, high = self.last, middle
        while low < high:
            middle = (low + high + 1) // 2
            if self.items[self.log[middle]].stamp <= stamp:
                low = middle
            else:
                high = middle - 1
        return low

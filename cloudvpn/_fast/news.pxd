# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the changing items of a table each neighbour still has to be told.

One log for all neighbours: an item that changes moves to its end, where its stamp says; a neighbour is a stamp up to
which it was told. So a change costs the same with 2 links and with 1,000, and what was not told yet is told once, as it
then is. An item does not go to the link that brought it. The first change leaves at once; what changes in the 20 ms
after it leaves together.

`late` items are those that a link was denied when it read past them, or did not keep, and is owed now.

The log has holes where items moved on. It is written anew when they are more than half of it.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef struct Item:
    uint64_t source             # serial of the link that brought its newest version; 0: it was made here
    uint32_t port               # of that link
    uint32_t stamp              # its place in the log; 0: none

cdef struct Reader:
    uint64_t serial             # of this attachment, never used again; 0: the port is closed
    uint32_t told               # stamp
    uint32_t joined             # stamp: up to here it is the full exchange
    uint32_t whole              # stamp: up to here also what came from it
    uint32_t brought            # items whose newest version came from it
    uint32_t* late
    uint32_t late_count, late_told, late_room
    bint behind                 # may have something to hear now

# How far a reader is in this walk.
cdef struct Cursor:
    uint32_t late
    uint32_t stamp


@cython.final
cdef class News:
    cdef readonly uint32_t max_ports
    cdef Item* items
    cdef Reader* readers        # by port
    cdef uint32_t behind        # readers that may have something to hear now

    cdef uint32_t* log          # items, by stamp, from 1
    cdef uint32_t log_room
    cdef uint32_t last          # stamp
    cdef uint32_t released      # stamp up to which changes may leave
    cdef uint32_t item_count
    cdef uint64_t serial
    cdef int64_t gathered       # until then changes wait for others

    # Everything is owed to a new neighbour, but what it brings itself.
    cdef void attach(self, uint32_t port) noexcept
    cdef void detach(self, uint32_t port) noexcept
    # Everything again, also what came from it.
    cdef void owe_all(self, uint32_t port) noexcept
    # The item is new or has changed, by what this port brought (LOCAL_PORT: by ourselves).
    cdef void note(self, uint32_t item, uint32_t port) noexcept
    cdef void forget(self, uint32_t item) noexcept
    cdef void owe_late(self, uint32_t port, uint32_t item) noexcept
    # After a batch of changes: releases them, or says when that is due (INT64_MAX: nothing waits).
    cdef int64_t settle(self, int64_t now) noexcept

    cdef Cursor start(self, uint32_t port) noexcept nogil
    # The next item that this port is owed, or NONE.
    cdef uint32_t next(self, uint32_t port, Cursor* cursor) noexcept nogil
    # The port has been told all up to the cursor.
    cdef void advance(self, uint32_t port, const Cursor* cursor) noexcept

    cdef bint is_for(self, const Reader* reader, uint32_t item) noexcept nogil
    cdef uint32_t end_for(self, const Reader* reader) noexcept nogil
    cdef void set_behind(self, Reader* reader, bint behind) noexcept
    cdef void compact(self) noexcept
    cdef uint32_t rank(self, uint32_t stamp) noexcept nogil

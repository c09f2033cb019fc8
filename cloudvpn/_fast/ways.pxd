# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways that multipath may choose from, the nearest first."""

from libc.stdint cimport uint32_t

cdef enum:
    WAYS_MAX = 64

cdef struct Way:
    uint32_t port
    uint32_t ping               # us, of the whole way


cdef inline uint32_t add_way(Way* ways, uint32_t count, uint32_t port, uint32_t ping) noexcept nogil:
    """Sorts a way in among `count`; how many there are now. Over WAYS_MAX the farthest one goes."""
    cdef uint32_t place
    if count < WAYS_MAX:
        count += 1
    elif ping >= ways[WAYS_MAX - 1].ping:
        return count
    place = count - 1           # of the last, which goes if all are taken
    while place > 0 and ways[place - 1].ping > ping:
        ways[place] = ways[place - 1]
        place -= 1
    ways[place].port = port
    ways[place].ping = ping
    return count

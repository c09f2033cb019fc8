# SPDX-License-Identifier: GPL-3.0-or-later
"""Upload limits: which of the frames that wait may leave now, with equal shares of the total for all that wait.

Deficit round robin: in its turn a port gets QUANTUM bytes, and leaves when it has used them up; a frame larger than
what was left makes a debt that later turns pay. A port that its own limit stops is passed over. What is granted is
charged at once, to the port's bucket and to that of the total, as the bytes of the plain frames it stands for.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from cloudvpn._fast.bucket cimport Bucket
from cloudvpn._fast.port cimport Port

cdef enum:
    QUANTUM = 2048              # B, about one frame: the finer, the evener


@cython.final
cdef class Shaper:
    cdef bint is_on                         # there is any limit
    cdef int64_t conn_rate, burst           # of each port, B/s and B
    cdef Bucket total
    cdef PyObject** waiting                 # ports with frames that are not granted, in the order of their turns
    cdef uint32_t waiting_count, turn
    cdef uint64_t rounds
    cdef PyObject** granted                 # ports that were granted something: the switch lets them write
    cdef uint32_t granted_count
    cdef int64_t wake_at                    # us, when more can be granted; INT64_MAX: nothing waits

    cdef void set_limits(self, int64_t total, int64_t conn, int64_t burst, int64_t now) noexcept
    cdef void open_port(self, Port port, int64_t now) noexcept
    # Whether the port has begun to wait; not if it does already, or has nothing to wait for.
    cdef bint join(self, Port port) noexcept
    cdef void leave(self, Port port) noexcept
    cdef void grant(self, int64_t now) noexcept

    cdef void serve(self, Port port, int64_t now) noexcept
    cdef int64_t grant_frame(self, Port port) noexcept
    cdef int64_t next_time(self) noexcept

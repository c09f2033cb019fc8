# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers, handed to whoever needs them: the system's, or a seeded sequence for tests and simulations."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    BLOCK_WORDS = 32            # 256 B, the most that getentropy() gives at once


@cython.final
cdef class RandomSource:
    cdef uint64_t block[BLOCK_WORDS]
    cdef uint32_t used          # words of the block
    cdef uint64_t state         # of the seeded sequence
    cdef readonly bint seeded

    cdef uint64_t next64(self) noexcept
    cdef uint32_t next32(self) noexcept
    # 0 to count - 1; uneven by count / 2^32 at most, which no one can notice.
    cdef uint32_t below(self, uint32_t count) noexcept
    cdef void refill(self) noexcept

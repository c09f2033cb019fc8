# SPDX-License-Identifier: GPL-3.0-or-later
"""A fixed piece of work about as long as a switch step, in whose time all others are told.

Multiplications that wait for each other, as hashing does, and a copy of 1,500 B from a buffer as large as a link's
input to one as large as a write. Whoever changes it makes every stored ratio worthless: save the baseline anew.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    OPS = 5_000
    MIXES = 24
    SOURCE_PLACES = 170
    TARGET_PLACES = 43
    PLACE_BYTES = 1536

cdef uint8_t source[SOURCE_PLACES * PLACE_BYTES]
cdef uint8_t target[TARGET_PLACES * PLACE_BYTES]

ops = OPS


def run(size_t copied=1500):
    """`ops` operations. The size is an argument because the compiler would expand a copy of constant size."""
    cdef uint64_t word = 1
    cdef int op, _
    cdef uint8_t* to
    for op in range(OPS):
        for _ in range(MIXES):
            word = (word ^ (word >> 29)) * <uint64_t>0xBF58476D1CE4E5B9
        to = &target[op % TARGET_PLACES * PLACE_BYTES]
        memcpy(to, &source[op % SOURCE_PLACES * PLACE_BYTES], copied)
        to[0] = word & 0xFF
        word += to[1]
    return word

# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers, handed to whoever needs them: the system's, or a seeded sequence for tests and simulations."""

from libc.stddef cimport size_t

cdef extern from "<unistd.h>" nogil:
    int getentropy(void* buffer, size_t length)

cdef extern from "Python.h":
    void Py_FatalError(const char* message) noexcept


cdef class RandomSource:
    """Numbers from the system's random source, drawn in blocks; with `seed`, a repeatable sequence (splitmix64)."""

    def __cinit__(self, seed=None):
        self.seeded = seed is not None
        if self.seeded:
            self.state = seed & 0xFFFFFFFFFFFFFFFF
        self.used = BLOCK_WORDS

    cdef uint64_t next64(self) noexcept:
        cdef uint64_t word
        if self.used == BLOCK_WORDS:
            self.refill()
        word = self.block[self.used]
        self.block[self.used] = 0       # who reads our memory later does not learn numbers that were given out
        self.used += 1
        return word

    cdef uint32_t next32(self) noexcept:
        return <uint32_t>(self.next64() >> 32)

    cdef uint32_t below(self, uint32_t count) noexcept:
        return <uint32_t>((<uint64_t>self.next32() * count) >> 32)

    cdef void refill(self) noexcept:
        cdef uint64_t word
        cdef int at
        self.used = 0
        if not self.seeded:
            # Cannot fail on a kernel that runs us; guessable ids would be worse than an end.
            if getentropy(self.block, sizeof(self.block)) != 0:
                Py_FatalError("the system's random source failed")
            return
        for at in range(BLOCK_WORDS):
            self.state += <uint64_t>0x9E3779B97F4A7C15
            word = self.state
            word = (word ^ (word >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
            word = (word ^ (word >> 27)) * <uint64_t>0x94D049BB133111EB
            self.block[at] = word ^ (word >> 31)

    def draw(self):
        """The next 32-bit number."""
        return self.next32()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids of the broadcasts that passed: a fixed number, the oldest forgotten first, never by time.

An id must stay remembered for as long as its broadcast may still come round, so the capacity must exceed
broadcasts a second x seconds of the longest way round; `came_back` counts where it did not.
"""

from libc.stdlib cimport calloc, free, malloc

from cloudvpn._fast.consts cimport NONE
from cloudvpn._fast.hash cimport buckets_for, keyed_hash


cdef class IdCache:
    """Remembers the last `capacity` ids. 8 B an id and as much again for the forgotten half; all steps are O(1)."""

    def __cinit__(self, uint32_t capacity, RandomSource random not None):
        cdef uint64_t buckets
        if capacity < 1 or capacity > 1 << 24:
            raise ValueError("the id cache holds 1 to 16,777,216 ids")
        buckets = buckets_for(2 * <uint64_t>capacity)
        self.capacity = capacity
        self.mask = <uint32_t>(buckets - 1)
        self.key.a = random.next64()
        self.key.b = random.next64()
        self.ids = <uint32_t*>malloc(2 * <uint64_t>capacity * sizeof(uint32_t))
        self.next = <uint32_t*>malloc(2 * <uint64_t>capacity * sizeof(uint32_t))
        # Heads are stored plus one, so that memory the kernel gives zeroed is an empty table and stays untouched.
        self.buckets = <uint32_t*>calloc(buckets, sizeof(uint32_t))
        if self.ids == NULL or self.next == NULL or self.buckets == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.ids)
        free(self.next)
        free(self.buckets)

    # HOT PATH
    cdef bint seen(self, uint32_t broadcast_id) noexcept:
        cdef uint32_t place = self.find(broadcast_id), head, age
        if place != NONE:
            head = <uint32_t>(self.added % (2 * self.capacity))
            age = (head + 2 * self.capacity - place - 1) % (2 * self.capacity)
            if age < self.capacity:
                return True
            self.came_back += 1
            self.unlink(place)
            # The place in the ring stays taken by an id that no chain leads to: it must not be unlinked again.
            self.next[place] = NONE
        self.append(broadcast_id)
        return False

    cdef uint32_t find(self, uint32_t broadcast_id) noexcept:
        cdef uint32_t at = self.buckets[keyed_hash(&self.key, broadcast_id) & self.mask]
        while at != 0 and self.ids[at - 1] != broadcast_id:
            at = self.next[at - 1]
        return at - 1 if at != 0 else NONE

    cdef void unlink(self, uint32_t place) noexcept:
        cdef uint32_t* link = &self.buckets[keyed_hash(&self.key, self.ids[place]) & self.mask]
        while link[0] != place + 1:
            link = &self.next[link[0] - 1]
        link[0] = self.next[place]

    cdef void append(self, uint32_t broadcast_id) noexcept:
        cdef uint32_t place = <uint32_t>(self.added % (2 * self.capacity))
        cdef uint32_t* head
        if self.added >= 2 * <uint64_t>self.capacity and self.next[place] != NONE:
            self.unlink(place)
        self.ids[place] = broadcast_id
        head = &self.buckets[keyed_hash(&self.key, broadcast_id) & self.mask]
        self.next[place] = head[0]
        head[0] = place + 1
        self.added += 1

    # What Python sees, for tests and benchmarks.

    def check(self, uint32_t broadcast_id):
        """Whether the id was remembered; if not, it is from now on."""
        return self.seen(broadcast_id)

    def __len__(self):
        return min(self.added, self.capacity)

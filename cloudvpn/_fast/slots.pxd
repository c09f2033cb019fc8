# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of a table of fixed capacity: which are free, which stand in one hash bucket, and lists through them.

Memory that was never touched costs nothing, and buckets are as many as there are entries: a table made for a million
is small and fast while it has a few.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cloudvpn._fast.consts cimport NONE

cdef struct Slots:
    uint32_t* buckets           # heads of the chains; plus one, 0 ends
    uint32_t* next              # in the bucket, or of the free ones; plus one, 0 ends
    uint32_t* hashes            # of those in use
    uint32_t mask               # buckets, less one
    uint32_t capacity
    uint32_t touched            # places ever used
    uint32_t unused             # head of those that were given back; plus one, 0: none
    uint32_t count

cdef struct Links:
    uint32_t before, after      # NONE ends

cdef struct List:
    uint32_t first, last        # NONE: empty


cdef inline bint open_slots(Slots* slots, uint32_t capacity) noexcept nogil:
    """False: no memory. `slots` is zeroed; close_slots frees what there is."""
    slots.capacity = capacity
    slots.mask = 15
    slots.buckets = <uint32_t*>calloc(16, sizeof(uint32_t))
    slots.next = <uint32_t*>calloc(capacity, sizeof(uint32_t))
    slots.hashes = <uint32_t*>calloc(capacity, sizeof(uint32_t))
    return slots.buckets != NULL and slots.next != NULL and slots.hashes != NULL


cdef inline void close_slots(Slots* slots) noexcept nogil:
    free(slots.buckets)
    free(slots.next)
    free(slots.hashes)


cdef inline void double_buckets(Slots* slots) noexcept nogil:
    """So that a bucket has one place on average. Without memory the chains grow instead."""
    cdef uint32_t mask = 2 * slots.mask + 1, bucket, at, next
    cdef uint32_t* buckets = <uint32_t*>calloc(<uint64_t>mask + 1, sizeof(uint32_t))
    if buckets == NULL:
        return
    for bucket in range(slots.mask + 1):
        at = slots.buckets[bucket]
        while at != 0:
            next = slots.next[at - 1]
            slots.next[at - 1] = buckets[slots.hashes[at - 1] & mask]
            buckets[slots.hashes[at - 1] & mask] = at
            at = next
    free(slots.buckets)
    slots.buckets = buckets
    slots.mask = mask


cdef inline uint32_t take_slot(Slots* slots, uint64_t key_hash) noexcept nogil:
    """A free place, which the bucket of this hash leads to from now on; NONE: the table is full."""
    cdef uint32_t at = slots.unused
    cdef uint32_t* head
    if at != 0:
        at -= 1
        slots.unused = slots.next[at]
    elif slots.touched < slots.capacity:
        at = slots.touched
        slots.touched += 1
    else:
        return NONE
    if slots.count > slots.mask:
        double_buckets(slots)
    head = &slots.buckets[key_hash & slots.mask]
    slots.hashes[at] = <uint32_t>key_hash
    slots.next[at] = head[0]
    head[0] = at + 1
    slots.count += 1
    return at


cdef inline void give_slot(Slots* slots, uint32_t at) noexcept nogil:
    cdef uint32_t* link = &slots.buckets[slots.hashes[at] & slots.mask]
    while link[0] != at + 1:
        link = &slots.next[link[0] - 1]
    link[0] = slots.next[at]
    slots.next[at] = slots.unused
    slots.unused = at + 1
    slots.count -= 1


cdef inline void clear_list(List* places) noexcept nogil:
    places.first = places.last = NONE


cdef inline void append_to(List* places, Links* links, uint32_t at) noexcept nogil:
    links[at].before = places.last
    links[at].after = NONE
    if places.last != NONE:
        links[places.last].after = at
    else:
        places.first = at
    places.last = at


cdef inline void remove_from(List* places, Links* links, uint32_t at) noexcept nogil:
    if links[at].before != NONE:
        links[links[at].before].after = links[at].after
    else:
        places.first = links[at].after
    if links[at].after != NONE:
        links[links[at].after].before = links[at].before
    else:
        places.last = links[at].before

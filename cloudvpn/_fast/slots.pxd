# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of a table of fixed capacity: which are free, which stand in one hash bucket, and lists through them.

All memory is zeroed and grows by being touched: a large table with few entries costs little.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cloudvpn._fast.consts cimport NONE
from cloudvpn._fast.hash cimport buckets_for

cdef struct Slots:
    uint32_t* buckets           # heads of the chains; plus one, 0 ends
    uint32_t* next              # in the bucket, or of the free ones; plus one, 0 ends
    uint32_t mask
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
    slots.mask = <uint32_t>(buckets_for(capacity) - 1)
    slots.buckets = <uint32_t*>calloc(<uint64_t>slots.mask + 1, sizeof(uint32_t))
    slots.next = <uint32_t*>calloc(capacity, sizeof(uint32_t))
    return slots.buckets != NULL and slots.next != NULL


cdef inline void close_slots(Slots* slots) noexcept nogil:
    free(slots.buckets)
    free(slots.next)


cdef inline uint32_t take_slot(Slots* slots, uint64_t key_hash) noexcept nogil:
    """A free place, which the bucket of this hash leads to from now on; NONE: the table is full."""
    cdef uint32_t at = slots.unused
    cdef uint32_t* head = &slots.buckets[key_hash & slots.mask]
    if at != 0:
        at -= 1
        slots.unused = slots.next[at]
    elif slots.touched < slots.capacity:
        at = slots.touched
        slots.touched += 1
    else:
        return NONE
    slots.next[at] = head[0]
    head[0] = at + 1
    slots.count += 1
    return at


cdef inline void give_slot(Slots* slots, uint64_t key_hash, uint32_t at) noexcept nogil:
    cdef uint32_t* link = &slots.buckets[key_hash & slots.mask]
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

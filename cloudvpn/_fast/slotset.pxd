# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of slots of a table, one bit each: joining, leaving and asking are one step, walking skips 64 at a time."""

from libc.stdint cimport uint32_t, uint64_t

from cloudvpn._fast.consts cimport NONE

cdef extern from *:
    int __builtin_ctzll(unsigned long long word) noexcept nogil

cdef struct SlotSet:
    uint64_t* words             # set_words() of them, zero at first; the owner allocates and frees
    uint32_t count


cdef inline uint32_t set_words(uint32_t slots) noexcept nogil:
    """How many words a set of this many slots needs."""
    return (slots + 63) // 64


cdef inline bint has_slot(const SlotSet* slots, uint32_t slot) noexcept nogil:
    return slots.words[slot >> 6] >> (slot & 63) & 1


cdef inline void add_slot(SlotSet* slots, uint32_t slot) noexcept nogil:
    slots.count += not has_slot(slots, slot)
    slots.words[slot >> 6] |= <uint64_t>1 << (slot & 63)


cdef inline void remove_slot(SlotSet* slots, uint32_t slot) noexcept nogil:
    slots.count -= has_slot(slots, slot)
    slots.words[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))


cdef inline uint32_t next_slot(const SlotSet* slots, uint32_t slot, uint32_t end) noexcept nogil:
    """The first member of at least `slot` and below `end`, or NONE."""
    cdef uint64_t word
    while slot < end:
        word = slots.words[slot >> 6] >> (slot & 63)
        if word != 0:
            slot += <uint32_t>__builtin_ctzll(word)
            return slot if slot < end else NONE
        slot = (slot | 63) + 1
    return NONE

# SPDX-License-Identifier: GPL-3.0-or-later
"""The Internet checksum (RFC 1071): sums of 16-bit words, in the byte order of the machine until they are stored."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cloudvpn._fast.endian cimport cloudvpn_be16


# HOT PATH
cdef inline uint64_t add_bytes(uint64_t total, const uint8_t* at, size_t size) noexcept nogil:
    """Adds bytes that begin on an even place of what is summed; `total` must be below 2^48."""
    cdef size_t place, words = size >> 2
    cdef uint32_t word
    cdef uint8_t pair[2]
    for place in range(words):          # 32 bits into 64: no carry to look after, and compilers make vectors of it
        memcpy(&word, at + 4 * place, 4)
        total += word
    at += 4 * words
    while size & 3:
        pair[0] = at[0]
        pair[1] = at[1] if size & 2 else 0
        total += load_pair(pair)
        if not size & 2:
            break
        at += 2
        size -= 2
    return total


cdef inline uint16_t load_pair(const uint8_t* at) noexcept nogil:
    cdef uint16_t pair
    memcpy(&pair, at, 2)
    return pair


cdef inline uint64_t add_number(uint64_t total, uint16_t number) noexcept nogil:
    """Adds a 16-bit field that is not in memory as it stands on the wire."""
    return total + cloudvpn_be16(number)


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    total = <uint64_t>(<uint32_t>total) + (total >> 32)
    total = <uint64_t>(<uint32_t>total) + (total >> 32)
    total = <uint64_t>(<uint16_t>total) + (total >> 16)
    total = <uint64_t>(<uint16_t>total) + (total >> 16)
    return <uint16_t>(<uint16_t>total + (total >> 16))


cdef inline void store_sum(uint8_t* at, uint16_t folded) noexcept nogil:
    memcpy(at, &folded, 2)

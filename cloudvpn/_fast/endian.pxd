# SPDX-License-Identifier: GPL-3.0-or-later
"""Big-endian loads and stores at any alignment."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define cloudvpn_be16(x) __builtin_bswap16(x)
    #define cloudvpn_be32(x) __builtin_bswap32(x)
    #else
    #define cloudvpn_be16(x) (x)
    #define cloudvpn_be32(x) (x)
    #endif
    """
    uint16_t cloudvpn_be16(uint16_t value) noexcept nogil
    uint32_t cloudvpn_be32(uint32_t value) noexcept nogil


cdef inline uint16_t load16(const uint8_t* at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return cloudvpn_be16(value)


cdef inline uint32_t load32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return cloudvpn_be32(value)


cdef inline uint64_t load64(const uint8_t* at) noexcept nogil:
    return (<uint64_t>load32(at) << 32) | load32(at + 4)


cdef inline uint64_t load_mac(const uint8_t* at) noexcept nogil:
    return (<uint64_t>load16(at) << 32) | load32(at + 2)


cdef inline void store16(uint8_t* at, uint16_t value) noexcept nogil:
    value = cloudvpn_be16(value)
    memcpy(at, &value, 2)


cdef inline void store32(uint8_t* at, uint32_t value) noexcept nogil:
    value = cloudvpn_be32(value)
    memcpy(at, &value, 4)


cdef inline void store64(uint8_t* at, uint64_t value) noexcept nogil:
    store32(at, <uint32_t>(value >> 32))
    store32(at + 4, <uint32_t>value)


cdef inline void store_mac(uint8_t* at, uint64_t mac) noexcept nogil:
    store16(at, <uint16_t>(mac >> 32))
    store32(at + 2, <uint32_t>mac)


cdef inline bint is_group(uint64_t mac) noexcept nogil:
    """Whether a MAC names many stations: the lowest bit of its first byte."""
    return (mac >> 40) & 1

# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of the wire: bytes <-> struct, total and without state."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum Verdict:
    PACKET_WHOLE        # `packet` is filled, its body lies in the given bytes
    PACKET_PARTIAL      # more bytes are needed: `packet.total`, as far as known
    PACKET_UNKNOWN      # a type that was not negotiated: the link must close

cdef struct Packet:
    uint8_t kind                # PacketType
    uint8_t special             # echo id
    uint32_t broadcast_id
    uint32_t size               # of the body, bytes
    uint32_t total              # of the packet, bytes, with its header
    const uint8_t* body         # the frame, or the route entries

cdef struct Route:
    uint64_t mac
    uint16_t dist               # hops
    uint32_t ping               # us; 0 deletes

# Any bytes give exactly one verdict; reads nothing past `size`.
cdef Verdict parse(const uint8_t* data, size_t size, Packet* packet) noexcept nogil

cdef Route load_route(const uint8_t* at) noexcept nogil
cdef void store_route(uint8_t* at, const Route* route) noexcept nogil
cdef void store_header(uint8_t* at, uint8_t kind, uint8_t special, uint16_t size) noexcept nogil

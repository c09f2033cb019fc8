# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the headers of a frame lie: Ethernet, VLAN tags, IPv4 or IPv6, TCP or UDP."""

from cloudvpn._fast.checksum cimport add_bytes, add_number, fold, store_sum
from cloudvpn._fast.consts cimport FRAME_HEADER_BYTES
from cloudvpn._fast.endian cimport load16, store16

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_VLAN = 0x8100         # IEEE 802.1Q
    ETHERTYPE_SERVICE_VLAN = 0x88A8  # IEEE 802.1ad
    VLAN_BYTES = 4
    IPV4_BYTES = 20
    IPV6_BYTES = 40
    TCP_BYTES = 20
    UDP_BYTES = 8
    MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
    # IPv6 extension headers that say nothing of how the packet is cut
    HOP_BY_HOP = 0
    ROUTING = 43
    DESTINATION = 60


# HOT PATH
cdef bint find_layers(const uint8_t* frame, uint32_t size, Layers* layers) noexcept nogil:
    cdef uint32_t at = FRAME_HEADER_BYTES, tags = 0
    cdef uint16_t kind
    if size < FRAME_HEADER_BYTES:
        return False
    kind = load16(frame + 12)
    while kind == ETHERTYPE_VLAN or kind == ETHERTYPE_SERVICE_VLAN:
        if tags == 2 or size < at + VLAN_BYTES:
            return False
        kind = load16(frame + at + 2)
        at += VLAN_BYTES
        tags += 1
    layers.network = <uint16_t>at
    if kind == ETHERTYPE_IPV4:
        layers.is_v6 = False
        if not skip_ipv4(frame, size, &at, layers):
            return False
    elif kind == ETHERTYPE_IPV6:
        layers.is_v6 = True
        if not skip_ipv6(frame, size, &at, layers):
            return False
    else:
        return False
    layers.transport = <uint16_t>at
    if layers.protocol == TCP:
        if size < at + TCP_BYTES or (frame[at + 12] >> 4) * 4 < TCP_BYTES:
            return False
        at += (frame[at + 12] >> 4) * 4
    elif layers.protocol == UDP:
        at += UDP_BYTES
    else:
        return False
    layers.payload = <uint16_t>at
    return at <= size and at <= HEADERS_MAX


cdef bint skip_ipv4(const uint8_t* frame, uint32_t size, uint32_t* at, Layers* layers) noexcept nogil:
    cdef const uint8_t* header = frame + at[0]
    cdef uint32_t length
    if size < at[0] + IPV4_BYTES or header[0] >> 4 != 4 or load16(header + 6) & MORE_FRAGMENTS_OR_OFFSET:
        return False
    length = (header[0] & 15) * 4
    layers.protocol = header[9]
    at[0] += length
    return length >= IPV4_BYTES and at[0] <= size


cdef bint skip_ipv6(const uint8_t* frame, uint32_t size, uint32_t* at, Layers* layers) noexcept nogil:
    cdef uint8_t follows
    if size < at[0] + IPV6_BYTES or frame[at[0]] >> 4 != 6:
        return False
    follows = frame[at[0] + 6]
    at[0] += IPV6_BYTES
    while follows == HOP_BY_HOP or follows == ROUTING or follows == DESTINATION:
        if size < at[0] + 8 or at[0] > HEADERS_MAX:
            return False
        follows = frame[at[0]]
        at[0] += (frame[at[0] + 1] + 1) * 8
    layers.protocol = follows
    return at[0] <= size and at[0] <= HEADERS_MAX


# HOT PATH
cdef uint32_t packet_end(const uint8_t* frame, const Layers* layers) noexcept nogil:
    if layers.is_v6:
        return layers.network + IPV6_BYTES + load16(frame + layers.network + 4)
    return layers.network + load16(frame + layers.network + 2)


# HOT PATH
cdef void set_packet_end(uint8_t* frame, const Layers* layers, uint32_t size) noexcept nogil:
    cdef uint8_t* header = frame + layers.network
    if layers.is_v6:
        store16(header + 4, <uint16_t>(size - layers.network - IPV6_BYTES))
        return
    store16(header + 2, <uint16_t>(size - layers.network))
    store16(header + 10, 0)
    store_sum(header + 10, ~fold(add_bytes(0, header, (header[0] & 15) * 4)))


# HOT PATH
cdef uint64_t add_pseudo_header(const uint8_t* frame, const Layers* layers, uint32_t size) noexcept nogil:
    cdef const uint8_t* header = frame + layers.network
    cdef uint64_t total = add_number(add_number(0, layers.protocol), <uint16_t>(size - layers.transport))
    return add_bytes(total, header + 8, 32) if layers.is_v6 else add_bytes(total, header + 12, 8)


# HOT PATH
cdef bint has_good_checksums(const uint8_t* frame, uint32_t size, const Layers* layers) noexcept nogil:
    cdef const uint8_t* header = frame + layers.network
    if not layers.is_v6 and fold(add_bytes(0, header, (header[0] & 15) * 4)) != 0xFFFF:
        return False
    return fold(add_bytes(
        add_pseudo_header(frame, layers, size), frame + layers.transport, size - layers.transport)) == 0xFFFF

# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the headers of a frame lie: Ethernet, VLAN tags, IPv4 or IPv6, TCP or UDP."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # Longer headers (IPv6 extensions without end) are not looked through. Two VLAN tags, IPv4 and TCP with all their
    # options take 142 B.
    HEADERS_MAX = 256

cdef enum:
    TCP = 6
    UDP = 17
    TCP_CHECKSUM = 16           # offsets in the header
    UDP_CHECKSUM = 6
    TCP_FLAGS = 13

cdef enum:
    FIN = 0x01
    PSH = 0x08
    ACK = 0x10
    ECE = 0x40
    CWR = 0x80

cdef struct Layers:
    bint is_v6
    uint8_t protocol            # TCP or UDP
    uint16_t network            # offsets in the frame, bytes
    uint16_t transport
    uint16_t payload            # all headers together

# Whether the frame is TCP or UDP over IP, no fragment, with all its headers whole. Any bytes give one answer.
cdef bint find_layers(const uint8_t* frame, uint32_t size, Layers* layers) noexcept nogil
# Where the IP packet ends by its own length field: an offset in the frame.
cdef uint32_t packet_end(const uint8_t* frame, const Layers* layers) noexcept nogil
# Writes the length of a packet that ends at `size` into the IP header, and its checksum.
cdef void set_packet_end(uint8_t* frame, const Layers* layers, uint32_t size) noexcept nogil
# The pseudo-header's sum for a TCP segment or UDP datagram that ends at `size`.
cdef uint64_t add_pseudo_header(const uint8_t* frame, const Layers* layers, uint32_t size) noexcept nogil
# Whether the checksums of IPv4 and of TCP or UDP are right.
cdef bint has_good_checksums(const uint8_t* frame, uint32_t size, const Layers* layers) noexcept nogil

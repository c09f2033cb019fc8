# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of the wire: bytes <-> struct, total and without state."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cloudvpn._fast.offload cimport Offload

cdef enum Verdict:
    PACKET_WHOLE        # `packet` is filled, its body lies in the given bytes
    PACKET_PARTIAL      # more bytes are needed: `packet.total`, as far as known
    PACKET_UNKNOWN      # a type that was not negotiated: the link must close
    PACKET_BAD_SIZE     # a size that this type cannot have: the link must close

cdef struct Packet:
    uint8_t kind                # PacketType
    uint8_t special             # echo id
    uint8_t hops                # how many more nodes may send it on; version 1 does not say
    uint8_t flags               # type 8
    uint32_t broadcast_id
    uint64_t node               # type 8: where it leaves the mesh, 0: look the MAC up; type 9: who the peer is
    Offload offload             # type 8
    uint32_t size               # of the body, bytes
    uint32_t total              # of the packet, bytes, with its header
    const uint8_t* body         # the frame, or the route entries

cdef struct Route:
    uint64_t mac
    uint16_t dist               # hops
    uint32_t ping               # us; 0 deletes

# An entry of type 10: how the peer reaches a node.
cdef struct NodeRoute:
    uint64_t node
    uint32_t seq
    uint32_t label
    uint32_t metric             # us; PING_INFINITE: gone
    uint8_t hops

# An entry of type 11: the peer wants a route to this node of at least this sequence number.
cdef struct SeqRequest:
    uint64_t node
    uint32_t seq
    uint8_t hops                # how many more nodes may pass it on

# An entry of type 12: behind which node a host is.
cdef struct Claim:
    uint64_t mac
    uint64_t owner
    uint32_t seq
    uint32_t ping               # us, of a foreign one beyond its owner
    uint8_t flags               # CLAIM_*
    uint8_t hops                # of a foreign one beyond its owner

# Any bytes give exactly one verdict; reads nothing past `size`.
cdef Verdict parse(const uint8_t* data, size_t size, uint32_t version, Packet* packet) noexcept nogil

cdef Route load_route(const uint8_t* at) noexcept nogil
cdef void store_route(uint8_t* at, const Route* route) noexcept nogil
cdef NodeRoute load_node_route(const uint8_t* at) noexcept nogil
cdef void store_node_route(uint8_t* at, const NodeRoute* route) noexcept nogil
cdef SeqRequest load_seq_request(const uint8_t* at) noexcept nogil
cdef void store_seq_request(uint8_t* at, const SeqRequest* request) noexcept nogil
cdef Claim load_claim(const uint8_t* at) noexcept nogil
cdef void store_claim(uint8_t* at, const Claim* claim) noexcept nogil
cdef void store_header(uint8_t* at, uint8_t kind, uint8_t special, uint16_t size) noexcept nogil
# Everything of a type 8 that stands before its frame of `size` bytes. egress 0: look the MAC up.
cdef void store_bulk_header(
    uint8_t* at, uint32_t size, uint64_t egress, uint8_t hops, uint8_t flags, const Offload* offload) noexcept nogil
cdef void store_hello(uint8_t* at, uint64_t node) noexcept nogil
# PeerError for a verdict that closes the link.
cdef int raise_verdict(Verdict verdict, const Packet* packet) except -1

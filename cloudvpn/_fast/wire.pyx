# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of the wire: bytes <-> struct, total and without state."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from cloudvpn._fast.consts cimport (
    BROADCAST, BROADCAST_ID_BYTES, BULK_BYTES, BULK_FRAME, CLAIM_BYTES, ECHO_REQUEST, FRAME, HEADER_BYTES, HELLO,
    HELLO_BYTES, HOPS_MAX, HOSTS, NODE_ROUTE_BYTES, NODE_ROUTES, ROUTE_BYTES, ROUTE_DIFF, ROUTE_REQUEST, ROUTE_SET,
    ROUTES_MAX, SEQ_REQUEST_BYTES, SEQ_REQUESTS,
)
from cloudvpn._fast.endian cimport load16, load32, load64, load_mac, store16, store32, store64, store_mac
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX, load_offload, store_offload
from cloudvpn._fast.segment cimport describe_offload, read_offload

from cloudvpn.errors import PeerError


# HOT PATH
cdef Verdict parse(const uint8_t* data, size_t size, uint32_t version, Packet* packet) noexcept nogil:
    cdef uint32_t count, prefix = HEADER_BYTES, body

    packet.total = HEADER_BYTES
    if size < 1:
        return PACKET_PARTIAL
    packet.kind = data[0]
    if not is_known(packet.kind, version):
        return PACKET_UNKNOWN
    if size < HEADER_BYTES:
        return PACKET_PARTIAL
    packet.special = data[1]
    count = load16(data + 2)
    if packet.kind == BULK_FRAME:
        prefix = HEADER_BYTES + BULK_BYTES
        count += <uint32_t>packet.special << 16
        if count < BULK_BYTES or count > BULK_BYTES + SUPER_FRAME_MAX:
            return PACKET_BAD_SIZE
        body = count - BULK_BYTES
    elif packet.kind == FRAME:
        body = count
    elif packet.kind == BROADCAST:
        body = count
        prefix = HEADER_BYTES + BROADCAST_ID_BYTES
    elif packet.kind <= ROUTE_DIFF:
        body = count * ROUTE_BYTES
    elif packet.kind == HELLO:
        if count < HELLO_BYTES:
            return PACKET_BAD_SIZE
        body = count
    elif packet.kind == NODE_ROUTES:
        body = count * NODE_ROUTE_BYTES
    elif packet.kind == SEQ_REQUESTS:
        body = count * SEQ_REQUEST_BYTES
    elif packet.kind == HOSTS:
        body = count * CLAIM_BYTES
    else:
        body = 0        # the size of echoes and requests is ignored, they never have a body
    packet.total = prefix + body
    if packet.total > size:
        return PACKET_PARTIAL
    packet.size = body
    packet.body = data + prefix
    packet.hops = HOPS_MAX
    data += HEADER_BYTES
    if packet.kind == BROADCAST:
        packet.broadcast_id = load32(data)
    elif packet.kind == BULK_FRAME:
        packet.node = load64(data)
        packet.hops = data[8]
        packet.flags = data[9]
        load_offload(&packet.offload, data + 10)
    elif packet.kind == HELLO:
        packet.node = load64(data)
    return PACKET_WHOLE


cdef bint is_known(uint8_t kind, uint32_t version) noexcept nogil:
    """Version 2 has its own routes and unicast frames, types 8 to 12, instead of types 1 to 3."""
    if version == 1:
        return ROUTE_SET <= kind <= ROUTE_REQUEST
    return BROADCAST <= kind <= HOSTS


cdef Route load_route(const uint8_t* at) noexcept nogil:
    cdef Route route
    route.mac = load_mac(at)
    route.dist = load16(at + 6)
    route.ping = load32(at + 8)
    return route


cdef void store_route(uint8_t* at, const Route* route) noexcept nogil:
    store_mac(at, route.mac)
    store16(at + 6, route.dist)
    store32(at + 8, route.ping)


cdef NodeRoute load_node_route(const uint8_t* at) noexcept nogil:
    cdef NodeRoute route
    route.node = load64(at)
    route.seq = load32(at + 8)
    route.label = load32(at + 12)
    route.metric = load32(at + 16)
    route.hops = at[20]
    return route


cdef void store_node_route(uint8_t* at, const NodeRoute* route) noexcept nogil:
    store64(at, route.node)
    store32(at + 8, route.seq)
    store32(at + 12, route.label)
    store32(at + 16, route.metric)
    store32(at + 20, <uint32_t>route.hops << 24)


cdef SeqRequest load_seq_request(const uint8_t* at) noexcept nogil:
    cdef SeqRequest request
    request.node = load64(at)
    request.seq = load32(at + 8)
    request.hops = at[12]
    return request


cdef void store_seq_request(uint8_t* at, const SeqRequest* request) noexcept nogil:
    store64(at, request.node)
    store32(at + 8, request.seq)
    store32(at + 12, <uint32_t>request.hops << 24)


cdef Claim load_claim(const uint8_t* at) noexcept nogil:
    cdef Claim claim
    claim.mac = load_mac(at)
    claim.flags = at[6]
    claim.hops = at[7]
    claim.owner = load64(at + 8)
    claim.seq = load32(at + 16)
    claim.ping = load32(at + 20)
    return claim


cdef void store_claim(uint8_t* at, const Claim* claim) noexcept nogil:
    store_mac(at, claim.mac)
    at[6] = claim.flags
    at[7] = claim.hops
    store64(at + 8, claim.owner)
    store32(at + 16, claim.seq)
    store32(at + 20, claim.ping)


cdef void store_header(uint8_t* at, uint8_t kind, uint8_t special, uint16_t size) noexcept nogil:
    at[0] = kind
    at[1] = special
    store16(at + 2, size)


# HOT PATH
cdef void store_bulk_header(
        uint8_t* at, uint32_t size, uint64_t egress, uint8_t hops, uint8_t flags, const Offload* offload,
) noexcept nogil:
    size += BULK_BYTES
    store_header(at, BULK_FRAME, <uint8_t>(size >> 16), <uint16_t>size)
    at += HEADER_BYTES
    store64(at, egress)
    at[8] = hops
    at[9] = flags
    store_offload(at + 10, offload)


cdef void store_hello(uint8_t* at, uint64_t node) noexcept nogil:
    store_header(at, HELLO, 0, HELLO_BYTES)
    store64(at + HEADER_BYTES, node)
    store32(at + HEADER_BYTES + 8, 0)


# What Python sees: the same parser and builders, for tests, benchmarks and tools.

def read_packets(const uint8_t[::1] data not None, uint32_t version=1):
    """All whole packets at the front of `data`, and how many bytes they take.

    Routes come as `(kind, [(mac, dist, ping), ...])`, frames as `(3, frame)`, broadcasts as `(4, id, frame)`, bulk
    frames as `(8, egress, hops, flags, offload, frame)`, hellos as `(9, node)`, node routes as `(10, [(node, seq,
    label, metric, hops), ...])`, requests as `(11, [(node, seq, hops), ...])`, claims as `(12, [(mac, flags, hops,
    owner, seq, ping), ...])`, the rest as `(kind, special)`. Raises PeerError at a type that the version does not have,
    or a size that the type cannot have.
    """
    cdef size_t at = 0, size = data.shape[0]
    cdef const uint8_t* base = &data[0] if size else NULL
    cdef Packet packet
    cdef Verdict verdict
    packets = []
    while True:
        verdict = parse(base + at, size - at, version, &packet)
        if verdict == PACKET_PARTIAL:
            return packets, at
        if verdict != PACKET_WHOLE:
            raise_verdict(verdict, &packet)
        packets.append(describe(&packet))
        at += packet.total


cdef int raise_verdict(Verdict verdict, const Packet* packet) except -1:
    what = "packet of unknown type" if verdict == PACKET_UNKNOWN else "packet of an impossible size, type"
    raise PeerError(f"{what} {packet.kind}")


cdef object describe(const Packet* packet):
    cdef uint32_t at
    cdef Route route
    if packet.kind <= ROUTE_DIFF:
        routes = []
        for at in range(packet.size // ROUTE_BYTES):
            route = load_route(packet.body + at * ROUTE_BYTES)
            routes.append((route.mac, route.dist, route.ping))
        return packet.kind, routes
    if packet.kind == HELLO:
        return packet.kind, packet.node
    if packet.kind > HELLO:
        return packet.kind, describe_entries(packet)
    if ECHO_REQUEST <= packet.kind <= ROUTE_REQUEST:
        return packet.kind, packet.special
    frame = PyBytes_FromStringAndSize(<const char*>packet.body, packet.size)
    if packet.kind == BULK_FRAME:
        return packet.kind, packet.node, packet.hops, packet.flags, describe_offload(&packet.offload), frame
    return (packet.kind, packet.broadcast_id, frame) if packet.kind == BROADCAST else (packet.kind, frame)


cdef list describe_entries(const Packet* packet):
    cdef uint32_t at = 0
    cdef NodeRoute route
    cdef SeqRequest request
    cdef Claim claim
    entries = []
    while at < packet.size:
        if packet.kind == NODE_ROUTES:
            route = load_node_route(packet.body + at)
            entries.append((route.node, route.seq, route.label, route.metric, route.hops))
            at += NODE_ROUTE_BYTES
        elif packet.kind == SEQ_REQUESTS:
            request = load_seq_request(packet.body + at)
            entries.append((request.node, request.seq, request.hops))
            at += SEQ_REQUEST_BYTES
        else:
            claim = load_claim(packet.body + at)
            entries.append((claim.mac, claim.flags, claim.hops, claim.owner, claim.seq, claim.ping))
            at += CLAIM_BYTES
    return entries


def route_packet(int kind, routes):
    """A route set (kind 1) or diff (2) of up to 65,535 `(mac, dist, ping)`."""
    cdef Route route
    cdef uint8_t* at
    if kind not in (ROUTE_SET, ROUTE_DIFF) or len(routes) > ROUTES_MAX:
        raise ValueError("a route packet is of kind 1 or 2 and has at most 65,535 entries")
    packet = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + <Py_ssize_t>len(routes) * ROUTE_BYTES)
    at = <uint8_t*>PyBytes_AS_STRING(packet)
    store_header(at, kind, 0, <uint16_t>len(routes))
    at += HEADER_BYTES
    for route.mac, route.dist, route.ping in routes:
        store_route(at, &route)
        at += ROUTE_BYTES
    return packet


def frame_packet(bytes frame not None):
    """A unicast frame of up to 65,535 bytes."""
    cdef uint8_t header[HEADER_BYTES]
    if len(frame) > 0xFFFF:
        raise ValueError("a frame has at most 65,535 bytes")
    store_header(header, FRAME, 0, <uint16_t>len(frame))
    return header[:HEADER_BYTES] + frame


def broadcast_packet(uint32_t broadcast_id, bytes frame not None):
    """A broadcast frame of up to 65,535 bytes with its id."""
    cdef uint8_t header[HEADER_BYTES + BROADCAST_ID_BYTES]
    if len(frame) > 0xFFFF:
        raise ValueError("a frame has at most 65,535 bytes")
    store_header(header, BROADCAST, 0, <uint16_t>len(frame))
    store32(header + HEADER_BYTES, broadcast_id)
    return header[:HEADER_BYTES + BROADCAST_ID_BYTES] + frame


def bare_packet(uint8_t kind, uint8_t special):
    """An echo request (5), echo reply (6) or route request (7)."""
    cdef uint8_t header[HEADER_BYTES]
    if kind < ECHO_REQUEST or kind > ROUTE_REQUEST:
        raise ValueError("a packet without a body is of kind 5, 6 or 7")
    store_header(header, kind, special, 0)
    return header[:HEADER_BYTES]


def node_routes_packet(routes):
    """Type 10, of up to 65,535 `(node, seq, label, metric, hops)`."""
    cdef NodeRoute route
    packet, at = new_packet(NODE_ROUTES, len(routes), NODE_ROUTE_BYTES), HEADER_BYTES
    for route.node, route.seq, route.label, route.metric, route.hops in routes:
        store_node_route(<uint8_t*>PyBytes_AS_STRING(packet) + <uint32_t>at, &route)
        at += NODE_ROUTE_BYTES
    return packet


def seq_requests_packet(requests):
    """Type 11, of up to 65,535 `(node, seq, hops)`."""
    cdef SeqRequest request
    packet, at = new_packet(SEQ_REQUESTS, len(requests), SEQ_REQUEST_BYTES), HEADER_BYTES
    for request.node, request.seq, request.hops in requests:
        store_seq_request(<uint8_t*>PyBytes_AS_STRING(packet) + <uint32_t>at, &request)
        at += SEQ_REQUEST_BYTES
    return packet


def hosts_packet(claims):
    """Type 12, of up to 65,535 `(mac, flags, hops, owner, seq, ping)`."""
    cdef Claim claim
    packet, at = new_packet(HOSTS, len(claims), CLAIM_BYTES), HEADER_BYTES
    for claim.mac, claim.flags, claim.hops, claim.owner, claim.seq, claim.ping in claims:
        store_claim(<uint8_t*>PyBytes_AS_STRING(packet) + <uint32_t>at, &claim)
        at += CLAIM_BYTES
    return packet


cdef bytes new_packet(uint8_t kind, Py_ssize_t count, uint32_t entry_bytes):
    if count > ROUTES_MAX:
        raise ValueError("a packet has at most 65,535 entries")
    packet = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + count * entry_bytes)
    store_header(<uint8_t*>PyBytes_AS_STRING(packet), kind, 0, <uint16_t>count)
    return packet


def bulk_packet(
    bytes frame not None, offload=(0, 0, 0, 0, 0, 0), uint8_t hops=HOPS_MAX, *, uint64_t egress=0, uint8_t flags=0,
):
    """A unicast frame of version 2, of up to 65,600 bytes; the offload header as `segment.cut` takes it."""
    cdef uint8_t header[HEADER_BYTES + BULK_BYTES]
    cdef Offload fields
    if len(frame) > SUPER_FRAME_MAX:
        raise ValueError("a frame of version 2 has at most 65,600 bytes")
    read_offload(&fields, offload)
    store_bulk_header(header, <uint32_t>len(frame), egress, hops, flags, &fields)
    return header[:HEADER_BYTES + BULK_BYTES] + frame


def hello_packet(uint64_t node):
    cdef uint8_t packet[HEADER_BYTES + HELLO_BYTES]
    store_hello(packet, node)
    return packet[:HEADER_BYTES + HELLO_BYTES]

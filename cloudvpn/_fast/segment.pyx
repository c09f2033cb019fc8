# SPDX-License-Identifier: GPL-3.0-or-later
"""Super-frames: one Ethernet frame with an offload header that stands for many plain frames, and how it is cut."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy

from cloudvpn._fast.checksum cimport add_bytes, add_number, fold, load_pair, store_sum
from cloudvpn._fast.consts cimport FRAME_HEADER_BYTES
from cloudvpn._fast.endian cimport load16, load32, store16, store32
from cloudvpn._fast.layers cimport (
    CWR, FIN, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, UDP, UDP_CHECKSUM, find_layers, packet_end, set_packet_end,
)
from cloudvpn._fast.offload cimport DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, NEEDS_CHECKSUM

cdef enum:
    # More than any kernel makes: TCP sends no segments below 48 bytes (net.ipv4.tcp_min_snd_mss). Else one packet of a
    # peer could become 65,000 frames for each link, and as many broadcast ids.
    PIECES_MAX = 2048


# HOT PATH
cdef bint plan_cut(Cut* cut, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept nogil:
    plan_plain(cut, frame, size)
    if offload.flags & ~(NEEDS_CHECKSUM | DATA_VALID):
        return False
    cut.offload.flags = offload.flags & NEEDS_CHECKSUM
    if offload.gso_type == GSO_NONE:
        return not cut.offload.flags or plan_checksum(cut, offload)
    return (
        cut.offload.flags and offload.gso_size and find_layers(frame, size, &cut.layers)
        and is_kind(offload.gso_type, &cut.layers)
        and offload.csum_start == cut.layers.transport and packet_end(frame, &cut.layers) == size
        and plan_pieces(cut, offload)
    )


cdef bint plan_checksum(Cut* cut, const Offload* offload) noexcept nogil:
    cut.offload.csum_start = offload.csum_start
    cut.offload.csum_offset = offload.csum_offset
    return offload.csum_start >= FRAME_HEADER_BYTES and (
        <uint32_t>offload.csum_start + offload.csum_offset + 2 <= cut.size)


cdef bint is_kind(uint8_t gso_type, const Layers* layers) noexcept nogil:
    if layers.protocol == UDP:
        return gso_type == GSO_UDP
    return gso_type & ~GSO_ECN == (GSO_TCPV6 if layers.is_v6 else GSO_TCPV4)


cdef bint plan_pieces(Cut* cut, const Offload* offload) noexcept nogil:
    cdef uint32_t payload = cut.size - cut.layers.payload
    cdef uint32_t pieces = (payload + offload.gso_size - 1) // offload.gso_size
    if cut.layers.protocol == TCP:
        if offload.csum_offset != TCP_CHECKSUM:
            return False
    elif offload.csum_offset != UDP_CHECKSUM or (
            load16(cut.frame + cut.layers.transport + 4) != cut.size - cut.layers.transport):
        return False
    if payload == 0 or pieces > PIECES_MAX:
        return False
    cut.headers = cut.layers.payload
    cut.step = offload.gso_size
    cut.pieces = pieces
    cut.offload.csum_start = offload.csum_start
    cut.offload.csum_offset = offload.csum_offset
    if cut.pieces > 1:      # of one piece the kernel would say that it is none
        cut.offload.gso_type = offload.gso_type
        cut.offload.gso_size = offload.gso_size
        cut.offload.hdr_len = cut.layers.payload
    return True


# HOT PATH
cdef void write_piece(const Cut* cut, uint32_t index, uint8_t* to) noexcept nogil:
    cdef uint32_t size = piece_size(cut, index)
    cdef const Layers* layers = &cut.layers
    if cut.headers == 0:
        memcpy(to, cut.frame, size)
        if cut.offload.flags:
            complete(to, size, cut.offload.csum_start, cut.offload.csum_offset)
        return
    memcpy(to, cut.frame, cut.headers)
    memcpy(to + cut.headers, cut.frame + cut.headers + index * cut.step, size - cut.headers)
    if not layers.is_v6:
        store16(to + layers.network + 4, <uint16_t>(load16(to + layers.network + 4) + index))
    set_packet_end(to, layers, size)
    if layers.protocol == TCP:
        finish_tcp(to + layers.transport, index, cut)
    else:
        store16(to + layers.transport + 4, <uint16_t>(size - layers.transport))
    finish_checksum(to, size, cut)


cdef void complete(uint8_t* frame, uint32_t size, uint32_t start, uint32_t offset) noexcept nogil:
    """Turns the sum of the pseudo-header in the field into the checksum."""
    cdef uint16_t folded = ~fold(add_bytes(0, frame + start, size - start))
    store_sum(frame + start + offset, folded if folded else 0xFFFF)


cdef void finish_tcp(uint8_t* header, uint32_t index, const Cut* cut) noexcept nogil:
    store32(header + 4, load32(header + 4) + index * cut.step)
    if index + 1 < cut.pieces:
        header[TCP_FLAGS] &= ~(FIN | PSH)
    if index:
        header[TCP_FLAGS] &= ~CWR


# HOT PATH
cdef void finish_checksum(uint8_t* frame, uint32_t size, const Cut* cut) noexcept nogil:
    """From the field's sum of the pseudo-header: its address need not be the one in the IP header (routing headers)."""
    cdef uint8_t* header = frame + cut.layers.transport
    cdef uint8_t* field = header + cut.offload.csum_offset
    cdef uint64_t total = load_pair(field)
    cdef uint16_t folded
    total = add_number(total, ~<uint16_t>(cut.size - cut.layers.transport))    # less the old length
    total = add_number(total, <uint16_t>(size - cut.layers.transport))
    store16(field, 0)
    folded = ~fold(add_bytes(total, header, size - cut.layers.transport))
    # A UDP checksum of 0 means that there is none (RFC 768).
    store_sum(field, folded if folded or cut.layers.protocol == TCP else 0xFFFF)


# What Python sees, for tests and benchmarks.

cdef int read_offload(Offload* offload, object fields) except -1:
    (offload.flags, offload.gso_type, offload.hdr_len, offload.gso_size, offload.csum_start,
     offload.csum_offset) = fields
    return 0


cdef object describe_offload(const Offload* offload):
    return (offload.flags, offload.gso_type, offload.hdr_len, offload.gso_size, offload.csum_start,
            offload.csum_offset)


def cut(bytes frame not None, offload):
    """The plain frames of a super-frame. `offload` is (flags, gso_type, hdr_len, gso_size, csum_start, csum_offset).

    Raises ValueError if the offload header does not fit the frame.
    """
    cdef Cut plan
    cdef Offload header
    cdef uint32_t index
    read_offload(&header, offload)
    if not plan_cut(&plan, <const uint8_t*>PyBytes_AS_STRING(frame), <uint32_t>len(frame), &header):
        raise ValueError("the offload header does not fit the frame")
    pieces = []
    for index in range(plan.pieces):
        piece = PyBytes_FromStringAndSize(NULL, piece_size(&plan, index))
        write_piece(&plan, index, <uint8_t*>PyBytes_AS_STRING(piece))
        pieces.append(piece)
    return pieces

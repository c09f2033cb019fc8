# SPDX-License-Identifier: GPL-3.0-or-later
"""Joins plain frames that follow each other in one flow into super-frames, before they are written to the TAP."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy

from cloudvpn._fast.checksum cimport fold, load_pair, store_sum
from cloudvpn._fast.endian cimport load16, load32, store16
from cloudvpn._fast.layers cimport (
    ACK, ECE, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, UDP_CHECKSUM, add_pseudo_header, find_layers, has_good_checksums,
    packet_end, set_packet_end,
)
from cloudvpn._fast.offload cimport GSO_TCPV4, GSO_TCPV6, GSO_UDP, NEEDS_CHECKSUM
from cloudvpn._fast.segment cimport Cut, describe_offload, plan_plain

cdef enum:
    IP_PACKET_MAX = 65535
    DONT_FRAGMENT = 0x40        # in byte 6 of IPv4


cdef class Coalescer:
    """The flows of one batch. What leaves is given to `emit`."""

    # HOT PATH
    cdef void add(self, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept:
        cdef Layers layers
        cdef Flow* flow
        if not find_layers(frame, size, &layers):
            self.add_alone(frame, size, offload, 1)     # a fragment, say: it belongs to one of the flows
            return
        flow = self.find(frame, &layers)
        if flow != NULL:
            if can_join(flow, frame, size, &layers, offload):
                join(flow, frame, size)
                if is_last(flow, frame, size):
                    self.release(flow)
                return
            self.release(flow)
        if can_begin(frame, size, &layers, self.joins_udp):
            self.hold(frame, size, &layers, offload)
        else:
            self.pass_on(frame, size, offload, 1)

    cdef void add_alone(self, const uint8_t* frame, uint32_t size, const Offload* offload, uint32_t frames) noexcept:
        self.finish()
        self.pass_on(frame, size, offload, frames)

    # HOT PATH
    cdef Flow* find(self, const uint8_t* frame, const Layers* layers) noexcept:
        cdef uint32_t turn, ports
        cdef Flow* flow
        memcpy(&ports, frame + layers.transport, 4)
        for turn in range(self.held):
            flow = &self.flows[self.order[turn]]
            if flow.ports == ports and is_same_flow(flow, frame, layers):
                return flow
        return NULL

    # HOT PATH
    cdef void hold(self, const uint8_t* frame, uint32_t size, const Layers* layers, const Offload* offload) noexcept:
        cdef uint32_t place = 0
        cdef Flow* flow
        if self.held == FLOWS:
            self.release(&self.flows[self.order[0]])
        while self.flows[place].frames:
            place += 1
        flow = &self.flows[place]
        flow.layers = layers[0]
        flow.first = frame
        flow.first_size = flow.size = size
        flow.frames = 1
        flow.step = size - layers.payload
        flow.offload = offload[0]
        flow.verified = is_partial(frame, size, layers, offload)
        memcpy(&flow.ports, frame + layers.transport, 4)
        if layers.protocol == TCP:
            flow.next_seq = load32(frame + layers.transport + 4) + flow.step
            flow.last_flags = frame[layers.transport + TCP_FLAGS]
        flow.last_id = load16(frame + layers.network + 4)
        flow.parts[1].iov_base = <void*>(frame + layers.payload)
        flow.parts[1].iov_len = flow.step
        flow.turn = <uint8_t>self.held
        self.order[self.held] = <uint8_t>place
        self.held += 1

    # HOT PATH
    cdef void release(self, Flow* flow) noexcept:
        """Writes what the flow holds and frees its place."""
        cdef uint32_t turn
        self.held -= 1
        for turn in range(flow.turn, self.held):
            self.order[turn] = self.order[turn + 1]
            self.flows[self.order[turn]].turn = <uint8_t>turn
        if flow.frames == 1:
            self.pass_on(flow.first, flow.first_size, &flow.offload, 1)
        else:
            write_headers(flow)
            flow.parts[0].iov_base = flow.headers
            flow.parts[0].iov_len = OFFLOAD_BYTES + flow.layers.payload
            self.emit(flow.parts, 1 + flow.frames, OFFLOAD_BYTES + flow.size, flow.frames)
        flow.frames = 0

    # HOT PATH
    cdef void pass_on(self, const uint8_t* frame, uint32_t size, const Offload* offload, uint32_t frames) noexcept:
        cdef iovec parts[2]
        parts[0].iov_base = <void*>offload
        parts[0].iov_len = OFFLOAD_BYTES
        parts[1].iov_base = <void*>frame
        parts[1].iov_len = size
        self.emit(parts, 2, OFFLOAD_BYTES + size, frames)

    cdef void finish(self) noexcept:
        while self.held:
            self.release(&self.flows[self.order[0]])

    cdef void emit(self, iovec* parts, int count, uint32_t size, uint32_t frames) noexcept:
        pass


# HOT PATH
cdef bint is_same_flow(const Flow* flow, const uint8_t* frame, const Layers* layers) noexcept nogil:
    """Addresses and protocol; the ports were compared."""
    if flow.layers.is_v6 != layers.is_v6 or flow.layers.protocol != layers.protocol:
        return False
    if layers.is_v6:
        return memcmp(flow.first + flow.layers.network + 8, frame + layers.network + 8, 32) == 0
    return memcmp(flow.first + flow.layers.network + 12, frame + layers.network + 12, 8) == 0


# HOT PATH
cdef bint can_begin(const uint8_t* frame, uint32_t size, const Layers* layers, bint joins_udp) noexcept nogil:
    """Whether another frame may be joined to this one."""
    cdef const uint8_t* transport = frame + layers.transport
    if size == layers.payload or packet_end(frame, layers) != size:
        return False
    if layers.protocol == TCP:
        return transport[TCP_FLAGS] & ~ECE == ACK
    return joins_udp and is_whole_datagram(transport, size - layers.transport)


cdef bint is_whole_datagram(const uint8_t* transport, uint32_t size) noexcept nogil:
    return load16(transport + 4) == size and load16(transport + UDP_CHECKSUM) != 0


# HOT PATH
cdef bint can_join(
    Flow* flow, const uint8_t* frame, uint32_t size, const Layers* layers, const Offload* offload
) noexcept nogil:
    """Whether the frame, of the same flow, goes on where the last one ended and differs in nothing else."""
    cdef uint32_t payload = size - layers.payload
    if (
        payload == 0 or payload > flow.step or packet_end(frame, layers) != size
        or flow.size + payload - layers.network > IP_PACKET_MAX
        or flow.layers.network != layers.network or flow.layers.transport != layers.transport
        or flow.layers.payload != layers.payload
        or memcmp(flow.first, frame, layers.network)
        or not continues_ip(flow, frame + layers.network, layers)
    ):
        return False
    if layers.protocol == TCP:
        if not continues_tcp(flow, frame + layers.transport, layers):
            return False
    elif not is_whole_datagram(frame + layers.transport, size - layers.transport):
        return False
    if not flow.verified:
        # Not before it counts: the kernel looks at the checksums of frames that stay alone.
        flow.verified = has_good_checksums(flow.first, flow.first_size, layers)
    return flow.verified and (is_partial(frame, size, layers, offload) or has_good_checksums(frame, size, layers))


cdef bint is_partial(
    const uint8_t* frame, uint32_t size, const Layers* layers, const Offload* offload
) noexcept nogil:
    """Whether the checksum is still to be made, so that it cannot be wrong, and the field is as we would fill it."""
    cdef uint16_t offset = TCP_CHECKSUM if layers.protocol == TCP else UDP_CHECKSUM
    return (
        offload.flags & NEEDS_CHECKSUM and offload.csum_start == layers.transport and offload.csum_offset == offset
        and load_pair(frame + layers.transport + offset) == fold(add_pseudo_header(frame, layers, size))
    )


# HOT PATH
cdef bint continues_ip(const Flow* flow, const uint8_t* header, const Layers* layers) noexcept nogil:
    cdef const uint8_t* first = flow.first + layers.network
    cdef uint16_t step
    cdef uint32_t length = layers.transport - layers.network
    if layers.is_v6:    # all but the length; the addresses were compared
        return memcmp(first, header, 4) == 0 and memcmp(first + 6, header + 6, 2) == 0 and (
            memcmp(first + 40, header + 40, length - 40) == 0)
    step = load16(header + 4) - flow.last_id
    if flow.frames > 1:
        if step != flow.id_step:
            return False
    elif step != 1 and not (step == 0 and header[6] & DONT_FRAGMENT):
        return False
    return memcmp(first, header, 2) == 0 and memcmp(first + 6, header + 6, 4) == 0 and (
        memcmp(first + 20, header + 20, length - 20) == 0)


# HOT PATH
cdef bint continues_tcp(const Flow* flow, const uint8_t* header, const Layers* layers) noexcept nogil:
    cdef const uint8_t* first = flow.first + layers.transport
    return (
        load32(header + 4) == flow.next_seq
        and memcmp(first + 8, header + 8, 5) == 0       # acknowledgement, length of the header
        and header[TCP_FLAGS] & ~PSH == first[TCP_FLAGS]
        and memcmp(first + 14, header + 14, 2) == 0     # window
        and memcmp(first + 18, header + 18, layers.payload - layers.transport - 18) == 0    # urgent pointer, options
    )


# HOT PATH
cdef void join(Flow* flow, const uint8_t* frame, uint32_t size) noexcept nogil:
    cdef uint32_t payload = size - flow.layers.payload
    cdef uint16_t identification = load16(frame + flow.layers.network + 4)
    if flow.frames == 1:
        flow.id_step = identification - flow.last_id
    flow.last_id = identification
    flow.frames += 1
    flow.parts[flow.frames].iov_base = <void*>(frame + flow.layers.payload)
    flow.parts[flow.frames].iov_len = payload
    flow.size += payload
    flow.next_seq += payload
    if flow.layers.protocol == TCP:     # a small datagram ends before that place
        flow.last_flags = frame[flow.layers.transport + TCP_FLAGS]


cdef bint is_last(const Flow* flow, const uint8_t* frame, uint32_t size) noexcept nogil:
    """Whether nothing can follow the frame that was joined."""
    return (
        flow.frames == FRAMES_JOINED_MAX or size - flow.layers.payload < flow.step
        or (flow.layers.protocol == TCP and flow.last_flags & PSH)
    )


# HOT PATH
cdef void write_headers(Flow* flow) noexcept nogil:
    """The offload header, and the first frame's headers as they stand for all."""
    cdef Offload* offload = <Offload*>flow.headers
    cdef uint8_t* headers = flow.headers + OFFLOAD_BYTES
    cdef uint8_t* transport = headers + flow.layers.transport
    memcpy(headers, flow.first, flow.layers.payload)
    set_packet_end(headers, &flow.layers, flow.size)
    offload.flags = NEEDS_CHECKSUM
    offload.hdr_len = flow.layers.payload
    offload.gso_size = <uint16_t>flow.step
    offload.csum_start = flow.layers.transport
    if flow.layers.protocol == TCP:
        offload.gso_type = GSO_TCPV6 if flow.layers.is_v6 else GSO_TCPV4
        offload.csum_offset = TCP_CHECKSUM
        transport[TCP_FLAGS] = flow.last_flags      # PSH, if the last had it
    else:
        offload.gso_type = GSO_UDP
        offload.csum_offset = UDP_CHECKSUM
        store16(transport + 4, <uint16_t>(flow.size - flow.layers.transport))
    store_sum(transport + offload.csum_offset, fold(add_pseudo_header(headers, &flow.layers, flow.size)))


# What Python sees, for tests and benchmarks.

cdef class Collector(Coalescer):
    """Keeps what would be written."""

    cdef list written

    cdef void emit(self, iovec* parts, int count, uint32_t size, uint32_t frames) noexcept:
        cdef int at
        cdef bytes data = b""
        for at in range(count):
            data += PyBytes_FromStringAndSize(<const char*>parts[at].iov_base, <Py_ssize_t>parts[at].iov_len)
        self.written.append(data)


def coalesce(frames, bint udp=True):
    """What would be written for these plain frames, in order: (offload, frame), as `segment.cut` takes them."""
    cdef Collector collector = Collector()
    cdef Cut plain
    cdef Offload offload
    cdef bytes data
    collector.joins_udp = udp
    collector.written = []
    frames = list(frames)       # they stay where they are
    for data in frames:
        plan_plain(&plain, <const uint8_t*>PyBytes_AS_STRING(data), <uint32_t>len(data))
        collector.add(plain.frame, plain.size, &plain.offload)
    collector.finish()
    results = []
    for data in collector.written:
        memcpy(&offload, PyBytes_AS_STRING(data), OFFLOAD_BYTES)
        results.append((describe_offload(&offload), data[OFFLOAD_BYTES:]))
    return results

# SPDX-License-Identifier: GPL-3.0-or-later
"""One forwarding step: packets and frames in, packets and frames out, by the rules of docs/wire.md."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from cloudvpn._fast.bucket cimport PER_TOKEN, charge, fill, set_bucket
from cloudvpn._fast.consts cimport (
    BROADCAST, BROADCAST_ID_BYTES, BULK_BYTES, BULK_FRAME, FRAME, FRAME_HEADER_BYTES, FRAME_SENT_ON, HEADER_BYTES,
    HELLO, HOPS_MAX, LARGE_FRAME_BYTES, LOCAL_PORT, MAC_BYTES, NO_PORT,
)
from cloudvpn._fast.endian cimport is_group, load16, load_mac, store32
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX, is_plain
from cloudvpn._fast.ports cimport (
    DROP_BACKWARD, DROP_BAD_OFFLOAD, DROP_BROADCAST_LIMIT, DROP_DOWNLIMIT, DROP_DUPLICATE, DROP_EGRESS_MISSED,
    DROP_FILTERED, DROP_HOPS, DROP_LONG, DROP_NO_MEMORY, DROP_NO_WAY, DROP_NOWHERE, DROP_SHORT, DROP_TAP_REFUSED,
)
from cloudvpn._fast.pybytes cimport PyErr_Clear, bytes_start, decref, new_bytes
from cloudvpn._fast.scatter cimport scatter, scatter_nodes
from cloudvpn._fast.segment cimport charged_bytes, piece_size, plan_cut, plan_plain, read_offload, write_piece
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.wire cimport (
    PACKET_PARTIAL, PACKET_WHOLE, Verdict, parse, raise_verdict, store_bulk_header, store_header,
)


cdef class Switch(Router):
    """The forwarding of one node. Times in microseconds, sizes in bytes."""

    def __dealloc__(self):
        decref(self.tap_chunk)
        PyMem_Free(self.tap_reserve)

    def __init__(
        self, RouteTable routes not None, IdCache ids not None, RandomSource random not None, *,
        uint32_t max_frame=8192, int64_t keepalive=5_000_000, int64_t timeout=60_000_000,
        uint64_t max_waiting=256 << 20, uint32_t max_nodes=1024, uint32_t max_link_claims=65536,
    ):
        if not FRAME_HEADER_BYTES <= max_frame <= 0xFFFF:
            raise ValueError("a frame on the wire has 14 to 65,535 bytes")
        super().__init__(
            routes, random, keepalive=keepalive, timeout=timeout, max_waiting=max_waiting, max_nodes=max_nodes,
            max_link_claims=max_link_claims)
        self.ids = ids
        self.max_frame = max_frame
        self.tap_reserve = <uint8_t*>PyMem_Malloc(TAP_CHUNK_BYTES)
        if self.tap_reserve == NULL:
            raise MemoryError()

    def attach(self, Port port not None, SendQueue queue not None, int64_t now, uint32_t version=1):
        set_bucket(&port.flood_limit, self.broadcast_limit, self.broadcast_limit, now)
        super().attach(port, queue, now, version)

    def set_policy(
        self, *, uint32_t multi_ratio=0, bint promisc=False, bint ignore_macs=False, bint broadcast_send=False,
        bint broadcast_nocopy=False, allowed=(), uint32_t broadcast_limit=0,
    ):
        """What to do with frames, all of it at once. `allowed` are EtherTypes, none: all may be flooded.

        `multi_ratio` 0 is no multipath, `broadcast_limit` 0 no limit; it is a second and link, a second's worth may
        come at once.
        """
        cdef uint32_t at
        cdef Port port
        if multi_ratio == 1:
            raise ValueError("a ratio of 1 puts no way beside the best one")
        self.multi_ratio = multi_ratio
        self.promisc = promisc
        self.broadcast_send = broadcast_send
        self.broadcast_nocopy = broadcast_nocopy
        self.broadcast_limit = broadcast_limit
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            port.flood_limit.rate = port.flood_limit.burst = broadcast_limit
        self.diverts = promisc or multi_ratio
        self.is_filtering = bool(allowed)
        memset(self.allowed, 0, sizeof(self.allowed))
        for kind in allowed:
            at = kind
            if at > 0xFFFF:
                raise ValueError("an EtherType has 16 bits")
            self.allowed[at >> 3] |= 1 << (at & 7)
        self.set_ignoring(ignore_macs)

    # A packet comes from a link.

    # HOT PATH
    cdef Py_ssize_t feed(self, Port port, const uint8_t* data, size_t size, int64_t now) except -1:
        cdef size_t at = 0
        cdef Packet packet
        cdef Verdict verdict
        self.now = now
        port.unheard = 0
        while port.index and not port.slowed:
            verdict = parse(data + at, size - at, port.version, &packet)
            if verdict == PACKET_PARTIAL:
                break
            if verdict != PACKET_WHOLE:
                self.flush_tap()
                raise_verdict(verdict, &packet)
            if port.version == 2 and (packet.kind == HELLO or not port.peer_id):
                self.greet(port, &packet)
            at += packet.total
            port.packets_in += 1
            if not port.up:
                self.bring_up(port)
            if port.index:      # nobody has closed it meanwhile
                self.handle(port, &packet)
        self.flush_tap()
        return at

    # HOT PATH
    cdef void handle(self, Port port, const Packet* packet) noexcept:
        if packet.kind == BULK_FRAME or packet.kind == FRAME:
            self.frame_from_link(port, packet)
        elif packet.kind == BROADCAST:
            self.broadcast_from_link(port, packet)
        else:
            self.handle_protocol(port, packet)

    # HOT PATH
    cdef void frame_from_link(self, Port port, const Packet* packet) noexcept:
        cdef Cut cut
        cdef bint fits = True
        if packet.kind == FRAME:
            plan_plain(&cut, packet.body, packet.size)
        else:
            fits = plan_cut(&cut, packet.body, packet.size, &packet.offload)
        port.frames_in += cut.pieces
        self.frames_from_links += cut.pieces
        if not fits:
            self.drop(DROP_BAD_OFFLOAD, 1)
        elif self.has_good_size(&cut) and not self.is_over_limit(port, &cut):
            if packet.kind == FRAME or packet.node == 0:
                self.enter(port, packet, &cut)
            elif packet.node == self.node_id:
                self.leave(port, packet, &cut)
            else:
                self.pass_on(port, packet, &cut, self.nodes.port_of(packet.node), packet.node)

    # HOT PATH
    cdef void enter(self, Port port, const Packet* packet, const Cut* cut) noexcept:
        """A frame that no node has looked up yet: it comes from a link of version 1."""
        cdef uint64_t egress
        cdef uint32_t way = self.way_of(load_mac(cut.frame), &egress)
        if way != NO_PORT:
            self.pass_on(port, packet, cut, way, egress)
        elif self.may_flood(port, cut.frame, cut.pieces):
            self.flood_pieces(cut, port.index)

    # HOT PATH
    cdef void leave(self, Port port, const Packet* packet, const Cut* cut) noexcept:
        """A frame that was sent to this node, because its host is here. If that has moved, it is sent on, once."""
        cdef uint64_t mac = load_mac(cut.frame), egress = 0
        cdef uint32_t way = self.way_from_egress(mac)
        if way != NO_PORT:
            self.pass_on(port, packet, cut, way, 0)
            return
        if not packet.flags & FRAME_SENT_ON:
            way = self.hosts.redirect(mac, &egress)
        if way == NO_PORT:
            self.drop(DROP_EGRESS_MISSED, cut.pieces)
        elif packet.hops <= 1:
            self.drop(DROP_HOPS, cut.pieces)
        else:       # also to where it came from
            self.send(<Port>self.slots[way], cut, egress, packet.hops - 1, FRAME_SENT_ON)

    # HOT PATH
    cdef void pass_on(
            self, Port port, const Packet* packet, const Cut* cut, uint32_t way, uint64_t egress) noexcept:
        if way == LOCAL_PORT:
            self.deliver(cut)
            return
        if way == NO_PORT:
            self.drop(DROP_NO_WAY, cut.pieces)
            return
        if self.diverts:
            way = self.divert(cut, way, egress, port.index)
        if way == port.index:
            self.drop(DROP_BACKWARD, cut.pieces)
        elif packet.hops <= 1:
            self.drop(DROP_HOPS, cut.pieces)
        else:
            self.send(<Port>self.slots[way], cut, egress, packet.hops - 1, packet.flags)

    # HOT PATH
    cdef void broadcast_from_link(self, Port port, const Packet* packet) noexcept:
        cdef uint64_t egress
        cdef uint32_t way
        cdef Cut cut
        plan_plain(&cut, packet.body, packet.size)
        port.frames_in += 1
        self.frames_from_links += 1
        if not self.has_good_size(&cut) or self.is_over_limit(port, &cut):
            return
        way = self.way_of(load_mac(packet.body), &egress)
        # Before the id is remembered: what one link may not bring another one may.
        if way == NO_PORT and not self.may_flood(port, packet.body, 1):
            return
        if self.ids.seen(packet.broadcast_id):
            self.drop(DROP_DUPLICATE, 1)
            return
        if way == LOCAL_PORT:
            self.deliver(&cut)
            return
        if way == NO_PORT:
            self.flood(packet.body, packet.size, packet.broadcast_id, port.index)
            return
        if self.promisc:
            self.overhear(&cut)
        if way == port.index:
            self.drop(DROP_BACKWARD, 1)
        else:       # it keeps its id: another copy may come by another way
            self.send_broadcast(<Port>self.slots[way], packet.broadcast_id, packet.body, packet.size)

    # HOT PATH
    cdef bint is_over_limit(self, Port port, const Cut* cut) noexcept:
        if not self.policer.is_on or self.policer.admits(port, charged_bytes(cut), self.now):
            return False
        self.drop(DROP_DOWNLIMIT, cut.pieces)
        return True

    # A frame comes from the TAP.

    # HOT PATH
    cdef void frame_from_tap(self, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept:
        cdef uint64_t egress
        cdef uint32_t way
        cdef Cut cut
        if not plan_cut(&cut, frame, size, offload):
            self.frames_from_tap += 1
            self.drop(DROP_BAD_OFFLOAD, 1)
            return
        self.frames_from_tap += cut.pieces
        if not self.has_good_size(&cut):
            return
        if self.learns:
            self.hosts.learn(load_mac(frame + MAC_BYTES), self.now)
        way = self.way_of(load_mac(frame), &egress)
        if way == LOCAL_PORT:
            self.drop(DROP_BACKWARD, cut.pieces)
        elif way == NO_PORT or self.broadcast_send:
            if self.is_allowed(frame):
                self.flood_pieces(&cut, LOCAL_PORT)
            else:
                self.drop(DROP_FILTERED, cut.pieces)
        else:
            if self.multi_ratio:
                way = self.spread(load_mac(frame), way, egress, LOCAL_PORT)
            self.send(<Port>self.slots[way], &cut, egress, HOPS_MAX, 0)

    cdef uint32_t new_id(self) noexcept:
        """A random id, remembered, so that our own broadcast is known when it comes back."""
        cdef uint32_t broadcast_id = self.random.next32()
        while self.ids.seen(broadcast_id):      # one that is on its way would be taken for the same broadcast
            broadcast_id = self.random.next32()
        return broadcast_id

    # HOT PATH
    cdef bint has_good_size(self, const Cut* cut) noexcept:
        cdef uint32_t size = piece_size(cut, 0)
        if size < FRAME_HEADER_BYTES:
            self.drop(DROP_SHORT, cut.pieces)
            return False
        if size > self.max_frame:
            self.drop(DROP_LONG, cut.pieces)
            return False
        return True

    # Whether it may be flooded.

    # HOT PATH
    cdef bint may_flood(self, Port port, const uint8_t* frame, uint32_t frames) noexcept:
        if not self.is_allowed(frame):
            self.drop(DROP_FILTERED, frames)
            return False
        port.broadcasts_in += frames
        if not self.is_within_limit(port, frames):
            port.broadcasts_refused += frames
            if not is_group(load_mac(frame)):
                port.unicasts_refused += frames
            self.drop(DROP_BROADCAST_LIMIT, frames)
            return False
        return True

    # HOT PATH
    cdef bint is_allowed(self, const uint8_t* frame) noexcept:
        """By the two bytes after the addresses as they stand there: a VLAN tag's, or a length, too."""
        cdef uint16_t kind
        if not self.is_filtering:
            return True
        kind = load16(frame + 12)
        return self.allowed[kind >> 3] >> (kind & 7) & 1

    # HOT PATH
    cdef bint is_within_limit(self, Port port, uint32_t frames) noexcept:
        """A super-frame passes if one frame would; what comes after it waits for all of it."""
        if port.flood_limit.rate == 0:
            return True
        fill(&port.flood_limit, self.now)
        if port.flood_limit.level < PER_TOKEN:
            return False
        charge(&port.flood_limit, frames)
        return True

    # And goes out.

    # HOT PATH
    cdef uint32_t divert(self, const Cut* cut, uint32_t way, uint64_t egress, uint32_t source) noexcept:
        """What promisc and multipath add for a frame that goes on by this way: a copy, and perhaps another way."""
        if self.promisc:
            self.overhear(cut)
        if self.multi_ratio:
            way = self.spread(load_mac(cut.frame), way, egress, source)
        return way

    # HOT PATH
    cdef uint32_t spread(self, uint64_t mac, uint32_t way, uint64_t egress, uint32_t source) noexcept:
        """multipath: one of the good ways; the best one itself if it is the only one."""
        cdef uint32_t drawn
        if egress:
            drawn = scatter_nodes(self.nodes, self.random, egress, source, self.multi_ratio)
        else:
            drawn = scatter(self.routes, self.random, mac, source, self.multi_ratio)
        return drawn if drawn != source else way

    # HOT PATH
    cdef void overhear(self, const Cut* cut) noexcept:
        """promisc: the interface gets a copy of what only passes."""
        if self.tap is not None:
            self.copies += cut.pieces
            self.deliver(cut)

    # HOT PATH
    cdef void flood_pieces(self, const Cut* cut, uint32_t source) noexcept:
        """Each piece by itself: broadcasts are never offloaded."""
        cdef uint32_t index
        if is_plain(&cut.offload):
            self.flood(cut.frame, cut.size, self.new_id(), source)
            return
        for index in range(cut.pieces):
            write_piece(cut, index, self.scratch)
            self.flood(self.scratch, piece_size(cut, index), self.new_id(), source)
            self.flush_tap()    # before the next piece takes the place of this one

    # HOT PATH
    cdef void flood(self, const uint8_t* frame, uint32_t size, uint32_t broadcast_id, uint32_t source) noexcept:
        """To all links that are up, and to the TAP, but not to where it came from."""
        cdef uint32_t at, sent = 0
        cdef Port port
        cdef Cut cut
        if source != LOCAL_PORT and self.tap is not None:
            plan_plain(&cut, frame, size)
            self.deliver(&cut)
            sent = 1
        if self.broadcast_nocopy:
            at = self.draw_port(source)
            if at != NO_PORT:
                self.send_broadcast(<Port>self.slots[at], broadcast_id, frame, size)
                sent += 1
        else:
            for at in range(self.up_count):
                port = <Port>self.up[at]
                if port.index != source:
                    self.send_broadcast(port, broadcast_id, frame, size)
                    sent += 1
        if sent == 0:
            self.drop(DROP_NOWHERE, 1)
        else:
            self.copies += sent - 1

    # HOT PATH
    cdef uint32_t draw_port(self, uint32_t source) noexcept:
        """broadcast_nocopy: one link of those that are up, or NO_PORT; not back to the source, nor to its node."""
        cdef uint64_t peer = (<Port>self.slots[source]).peer_id if source != LOCAL_PORT else 0
        cdef uint32_t at, found = 0, drawn = NO_PORT
        cdef Port port
        for at in range(self.up_count):
            port = <Port>self.up[at]
            if port.index != source and (peer == 0 or port.peer_id != peer):
                found += 1
                if self.random.below(found) == 0:
                    drawn = port.index
        return drawn

    # HOT PATH
    cdef void send(self, Port port, const Cut* cut, uint64_t egress, uint8_t hops, uint8_t flags) noexcept:
        """A unicast frame: whole where the peer understands that, else as the plain frames that it stands for."""
        cdef uint8_t* at
        if port.version == 2 and cut.size >= LARGE_FRAME_BYTES and cut.frame == self.tap_frame:
            self.hand_over(port, cut, egress, hops, flags)
        elif port.version == 2:
            at = self.begin_packet(port, HEADER_BYTES + BULK_BYTES + cut.size, cut.pieces)
            if at != NULL:
                store_bulk_header(at, cut.size, egress, hops, flags, &cut.offload)
                memcpy(at + HEADER_BYTES + BULK_BYTES, cut.frame, cut.size)
                self.end_packet(port, cut.pieces)
        elif is_plain(&cut.offload):
            at = self.begin_packet(port, HEADER_BYTES + cut.size, 1)
            if at != NULL:
                store_header(at, FRAME, 0, <uint16_t>cut.size)
                memcpy(at + HEADER_BYTES, cut.frame, cut.size)
                self.end_packet(port, 1)
        else:
            self.send_pieces(port, cut)

    # HOT PATH
    cdef void hand_over(self, Port port, const Cut* cut, uint64_t egress, uint8_t hops, uint8_t flags) noexcept:
        """Sends the frame that lies where the interface was told to put it, without a copy."""
        cdef uint32_t size = HEADER_BYTES + BULK_BYTES + cut.size
        if not self.admit(port, size, cut.pieces):
            return
        store_bulk_header(self.tap_frame - BULK_BYTES - HEADER_BYTES, cut.size, egress, hops, flags, &cut.offload)
        if port.queue.take_over(&self.tap_chunk, TAP_CHUNK_BYTES, size, cut.pieces):
            self.tap_frame = NULL
            self.end_packet(port, cut.pieces)
        else:
            self.count_lost(port)
            port.frames_dropped += cut.pieces
            self.drop(DROP_NO_MEMORY, cut.pieces)

    # HOT PATH
    cdef uint8_t* room_for_frame(self) noexcept:
        if self.tap_chunk == NULL:
            self.tap_chunk = new_bytes(NULL, TAP_CHUNK_BYTES)
            if self.tap_chunk == NULL:
                PyErr_Clear()       # a frame that lies there is copied, if only into what is left of a chunk
                return self.tap_reserve + HEADER_BYTES + BULK_BYTES
            self.tap_frame = <uint8_t*>bytes_start(self.tap_chunk) + HEADER_BYTES + BULK_BYTES
        return self.tap_frame

    # HOT PATH
    cdef void send_pieces(self, Port port, const Cut* cut) noexcept:
        cdef uint32_t index, size
        cdef uint8_t* at
        for index in range(cut.pieces):
            size = piece_size(cut, index)
            at = self.begin_packet(port, HEADER_BYTES + size, 1)
            if at != NULL:
                store_header(at, FRAME, 0, <uint16_t>size)
                write_piece(cut, index, at + HEADER_BYTES)
                self.end_packet(port, 1)

    # HOT PATH
    cdef void send_broadcast(self, Port port, uint32_t broadcast_id, const uint8_t* frame, uint32_t size) noexcept:
        cdef uint8_t* at = self.begin_packet(port, HEADER_BYTES + BROADCAST_ID_BYTES + size, 1)
        if at != NULL:
            store_header(at, BROADCAST, 0, <uint16_t>size)
            store32(at + HEADER_BYTES, broadcast_id)
            memcpy(at + HEADER_BYTES + BROADCAST_ID_BYTES, frame, size)
            self.end_packet(port, 1)

    # HOT PATH
    cdef void deliver(self, const Cut* cut) noexcept:
        if self.tap is None:
            self.drop(DROP_TAP_REFUSED, cut.pieces)
        else:
            self.tap.deliver(cut)
            self.frames_to_tap += cut.pieces

    cdef void flush_tap(self) noexcept:
        cdef uint32_t refused
        if self.tap is not None:
            refused = self.tap.flush()
            self.frames_to_tap -= refused
            self.drop(DROP_TAP_REFUSED, refused)

    # What Python sees.

    def receive(self, Port port not None, const uint8_t[::1] data not None, int64_t now):
        """Takes bytes from the port's peer and lets all ports write: how many bytes of whole packets were used."""
        try:
            port.bytes_in += <uint64_t>data.shape[0]
            return self.feed(port, &data[0] if data.shape[0] else NULL, <size_t>data.shape[0], now)
        finally:
            self.flush_touched()

    def send_from_tap(self, const uint8_t[::1] frame not None, offload=(0, 0, 0, 0, 0, 0), int64_t now=0):
        """Takes a frame from the local interface, its offload header as `segment.cut` does; lets all ports write."""
        cdef Offload header
        cdef uint8_t* place = self.room_for_frame()
        if frame.shape[0] > SUPER_FRAME_MAX:
            raise ValueError(f"no interface hands over more than {SUPER_FRAME_MAX} bytes")
        self.now = max(self.now, now)
        read_offload(&header, offload)
        if frame.shape[0]:
            memcpy(place, &frame[0], <size_t>frame.shape[0])
        self.frame_from_tap(place, <uint32_t>frame.shape[0], &header)
        self.flush_touched()

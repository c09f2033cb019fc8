# SPDX-License-Identifier: GPL-3.0-or-later
"""One forwarding step: packets and frames in, packets and frames out, by the rules of docs/wire.md."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, uint16_t
from libc.string cimport memcpy, memset

from cloudvpn._fast.bucket cimport PER_TOKEN, charge, fill, set_bucket
from cloudvpn._fast.consts cimport (
    BROADCAST, BROADCAST_ID_BYTES, BULK_BYTES, BULK_FRAME, ECHO_REPLY, ECHO_REQUEST, FRAME, FRAME_HEADER_BYTES,
    HEADER_BYTES, HELLO, HELLO_BYTES, HOPS_MAX, LARGE_FRAME_BYTES, LOCAL_PORT, NO_PORT, ROUTE_BYTES, ROUTE_DIFF,
    ROUTE_REQUEST, ROUTE_SET, ROUTES_MAX, WRITE_BYTES,
)
from cloudvpn._fast.endian cimport is_group, load16, load_mac, store32
from cloudvpn._fast.echo cimport EchoMeter
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX, is_plain
from cloudvpn._fast.pybytes cimport PyErr_Clear, bytes_start, decref, new_bytes
from cloudvpn._fast.scatter cimport scatter
from cloudvpn._fast.segment cimport charged_bytes, piece_size, plan_cut, plan_plain, read_offload, write_piece
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.wire cimport (
    PACKET_PARTIAL, PACKET_WHOLE, Verdict, parse, raise_verdict, store_bulk_header, store_header, store_hello,
)

from cloudvpn.errors import InternalError, PeerError

DROP_NAMES = (
    "short", "long", "duplicate", "backward", "nowhere", "queue_full", "no_memory", "link_closed", "tap_refused",
    "bad_offload", "hops", "filtered", "broadcast_limit", "downlimit",
)
assert len(DROP_NAMES) == DROPS

# A full set is asked for at most this often: a peer that flaps at its limit must not make us ask each heartbeat.
cdef int64_t SET_REQUEST_INTERVAL = 1_000_000


cdef class Switch:
    """The forwarding of one node. Times in microseconds, sizes in bytes."""

    def __cinit__(
        self, RouteTable routes not None, IdCache ids not None, RandomSource random not None, *,
        uint32_t max_frame=8192, int64_t keepalive=5_000_000, int64_t timeout=60_000_000,
        uint64_t max_waiting=256 << 20,
    ):
        if not FRAME_HEADER_BYTES <= max_frame <= 0xFFFF:
            raise ValueError("a frame on the wire has 14 to 65,535 bytes")
        self.routes = routes
        self.ids = ids
        self.random = random
        self.max_frame = max_frame
        self.keepalive = keepalive
        self.timeout = timeout
        self.max_waiting = max_waiting
        self.node_id = (<uint64_t>random.next32() << 32) | random.next32() | 1      # 0 means nobody
        self.max_ports = routes.max_ports
        self.shaper = Shaper(self.max_ports)
        self.policer = Policer()
        self.alarm_at = INT64_MAX
        self.slots = [None]
        self.free_slots = []
        self.tap_wanted = True
        self.attached = <PyObject**>PyMem_Calloc(self.max_ports, sizeof(PyObject*))
        self.up = <PyObject**>PyMem_Calloc(self.max_ports, sizeof(PyObject*))
        self.touched = <PyObject**>PyMem_Calloc(self.max_ports, sizeof(PyObject*))
        self.scratch = <uint8_t*>PyMem_Malloc(ROUTES_MAX * ROUTE_BYTES)
        if self.attached == NULL or self.up == NULL or self.touched == NULL or self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.attached)
        PyMem_Free(self.up)
        PyMem_Free(self.touched)
        PyMem_Free(self.scratch)
        decref(self.tap_chunk)

    # Ports come and go.

    def attach(self, Port port not None, SendQueue queue not None, int64_t now, uint32_t version=1):
        """Takes the port in and greets its peer: a hello (version 2), an echo request and a full route set."""
        cdef uint8_t* at
        if port.index:
            raise InternalError("the port is attached already")
        if self.attached_count == self.max_ports:
            raise InternalError("no port is free")
        if self.free_slots:
            port.index = self.free_slots.pop()
            self.slots[port.index] = port
        else:
            port.index = <uint32_t>len(self.slots)
            self.slots.append(port)
        port.queue = queue
        queue.total = &self.waiting_total
        port.version = version
        self.shaper.open_port(port, now)
        self.policer.open_port(port, now)
        port.echo = EchoMeter(now, self.random.next32() & 0xFF)
        port.asked_set = now - SET_REQUEST_INTERVAL
        set_bucket(&port.flood_limit, self.broadcast_limit, self.broadcast_limit, now)
        port.place_attached = self.attached_count
        self.attached[self.attached_count] = <PyObject*>port
        self.attached_count += 1
        self.routes.attach(port.index)
        if version == 2:
            at = queue.reserve_proto(HEADER_BYTES + HELLO_BYTES)
            if at == NULL:
                raise MemoryError()
            store_hello(at, self.node_id)
            port.packets_out += 1
        self.ask_echo(port, now)
        self.send_routes(port, ROUTE_SET, self.routes.write_set(self.scratch))
        self.flush_touched()

    def detach(self, Port port not None):
        """Lets the port go: its routes are gone at once, what waited for it is dropped and counted."""
        cdef uint32_t at
        if not port.index:
            return
        if port.up:
            self.set_stopped(port, False, False)
            self.up_count -= 1
            self.up[port.place_up] = self.up[self.up_count]
            (<Port>self.up[port.place_up]).place_up = port.place_up
            port.up = False
        self.attached_count -= 1
        self.attached[port.place_attached] = self.attached[self.attached_count]
        (<Port>self.attached[port.place_attached]).place_attached = port.place_attached
        if port.touched:
            for at in range(self.touched_count):
                if self.touched[at] == <PyObject*>port:
                    self.touched_count -= 1
                    self.touched[at] = self.touched[self.touched_count]
                    break
            port.touched = False
        self.shaper.leave(port)
        self.routes.detach(port.index)
        self.drops[DROP_NO_MEMORY] += port.queue.lost
        self.frames_to_links -= port.queue.lost
        at = port.queue.clear()
        port.queue.total = &port.queue.own_total
        port.frames_dropped += at
        port.frames_out -= at
        self.frames_to_links -= at
        self.drops[DROP_LINK_CLOSED] += at
        self.slots[port.index] = None
        self.free_slots.append(port.index)
        port.index = 0
        self.watch_tap()

    cdef void set_paused(self, Port port, bint paused) noexcept:
        if port.paused != paused:
            self.set_stopped(port, paused, port.clogged)
            if not paused and port.index:
                self.touch(port)

    cdef void set_stopped(self, Port port, bint paused, bint clogged) noexcept:
        cdef bint was_stopped = port.paused or port.clogged, is_stopped = paused or clogged
        port.paused = paused
        port.clogged = clogged
        if port.up and is_stopped != was_stopped:
            self.stopped_count += 1 if is_stopped else -1
            self.watch_tap()

    cdef void bring_up(self, Port port) noexcept:
        port.up = True
        port.place_up = self.up_count
        self.up[self.up_count] = <PyObject*>port
        self.up_count += 1
        self.stopped_count += port.paused or port.clogged
        self.watch_tap()
        port.came_up()

    cdef void watch_tap(self) noexcept:
        """While every link is stopped no frame could be sent on: better left in the interface's queue than dropped."""
        cdef bint wanted = self.up_count == 0 or self.stopped_count < self.up_count
        if wanted != self.tap_wanted:
            self.tap_wanted = wanted
            if self.tap is not None:
                self.tap.set_wanted(wanted)

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
        if ignore_macs != self.ignore_macs:
            self.ignore_macs = ignore_macs
            for at in range(self.attached_count):
                # Off again: as if routes had been refused, so that the next beat asks for all.
                self.routes.forget((<Port>self.attached[at]).index, not ignore_macs)
            self.tell_routes()
            self.flush_touched()

    def set_tap(self, Tap tap, uint64_t mac):
        """The local interface and its MAC; `None, 0` takes it away. The neighbours hear of it at once."""
        if mac != self.own_mac:
            if self.own_mac:
                self.routes.remove_local(self.own_mac)
            if mac:
                self.routes.add_local(mac)
            self.own_mac = mac
            self.tell_routes()
            self.flush_touched()
        self.tap = tap
        if tap is not None:
            tap.set_wanted(self.tap_wanted)

    # A packet comes from a link.

    # HOT PATH
    cdef Py_ssize_t feed(self, Port port, const uint8_t* data, size_t size, int64_t now) except -1:
        cdef size_t at = 0
        cdef Packet packet
        cdef Verdict verdict
        self.now = now
        while port.index:
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
                self.handle(port, &packet, now)
        self.flush_tap()
        return at

    cdef int greet(self, Port port, const Packet* packet) except -1:
        """The hello comes first, and once."""
        if packet.kind != HELLO:
            raise PeerError(f"packet of type {packet.kind} before its hello")
        if port.peer_id or packet.node == 0:
            raise PeerError("a second hello" if port.peer_id else "a hello without a name")
        port.peer_id = packet.node
        if port.peer_id == self.node_id:
            port.is_ourselves = True
            raise PeerError("it is this node itself")
        return 0

    # HOT PATH
    cdef void handle(self, Port port, const Packet* packet, int64_t now) noexcept:
        if packet.kind == BULK_FRAME or packet.kind == FRAME:
            self.frame_from_link(port, packet)
        elif packet.kind == BROADCAST:
            self.broadcast_from_link(port, packet)
        elif packet.kind == ECHO_REQUEST:
            self.send_bare(port, ECHO_REPLY, packet.special)
        elif packet.kind == ECHO_REPLY:
            if port.echo.reply(packet.special, now):
                self.routes.set_link_ping(port.index, port.echo.ping)
            else:
                self.echoes_unasked += 1
        elif packet.kind == ROUTE_REQUEST:
            port.wants_set = True       # answered at the next beat, however often it is asked
        elif self.ignore_macs:
            pass
        elif packet.kind == ROUTE_SET:
            self.routes.apply_set(port.index, packet.body, packet.size // ROUTE_BYTES)
        elif packet.kind == ROUTE_DIFF:
            self.routes.apply_diff(port.index, packet.body, packet.size // ROUTE_BYTES)

    # HOT PATH
    cdef void frame_from_link(self, Port port, const Packet* packet) noexcept:
        cdef uint32_t way
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
            return
        if not self.has_good_size(&cut) or self.is_over_limit(port, &cut):
            return
        way = self.way_of(packet.body)
        if way == LOCAL_PORT:
            self.deliver(&cut)
            return
        if way == NO_PORT:
            if self.may_flood(port, packet.body, cut.pieces):
                self.flood_pieces(&cut, port.index)
            return
        if self.diverts:
            way = self.divert(&cut, way, port.index)
        if way == port.index:
            self.drop(DROP_BACKWARD, cut.pieces)
        elif packet.hops <= 1:
            self.drop(DROP_HOPS, cut.pieces)
        else:
            self.send(<Port>self.slots[way], &cut, packet.hops - 1)

    # HOT PATH
    cdef void broadcast_from_link(self, Port port, const Packet* packet) noexcept:
        cdef uint32_t way
        cdef Cut cut
        plan_plain(&cut, packet.body, packet.size)
        port.frames_in += 1
        self.frames_from_links += 1
        if not self.has_good_size(&cut) or self.is_over_limit(port, &cut):
            return
        way = self.way_of(packet.body)
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
        cdef uint32_t way
        cdef Cut cut
        if not plan_cut(&cut, frame, size, offload):
            self.frames_from_tap += 1
            self.drop(DROP_BAD_OFFLOAD, 1)
            return
        self.frames_from_tap += cut.pieces
        if not self.has_good_size(&cut):
            return
        way = self.way_of(frame)
        if way == LOCAL_PORT:
            self.drop(DROP_BACKWARD, cut.pieces)
        elif way == NO_PORT or self.broadcast_send:
            if self.is_allowed(frame):
                self.flood_pieces(&cut, LOCAL_PORT)
            else:
                self.drop(DROP_FILTERED, cut.pieces)
        else:
            if self.multi_ratio:
                way = scatter(self.routes, self.random, load_mac(frame), LOCAL_PORT, self.multi_ratio)
            self.send(<Port>self.slots[way], &cut, HOPS_MAX)

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

    # HOT PATH
    cdef uint32_t way_of(self, const uint8_t* frame) noexcept:
        """The port that the frame should leave by; NO_PORT: to all, because it names many or its place is not known."""
        cdef uint64_t mac = load_mac(frame)
        return NO_PORT if is_group(mac) else self.routes.lookup(mac)

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
    cdef uint32_t divert(self, const Cut* cut, uint32_t way, uint32_t source) noexcept:
        """What promisc and multipath add for a frame that goes on by this way: a copy, and perhaps another way."""
        if self.promisc:
            self.overhear(cut)
        if self.multi_ratio:
            way = scatter(self.routes, self.random, load_mac(cut.frame), source, self.multi_ratio)
        return way

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
    cdef void send(self, Port port, const Cut* cut, uint8_t hops) noexcept:
        """A unicast frame: whole where the peer understands that, else as the plain frames that it stands for."""
        cdef uint8_t* at
        if port.version == 2 and cut.size >= LARGE_FRAME_BYTES and cut.frame == self.tap_frame:
            self.hand_over(port, cut, hops)
        elif port.version == 2:
            at = self.begin_packet(port, HEADER_BYTES + BULK_BYTES + cut.size, cut.pieces)
            if at != NULL:
                store_bulk_header(at, cut.size, 0, hops, 0, &cut.offload)
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
    cdef void hand_over(self, Port port, const Cut* cut, uint8_t hops) noexcept:
        """Sends the frame that lies where the interface was told to put it, without a copy."""
        cdef uint32_t size = HEADER_BYTES + BULK_BYTES + cut.size
        if not self.admit(port, size, cut.pieces):
            return
        store_bulk_header(self.tap_frame - BULK_BYTES - HEADER_BYTES, cut.size, 0, hops, 0, &cut.offload)
        if port.queue.take_over(&self.tap_chunk, TAP_CHUNK_BYTES, size, cut.pieces):
            self.tap_frame = NULL
            self.end_packet(port, cut.pieces)
        else:
            port.frames_dropped += cut.pieces
            self.drop(DROP_NO_MEMORY, cut.pieces)

    # HOT PATH
    cdef uint8_t* room_for_frame(self) noexcept:
        if self.tap_chunk == NULL:
            self.tap_chunk = new_bytes(NULL, TAP_CHUNK_BYTES)
            if self.tap_chunk == NULL:
                PyErr_Clear()
                return NULL
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
    cdef bint admit(self, Port port, uint32_t size, uint32_t frames) noexcept:
        """Whether the limits allow a packet that stands for so many frames; if not, it is counted as dropped."""
        cdef SendQueue queue = port.queue
        if not queue.has_room(size) and not port.paused:
            self.flush_early(port)
        if queue.has_room(size) and (self.waiting_total + size <= self.max_waiting or self.make_room(port, size)):
            return True
        port.frames_dropped += frames
        self.drop(DROP_QUEUE_FULL, frames)
        return False

    # HOT PATH
    cdef uint8_t* begin_packet(self, Port port, uint32_t size, uint32_t frames) noexcept:
        """Room in the port's queue for a packet that stands for so many frames; NULL: dropped and counted."""
        cdef uint8_t* at
        # The same question as that of admit(), which most frames need not ask.
        if (not port.queue.has_room(size) or self.waiting_total + size > self.max_waiting) and (
                not self.admit(port, size, frames)):
            return NULL
        at = port.queue.reserve_data(size, frames)
        if at == NULL:
            port.frames_dropped += frames
            self.drop(DROP_NO_MEMORY, frames)
        return at

    cdef bint make_room(self, Port port, uint32_t size) noexcept:
        """All queues together are full: the longest one loses its oldest frames, or the new one if that is its own."""
        cdef uint32_t at, frames
        cdef Port longest
        while self.waiting_total + size > self.max_waiting:
            longest = port
            for at in range(self.attached_count):
                if (<Port>self.attached[at]).queue.waiting_bytes > longest.queue.waiting_bytes:
                    longest = <Port>self.attached[at]
            if longest is port:
                return False
            frames = longest.queue.drop_oldest()
            longest.frames_dropped += frames
            longest.frames_out -= frames
            self.frames_to_links -= frames
            self.drop(DROP_QUEUE_FULL, frames)
            if longest.clogged:
                self.touch(longest)     # it is no more
        return True

    # HOT PATH
    cdef void end_packet(self, Port port, uint32_t frames) noexcept:
        port.frames_out += frames
        port.packets_out += 1
        self.frames_to_links += frames
        self.touch(port)
        if port.queue.waiting_bytes >= WRITE_BYTES and not port.paused:
            self.flush_early(port)

    cdef void flush_early(self, Port port) noexcept:
        """Before the batch is over, because much waits."""
        if not self.shaper.is_on:
            port.flush()
        elif self.shaper.join(port) or self.now >= self.shaper.wake_at:
            self.flush_shaped()
        elif not port.clogged and is_full(port.queue):
            self.set_stopped(port, port.paused, True)

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

    cdef void drop(self, uint32_t reason, uint32_t frames) noexcept:
        self.drops[reason] += frames

    cdef void touch(self, Port port) noexcept:
        if not port.touched:
            port.touched = True
            self.touched[self.touched_count] = <PyObject*>port
            self.touched_count += 1

    cdef void flush_touched(self) noexcept:
        cdef Port port
        cdef bint has_joined = False
        while self.touched_count:
            self.touched_count -= 1
            port = <Port>self.touched[self.touched_count]
            port.touched = False
            if not port.paused:
                port.flush()
            if self.shaper.is_on:
                if self.shaper.join(port):
                    has_joined = True
                self.set_stopped(port, port.paused, is_full(port.queue))
        if has_joined or self.now >= self.shaper.wake_at:
            self.flush_shaped()
        if self.shaper.wake_at < self.alarm_at and self.alarm is not None:
            self.alarm_at = self.shaper.wake_at
            self.alarm(self.alarm_at)

    cdef void flush_shaped(self) noexcept:
        """Lets out what the upload limits allow now."""
        cdef Shaper shaper = self.shaper
        cdef Port port
        shaper.grant(self.now)
        while shaper.granted_count:
            shaper.granted_count -= 1
            port = <Port>shaper.granted[shaper.granted_count]
            port.has_grant = False
            port.flush()
            self.set_stopped(port, port.paused, is_full(port.queue))

    # Protocol packets.

    cdef bint send_bare(self, Port port, PacketType kind, uint8_t special) noexcept:
        cdef uint8_t* at = port.queue.reserve_proto(HEADER_BYTES)
        if at == NULL:
            port.protocol_refused += 1
            return False
        store_header(at, kind, special, 0)
        port.packets_out += 1
        self.touch(port)
        return True

    cdef void ask_echo(self, Port port, int64_t now) noexcept:
        self.send_bare(port, ECHO_REQUEST, port.echo.request(now, self.keepalive))

    cdef void send_routes(self, Port port, PacketType kind, uint32_t count) noexcept:
        """The routes in `scratch`. A link whose lane is full gets a full set later: nothing told is ever missing."""
        cdef uint8_t* at = port.queue.reserve_proto(HEADER_BYTES + count * ROUTE_BYTES)
        port.wants_set = at == NULL
        if at == NULL:
            port.protocol_refused += 1
            return
        store_header(at, kind, 0, <uint16_t>count)
        memcpy(at + HEADER_BYTES, self.scratch, count * ROUTE_BYTES)
        port.packets_out += 1
        self.touch(port)

    # The heartbeat.

    def beat(self, int64_t now):
        """Once per heartbeat: echoes that are due, route changes. Returns the ports that have been silent too long."""
        cdef uint32_t at
        cdef Port port
        self.now = now
        silent = []
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if now >= port.echo.due:
                self.ask_echo(port, now)
            if now - port.echo.last_reply >= self.timeout:
                silent.append(port)
            if self.routes.tables[port.index].overflowed and now - port.asked_set >= SET_REQUEST_INTERVAL and (
                    self.routes.take_overflow(port.index)):
                port.asked_set = now
                # Without a place in the lane the wish stays, for later.
                self.routes.tables[port.index].overflowed = not self.send_bare(port, ROUTE_REQUEST, 0)
        self.tell_routes()
        self.flush_touched()
        return silent

    cdef void tell_routes(self) noexcept:
        cdef uint32_t at, count = self.routes.write_diff(self.scratch), wanting = 0
        cdef Port port
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.wants_set:
                wanting += 1
            elif count:
                self.send_routes(port, ROUTE_DIFF, count)
        if wanting == 0:
            return
        count = self.routes.write_set(self.scratch)
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.wants_set:
                self.send_routes(port, ROUTE_SET, count)

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
        if place == NULL:
            raise MemoryError()
        if frame.shape[0] > SUPER_FRAME_MAX:
            raise ValueError(f"no interface hands over more than {SUPER_FRAME_MAX} bytes")
        self.now = max(self.now, now)
        read_offload(&header, offload)
        if frame.shape[0]:
            memcpy(place, &frame[0], <size_t>frame.shape[0])
        self.frame_from_tap(place, <uint32_t>frame.shape[0], &header)
        self.flush_touched()

    def pause(self, Port port not None, bint paused):
        """Whether the port's transport takes nothing now."""
        self.set_paused(port, paused)

    def flush(self, int64_t now):
        """Lets all ports write that may, by the upload limits too. If more waits for them, the alarm is set anew."""
        self.now = now
        self.alarm_at = INT64_MAX
        self.flush_touched()

    def set_alarm(self, alarm):
        """`alarm(time)` is called when `flush` is wanted at that time (us) or soon after, earlier than it said last."""
        self.alarm = alarm

    def set_limits(self, int64_t now, *, up=(0, 0, 2048), down=(0, 0, 20480)):
        """Bandwidth limits, each of total B/s, each port's B/s (0: none), and burst in B; may change at any time."""
        cdef uint32_t at
        cdef Port port
        self.shaper.set_limits(up[0], up[1], up[2], now)
        self.policer.set_limits(down[0], down[1], down[2], now)
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            self.shaper.open_port(port, now)
            self.policer.open_port(port, now)
            self.set_stopped(port, port.paused, False)
            self.touch(port)
        self.flush(now)

    def ports(self):
        """The attached ports, by index."""
        return [port for port in self.slots if port is not None]

    def dropped(self):
        """Lost frames by reason."""
        cdef int reason
        return {DROP_NAMES[reason]: self.drops[reason] for reason in range(DROPS)}


# HOT PATH
cdef inline bint is_full(SendQueue queue) noexcept:
    """Whether it may have no room for the next frame."""
    return not queue.has_room(HEADER_BYTES + BULK_BYTES + SUPER_FRAME_MAX)

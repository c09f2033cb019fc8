# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports of a switch: which links there are, what waits for each, and when it leaves."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport INT64_MAX, uint16_t

from cloudvpn._fast.consts cimport BULK_BYTES, HEADER_BYTES, WRITE_BYTES
from cloudvpn._fast.echo cimport EchoMeter
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX
from cloudvpn._fast.wire cimport store_header

from cloudvpn.errors import InternalError

DROP_NAMES = (
    "short", "long", "duplicate", "backward", "nowhere", "queue_full", "no_memory", "link_closed", "tap_refused",
    "bad_offload", "hops", "filtered", "broadcast_limit", "downlimit", "no_way", "egress_missed",
)
assert len(DROP_NAMES) == DROPS


cdef class Ports:
    """Ports 1 to `max_ports`. Times in microseconds, sizes in bytes."""

    def __cinit__(self, *args, **options):
        self.alarm_at = INT64_MAX
        self.tap_wanted = True

    def __dealloc__(self):
        PyMem_Free(self.free_slots)
        PyMem_Free(self.attached)
        PyMem_Free(self.up)
        PyMem_Free(self.touched)

    def __init__(self, RandomSource random not None, uint32_t max_ports, uint64_t max_waiting):
        self.random = random
        self.max_ports = max_ports
        self.max_waiting = max_waiting
        self.shaper = Shaper(max_ports)
        self.policer = Policer()
        self.slots = [None] * (max_ports + 1)
        self.free_slots = <uint32_t*>PyMem_Calloc(max_ports, sizeof(uint32_t))
        self.attached = <PyObject**>PyMem_Calloc(max_ports, sizeof(PyObject*))
        self.up = <PyObject**>PyMem_Calloc(max_ports, sizeof(PyObject*))
        self.touched = <PyObject**>PyMem_Calloc(max_ports, sizeof(PyObject*))
        if self.free_slots == NULL or self.attached == NULL or self.up == NULL or self.touched == NULL:
            raise MemoryError()

    # Ports come and go.

    cdef int take_in(self, Port port, SendQueue queue, int64_t now, uint32_t version) except -1:
        if port.index:
            raise InternalError("the port is attached already")
        if self.attached_count == self.max_ports:
            raise InternalError("no port is free")
        port.echo = EchoMeter(now, self.random.next32() & 0xFF)     # all that can fail
        if self.free_count:
            self.free_count -= 1
            port.index = self.free_slots[self.free_count]
        else:
            self.used_count += 1
            port.index = self.used_count
        self.slots[port.index] = port
        port.queue = queue
        queue.total = &self.waiting_total
        port.version = version
        port.failed = False
        port.unheard = 0
        port.doubted = False
        self.shaper.open_port(port, now)
        self.policer.open_port(port, now)
        port.place_attached = self.attached_count
        self.attached[self.attached_count] = <PyObject*>port
        self.attached_count += 1
        return 0

    cdef void let_go(self, Port port) noexcept:
        cdef uint32_t at
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
        self.count_lost(port)
        at = port.queue.clear()
        port.queue.total = &port.queue.own_total
        port.frames_dropped += at
        port.frames_out -= at
        self.frames_to_links -= at
        self.drops[DROP_LINK_CLOSED] += at
        self.slots[port.index] = None
        self.free_slots[self.free_count] = port.index
        self.free_count += 1
        port.index = 0
        self.watch_tap()

    cdef void bring_up(self, Port port) noexcept:
        port.up = True
        port.place_up = self.up_count
        self.up[self.up_count] = <PyObject*>port
        self.up_count += 1
        self.stopped_count += port.paused or port.clogged
        self.watch_tap()
        port.came_up()

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

    cdef void watch_tap(self) noexcept:
        """While every link is stopped no frame could be sent on: better left in the interface's queue than dropped."""
        cdef bint wanted = self.up_count == 0 or self.stopped_count < self.up_count
        if wanted != self.tap_wanted:
            self.tap_wanted = wanted
            if self.tap is not None:
                self.tap.set_wanted(wanted)

    # A packet waits.

    # HOT PATH
    cdef uint8_t* begin_packet(self, Port port, uint32_t size, uint32_t frames) noexcept:
        cdef uint8_t* at
        # The same question as that of admit(), which most frames need not ask.
        if (not port.queue.has_room(size) or self.waiting_total + size > self.max_waiting) and (
                not self.admit(port, size, frames)):
            return NULL
        at = port.queue.reserve_data(size, frames)
        if at == NULL:
            self.count_lost(port)
            port.frames_dropped += frames
            self.drop(DROP_NO_MEMORY, frames)
        return at

    # HOT PATH
    cdef bint admit(self, Port port, uint32_t size, uint32_t frames) noexcept:
        cdef SendQueue queue = port.queue
        if not queue.has_room(size) and not port.paused:
            self.flush_early(port)
        if queue.has_room(size) and (self.waiting_total + size <= self.max_waiting or self.make_room(port, size)):
            return True
        port.frames_dropped += frames
        self.drop(DROP_QUEUE_FULL, frames)
        return False

    cdef bint make_room(self, Port port, uint32_t size) noexcept:
        """All queues together are full: the longest one loses its oldest frames, or the new one if that is its own."""
        cdef uint32_t at, frames
        cdef uint64_t before
        cdef Port longest
        while self.waiting_total + size > self.max_waiting:
            longest = port
            for at in range(self.attached_count):
                if (<Port>self.attached[at]).queue.waiting_bytes > longest.queue.waiting_bytes:
                    longest = <Port>self.attached[at]
            if longest is port:
                return False
            before = self.waiting_total
            frames = longest.queue.drop_oldest()
            self.count_lost(longest)
            if self.waiting_total == before:        # no memory
                return False
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

    cdef uint8_t* reserve(self, Port port, PacketType kind, uint8_t special, uint32_t count, uint32_t size) noexcept:
        cdef uint8_t* at = port.queue.reserve_proto(HEADER_BYTES + size)
        if at == NULL:
            port.protocol_refused += 1
            return NULL
        store_header(at, kind, special, <uint16_t>count)
        port.packets_out += 1
        self.touch(port)
        return at + HEADER_BYTES

    # HOT PATH
    cdef void drop(self, uint32_t reason, uint32_t frames) noexcept:
        self.drops[reason] += frames

    cdef void count_lost(self, Port port) noexcept:
        cdef uint64_t lost = port.queue.lost
        port.queue.lost = 0
        port.frames_dropped += lost
        port.frames_out -= lost
        self.frames_to_links -= lost
        self.drops[DROP_NO_MEMORY] += lost

    # And leaves.

    # HOT PATH
    cdef void touch(self, Port port) noexcept:
        if not port.touched:
            port.touched = True
            self.touched[self.touched_count] = <PyObject*>port
            self.touched_count += 1

    cdef void flush_early(self, Port port) noexcept:
        """Before the batch is over, because much waits."""
        if not self.shaper.is_on:
            port.flush()
        elif self.shaper.join(port) or self.now >= self.shaper.wake_at:
            self.flush_shaped()
        elif not port.clogged and is_full(port.queue):
            self.set_stopped(port, port.paused, True)

    cdef void flush_touched(self) noexcept:
        cdef Port port
        cdef bint has_joined = False
        while self.touched_count:
            self.touched_count -= 1
            port = <Port>self.touched[self.touched_count]
            port.touched = False
            if not port.paused:
                port.flush()
                if port.queue.lost:
                    self.count_lost(port)
            if self.shaper.is_on:
                if self.shaper.join(port):
                    has_joined = True
                self.set_stopped(port, port.paused, is_full(port.queue))
        if has_joined or self.now >= self.shaper.wake_at:
            self.flush_shaped()
        self.wake_at(self.shaper.wake_at)

    cdef void wake_at(self, int64_t time) noexcept:
        if time < self.alarm_at and self.alarm is not None:
            try:
                self.alarm(time)
                self.alarm_at = time
            except MemoryError:     # it is asked again after the next batch
                pass                # nothing else: see `has_closed_chunk` of the queue

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

    # What Python sees.

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

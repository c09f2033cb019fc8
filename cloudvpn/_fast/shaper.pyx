# SPDX-License-Identifier: GPL-3.0-or-later
"""Upload limits: which of the frames that wait may leave now, with equal shares of the total for all that wait."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, uint8_t

from cloudvpn._fast.bucket cimport charge, is_open, is_shut, opens_at, set_bucket
from cloudvpn._fast.consts cimport BULK_FRAME
from cloudvpn._fast.segment cimport Cut, charged_bytes, plan_cut, plan_plain
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.wire cimport Packet, parse


cdef class Shaper:
    """One for all ports of a switch; it does not own them."""

    def __cinit__(self, uint32_t max_ports):
        self.wake_at = INT64_MAX
        self.waiting = <PyObject**>PyMem_Calloc(max_ports, sizeof(PyObject*))
        self.granted = <PyObject**>PyMem_Calloc(max_ports, sizeof(PyObject*))
        if self.waiting == NULL or self.granted == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.waiting)
        PyMem_Free(self.granted)

    cdef void set_limits(self, int64_t total, int64_t conn, int64_t burst, int64_t now) noexcept:
        self.is_on = total != 0 or conn != 0
        self.conn_rate = conn
        self.burst = burst
        set_bucket(&self.total, total, burst, now)

    cdef void open_port(self, Port port, int64_t now) noexcept:
        set_bucket(&port.up_limit, self.conn_rate, self.burst, now)
        port.queue.limited = self.is_on

    cdef bint join(self, Port port) noexcept:
        if port.place_waiting or port.queue.waiting_bytes <= port.queue.granted:
            return False
        if port.paused:     # for a moment, as transports are after a write: it may catch up
            self.total.wanted = port.up_limit.wanted = True
            return False
        if self.waiting_count == 0:
            port.deficit = 0
        else:       # the turns that it has missed have paid its debt
            port.deficit = min(<int64_t>0, port.deficit + QUANTUM * <int64_t>(self.rounds - port.left_round))
        self.waiting[self.waiting_count] = <PyObject*>port
        self.waiting_count += 1
        port.place_waiting = self.waiting_count
        return True

    cdef void leave(self, Port port) noexcept:
        cdef Port last
        if port.place_waiting:
            self.waiting_count -= 1
            last = <Port>self.waiting[self.waiting_count]
            self.waiting[port.place_waiting - 1] = <PyObject*>last
            last.place_waiting = port.place_waiting
            port.place_waiting = 0
            port.left_round = self.rounds

    cdef void grant(self, int64_t now) noexcept:
        cdef uint32_t shut = 0      # ports in a row that their own limit stops
        cdef Port port
        while shut < self.waiting_count and is_open(&self.total, now):
            if self.turn >= self.waiting_count:
                self.turn = 0
                self.rounds += 1
            port = <Port>self.waiting[self.turn]
            if port.paused or port.queue.waiting_bytes <= port.queue.granted:
                self.leave(port)    # another one has its place
                shut = 0
            elif not is_open(&port.up_limit, now):
                self.turn += 1
                shut += 1
            else:
                self.serve(port, now)
                shut = 0
        self.wake_at = self.next_time()

    cdef void serve(self, Port port, int64_t now) noexcept:
        if port.deficit <= 0:
            port.deficit += QUANTUM
        while port.deficit > 0 and port.queue.waiting_bytes > port.queue.granted and (
                is_open(&port.up_limit, now) and is_open(&self.total, now)):
            port.deficit -= self.grant_frame(port)
        if port.queue.waiting_bytes <= port.queue.granted:
            self.leave(port)
        elif port.deficit <= 0 or not is_shut(&self.total):     # else its turn goes on when the total is open again
            self.turn += 1

    cdef int64_t grant_frame(self, Port port) noexcept:
        cdef SendQueue queue = port.queue
        cdef size_t size = 0
        cdef const uint8_t* data = queue.look(&size)
        cdef Packet packet
        cdef Cut cut
        cdef int64_t cost
        parse(data, size, port.version, &packet)    # we have written it: it is whole
        if packet.kind == BULK_FRAME:
            plan_cut(&cut, packet.body, packet.size, &packet.offload)
        else:
            plan_plain(&cut, packet.body, packet.size)
        cost = charged_bytes(&cut)
        charge(&port.up_limit, cost)
        charge(&self.total, cost)
        queue.grant(packet.total, cut.pieces)
        if not port.has_grant:
            port.has_grant = True
            self.granted[self.granted_count] = <PyObject*>port
            self.granted_count += 1
        return cost

    cdef int64_t next_time(self) noexcept:
        cdef int64_t first = INT64_MAX
        cdef uint32_t at
        if self.waiting_count and is_shut(&self.total):
            return opens_at(&self.total)
        for at in range(self.waiting_count):
            first = min(first, opens_at(&(<Port>self.waiting[at]).up_limit))
        return first

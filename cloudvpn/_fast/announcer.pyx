# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table of version 2 owes each of its neighbours, and when it may leave."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cloudvpn._fast.consts cimport ENTRIES_MAX
from cloudvpn._fast.slotset cimport add_slot, has_slot, next_slot, remove_slot, set_words

cdef int64_t GATHER_US = 20_000             # one death in a clique of 32 costs six times the messages without


cdef class Announcer:

    cdef int make_lanes(self, uint32_t ports, uint32_t slots) except -1:
        self.due = NEVER
        self.lane_count = ports
        self.slot_count = slots
        self.lanes = <Lane*>calloc(ports, sizeof(Lane))
        self.open_ports = <uint32_t*>calloc(ports, sizeof(uint32_t))
        if self.lanes == NULL or self.open_ports == NULL:
            raise MemoryError()
        return 0

    def __dealloc__(self):
        cdef uint32_t port
        if self.lanes != NULL:
            for port in range(self.lane_count):
                free(self.lanes[port].owed.words)
        free(self.open_ports)
        free(self.lanes)

    cdef bint open_lane(self, uint32_t port) noexcept:
        cdef Lane* lane = &self.lanes[port]
        cdef uint32_t words = set_words(self.slot_count)
        lane.owed.words = <uint64_t*>calloc(3 * words, sizeof(uint64_t))
        if lane.owed.words == NULL:
            return False
        lane.urgent.words = lane.owed.words + words
        lane.asks.words = lane.urgent.words + words
        lane.place = self.open_count
        self.open_ports[self.open_count] = port
        self.open_count += 1
        return True

    cdef void close_lane(self, uint32_t port) noexcept:
        cdef Lane* lane = &self.lanes[port]
        self.open_count -= 1
        self.open_ports[lane.place] = self.open_ports[self.open_count]
        self.lanes[self.open_ports[lane.place]].place = lane.place
        self.ready -= lane.ready
        free(lane.owed.words)
        memset(lane, 0, sizeof(Lane))

    cdef bint is_open(self, uint32_t port) noexcept nogil:
        return self.lanes[port].owed.words != NULL

    cdef void owe(self, uint32_t slot, bint urgent, int64_t now) noexcept:
        cdef uint32_t at
        cdef Lane* lane
        for at in range(self.open_count):
            lane = &self.lanes[self.open_ports[at]]
            add_slot(&lane.owed, slot)
            if urgent:
                add_slot(&lane.urgent, slot)
            self.wake(lane, now)

    cdef void owe_now(self, uint32_t port, uint32_t slot, int64_t now) noexcept:
        cdef Lane* lane = &self.lanes[port]
        add_slot(&lane.owed, slot)
        lane.quiet_until = LONG_AGO
        self.wake(lane, now)

    cdef void owe_question(self, uint32_t port, uint32_t slot, int64_t now) noexcept:
        cdef Lane* lane = &self.lanes[port]
        add_slot(&lane.asks, slot)
        self.wake(lane, now)

    cdef bint is_owed(self, uint32_t slot) noexcept:
        cdef uint32_t at
        cdef const Lane* lane
        for at in range(self.open_count):
            lane = &self.lanes[self.open_ports[at]]
            if has_slot(&lane.owed, slot) or has_slot(&lane.asks, slot):
                return True
        return False

    cdef uint32_t count_owed(self, uint32_t port, int64_t now) noexcept:
        cdef Lane* lane = &self.lanes[port]
        lane.looked_at = now
        return min(lane.owed.count if now >= lane.quiet_until else lane.urgent.count, <uint32_t>ENTRIES_MAX)

    cdef uint32_t count_questions(self, uint32_t port, int64_t now) noexcept:
        cdef Lane* lane = &self.lanes[port]
        lane.looked_at = now
        return min(lane.asks.count, <uint32_t>ENTRIES_MAX)

    cdef uint32_t take_owed(self, uint32_t port) noexcept:
        cdef Lane* lane = &self.lanes[port]
        cdef bint urgent = lane.urgent.count > 0
        cdef uint32_t slot = next_slot(&lane.urgent if urgent else &lane.owed, 0, self.slot_count)
        remove_slot(&lane.urgent, slot)
        remove_slot(&lane.owed, slot)
        if not urgent and lane.owed.count == 0:
            lane.quiet_until = lane.looked_at + GATHER_US
        self.wake(lane, lane.looked_at)
        return slot

    cdef uint32_t take_question(self, uint32_t port) noexcept:
        cdef Lane* lane = &self.lanes[port]
        cdef uint32_t slot = next_slot(&lane.asks, 0, self.slot_count)
        remove_slot(&lane.asks, slot)
        self.wake(lane, lane.looked_at)
        return slot

    cdef void schedule(self, int64_t at) noexcept:
        self.due = min(self.due, at)

    cdef void wake_all(self, int64_t now) noexcept:
        cdef uint32_t at
        for at in range(self.open_count):
            self.wake(&self.lanes[self.open_ports[at]], now)

    cdef void wake(self, Lane* lane, int64_t now) noexcept:
        """Finds out whether something may leave now, and when the rest may."""
        cdef bint ready = lane.urgent.count or lane.asks.count or (lane.owed.count and now >= lane.quiet_until)
        self.ready += ready - lane.ready
        lane.ready = ready
        if lane.owed.count and now < lane.quiet_until:
            self.schedule(lane.quiet_until)

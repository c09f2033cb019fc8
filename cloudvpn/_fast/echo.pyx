# SPDX-License-Identifier: GPL-3.0-or-later
"""The ping of one link: echo requests out, matching replies back."""

from libc.stdint cimport uint64_t

from cloudvpn._fast.consts cimport PING_INFINITE


cdef class EchoMeter:
    """Measures round trips. A reply counts once, and only for a request that waits: no other is a sign of life."""

    def __cinit__(self, int64_t now, uint8_t first_id):
        self.last_reply = now
        self.due = now
        self.next_id = first_id

    cdef uint8_t request(self, int64_t now, int64_t interval) noexcept:
        cdef uint8_t echo_id = self.next_id
        self.next_id += 1
        self.ids[echo_id % ECHOES_WAITING] = echo_id
        self.sent[echo_id % ECHOES_WAITING] = now
        self.due = now + interval
        self.asked = min(self.asked + 1, <uint8_t>AVERAGED_FIRST)
        return echo_id

    cdef void restart(self, int64_t now) noexcept:
        self.asked = self.averaged = 0
        self.due = now

    cdef bint reply(self, uint8_t echo_id, int64_t now) noexcept:
        cdef int place = echo_id % ECHOES_WAITING
        cdef int64_t taken
        if self.sent[place] == 0 or self.ids[place] != echo_id:
            self.unasked += 1
            return False
        taken = now - self.sent[place]
        self.sent[place] = 0
        self.last_reply = now
        # 0 would delete a route on the wire.
        self.ping = <uint32_t>min(max(taken, <int64_t>1), <int64_t>PING_INFINITE)
        if self.averaged < AVERAGED_FIRST:
            self.averaged += 1
            self.smoothed = mean(self.smoothed, self.averaged - 1, self.ping, 1)
        else:
            self.smoothed = mean(self.smoothed, 84, self.ping, 16)
        return True

    # What Python sees, for tests.

    def ask(self, int64_t now, int64_t interval):
        """The id of a new request at `now` (us, not 0); the next is due after `interval`."""
        return self.request(now, interval)

    def answer(self, uint8_t echo_id, int64_t now):
        """Whether this reply was waited for."""
        return self.reply(echo_id, now)


cdef inline uint32_t mean(uint32_t old, uint32_t old_weight, uint32_t new, uint32_t new_weight) noexcept:
    """The weighted one, rounded to the nearest."""
    cdef uint32_t weight = old_weight + new_weight
    return <uint32_t>((<uint64_t>old * old_weight + <uint64_t>new * new_weight + weight // 2) // weight)

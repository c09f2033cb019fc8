# SPDX-License-Identifier: GPL-3.0-or-later
"""Download limits: which of the frames that come may pass; nothing waits here."""

from cloudvpn._fast.bucket cimport PER_TOKEN, charge, is_open, set_bucket


cdef class Policer:
    """One for all ports of a switch."""

    cdef void set_limits(self, int64_t total, int64_t conn, int64_t burst, int64_t now) noexcept:
        self.is_on = total != 0 or conn != 0
        self.conn_rate = conn
        self.burst = burst
        set_bucket(&self.total, total, burst, now)

    cdef void open_port(self, Port port, int64_t now) noexcept:
        set_bucket(&port.down_limit, self.conn_rate, self.burst, now)
        set_bucket(&port.down_share, self.total.rate, self.burst, now)
        port.down_spell = <uint64_t>-1

    # HOT PATH
    cdef bint admits(self, Port port, int64_t size, int64_t now) noexcept:
        if not is_open(&port.down_limit, now):
            return False
        if self.total.rate:
            if not is_open(&self.total, now):
                port.down_share.wanted = True
                return False
            if not self.is_within_share(port, now) and self.total.level <= -port.down_share.level:
                self.total.wanted = True
                return False
            charge(&port.down_share, size)
            port.down_share.level = max(port.down_share.level, -self.burst * PER_TOKEN // 2)
        charge(&port.down_limit, size)
        charge(&self.total, size)
        return True

    cdef bint is_within_share(self, Port port, int64_t now) noexcept:
        cdef int64_t shares
        self.count_active(port, now)
        shares = max(self.active, self.active_before)
        port.down_share.rate = max(self.total.rate // shares, <int64_t>1)
        port.down_share.burst = max(self.burst // shares, <int64_t>1)
        return is_open(&port.down_share, now)

    cdef void count_active(self, Port port, int64_t now) noexcept:
        cdef uint64_t spell = <uint64_t>now // SPELL_US
        if spell != self.spell:
            self.active_before = self.active if spell == self.spell + 1 else 0
            self.active = 0
            self.spell = spell
        if port.down_spell != spell:
            port.down_spell = spell
            self.active += 1

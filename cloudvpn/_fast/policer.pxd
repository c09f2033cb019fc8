# SPDX-License-Identifier: GPL-3.0-or-later
"""Download limits: which of the frames that come may pass; nothing waits here.

Of the total each link that sends has an equal share, metered by a bucket of its own. It may take more, and so use what
others leave, while the total's bucket holds more than the link is ahead of its share, which counts up to half the
burst: links that all send too much get the same, and a flood on one drives out no frames of those within their share.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from cloudvpn._fast.bucket cimport Bucket
from cloudvpn._fast.port cimport Port

cdef enum:
    SPELL_US = 100_000          # a link that has sent in this spell or in the one before has a share


@cython.final
cdef class Policer:
    cdef bint is_on                         # there is any limit
    cdef int64_t conn_rate, burst           # of each port, B/s and B
    cdef Bucket total
    cdef uint64_t spell
    cdef uint32_t active, active_before     # ports that have sent in this spell, in the one before

    cdef void set_limits(self, int64_t total, int64_t conn, int64_t burst, int64_t now) noexcept
    cdef void open_port(self, Port port, int64_t now) noexcept
    # Whether so many bytes of frames from the port may pass; they are charged then.
    cdef bint admits(self, Port port, int64_t size, int64_t now) noexcept

    cdef bint is_within_share(self, Port port, int64_t now) noexcept
    cdef void count_active(self, Port port, int64_t now) noexcept

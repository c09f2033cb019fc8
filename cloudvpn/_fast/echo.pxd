# SPDX-License-Identifier: GPL-3.0-or-later
"""The ping of one link: echo requests out, matching replies back."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    ECHOES_WAITING = 16     # requests whose replies may still come; a keepalive apart, more than conn_timeout
    AVERAGED_FIRST = 3


@cython.final
cdef class EchoMeter:
    cdef readonly uint32_t ping             # us, as measured last; 0: not yet
    cdef readonly uint32_t smoothed         # us, by RFC 9616: three averaged, then 0.84 old + 0.16 new; 0: not yet
    cdef readonly int64_t last_reply        # us, or when the link was made
    cdef readonly uint32_t unasked          # replies with an id that is not waited for
    cdef int64_t due                        # us, of the next request
    cdef int64_t sent[ECHOES_WAITING]       # us; 0: nothing waits here
    cdef uint8_t ids[ECHOES_WAITING]
    cdef uint8_t next_id
    cdef uint8_t asked                      # requests, up to three
    cdef uint8_t averaged                   # pings that `smoothed` was averaged from, up to three

    cdef uint8_t request(self, int64_t now, int64_t interval) noexcept
    # What was measured is not so any more: the next ones are averaged as the first ones were.
    cdef void restart(self, int64_t now) noexcept
    # Whether the reply was waited for; then `ping` and `smoothed` are new.
    cdef bint reply(self, uint8_t echo_id, int64_t now) noexcept

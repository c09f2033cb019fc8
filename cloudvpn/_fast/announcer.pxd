# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table of version 2 owes each of its neighbours, and when it may leave.

A table announces what stands in its slots. Here is only kept, as a bit for each slot and open port, of which slots a
neighbour has not heard yet: what is written is always the state of that moment, and a lane that is full loses nothing.
What is urgent and questions leave at once. Of the rest the first leaves at once; then 20 ms are gathered.

Memory: 3 bits for each slot and open port.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cloudvpn._fast.slotset cimport SlotSet

cdef extern from *:
    """
    #define CLOUDVPN_NEVER INT64_MAX
    #define CLOUDVPN_LONG_AGO (-((int64_t)1 << 62))
    """
    const int64_t NEVER "CLOUDVPN_NEVER"            # what is not going to happen
    const int64_t LONG_AGO "CLOUDVPN_LONG_AGO"      # what never happened; the time since then does not overflow

# Of one port.
cdef struct Lane:
    SlotSet owed                # slots that the neighbour has not been told of; `words` NULL: the port is not open
    SlotSet urgent              # those of them that do not wait
    SlotSet asks                # slots of which something is to be asked
    int64_t quiet_until         # the rest of `owed` is gathered until then
    int64_t looked_at           # when something was looked for last
    uint32_t place              # in the list of open ports
    bint ready                  # something may leave


cdef class Announcer:
    cdef Lane* lanes                        # by port
    cdef uint32_t* open_ports
    cdef uint32_t open_count
    cdef uint32_t lane_count, slot_count
    cdef readonly uint32_t ready            # ports on which something may leave now
    cdef readonly int64_t due               # when run() wants to be called; INT64_MAX: never

    # MemoryError, if there is no room for the lanes of ports 0 to `ports` - 1.
    cdef int make_lanes(self, uint32_t ports, uint32_t slots) except -1
    # False: there is no memory, the port stays closed.
    cdef bint open_lane(self, uint32_t port) noexcept
    cdef void close_lane(self, uint32_t port) noexcept
    cdef bint is_open(self, uint32_t port) noexcept nogil

    cdef void owe(self, uint32_t slot, bint urgent, int64_t now) noexcept
    # To this port alone, and with all that it is owed: at once.
    cdef void owe_now(self, uint32_t port, uint32_t slot, int64_t now) noexcept
    cdef void owe_question(self, uint32_t port, uint32_t slot, int64_t now) noexcept
    # Whether some neighbour still waits for this slot.
    cdef bint is_owed(self, uint32_t slot) noexcept

    # How many slots may leave now, ENTRIES_MAX at most; then each call takes one of them, the urgent first.
    cdef uint32_t count_owed(self, uint32_t port, int64_t now) noexcept
    cdef uint32_t count_questions(self, uint32_t port, int64_t now) noexcept
    cdef uint32_t take_owed(self, uint32_t port) noexcept
    cdef uint32_t take_question(self, uint32_t port) noexcept

    cdef void schedule(self, int64_t at) noexcept
    # The time has come at which something gathered may leave.
    cdef void wake_all(self, int64_t now) noexcept
    cdef void wake(self, Lane* lane, int64_t now) noexcept

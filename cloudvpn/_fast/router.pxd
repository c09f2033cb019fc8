# SPDX-License-Identifier: GPL-3.0-or-later
"""What the peers announce, what it means for a frame's way, and what the peers are told: docs/routing.md.

The only module that knows all tables of routing: `nodes` and `hosts` for links of version 2, `routes` for links of
version 1, and what they tell each other. It looks into protocol packets, never into frames.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.consts cimport PacketType
from cloudvpn._fast.hosts cimport HostTable
from cloudvpn._fast.nodes cimport NodeTable
from cloudvpn._fast.port cimport Port
from cloudvpn._fast.ports cimport Ports
from cloudvpn._fast.route cimport RouteTable
from cloudvpn._fast.wire cimport Packet

cdef enum:
    # Entries that a link may bring between two heartbeats. One that brings more is not read until the next: nothing
    # that was announced may be dropped, or a wrong state would stay.
    ENTRIES_PER_BEAT = 16384
    # A few entries may have many claims looked at anew: so many of these count as an entry.
    WALKED_PER_ENTRY = 32


cdef class Router(Ports):
    cdef readonly RouteTable routes
    cdef readonly NodeTable nodes
    cdef readonly HostTable hosts
    cdef readonly uint64_t own_mac          # 0: none
    cdef readonly uint64_t node_id          # who this node is in version 2; a new one at each start
    cdef int64_t keepalive, timeout         # us
    cdef readonly bint ignore_macs
    cdef readonly bint learns               # hosts behind the interface
    cdef uint32_t old_links                 # attached, of version 1
    cdef int64_t tell_again                 # us, nothing is told before: a lane was full
    cdef uint8_t* scratch                   # one route packet's body, or one frame of up to 64 KiB

    cdef readonly uint64_t echoes_unasked
    cdef readonly uint64_t links_doubted    # times that a link of version 2 was silent, so that others were preferred
    cdef readonly uint64_t links_slowed     # times that a link was not read for a while, for it brought too many ...
    cdef readonly uint32_t slowed_port      # ... and which it was last

    # A protocol packet of the port, of type 1, 2, 5, 6, 7, 10, 11 or 12.
    cdef void handle_protocol(self, Port port, const Packet* packet) noexcept
    cdef int greet(self, Port port, const Packet* packet) except -1
    cdef void hear_echo(self, Port port, uint8_t echo_id) noexcept
    cdef void charge_entries(self, Port port, uint64_t count) noexcept

    # Where a frame for this MAC goes: LOCAL_PORT, a link, or NO_PORT: nobody knows, it is flooded. `*egress` is the
    # node behind a link of version 2, else 0.
    cdef uint32_t way_of(self, uint64_t mac, uint64_t* egress) noexcept
    # The same for one that was sent to us because the host is here.
    cdef uint32_t way_from_egress(self, uint64_t mac) noexcept

    # What a table has learnt goes to the one that needs it: after every packet and timer.
    cdef void settle(self) noexcept
    # The same between version 1 and version 2, once a heartbeat.
    cdef void redistribute(self) noexcept

    cdef void announce_host(self, uint32_t host) noexcept

    cdef void tell(self) noexcept
    cdef bint tell_port(self, Port port) noexcept
    cdef void tell_routes(self) noexcept
    cdef void send_routes(self, Port port, PacketType kind, uint32_t count) noexcept
    cdef void ask_echo(self, Port port, int64_t now) noexcept
    # Whether nothing at all comes from the peer, although it was asked.
    cdef bint is_silent(self, Port port, int64_t now) noexcept
    cdef void doubt(self, Port port) noexcept
    cdef void run_timers(self) noexcept
    cdef bint has_room_again(self, Port port) noexcept
    cdef void set_ignoring(self, bint on) noexcept

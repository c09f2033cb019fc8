# SPDX-License-Identifier: GPL-3.0-or-later
"""One forwarding step: packets and frames in, packets and frames out, by the rules of docs/wire.md.

`_fast/ports` has the links and what waits for them, `_fast/router` the tables and what neighbours are told of them;
here is what happens to a frame. None of the three knows a socket or a clock: ports are objects with a queue and
`flush`, `now` is an argument in microseconds of a monotonic clock, randomness is handed in.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.consts cimport BULK_BYTES, HEADER_BYTES
from cloudvpn._fast.idcache cimport IdCache
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX
from cloudvpn._fast.port cimport Port
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.route cimport RouteTable
from cloudvpn._fast.router cimport Router
from cloudvpn._fast.segment cimport Cut, Offload
from cloudvpn._fast.wire cimport Packet

cdef enum:
    TAP_CHUNK_BYTES = HEADER_BYTES + BULK_BYTES + SUPER_FRAME_MAX


@cython.final
cdef class Switch(Router):
    cdef readonly IdCache ids
    cdef readonly uint32_t max_frame        # B

    # What the node was told to do with frames: docs/multipath.md, docs/bridging.md.
    cdef readonly uint32_t multi_ratio      # of multipath; 0: no multipath
    cdef readonly bint promisc, broadcast_send, broadcast_nocopy
    cdef readonly uint32_t broadcast_limit  # floodings a second for each link; 0: no limit
    cdef bint is_filtering
    cdef bint diverts                       # promisc or multipath: one test on the way of a frame
    cdef uint8_t allowed[8192]              # a bit for each EtherType that may be flooded, if filtering

    cdef PyObject* tap_chunk                # what the interface's next frame is read to, owned; NULL: none yet
    cdef uint8_t* tap_frame                 # its place in there
    cdef uint8_t* tap_reserve               # the same where no memory is left for one

    cdef readonly uint64_t frames_from_tap, frames_from_links, frames_to_tap
    cdef readonly uint64_t copies           # made by flooding, beyond the first

    # Handles every whole packet at the front of `data`, if the port is not slowed: how many bytes were used. Raises
    # PeerError.
    cdef Py_ssize_t feed(self, Port port, const uint8_t* data, size_t size, int64_t now) except -1
    # A frame of the interface; if it stands for many, it counts as them, here as everywhere.
    cdef void frame_from_tap(self, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept
    # Where the interface's next frame is best read to, for from there a large one needs no copy: SUPER_FRAME_MAX bytes,
    # with room before them for an offload header. The place stays until such a frame was sent.
    cdef uint8_t* room_for_frame(self) noexcept

    cdef void handle(self, Port port, const Packet* packet) noexcept
    cdef void frame_from_link(self, Port port, const Packet* packet) noexcept
    cdef void enter(self, Port port, const Packet* packet, const Cut* cut) noexcept
    cdef void leave(self, Port port, const Packet* packet, const Cut* cut) noexcept
    cdef void pass_on(
        self, Port port, const Packet* packet, const Cut* cut, uint32_t way, uint64_t egress) noexcept
    cdef void broadcast_from_link(self, Port port, const Packet* packet) noexcept
    cdef uint32_t new_id(self) noexcept
    cdef bint has_good_size(self, const Cut* cut) noexcept
    # Whether a frame of the link may be flooded; else it is dropped and counted.
    cdef bint may_flood(self, Port port, const uint8_t* frame, uint32_t frames) noexcept
    cdef bint is_allowed(self, const uint8_t* frame) noexcept
    cdef bint is_within_limit(self, Port port, uint32_t frames) noexcept
    cdef uint32_t divert(self, const Cut* cut, uint32_t way, uint64_t egress, uint32_t source) noexcept
    cdef uint32_t spread(self, uint64_t mac, uint32_t way, uint64_t egress, uint32_t source) noexcept
    cdef void overhear(self, const Cut* cut) noexcept
    cdef void flood(self, const uint8_t* frame, uint32_t size, uint32_t broadcast_id, uint32_t source) noexcept
    cdef void flood_pieces(self, const Cut* cut, uint32_t source) noexcept
    cdef uint32_t draw_port(self, uint32_t source) noexcept
    cdef void send(self, Port port, const Cut* cut, uint64_t egress, uint8_t hops, uint8_t flags) noexcept
    cdef void hand_over(self, Port port, const Cut* cut, uint64_t egress, uint8_t hops, uint8_t flags) noexcept
    cdef void send_pieces(self, Port port, const Cut* cut) noexcept
    cdef void send_broadcast(self, Port port, uint32_t broadcast_id, const uint8_t* frame, uint32_t size) noexcept
    cdef bint is_over_limit(self, Port port, const Cut* cut) noexcept
    cdef void deliver(self, const Cut* cut) noexcept
    cdef void flush_tap(self) noexcept

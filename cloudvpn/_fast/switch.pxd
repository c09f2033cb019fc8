# SPDX-License-Identifier: GPL-3.0-or-later
"""One forwarding step: packets and frames in, packets and frames out, by the rules of docs/wire.md.

The only module that knows all tables. It knows no socket and no clock: ports are objects with a queue and `flush`,
`now` is an argument in microseconds of a monotonic clock, randomness is handed in.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cloudvpn._fast.consts cimport BULK_BYTES, HEADER_BYTES, PacketType
from cloudvpn._fast.idcache cimport IdCache
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX
from cloudvpn._fast.policer cimport Policer
from cloudvpn._fast.port cimport Port, Tap
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.route cimport RouteTable
from cloudvpn._fast.segment cimport Cut, Offload
from cloudvpn._fast.shaper cimport Shaper
from cloudvpn._fast.wire cimport Packet

# Why a frame, or one copy of it, was lost. frames in + copies = frames to the TAP + frames to links + drops.
cdef enum:
    DROP_SHORT          # under 14 B
    DROP_LONG           # over conn-mtu
    DROP_DUPLICATE      # a broadcast that passed before
    DROP_BACKWARD       # its only way leads where it came from
    DROP_NOWHERE        # no other link, no interface
    DROP_QUEUE_FULL     # the link takes less than comes
    DROP_NO_MEMORY
    DROP_LINK_CLOSED    # waited for a link that closed
    DROP_TAP_REFUSED    # the interface is down or gone
    DROP_BAD_OFFLOAD    # a frame that does not fit its offload header
    DROP_HOPS           # was sent on too often
    DROP_FILTERED       # not in broadcast_filter_allow
    DROP_BROADCAST_LIMIT  # the link brings more broadcasts than broadcast_limit
    DROP_DOWNLIMIT      # came faster than the download limits allow
    DROPS

cdef enum:
    TAP_CHUNK_BYTES = HEADER_BYTES + BULK_BYTES + SUPER_FRAME_MAX


@cython.final
cdef class Switch:
    cdef readonly RouteTable routes
    cdef readonly IdCache ids
    cdef RandomSource random
    cdef Tap tap                            # None: headless
    cdef readonly uint64_t own_mac          # 0: none
    cdef readonly uint64_t node_id          # who this node is in version 2; a new one at each start
    cdef readonly uint32_t max_frame        # B
    cdef readonly uint32_t max_ports
    cdef int64_t keepalive, timeout         # us
    cdef int64_t now                        # us, when the batch at hand began
    cdef Shaper shaper
    cdef Policer policer
    cdef object alarm                       # called with the time (us) at which `flush` is wanted; None: nobody cares
    cdef int64_t alarm_at                   # us, what it was called with since the last `flush`; INT64_MAX: it was not

    # What the node was told to do with frames: docs/multipath.md, docs/bridging.md.
    cdef readonly uint32_t multi_ratio      # of multipath; 0: no multipath
    cdef readonly bint promisc, ignore_macs, broadcast_send, broadcast_nocopy
    cdef readonly uint32_t broadcast_limit  # floodings a second for each link; 0: no limit
    cdef bint is_filtering
    cdef bint diverts                       # promisc or multipath: one test on the way of a frame

    cdef list slots                         # Port or None, by index
    cdef list free_slots
    cdef PyObject** attached                # borrowed from `slots`, in any order
    cdef readonly uint32_t attached_count
    cdef PyObject** up                      # those that frames may go to
    cdef readonly uint32_t up_count
    cdef uint32_t stopped_count             # of those that are up: paused or clogged
    cdef PyObject** touched                 # those with something new in their queue
    cdef uint32_t touched_count
    cdef bint tap_wanted
    cdef readonly uint64_t waiting_total    # bytes of frames in all queues
    cdef uint64_t max_waiting
    cdef PyObject* tap_chunk                # what the interface's next frame is read to, owned; NULL: none yet
    cdef uint8_t* tap_frame                 # its place in there
    cdef uint8_t* scratch                   # one route packet's body, or one frame of up to 64 KiB

    cdef readonly uint64_t frames_from_tap, frames_from_links, frames_to_tap, frames_to_links
    cdef readonly uint64_t copies           # made by flooding, beyond the first
    cdef readonly uint64_t echoes_unasked
    cdef uint64_t drops[DROPS]
    cdef uint8_t allowed[8192]              # a bit for each EtherType that may be flooded, if filtering

    # Handles every whole packet at the front of `data`: how many bytes were used. Raises PeerError.
    cdef Py_ssize_t feed(self, Port port, const uint8_t* data, size_t size, int64_t now) except -1
    # A frame of the interface; if it stands for many, it counts as them, here as everywhere.
    cdef void frame_from_tap(self, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept
    # Where the interface's next frame is best read to, for from there a large one needs no copy: SUPER_FRAME_MAX bytes,
    # with room before them for an offload header. The place stays until such a frame was sent. NULL: no memory.
    cdef uint8_t* room_for_frame(self) noexcept
    # Lets every port with something new write: once after each batch.
    cdef void flush_touched(self) noexcept
    # Whether the port's transport takes nothing now. When it takes again: `flush_touched`, too.
    cdef void set_paused(self, Port port, bint paused) noexcept

    cdef void set_stopped(self, Port port, bint paused, bint clogged) noexcept
    cdef void handle(self, Port port, const Packet* packet, int64_t now) noexcept
    cdef void bring_up(self, Port port) noexcept
    cdef int greet(self, Port port, const Packet* packet) except -1
    cdef void frame_from_link(self, Port port, const Packet* packet) noexcept
    cdef void broadcast_from_link(self, Port port, const Packet* packet) noexcept
    cdef uint32_t new_id(self) noexcept
    cdef uint32_t way_of(self, const uint8_t* frame) noexcept
    cdef bint has_good_size(self, const Cut* cut) noexcept
    # Whether a frame of the link may be flooded; else it is dropped and counted.
    cdef bint may_flood(self, Port port, const uint8_t* frame, uint32_t frames) noexcept
    cdef bint is_allowed(self, const uint8_t* frame) noexcept
    cdef bint is_within_limit(self, Port port, uint32_t frames) noexcept
    cdef uint32_t divert(self, const Cut* cut, uint32_t way, uint32_t source) noexcept
    cdef void overhear(self, const Cut* cut) noexcept
    cdef void flood(self, const uint8_t* frame, uint32_t size, uint32_t broadcast_id, uint32_t source) noexcept
    cdef void flood_pieces(self, const Cut* cut, uint32_t source) noexcept
    cdef uint32_t draw_port(self, uint32_t source) noexcept
    cdef void send(self, Port port, const Cut* cut, uint8_t hops) noexcept
    cdef void hand_over(self, Port port, const Cut* cut, uint8_t hops) noexcept
    cdef void send_pieces(self, Port port, const Cut* cut) noexcept
    cdef void send_broadcast(self, Port port, uint32_t broadcast_id, const uint8_t* frame, uint32_t size) noexcept
    cdef bint make_room(self, Port port, uint32_t size) noexcept
    cdef bint admit(self, Port port, uint32_t size, uint32_t frames) noexcept
    cdef uint8_t* begin_packet(self, Port port, uint32_t size, uint32_t frames) noexcept
    cdef void end_packet(self, Port port, uint32_t frames) noexcept
    cdef void flush_early(self, Port port) noexcept
    cdef void flush_shaped(self) noexcept
    cdef bint is_over_limit(self, Port port, const Cut* cut) noexcept
    cdef void deliver(self, const Cut* cut) noexcept
    cdef void flush_tap(self) noexcept
    cdef void drop(self, uint32_t reason, uint32_t frames) noexcept
    cdef void touch(self, Port port) noexcept
    cdef bint send_bare(self, Port port, PacketType kind, uint8_t special) noexcept
    cdef void send_routes(self, Port port, PacketType kind, uint32_t count) noexcept
    cdef void ask_echo(self, Port port, int64_t now) noexcept
    cdef void tell_routes(self) noexcept
    cdef void watch_tap(self) noexcept

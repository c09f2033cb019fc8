# SPDX-License-Identifier: GPL-3.0-or-later
"""Joins plain frames that follow each other in one flow into super-frames, before they are written to the TAP.

The kernel's cost is one for each write, so 45 frames in one write cost it little more than one. Nothing is lost by it:
cut again, a super-frame gives the frames that went in (but for IPv4 ids where DF makes them meaningless, RFC 6864).
Frames are not copied: they must stay where they are until `finish`. Flows are held in FLOWS places; the oldest leaves
when one more comes. A frame that cannot be joined never overtakes one of its flow.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cloudvpn._fast.layers cimport HEADERS_MAX, Layers
from cloudvpn._fast.offload cimport OFFLOAD_BYTES, Offload
from posix.uio cimport iovec

cdef enum:
    FLOWS = 8
    FRAMES_JOINED_MAX = 64

cdef struct Flow:
    Layers layers
    const uint8_t* first
    uint32_t first_size
    uint32_t ports              # both, as they stand in the header
    uint32_t step               # payload of each frame but the last, bytes
    uint32_t size               # of the super-frame, bytes
    uint32_t next_seq           # TCP
    uint16_t last_id, id_step   # IPv4; the step shows at the second frame
    uint8_t last_flags          # TCP
    uint8_t turn                # where it stands in the order of coming
    bint verified               # the first frame's checksum is right, or still to be made
    Offload offload             # of the first frame
    uint32_t frames             # 0: the place is free
    uint8_t headers[OFFLOAD_BYTES + HEADERS_MAX]    # of the super-frame; written when it leaves
    iovec parts[1 + FRAMES_JOINED_MAX]              # the headers, then each frame's payload

cdef class Coalescer:
    cdef bint joins_udp         # the kernel takes UDP_L4 (Linux 6.2)
    cdef Flow flows[FLOWS]
    cdef uint8_t order[FLOWS]   # places in use, the oldest first
    cdef uint32_t held

    # Takes a frame of 14 bytes or more that stands for itself, perhaps without its checksum.
    cdef void add(self, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept
    # Lets all go that is held.
    cdef void finish(self) noexcept
    # Where it goes: an offload header and a frame, in parts, which stands for so many frames.
    cdef void emit(self, iovec* parts, int count, uint32_t size, uint32_t frames) noexcept

    # Takes a frame that nothing can be joined to: a super-frame, a fragment.
    cdef void add_alone(self, const uint8_t* frame, uint32_t size, const Offload* offload, uint32_t frames) noexcept

    cdef void pass_on(self, const uint8_t* frame, uint32_t size, const Offload* offload, uint32_t frames) noexcept
    cdef Flow* find(self, const uint8_t* frame, const Layers* layers) noexcept
    cdef void hold(self, const uint8_t* frame, uint32_t size, const Layers* layers, const Offload* offload) noexcept
    cdef void release(self, Flow* flow) noexcept

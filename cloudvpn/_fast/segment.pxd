# SPDX-License-Identifier: GPL-3.0-or-later
"""Super-frames: one Ethernet frame with an offload header that stands for many plain frames, and how it is cut.

The kernel hands them over and takes them back on a TAP with IFF_VNET_HDR. They are cut as Linux cuts them (GSO): the
same frames, byte for byte.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from cloudvpn._fast.layers cimport Layers
from cloudvpn._fast.offload cimport Offload

# A frame and how it is cut. Without GSO it is one piece.
cdef struct Cut:
    const uint8_t* frame
    uint32_t size
    Offload offload             # what the kernel may be told of it
    Layers layers               # unset for a frame without GSO
    uint32_t pieces
    uint32_t headers, step      # bytes before, and of, each piece's payload

# A frame that is what it seems.
cdef inline void plan_plain(Cut* cut, const uint8_t* frame, uint32_t size) noexcept nogil:
    cut.frame = frame
    cut.size = cut.step = size
    cut.pieces = 1
    cut.headers = 0
    memset(&cut.offload, 0, sizeof(Offload))

# The size of a piece as a frame; the first is never smaller than another.
cdef inline uint32_t piece_size(const Cut* cut, uint32_t index) noexcept nogil:
    return cut.headers + min(cut.step, cut.size - cut.headers - index * cut.step)

# The bytes of the plain frames that it stands for.
cdef inline int64_t charged_bytes(const Cut* cut) noexcept nogil:
    return cut.size + <int64_t>cut.headers * (cut.pieces - 1)

# Whether the offload header fits the frame; else it is one piece. Any bytes give one answer. After it `cut.offload` has
# nothing that a peer made up: it may go to the kernel.
cdef bint plan_cut(Cut* cut, const uint8_t* frame, uint32_t size, const Offload* offload) noexcept nogil
# Writes a piece as a plain frame with complete checksums.
cdef void write_piece(const Cut* cut, uint32_t index, uint8_t* to) noexcept nogil
# From Python's (flags, gso_type, hdr_len, gso_size, csum_start, csum_offset).
cdef int read_offload(Offload* offload, object fields) except -1
cdef object describe_offload(const Offload* offload)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The offload header: how a frame stands for many, or lacks its checksum. Source: linux/virtio_net.h, docs/wire.md."""

from libc.stdint cimport uint8_t, uint16_t

from cloudvpn._fast.endian cimport load16, store16

cdef enum:
    OFFLOAD_BYTES = 10          # struct virtio_net_hdr without num_buffers; on the wire the same fields, big endian
    # What IPv4 and IPv6 can carry, an Ethernet header and two VLAN tags, rounded up.
    SUPER_FRAME_MAX = 65600

cdef enum:                      # Offload.flags
    NEEDS_CHECKSUM = 1          # the field holds the sum of the pseudo-header only
    DATA_VALID = 2              # the kernel has looked at the checksum: nothing to do

cdef enum:                      # Offload.gso_type
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP = 5                 # UDP_L4: each piece is a datagram
    GSO_ECN = 0x80              # with TCP: CWR is set, on the first piece only

# The kernel's struct virtio_net_hdr, in the byte order of the machine.
cdef struct Offload:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size           # payload of each piece but the last, bytes
    uint16_t csum_start         # offset in the frame
    uint16_t csum_offset        # from csum_start


cdef inline void load_offload(Offload* offload, const uint8_t* at) noexcept nogil:
    offload.flags = at[0]
    offload.gso_type = at[1]
    offload.hdr_len = load16(at + 2)
    offload.gso_size = load16(at + 4)
    offload.csum_start = load16(at + 6)
    offload.csum_offset = load16(at + 8)


cdef inline void store_offload(uint8_t* at, const Offload* offload) noexcept nogil:
    at[0] = offload.flags
    at[1] = offload.gso_type
    store16(at + 2, offload.hdr_len)
    store16(at + 4, offload.gso_size)
    store16(at + 6, offload.csum_start)
    store16(at + 8, offload.csum_offset)


cdef inline bint is_plain(const Offload* offload) noexcept nogil:
    """Whether nothing is left to do: the frame is what it seems."""
    return offload.gso_type == GSO_NONE and not offload.flags & NEEDS_CHECKSUM

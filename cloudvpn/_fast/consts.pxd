# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers of the wire and of the tables; source: the 2009 document and docs/wire.md."""

from libc.stdint cimport uint32_t

cdef enum PacketType:
    ROUTE_SET = 1
    ROUTE_DIFF = 2
    FRAME = 3
    BROADCAST = 4
    ECHO_REQUEST = 5
    ECHO_REPLY = 6
    ROUTE_REQUEST = 7
    # Version 2
    BULK_FRAME = 8
    HELLO = 9

cdef enum:
    HEADER_BYTES = 4
    BROADCAST_ID_BYTES = 4
    BULK_BYTES = 20             # egress[8] hops[1] flags[1] offload header[10], before the frame of type 8
    HELLO_BYTES = 12            # node id[8] features[4]
    HOPS_MAX = 64               # hop limit of a new frame
    FRAME_HEADER_BYTES = 14     # to[6] from[6] type[2]: the least Ethernet frame on the wire
    ROUTE_BYTES = 12            # mac[6] dist[2] ping[4]
    ROUTES_MAX = 65535          # entries that the u16 of a header can count
    # A route set of 65,535 entries: the largest packet, and so the least that an input buffer must be able to hold.
    PACKET_BYTES_MAX = HEADER_BYTES + ROUTES_MAX * ROUTE_BYTES

    # What leaves in one write: uvloop's TLS moves 64 KiB nine times as fast as single frames, and more than that
    # would stand in the kernel, where nothing can be dropped or measured.
    WRITE_BYTES = 65536

    # A frame of the interface that is larger goes into the write that it was read to, smaller ones share one.
    LARGE_FRAME_BYTES = 16384

    LOCAL_PORT = 0              # the TAP; links are ports 1..max_connections
    NO_PORT = 0xFFFFFFFF
    NONE = 0xFFFFFFFF           # end of a chain in the tables

cdef enum:
    OWN_PING_US = 1             # what a node announces for its own MAC: 0 would delete it
    HOP_COST_US = 2             # added for each hop, so that a longer way never looks equal

# A ping of this is infinite: no sum of pings goes past it, and no route that reached it is used.
cdef enum:
    PING_INFINITE = 0xFFFFFFFF

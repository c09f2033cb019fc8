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
    NODE_ROUTES = 10
    SEQ_REQUESTS = 11
    HOSTS = 12

cdef enum:
    HEADER_BYTES = 4
    BROADCAST_ID_BYTES = 4
    BULK_BYTES = 20             # egress[8] hops[1] flags[1] offload header[10], before the frame of type 8
    HELLO_BYTES = 12            # node id[8] features[4]
    HOPS_MAX = 64               # hop limit of a new frame
    MAC_BYTES = 6
    FRAME_HEADER_BYTES = 14     # to[6] from[6] type[2]: the least Ethernet frame on the wire
    ROUTE_BYTES = 12            # mac[6] dist[2] ping[4]
    ROUTES_MAX = 65535          # entries that the u16 of a header can count
    NODE_ROUTE_BYTES = 24       # node[8] seq[4] label[4] metric[4] hops[1] 0[3]
    SEQ_REQUEST_BYTES = 16      # node[8] seq[4] hop limit[1] 0[3]
    CLAIM_BYTES = 24            # mac[6] flags[1] hops[1] owner[8] seq[4] ping[4]
    ENTRIES_MAX = 8192          # of these three, in a packet that we send: 192 KiB
    # A route set of 65,535 entries: the largest packet, and so the least that an input buffer must be able to hold.
    PACKET_BYTES_MAX = HEADER_BYTES + ROUTES_MAX * ROUTE_BYTES

    # What leaves in one write: uvloop's TLS moves 64 KiB nine times as fast as single frames, and more than that
    # would stand in the kernel, where nothing can be dropped or measured.
    WRITE_BYTES = 65536

    # A frame of the interface that is larger goes into the write that it was read to, smaller ones share one.
    LARGE_FRAME_BYTES = 16384

    LOCAL_PORT = 0              # the TAP; links are ports 1..max_connections
    NO_PORT = 0xFFFFFFFF
    FOREIGN_PORT = 0xFFFFFFFE   # `hosts`: known from a link of version 1 here, `routes` has the port
    NONE = 0xFFFFFFFF           # end of a chain in the tables

cdef enum:
    OWN_PING_US = 1             # what a node announces for its own MAC: 0 would delete it
    HOP_COST_US = 2             # added for each hop, so that a longer way never looks equal

# The hold rule of version 1: _fast/route.
cdef enum:
    GAIN_US = 2000              # another way of as many hops must be better by this, and by a tenth
    HOLD_BEATS = 20             # heartbeats without a way, until any will do
    REST_BEATS = 10             # heartbeats after which the figures of a way are the minima

# Flags of a type 8.
cdef enum:
    FRAME_SENT_ON = 1           # its egress has it no more and has sent it on, once

# Flags of a claim.
cdef enum:
    CLAIM_PRESENT = 1           # without: a withdrawal
    CLAIM_FIXED = 2             # the TAP's own MAC
    CLAIM_FOREIGN = 4           # known from a link of version 1; neither: learned, a host behind the TAP

# A ping of this is infinite: no sum of pings goes past it, and no route that reached it is used.
cdef enum:
    PING_INFINITE = 0xFFFFFFFF

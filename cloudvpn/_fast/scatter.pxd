# SPDX-License-Identifier: GPL-3.0-or-later
"""Multipath: frames to one MAC are scattered over the links that offer it, the good ways first, at random.

The ways are sorted by announced ping + ping of the link. Those below `ratio` x the first are the first group, the rest
is grouped in the same way. Of a group of N a number 0..N is drawn: below N it names the link, N goes on to the next
group; in the last group it is 0..N-1. Nothing is kept between frames: with three links the choice costs 20 ns, with
more it grows with their number. More than WAYS_MAX ways: the nearest ones are used.

No frame can circle. In version 2 because labels say which ways are good (`_fast/nodes`); in version 1 as far as all
nodes agree on the distances: each step leads to a node that is nearer, in hops, than this one; only where a frame
enters the mesh the first step may also lead to one that is as far and has the smaller ping. A neighbour whose own way
leads through this node is one hop farther, so it is never among them; nor is one that the hold rule excludes.
"""

from libc.stdint cimport uint32_t, uint64_t

from cloudvpn._fast.nodes cimport NodeTable
from cloudvpn._fast.random cimport RandomSource
from cloudvpn._fast.route cimport RouteTable

# The port for a frame to this MAC, or to this node of version 2, that came from the port `source`. LOCAL_PORT, NO_PORT
# and the mesh port as the table says it; `source` itself if there is no other way.
cdef uint32_t scatter(
    RouteTable routes, RandomSource random, uint64_t mac, uint32_t source, uint32_t ratio) noexcept
cdef uint32_t scatter_nodes(
    NodeTable nodes, RandomSource random, uint64_t node, uint32_t source, uint32_t ratio) noexcept

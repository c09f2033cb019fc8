# SPDX-License-Identifier: GPL-3.0-or-later
"""Multipath: frames to one MAC are scattered over the links that offer it, the good ways first, at random."""

from cloudvpn._fast.consts cimport HOP_COST_US, LOCAL_PORT, NO_PORT, NONE, PING_INFINITE
from cloudvpn._fast.route cimport Destination, Offer
from cloudvpn._fast.ways cimport WAYS_MAX, Way, add_way


# HOT PATH
cdef uint32_t scatter(
        RouteTable routes, RandomSource random, uint64_t mac, uint32_t source, uint32_t ratio) noexcept:
    cdef Way ways[WAYS_MAX]
    cdef uint32_t at = routes.find_destination(mac), count
    cdef Destination* destination
    if at == NONE:
        return NO_PORT
    destination = &routes.destinations[at]
    if destination.port == LOCAL_PORT or destination.port == NO_PORT or destination.port == routes.mesh_port:
        return destination.port
    count = sort_ways(routes, destination, source, ways)
    # Without any the best one must be the source: else it would be among them.
    return ways[draw(ways, count, ratio, random)].port if count else source


# HOT PATH
cdef uint32_t scatter_nodes(
        NodeTable nodes, RandomSource random, uint64_t node, uint32_t source, uint32_t ratio) noexcept:
    cdef Way ways[WAYS_MAX]
    cdef uint32_t count = nodes.sort_ways(node, source, ways)
    return ways[draw(ways, count, ratio, random)].port if count else source


cdef uint32_t sort_ways(RouteTable routes, const Destination* destination, uint32_t source, Way* ways) noexcept:
    """The ways that a frame of this source may take, the nearest first; how many."""
    cdef uint32_t at = destination.offers, count = 0, cost
    cdef uint32_t farthest = destination.dist if source == LOCAL_PORT else destination.dist - 1
    cdef const Offer* offer
    while at != NONE:
        offer = &routes.offers[at]
        at = offer.older
        cost = routes.cost(offer)
        if (offer.port == source or offer.port == routes.mesh_port or offer.dist > farthest or cost == PING_INFINITE
                or not routes.is_feasible(destination, offer)):
            continue
        # Without what each hop costs, the same for all: the ratio is one of pings.
        count = add_way(ways, count, offer.port, cost - HOP_COST_US)
    return count


cdef uint32_t draw(const Way* ways, uint32_t count, uint32_t ratio, RandomSource random) noexcept:
    """The place of one of the sorted ways."""
    cdef uint32_t first = 0, size, drawn
    cdef uint64_t below
    while True:
        below = <uint64_t>ratio * ways[first].ping
        size = 1
        while first + size < count and ways[first + size].ping < below:
            size += 1
        drawn = random.below(size if first + size == count else size + 1)
        if drawn < size:
            return first + drawn
        first += size


# What Python sees, for tests.

def choose(RouteTable routes not None, RandomSource random not None, uint64_t mac, uint32_t source, uint32_t ratio):
    """The port that a frame to this MAC takes, or None."""
    cdef uint32_t port = scatter(routes, random, mac, source, ratio)
    return None if port == NO_PORT else port

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the peers announce, what it means for a frame's way, and what the peers are told: docs/routing.md."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from cloudvpn._fast.consts cimport (
    CLAIM_BYTES, ECHO_REPLY, ECHO_REQUEST, ENTRIES_MAX, FOREIGN_PORT, HEADER_BYTES, HELLO, HELLO_BYTES, HOP_COST_US,
    HOSTS, LOCAL_PORT, NO_PORT, NODE_ROUTE_BYTES, NODE_ROUTES, NONE, PING_INFINITE, ROUTE_BYTES, ROUTE_DIFF,
    ROUTE_REQUEST, ROUTE_SET, ROUTES_MAX, SEQ_REQUEST_BYTES, SEQ_REQUESTS, PacketType,
)
from cloudvpn._fast.claims cimport FOREIGN, HostRoute
from cloudvpn._fast.echo cimport AVERAGED_FIRST
from cloudvpn._fast.endian cimport is_group
from cloudvpn._fast.offers cimport Node
from cloudvpn._fast.port cimport Tap
from cloudvpn._fast.route cimport Destination
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.wire cimport store_hello

from cloudvpn.errors import PeerError

# A full set is asked for at most this often, and given: a peer that flaps at its limit must not make us ask each
# heartbeat, nor one that asks all the time make us tell everything each heartbeat.
cdef int64_t SET_REQUEST_INTERVAL = 1_000_000
cdef int64_t EARLY_ECHO = 200_000
# A link of version 2 from which not a byte came for so long, and for two pings more, although it was asked three times,
# is doubted. A busy link is not: whatever comes counts, not only the reply that may be behind much else.
cdef int64_t DOUBT_AFTER = 3_000_000
cdef int64_t ASK_AGAIN = 1_000_000
cdef enum:
    DOUBT_REQUESTS = 3
    DOUBT_COST = 10_000_000     # us more than it costs: if there is another way, it is nearer
# How soon a protocol packet whose lane was full is tried again.
cdef int64_t LANE_RETRY = 10_000


cdef class Router(Ports):
    """The routing of one node. Times in microseconds, sizes in bytes."""

    def __dealloc__(self):
        PyMem_Free(self.scratch)

    def __init__(
        self, RouteTable routes not None, random, *, keepalive, timeout, max_waiting, max_nodes, max_link_claims,
    ):
        super().__init__(random, routes.max_ports, max_waiting)
        self.routes = routes
        self.keepalive = keepalive
        self.timeout = timeout
        self.node_id = (<uint64_t>self.random.next32() << 32) | self.random.next32() | 1      # 0 means nobody
        self.nodes = NodeTable(
            self.node_id, self.max_ports, random, max_nodes=max_nodes, report_above=routes.report_above)
        # Its owners are reachable nodes, and as many that only claims speak of.
        self.hosts = HostTable(
            self.node_id, self.max_ports, random, max_link_claims=max_link_claims,
            max_claims=min(4 * max_link_claims, 1 << 24), max_owners=2 * (max_nodes + 1),
            report_above=routes.report_above)
        self.scratch = <uint8_t*>PyMem_Malloc(ROUTES_MAX * ROUTE_BYTES)
        if self.scratch == NULL:
            raise MemoryError()

    # Links come and go.

    def attach(self, Port port not None, SendQueue queue not None, int64_t now, uint32_t version=1):
        """Takes the port in and greets its peer: hello (version 2), echo request, and all that there is to announce.

        MemoryError: it is to be detached.
        """
        cdef uint8_t* at
        self.take_in(port, queue, now, version)
        self.now = now
        port.asked_set = port.given_set = now - SET_REQUEST_INTERVAL
        if version == 2:
            self.hosts.attach(port.index)
            if not self.nodes.attach(port.index, now):
                raise MemoryError()
            at = self.reserve(port, HELLO, 0, HELLO_BYTES, HELLO_BYTES)
            if at == NULL:
                raise MemoryError()
            store_hello(at - HEADER_BYTES, self.node_id)
            self.ask_echo(port, now)
        else:
            self.old_links += 1
            if self.old_links == 1:
                self.hosts.track(True)
                self.routes.track(True)
            self.routes.attach(port.index)
            self.ask_echo(port, now)
            self.redistribute()
            if self.old_links == 1:             # what is told at heartbeats was told to nobody yet
                self.routes.begin_changes()
                self.routes.end_changes()
            self.send_routes(port, ROUTE_SET, self.routes.write_set(port.index, self.scratch))
        self.flush_touched()

    def detach(self, Port port not None, int64_t now=0):
        """Lets the port go: its routes are gone at once, what waited for it is dropped and counted."""
        cdef uint32_t index = port.index
        if not index:
            return
        self.now = max(self.now, now)
        self.let_go(port)
        if port.version == 2:
            self.nodes.detach(index, self.now)
            self.hosts.detach(index, self.now)
            self.settle()
        else:
            self.routes.detach(index)
            self.redistribute()
            self.old_links -= 1
            if self.old_links == 0:
                self.hosts.track(False)
                self.routes.track(False)
                self.routes.forget(LOCAL_PORT, False)
                self.routes.forget(self.routes.mesh_port, False)
        self.flush_touched()

    def set_tap(self, Tap tap, uint64_t mac):
        """The local interface and its MAC; `None, 0` takes it away. The neighbours hear of it at once."""
        if mac != self.own_mac:
            if self.own_mac:
                self.hosts.set_fixed(self.own_mac, False, self.now)
            if mac:
                self.hosts.set_fixed(mac, True, self.now)
            self.own_mac = mac
            self.redistribute()
            self.tell_routes()
            self.flush_touched()
        self.tap = tap
        if tap is not None:
            tap.set_wanted(self.tap_wanted)

    def set_learning(self, bint on, int64_t mac_age=300_000_000, uint32_t max_local_macs=4096):
        """Whether the hosts behind the interface are learned from the frames that it hands over; what was is kept."""
        self.learns = on
        self.hosts.set_learning(on, mac_age, max_local_macs, self.now)
        self.flush_touched()

    cdef void set_ignoring(self, bint on) noexcept:
        """ignore_macs: off again is as if routes had been refused, so that the next beat asks for all."""
        cdef uint32_t at
        if on == self.ignore_macs:
            return
        self.ignore_macs = on
        for at in range(self.attached_count):
            if (<Port>self.attached[at]).version == 1:
                self.routes.forget((<Port>self.attached[at]).index, not on)
        self.redistribute()
        self.tell_routes()
        self.flush_touched()

    # A packet comes.

    cdef int greet(self, Port port, const Packet* packet) except -1:
        """The hello comes first, and once."""
        if packet.kind != HELLO:
            raise PeerError(f"packet of type {packet.kind} before its hello")
        if port.peer_id or packet.node == 0:
            raise PeerError("a second hello" if port.peer_id else "a hello without a name")
        port.peer_id = packet.node
        if port.peer_id == self.node_id:
            port.is_ourselves = True
            raise PeerError("it is this node itself")
        return 0

    cdef void handle_protocol(self, Port port, const Packet* packet) noexcept:
        cdef uint32_t count
        cdef uint64_t walked = self.hosts.walked
        if packet.kind == ECHO_REQUEST:
            self.reserve(port, ECHO_REPLY, packet.special, 0, 0)
        elif packet.kind == ECHO_REPLY:
            self.hear_echo(port, packet.special)
        elif packet.kind == ROUTE_REQUEST:
            port.asks_set = True        # answered at a beat, however often it is asked
        elif packet.kind <= ROUTE_DIFF:
            count = packet.size // ROUTE_BYTES
            self.charge_entries(port, count)
            if self.ignore_macs:
                pass
            elif packet.kind == ROUTE_SET:
                self.routes.apply_set(port.index, packet.body, count)
            else:
                self.routes.apply_diff(port.index, packet.body, count)
        elif packet.kind == NODE_ROUTES:
            count = packet.size // NODE_ROUTE_BYTES
            self.nodes.apply(port.index, packet.body, count, self.now)
            self.settle()
            self.charge_entries(port, count + (self.hosts.walked - walked) // WALKED_PER_ENTRY)
        elif packet.kind == SEQ_REQUESTS:
            count = packet.size // SEQ_REQUEST_BYTES
            self.charge_entries(port, count)
            self.nodes.hear_requests(port.index, packet.body, count, self.now)
        elif packet.kind == HOSTS:
            count = packet.size // CLAIM_BYTES
            self.hosts.apply(port.index, packet.body, count, self.now)
            self.charge_entries(port, count + (self.hosts.walked - walked) // WALKED_PER_ENTRY)

    cdef void hear_echo(self, Port port, uint8_t echo_id) noexcept:
        cdef uint32_t cost
        if not port.echo.reply(echo_id, self.now):
            self.echoes_unasked += 1
            return
        if port.doubted:        # late, perhaps: a heartbeat measures anew
            return
        cost = port.echo.smoothed
        if port.version == 1:
            self.routes.set_link_ping(port.index, cost)
        else:
            self.nodes.set_cost(port.index, cost + min(<uint32_t>HOP_COST_US, PING_INFINITE - cost), self.now)
            self.settle()

    cdef void charge_entries(self, Port port, uint64_t count) noexcept:
        port.entries += count
        if port.entries > ENTRIES_PER_BEAT and not port.slowed:
            port.slowed = True
            self.links_slowed += 1
            self.slowed_port = port.index
            port.set_reading(False)

    # Where a frame goes.

    # HOT PATH
    cdef uint32_t way_of(self, uint64_t mac, uint64_t* egress) noexcept:
        cdef uint32_t way
        egress[0] = 0
        if is_group(mac):
            return NO_PORT
        if self.ignore_macs:
            return LOCAL_PORT if mac == self.own_mac else NO_PORT
        way = self.hosts.lookup(mac, egress)
        if way < FOREIGN_PORT:
            return way
        if self.old_links:
            way = self.routes.lookup(mac)
        if way == FOREIGN_PORT or way == self.routes.mesh_port:
            way = self.hosts.redirect(mac, egress)
        elif way != NO_PORT:
            egress[0] = 0
        return way

    # HOT PATH
    cdef uint32_t way_from_egress(self, uint64_t mac) noexcept:
        cdef uint32_t way
        if self.hosts.is_ours(mac):
            return LOCAL_PORT
        way = self.routes.lookup(mac) if self.old_links else NO_PORT
        return NO_PORT if way == self.routes.mesh_port else way

    # What the tables tell each other.

    cdef void settle(self) noexcept:
        cdef uint32_t at = self.nodes.take_changed()
        cdef Node* node
        while at != NONE:
            node = &self.nodes.nodes[at]
            self.hosts.set_owner(node.id, node.port, node.metric, node.hops, self.now)
            at = self.nodes.take_changed()

    cdef void redistribute(self) noexcept:
        """Version 1 hears of the hosts of version 2 and the other way round, never of its own."""
        cdef uint32_t at
        cdef const Destination* destination
        if self.old_links == 0:
            return
        if self.routes.take_overflow(self.routes.mesh_port):    # some found no place, and now there is one
            self.hosts.track(False)
            self.hosts.track(True)
        at = self.hosts.take_changed()
        while at != NONE:
            self.announce_host(at)
            at = self.hosts.take_changed()
        at = self.routes.take_changed()
        while at != NONE:
            destination = &self.routes.destinations[at]
            if destination.port - 1 < self.max_ports:       # a link, not LOCAL_PORT, the mesh or NO_PORT
                self.hosts.set_foreign(
                    destination.mac, destination.ping, <uint8_t>min(destination.dist, 255), self.now)
            else:
                self.hosts.set_foreign(destination.mac, 0, 0, self.now)
            at = self.routes.take_changed()

    cdef void announce_host(self, uint32_t host) noexcept:
        """What version 1 hears of a host of version 2: it is ours, or this far away behind another node."""
        cdef HostRoute route = self.hosts.route_of(host)
        if route.port == LOCAL_PORT:
            self.routes.set_mesh_route(route.mac, 0, 0, False, 0, 0)
            self.routes.add_local(route.mac)
            return
        self.routes.remove_local(route.mac)
        route = self.hosts.route_beyond(host)
        self.routes.set_mesh_route(
            route.mac, route.ping, <uint16_t>route.hops, route.kind > FOREIGN, route.claimed_ping, route.claimed_hops)

    # What the peers are told.

    # HOT PATH
    cdef void flush_touched(self) noexcept:
        if self.nodes.due <= self.now or self.hosts.due <= self.now:
            self.run_timers()
        if (self.nodes.ready or self.hosts.ready) and self.now >= self.tell_again:
            self.tell()
        Ports.flush_touched(self)
        self.wake_at(min(self.nodes.due, self.hosts.due))

    cdef void run_timers(self) noexcept:
        self.nodes.run(self.now)
        self.settle()
        self.hosts.run(self.now)

    cdef void tell(self) noexcept:
        """All news of version 2. A lane that is full hears of it later, with the state of that time."""
        cdef uint32_t at
        cdef Port port
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.version == 2 and not self.tell_port(port):
                self.tell_again = self.now + LANE_RETRY
                self.wake_at(self.tell_again)

    cdef bint tell_port(self, Port port) noexcept:
        cdef uint32_t count = self.nodes.updates_for(port.index, self.now)
        cdef uint8_t* at
        while count:
            at = self.reserve(port, NODE_ROUTES, 0, count, count * NODE_ROUTE_BYTES)
            if at == NULL:
                return False
            self.nodes.write_updates(port.index, at, count)
            port.told += count
            count = self.nodes.updates_for(port.index, self.now)
        count = self.nodes.requests_for(port.index, self.now)
        while count:
            at = self.reserve(port, SEQ_REQUESTS, 0, count, count * SEQ_REQUEST_BYTES)
            if at == NULL:
                return False
            self.nodes.write_requests(port.index, at, count)
            count = self.nodes.requests_for(port.index, self.now)
        # What would make the neighbour slow this link waits for the heartbeat: frames are behind it.
        while port.told + ENTRIES_MAX <= ENTRIES_PER_BEAT:
            count = self.hosts.updates_for(port.index, self.now)
            if count == 0:
                break
            at = self.reserve(port, HOSTS, 0, count, count * CLAIM_BYTES)
            if at == NULL:
                return False
            self.hosts.write_updates(port.index, at, count)
            port.told += count
        return True

    cdef void ask_echo(self, Port port, int64_t now) noexcept:
        """The first three follow each other soon: what a link costs is their mean, and the first one finds both sides
        busy with its beginning. A peer of 2009 is asked at its pace."""
        cdef int64_t interval = self.keepalive
        if port.version == 2 and port.echo.asked < AVERAGED_FIRST - 1:
            interval = min(interval, EARLY_ECHO)
        self.reserve(port, ECHO_REQUEST, port.echo.request(now, interval), 0, 0)
        if port.unheard == 0:
            port.unheard_since = now
        port.unheard += 1
        port.asked_at = now

    cdef bint is_silent(self, Port port, int64_t now) noexcept:
        # What is counted are requests: if it was this node that did not run, there were none.
        return port.unheard >= DOUBT_REQUESTS and not port.slowed and (
            now - port.unheard_since >= DOUBT_AFTER + 2 * <int64_t>port.echo.smoothed)

    cdef void doubt(self, Port port) noexcept:
        port.doubted = True
        self.links_doubted += 1
        self.nodes.doubt(
            port.index, DOUBT_COST + min(port.echo.smoothed, <uint32_t>PING_INFINITE - DOUBT_COST), self.now)
        self.settle()

    cdef void send_routes(self, Port port, PacketType kind, uint32_t count) noexcept:
        """The routes in `scratch`. A link whose lane is full gets a full set later: nothing told is ever missing."""
        cdef uint8_t* at = self.reserve(port, kind, 0, count, count * ROUTE_BYTES)
        port.wants_set = at == NULL
        if at != NULL:
            memcpy(at, self.scratch, count * ROUTE_BYTES)

    cdef void tell_routes(self) noexcept:
        """Version 1: what has changed since the last heartbeat."""
        cdef uint32_t at, count
        cdef Port port
        if self.old_links == 0:
            return
        self.routes.begin_changes()
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.version == 1 and not port.wants_set:
                count = self.routes.write_diff(port.index, self.scratch)
                if count:
                    self.send_routes(port, ROUTE_DIFF, count)
        self.routes.end_changes()
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.version == 1 and port.wants_set:
                self.send_routes(port, ROUTE_SET, self.routes.write_set(port.index, self.scratch))

    # The heartbeat.

    def beat(self, int64_t now, uint32_t wall=0):
        """Once per heartbeat: echoes that are due, changes to tell. Returns the ports to close, silent or failed.

        `wall` is the time of day, seconds since 1970, for claims that must outlive a partition.
        """
        cdef uint32_t at
        cdef Port port
        self.now = now
        self.hosts.wall = wall
        silent = []
        for at in range(self.attached_count):
            port = <Port>self.attached[at]
            if port.doubted and port.echo.last_reply >= port.unheard_since:
                port.doubted = False
                port.echo.restart(now)
            if port.version == 2 and port.echo.smoothed and not port.doubted and self.is_silent(port, now):
                self.doubt(port)
            if now >= port.echo.due or (
                    port.version == 2 and 0 < port.unheard < DOUBT_REQUESTS and now - port.asked_at >= ASK_AGAIN):
                self.ask_echo(port, now)
            if port.failed or now - port.echo.last_reply >= self.timeout:
                silent.append(port)
            if not port.queue.is_empty():       # a write that found no memory is tried again
                self.touch(port)
            port.told = 0
            port.entries -= min(port.entries, <uint64_t>ENTRIES_PER_BEAT)
            if port.slowed and port.entries <= ENTRIES_PER_BEAT:
                port.slowed = False
                port.set_reading(True)
            if now - port.asked_set >= SET_REQUEST_INTERVAL and self.has_room_again(port):
                port.asked_set = now
                self.reserve(port, ROUTE_REQUEST, 0, 0, 0)
            if port.asks_set and now - port.given_set >= SET_REQUEST_INTERVAL:
                port.asks_set = False
                port.wants_set = True
                port.given_set = now
            if port.version == 2 and port.wants_set:
                port.wants_set = False
                self.nodes.owe_all(port.index)
                self.hosts.owe_all(port.index)
        self.redistribute()
        self.tell_routes()
        self.flush_touched()
        return silent

    cdef bint has_room_again(self, Port port) noexcept:
        """Whether something of this port was refused for which there is a place now, and one to ask for it."""
        if port.queue.waiting_proto >= port.queue.max_proto:
            return False
        if port.version == 1:
            return self.routes.take_overflow(port.index)
        return self.nodes.take_overflow(port.index, self.now) or self.hosts.take_overflow(port.index)

    # What Python sees.

    def way_to(self, uint64_t mac):
        """The port that a frame for this MAC leaves by, 0: the interface; None: it is flooded."""
        cdef uint64_t egress
        cdef uint32_t way = self.way_of(mac, &egress)
        return None if way == NO_PORT else way

    @property
    def known_count(self):
        """How many MACs the tables know; one that both know counts twice."""
        return self.hosts.host_slots.count + self.routes.destination_count

    def routing_counters(self):
        """What happened in version 2 since the start, for the status."""
        nodes, hosts = self.nodes, self.hosts
        return {
            "changes": {"offer": nodes.changes_offer, "lost_link": nodes.changes_lost_link, "cost": nodes.changes_cost},
            "announcements": {
                "unfeasible": nodes.unfeasible, "refused": nodes.refused, "refused_full": nodes.refused_full,
                "requests_sent": nodes.requests_sent, "requests_passed": nodes.requests_passed,
                "requests_answered": nodes.requests_answered, "own_heard": nodes.own_heard,
            },
            "hosts": {
                "moves": hosts.moves, "moves_held": hosts.moves_held, "withdrawn": hosts.withdrawn_count,
                "conflicts": hosts.conflicts, "disputed": hosts.disputed, "learned_full": hosts.learned_full,
                "refused_bad": hosts.refused_bad, "refused_link": hosts.refused_link,
                "refused_full": hosts.refused_full, "refused_owners": hosts.refused_owners,
            },
        }

    def known(self):
        """Where all known MACs are, as `(mac, port, ping us, hops, kind, owner)`, port 0 being local.

        `kind` is `fixed`, `learned`, `foreign`, or `old` (known from a link of version 1 here: the owner is 0).
        """
        known = {mac: (mac, port, ping, dist, "old", 0)
                 for mac, port, ping, dist in self.routes.best() if port <= self.max_ports}
        for mac, owner, port, ping, hops, kind, _ in self.hosts.best():
            if port != <uint32_t>FOREIGN_PORT and (not self.ignore_macs or port == LOCAL_PORT):
                known[mac] = (mac, port, ping, hops, kind, owner)
        return [known[mac] for mac in sorted(known)]

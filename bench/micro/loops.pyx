# SPDX-License-Identifier: GPL-3.0-or-later
"""Loops around the parts that are measured, in C: one call from Python is one round of many operations.

A loop does `ops` operations in `run` and gives how many of them had the wanted effect. `prepare` comes before each
round and is not measured.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.uio cimport iovec

from cloudvpn._fast.checksum cimport add_bytes, fold
from cloudvpn._fast.coalesce cimport Coalescer
from cloudvpn._fast.consts cimport (
    ENTRIES_MAX, NO_PORT, NODE_ROUTE_BYTES, ROUTE_BYTES, ROUTES_MAX, WRITE_BYTES,
)
from cloudvpn._fast.consts cimport CLAIM_BYTES, ENTRIES_MAX, NO_PORT, ROUTE_BYTES, ROUTES_MAX, WRITE_BYTES
from cloudvpn._fast.hosts cimport HostTable
from cloudvpn._fast.idcache cimport IdCache
from cloudvpn._fast.layers cimport packet_end
from cloudvpn._fast.nodes cimport NodeTable
from cloudvpn._fast.port cimport Port
from cloudvpn._fast.route cimport RouteTable
from cloudvpn._fast.offload cimport SUPER_FRAME_MAX, Offload
from cloudvpn._fast.segment cimport Cut, piece_size, plan_cut, read_offload, write_piece
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.switch cimport Switch
from cloudvpn._fast.tapport cimport BATCH_FRAMES
from cloudvpn._fast.wire cimport PACKET_WHOLE, Packet, parse

cdef uint8_t told[ROUTES_MAX * ROUTE_BYTES]
cdef uint8_t node_routes[ENTRIES_MAX * NODE_ROUTE_BYTES]


cdef uint8_t told_claims[ENTRIES_MAX * CLAIM_BYTES]


cdef class Loop:
    cdef readonly uint32_t ops
    cdef readonly uint32_t op_bytes     # that one operation reads all of; 0: it does not

    def prepare(self):
        pass

    def run(self):
        raise NotImplementedError


cdef class Parse(Loop):
    """The packets of a stream, `rounds` times."""
    cdef bytes stream
    cdef uint32_t rounds, version

    def __init__(self, bytes stream not None, uint32_t packets, uint32_t rounds, uint32_t version):
        self.stream = stream
        self.rounds = rounds
        self.version = version
        self.ops = packets * rounds

    def run(self):
        cdef const uint8_t* data = self.stream
        cdef size_t at, size = <size_t>len(self.stream)
        cdef uint32_t done = 0, _
        cdef Packet packet
        for _ in range(self.rounds):
            at = 0
            while parse(data + at, size - at, self.version, &packet) == PACKET_WHOLE:
                at += packet.total
                done += 1
        return done


cdef class Checksum(Loop):
    """Checksums of areas of `size` bytes, one after the other, each of which must be right; `rounds` times."""
    cdef bytes areas
    cdef uint32_t rounds

    def __init__(self, bytes areas not None, uint32_t size, uint32_t rounds):
        self.areas = areas
        self.rounds = rounds
        self.op_bytes = size
        self.ops = <uint32_t>len(areas) // size * rounds

    def run(self):
        cdef const uint8_t* data = self.areas
        cdef uint32_t at, count = self.ops // self.rounds, done = 0, _
        for _ in range(self.rounds):
            for at in range(count):
                done += fold(add_bytes(0, data + at * self.op_bytes, self.op_bytes)) == 0xFFFF
        return done


cdef class CutFrame(Loop):
    """The plain frames of one super-frame, written one behind the other, as into a send queue; `rounds` times."""
    cdef bytes frame
    cdef Offload offload
    cdef uint32_t rounds
    cdef uint8_t target[2 * SUPER_FRAME_MAX]

    def __init__(self, bytes frame not None, offload, uint32_t rounds):
        cdef Cut cut
        read_offload(&self.offload, offload)
        if not plan_cut(&cut, frame, <uint32_t>len(frame), &self.offload) or (
                cut.pieces * piece_size(&cut, 0) > sizeof(self.target)):
            raise ValueError("no such super-frame")
        self.frame = frame
        self.rounds = rounds
        self.op_bytes = piece_size(&cut, 0)
        self.ops = cut.pieces * rounds

    def run(self):
        cdef const uint8_t* frame = self.frame
        cdef uint32_t size = <uint32_t>len(self.frame), done = 0, index, _
        cdef uint8_t* to
        cdef Cut cut
        for _ in range(self.rounds):
            plan_cut(&cut, frame, size, &self.offload)
            to = self.target
            for index in range(cut.pieces):
                write_piece(&cut, index, to)
                done += packet_end(to, &cut.layers) == piece_size(&cut, index)
                to += piece_size(&cut, index)
        return done


cdef class Joiner(Coalescer):
    """Counts the frames that leave joined."""
    cdef uint32_t joined

    def __init__(self):
        self.joins_udp = True

    cdef void emit(self, iovec* parts, int count, uint32_t size, uint32_t frames) noexcept:
        if frames > 1:
            self.joined += frames


cdef class Coalesce(Loop):
    """A batch of plain frames of equal size, all of which can be joined, `rounds` times."""
    cdef Joiner joiner
    cdef bytes frames
    cdef uint32_t rounds

    def __init__(self, bytes frames not None, uint32_t size, uint32_t rounds):
        self.joiner = Joiner()
        self.frames = frames
        self.rounds = rounds
        self.op_bytes = size
        self.ops = <uint32_t>len(frames) // size * rounds

    def run(self):
        cdef const uint8_t* data = self.frames
        cdef uint32_t at, count = self.ops // self.rounds, _
        cdef Offload plain
        memset(&plain, 0, sizeof(Offload))
        self.joiner.joined = 0
        for _ in range(self.rounds):
            for at in range(count):
                self.joiner.add(data + at * self.op_bytes, self.op_bytes, &plain)
            self.joiner.finish()
        return self.joiner.joined


cdef class Lookup(Loop):
    """MACs looked up, `rounds` times, that all are known or all are not."""
    cdef RouteTable routes
    cdef const uint64_t[::1] macs
    cdef bint known
    cdef uint32_t rounds

    def __init__(self, RouteTable routes not None, const uint64_t[::1] macs not None, bint known, uint32_t rounds):
        self.routes = routes
        self.macs = macs
        self.known = known
        self.rounds = rounds
        self.ops = <uint32_t>macs.shape[0] * rounds

    def run(self):
        cdef const uint64_t* macs = &self.macs[0]
        cdef uint32_t at, count = <uint32_t>self.macs.shape[0], done = 0, _
        for _ in range(self.rounds):
            for at in range(count):
                done += (self.routes.lookup(macs[at]) != NO_PORT) == self.known
        return done


cdef class RouteUpdate(Loop):
    """The entries `after`, as a set or a diff, where `before` was, and what the neighbours are told of it."""
    cdef RouteTable routes
    cdef uint32_t port
    cdef bytes before, after
    cdef bint whole

    def __init__(self, RouteTable routes not None, uint32_t port, bytes before not None, bytes after not None, *,
                 bint whole=False):
        self.routes = routes
        self.port = port
        self.before = before
        self.after = after
        self.whole = whole
        self.ops = <uint32_t>(len(after) // ROUTE_BYTES)

    def prepare(self):
        self.routes.apply(self.port, self.before, self.whole)
        self.tell()

    def run(self):
        if self.whole:
            self.routes.apply_set(self.port, self.after, self.ops)
        else:
            self.routes.apply_diff(self.port, self.after, self.ops)
        return self.tell()

    cdef uint32_t tell(self) noexcept:
        """To a neighbour that leads nowhere."""
        cdef uint32_t count
        self.routes.begin_changes()
        count = self.routes.write_diff(NO_PORT, told)
        self.routes.end_changes()
        return count


cdef class NodeLookup(Loop):
    """Nodes looked up, `rounds` times, that all are known."""
    cdef NodeTable nodes
    cdef const uint64_t[::1] ids
    cdef uint32_t rounds

    def __init__(self, NodeTable nodes not None, const uint64_t[::1] ids not None, uint32_t rounds):
        self.nodes = nodes
        self.ids = ids
        self.rounds = rounds
        self.ops = <uint32_t>ids.shape[0] * rounds

    def run(self):
        cdef const uint64_t* ids = &self.ids[0]
        cdef uint32_t at, count = <uint32_t>self.ids.shape[0], done = 0, _
        for _ in range(self.rounds):
            for at in range(count):
                done += self.nodes.port_of(ids[at]) != NO_PORT
        return done


cdef class NodeUpdate(Loop):
    """The entries `after` where `before` was, each a change of next hop, and what each neighbour is told of it."""
    cdef NodeTable nodes
    cdef bytes before, after
    cdef int64_t now

    def __init__(self, NodeTable nodes not None, bytes before not None, bytes after not None):
        self.nodes = nodes
        self.before = before
        self.after = after
        self.ops = <uint32_t>(len(after) // NODE_ROUTE_BYTES)

    cdef uint32_t take(self, const uint8_t* entries) noexcept:
        cdef uint32_t port, count = 0, told
        self.nodes.apply(1, entries, self.ops, self.now)
        while self.nodes.take_changed() != NO_PORT:
            count += 1
        self.now += 1_000_000       # worse news has waited by then
        self.nodes.run(self.now)
        for port in range(1, self.nodes.max_ports + 1):
            told = self.nodes.updates_for(port, self.now)
            self.nodes.write_updates(port, node_routes, told)
            count = min(count, told)
        return count

    def prepare(self):
        self.take(self.before)

    def run(self):
        return self.take(self.after)


cdef class HostLookup(Loop):
    """MACs looked up, `rounds` times, that all are behind other nodes."""
    cdef HostTable hosts
    cdef const uint64_t[::1] macs
    cdef uint32_t rounds

    def __init__(self, HostTable hosts not None, const uint64_t[::1] macs not None, uint32_t rounds):
        self.hosts = hosts
        self.macs = macs
        self.rounds = rounds
        self.ops = <uint32_t>macs.shape[0] * rounds

    def run(self):
        cdef const uint64_t* macs = &self.macs[0]
        cdef uint32_t at, count = <uint32_t>self.macs.shape[0], done = 0, _
        cdef uint64_t egress = 0
        for _ in range(self.rounds):
            for at in range(count):
                done += self.hosts.lookup(macs[at], &egress) != NO_PORT and egress != 0
        return done


cdef class HostLearn(HostLookup):
    """Frames of hosts that are known behind the TAP, 100 ns apart."""
    cdef int64_t now

    def run(self):
        cdef const uint64_t* macs = &self.macs[0]
        cdef uint32_t at, count = <uint32_t>self.macs.shape[0], _
        for _ in range(self.rounds):
            for at in range(count):
                self.hosts.learn(macs[at], self.now + at // 10)
            self.now += count // 10
        return self.hosts.learned_count * self.rounds


cdef class HostChange(Loop):
    """A newer version of each claim from port 1, each time of the other owner, and what port 2 is told of it."""
    cdef HostTable hosts
    cdef list packets
    cdef int64_t now

    def __init__(self, HostTable hosts not None, list packets not None):
        self.hosts = hosts
        self.packets = packets
        self.ops = <uint32_t>(len(packets[0]) // CLAIM_BYTES)

    def prepare(self):
        self.packets.append(self.packets.pop(0))

    def run(self):
        cdef bytes packet = self.packets[0]
        cdef uint32_t count
        self.now += 1_000_000
        self.hosts.apply(1, packet, self.ops, self.now)
        count = self.hosts.updates_for(2, self.now)
        self.hosts.write_updates(2, told_claims, count)
        return count


cdef class NewIds(Loop):
    """Ids that were never seen, put into a full cache; an odd factor makes each one differ from all before."""
    cdef IdCache ids
    cdef uint32_t drawn

    def __init__(self, IdCache ids not None, uint32_t ops):
        self.ids = ids
        self.ops = ops
        while self.drawn < 2 * ids.capacity:
            ids.seen(self.draw())

    cdef uint32_t draw(self) noexcept:
        self.drawn += 1
        return self.drawn * <uint32_t>0x9E3779B1

    def run(self):
        cdef uint32_t done = 0, _
        for _ in range(self.ops):
            done += not self.ids.seen(self.draw())
        return done


cdef class SeenIds(NewIds):
    """Ids that the cache remembers, scattered over all of it."""

    def run(self):
        cdef uint32_t done = 0, op, age
        for op in range(self.ops):
            age = op * <uint32_t>40503 % self.ids.capacity
            done += self.ids.seen((self.drawn - age) * <uint32_t>0x9E3779B1)
        return done


cdef class Queue(Loop):
    """Data packets of `size` bytes copied into a send queue and taken out 64 KiB at a time."""
    cdef SendQueue queue
    cdef bytes packet

    def __init__(self, SendQueue queue not None, bytes packet not None, uint32_t ops):
        self.queue = queue
        self.packet = packet
        self.ops = ops

    def run(self):
        cdef const uint8_t* packet = self.packet
        cdef uint32_t size = <uint32_t>len(self.packet), done = 0, frames, _
        for _ in range(self.ops):
            if self.queue.has_room(size):
                memcpy(self.queue.reserve_data(size, 1), packet, size)
            if self.queue.waiting_bytes >= WRITE_BYTES:
                while self.queue.take(&frames) is not None:
                    done += frames
        while self.queue.take(&frames) is not None:
            done += frames
        return done


cdef class Drain(Port):
    """A port whose transport takes everything at no cost and counts the frames."""
    cdef uint32_t taken

    cpdef flush(self):
        cdef uint32_t frames
        while self.queue.take(&frames) is not None:
            self.taken += frames


cdef class Step(Loop):
    """A batch of frames sent through the switch, `rounds` times; each must arrive at every one of `drains`."""
    cdef Switch switch
    cdef bytes stream
    cdef list drains
    cdef uint32_t rounds

    def __init__(self, Switch switch not None, bytes stream not None, list drains not None, uint32_t frames,
                 uint32_t rounds):
        self.switch = switch
        self.stream = stream
        self.drains = drains
        self.rounds = rounds
        self.ops = frames * rounds

    def prepare(self):
        cdef Drain drain
        for drain in self.drains:
            drain.taken = 0

    def run(self):
        cdef uint32_t done = self.ops, _
        cdef Drain drain
        for _ in range(self.rounds):
            self.batch()
        for drain in self.drains:
            done = min(done, drain.taken)
        return done

    cdef void batch(self) except *:
        raise NotImplementedError


cdef class LinkStep(Step):
    """The stream is what one read from the socket of `source` gave."""
    cdef readonly Drain source

    def __init__(self, Switch switch, bytes stream, list drains, uint32_t frames, uint32_t rounds,
                 Drain source not None):
        Step.__init__(self, switch, stream, drains, frames, rounds)
        self.source = source

    cdef void batch(self) except *:
        self.switch.feed(self.source, self.stream, <size_t>len(self.stream), 1)
        self.switch.flush_touched()


cdef class TapStep(Step):
    """The stream is frames of equal size; links write after as many as the TAP gives at one wake-up."""

    cdef void batch(self) except *:
        cdef const uint8_t* data = self.stream
        cdef uint32_t at, count = self.ops // self.rounds, size = <uint32_t>len(self.stream) // count
        cdef Offload plain
        memset(&plain, 0, sizeof(Offload))
        for at in range(count):
            self.switch.frame_from_tap(data + at * size, size, &plain)
            if at % BATCH_FRAMES == BATCH_FRAMES - 1:
                self.switch.flush_touched()
        self.switch.flush_touched()

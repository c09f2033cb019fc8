# SPDX-License-Identifier: GPL-3.0-or-later
"""Anything a peer may send: it is taken, or this link alone is at fault, and all others go on."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import bare_packet, broadcast_packet, read_packets, route_packet
from cloudvpn.errors import PeerError
from tests.sim.mesh import EVERYBODY, SECOND, RecordingTap, frame

SIZES = [*range(65), 1514, 8192, 65535]
KNOWN = range(1, 8)
UNKNOWN = [kind for kind in range(256) if kind not in KNOWN]
OWN, PEER = 0x02AA00000001, 0x02BB00000001
ECHO = bare_packet(5, 0x5A)
ANSWER = (6, 0x5A)


class Sink(Port):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def flush(self) -> None:
        while (data := self.take()) is not None:
            self.written += data


class Victim:
    """A switch with an interface, two good peers, and a bad one that is exchanged for each case."""

    def __init__(self) -> None:
        self.now, self.sent = SECOND, 0
        chance = RandomSource(1)
        self.switch = Switch(RouteTable(8, 256, chance), IdCache(64, chance), chance)
        self.switch.set_tap(RecordingTap(), OWN)
        self.left, self.right = self.attach(), self.attach()
        self.switch.receive(self.left, route_packet(1, [(PEER, 0, 1)]), self.now)
        self.switch.receive(self.right, ECHO, self.now)

    def attach(self) -> Sink:
        port = Sink()
        self.switch.attach(port, SendQueue(max_data=8), self.now)
        echo_id = next(special for kind, special in read_packets(port.written)[0] if kind == 5)
        self.now += 1
        self.switch.receive(port, bare_packet(6, echo_id), self.now)
        port.written = b""
        return port

    def assert_others_go_on(self) -> None:
        self.sent += 1
        sent = frame(EVERYBODY, PEER, self.sent.to_bytes(4, "big"))
        self.left.written = self.right.written = b""
        self.switch.receive(self.left, broadcast_packet(self.sent, sent) + ECHO, self.now)
        assert (4, self.sent, sent) in read_packets(self.right.written)[0]
        assert ANSWER in read_packets(self.left.written)[0]
        assert self.switch.routes.port_to(OWN) == 0
        assert self.switch.routes.offered_by(self.left.index) == [(PEER, 0, 1)]
        switch = self.switch
        came = switch.frames_from_tap + switch.frames_from_links + switch.copies
        assert came == switch.frames_to_tap + switch.frames_to_links + sum(switch.dropped().values())


def body(kind: int, size: int) -> bytes:
    """Random, but with the own MAC, a group and the best pings among it."""
    chance = random.Random(kind << 16 | size)
    if kind <= 2:
        macs = [OWN, PEER, EVERYBODY, *(chance.getrandbits(48) for _ in range(300))]
        pings = [0, 1, 0xFFFFFFFE, 0xFFFFFFFF, chance.getrandbits(32)]
        rows = [(chance.choice(macs), chance.choice((0, 1, 63, 64)), chance.choice(pings)) for _ in range(size)]
        return route_packet(kind, rows)[4:]
    return chance.randbytes({3: size, 4: size + 4}.get(kind, 0))


def cuts(total: int, borders: list[int], seed: int) -> list[int]:
    """Every place up to 1,600 bytes; over it both ends, the packet borders and 1,000 places at random."""
    if total <= 1600:
        return list(range(total + 1))
    places = {*range(64), *range(total - 63, total + 1), *random.Random(seed).sample(range(total), 1000)}
    places |= {border + near for border in borders for near in (-1, 0, 1) if 0 <= border + near <= total}
    return sorted(places)


def feed(victim: Victim, port: Sink, stream: bytes, cut: int) -> None:
    """The stream in two pieces; what the first left unread comes again with the second."""
    whole = memoryview(stream)
    used = victim.switch.receive(port, whole[:cut], victim.now)
    used += victim.switch.receive(port, whole[used:], victim.now)
    while port.slowed:  # what is left is read at a heartbeat
        victim.switch.beat(victim.now)
        used += victim.switch.receive(port, whole[used:], victim.now)
    assert used == len(stream)


def assert_taken(victim: Victim, kind: int, size: int, completed: int) -> None:
    """At each cut the right bytes are used and nothing else happens; each `completed`-th stream is sent to its end."""
    packet = struct.pack(">BBH", kind, size & 255, size) + body(kind, size)
    stream = packet + ECHO
    port = victim.attach()
    whole = memoryview(stream)
    for number, cut in enumerate(cuts(len(stream), [4, len(packet)], size)):
        packets = port.packets_in
        if cut < len(packet):  # a part alone has no effect, so that the next cut may begin anew
            assert victim.switch.receive(port, whole[:cut], victim.now) == 0
            assert port.packets_in == packets
        if number % completed == 0 or cut >= len(packet):
            port.written = b""
            feed(victim, port, stream, cut)
            assert port.packets_in == packets + 2
            assert ANSWER in read_packets(port.written)[0]
    assert port.index and port.up
    victim.switch.detach(port)
    victim.assert_others_go_on()


@pytest.fixture
def victim() -> Iterator[Victim]:
    made = Victim()
    yield made
    assert made.switch.attached_count == made.switch.up_count == 2


@pytest.mark.parametrize("kind", KNOWN)
def test_every_known_type_in_every_size_is_taken_wherever_it_is_cut(victim: Victim, kind: int) -> None:
    for size in SIZES:
        assert_taken(victim, kind, size, 1 if size <= 64 else 8 if size < 65535 or kind > 2 else 200)


@pytest.mark.long
@pytest.mark.parametrize("kind", KNOWN)
def test_every_large_packet_is_taken_wherever_it_is_cut(victim: Victim, kind: int) -> None:
    for size in (1514, 8192, 65535):
        assert_taken(victim, kind, size, 1)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_type_is_the_fault_of_that_link_alone(victim: Victim, kind: int) -> None:
    for size in SIZES:
        packet = struct.pack(">BBH", kind, 0, size) + bytes(min(size, 64))
        for before in (b"", ECHO):
            stream = before + packet
            for cut in range(len(stream) + 1):
                port = victim.attach()
                with pytest.raises(PeerError, match=str(kind)):
                    feed(victim, port, stream, cut)
                assert port.packets_in == 1 + bool(before), "what came before it was taken"
                victim.switch.detach(port)
        victim.assert_others_go_on()


def test_noise_is_taken_or_the_fault_of_that_link_alone(victim: Victim) -> None:
    chance = random.Random(1)
    faults = 0
    for _ in range(3000):
        port = victim.attach()
        stream = bytearray()
        for _ in range(40):
            kind, size = chance.choice(KNOWN), chance.choice((0, 1, 2, 13, 14, 60))
            stream += struct.pack(">BBH", kind, 0, size) + body(kind, size)
        for _ in range(chance.randrange(30)):  # bits fall over: the lengths do not fit any more
            stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)
        unread, at = b"", 0
        try:
            while at < len(stream):
                end = at + chance.choice((1, 2, 5, 100, 1000))
                unread += stream[at:end]
                at = end
                unread = unread[victim.switch.receive(port, unread, victim.now) :]
        except PeerError:
            faults += 1
        victim.switch.detach(port)
        victim.assert_others_go_on()
    assert 500 < faults < 2500


def test_a_promised_body_that_never_comes_holds_up_nobody(victim: Victim) -> None:
    for kind in (1, 2, 3, 4):
        port = victim.attach()
        assert victim.switch.receive(port, struct.pack(">BBH", kind, 0, 65535), victim.now) == 0
        assert victim.switch.receive(port, struct.pack(">BBH", kind, 0, 65535) + bytes(60_000), victim.now) == 0
        victim.assert_others_go_on()
        assert port in victim.switch.beat(victim.now + 61 * SECOND), "it is silent"
        victim.switch.detach(port)

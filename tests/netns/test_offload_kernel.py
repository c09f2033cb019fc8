# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel as the judge: what it makes of super-frames must be what we make of them.

Two TAPs stand on one bridge. Into the first, which has the offload header, super-frames are written. The second takes
no offloads, so the kernel has to cut and to complete all that it hands over there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from cloudvpn._fast.coalesce import coalesce
from cloudvpn._fast.segment import cut
from tests.model import naive_offload as naive
from tests.model.batches import random_batch
from tests.model.naive_offload import ACK, CWR, ECE, FIN, GSO_ECN, GSO_UDP, PSH, TCP, UDP, URG, Offload
from tests.model.packets import TIMESTAMPS, Flow, random_flow
from tests.netns.lab import Host, Lab
from tests.netns.taps import TSO, USO, Tap, takes_uso

MARK = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(46)  # an EtherType for experiments
UDP_SEGMENT = 103
MTU = 1500


class Judge:
    """The two TAPs and their bridge."""

    def __init__(self, host: Host, stack: contextlib.ExitStack) -> None:
        self.has_uso = takes_uso(host)
        for scope in ("all", "default"):  # the bridge itself says nothing
            host.run(["sysctl", "-q", f"net.ipv6.conf.{scope}.disable_ipv6=1"])
        host.ip("link add br0 type bridge mcast_snooping 0")
        for name in ("arptables", "iptables", "ip6tables"):  # unknown where br_netfilter is not loaded
            host.run(["sysctl", "-qe", f"net.bridge.bridge-nf-call-{name}=0"])
        self.giver = stack.enter_context(Tap(host, "giver", TSO | (USO if self.has_uso else 0)))
        self.taker = stack.enter_context(Tap(host, "taker"))
        for tap in (self.giver, self.taker):
            host.ip(f"link set {tap.name} master br0")
        host.ip("link set br0 mtu 65521 up")
        for _ in range(500):
            self.giver.write(MARK)
            if self.taker.read(0.02):
                break
        while self.taker.read(0.1):
            pass

    def cut(self, frame: bytes, offload: Offload) -> list[bytes]:
        """What arrives of this at the other TAP."""
        self.giver.write(frame, offload)
        self.giver.write(MARK)
        frames = []
        while (got := self.taker.read()) and got[1] != MARK:
            frames.append(got[1])
        assert got, "the mark came never"
        return frames

    def agrees(self, frame: bytes, offload: Offload) -> list[bytes]:
        """The pieces, after a look whether the kernel makes the same."""
        pieces = cut(frame, offload)
        assert self.cut(frame, offload) == pieces, (offload, frame.hex())
        return pieces


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with contextlib.ExitStack() as stack:
        yield Judge(stack.enter_context(Lab()).host("judge"), stack)


def needs_uso(has_uso: bool) -> None:
    if not has_uso:
        pytest.skip("the kernel has no UDP segmentation for TAPs (Linux 6.2)")


# Cutting

TAGS = {"": (), "VLAN": ((0x8100, 0x6005),), "service VLAN": ((0x88A8, 7),), "two VLANs": ((0x88A8, 7), (0x8100, 5))}
FLOWS = {
    "TCP on IPv4": Flow(), "TCP on IPv6": Flow(is_v6=True),
    "UDP on IPv4": Flow(protocol=UDP), "UDP on IPv6": Flow(is_v6=True, protocol=UDP),
    "timestamps": Flow(tcp_options=TIMESTAMPS), "all TCP options": Flow(is_v6=True, tcp_options=b"\x01" * 40),
    "DF": Flow(has_df=True), "IPv4 options": Flow(ip_options=b"\x01" * 40),
    "IPv4 options, UDP": Flow(ip_options=b"\x01" * 4, protocol=UDP),
    "extensions": Flow(is_v6=True, extensions=(0, 60, 43, 60)),
    "extensions, UDP": Flow(is_v6=True, extensions=(0, 60), protocol=UDP),
}  # fmt: skip


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("name", FLOWS)
def test_the_kernel_cuts_alike(judge: Judge, name: str, tags: str) -> None:
    flow = replace(FLOWS[name], tags=TAGS[tags])
    if flow.protocol == UDP:
        needs_uso(judge.has_uso)
    for size, pieces in ((1, 50), (99, 10), (1448, 20), (8948, 5)):
        for payload in (size * pieces, size * pieces - size // 2, size * pieces + 1):
            offload, frame = flow.super_frame(os.urandom(payload), size, (1 << 32) - 2 * size, 65534)
            assert len(judge.agrees(frame, offload)) == -(-payload // size)


@pytest.mark.parametrize("is_v6", [False, True])
def test_the_kernel_puts_all_flags_where_we_do(judge: Judge, is_v6: bool) -> None:
    for flags in range(256):
        offload, frame = Flow(is_v6=is_v6, urgent=5).super_frame(bytes(350), 100, flags=flags)
        assert len(judge.agrees(frame, offload)) == 4
        assert judge.agrees(frame, (1, offload[1] ^ GSO_ECN, *offload[2:]))


@pytest.mark.parametrize("flow", [Flow(), Flow(is_v6=True, tags=TAGS["two VLANs"])], ids=["IPv4", "IPv6"])
def test_the_kernel_cuts_the_largest_alike(judge: Judge, flow: Flow) -> None:
    room = 65535 - (20 if flow.is_v6 else 40)
    for size in (100, 1448, 32768, room - 1):
        offload, frame = flow.super_frame(os.urandom(room), size)
        assert len(judge.agrees(frame, offload)) == -(-room // size)


def test_the_kernel_cuts_random_super_frames_alike(judge: Judge) -> None:
    chance = random.Random(1)
    pieces = 0
    for _ in range(1000):
        flow = random_flow(chance, **({} if judge.has_uso else {"protocol": TCP}))
        size = chance.choice([1, 7, 100, 536, 1448, 8900])
        payload = chance.randbytes(chance.randrange(size + 1, min(30 * size, 128 * size, 60000)))
        flags = ACK | chance.choice([0, 0, PSH, FIN, CWR, ECE | CWR | FIN | PSH | URG])
        offload, frame = flow.super_frame(payload, size, chance.getrandbits(32), chance.getrandbits(16), flags)
        pieces += len(judge.agrees(frame, offload))
    assert pieces > 5000


@pytest.mark.parametrize("header_size", [0, 14, 53, 54, 55, 250])
def test_the_kernel_takes_the_size_of_the_header_for_a_hint_as_well(judge: Judge, header_size: int) -> None:
    offload, frame = Flow().super_frame(bytes(250), 100)
    assert len(judge.agrees(frame, (*offload[:2], header_size, *offload[3:]))) == 3


@pytest.mark.parametrize("size", [1, 2, 100, 1459])
@pytest.mark.parametrize("name", FLOWS)
def test_the_kernel_completes_checksums_alike(judge: Judge, name: str, size: int) -> None:
    (_, _, _, _, start, offset), frame = FLOWS[name].super_frame(os.urandom(size), 1)
    judge.agrees(frame, (1, 0, 0, 0, start, offset))


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_the_kernel_writes_a_checksum_of_0_as_we_do(judge: Judge, protocol: int) -> None:
    flow = Flow(protocol=protocol)
    checksum_at = flow.layers().checksum_at()
    zero = naive.number(flow.frame(bytes(6)), checksum_at).to_bytes(2, "big") + bytes(4)
    offload, frame = flow.super_frame(zero, 1)
    (piece,) = judge.agrees(frame, (1, 0, 0, 0, *offload[4:]))
    assert naive.number(piece, checksum_at) == 0xFFFF
    if protocol == UDP:
        needs_uso(judge.has_uso)
    offload, frame = flow.super_frame(zero + zero, 6)
    pieces = judge.agrees(frame, offload)
    assert naive.number(pieces[0], checksum_at) == (0 if protocol == TCP else 0xFFFF)


# Joining


def test_the_kernel_gives_back_the_frames_that_were_joined(judge: Judge) -> None:
    chance = random.Random(2)
    joined: Counter[int] = Counter()
    for _ in range(400):
        frames = [frame for frame in random_batch(chance, 40) if len(frame) > 17]
        arrived = []
        for offload, frame in coalesce(frames, judge.has_uso):
            arrived += judge.agrees(frame, offload)
            joined[offload[1]] += 1
        # A batch is the same again but for the order of its flows and ids that mean nothing.
        for own in (frames, arrived):
            own[:] = sorted(map(without_free_id, own), key=lambda frame: repr(naive.flow_key(frame)))
        assert arrived == frames
    assert all(joined[kind] > 100 for kind in ([0, 1, 4, GSO_UDP] if judge.has_uso else [0, 1, 4]))


def without_free_id(frame: bytes) -> bytes:
    layers = naive.find_layers(frame)
    if layers is None or layers.is_v6 or not frame[layers.network + 6] & 0x40:
        return frame
    return frame[: layers.network + 4] + bytes(2) + frame[layers.network + 6 : layers.network + 10] + bytes(2) + (
        frame[layers.network + 12 :]
    )  # fmt: skip


# Sockets behind TAPs


class Pipe:
    """Two hosts, each behind a TAP with the offload header; what they send is cut, joined, and written to the other."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        self.hosts = [lab.host("a"), lab.host("b")]
        self.has_uso = takes_uso(self.hosts[0])
        offloads = TSO | (USO if self.has_uso else 0)
        self.taps = [stack.enter_context(Tap(host, "tap0", offloads)) for host in self.hosts]
        for place, host in enumerate(self.hosts, start=1):
            host.ip(f"link set tap0 mtu {MTU}")
            host.ip(f"addr add 10.9.0.{place}/24 dev tap0")
            host.ip(f"addr add fd09::{place}/64 dev tap0 nodad")
            host.run(["sysctl", "-q", "net.ipv4.tcp_ecn=1"])
        self.taken: Counter[int] = Counter()
        self.given: Counter[int] = Counter()
        self.largest = 0
        self.valve = threading.Lock()  # while it is held, frames wait in the TAPs
        self._stopped, wake = os.pipe()
        self._future: Future[None] = stack.enter_context(ThreadPoolExecutor(1)).submit(self._pump)
        stack.callback(os.close, self._stopped)
        stack.callback(self._future.result, 10)
        stack.callback(os.close, wake)

    def _pump(self) -> None:
        fds = [tap.fd for tap in self.taps]
        while self._stopped not in (ready := select.select([*fds, self._stopped], [], [])[0]):
            for source, target in (self.taps, reversed(self.taps)):
                if source.fd in ready:
                    with self.valve:
                        self._carry(source, target)

    def _carry(self, source: Tap, target: Tap) -> None:
        frames: list[bytes] = []
        while len(frames) < 200 and (got := source.read(0)):
            self.taken[got[0][1] & ~GSO_ECN] += 1
            frames += cut(got[1], got[0])
        self.largest = max([self.largest, *map(len, frames)])
        for offload, frame in coalesce(frames, self.has_uso):
            self.given[offload[1]] += 1
            target.write(frame, offload)

    def errors(self) -> list[str]:
        """What the hosts counted as a wrong checksum or a frame of another fault."""
        names = ("TcpInErrs", "TcpInCsumErrors", "UdpInErrors", "UdpInCsumErrors", "Udp6InErrors", "Udp6InCsumErrors",
                 "IpInHdrErrors", "Ip6InHdrErrors", "IpExtInCsumErrors")  # fmt: skip
        found = []
        for host in self.hosts:
            for line in host.run(["nstat", "-asz"]).stdout.splitlines()[1:]:  # the first is a comment
                name, count, *_ = line.split()
                found += [line] if name in names and int(count) else []
        return found


@pytest.fixture
def pipe(lab: Lab) -> Iterator[Pipe]:
    with contextlib.ExitStack() as stack:
        yield Pipe(lab, stack)


def sockets(pipe: Pipe, family: int, kind: int) -> tuple[socket.socket, socket.socket, str]:
    """One of each host; the second is bound to the address that is given."""
    with pipe.hosts[0].inside():
        ours = socket.socket(family, kind)
    with pipe.hosts[1].inside():
        theirs = socket.socket(family, kind)
    address = "10.9.0.2" if family == socket.AF_INET else "fd09::2"
    theirs.bind((address, 5000))
    for one in (ours, theirs):
        one.settimeout(20)
    return ours, theirs, address


FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_tcp_sockets_receive_what_was_sent(pipe: Pipe, family: int) -> None:
    data = random.Random(3).randbytes(1 << 20) * 16
    ours, listener, address = sockets(pipe, family, socket.SOCK_STREAM)
    listener.listen()
    with ours, listener, ThreadPoolExecutor(2) as pool:
        ours.connect((address, 5000))
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(20)
            there, back = pool.submit(receive, theirs, len(data)), pool.submit(receive, ours, len(data))
            senders = [threading.Thread(target=one.sendall, args=(data,)) for one in (ours, theirs)]
            for sender in senders:
                sender.start()
            assert there.result() == back.result() == hashlib.sha256(data).digest()
            for sender in senders:
                sender.join()
    kind = 1 if family == socket.AF_INET else 4
    assert pipe.taken[kind] > 100 and pipe.given[kind] > 100
    assert pipe.largest == 14 + MTU
    assert pipe.errors() == []


def receive(source: socket.socket, size: int) -> bytes:
    digest = hashlib.sha256()
    while size:
        data = source.recv(1 << 20)
        assert data, "the end came too early"
        digest.update(data)
        size -= len(data)
    return digest.digest()


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_udp_sockets_receive_each_datagram(pipe: Pipe, family: int) -> None:
    needs_uso(pipe.has_uso)
    ours, theirs, address = sockets(pipe, family, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
        for place in range(50):
            datagrams = [bytes([place, number]) * 600 for number in range(20)] + [bytes([place]) * (place + 1)]
            ours.sendto(b"".join(datagrams), (address, 5000))
            assert [theirs.recv(65535) for _ in datagrams] == datagrams
    assert pipe.taken[GSO_UDP] == pipe.given[GSO_UDP] == 50
    assert pipe.errors() == []


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_datagrams_that_were_sent_one_by_one_arrive_joined(pipe: Pipe, family: int) -> None:
    needs_uso(pipe.has_uso)
    ours, theirs, address = sockets(pipe, family, socket.SOCK_DGRAM)
    datagrams = [number.to_bytes(4, "big") * 100 for number in range(2000)]
    with ours, theirs:
        ours.connect((address, 5000))
        for start in range(0, len(datagrams), 40):
            with pipe.valve:
                for datagram in datagrams[start : start + 40]:
                    ours.send(datagram)
            assert [theirs.recv(65535) for _ in range(40)] == datagrams[start : start + 40]
    # A frame of another kind in between, such as ARP, ends what is being joined.
    assert pipe.taken[GSO_UDP] == 0 and 50 <= pipe.given[GSO_UDP] < 100
    assert pipe.errors() == []

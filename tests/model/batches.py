# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches of frames as a link may bring them: several flows at once, with everything that keeps frames apart."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.model.naive_offload import ACK, CWR, ECE, FIN, PSH, RST, SYN, TCP, UDP, number, put, write_checksum
from tests.model.packets import Flow, random_flow

SIZES = [1, 2, 7, 64, 511, 1400, 1448]
ARP = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x06" + bytes(46)
CHANGES = [
    {"macs": bytes.fromhex("020000000003 020000000001")}, {"tags": ((0x8100, 7),)}, {"ttl": 63}, {"traffic_class": 3},
    {"has_df": True}, {"has_df": False}, {"ack": 5}, {"window": 501}, {"urgent": 9}, {"tcp_options": b"\x01" * 12},
    {"ip_options": b"\x01" * 8}, {"extensions": (60,)},
]  # fmt: skip


@dataclass
class Sender:
    """What a flow sends; each frame goes on where the last ended, if it is not told otherwise."""

    chance: random.Random
    flow: Flow
    oddity: float
    seq: int = field(init=False)
    identification: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.chance.choice(SIZES)
        self.seq = self.chance.choice([self.chance.getrandbits(32), (1 << 32) - 3 * self.size])
        self.identification = self.chance.choice([self.chance.getrandbits(16), 65533])
        self.id_step = self.chance.choice([0, 1]) if self.flow.has_df else 1
        self.flags = ACK | self.chance.choice([0, 0, 0, ECE])

    def next(self) -> bytes:
        chance = self.chance
        if chance.random() >= self.oddity:
            return self.make(self.size)
        return chance.choice([self.odd_size, self.odd_flags, self.odd_place, self.odd_headers, self.damaged])()

    def make(self, size: int, flags: int = 0, flow: Flow | None = None) -> bytes:
        payload = self.chance.randbytes(size)
        frame = (flow or self.flow).frame(payload, self.seq, self.identification, self.flags | flags)
        self.seq += size
        self.identification += self.id_step
        return frame

    def odd_size(self) -> bytes:
        return self.make(self.chance.choice([0, 1, max(self.size - 1, 0), self.size + 1]))

    def odd_flags(self) -> bytes:
        return self.make(self.size, self.chance.choice([PSH, PSH, FIN, SYN, RST, CWR, ECE, FIN | PSH]))

    def odd_place(self) -> bytes:
        if self.chance.random() < 0.5:
            self.seq += self.chance.choice([-self.size, self.size, 1])
        else:
            self.identification += self.chance.choice([-1, 1, 256])
        return self.make(self.size)

    def odd_headers(self) -> bytes:
        return self.make(self.size, flow=replace(self.flow, **self.chance.choice(CHANGES)))  # type: ignore[arg-type]

    def damaged(self) -> bytes:
        """With a wrong checksum or length, padded, cut off, a fragment, or with a bit changed in its headers."""
        frame, layers, chance = bytearray(self.make(self.size)), self.flow.layers(), self.chance
        what = chance.randrange(8)
        if what == 0:  # a wrong checksum of TCP or UDP
            frame[chance.randrange(layers.transport, len(frame))] ^= 1 << chance.randrange(8)
        elif what == 1:  # a wrong checksum of IPv4, or none of UDP
            put(frame, layers.checksum_at() if self.flow.is_v6 else layers.network + 10, 0)
        elif what == 2:
            frame += bytes(chance.randrange(1, 20))
        elif what == 3:
            del frame[chance.randrange(14, len(frame)) :]
        elif what == 4 and not self.flow.is_v6:  # a fragment
            put(frame, layers.network + 6, chance.choice([0x2000, 1, 185]))
        elif what == 5 and self.flow.protocol == UDP:
            put(frame, layers.transport + 4, number(frame, layers.transport + 4) + chance.choice([-1, 1]))
            write_checksum(frame, layers)
        elif what == 6:
            frame[chance.randrange(12, layers.payload)] ^= 1 << chance.randrange(8)
        elif what == 7 and self.flow.protocol == TCP:  # a header that is too short or longer than the frame
            frame[layers.transport + 12] = chance.getrandbits(8)
        return bytes(frame)


def random_batch(chance: random.Random, count: int) -> list[bytes]:
    """`count` frames of 1 to 12 flows; in some batches all is in order, in some little is."""
    oddity = chance.choice([0, 0.03, 0.3])
    senders = [Sender(chance, random_flow(chance), oddity) for _ in range(chance.choice([1, 1, 2, 3, 9, 12]))]
    frames: list[bytes] = []
    while len(frames) < count:
        sender = chance.choice(senders)
        frames += [sender.next() for _ in range(chance.choice([1, 1, 4, 20]))]
        kind = chance.random()
        if kind < oddity / 8:
            frames.append(ARP)
        elif kind < oddity / 4:  # came twice
            frames.append(chance.choice(frames[-8:]))
        elif kind < oddity / 2:  # came late
            frames.append(frames.pop(-chance.randrange(1, min(4, len(frames)) + 1)))
    return frames[:count]

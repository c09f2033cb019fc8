# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden byte streams of the version-1 wire, written by hand, each with its meaning.

A packet's meaning is a tuple: `(name, fields...)`, with route entries as `(mac, dist, ping in us)`. A set or diff is
given as it stands on the wire; `announced` says what an empty peer has announced once the whole stream is applied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Packet = tuple[Any, ...]
Routes = dict[bytes, tuple[int, int]]
"""MAC address -> (dist in hops, ping in us)."""


class Stream(NamedTuple):
    """One stream; it is not canonical if it holds something ignored that its meaning cannot show."""

    name: str
    data: bytes
    packets: list[Packet]
    announced: Routes | None = None
    canonical: bool = True


MAC_A = bytes.fromhex("02aabbccdd01")
MAC_B = bytes.fromhex("02aabbccdd02")
MAC_C = bytes.fromhex("fe0102030405")

FRAME_14 = bytes.fromhex(
    "02aabbccdd01"  # to
    "02aabbccdd02"  # from
    "88b5"  # type: local experiments
)
FRAME_60 = bytes.fromhex(
    "02aabbccdd02"  # to
    "02aabbccdd01"  # from
    "0806"  # type: ARP
    "0001080006040002"  # Ethernet, IPv4, 6, 4, reply
    "02aabbccdd01c6120101"  # sender
    "02aabbccdd02c6120102"  # target
    "000000000000000000000000000000000000"  # padding, 18 bytes
)
FRAME_GROUP = bytes.fromhex(
    "ffffffffffff"  # to: everybody
    "02aabbccdd01"  # from
    "0806"  # type: ARP
    "0001080006040001"  # Ethernet, IPv4, 6, 4, request
    "02aabbccdd01c6120101"  # sender
    "000000000000c6120102"  # target
)

STREAMS = [
    Stream(
        "route set on activation",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0001"  # size: 1 entry
            "02aabbccdd01"  # mac
            "0000"  # dist
            "00000001"  # ping
        ),
        [("route_set", [(MAC_A, 0, 1)])],
        {MAC_A: (0, 1)},
    ),
    Stream(
        "route set of three with border values",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0003"  # size: 3 entries
            "02aabbccdd01"  # mac
            "0000"  # dist
            "00000001"  # ping
            "02aabbccdd02"  # mac
            "0102"  # dist: 258
            "01020304"  # ping: 16909060
            "fe0102030405"  # mac
            "ffff"  # dist: 65535
            "ffffffff"  # ping: 4294967295
        ),
        [("route_set", [(MAC_A, 0, 1), (MAC_B, 258, 16909060), (MAC_C, 65535, 4294967295)])],
        {MAC_A: (0, 1), MAC_B: (258, 16909060), MAC_C: (65535, 4294967295)},
    ),
    Stream(
        "empty route set",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0000"  # size: no entry
        ),
        [("route_set", [])],
        {},
    ),
    Stream(
        "route set with a ping of 0, which is ignored",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0002"  # size: 2 entries
            "02aabbccdd01"  # mac
            "0001"  # dist
            "00000000"  # ping: 0
            "02aabbccdd02"  # mac
            "0001"  # dist
            "000005dc"  # ping: 1500
        ),
        [("route_set", [(MAC_A, 1, 0), (MAC_B, 1, 1500)])],
        {MAC_B: (1, 1500)},
    ),
    Stream(
        "route set with one address twice, of which the last wins",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0003"  # size: 3 entries
            "02aabbccdd01"  # mac
            "0001"  # dist
            "00000064"  # ping: 100
            "02aabbccdd02"  # mac
            "0000"  # dist
            "00000001"  # ping: 1
            "02aabbccdd01"  # mac, again
            "0002"  # dist
            "000000c8"  # ping: 200
        ),
        [("route_set", [(MAC_A, 1, 100), (MAC_B, 0, 1), (MAC_A, 2, 200)])],
        {MAC_A: (2, 200), MAC_B: (0, 1)},
    ),
    Stream(
        "route set that replaces another",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0001"  # size: 1 entry
            "02aabbccdd01"  # mac
            "0000"  # dist
            "00000001"  # ping
            "01"  # type: route set
            "00"  # special
            "0001"  # size: 1 entry
            "02aabbccdd02"  # mac
            "0003"  # dist
            "0000000a"  # ping: 10
        ),
        [("route_set", [(MAC_A, 0, 1)]), ("route_set", [(MAC_B, 3, 10)])],
        {MAC_B: (3, 10)},
    ),
    Stream(
        "route diff that adds and changes",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0001"  # size: 1 entry
            "02aabbccdd01"  # mac
            "0001"  # dist
            "000003e8"  # ping: 1000
            "02"  # type: route diff
            "00"  # special
            "0002"  # size: 2 entries
            "02aabbccdd01"  # mac, changed
            "0002"  # dist
            "000007d0"  # ping: 2000
            "02aabbccdd02"  # mac, added
            "0000"  # dist
            "00000001"  # ping
        ),
        [("route_set", [(MAC_A, 1, 1000)]), ("route_diff", [(MAC_A, 2, 2000), (MAC_B, 0, 1)])],
        {MAC_A: (2, 2000), MAC_B: (0, 1)},
    ),
    Stream(
        "route diff with a deletion",
        bytes.fromhex(
            "01"  # type: route set
            "00"  # special
            "0002"  # size: 2 entries
            "02aabbccdd01"  # mac
            "0001"  # dist
            "000003e8"  # ping: 1000
            "02aabbccdd02"  # mac
            "0000"  # dist
            "00000001"  # ping
            "02"  # type: route diff
            "00"  # special
            "0001"  # size: 1 entry
            "02aabbccdd01"  # mac, deleted
            "0000"  # dist
            "00000000"  # ping: 0
        ),
        [("route_set", [(MAC_A, 1, 1000), (MAC_B, 0, 1)]), ("route_diff", [(MAC_A, 0, 0)])],
        {MAC_B: (0, 1)},
    ),
    Stream(
        "route diff that deletes what was never announced",
        bytes.fromhex(
            "02"  # type: route diff
            "00"  # special
            "0001"  # size: 1 entry
            "fe0102030405"  # mac
            "0000"  # dist
            "00000000"  # ping: 0
        ),
        [("route_diff", [(MAC_C, 0, 0)])],
        {},
    ),
    Stream(
        "frame of 14 bytes",
        bytes.fromhex(
            "03"  # type: frame
            "00"  # special
            "000e"  # size: 14 bytes
            "02aabbccdd01"  # to
            "02aabbccdd02"  # from
            "88b5"  # type
        ),
        [("frame", FRAME_14)],
    ),
    Stream(
        "frame of 60 bytes",
        bytes.fromhex(
            "03"  # type: frame
            "00"  # special
            "003c"  # size: 60 bytes
            "02aabbccdd02"  # to
            "02aabbccdd01"  # from
            "0806"  # type
            "0001080006040002"  # Ethernet, IPv4, 6, 4, reply
            "02aabbccdd01c6120101"  # sender
            "02aabbccdd02c6120102"  # target
            "000000000000000000000000000000000000"  # padding
        ),
        [("frame", FRAME_60)],
    ),
    Stream(
        "broadcast with its id, which the size does not count",
        bytes.fromhex(
            "04"  # type: broadcast
            "00"  # special
            "002a"  # size: 42 bytes
            "deadbeef"  # id
            "ffffffffffff"  # to
            "02aabbccdd01"  # from
            "0806"  # type
            "0001080006040001"  # Ethernet, IPv4, 6, 4, request
            "02aabbccdd01c6120101"  # sender
            "000000000000c6120102"  # target
        ),
        [("broadcast", 0xDEADBEEF, FRAME_GROUP)],
    ),
    Stream(
        "broadcast with the id 0 and a single destination",
        bytes.fromhex(
            "04"  # type: broadcast
            "00"  # special
            "000e"  # size: 14 bytes
            "00000000"  # id
            "02aabbccdd01"  # to
            "02aabbccdd02"  # from
            "88b5"  # type
        ),
        [("broadcast", 0, FRAME_14)],
    ),
    Stream(
        "echo request with the lowest id",
        bytes.fromhex(
            "05"  # type: echo request
            "00"  # special: id 0
            "0000"  # size
        ),
        [("echo_request", 0)],
    ),
    Stream(
        "echo request with the highest id",
        bytes.fromhex(
            "05"  # type: echo request
            "ff"  # special: id 255
            "0000"  # size
        ),
        [("echo_request", 255)],
    ),
    Stream(
        "echo replies with the lowest and the highest id",
        bytes.fromhex(
            "06"  # type: echo reply
            "00"  # special: id 0
            "0000"  # size
            "06"  # type: echo reply
            "ff"  # special: id 255
            "0000"  # size
        ),
        [("echo_reply", 0), ("echo_reply", 255)],
    ),
    Stream(
        "sizes without a body, which are ignored",
        bytes.fromhex(
            "05"  # type: echo request
            "07"  # special: id 7
            "ffff"  # size: no body follows
            "06"  # type: echo reply
            "08"  # special: id 8
            "0004"  # size: no body follows
            "07"  # type: route request
            "00"  # special
            "0100"  # size: no body follows
            "05"  # type: echo request
            "09"  # special: id 9
            "0000"  # size
        ),
        [("echo_request", 7), ("echo_reply", 8), ("route_request",), ("echo_request", 9)],
        canonical=False,
    ),
    Stream(
        "route request",
        bytes.fromhex(
            "07"  # type: route request
            "00"  # special
            "0000"  # size
        ),
        [("route_request",)],
    ),
    Stream(
        "special in types 1 to 4, which is ignored",
        bytes.fromhex(
            "01"  # type: route set
            "01"  # special
            "0001"  # size: 1 entry
            "02aabbccdd01"  # mac
            "0000"  # dist
            "00000001"  # ping
            "02"  # type: route diff
            "80"  # special
            "0001"  # size: 1 entry
            "02aabbccdd02"  # mac
            "0001"  # dist
            "000000ff"  # ping: 255
            "03"  # type: frame
            "ff"  # special
            "000e"  # size: 14 bytes
            "02aabbccdd01"  # to
            "02aabbccdd02"  # from
            "88b5"  # type
            "04"  # type: broadcast
            "7f"  # special
            "000e"  # size: 14 bytes
            "00000001"  # id
            "02aabbccdd01"  # to
            "02aabbccdd02"  # from
            "88b5"  # type
        ),
        [
            ("route_set", [(MAC_A, 0, 1)]),
            ("route_diff", [(MAC_B, 1, 255)]),
            ("frame", FRAME_14),
            ("broadcast", 1, FRAME_14),
        ],
        {MAC_A: (0, 1), MAC_B: (1, 255)},
        canonical=False,
    ),
]

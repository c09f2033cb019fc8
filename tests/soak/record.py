# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run has seen, as plain data: what is judged, told and drawn. Times are seconds since the run began."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

Pair = tuple[str, str]      # names of two nodes: from, to

BEFORE = 1.0    # seconds: what was sent so shortly before a fault may have been on its way when it came
SETTLE = 2.0    # seconds after the mesh was whole again in which ARP finds its way, too


class Sample(NamedTuple):
    """One look at a process. `tasks` and `blocks` are None as long as it has not told them."""

    time: float
    rss: int            # bytes; without pages of files, which the kernel takes away and brings back as it likes
    fds: int
    threads: int
    tasks: int | None
    blocks: int | None  # of Python's allocator


@dataclass
class Life:
    """One process of a node, from its start to its end or that of the run."""

    node: str
    pid: int
    samples: list[Sample] = field(default_factory=list)


class Event(NamedTuple):
    """A fault, until all links were up again and everybody knew everybody; or a reload, which excuses no loss."""

    kind: str
    what: str
    begin: float
    end: float


@dataclass
class Flow:
    """Numbered datagrams from one node to another. `arrived` has for each number how often it came, at most 255."""

    arrived: bytearray = field(default_factory=bytearray)


@dataclass
class Bulk:
    """A TCP connection that goes on and on, bytes; `history` is (time, `received` then), each second."""

    sent: int = 0
    received: int = 0
    corrupt: int = 0
    broken: list[str] = field(default_factory=list)     # why it had to be made anew
    history: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Run:
    """`calm`: nodes between which no way leads over what is ever broken. `sent`: when each number was sent.

    `broken_links`: those that are, as the names of their two ends.
    """

    seed: int
    seconds: float
    calm: frozenset[str]
    warm_up: float
    broken_links: tuple[str, ...] = ()
    sent: array[float] = field(default_factory=lambda: array("d"))
    flows: dict[Pair, Flow] = field(default_factory=dict)
    bulks: dict[Pair, Bulk] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    faults: list[Event] = field(default_factory=list)
    reloads: list[Event] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    overflows: dict[str, int] = field(default_factory=dict)     # datagrams that came and that we did not fetch in time
    strange: list[str] = field(default_factory=list)    # datagrams that came and were not sent like that
    downs: dict[str, int] = field(default_factory=dict)         # links between calm nodes that were lost
    frames: dict[str, tuple[int, int]] = field(default_factory=dict)    # in with copies, out with drops: equal
    exits: dict[str, int] = field(default_factory=dict)         # exit codes at the end, after SIGTERM
    trouble: list[str] = field(default_factory=list)    # why the run could not go on
    cpu: float = 0.0    # of all processors, mean
    origin: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        return time.monotonic() - self.origin

    def is_calm(self, pair: Pair) -> bool:
        return self.calm.issuperset(pair)

    def is_disturbed(self, time: float) -> bool:
        """Whether a fault excuses what was sent then."""
        return any(fault.begin - BEFORE <= time <= fault.end + SETTLE for fault in self.faults)

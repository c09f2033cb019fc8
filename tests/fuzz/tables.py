# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables beside their slow twins: the bytes choose the limits, the operations and what these are about."""

from __future__ import annotations

import contextlib
import random
from typing import Protocol

from tests.fuzz.reader import Reader
from tests.model import test_hosts_twin, test_nodes_twin, test_route_twin

STEPS_MAX = 60  # the twins are slow


class Chosen(random.Random):
    """Chance that is read from an input; EOFError behind its end."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.reader = Reader(data)

    def getrandbits(self, k: int) -> int:
        if not self.reader:
            raise EOFError
        size = (k + 7) // 8
        return self.reader.number(size) >> (8 * size - k)

    def random(self) -> float:
        return self.getrandbits(16) / (1 << 16)


class Pair(Protocol):
    """A table and its twin. A step draws all that it needs before it changes either."""

    def step(self) -> None: ...
    def compare(self) -> None: ...


def compare_each_step(pair: Pair) -> None:
    for _ in range(STEPS_MAX):
        pair.step()
        pair.compare()


def routes(data: bytes) -> None:
    chance = Chosen(data)
    with contextlib.suppress(EOFError):
        limits = chance.choice(list(test_route_twin.LIMITS.values()))
        compare_each_step(test_route_twin.Pair(chance, limits))


def nodes(data: bytes) -> None:
    chance = Chosen(data)
    with contextlib.suppress(EOFError):
        limits = chance.choice(list(test_nodes_twin.LIMITS.values()))
        compare_each_step(test_nodes_twin.Pair(chance, limits))


def hosts(data: bytes) -> None:
    chance = Chosen(data)
    with contextlib.suppress(EOFError):
        limits = chance.choice(list(test_hosts_twin.LIMITS.values()))
        pace, wall = chance.choice([300_000, 2_000_000, 20_000_000]), chance.choice([1000, 2**32 - 100, 1_790_000_000])
        compare_each_step(test_hosts_twin.Pair(chance, limits, pace, wall))

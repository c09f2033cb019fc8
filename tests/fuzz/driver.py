# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a target with the inputs of its corpus and with seeded changes of them; knows nothing of what they reach."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

SLOW: Final = 0.1  # seconds of CPU: an input that takes longer counts as a hang
SIZE_MAX: Final = 4096
BORDERS: Final = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


class Fault(AssertionError):
    """What an input did that it must not; the input is in the text."""


@dataclass
class Watch:
    """A target, and what its inputs took."""

    target: Callable[[bytes], None]
    limit: float = SLOW
    executions: int = 0
    last: float = 0.0  # seconds of CPU
    slowest: float = 0.0  # seconds of CPU

    def __call__(self, data: bytes) -> None:
        took = self.measure(data)
        if took > self.limit:  # once more: another process may have had the caches
            took = min(took, self.measure(data), self.measure(data))
        self.executions += 1
        self.last, self.slowest = took, max(self.slowest, took)
        if took > self.limit:
            raise Fault(f"took {took * 1000:.0f} ms: {data.hex()}")

    def measure(self, data: bytes) -> float:
        start = time.thread_time()
        try:
            self.target(data)
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error}; the input: {data.hex()}") from error
        return time.thread_time() - start


def changed(chance: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The input with one to eight changes."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 3, 5, 8])):
        at = chance.randrange(len(made) + 1)
        end = min(len(made), at + chance.choice([1, 1, 2, 4, 16, 64]))
        kind = chance.randrange(8)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at:end] = chance.randbytes(end - at)
        elif kind == 2:
            size = chance.choice([1, 2, 4])
            border = chance.choice(BORDERS) % (1 << 8 * size)
            made[at : at + size] = border.to_bytes(size, chance.choice(["big", "little"]))
        elif kind == 3:
            del made[at:end]
        elif kind == 4:  # twice the same
            made[at:at] = made[at:end]
        elif kind == 5:
            made[at:at] = chance.randbytes(chance.choice([1, 2, 4, 32]))
        elif kind == 6:  # a part of another one
            other = chance.choice(corpus)
            start = chance.randrange(len(other) + 1)
            made[at:end] = other[start : start + chance.choice([1, 2, 8, 64, SIZE_MAX])]
        elif kind == 7 and at < len(made):
            made[at] = (made[at] + chance.choice([1, -1])) & 255
    return bytes(made[:SIZE_MAX])


def inputs(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The corpus, then changes of it without end."""
    chance = random.Random(seed)
    yield from corpus
    while True:
        yield changed(chance, chance.choice(corpus), corpus)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes an input of a fuzzer apart: numbers and pieces from its front; behind its end all is 0 and empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, size: int = 1) -> int:
        """Big endian, of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def choice(self, of: Sequence[T]) -> T:
        return of[self.number() % len(of)]

    def rest(self) -> bytes:
        return self.take(len(self.data))

    def pieces(self) -> Iterator[bytes]:
        """The rest, cut: the first byte tells how many sizes follow, which come round again; 0 is all that is left."""
        sizes = [self.number(2) for _ in range(self.number() % 8)] or [0]
        turn = 0
        while self:
            yield self.take(sizes[turn % len(sizes)] or len(self.data))
            turn += 1

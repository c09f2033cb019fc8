# SPDX-License-Identifier: GPL-3.0-or-later
"""What `perf script` prints, as samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

FIELDS = "comm,pid,ip,sym,dso"
HEAD = re.compile(r"(?P<command>.+?)\s+(?P<process>\d+)\s*$")
FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.*) \((?P<object>[^()]*)\)$")


@dataclass(frozen=True)
class Frame:
    symbol: str     # "[unknown]" in what is stripped
    object: str     # path of the program or library, "[kernel.kallsyms]" or the like


@dataclass(frozen=True)
class Sample:
    """Where a CPU was at one tick: the innermost frame first."""

    command: str
    process: int
    stack: tuple[Frame, ...]

    @cached_property
    def symbols(self) -> frozenset[str]:
        return frozenset(frame.symbol for frame in self.stack)


def read_samples(text: str) -> Iterator[Sample]:
    """The text has FIELDS, a line for each frame, an empty one after each sample; what is unlike that is left out."""
    for block in text.split("\n\n"):
        head, *frames = block.strip("\n").split("\n")
        if found := HEAD.match(head):
            stack = tuple(Frame(frame["symbol"], frame["object"]) for frame in map(FRAME.match, frames) if frame)
            if stack:
                yield Sample(found["command"].strip(), int(found["process"]), stack)

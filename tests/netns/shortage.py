# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes allocations of a running daemon fail: the n-th from now on, or some in a row."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

from tests.netns.lab import DAEMON, Lab

SOURCE = Path(__file__).with_name("shortage.c")
FIELDS = {"until": 0, "count": 8, "armed": 16, "failed": 24, "seen": 32, "everywhere": 40}    # struct page


class Shortage:
    """For one daemon, started with `command`. PYTHONMALLOC has Python ask malloc() for each object, so any may fail."""

    def __init__(self, lab: Lab, name: str) -> None:
        library, page = lab.directory / "shortage.so", lab.directory / f"{name}.page"
        if not library.exists():
            subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        page.write_bytes(bytes(4096))
        with page.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)
        self.command = ["env", f"LD_PRELOAD={library}", f"CLOUDVPN_SHORTAGE={page}", "PYTHONMALLOC=malloc", *DAEMON]

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("q", self.page, FIELDS[field])[0])

    def set(self, field: str, value: int) -> None:
        struct.pack_into("q", self.page, FIELDS[field], value)

    def fail(self, after: int, count: int = 1) -> None:
        """`after` calls succeed, then `count` fail."""
        self.set("until", after)
        self.set("count", count)
        self.set("armed", 1)

    def is_over(self) -> bool:
        return not self["armed"]

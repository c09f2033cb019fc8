# SPDX-License-Identifier: GPL-3.0-or-later
"""A group of processes that may have so much memory and no more: a cgroup, of version 1 or 2, as the machine has it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lab import DAEMON

MOUNTS = {1: Path("/sys/fs/cgroup/memory"), 2: Path("/sys/fs/cgroup")}
LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
USED = {1: "memory.usage_in_bytes", 2: "memory.current"}
MOST = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
EVENTS = {1: "memory.oom_control", 2: "memory.events"}


class MemoryGroup:
    def __init__(self, folder: Path, version: int) -> None:
        self._folder, self._version = folder, version
        # A daemon that begins in the group: what it took elsewhere would not count.
        self.command = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(folder), *DAEMON]

    def limit(self, size: int) -> None:
        (self._folder / LIMIT[self._version]).write_text(str(size))

    @property
    def used(self) -> int:
        return int((self._folder / USED[self._version]).read_text())

    @property
    def most(self) -> int:
        """Bytes that were used at one time."""
        return int((self._folder / MOST[self._version]).read_text())

    @property
    def killed(self) -> int:
        """Processes, for lack of memory."""
        text = (self._folder / EVENTS[self._version]).read_text()
        return int(re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)[0])


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Skips the test where no group can be made."""
    version = 1 if MOUNTS[1].is_dir() else 2
    folder = MOUNTS[version] / f"cloudvpn-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if not (folder / MOST[version]).exists():
            pytest.skip("cgroups without control of memory, or of a kernel before 5.19")
        yield MemoryGroup(folder, version)
    finally:
        for number in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (folder.parent / "cgroup.procs").write_text(number)
        folder.rmdir()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the processes of all nodes, in a thread: memory, descriptors, threads, tasks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from pathlib import Path

from tests.netns.lab import Node
from tests.soak.record import Life, Run, Sample


class Watch(threading.Thread):
    """From `start` to `stop`, every `interval` seconds; what it sees is in `lives` of the run."""

    def __init__(self, run: Run, nodes: list[Node], interval: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._record, self._nodes, self._interval = run, nodes, interval
        self._over = threading.Event()
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Raises what ended the thread before."""
        self._over.set()
        if self.ident is not None:
            self.join(10)
        if self._failure:
            raise self._failure

    def run(self) -> None:
        lives: dict[int, Life] = {}
        try:
            while not self._over.wait(self._interval):
                for node in self._nodes:
                    pid = node.pid
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError, LookupError):   # killed just now
                        sample = look(pid, node.config.with_suffix(".held"), self._record.now())
                        if pid not in lives:
                            lives[pid] = Life(node.name, pid)
                            self._record.lives.append(lives[pid])
                        lives[pid].samples.append(sample)
        except Exception as failure:    # `stop` raises it
            self._failure = failure


def look(pid: int, held: Path, now: float) -> Sample:
    """Raises LookupError or OSError if the process ends meanwhile. What is held is that of the look before."""
    found = dict(re.findall(r"^(RssAnon|Threads):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    told = held.read_text().split() if held.exists() else ["0"]
    tasks = blocks = None
    if int(told[0]) == pid:     # it has the handler
        tasks, blocks = int(told[1]) or None, int(told[2])
        os.kill(pid, signal.SIGUSR2)
    return Sample(now, int(found["RssAnon"]) * 1024, fds, int(found["Threads"]), tasks, blocks)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The status file: written again and again, always whole, never through a link that somebody laid."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import glob
import logging
import os
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from cloudvpn.facts import NodeFacts
from cloudvpn.gatherer import Gatherer
from cloudvpn.interface import Interface
from cloudvpn.mesh import Mesh
from cloudvpn.options import SECOND, Config
from cloudvpn.status_formats import FORMATS

log = logging.getLogger("cloudvpn")


class StatusFile:
    """Writes the file each status-interval. A full disk, a missing folder, no memory: logged once and tried again.

    The facts are gathered between two events of the loop, so they fit each other. They are written in a thread: a disk
    that hangs holds up no frame.
    """

    def __init__(self, config: Config, mesh: Mesh, interface: Interface | None) -> None:
        assert config.status_file is not None
        self.config = config
        self.path: Path = config.status_file
        self.mesh = mesh
        self.gatherer = Gatherer(mesh, interface)
        self.complaint: str | None = None
        self.saving = threading.Lock()
        self.has_started = self.is_over = False

    def start(self) -> None:
        self.has_started = True
        self.clear()
        self.mesh.keep(self.run)

    def stop(self) -> None:
        """The file goes with the daemon: an old status would be taken for a new one."""
        with self.saving:
            self.is_over = True
            if self.has_started:
                with contextlib.suppress(OSError):      # it may never have been there
                    self.path.unlink()

    def clear(self) -> None:
        """What a node was writing when it was killed, before this one."""
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.????????"):
            with contextlib.suppress(OSError):
                left.unlink()

    async def run(self) -> None:
        while True:
            await self.write()
            await asyncio.sleep(self.config.status_interval / SECOND)

    async def write(self) -> None:
        try:
            facts = self.gatherer.gather(self.config.status_verbose)
            await asyncio.to_thread(self.save, facts, self.config.status_format)
            self.complaint = None
        except (OSError, MemoryError, RuntimeError) as error:     # the last: no memory for a thread
            # An OSError names a temporary file, each time another one.
            complaint = f"{self.path}: {getattr(error, 'strerror', None) or str(error) or os.strerror(errno.ENOMEM)}"
            if complaint != self.complaint:
                self.complaint = complaint
                log.error("status-file: %s", complaint)

    def save(self, facts: NodeFacts, form: str) -> None:
        """In a thread. Raises OSError."""
        with self.saving:
            if not self.is_over:
                replace(self.path, FORMATS[form](facts))


def replace(path: Path, parts: Iterable[str]) -> None:
    """A reader sees the old text or the new one, never a half. Raises OSError and leaves nothing behind.

    The temporary file is always a new one (O_EXCL), and the rename puts it in the place of whatever bears the name: a
    symbolic link laid at either leads nowhere else.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            os.fchmod(descriptor, 0o644)
            file.writelines(parts)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

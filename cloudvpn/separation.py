# SPDX-License-Identifier: GPL-3.0-or-later
"""Becomes what `user`, `group` and `chroot` say, and leaves processes behind that do what cannot be done from there.

See docs/security.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cloudvpn import files
from cloudvpn.config import inside
from cloudvpn.files import Stage
from cloudvpn.monitor import Monitor
from cloudvpn.options import Config
from cloudvpn.privileges import forbid_dumps, forbid_new_rights, lock_memory, plan
from cloudvpn.resolver import Resolver

log = logging.getLogger("cloudvpn")


class Separation:
    """To be made before keys are read and threads are made: helpers must have neither."""

    def __init__(self, words: Sequence[str], config: Config) -> None:
        """Raises SetupError. `words` are those of the command line, from which `config` was read."""
        forbid_dumps()
        self.config = config
        self.confinement = plan(config)
        self.stage: Stage | None = None
        self.monitor: Monitor | None = None
        self.resolver: Resolver | None = None
        try:
            self.make_helpers(words)
            if config.mlockall:
                lock_memory(will_lose_rights=self.confinement is not None and self.confinement.loses_root)
        except BaseException:
            self.close()
            raise

    def make_helpers(self, words: Sequence[str]) -> None:
        if self.confinement is None:
            return
        if self.confinement.loses_root or self.confinement.chroot is not None:
            self.stage = Stage(self.confinement)
            self.monitor = Monitor(words, self.config, self.stage)
        if self.confinement.chroot is not None:
            self.resolver = Resolver(replace(self.confinement, chroot=None), lock=self.config.mlockall)
        forbid_new_rights()     # before threads are made, which it would not reach

    def enter(self) -> None:
        """Gives the rights up. Raises SetupError; then the process must end."""
        if self.confinement is None:
            return
        self.confinement.enter()
        if self.monitor is not None and self.stage is not None:
            files.use(self.monitor, self.stage)
        log.info("rights are given up: user %d, group %d, %s", os.getuid(), os.getgid(),
                 f"chroot {self.confinement.chroot}" if self.confinement.chroot else "no chroot")
        if self.monitor is not None:
            log.info("process %d keeps those of the start: it reads files again, sets up the interface again and runs "
                     "iface_down_command", self.monitor.helper.pid)
        if self.resolver is not None:
            log.info("process %d looks names up outside of the chroot", self.resolver.helper.pid)

    def inside(self, path: Path) -> Path:
        """What a path outside of the chroot will be called in it."""
        found = path if self.config.chroot is None else inside(self.config.chroot, path)
        assert found is not None    # the configuration was checked
        return found

    def close(self) -> None:
        if self.monitor is None and self.stage is not None:
            self.stage.remove()
        for helper in (self.monitor, self.resolver):
            if helper is not None:
                helper.close()

# SPDX-License-Identifier: GPL-3.0-or-later
"""How this process reaches the files that options name: itself, or through the monitor once rights were given up."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from cloudvpn.errors import SetupError
from cloudvpn.privileges import ROOT, Confinement


class Access(Protocol):
    """Both methods raise OSError."""

    def stat(self, path: Path) -> os.stat_result: ...

    def open(self, path: Path) -> int:
        """A descriptor of a regular file, for reading."""


class Stage:
    """A file of ours under a name that OpenSSL can open when it can open nothing else: it takes keys by name only.

    In a chroot it is one in there, else one that is in memory only. What it holds for a moment must be encrypted.
    """

    def __init__(self, confinement: Confinement) -> None:
        """Raises SetupError if none can be made in the chroot."""
        self.outside: Path | None = None
        if confinement.chroot is None:
            self.fd = os.memfd_create("cloudvpn")
            self.inside = f"/proc/self/fd/{self.fd}"
            return
        try:
            self.fd, name = tempfile.mkstemp(prefix=".cloudvpn-", dir=confinement.chroot)
            os.fchmod(self.fd, 0o644)   # we write by the descriptor; to make it the user's would need one more right
        except OSError as error:
            raise SetupError(
                f"chroot {confinement.chroot}: {error.strerror}: a file must be made in it, through which keys that "
                "were renewed are loaded; the directory may belong to root, its file system must not be read-only"
            ) from error
        self.outside = Path(name)
        self.inside = f"/{self.outside.name}"

    @contextlib.contextmanager
    def holding(self, data: bytes) -> Iterator[str]:
        """The name under which the data is found inside the block."""
        try:
            os.pwrite(self.fd, data, 0)
            yield self.inside
        finally:
            os.ftruncate(self.fd, 0)

    def remove(self) -> None:
        """Its name; from outside of the chroot."""
        if self.outside is not None:
            with contextlib.suppress(OSError):
                self.outside.unlink()


_access: Access | None = None    # None: we do it ourselves
_stage: Stage | None = None


def use(access: Access, stage: Stage) -> None:
    """From now on, and for the whole process, as rights are given up: files by `access`, for OpenSSL by `stage`."""
    global _access, _stage
    _access, _stage = access, stage


def reader() -> int:
    """The user who reads the files, and whom they may belong to: the monitor is root."""
    return os.geteuid() if _stage is None else ROOT


def stage() -> Stage | None:
    """None: OpenSSL reaches the files itself."""
    return _stage


def stat(path: Path) -> os.stat_result:
    return path.stat() if _access is None else _access.stat(path)


def open_file(path: Path) -> BinaryIO:
    return path.open("rb") if _access is None else open(_access.open(path), "rb")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a folder of keys: safe names, a lock, and writing that leaves each file whole or as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudvpn.errors import CloudVPNError

MAX_FILE: Final = 64 << 20  # bytes: as pem.py takes them
# Safe in a path, a config, a shell and a log; 64 is the limit of a common name (RFC 5280, ub-common-name).
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")


class KeygenError(CloudVPNError):
    """What cannot be done and why, in one line."""


@dataclass(frozen=True)
class NewFile:
    path: Path
    data: bytes
    is_private: bool = False


def warn(text: str) -> None:
    print(f"cloudvpn-keygen: warning: {text}", file=sys.stderr)


def check_name(name: str) -> str:
    """Names become names of files, beside those of the CA."""
    if not SAFE_NAME.fullmatch(name):
        raise KeygenError(
            f'"{name}" can name no files, and so no node and no intermediate CA: '
            "up to 64 of A-Z a-z 0-9 _ . @ + -, the first one a letter, a digit or _"
        )
    if name.casefold() == "ca":  # some file systems see no difference between ca.key and CA.key
        raise KeygenError(f'"{name}" would take the files of the CA, choose another name')
    return name


def check_free(force: bool, *paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path) and not force:
            raise KeygenError(f'"{path}" is there already and was not touched, --force replaces it')


def find(path: Path, folder: Path) -> Path:
    """A file that the user names is here; one that is not may be in the folder that --dir names."""
    return path if path.exists() or not (folder / path).exists() else folder / path


def read(path: Path) -> bytes:
    if not path.is_file() and path.exists():  # before open(): that of a pipe may wait forever
        raise KeygenError(f'"{path}" is no regular file')
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise KeygenError(f'"{path}" is larger than {MAX_FILE} bytes')
    return data


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of this folder: each must see the index and the list that the one before it left."""
    if not folder.is_dir():
        raise KeygenError(f'there is no folder "{folder}"')
    # A file, not the folder itself: over NFS a lock needs a descriptor that may write.
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another cloudvpn-keygen in "{folder}"', file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_all(files: Sequence[NewFile]) -> None:
    """Write each file under a temporary name, then rename all, in this order.

    A full disk or an interruption leaves what was there. Only a kill between two renames can leave some files new and
    some old, each of them whole: the callers' order makes that harmless.
    """
    staged: list[tuple[str, Path]] = []
    added: list[Path] = []
    try:
        for file in files:
            staged.append((_stage(file), file.path))
        for temporary, path in staged:
            is_new = not os.path.lexists(path)
            os.replace(temporary, path)
            if is_new:
                added.append(path)
    except BaseException:
        for leftover in [*(temporary for temporary, _ in staged), *map(str, added)]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        raise
    for folder in {file.path.parent for file in files}:
        _sync(folder)


def _stage(file: NewFile) -> str:
    # mkstemp() opens with O_EXCL and mode 0600, whatever the umask is.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.path.name}.", suffix=".tmp", dir=file.path.parent)
    try:
        with open(descriptor, "wb") as stream:
            if not file.is_private:
                os.fchmod(descriptor, 0o644)
            stream.write(file.data)
            stream.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync(folder: Path) -> None:
    """Make the new names survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

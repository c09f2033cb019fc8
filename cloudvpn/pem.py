# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the PEM files that options name: objects, or one sentence that names option, file and what to do."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from cloudvpn import files
from cloudvpn.errors import ConfigError
from cloudvpn.log import escape

T = TypeVar("T")

MAX_FILE: Final = 64 << 20  # bytes: a revocation list of two million entries


class FileProblem(str):
    """A sentence about a file that an option names; who has the configuration can tell the line, too."""

    option: str
    path: Path

    def __new__(cls, option: str, path: Path, what: str) -> FileProblem:
        problem = super().__new__(cls, escape(f"{option}: {what}"))
        problem.option, problem.path = option, path
        return problem

    def at(self, place: str) -> str:
        """The sentence, with this place instead of the option's name."""
        return escape(place) + self.removeprefix(self.option)


def collect(read: Callable[[Path], Iterable[T]], paths: Iterable[Path], problems: list[str]) -> list[T]:
    """All that `read` finds in the files; what is wrong with any of them goes into `problems`."""
    found: list[T] = []
    for path in paths:
        try:
            found += read(path)
        except ConfigError as error:
            problems += error.problems
    return found


def read_pem(option: str, path: Path, label: bytes, parse: Callable[[bytes], T]) -> list[T]:
    """Parse every block of a file; the parser of `cryptography` would skip one that is cut off without a word."""
    data = read(option, path)
    begin = b"-----BEGIN " + label + b"-----"
    blocks = [begin + block for block in data.split(begin)[1:]]
    if not blocks:
        raise bad(option, path, not_pem(data, label))
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            found.append(parse(block))
        except Exception:  # any bytes may be in there, and the parser has many ways to say no
            what = f"{label.decode()} {number} of {len(blocks)} in it is damaged, write the file again"
            raise bad(option, path, what) from None
    return found


def read(option: str, path: Path) -> bytes:
    try:
        if not stat.S_ISREG(files.stat(path).st_mode):  # before open(): that of a pipe may wait forever
            raise OSError("it is no regular file, give a PEM file")
        with files.open_file(path) as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise OSError(f"it is larger than {MAX_FILE} bytes, give a PEM file")
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else errno.ENOENT  # ValueError: a NUL in the name
        known = {
            errno.ENOENT: "it does not exist, correct the path",
            errno.EACCES: "no permission to read it, change its owner or mode",
        }
        raise bad(option, path, known.get(code or 0, str(error))) from None
    return data


def not_pem(data: bytes, label: bytes) -> str:
    if data[:2] in (b"0\x81", b"0\x82"):
        return "it is DER, not PEM, convert it with openssl"
    return f"it holds no good {label.decode()} in PEM, give a file with -----BEGIN {label.decode()}-----"


def bad(option: str, path: Path, what: str) -> ConfigError:
    return ConfigError([FileProblem(option, path, f'cannot use "{path}": {what}')])

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may write: any file and any words give a configuration, or errors that name their place."""

from __future__ import annotations

import contextlib
import difflib
import functools
import tempfile
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

from cloudvpn.config import load_file, load_words
from cloudvpn.errors import ConfigError
from cloudvpn.options import OPTIONS, Endpoint
from tests.fuzz.reader import Reader

nearest = difflib.get_close_matches


def sometimes_nearest(word: str, known: dict[str, str], most: int) -> list[str]:
    """Python's search for the option that was meant takes a millisecond, ten times as long as all else."""
    return nearest(word, known, most) if len(word) % 16 == 1 else []


@contextlib.contextmanager
def quick() -> Iterator[None]:
    difflib.get_close_matches = sometimes_nearest  # type: ignore[assignment]
    try:
        yield
    finally:
        difflib.get_close_matches = nearest


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """In memory where the system has such a place: it is written to at each input. It has a key, a cert and a CA."""
    made = tempfile.TemporaryDirectory(prefix="cloudvpn-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    for name in "kca":
        Path(made.name, name).touch(0o600)
    return made


def path(name: str, data: bytes) -> Path:
    """A file of this content that only its owner may touch."""
    made = Path(folder().name, name)
    made.touch(0o600)
    made.write_bytes(data)
    return made


def config(data: bytes) -> None:
    file = path("conf", data)
    try:
        with quick():
            loaded = load_file(file)
    except ConfigError as error:
        assert error.problems and all(problem.isprintable() for problem in error.problems)
    else:
        assert loaded.config.places


def command(data: bytes) -> None:
    """The words of a command line, separated by NULs, as the system hands them over."""
    words = [word.decode(errors="surrogateescape") for word in data.split(b"\0")]
    try:
        with quick():
            load_words(words)
    except ConfigError as error:
        assert error.problems and all(problem.isprintable() for problem in error.problems)


KINDS = {row.kind.metavar: row.kind for row in OPTIONS.values()}


def addresses(data: bytes) -> None:
    """Addresses, MACs, endpoints, names, numbers with units: what is taken can be shown and read again."""
    reader = Reader(data)
    option = reader.choice(list(OPTIONS.values()))
    text = reader.rest().decode(errors="surrogateescape")
    try:
        value = option.parse(text)
    except ValueError as error:
        assert str(error)
        return
    shown = option.kind.show(value)
    assert shown.isprintable() or option.kind.metavar in ("TEXT", "FILE", "PATH", "NAME")
    if isinstance(value, int) and not isinstance(value, bool) and option.kind.noun:
        assert option.parse(shown) == value
    if isinstance(value, Endpoint):
        assert option.parse(f"{value.host} {value.port}") == value
    if hasattr(value, "network"):
        assert ip_interface(shown) == value

# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of keys, from a prompt or a file, never from a command line, where `ps` shows them to everybody."""

from __future__ import annotations

import getpass
import stat
import warnings
from pathlib import Path
from typing import Final

from cloudvpn.keygen.files import KeygenError, read, warn

MAX_BYTES: Final = 1023  # OpenSSL's limit, over it the key could not be read again


def choose(asked: bool, file: Path | None) -> str | None:
    """The password for a new key; None for a key without one."""
    if file is not None:
        return _from_file(file)
    if not asked:
        return None
    password = _prompt("New password of the key: ", "--password-file")
    if _prompt("The same again: ", "--password-file") != password:
        raise KeygenError("the two passwords differ")
    return password


def recall(key: Path, file: Path | None, option: str) -> str:
    """The password that `key` was written with."""
    return _from_file(file) if file is not None else _prompt(f'Password of "{key}": ', option)


def _from_file(path: Path) -> str:
    try:
        # As the daemon reads key_pass_file.
        password = read(path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise KeygenError(f'the password in "{path}" is not UTF-8 text') from None
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f'others may read or write "{path}": chmod 600 it')
    return _check(password, f'"{path}"')


def _prompt(text: str, option: str) -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass() would read from standard input, and warn only.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return _check(getpass.getpass(text), "the answer")
    except (EOFError, getpass.GetPassWarning):
        raise KeygenError(f"a password is needed and there is no terminal to ask, {option} FILE gives it") from None


def _check(password: str, place: str) -> str:
    if not password or set(password) & set("\0\r\n"):
        raise KeygenError(f"{place} holds no good password: one line of text is needed")
    if len(password.encode()) > MAX_BYTES:
        raise KeygenError(f"{place} holds a password of more than {MAX_BYTES} bytes")
    return password

# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges who else may read a secret or write a configuration, and says the command that mends it."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path
from typing import Final

from cloudvpn import files
from cloudvpn.privileges import ROOT

WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


def secret_problem(path: str | Path, info: os.stat_result) -> str:
    """A key or password: root's file may be 0640 or less, our own 0600 or less, as PostgreSQL has it; "" is good.

    What is no regular file, such as a pipe, is not judged: it is gone when it was read.
    """
    if not stat.S_ISREG(info.st_mode):
        return ""
    allowed = 0o640 if info.st_uid == ROOT else 0o600
    # Where we run as root nobody else needs it; else the group may be how we come to read root's file.
    advised = 0o640 if info.st_uid == ROOT != files.reader() else 0o600
    excess = stat.S_IMODE(info.st_mode) & 0o777 & ~allowed & ~stat.S_IXUSR
    return _problem(path, info, "may read or change it" if excess else "", f"chmod {advised:04o}", "chmod 0600")


def config_problem(path: str | Path, info: os.stat_result) -> str:
    """A configuration can make the daemon run commands: only root and we may write it; "" is good."""
    if not stat.S_ISREG(info.st_mode):
        return ""
    return _problem(path, info, "may write it" if info.st_mode & WRITABLE else "", "chmod go-w", "chmod go-w")


def _problem(path: str | Path, info: os.stat_result, what: str, chmod: str, chmod_ours: str) -> str:
    shown = shlex.quote(os.path.abspath(path))
    mode = f"mode {stat.S_IMODE(info.st_mode):04o}"
    if info.st_uid not in (ROOT, files.reader()):
        commands = f"chown {_name(files.reader())} {shown}" + (f" && {chmod_ours} {shown}" if what else "")
        return f'"{path}" belongs to {_name(info.st_uid)} ({mode}), who can change it: run `{commands}`'
    return f'"{path}" has {mode}, others {what}: run `{chmod} {shown}`' if what else ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)

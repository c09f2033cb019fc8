# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives up rights for good: user, group, chroot; and keeps memory out of core dumps, debuggers and the swap."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudvpn.errors import SetupError
from cloudvpn.options import Config

ROOT: Final = 0
# linux/prctl.h, linux/capability.h, bits/mman-linux.h
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38
CAPABILITY_VERSION_3: Final = 0x20080522
CAP_IPC_LOCK: Final = 14
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Confinement:
    """What the process will be when all is set up; None: as it is."""

    user: int | None
    group: int | None
    chroot: Path | None

    @property
    def loses_root(self) -> bool:
        return self.user not in (None, ROOT)

    def enter(self) -> None:
        """From now on only what this allows is possible. Raises SetupError; then the process must end."""
        try:
            if self.chroot is not None:
                os.chroot(self.chroot)
                os.chdir("/")
            if self.group is not None:
                os.setgroups([self.group])
                os.setgid(self.group)
            if self.user is not None:
                os.setuid(self.user)
        except OSError as error:
            raise SetupError(f"giving up rights: {error.strerror}") from error
        forbid_new_rights()
        forbid_dumps()      # a change of the user may have allowed them again
        self.verify()

    def verify(self) -> None:
        """Raises SetupError if a right is left or can be got back."""
        left = []
        if self.user is not None and {*os.getresuid()} != {self.user}:
            left.append(f"user {os.getresuid()}")
        if self.group is not None and ({*os.getresgid()} != {self.group} or os.getgroups() != [self.group]):
            left.append(f"groups {os.getresgid()}, {os.getgroups()}")
        if self.loses_root:
            left += [name for name, get_back in WAYS_BACK.items() if _works(get_back)]
            if rights := capabilities():
                left.append(f"capabilities {rights:x}")
        if left:
            raise SetupError(f"giving up rights failed, this is left: {', '.join(left)}")


# Group 0 may be what the user was given; then it is no way back.
WAYS_BACK: Final[dict[str, Callable[[], None]]] = {
    "setuid(0)": lambda: os.setuid(ROOT),
    "seteuid(0)": lambda: os.seteuid(ROOT),
    "setgroups()": lambda: os.setgroups([ROOT]),
    "chroot()": lambda: os.chroot("/"),
}


def _works(call: Callable[[], None]) -> bool:
    with contextlib.suppress(PermissionError):
        call()
        return True
    return False


def plan(config: Config) -> Confinement | None:
    """What `user`, `group` and `chroot` ask for, or None if nothing is to change. Raises SetupError."""
    user = group = None
    if config.user is not None:
        account = pwd.getpwnam(config.user)
        user, group = account.pw_uid, account.pw_gid
    if config.group is not None:
        group = grp.getgrnam(config.group).gr_gid
    if (os.getuid(), os.geteuid()) == (user, user) and group in (None, os.getegid()):
        user = group = None     # the service manager was faster
    if user is None and group is None and config.chroot is None:
        return None
    if os.geteuid() != ROOT:
        wanted = next(key for key in ("user", "group", "chroot") if getattr(config, key) is not None)
        place = config.place(wanted, getattr(config, wanted))
        raise SetupError(
            f"{place}: only root can do this: start the node as root, or let the service manager do it and remove the "
            "option"
        )
    return Confinement(user, group, config.chroot)


def forbid_new_rights() -> None:
    """No program that this thread, or one that it makes later, executes has more rights, be it setuid or not."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def forbid_dumps() -> None:
    """No core dump, to a file or to a program, and no debugger of the same user: keys are in memory."""
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it; what follows is enough
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def set_name(name: str) -> None:
    """What `ps` and `pkill` call this process, at most 15 bytes."""
    _prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()))


def lock_memory(*, will_lose_rights: bool, also_future: bool = True) -> None:
    """Keeps what is in memory, and what will be, out of the swap. Raises SetupError."""
    can_exceed = capabilities() >> CAP_IPC_LOCK & 1 and not will_lose_rights
    if also_future and not can_exceed:
        _lift_lock_limit()
    future = MCL_FUTURE if also_future else 0
    # On fault: what is only reserved, such as stacks of threads, need not be there. Old kernels do not know it.
    for flags in (MCL_CURRENT | future | MCL_ONFAULT, MCL_CURRENT | future):
        if _libc.mlockall(flags) == 0:
            return
    raise SetupError(f"mlockall: {os.strerror(ctypes.get_errno())}: start as root or with CAP_IPC_LOCK")


def _lift_lock_limit() -> None:
    """Without the right to exceed it memory would run out later, in the middle of everything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError) as error:
        raise SetupError(
            f"mlockall: all memory may be locked only without a limit, it is {hard} bytes and cannot be raised here: "
            "set it before (`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the systemd unit)"
        ) from error


def capabilities() -> int:
    """Every capability that this thread has in any set of its own, as a mask."""
    if sys.platform != "linux":
        return 0
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()      # effective, permitted, inheritable: the low halves, then the high ones
    if _libc.capget(header, sets):
        raise SetupError(f"capget: {os.strerror(ctypes.get_errno())}")
    low, high = sets[0] | sets[1] | sets[2], sets[3] | sets[4] | sets[5]
    return low | high << 32


def _prctl(option: int, value: object) -> None:
    if sys.platform == "linux" and _libc.prctl(option, value, 0, 0, 0):
        raise SetupError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command with the rights that systemd/cloudvpn@.service leaves it, as far as that works without systemd.

    python sandbox.py FOLDER CAPABILITY,... COMMAND...

All is read-only but FOLDER, /proc shows processes only, memory that was written is never executed, no right comes back.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
SYS_mount_setattr, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def set_read_only(path: str, flags: int, wanted: bool) -> None:
    attributes = struct.pack("=4Q", MOUNT_ATTR_RDONLY if wanted else 0, 0 if wanted else MOUNT_ATTR_RDONLY, 0, 0)
    result = libc.syscall(SYS_mount_setattr, AT_FDCWD, path.encode(), flags, attributes, len(attributes))
    check(result, f"mount_setattr {path}")


def main(folder: str, capabilities: str, *command: str) -> None:
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
    check(libc.mount(folder.encode(), folder.encode(), None, MS_BIND, None), "bind the folder")
    check(libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=invisible,subset=pid"), "mount /proc")
    set_read_only("/", AT_RECURSIVE, True)
    set_read_only(folder, 0, False)
    check(libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0), "MDWE")
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities.split(","))
    setpriv = ["setpriv", "--no-new-privs", "--bounding-set", f"-all,{kept}", "--inh-caps", "-all", *command]
    if trace := os.environ.get("SANDBOX_TRACE"):  # as a grandchild (-D), so that the daemon keeps this process id
        setpriv = ["strace", "-D", "-f", "-q", "-o", trace, *setpriv]
    os.execvp(setpriv[0], setpriv)


if __name__ == "__main__":
    main(*sys.argv[1:])

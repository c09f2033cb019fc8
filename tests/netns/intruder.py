# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a node with an intruder in it: when rights were given up he tries to get more, with all that the node has.

    python intruder.py WORDS-OF-CLOUDVPN...     prints `intruder: NAME: worked`, or what was the error, for each attempt
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.reduction import send_handle
from pathlib import Path

from cloudvpn import cli
from cloudvpn.daemon import Node
from cloudvpn.separation import Separation

PTRACE_ATTACH, CLONE_NEWUSER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN = 16, 0x10000000, 47, 2, 12
libc = ctypes.CDLL(None, use_errno=True)
give_up_rights = Node.give_up_rights


def check(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def climb_out() -> None:
    """The classic way out of a chroot."""
    os.mkdir("/run/hole")
    os.chroot("/run/hole")
    os.chdir("../../../../../..")
    os.stat("etc/passwd")


def attempts(separation: Separation) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setuid(0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setgid": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "capability": lambda: check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)),
        "namespace": lambda: check(libc.unshare(CLONE_NEWUSER)),
        "chroot": climb_out,
        "outside": lambda: os.stat("/etc/passwd"),
        "dots": lambda: os.stat("../../../../etc/passwd"),
        "core": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)),
        "port": lambda: socket.create_server(("127.0.0.1", 79)),
    }
    monitor, resolver = separation.monitor, separation.resolver
    if monitor is not None:
        def send(request: bytes, descriptor: int | None = None) -> None:
            monitor.pipe.send_bytes(request)
            if descriptor is not None:
                send_handle(monitor.pipe, descriptor, monitor.helper.pid)
            error, value, _ = monitor.pipe.recv()
            if error is not None:
                raise error(*value)

        found |= {
            "kill monitor": lambda: os.kill(monitor.helper.pid, signal.SIGKILL),
            "trace monitor": lambda: check(libc.ptrace(PTRACE_ATTACH, monitor.helper.pid, 0, 0)),
            "shadow": lambda: monitor.open(Path("/etc/shadow")),
            "directory": lambda: monitor.open(Path("/")),
            "no interface": lambda: send(b'["down"]', os.open("/", os.O_RDONLY)),
            "second interface": lambda: send(b'["tap", null]'),
        }
    if resolver is not None:
        found["trace resolver"] = lambda: check(libc.ptrace(PTRACE_ATTACH, resolver.helper.pid, 0, 0))
    if monitor is not None:
        found["other words"] = lambda: send(b'["serve", 1]')
    return found


def give_up_rights_and_intrude(node: Node) -> None:
    give_up_rights(node)
    for name, attempt in attempts(node.separation).items():
        child = os.fork()   # has all that the node has, and the node goes on unharmed
        if child == 0:
            try:
                attempt()
                said = "worked"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(2, f"intruder: {name}: {said}\n".encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.write(2, b"intruder: done\n")


Node.give_up_rights = give_up_rights_and_intrude  # type: ignore[method-assign]
sys.exit(cli.run(sys.argv[1:]))

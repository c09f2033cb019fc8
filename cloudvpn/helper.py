# SPDX-License-Identifier: GPL-3.0-or-later
"""A process beside the node: forked before rights are given up, reached through one socket, ended when that closes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from cloudvpn.privileges import set_name

log = logging.getLogger("cloudvpn")

CLOSING_SECONDS = 5.0


class Helper:
    """The parent's side. `serve` gets the other end in the child, and serves it until it reads its end."""

    def __init__(self, name: str, kind: socket.SocketKind, serve: Callable[[socket.socket], None]) -> None:
        """To be made while the process has one thread and nothing open that the child must not have."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.pid = os.fork()
        if self.pid == 0:
            _run(name, theirs, serve)
        theirs.close()

    def close(self) -> None:
        """Lets the child end in order."""
        self.socket.close()
        end = time.monotonic() + CLOSING_SECONDS
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    log.warning("process %d has not ended yet", self.pid)
                    return
                time.sleep(0.005)


def _run(name: str, ours: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    code = 1
    try:
        # Signals that reach the whole group are for the node: it closes the socket when it has ended. No SIG_IGN, which
        # the commands that we run would inherit.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        # Another helper's socket must not be kept open here.
        os.closerange(3, ours.fileno())
        os.closerange(ours.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        set_name(name)
        serve(ours)
        code = 0
    except BaseException:
        log.exception("process %s ended", name)
    finally:
        os._exit(code)

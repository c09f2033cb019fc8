# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of the demonstration: keys, configuration files, running daemons, their log and status."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cloudvpn.demo_net import Namespace
from cloudvpn.pki import issue, make_ca, make_crl, write_cert, write_key

STOP_SECONDS: Final = 5.0
STATUS_SECONDS: Final = 0.1
PR_SET_PDEATHSIG: Final = 1     # linux/prctl.h
# Faster than the defaults: what takes a minute in life shall be seen in seconds.
COMMON: Final = f"""\
ca ca.crt
crl ca.crl
conn_keepalive 200ms
conn_timeout 2s
conn_retry 500ms
max_connections 16
comm_close_timeout 1s
status-interval {STATUS_SECONDS * 1000:.0f}ms
"""

_libc = ctypes.CDLL(None)


def write_trust(folder: Path, names: Sequence[str]) -> None:
    """A CA for this one time, and a key and a certificate for each node. The key of the CA is written nowhere."""
    ca = make_ca("cloudvpn demo")
    write_cert(folder / "ca.crt", ca.cert)
    write_cert(folder / "ca.crl", make_crl(ca))
    for name in names:
        key, cert = issue(ca, name)
        write_key(folder / f"{name}.key", key)
        write_cert(folder / f"{name}.crt", cert)


def write_config(folder: Path, name: str, lines: Sequence[str]) -> Path:
    path = folder / f"{name}.conf"
    path.touch(0o600)
    own = [f"key {name}.key", f"cert {name}.crt", f"status-file {name}.status", *lines]
    path.write_text("".join(f"{line}\n" for line in own) + COMMON)
    return path


def die_with_parent() -> None:
    """Runs in the child: a demonstration that is killed can end nobody any more."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """One running daemon. `saw` gets each line of its log, `ended` is called when it is gone."""

    def __init__(
        self, name: str, config: Path, space: Namespace,
        saw: Callable[[str, str], None], ended: Callable[[Daemon], None],
    ) -> None:
        self.name = name
        self.status_path = config.with_suffix(".status")
        self.lines: list[str] = []
        self.unfinished = b""
        self.saw = saw
        self.ended = ended
        # The daemon is the same package as this one, wherever that was found.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with space.entered():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloudvpn", config], cwd=config.parent, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True,     # Ctrl-C at the terminal is for us
                preexec_fn=die_with_parent,
            )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        asyncio.get_running_loop().add_reader(self.pipe, self.read)

    def read(self) -> None:
        data = os.read(self.pipe, 65536)
        if not data:
            asyncio.get_running_loop().remove_reader(self.pipe)
            self.ended(self)
            return
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for line in lines:
            self.lines.append(line.decode(errors="replace"))
            self.saw(self.name, self.lines[-1])

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    def is_listening(self) -> bool:
        return self.count(" listening on ") > 0

    def stop(self) -> None:
        """Asks it to end; `wait` waits for that."""
        asyncio.get_running_loop().remove_reader(self.pipe)
        self.process.terminate()

    def wait(self) -> None:
        try:
            self.process.communicate(timeout=STOP_SECONDS)      # reads what it still logs, a full pipe would hold it
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    # The status file.

    def status(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.status_path.read_text()
        return ""

    def find_route(self, mac: str) -> tuple[str, int] | None:
        """The node to which frames for `mac` go first, and how many links there are on the way."""
        status = self.status()
        route = re.search(rf"^route to {mac} \tvia conn (\d+) .*distance (\d+)", status, re.MULTILINE)
        link = route and re.search(rf"^connection {route[1]} .*\n.*\n = certificate `(.+)'", status, re.MULTILINE)
        return (link[1], int(route[2])) if route and link else None

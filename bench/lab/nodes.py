# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons of this project in a laboratory, with throw-away keys of one CA."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.lab.hosts import Host, Lab
from cloudvpn.pki import Issuer, issue, make_ca, write_cert, write_key

OWN_DAEMON = Path(sys.executable).with_name("cloudvpn")
IFACE = "tunnel0"
PORT = 15135


@dataclass(frozen=True)
class Program:
    """Which daemon, and the lines that each of its configurations gets beside what a case needs."""

    command: Path = OWN_DAEMON
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """PEM files of one node."""

    ca: Path
    cert: Path
    key: Path


class Authority:
    """Certifies nodes; all files lie in the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._issuer: Issuer = make_ca("bench")
        self._ca = directory / "ca.crt"
        write_cert(self._ca, self._issuer.cert)

    def identity(self, name: str) -> Identity:
        files = Identity(self._ca, self._directory / f"{name}.crt", self._directory / f"{name}.key")
        key, cert = issue(self._issuer, name)
        write_key(files.key, key)
        write_cert(files.cert, cert)
        return files


class Nodes:
    """Starts nodes of one mesh."""

    def __init__(self, lab: Lab, program: Program, lines: Sequence[str] = ()) -> None:
        self._lab = lab
        self._command = program.command
        self._lines = [*program.lines, *lines]
        self._authority = Authority(lab.directory)

    def start(self, host: Host, *lines: str) -> subprocess.Popen[str]:
        """One node on the host; its interface, if a line asks for one, is IFACE."""
        keys = self._authority.identity(host.name)
        config = self._lab.directory / f"{host.name}.conf"
        text = [f"key {keys.key}", f"cert {keys.cert}", f"ca {keys.ca}", "conn_retry 200ms", *self._lines, *lines]
        config.touch(0o600)
        config.write_text("".join(f"{line}\n" for line in text))
        return self._lab.start(host, self._command, config)

    def start_with_tap(self, host: Host, address: str, *lines: str) -> subprocess.Popen[str]:
        """One node whose interface has the address."""
        return self.start(host, "iface yes", f"iface_dev {IFACE}", f"iface_address {address}/24", *lines)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Eight daemons in a mesh with circles; faults happen on its right half only.

    c --- b       e --- f
    |   / |     / |     |
    | /   |   /   |     |
    d --- a ----- h --- g

Every way to the right half leads through `a`, so no frame between two of a, b, c, d ever has a reason to cross a link
or a node that is broken: they are calm. What `a` does for the others meanwhile must not disturb it.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cloudvpn import pki
from tests.netns.keys import write_private
from tests.netns.lab import Lab, Node, Wire, until

PORT = 4000
NAMES = "abcdefgh"
CALM = frozenset("abcd")
STORMY = "efgh"
CALM_LINKS = ["ba", "da", "bd", "cb", "cd"]     # the first one dials
STORMY_LINKS = ["ea", "ah", "eh", "fe", "fg", "gh"]
STORMY_LINES = ["conn_keepalive 500ms", "conn_timeout 5s"]    # so that a silent cut is noticed while it lasts
COMMAND = [sys.executable, "-m", "tests.soak.daemon"]
PATIENCE = 60.0     # seconds for what takes two on an idle machine
READ = r"info SIGHUP: the configuration, keys, CAs and CRLs were read again"
FAILED = r"error SIGHUP: the configuration stays as it was"


class Mesh:
    """`options` are those of each node that change while the run lasts; `serials`, of all certificates it ever had."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.options: dict[str, dict[str, str]] = {name: {} for name in NAMES}
        self.serials: dict[str, list[int]] = {name: [] for name in NAMES}
        self.revoked: list[int] = []
        self.issuer = pki.make_ca("soak")
        pki.write_cert(self._path("ca.crt"), self.issuer.cert)
        self.write_crl()
        self.wires: dict[str, Wire] = {link: lab.wire(*link) for link in CALM_LINKS + STORMY_LINKS}
        self.nodes: dict[str, Node] = {}
        for name in NAMES:
            self.renew(name)
            self.write(name)
            self.nodes[name] = lab.run_node(name, self._path(f"{name}.conf"), COMMAND)

    def _path(self, name: str) -> Path:
        return self.lab.directory / name

    @staticmethod
    def address(name: str) -> str:
        return f"10.9.0.{NAMES.index(name) + 1}"

    @staticmethod
    def mac(name: str) -> str:
        return f"02:00:00:00:00:{NAMES.index(name) + 1:02x}"

    # Files; each is replaced in one step

    def write(self, name: str, *more: str) -> None:
        """The configuration, with what `options` has for the node, and lines more."""
        own = {link: wire for link, wire in self.wires.items() if name in link}
        lines = [
            f"listen 0.0.0.0 {PORT}",
            *(f"connect {wire.address(link[1])} {PORT}" for link, wire in own.items() if link[0] == name),
            f"key {name}.key", f"cert {name}.key", "ca ca.crt", "crl crl.pem", "crl_required yes",
            "iface yes", "iface_dev tap0", f"iface_address {self.address(name)}/24", f"mac {self.mac(name)}",
            f"status_file {name}.status", "status_format json", "status_interval 300ms",
            "conn_retry 300ms", "handshake_timeout 3s", *([] if name in CALM else STORMY_LINES),
            *(f"{option} {value}" for option, value in self.options[name].items()), *more,
        ]  # fmt: skip
        self._replace(f"{name}.conf", "".join(f"{line}\n" for line in lines).encode())

    def renew(self, name: str) -> None:
        """A new key and its certificate, in one file; the serial number of the one before is still good."""
        key, cert = pki.issue(self.issuer, name)
        self._replace(f"{name}.key", pki.key_to_pem(key) + pki.to_pem(cert))
        self.serials[name].append(cert.serial_number)

    def write_crl(self) -> None:
        self._replace("crl.pem", pki.to_pem(pki.make_crl(self.issuer, self.revoked)))

    def _replace(self, name: str, data: bytes) -> None:
        write_private(self._path(f"{name}-new"), data).rename(self._path(name))

    # What nodes say

    def status(self, name: str) -> dict[str, Any]:
        """Empty while there is none of the process that runs now."""
        node = self.nodes[name]
        try:
            status: dict[str, Any] = json.loads(node.status_file.read_bytes())
        except FileNotFoundError:
            return {}
        return status if status["process"] == node.pid else {}

    def is_whole(self, since: float = 0.0) -> bool:
        """Whether after `since`, of time.time(), all links were up and everybody knew everybody, and no one else."""
        return not any(self.lacks(name, since) for name in NAMES)

    def lacks(self, name: str, since: float) -> str:
        status = self.status(name)
        if not status or datetime.fromisoformat(status["time"].replace("Z", "+00:00")).timestamp() < since:
            return f"{name} has written no status"
        peers = Counter(link["certificate"] for link in status["links"] if link["ping_us"])
        wanted = Counter(link.replace(name, "") for link in self.wires if name in link)
        if peers != wanted or len(status["links"]) != len(wanted):
            return f"{name} has links to {sorted(peers)}, not {sorted(wanted)}"
        if len(status["nodes"]) != len(NAMES):
            return f"{name} knows {len(status['nodes'])} nodes"
        macs = {route["mac"] for route in status["routes"]}
        return "" if macs.issuperset(map(self.mac, NAMES)) else f"{name} knows {len(macs)} MACs"

    def wait_whole(self, patience: float = PATIENCE) -> None:
        """Twice: one node may have written its status before another one saw what is new."""
        since = time.time()
        try:
            until(lambda: self.is_whole(since), patience, "the mesh is whole")
            since = time.time()
            until(lambda: self.is_whole(since), patience, "the mesh is whole")
        except AssertionError:
            lacking = [text for name in NAMES if (text := self.lacks(name, since))]
            raise AssertionError(f"the mesh is not whole after {patience:.0f} s: {'; '.join(lacking)}") from None

    # What is done to them

    def reload(self, names: str | Sequence[str], answer: str = READ) -> None:
        """SIGHUP to all of them; returns when all have answered so."""
        before = {name: self.count_lines(name, answer) for name in names}
        for name in names:
            self.nodes[name].signal(signal.SIGHUP)
        for name in names:
            self.nodes[name].wait_log(answer, PATIENCE, before[name] + 1)

    def count_lines(self, name: str, pattern: str) -> int:
        return len(re.findall(pattern, self.nodes[name].log_text(), re.MULTILINE))

    def state(self, name: str) -> str:
        """Of the process: R, S, T (stopped), ..."""
        return Path(f"/proc/{self.nodes[name].pid}/stat").read_text().rpartition(") ")[2][0]

    def stop_all(self) -> dict[str, int]:
        """SIGTERM; the exit code of each."""
        for node in self.nodes.values():
            node.signal(signal.SIGTERM)
        return {name: node.wait(PATIENCE) for name, node in self.nodes.items()}

# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a tunnel in a laboratory, and the interface that a tunnel gives them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.lab.hosts import Host, Lab
from bench.lab.load import Way
from bench.lab.nodes import IFACE

INNER = "198.19.0.1", "198.19.0.2"
NETWORK = "198.19.0.0/24"


@dataclass(frozen=True)
class End:
    host: Host
    outer: str      # address on the wire
    inner: str      # in the tunnel
    iface: str

    @property
    def name(self) -> str:
        return self.host.name


class Ends:
    """Hosts `a` and `b`, with a wire between them, and what their tunnel's interfaces shall be called."""

    def __init__(self, lab: Lab, ifaces: tuple[str, str] = (IFACE, IFACE)) -> None:
        self.lab = lab
        hosts = lab.host("a"), lab.host("b")
        outer = lab.wire(*hosts)
        self.a, self.b = (End(*end) for end in zip(hosts, outer, INNER, ifaces, strict=True))

    @property
    def both(self) -> tuple[tuple[End, End], tuple[End, End]]:
        """Each end with the other one."""
        return (self.a, self.b), (self.b, self.a)

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Writes a file; the name may have folders in it."""
        path = self.lab.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode)
        path.write_text(text)
        return path

    def wait_for_ifaces(self) -> None:
        for end, _ in self.both:
            self.lab.until(partial(end.host.has, end.iface), f"{end.iface} on {end.name}")

    def address_ifaces(self, mtu: int | None = None) -> None:
        """Gives the tunnel's interfaces their addresses, as soon as they are there."""
        self.wait_for_ifaces()
        for end, _ in self.both:
            end.host.bring_up(end.iface, end.inner, mtu)

    def way(self) -> list[Way]:
        """Through the tunnel, from `b` to `a`."""
        return [Way(self.b.host, self.a.host, self.a.inner)]

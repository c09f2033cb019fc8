# SPDX-License-Identifier: GPL-3.0-or-later
"""The status file: what an operator looks at, in the layout of 2009, always whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from cloudvpn._fast.link import Link
from cloudvpn.expiry import find_endings
from cloudvpn.interface import Interface
from cloudvpn.log import escape
from cloudvpn.mesh import Mesh
from cloudvpn.options import SECOND, Config
from cloudvpn.tap import format_mac
from cloudvpn.traffic import Traffic, traffic_of

log = logging.getLogger("cloudvpn")

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_bytes(count: float) -> str:
    """As 2009 wrote them: 40B, 2.73KiB."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f}{UNITS[unit]}" if unit == 0 else f"{count:.2f}{UNITS[unit]}"


class StatusFile:
    """Writes the file each status-interval. A full disk or a missing folder is logged once and tried again."""

    def __init__(self, config: Config, mesh: Mesh, interface: Interface | None) -> None:
        assert config.status_file is not None
        self.config = config
        self.path: Path = config.status_file
        self.mesh = mesh
        self.switch = mesh.switch
        self.interface = interface
        self.begun = mesh.loop.time()
        self.written = self.begun
        self.before: dict[Link, Traffic] = {}
        self.total_before = Traffic()
        self.timer: asyncio.TimerHandle | None = None
        self.complaint: str | None = None

    def start(self) -> None:
        self.write()
        self.timer = self.mesh.loop.call_later(self.config.status_interval / SECOND, self.start)

    def stop(self) -> None:
        """The file goes with the daemon: an old status would be taken for a new one."""
        if self.timer is not None:
            self.timer.cancel()
            with contextlib.suppress(OSError):      # it may never have been there
                self.path.unlink()

    def write(self) -> None:
        try:
            self.replace("\n".join(self.lines()) + "\n")
            self.complaint = None
        except OSError as error:
            complaint = f"{self.path}: {error.strerror}"    # the error names a temporary file, each time another one
            if complaint != self.complaint:
                self.complaint = complaint
                log.error("status-file: %s", complaint)

    def replace(self, text: str) -> None:
        """A reader sees the old text or the new one, never a part."""
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with open(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
            os.replace(temporary, self.path)
        except OSError:
            os.unlink(temporary)
            raise

    # The text.

    def lines(self) -> Iterator[str]:
        now = self.mesh.loop.time()
        seconds = max(now - self.written, 1e-6)
        links = sorted((link for link in self.mesh.links if link.index), key=lambda link: link.index)
        yield "cloudvpn status"
        yield f"uptime: {now - self.begun:.6g}s"
        yield ""
        if self.interface is None:
            yield "local interface: none"
        elif self.interface.state is None:
            yield f"local interface: {self.interface.name} is gone"
        else:
            yield f"local interface: {format_mac(self.interface.state.mac)}"
        yield f"listening sockets: {len(self.mesh.listeners)}"
        yield ""
        yield f"connections: {len(links)}"
        for link in links:
            yield from self.link_lines(link, now, seconds)
        yield "---"
        yield ""
        total = self.total()
        yield from traffic_lines("total ", total, self.total_before, seconds)
        yield "---"
        yield ""
        yield from self.route_lines()
        yield "---"
        yield ""
        yield from self.counter_lines()
        yield "---"
        self.before = {link: traffic_of(link) for link in links}
        self.total_before = total
        self.written = now

    def link_lines(self, link: Link, now: float, seconds: float) -> Iterator[str]:
        routes = self.switch.routes
        info = link.info
        yield (f"connection {link.index - 1} \tping {link.echo.ping} \troute count {routes.count_of(link.index)} "
               f"\t(fd {info.descriptor})")
        yield f" = connected to addr `{info.remote[0]} {info.remote[1]}'"
        if info.identity is not None:
            yield f" = certificate `{escape(info.identity.name)}', {info.protocol}, version {link.version}"
        yield f" = connected for {now - info.opened:.6g} seconds"
        yield from traffic_lines("", traffic_of(link), self.before.get(link, Traffic()), seconds)
        if link.frames_dropped or link.queue.waiting_data:
            yield f" = waiting {link.queue.waiting_data} frames, dropped {link.frames_dropped}"
        if self.config.status_verbose:
            for mac, dist, ping in sorted(routes.offered_by(link.index)):
                yield f" `--route to {format_mac(mac)} \tdist {dist} \tping {ping}"

    def total(self) -> Traffic:
        return sum((traffic_of(link) for link in self.mesh.links), self.mesh.ended_traffic)

    def route_lines(self) -> Iterator[str]:
        best = sorted(self.switch.routes.best())
        yield f"local route count: {len(best)}"
        for mac, port, ping, dist in best:
            yield f"route to {format_mac(mac)} \tvia conn {port - 1} \tping {ping} \tdistance {dist}"

    def counter_lines(self) -> Iterator[str]:
        """What 2009 did not have: where frames went, each lost one by its reason."""
        switch, routes = self.switch, self.switch.routes
        if self.interface is not None:
            yield self.interface.describe()
        yield (f"frames: from interface {switch.frames_from_tap}, to interface {switch.frames_to_tap}, "
               f"from links {switch.frames_from_links}, to links {switch.frames_to_links}, copies {switch.copies}")
        yield "dropped: " + ", ".join(f"{reason} {count}" for reason, count in switch.dropped().items())
        yield (f"routes refused: own {routes.refused_own}, far {routes.refused_far}, full {routes.refused_full}; "
               f"broadcast ids that came back after they were forgotten {switch.ids.came_back}")
        now = datetime.now(timezone.utc)
        for ending in find_endings(self.mesh.credentials, self.mesh.peers(), now):
            yield f"expiring: {ending.describe(now)}"
        yield "links: " + (", ".join(f"{name} {count}" for name, count in sorted(self.mesh.counters.items()))
                           or "none yet")


def traffic_lines(label: str, now: Traffic, before: Traffic, seconds: float) -> Iterator[str]:
    for arrow, direction, count, packets, old_count, old_packets in (
        (">>", "in  ", now.bytes_in, now.packets_in, before.bytes_in, before.packets_in),
        ("<<", "out ", now.bytes_out, now.packets_out, before.bytes_out, before.packets_out),
    ):
        yield (f" {arrow} {label}{direction}{format_bytes((count - old_count) / seconds)}/s, "
               f"{(packets - old_packets) / seconds:.0f}pkt/s; total {format_bytes(count)}, {packets}pkt")

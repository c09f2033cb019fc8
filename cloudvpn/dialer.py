# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps dialling one `connect`: resolves the name, tries every address, waits while the link lives, begins again."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import socket

from cloudvpn.doorway import Address
from cloudvpn.log import escape
from cloudvpn.mesh import LinkInfo, Mesh, format_address
from cloudvpn.names import Found
from cloudvpn.options import SECOND, Endpoint
from cloudvpn.sockets import connect, tune, usable
from cloudvpn.tls import handshake_reason

log = logging.getLogger("cloudvpn")

class Dialer:
    """One target. Its failures are logged when they change, so that years of a missing peer fill no log."""

    def __init__(self, mesh: Mesh, target: Endpoint) -> None:
        self.mesh = mesh
        self.target = target
        self.ourselves: set[Address] = set()    # addresses that turned out to be this node
        self.complaint = ""
        self.info: LinkInfo | None = None       # of the last attempt
        self.lasting = mesh.keep(self.run)

    def stop(self) -> None:
        """The target is no longer configured: no more attempts, and its link is closed."""
        self.mesh.drop(self.lasting)
        for link in [link for link in self.mesh.links if link.info is self.info]:
            link.close(f"connect {self.target.host} {self.target.port} is no longer configured")

    async def run(self) -> None:
        while True:
            try:
                await self.try_all()
            except MemoryError:
                self.fail(os.strerror(errno.ENOMEM))
            except Exception:   # whatever it was, it may go better the next time
                log.exception("internal error while dialling %s %s", self.target.host, self.target.port)
            # Less than the pause, never more: nodes that lost the same peer do not come back in one instant.
            await asyncio.sleep(self.mesh.config.conn_retry / SECOND * random.uniform(0.75, 1.0))

    async def try_all(self) -> None:
        """Dials the addresses in turn until one becomes a link; returns when that link has ended, or none was made."""
        for family, address in await self.resolve():
            if self.mesh.is_full():
                self.complain(self.mesh.fullness())
                return
            if address in self.ourselves:
                continue
            info = await self.dial(family, address)
            if info is None:
                continue
            # Shielded: who cancels this task, to shut down, still waits for the link to end.
            if await asyncio.shield(info.settled):
                self.complaint = ""
                await asyncio.shield(info.ended)
                return
            if info.is_ourselves:
                self.ourselves.add(address)
                log.warning("%s is this node itself: it is not dialled again", format_address(address))

    async def resolve(self) -> list[Found]:
        try:
            return list(dict.fromkeys(await self.mesh.look_up(self.target)))
        except OSError as error:
            self.fail(error.strerror or str(error))
            return []

    async def dial(self, family: socket.AddressFamily, address: Address) -> LinkInfo | None:
        """One attempt: None if the TCP connection or the TLS handshake failed."""
        mesh = self.mesh
        try:
            connection = usable(mesh.loop, socket.socket(family, socket.SOCK_STREAM))
        except OSError as error:
            self.fail(error.strerror or str(error))
            return None
        try:
            tune(connection, mesh.config)
            await asyncio.wait_for(
                connect(connection, address), mesh.config.handshake_timeout / SECOND)
            if mesh.is_full():      # meanwhile
                connection.close()
                self.complain(mesh.fullness())
                return None
            info = self.info = LinkInfo(connection.getpeername(), mesh.loop.time(), self.target)
            await mesh.open_link(connection, info)
        except (OSError, asyncio.TimeoutError) as error:
            connection.close()
            where = "" if address[0] == self.target.host else f"{format_address(address)}: "
            self.fail(where + handshake_reason(error))
            return None
        except BaseException:
            connection.close()
            raise
        return info

    def fail(self, reason: str) -> None:
        self.mesh.counters["dials_failed"] += 1
        self.complain(reason)

    def complain(self, reason: str) -> None:
        complaint = f"no link to {self.target.host} {self.target.port}: {escape(reason)}"
        log.log(logging.DEBUG if complaint == self.complaint else logging.WARNING, "%s", complaint)
        self.complaint = complaint

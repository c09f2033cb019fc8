# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket options of links: how small packets leave, and what class of service they ask of the network."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Final

from cloudvpn.options import Config

# Linux: bytes that may stand unsent in the kernel. Without it a stopped peer takes 4 MB before the transport pauses,
# where nothing can overtake, be dropped or be counted.
TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
NOTSENT_BYTES: Final = 16384
# The bits of RFC 1349. That of mincost, 0x02, marks congestion since RFC 3168, and Linux keeps it out of the hands of
# TCP programs; class selector 1 is what came after it: lower effort (RFC 3662).
SERVICES: Final = {None: 0, "lowdelay": 0x10, "throughput": 0x08, "reliability": 0x04, "mincost": 0x20}


def tune(connection: socket.socket, config: Config) -> None:
    """Sets what the configuration says of a TCP socket, listening, dialling or connected. Raises OSError.

    What a listening socket has, SYN-ACKs and accepted sockets have too; a socket that dials needs it before the SYN.
    """
    service = SERVICES[config.ip_tos]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, config.tcp_nodelay)
    connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, service)    # of IPv6 sockets: for ::ffff:192.0.2.1
    if connection.family == socket.AF_INET6:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, service)


def usable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> socket.socket:
    """The same connection, non-blocking, under a number that the loop can watch. Raises OSError.

    A transport that found no memory to close keeps its number to itself, also after the descriptor is gone.
    """
    try:
        loop.remove_reader(connection)      # there is none: it only asks
    except RuntimeError:
        with connection as unusable:
            connection = unusable.dup()
    connection.setblocking(False)
    return connection


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def connect(connection: socket.socket, address: tuple[Any, ...]) -> None:
    """A non-blocking socket. Raises OSError. That of the loop would have name servers asked of numeric addresses."""
    loop = asyncio.get_running_loop()
    try:
        connection.connect(address)
    except BlockingIOError:
        connected: asyncio.Future[None] = loop.create_future()
        loop.add_writer(connection, settle, connected)
        try:
            await connected
        finally:
            loop.remove_writer(connection)
        if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number)) from None


def limit_unsent(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES)

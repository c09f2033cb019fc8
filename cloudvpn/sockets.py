# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket options of links: how small packets leave, and what class of service they ask of the network."""

from __future__ import annotations

import socket
from typing import Final

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


def limit_unsent(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES)

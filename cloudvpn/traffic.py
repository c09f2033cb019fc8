# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums of what went over links."""

from __future__ import annotations

from dataclasses import dataclass

from cloudvpn._fast.link import Link


@dataclass(frozen=True)
class Traffic:
    """Bytes inside TLS and packets, both ways, since the link or the node began."""

    bytes_in: int = 0
    packets_in: int = 0
    bytes_out: int = 0
    packets_out: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.bytes_in + other.bytes_in, self.packets_in + other.packets_in,
            self.bytes_out + other.bytes_out, self.packets_out + other.packets_out,
        )


def traffic_of(link: Link) -> Traffic:
    return Traffic(link.bytes_in, link.packets_in, link.bytes_out, link.packets_out)

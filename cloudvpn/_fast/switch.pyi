# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Sequence

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.router import Router
from cloudvpn._fast.segment import Offload

class Switch(Router):
    ids: IdCache
    max_frame: int
    multi_ratio: int
    promisc: bool
    broadcast_send: bool
    broadcast_nocopy: bool
    broadcast_limit: int
    frames_from_tap: int
    frames_from_links: int
    frames_to_tap: int
    copies: int
    def __init__(
        self,
        routes: RouteTable,
        ids: IdCache,
        random: RandomSource,
        *,
        max_frame: int = 8192,
        keepalive: int = 5_000_000,
        timeout: int = 60_000_000,
        max_waiting: int = ...,
        max_nodes: int = 1024,
        max_link_claims: int = 65536,
    ) -> None: ...
    def set_policy(
        self,
        *,
        multi_ratio: int = 0,
        promisc: bool = False,
        ignore_macs: bool = False,
        broadcast_send: bool = False,
        broadcast_nocopy: bool = False,
        allowed: Sequence[int] = (),
        broadcast_limit: int = 0,
    ) -> None: ...
    def receive(self, port: Port, data: bytes | memoryview, now: int) -> int: ...
    def send_from_tap(self, frame: bytes, offload: Offload = ..., now: int = 0) -> None: ...

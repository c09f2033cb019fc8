# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Callable, Sequence

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port, Tap
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.segment import Offload
from cloudvpn._fast.sendq import SendQueue

DROP_NAMES: tuple[str, ...]

class Switch:
    routes: RouteTable
    ids: IdCache
    own_mac: int
    node_id: int
    max_frame: int
    max_ports: int
    multi_ratio: int
    promisc: bool
    ignore_macs: bool
    broadcast_send: bool
    broadcast_nocopy: bool
    broadcast_limit: int
    attached_count: int
    up_count: int
    waiting_total: int
    frames_from_tap: int
    frames_from_links: int
    frames_to_tap: int
    frames_to_links: int
    copies: int
    echoes_unasked: int
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
    ) -> None: ...
    def attach(self, port: Port, queue: SendQueue, now: int, version: int = 1) -> None: ...
    def detach(self, port: Port) -> None: ...
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
    def set_tap(self, tap: Tap | None, mac: int) -> None: ...
    def beat(self, now: int) -> list[Port]: ...
    def receive(self, port: Port, data: bytes | memoryview, now: int) -> int: ...
    def send_from_tap(self, frame: bytes, offload: Offload = ..., now: int = 0) -> None: ...
    def pause(self, port: Port, paused: bool) -> None: ...
    def flush(self, now: int) -> None: ...
    def set_alarm(self, alarm: Callable[[int], None] | None) -> None: ...
    def set_limits(
        self, now: int, *, up: tuple[int, int, int] = ..., down: tuple[int, int, int] = ...
    ) -> None: ...
    def ports(self) -> list[Port]: ...
    def dropped(self) -> dict[str, int]: ...

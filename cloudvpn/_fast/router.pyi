# SPDX-License-Identifier: GPL-3.0-or-later
from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.port import Port, Tap
from cloudvpn._fast.ports import Ports
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue

class Router(Ports):
    routes: RouteTable
    nodes: NodeTable
    hosts: HostTable
    own_mac: int
    node_id: int
    ignore_macs: bool
    learns: bool
    echoes_unasked: int
    links_doubted: int
    links_slowed: int
    slowed_port: int
    def attach(self, port: Port, queue: SendQueue, now: int, version: int = 1) -> None: ...
    def detach(self, port: Port, now: int = 0) -> None: ...
    def set_tap(self, tap: Tap | None, mac: int) -> None: ...
    def set_learning(self, on: bool, mac_age: int = ..., max_local_macs: int = ...) -> None: ...
    def beat(self, now: int, wall: int = 0) -> list[Port]: ...
    def way_to(self, mac: int) -> int | None: ...
    def known(self) -> list[tuple[int, int, int, int, str, int]]: ...
    @property
    def known_count(self) -> int: ...
    def routing_counters(self) -> dict[str, dict[str, int]]: ...

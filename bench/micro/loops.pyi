# SPDX-License-Identifier: GPL-3.0-or-later
from array import array

from cloudvpn._fast.hosts import HostTable
from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.nodes import NodeTable
from cloudvpn._fast.port import Port
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.segment import Offload
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch

class Loop:
    ops: int
    op_bytes: int
    def prepare(self) -> None: ...
    def run(self) -> int: ...

class Parse(Loop):
    def __init__(self, stream: bytes, packets: int, rounds: int, version: int) -> None: ...

class Checksum(Loop):
    def __init__(self, areas: bytes, size: int, rounds: int) -> None: ...

class CutFrame(Loop):
    def __init__(self, frame: bytes, offload: Offload, rounds: int) -> None: ...

class Coalesce(Loop):
    def __init__(self, frames: bytes, size: int, rounds: int) -> None: ...

class Lookup(Loop):
    def __init__(self, routes: RouteTable, macs: array[int], known: bool, rounds: int) -> None: ...

class RouteUpdate(Loop):
    def __init__(self, routes: RouteTable, port: int, before: bytes, after: bytes, *, whole: bool = False) -> None: ...

class NodeLookup(Loop):
    def __init__(self, nodes: NodeTable, ids: array[int], rounds: int) -> None: ...

class NodeUpdate(Loop):
    def __init__(self, nodes: NodeTable, before: bytes, after: bytes) -> None: ...


class HostLookup(Loop):
    def __init__(self, hosts: HostTable, macs: array[int], rounds: int) -> None: ...

class HostLearn(HostLookup): ...

class HostChange(Loop):
    def __init__(self, hosts: HostTable, packets: list[bytes]) -> None: ...

class NewIds(Loop):
    def __init__(self, ids: IdCache, ops: int) -> None: ...

class SeenIds(NewIds): ...

class Queue(Loop):
    def __init__(self, queue: SendQueue, packet: bytes, ops: int) -> None: ...

class Drain(Port): ...

class LinkStep(Loop):
    def __init__(
        self, switch: Switch, stream: bytes, drains: list[Drain], frames: int, rounds: int, source: Drain
    ) -> None: ...

class TapStep(Loop):
    def __init__(self, switch: Switch, stream: bytes, drains: list[Drain], frames: int, rounds: int) -> None: ...

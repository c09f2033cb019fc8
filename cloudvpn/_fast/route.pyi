# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Iterable

from cloudvpn._fast.random import RandomSource

class RouteTable:
    max_ports: int
    max_port_routes: int
    max_offers: int
    max_dist: int
    report_above: int
    mesh_port: int
    rule_2009: bool
    tracks: bool
    @property
    def held_count(self) -> int: ...
    way_changes: int
    holds: int
    unfeasible: int
    destination_count: int
    offer_count: int
    change_count: int
    crossing_count: int
    refused_own: int
    refused_far: int
    refused_full: int
    def __init__(
        self,
        max_ports: int,
        max_port_routes: int,
        random: RandomSource,
        *,
        max_dist: int = 64,
        report_above: int = 5000,
        max_offers: int = ...,
        rule_2009: bool = False,
    ) -> None: ...
    def open_port(self, port: int) -> None: ...
    def close_port(self, port: int) -> None: ...
    def measure_port(self, port: int, ping: int) -> None: ...
    def apply(self, port: int, entries: bytes, whole: bool) -> None: ...
    def set_local(self, mac: int, present: bool) -> None: ...
    def port_to(self, mac: int) -> int | None: ...
    def asks_again(self, port: int) -> bool: ...
    def set_mesh(
        self,
        mac: int,
        ping: int,
        dist: int,
        exclusive: bool = False,
        beyond_ping: int = 0,
        beyond_dist: int = 0,
    ) -> bool: ...
    def follow(self, on: bool) -> None: ...
    def crossed(self) -> list[tuple[int, int | None, int | None, int | None]]: ...
    def told(self, whole: bool, port: int = ...) -> bytes: ...
    def beat(self, ports: Iterable[int]) -> list[bytes]: ...
    def best(self) -> list[tuple[int, int, int, int]]: ...
    def offered_by(self, port: int) -> list[tuple[int, int, int]]: ...
    def count_of(self, port: int) -> int: ...

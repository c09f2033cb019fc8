# SPDX-License-Identifier: GPL-3.0-or-later
from cloudvpn._fast.random import RandomSource

class ClaimTable:
    me: int
    max_ports: int
    max_claims: int
    max_own: int
    max_owners: int
    tracks: bool
    conflicts: int
    conflict_mac: int
    conflict_owners: list[int]
    moves: int
    refused_owners: int
    def __init__(
        self,
        me: int,
        max_ports: int,
        random: RandomSource,
        *,
        max_link_claims: int = 65536,
        max_local: int = 4096,
        mac_age: int = 300_000_000,
        max_claims: int = ...,
        max_owners: int = 4096,
        report_above: int = 5000,
    ) -> None: ...
    def best(self) -> list[tuple[int, int, int, int, int, str, int]]: ...
    def claims_of_all(self) -> list[tuple[int, int, int, int, int, int]]: ...
    def where(self, mac: int) -> tuple[int, int] | None: ...
    def redirected(self, mac: int) -> tuple[int, int] | None: ...
    def beyond(self, mac: int) -> tuple[int, int, int, str] | None: ...
    def has(self, mac: int) -> bool: ...
    def follow_changes(self, on: bool) -> None: ...
    def changed(self) -> list[tuple[int, int | None, int, int, str]]: ...

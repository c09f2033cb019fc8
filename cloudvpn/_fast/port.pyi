# SPDX-License-Identifier: GPL-3.0-or-later
from cloudvpn._fast.echo import EchoMeter
from cloudvpn._fast.sendq import SendQueue

class Port:
    index: int
    version: int
    peer_id: int
    is_ourselves: bool
    up: bool
    paused: bool
    failed: bool
    slowed: bool
    queue: SendQueue
    echo: EchoMeter
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    frames_in: int
    frames_out: int
    frames_dropped: int
    protocol_refused: int
    broadcasts_in: int
    broadcasts_refused: int
    unicasts_refused: int
    def flush(self) -> None: ...
    def set_reading(self, wanted: bool) -> None: ...
    def came_up(self) -> None: ...
    def take(self) -> bytes | None: ...

class Tap:
    def set_wanted(self, wanted: bool) -> None: ...
    def take_frame(self, frame: bytes) -> bool: ...

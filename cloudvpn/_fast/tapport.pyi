# SPDX-License-Identifier: GPL-3.0-or-later
from asyncio import AbstractEventLoop
from collections.abc import Callable

from cloudvpn._fast.port import Tap
from cloudvpn._fast.switch import Switch

class TapPort(Tap):
    fd: int
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int
    write_errno: int
    def __init__(self, loop: AbstractEventLoop, switch: Switch, lost: Callable[[int], None]) -> None: ...
    def open(self, fd: int) -> None: ...
    def close(self) -> None: ...
    def readable(self) -> None: ...

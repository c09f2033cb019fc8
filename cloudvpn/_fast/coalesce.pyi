# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Iterable

from cloudvpn._fast.segment import Offload

def coalesce(frames: Iterable[bytes], udp: bool = True) -> list[tuple[Offload, bytes]]: ...

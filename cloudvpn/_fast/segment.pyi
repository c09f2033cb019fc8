# SPDX-License-Identifier: GPL-3.0-or-later
from typing import TypeAlias

# flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
Offload: TypeAlias = tuple[int, int, int, int, int, int]

def cut(frame: bytes, offload: Offload) -> list[bytes]: ...

# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there memory for what is about to be begun; how does memory that a peak took go back to the system?"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

# Of glibc, which else keeps what lies free between other things. Other C libraries have their own ways.
_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)

FOR_A_LINK: Final = 2 << 20     # bytes, of which a handshake takes the most
FOR_FILES: Final = 16 << 20     # bytes, for certificates and long revocation lists


def require(size: int) -> None:
    """Raises MemoryError unless this process may have so many bytes more.

    What is open must be able to go on, so new things are refused before the last byte is taken. And cryptography, whose
    parsers are written in Rust, ends the process where it finds none.
    """
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        raise MemoryError(error.strerror) from error


def give_back() -> None:
    """Takes some milliseconds for each ten MB that go."""
    if _malloc_trim is not None:
        _malloc_trim(0)

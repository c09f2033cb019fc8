# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there memory for what is about to be begun; how is memory not taken at all, or given back to the system?"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

# Of glibc, which else keeps what lies free between other things. Other C libraries have their own ways.
_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt: Final = getattr(ctypes.CDLL(None), "mallopt", None)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES: Final = 1 << 17

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


def map_tables() -> None:
    """From now on only the used part of a table takes memory, and goes back when the table does.

    For processes that make switches again and again: glibc takes new tables from where old ones were, once it has seen
    some go, and then has to write all of it.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def share_arena() -> None:
    """All threads that start from now on take memory from where the first one does.

    For processes whose threads have little to do: each would have an arena of its own, and keep what lies free there.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)

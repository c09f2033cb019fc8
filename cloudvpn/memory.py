# SPDX-License-Identifier: GPL-3.0-or-later
"""How does memory that a peak took go back to the system?"""

from __future__ import annotations

import ctypes
from typing import Final

# Of glibc, which else keeps what lies free between other things. Other C libraries have their own ways.
_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Takes some milliseconds for each ten MB that go."""
    if _malloc_trim is not None:
        _malloc_trim(0)

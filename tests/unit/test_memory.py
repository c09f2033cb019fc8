# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the memory of threads comes from."""

import ctypes
import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, threading
from cloudvpn.memory import share_arena

if sys.argv[1] == "shared":
    share_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(4):
    thread = threading.Thread(target=libc.malloc, args=(1000,))
    thread.start()
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def heaps(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True)
    return ran.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="this C library has no arenas")
def test_threads_of_the_daemon_have_no_arena_of_their_own() -> None:
    assert heaps("shared") == 1
    assert heaps("else") > 1

# SPDX-License-Identifier: GPL-3.0-or-later
"""Something that happens again and again beside a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(work: Callable[[], None], interval: float) -> Iterator[None]:
    """In a thread, with so many seconds between two turns, while the block runs."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(interval):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

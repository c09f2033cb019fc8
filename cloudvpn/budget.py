# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of the processor may some work take?"""

from __future__ import annotations

import time


class Budget:
    """A share of one processor as a bucket of seconds. Work that is done `with` it is charged."""

    def __init__(self, share: float, most: float) -> None:
        self.share = share      # of one processor, over 0
        self.most = most        # seconds that may be saved up
        self.left = most
        self.counted = time.monotonic()
        self.begun = 0.0

    def __enter__(self) -> None:
        self.begun = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.left -= time.thread_time() - self.begun

    def pause(self) -> float:
        """Seconds until there is something to spend; 0: there is."""
        now = time.monotonic()
        self.left = min(self.most, self.left + self.share * (now - self.counted))
        self.counted = now
        return max(0.0, -self.left / self.share)

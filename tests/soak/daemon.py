# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon, which on SIGUSR2 also says how much it holds: `python -m tests.soak.daemon NODE.conf`.

What it says is in NODE.held: process id, asyncio tasks, blocks of memory that Python's allocator has given out. The
file is there as soon as the signal may be sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cloudvpn.cli import main


def tell(file: Path) -> None:
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:    # the loop does not run yet, or any more
        tasks = 0
    new = file.with_suffix(".held-new")
    new.write_text(f"{os.getpid()} {tasks} {sys.getallocatedblocks()}\n")
    new.rename(file)


if __name__ == "__main__":
    held = Path(sys.argv[1]).with_suffix(".held")
    signal.signal(signal.SIGUSR2, lambda *_: tell(held))
    tell(held)
    main()

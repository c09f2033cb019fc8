# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests start from, and what they leave."""

import gc
import os
from pathlib import Path

import pytest

# Configurations that tests write must pass `strict_permissions`, whatever the user's umask is.
os.umask(0o022)

GROWTH_MAX = 100_000_000    # bytes
_kept = 0


def _resident() -> int:
    """Bytes; 0 where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Meshes are circles of objects with megabytes of tables each, of which the collector sees only the objects."""
    global _kept
    if _resident() > _kept + GROWTH_MAX:
        gc.collect()
        _kept = _resident()

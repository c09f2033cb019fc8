# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures this daemon beside other tunnels, between two network namespaces of this machine."""

from __future__ import annotations

import sys

from bench.lab.command import main
from bench.peers.report import keep, show
from bench.peers.tunnels import subjects

if __name__ == "__main__":
    try:
        sys.exit(main("bench.peers", str(__doc__), subjects, show, keep))
    except KeyboardInterrupt:
        sys.exit(130)

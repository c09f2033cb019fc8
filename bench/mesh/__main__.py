# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures chains and a star of daemons, each in a network namespace of this machine."""

from __future__ import annotations

import sys

from bench.lab.command import DOCUMENT, main
from bench.lab.results import Results
from bench.lab.table import markdown, put_table
from bench.mesh.shapes import subjects


def show(results: Results) -> str:
    return markdown(results, "mesh")


def keep(results: Results) -> None:
    put_table(DOCUMENT, "bench-mesh", show(results))


if __name__ == "__main__":
    try:
        sys.exit(main("bench.mesh", str(__doc__), subjects, show, keep))
    except KeyboardInterrupt:
        sys.exit(130)

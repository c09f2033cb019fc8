# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run says: the table, this project against some of the others, and where both are kept."""

from __future__ import annotations

from collections.abc import Callable

from bench.lab.command import DOCS, DOCUMENT
from bench.lab.results import Figures, Results
from bench.lab.table import markdown, put_table
from bench.peers.tunnels import OURS

PICTURE = DOCS / "bench-peers.png"

# What is compared: its name, with whom, and the figure.
COMPARISONS: tuple[tuple[str, tuple[str, ...], Callable[[Figures], float]], ...] = (
    ("TCP, 1 stream", ("veth", "vtun", "wireguard_go"), lambda figures: figures.tcp_mbit),
    ("UDP 64 B", ("vtun",), lambda figures: figures.udp_kpps),
    ("RTT", ("tinc",), lambda figures: figures.rtt_us),
    ("CPU s per GB", ("vtun",), lambda figures: figures.cpu_s_per_gb),
)


def show(results: Results) -> str:
    return "\n\n".join([markdown(results, "tunnel"), *comparisons(results)])


def comparisons(results: Results) -> list[str]:
    """The table of ratios, if what it compares was measured."""
    rows = {name: row.median for name, row in results.rows.items() if row.runs}
    columns = [
        (f"{what}, x {other}", other, figure)
        for what, others, figure in COMPARISONS for other in others if other in rows
    ]
    ours = [name for name in OURS if name in rows]
    if not ours or not columns:
        return []
    lines = [f"| | {' | '.join(heading for heading, _, _ in columns)} |", "|---|" + "---:|" * len(columns)]
    for name in ours:
        ratios = [f"{figure(rows[name]) / figure(rows[other]):.2f}" for _, other, figure in columns]
        lines.append(f"| `{name}` | {' | '.join(ratios)} |")
    return ["\n".join(lines)]


def keep(results: Results) -> None:
    """Puts the tables into the document and draws the picture beside it."""
    from bench.peers.picture import draw  # here, since nothing else needs matplotlib

    put_table(DOCUMENT, "bench-peers", show(results))
    draw(results, PICTURE)

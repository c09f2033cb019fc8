# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as a Markdown table, and where it stands in a document."""

from __future__ import annotations

import math
from pathlib import Path

from bench.lab.results import Figures, Results

HEADINGS = (
    "TCP, 1 stream, Mbit/s",
    "TCP, 4 streams, Mbit/s",
    "UDP 64 B, kpps",
    "RTT, us",
    "RTT under load, us",
    "pings lost under load",
    "CPU s per GB",
)


def markdown(results: Results, subject: str) -> str:
    """The table with what it was measured on; `subject` heads the first column."""
    lines = [row_of([subject, *HEADINGS]), "|---|" + "---:|" * len(HEADINGS)]
    for name, row in results.rows.items():
        cells = cells_of(row.median) if row.runs else ["failed"] + [""] * (len(HEADINGS) - 1)
        lines.append(row_of([f"`{name}` {row.title}", *cells]))
    machine = results.machine
    lines += [
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}; medians of "
        f"{results.rounds} rounds in turn, {results.seconds} s each.",
    ]
    if results.missing:
        lines.append(f"Not installed, not measured: {', '.join(results.missing)}.")
    return "\n".join(lines)


def cells_of(figures: Figures) -> list[str]:
    return [
        f"{figures.tcp_mbit:,.0f}",
        f"{figures.tcp_streams_mbit:,.0f}",
        f"{figures.udp_kpps:,.0f}",
        rtt(figures.rtt_us),
        rtt(figures.loaded_rtt_us),
        f"{figures.loaded_lost:.0f}",
        f"{figures.cpu_s_per_gb:.2f}",
    ]


def rtt(microseconds: float) -> str:
    return "none came back" if math.isnan(microseconds) else f"{microseconds:,.0f}"


def row_of(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def put_table(document: Path, name: str, table: str) -> None:
    """Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`; without them it raises ValueError."""
    text = document.read_text()
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, finish, after = rest.partition(f"<!-- /{name} -->")
    if not begin or not finish:
        raise ValueError(f"{document} has no place for the table {name}")
    document.write_text(f"{before}{begin}\n{table}\n\n{finish}{after}")

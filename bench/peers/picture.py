# SPDX-License-Identifier: GPL-3.0-or-later
"""The results as a picture: a dot for each figure, on logarithmic axes, for they lie three powers of ten apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.lab.results import Figures, Results
from bench.peers.tunnels import OURS

Read = Callable[[Figures], float]

OUR_COLOUR, OTHER_COLOUR, LINE_COLOUR, TEXT_COLOUR = "#c2410c", "#475569", "#cbd5e1", "#1e293b"
WIDTH, ROW_HEIGHT, MARGIN = 12.0, 0.34, 1.5     # inches
DPI = 110

# Title, what is better, the figure.
PANELS: tuple[tuple[str, str, Read], ...] = (
    ("TCP, 1 stream, Mbit/s", "more is better", lambda figures: figures.tcp_mbit),
    ("UDP 64 B, kpps", "more is better", lambda figures: figures.udp_kpps),
    ("CPU s per GB", "less is better", lambda figures: figures.cpu_s_per_gb),
)
RTT_TITLE = "RTT, us: idle (hollow), under load"


def draw(results: Results, path: Path) -> None:
    """Writes a PNG."""
    matplotlib.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "text.color": TEXT_COLOUR}
    rows = {name: row.median for name, row in results.rows.items() if row.runs}
    figure = Figure(figsize=(WIDTH, MARGIN + ROW_HEIGHT * len(rows)), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(PANELS) + 1, sharey=True)
    for axes, (title, better, read) in zip(panels, PANELS, strict=False):
        prepare(axes, f"{title}\n{better}", list(rows))
        draw_dots(axes, rows, read)
    prepare(panels[-1], f"{RTT_TITLE}\nless is better", list(rows))
    draw_pairs(panels[-1], rows)
    machine = results.machine
    figure.supxlabel(
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}; medians of {results.rounds} rounds; "
        "logarithmic axes",
        fontsize=8,
    )
    figure.savefig(path, metadata={"Software": None})


def prepare(axes: Axes, title: str, names: list[str]) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for label, name in zip(axes.get_yticklabels(), names, strict=False):     # only the first panel has them
        label.set_color(colour_of(name))
        label.set_fontweight("bold" if name in OURS else "normal")


def draw_dots(axes: Axes, rows: dict[str, Figures], read: Read) -> None:
    for place, (name, figures) in enumerate(rows.items()):
        if (value := read(figures)) > 0:
            axes.plot(value, place, "o", color=colour_of(name))
            label(axes, value, place, name)


def draw_pairs(axes: Axes, rows: dict[str, Figures]) -> None:
    for place, (name, figures) in enumerate(rows.items()):
        colour = colour_of(name)
        pair = [figures.rtt_us, figures.loaded_rtt_us]
        axes.plot(pair, [place, place], color=colour, linewidth=1)
        axes.plot(pair[0], place, "o", color=colour, markerfacecolor="white")
        axes.plot(pair[1], place, "o", color=colour)
        label(axes, max(pair), place, name, f"{pair[0]:,.0f}, {pair[1]:,.0f}")


def label(axes: Axes, value: float, place: int, name: str, text: str = "") -> None:
    axes.annotate(
        text or (f"{value:.2f}" if value < 10 else f"{value:,.0f}"), (value, place), (6, 0),
        textcoords="offset points", va="center", fontsize=8, color=colour_of(name),
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def colour_of(name: str) -> str:
    return OUR_COLOUR if name in OURS else OTHER_COLOUR

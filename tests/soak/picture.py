# SPDX-License-Identifier: GPL-3.0-or-later
"""A run over time: memory, descriptors, tasks, throughput, loss; what was broken lies behind all of them."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.soak.record import Run

SIZE, DPI = (13.0, 15.0), 100   # inches
FAULT, RELOAD = "#fecaca", "#94a3b8"
COLOURS = dict(zip("abcdefgh", [f"C{number}" for number in range(8)], strict=True))
STEP = 5.0      # seconds of one point of throughput and loss


def draw(run: Run, path: Path) -> None:
    """Writes a PNG."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    panels = figure.subplots(6, 1, sharex=True, height_ratios=[3, 1.5, 1.5, 2, 2, 2])
    draw_lives(panels[0], run, "RSS, MB", "rss", 1e-6)
    draw_lives(panels[1], run, "descriptors", "fds")
    draw_lives(panels[2], run, "tasks", "tasks")
    draw_bulks(panels[3], run)
    draw_loss(panels[4], run)
    draw_events(panels[5], run)
    for panel in panels:
        for event in run.faults:
            panel.axvspan(event.begin, event.end, color=FAULT, linewidth=0, zorder=0)
        panel.set_xlim(0, run.seconds)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(
        [panels[0].plot([], [], color=colour)[0] for colour in COLOURS.values()], list(COLOURS), ncols=8,
        loc="lower right", frameon=False,
    )  # fmt: skip
    panels[-1].set_xlabel("seconds; red: from a fault until all links were up again and everybody knew everybody")
    figure.savefig(path, metadata={"Software": None})


def draw_lives(panel: Axes, run: Run, title: str, name: str, scale: float = 1) -> None:
    """A line for each process."""
    panel.set_title(title, loc="left", fontsize=10)
    for life in run.lives:
        points = [(sample.time, value) for sample in life.samples if (value := getattr(sample, name)) is not None]
        panel.plot([time for time, _ in points], [value * scale for _, value in points], color=COLOURS[life.node],
                   linewidth=1)  # fmt: skip


def draw_bulks(panel: Axes, run: Run) -> None:
    title = f"TCP that arrived, Mbit/s, mean of {STEP:.0f} s; dotted: by way of what is broken"
    panel.set_title(title, loc="left", fontsize=10)
    every = int(STEP)
    for pair, bulk in run.bulks.items():
        times, rates = [], []
        for (begin, before), (end, after) in itertools.pairwise(bulk.history[::every]):
            times.append((begin + end) / 2)
            rates.append((after - before) * 8e-6 / (end - begin))
        panel.plot(times, rates, "-" if run.is_calm(pair) else ":", label=" to ".join(pair), linewidth=1)
    panel.set_ylim(bottom=0)
    panel.legend(ncols=8, loc="lower right", frameon=False, fontsize=8)


def draw_loss(panel: Axes, run: Run) -> None:
    """Bars of STEP: of all datagrams sent in it, by whether both ends are calm."""
    panel.set_title(f"lost datagrams, % of those sent in {STEP:.0f} s; calm pairs in black", loc="left", fontsize=10)
    steps = int(run.sent[-1] / STEP) + 1 if run.sent else 1
    for calm, colour in ((False, "C3"), (True, "black")):
        sent, lost = [0] * steps, [0] * steps
        flows = [flow.arrived for pair, flow in run.flows.items() if run.is_calm(pair) == calm]
        for number, time in enumerate(run.sent):
            sent[int(time / STEP)] += len(flows)
            lost[int(time / STEP)] += sum(not arrived[number] for arrived in flows)
        shares = [100 * gone / max(all_of, 1) for gone, all_of in zip(lost, sent, strict=True)]
        panel.bar([(step + 0.5) * STEP for step in range(steps)], shares, STEP, color=colour)
    panel.set_ylim(0, None if panel.get_ylim()[1] > 1 else 1)


def draw_events(panel: Axes, run: Run) -> None:
    """A row for each kind of fault and reload."""
    panel.set_title("faults, and reloads as dots", loc="left", fontsize=10)
    kinds = list(dict.fromkeys(event.kind for event in (*run.faults, *run.reloads)))
    for event in run.faults:
        panel.barh(kinds.index(event.kind), max(event.end - event.begin, 0.3), left=event.begin, color="C3")
    panel.plot([event.begin for event in run.reloads], [kinds.index(event.kind) for event in run.reloads], "o",
               color=RELOAD, markersize=3)  # fmt: skip
    panel.set_yticks(range(len(kinds)), kinds, fontsize=8)
    panel.invert_yaxis()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a scenario: from each event to the next there is a window, and each window has its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from cloudvpn.memory import map_tables
from cloudvpn.sim import tables
from cloudvpn.sim.events import Script
from cloudvpn.sim.figures import Figures
from cloudvpn.sim.mesh import Mesh
from cloudvpn.sim.scenario import Scenario
from cloudvpn.sim.script import Action
from cloudvpn.sim.ways import Path

SLICES: Final = 200  # how often progress is told

Progress = Callable[[float], None]


@dataclass
class Window:
    """`at`: us since the start of the run. `told`: announcements by link and direction, `a>b`."""

    event: str
    at: int
    length: int
    figures: Figures
    paths: dict[str, Path]
    told: dict[str, Counter[str]]


@dataclass
class Run:
    """All that is known in the end, as plain data."""

    seed: int
    windows: list[Window] = field(default_factory=list)
    nodes: dict[str, str] = field(default_factory=dict)  # name -> version 2, version 1, rule of 2009, dead
    links: list[tuple[str, str, int, str]] = field(default_factory=list)  # ends, round trip in us, state
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    loops: list[tuple[int, str, list[str]]] = field(default_factory=list)
    journal: list[tuple[int, str]] = field(default_factory=list)


def run(scenario: Scenario, seed: int, progress: Progress = lambda done: None) -> Run:
    """One run. `progress` hears which share of it is done."""
    map_tables()
    mesh = Mesh(scenario, seed)
    script, begun = Script(mesh), mesh.begun
    result = Run(seed)
    moments: list[tuple[int, list[Action]]] = [(0, [])]
    for at, group in groupby(scenario.events, key=lambda event: event.at):
        moments.append((at, [event.action for event in group]))
    ends = [at for at, _ in moments[1:]] + [scenario.duration]
    for (at, actions), end in zip(moments, ends, strict=True):
        mesh.window = len(result.windows)
        mesh.ways.begin()
        dropped, errors = mesh.dropped(), mesh.peer_errors
        if not result.windows:
            mesh.start()
        for action in actions:
            script.do(action)
        for part in range(SLICES * at // scenario.duration, SLICES * end // scenario.duration):
            mesh.clock.run_to(max(mesh.clock.now, begun + scenario.duration * part // SLICES))
            progress(part / SLICES)
        mesh.clock.run_to(begun + end)
        text = ", ".join(action.text for action in actions)
        window = _close(mesh, text or "start", at, end)
        window.figures.dropped = mesh.dropped() - dropped
        window.figures.peer_errors = mesh.peer_errors - errors
        result.windows.append(window)
    _count_frames(mesh, result)
    _describe(mesh, result)
    mesh.free()
    if seed != scenario.seed:
        for window in result.windows:  # of the first run alone more than the figures is told
            window.paths, window.told = {}, {}
    return result


def _close(mesh: Mesh, text: str, at: int, end: int) -> Window:
    figures = mesh.ways.end()
    figures.quiet = mesh.begun + end - max(mesh.spoken_at, mesh.begun + at)
    paths = mesh.ways.paths()
    stretches = mesh.ways.stretches(paths)
    figures.stretch, figures.ways = sum(stretches), len(stretches)
    told: dict[str, Counter[str]] = {}
    for link in mesh.links:
        a, b = (node.name for node in link.nodes)
        for name, counts in zip((f"{a}>{b}", f"{b}>{a}"), link.take_told(), strict=True):
            told[name] = told.get(name, Counter()) + counts
    figures.messages = sum(counts["messages"] for counts in told.values())
    figures.bytes = sum(counts["bytes"] for counts in told.values())
    figures.link_messages = max((counts["messages"] for counts in told.values()), default=0)
    figures.link_bytes = max((counts["bytes"] for counts in told.values()), default=0)
    figures.link_bytes_per_node = figures.link_bytes / len(mesh.nodes)
    alive = [node for node in mesh.nodes if node.is_alive]
    for node in alive:
        for name, size in tables.sizes(node.switch).items():
            figures.tables[name] = max(figures.tables.get(name, 0), size)
        figures.starving += tables.starving(node.switch)
    # Meshes that are apart may well differ.
    component = mesh.components()
    for _, group in groupby(sorted(alive, key=lambda node: component[node.number] or 0),
                            key=lambda node: component[node.number]):  # fmt: skip
        beliefs = Counter(tables.beliefs(node.switch) for node in group)
        figures.claims_differ += beliefs.total() - beliefs.most_common(1)[0][1]
    return Window(text, at, end - at, figures, paths, told)


def _count_frames(mesh: Mesh, result: Run) -> None:
    for number, counts in mesh.frames.totals().items():
        result.windows[number].figures.frames = counts
        result.windows[number].figures.crossings = mesh.frames.crossings[number]


def _describe(mesh: Mesh, result: Run) -> None:
    for node in mesh.nodes:
        kind = "rule of 2009" if node.settings.rule else f"version {node.settings.version}"
        result.nodes[node.name] = kind if node.is_alive else "dead"
        if node.is_alive:
            result.tables[node.name] = tables.sizes(node.switch)
    for link in mesh.links:
        state = "up" if link.works else "cut" if link.is_cut else "silent" if link.is_silent else "down"
        a, b = (node.name for node in link.nodes)
        result.links.append((a, b, link.rtt, state))
    result.loops, result.journal = mesh.loops, mesh.journal


def merge(runs: list[Run], after: str = "") -> Figures:
    """The figures of all runs together; with `after`, of the windows whose event begins so."""
    total = Figures(runs=len(runs))
    for one in runs:
        for window in one.windows:
            if any(text.startswith(after) for text in window.event.split(", ")):
                total.add(window.figures)
    return total

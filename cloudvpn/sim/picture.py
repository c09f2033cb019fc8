# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of a mesh as SVG: links by their state, the busier the thicker, and nodes by their kind."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations, pairwise
from typing import Final

from cloudvpn.sim.run import Run

SIZE: Final = 900
MARGIN: Final = 60
STEPS: Final = 10_000_000  # pairs of nodes looked at, at most
COLOURS: Final = {"version 2": "#2a7f62", "version 1": "#3b6ea8", "rule of 2009": "#b8860b", "dead": "#b0b0b0"}
STROKES: Final = {"up": "#667", "cut": "#c33", "silent": "#c33", "down": "#c96"}

Places = dict[str, tuple[float, float]]


def svg(run: Run) -> str:
    places = arrange(list(run.nodes), [(a, b) for a, b, _, _ in run.links])
    uses: Counter[frozenset[str]] = Counter()
    for names, _ in run.windows[-1].paths.values():
        uses.update(frozenset(step) for step in pairwise(names))
    most = max(uses.values(), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE + 40}" font-family="sans-serif">',
        f'<rect width="{SIZE}" height="{SIZE + 40}" fill="white"/>',
    ]
    for a, b, rtt, state in run.links:
        (x, y), (u, v) = places[a], places[b]
        width = 1 + 5 * uses[frozenset((a, b))] / most
        dash = "" if state == "up" else ' stroke-dasharray="6 5"'
        parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="{STROKES[state]}" '
            f'stroke-width="{width:.1f}"{dash}><title>{a}-{b}: {rtt / 1000:g} ms, {state}</title></line>'
        )
        if len(run.links) <= 2 * len(run.nodes) <= 60:
            parts.append(_text((x + u) / 2, (y + v) / 2 - 4, f"{rtt / 1000:g} ms", "#667", 11))
    radius = 15 if len(places) <= 30 else 9
    for name, (x, y) in places.items():
        state = run.nodes[name]
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{COLOURS[state]}">'
            f"<title>{name}: {state}</title></circle>"
        )
        parts.append(_text(x, y - radius - 4, name, "#111", 13))
    for at, state in enumerate(sorted(set(run.nodes.values()))):
        parts.append(f'<circle cx="{30 + 150 * at}" cy="{SIZE + 15}" r="7" fill="{COLOURS[state]}"/>')
        parts.append(_text(45 + 150 * at, SIZE + 20, state, "#111", 13, "start"))
    return "\n".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'stroke="white" stroke-width="3" paint-order="stroke">{text}</text>'
    )


def arrange(names: list[str], edges: list[tuple[str, str]]) -> Places:
    """Places where links are short and nodes apart (Fruchterman and Reingold, 1991); the same each time."""
    count, chance = len(names), random.Random(1)
    turn = 2 * math.pi / count
    at = {name: complex(math.cos(n * turn), math.sin(n * turn)) for n, name in enumerate(names)}
    at = {name: place + complex(chance.uniform(-0.01, 0.01), chance.uniform(-0.01, 0.01)) for name, place in at.items()}
    ideal, rounds = 1.5 / math.sqrt(count), min(400, max(20, STEPS // count**2))
    for step in range(rounds):
        moves = dict.fromkeys(names, 0j)
        for a, b in combinations(names, 2):
            gap = at[a] - at[b]
            push = gap * (ideal / max(abs(gap), 0.001)) ** 2
            moves[a] += push
            moves[b] -= push
        for a, b in edges:
            gap = at[a] - at[b]
            pull = gap * abs(gap) / ideal
            moves[a] -= pull
            moves[b] += pull
        heat = 0.1 * (1 - step / rounds)
        for name, move in moves.items():
            at[name] += move / max(abs(move), 1e-9) * min(abs(move), heat)
    left, top = min(place.real for place in at.values()), min(place.imag for place in at.values())
    width = max(
        max(place.real for place in at.values()) - left, max(place.imag for place in at.values()) - top, 1e-9
    )
    scale = (SIZE - 2 * MARGIN) / width
    return {name: (MARGIN + (p.real - left) * scale, MARGIN + (p.imag - top) * scale) for name, p in at.items()}

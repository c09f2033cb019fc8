# SPDX-License-Identifier: GPL-3.0-or-later
"""Topologies that need not be written down: names of nodes, and which of them are linked."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Final, NamedTuple

Edge = tuple[str, str]


class Shape(NamedTuple):
    """`nodes` is how many the user asked for, `degree` counts for random meshes only."""

    names: Callable[[int], list[str]]
    edges: Callable[[list[str], int, random.Random], list[Edge]]
    is_size: Callable[[int], bool] = lambda nodes: nodes >= 2
    size: str = "2 or more"


def _numbered(nodes: int) -> list[str]:
    return [f"n{number}" for number in range(1, nodes + 1)]


def _in_rows(nodes: int) -> list[str]:
    side = round(nodes**0.5)
    return [f"r{row}c{column}" for row in range(1, side + 1) for column in range(1, side + 1)]


def _two_groups(nodes: int) -> list[str]:
    return [f"{group}{number}" for group in "ab" for number in range(1, nodes // 2 + 1)]


def _line(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    return list(pairwise(names))


def _ring(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    return [*pairwise(names), (names[-1], names[0])]


def _star(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    return [(names[0], name) for name in names[1:]]


def _grid(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    side = round(len(names) ** 0.5)
    right = [(names[at], names[at + 1]) for at in range(len(names)) if (at + 1) % side]
    return right + list(zip(names, names[side:], strict=False))


def _complete(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    return list(combinations(names, 2))


def _cliques(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    half = len(names) // 2
    return [*combinations(names[:half], 2), *combinations(names[half:], 2), (names[0], names[half])]


def _random(names: list[str], degree: int, chance: random.Random) -> list[Edge]:
    """Rings through all nodes, each in another order, laid upon each other: connected, and of about this degree."""
    edges: dict[frozenset[str], Edge] = {}
    for turn in range((degree + 1) // 2):
        order = chance.sample(names, len(names))
        steps = list(pairwise([*order, order[0]]))
        if 2 * turn + 1 == degree:
            steps = steps[::2]  # an odd degree: half of a ring
        for edge in steps:
            edges.setdefault(frozenset(edge), edge)
    return list(edges.values())


SHAPES: Final = {
    "line": Shape(_numbered, _line),
    "ring": Shape(_numbered, _ring, lambda nodes: nodes >= 3, "3 or more"),
    "star": Shape(_numbered, _star),
    "grid": Shape(_in_rows, _grid, lambda nodes: nodes >= 4 and round(nodes**0.5) ** 2 == nodes, "a square: 4, 9, 16"),
    "complete": Shape(_numbered, _complete),
    "cliques": Shape(_two_groups, _cliques, lambda nodes: nodes >= 4 and nodes % 2 == 0, "even, 4 or more"),
    "random": Shape(_numbered, _random, lambda nodes: nodes >= 3, "3 or more"),
}

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hold rule of version 1 promises, beside the rule of 2009 in the same meshes: deaths and cuts, seeded.

`pytest -m long -s tests/sim/test_hold_rule.py` prints the figures of 25 seeds.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from functools import cache

import pytest

from tests.sim.tables import (
    HEARTBEAT,
    MS,
    SECOND,
    Edges,
    Figures,
    Run,
    clique,
    grid,
    random_of_degree_4,
    ring,
    two_cliques,
)

SHAPES: dict[str, Callable[[int], Edges]] = {
    "ring of 8": lambda seed: ring(8),
    "ring of 32": lambda seed: ring(32),
    "clique of 8": lambda seed: clique(8),
    "random of 16": lambda seed: random_of_degree_4(16, seed),
    "random of 64": lambda seed: random_of_degree_4(64, seed),
    "two cliques": lambda seed: two_cliques(8),
    "grid of 64": lambda seed: grid(8),
}
EVENTS = ("death", "cut")
COUNT_TO_64 = 64 * HEARTBEAT * 3 // 2
SEEDS = pytest.mark.parametrize("seeds", [3, pytest.param(25, marks=pytest.mark.long)])


def one(shape: str, event: str, seed: int, rule: str) -> Figures:
    """One event in one mesh at rest; `rule` is `hold`, `2009` or `half`."""
    edges = SHAPES[shape](seed)
    size = 1 + max(map(max, edges))
    chance = random.Random(seed)
    old = {"hold": 0, "2009": size, "half": size // 2}[rule]
    run = Run(edges, seed, set(chance.sample(range(size), old)))
    run.settle()
    if event == "death":
        run.kill(chance.randrange(size))
    else:
        run.cut(*chance.choice(edges))
    return run.watch()


@cache
def runs(event: str, seeds: int, rule: str) -> dict[str, list[Figures]]:
    return {shape: [one(shape, event, seed, rule) for seed in range(seeds)] for shape in SHAPES}


def backs(found: list[Figures]) -> list[int]:
    return sorted(back for figures in found for back in figures.back) or [0]


def show(title: str, found: list[Figures]) -> None:
    back = backs(found)
    print(
        f"{title:32} loops in {sum(f.loops > 0 for f in found):3}/{len(found)} runs, longest"
        f" {max(f.longest_loop for f in found) / SECOND:.2f} s; circling {mean_circling(found):6.1f} frames a run;"
        f" forgotten {statistics.median(f.forgotten for f in found) / SECOND:.2f}"
        f" / {max(f.forgotten for f in found) / SECOND:.2f} s;"
        f" back {back[len(back) // 2] / SECOND:.2f} / {back[len(back) * 19 // 20] / SECOND:.2f}"
        f" / {back[-1] / SECOND:.2f} s"
    )


def mean_circling(found: list[Figures]) -> float:
    return statistics.fmean(figures.circling for figures in found)


def together(found: dict[str, list[Figures]]) -> list[Figures]:
    return [figures for shape in found.values() for figures in shape]


@SEEDS
@pytest.mark.parametrize("event", EVENTS)
def test_loops_are_short_and_rare_and_the_mesh_recovers(event: str, seeds: int) -> None:
    found, old = runs(event, seeds, "hold"), runs(event, seeds, "2009")
    for rule, all_of in (("hold", found), ("2009", old)):
        for shape, figures in all_of.items():
            show(f"{rule}, {event}, {shape}", figures)
        show(f"{rule}, {event}, all", together(all_of))
    # The fault happens, so the figures below mean something.
    assert statistics.fmean(f.longest_loop for f in together(old)) > 5 * HEARTBEAT
    assert mean_circling(together(old)) > 20
    for shape, figures in found.items():
        assert mean_circling(figures) < 1, shape
        for seed, one_run in enumerate(figures):
            assert one_run.longest_loop <= 4 * HEARTBEAT, (shape, seed)
            assert one_run.forgotten <= SECOND, (shape, seed)
            assert max(one_run.back, default=0) <= 2500 * MS, (shape, seed)


@SEEDS
@pytest.mark.parametrize("event", EVENTS)
def test_a_mesh_of_which_half_is_of_2009_is_no_worse_than_one_that_is_all_of_it(event: str, seeds: int) -> None:
    found, old = together(runs(event, seeds, "half")), together(runs(event, seeds, "2009"))
    show(f"half, {event}", found)
    show(f"2009, {event}", old)
    assert sum(f.loops > 0 for f in found) <= sum(f.loops > 0 for f in old)
    assert mean_circling(found) <= mean_circling(old)
    assert statistics.fmean(f.longest_loop for f in found) <= statistics.fmean(f.longest_loop for f in old)
    # The worst run is a matter of chance in both: two old neighbours that count to 64 by themselves need up to three
    # heartbeats for two hops.
    assert max(f.longest_loop for f in found) <= COUNT_TO_64
    assert max(f.forgotten for f in found) <= COUNT_TO_64
    assert backs(found)[-1] <= backs(old)[-1] + HEARTBEAT

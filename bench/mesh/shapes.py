# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes with a host for each node and a wire for each link; nodes in the middle have no interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.lab.hosts import Lab
from bench.lab.load import Way
from bench.lab.nodes import PORT, Nodes, Program
from bench.lab.rounds import Subject

HOPS = range(1, 5)
STAR_NODES = 10
# Of the star: as many leaves as four streams need, so that each stream has two of its own.
PAIRS = 4


def subjects(program: Program) -> dict[str, Subject]:
    found = {
        f"chain_{hops}": Subject(f"{hops + 1} nodes in a line, from end to end", partial(chain, program, hops), {})
        for hops in HOPS
    }
    found[f"star_{STAR_NODES}"] = Subject(
        f"a node in the middle of {STAR_NODES - 1}, from leaf to leaf; four streams between eight of them",
        partial(star, program), {})
    return found


def inner(number: int) -> str:
    return f"198.19.0.{number + 1}"


def chain(program: Program, hops: int, lab: Lab) -> Sequence[Way]:
    """Each node dials the one before it."""
    hosts = [lab.host(f"n{number}") for number in range(hops + 1)]
    nodes = Nodes(lab, program)
    wires = [lab.wire(hosts[number], hosts[number + 1]) for number in range(hops)]
    for number, host in enumerate(hosts):
        lines = []
        if number < hops:
            lines.append(f"listen {wires[number][0]} {PORT}")
        if number > 0:
            lines.append(f"connect {wires[number - 1][0]} {PORT}")
        if number in (0, hops):
            nodes.start_with_tap(host, inner(number), *lines)
        else:
            nodes.start(host, *lines)
    return [Way(hosts[-1], hosts[0], inner(0))]


def star(program: Program, lab: Lab) -> Sequence[Way]:
    """All leaves dial the node in the middle."""
    middle = lab.host("middle")
    nodes = Nodes(lab, program)
    nodes.start(middle, f"listen 0.0.0.0 {PORT}")
    leaves = [lab.host(f"leaf{number}") for number in range(STAR_NODES - 1)]
    for number, leaf in enumerate(leaves):
        address, _ = lab.wire(middle, leaf)
        nodes.start_with_tap(leaf, inner(number), f"connect {address} {PORT}")
    return [Way(leaves[2 * pair], leaves[2 * pair + 1], inner(2 * pair + 1)) for pair in range(PAIRS)]

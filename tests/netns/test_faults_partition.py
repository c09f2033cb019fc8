# SPDX-License-Identifier: GPL-3.0-or-later
"""Eight nodes on one wire fall into 4 + 4 and come together again. Each node dials the next two.

    a b c d | e f g h
"""

from __future__ import annotations

import itertools
import subprocess

import pytest

from tests.netns.faults import PORT, address, assert_sound, keeping_on, lines_of, wait_links
from tests.netns.lab import Lab, Node

NAMES = "abcdefgh"
HALVES = NAMES[:4], NAMES[4:]
GAP = 10.0      # seconds: a way within a half that led through the other one is lost for conn_timeout at most
SOON = ["conn_retry 500ms", "conn_keepalive 500ms", "conn_timeout 3s", "handshake_timeout 2s"]


def reachable(lab: Lab, pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of whom the first one gets an answer from the second; all are asked at once."""
    asked = {
        (source, target): subprocess.Popen(
            lab.host(source).command(["ping", "-nq", "-c", 1, "-W", 2, address(target)]), stdout=subprocess.DEVNULL)
        for source, target in pairs
    }
    return {pair for pair, ping in asked.items() if ping.wait(10) == 0}


def wait_known(lab: Lab, nodes: list[Node], count: int, deadline: float) -> None:
    for node in nodes:
        lab.until(lambda node=node: len(node.status().nodes) == count, deadline, f"{node.name} knows {count} nodes")


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
def test_two_halves_live_on_alone_and_reach_each_other_after_it(lab: Lab, times: int) -> None:
    wire = lab.wire(*NAMES)
    nodes = {
        name: lab.node(name, *lines_of(name, *SOON),
                       *(f"connect {wire.address(NAMES[(at + step) % 8])} {PORT}" for step in (1, 2)))
        for at, name in enumerate(NAMES)
    }
    wait_links(lab, nodes, 4, 60)
    wait_known(lab, list(nodes.values()), 8, 20)
    every = list(itertools.permutations(NAMES, 2))
    within = [pair for half in HALVES for pair in itertools.permutations(half, 2)]
    lab.until(lambda: reachable(lab, every) == set(every), 20, "everybody reaches everybody")
    for _ in range(times):
        with keeping_on(lab, GAP, "ad", "bc", "eh", "gf"):
            wire.part(*HALVES[0])
            wait_known(lab, list(nodes.values()), 4, 30)
            assert reachable(lab, every) == set(within), "the fault did not happen, or did more"
            wire.join()
            wait_known(lab, list(nodes.values()), 8, 30)
        lab.until(lambda: reachable(lab, every) == set(every), 20, "everybody reaches everybody again")
        wait_links(lab, nodes, 4)
    assert_sound(lab, nodes)

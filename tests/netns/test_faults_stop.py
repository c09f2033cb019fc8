# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that does not run for longer than conn_timeout (SIGSTOP), and runs again.

    a --w1-- b --w2-- c --w3-- a        b is stopped; a goes on sending numbered frames to it
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest

from tests.netns.faults import (
    address,
    assert_not_grown,
    assert_sound,
    footprint,
    keeping_on,
    triangle,
    wait_links,
    wait_pings,
)
from tests.netns.lab import Lab
from tests.netns.repeating import repeating

RATE = 200      # frames a second
TIMES = [
    (["conn_keepalive 500ms", "conn_timeout 2s"], 4),
    pytest.param([], 90, marks=pytest.mark.long),    # the default, a minute
]
GAP = 3.0


class Numbered:
    """Frames of their own EtherType that tell when they were sent."""

    def __init__(self, lab: Lab, source: str, target: str) -> None:
        self.head = lab.host(target).mac("tap0") + lab.host(source).mac("tap0") + b"\x88\xb5"
        self.port = lab.host(source).frames("tap0")

    @contextlib.contextmanager
    def sent(self) -> Iterator[None]:
        """While the block runs."""
        with self.port, repeating(self.send, 1 / RATE):
            yield

    def send(self) -> None:
        self.port.send((self.head + time.monotonic_ns().to_bytes(8, "big")).ljust(1000, b"\0"))

    def ages(self, frames: list[bytes]) -> list[float]:
        """Seconds since those of these frames that are ours were sent."""
        now = time.monotonic_ns()
        return [(now - int.from_bytes(frame[14:22], "big")) / 1e9 for frame in frames if frame[:14] == self.head]


@pytest.mark.parametrize(("lines", "seconds"), TIMES)
def test_a_node_that_was_stopped_comes_back_with_nothing_stale(lab: Lab, lines: list[str], seconds: float) -> None:
    nodes = triangle(lab, *lines)
    b, others = nodes["b"], [nodes["a"], nodes["c"]]
    before = {node.name: footprint(node) for node in nodes.values()}
    numbered = Numbered(lab, "a", "b")
    with lab.host("b").frames("tap0") as interface, numbered.sent():
        lab.until(lambda: numbered.ages(interface.drain()), 10, "frames before the fault")
        with keeping_on(lab, GAP, "ac"):
            b.stop()
            begun = time.monotonic()
            for node in others:
                node.wait_log("link down: b at .*: no echo reply for conn_timeout", 90)
            lab.until(lambda: time.monotonic() - begun > seconds, seconds + 5, "the stop has lasted")
            interface.drain()
            begun = time.monotonic()
            b.cont()
            wait_links(lab, nodes, 2)
            wait_pings(lab, nodes)
            stale = [age for age in numbered.ages(interface.drain()) if age > time.monotonic() - begun + 1]
    assert len(re.findall("info link down", b.log_text())) == 2, b.report()
    assert not stale, f"{len(stale)} frames came that were up to {max(stale)} s old"
    for node in nodes.values():
        assert_not_grown(lab, node, before[node.name])
        assert len(re.findall("info link up", node.log_text())) <= 2 * (3 if node is b else 2), node.report()
    assert_sound(lab, nodes)
    assert lab.host("a").ping(address("b"), 20, 0.02).loss == 0

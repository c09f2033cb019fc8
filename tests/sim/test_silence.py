# SPDX-License-Identifier: GPL-3.0-or-later
"""A link from which nothing comes any more, and clocks that stand still or jump: what the nodes make of it."""

from __future__ import annotations

import heapq

import pytest

from tests.sim.mesh import HEARTBEAT, MS, SECOND, Link, Mesh, Node
from tests.sim.test_forwarding import settle

DOUBT = 3 * SECOND  # of silence after the first of three requests
KEEPALIVE = 5 * SECOND


class NewMesh(Mesh):
    version = 2


def reaches(mesh: Mesh, a: Node, b: Node, within: int = SECOND) -> bool:
    sent = a.send(b)
    mesh.run(within)
    got = mesh.received()
    return got.pop(b).count(sent) == 1 and not any(got.values())


def triangle(delay: int = MS) -> tuple[Mesh, list[Node], Link]:
    """With a tail at c, which is behind the link that will be silent: a - c - d, and a - b - c."""
    mesh = NewMesh(seed=3)
    a, b, c, d = nodes = [mesh.node() for _ in range(4)]
    mesh.link(a, b, delay), mesh.link(b, c, delay), mesh.link(c, d, delay)
    direct = mesh.link(a, c, delay)
    settle(mesh)
    mesh.run(6 * SECOND)
    mesh.received()
    return mesh, nodes, direct


def stall(mesh: Mesh, link: Link) -> None:
    """What is sent arrives very late, all at once, as on TCP after a loss."""
    link.delay, before = 2 * KEEPALIVE, link.delay
    mesh.run(KEEPALIVE + DOUBT + SECOND)
    assert all(end.doubted for end in link.ends)
    link.delay = before


def jump(mesh: Mesh, by: int) -> None:
    """Of the clock; all that was due meanwhile is done now."""
    mesh.now += by
    mesh.events = [(max(time, mesh.now), number, event) for time, number, event in mesh.events]
    heapq.heapify(mesh.events)


def test_a_silent_link_is_avoided_within_seconds_long_before_it_is_given_up() -> None:
    mesh, (a, _, c, d), direct = triangle()
    direct.is_silent = True
    assert not reaches(mesh, a, c, 100 * MS) and not reaches(mesh, d, a, 100 * MS), "the fault did not happen"
    took = mesh.run_until(lambda: all(end.doubted for end in direct.ends), KEEPALIVE + DOUBT + 4 * HEARTBEAT)
    assert took > DOUBT - SECOND
    for source, target in ((a, c), (c, a), (a, d), (d, a)):
        assert reaches(mesh, source, target), f"{source} to {target}"
    assert direct.ends, "it is not given up yet"
    assert a.switch.links_doubted == c.switch.links_doubted == 1
    mesh.run(61 * SECOND)
    assert not direct.ends
    mesh.check()


def test_a_link_that_is_heard_again_is_used_again() -> None:
    mesh, (a, b, c, _), direct = triangle()
    stall(mesh, direct)
    mesh.run(2 * KEEPALIVE)
    mesh.received()
    assert not any(end.doubted for end in direct.ends)
    passed = b.switch.frames_from_links
    assert reaches(mesh, a, c) and reaches(mesh, c, a)
    assert b.switch.frames_from_links == passed, "the direct way is taken"


def test_the_only_way_is_used_although_it_is_silent() -> None:
    mesh = NewMesh(seed=4)
    a, b = mesh.node(), mesh.node()
    link = mesh.link(a, b)
    settle(mesh)
    mesh.received()
    stall(mesh, link)
    sent = a.send(b)
    mesh.run_until(lambda: sent in b.tap.frames, 3 * KEEPALIVE)
    assert reaches(mesh, a, b, 100 * MS) and reaches(mesh, b, a, 100 * MS), "as before"
    assert a.switch.dropped()["no_way"] == b.switch.dropped()["no_way"] == 0


@pytest.mark.parametrize("delay", [2 * SECOND, 8 * SECOND])
def test_a_link_whose_queues_grow_to_seconds_is_not_doubted_while_anything_comes(delay: int) -> None:
    """A full queue in the network delays the replies; the frames before them say that the link lives."""
    mesh = NewMesh(seed=5)
    a, b = mesh.node(), mesh.node()
    link = mesh.link(a, b)
    settle(mesh)
    for step in range(600):
        link.delay = min(MS + delay * step // 300, delay)   # it never stands still, as no queue that is served does
        a.send(b), b.send(a)
        mesh.run(100 * MS)
    assert link.ends[0].echo.ping > 2 * delay - SECOND, "replies were late"
    assert a.switch.links_doubted == b.switch.links_doubted == 0


def test_a_link_of_a_long_delay_without_traffic_is_not_doubted() -> None:
    mesh = NewMesh(seed=6)
    a, b = mesh.node(), mesh.node()
    mesh.link(a, b, 4 * SECOND)
    mesh.run(200 * SECOND)
    assert reaches(mesh, a, b, 5 * SECOND)
    assert a.switch.links_doubted == b.switch.links_doubted == 0


def test_a_link_of_version_1_is_not_doubted() -> None:
    mesh = Mesh(seed=7)
    a, b = mesh.node(), mesh.node()
    link = mesh.link(a, b)
    settle(mesh)
    link.is_silent = True
    mesh.run(30 * SECOND)
    assert link.ends and a.switch.links_doubted == 0


# Clocks


def test_a_clock_that_jumps_by_an_hour_costs_the_links_and_nothing_else() -> None:
    """A monotonic clock that counts a suspended hour: everybody has been silent for longer than conn_timeout."""
    mesh, nodes, _ = triangle()
    jump(mesh, 3600 * SECOND)
    mesh.run(SECOND)
    assert not any(link.ends for link in mesh.links), "the jump was seen"
    for link in mesh.links:
        link.open()
    took = mesh.run_until(mesh.is_complete, 10 * SECOND)
    assert took < SECOND
    mesh.run(SECOND)
    mesh.received()
    assert reaches(mesh, nodes[0], nodes[3])
    mesh.check(links=False)
    told = {end: end.packets_out for link in mesh.links for end in link.ends}
    mesh.run(10 * SECOND)
    assert all(end.packets_out - before < 20 for end, before in told.items()), "no burst of what was not done"


@pytest.mark.parametrize("stopped", [10 * SECOND, 50 * SECOND])
def test_a_node_that_did_not_run_for_less_than_conn_timeout_doubts_nobody(stopped: int) -> None:
    """What it did not ask cannot have been answered; others have doubted it, and come back."""
    mesh, (a, _, _, d), _ = triangle()
    jump(mesh, stopped)     # of all at once: the worst case, for each sees only the others' silence
    mesh.run(SECOND)
    assert all(link.ends for link in mesh.links)
    assert sum(node.switch.links_doubted for node in mesh.nodes) == 0
    assert reaches(mesh, a, d)


def test_a_clock_that_stands_still_stops_no_frame() -> None:
    mesh, (a, _, c, d), _ = triangle()
    now, before = mesh.now, c.tap.taken
    for _ in range(100):
        a.send(c)
        for node in mesh.nodes:
            assert node.switch.beat(now, now // SECOND) == []
    mesh.run(SECOND)
    assert c.tap.taken - before == 100
    mesh.received()
    assert reaches(mesh, a, d)
    mesh.check()

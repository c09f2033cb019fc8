# SPDX-License-Identifier: GPL-3.0-or-later
"""How a stream is cut changes nothing: whole, in random pieces or byte by byte, a mesh ends in the same state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.mesh import EVERYBODY, MS, SECOND, Mesh, Node
from tests.sim.test_forwarding import random_mesh

pytestmark = pytest.mark.usefixtures("each_version")


def story(seed: int, cut: str) -> list[Any]:
    """A mesh that starts, carries frames, loses links and overflows; all that can be seen of it in the end."""
    mesh = Mesh(seed, cut)
    nodes = random_mesh(mesh, 6, ids=32, max_data=16, max_port_routes=4, report_above=100, keepalive=300 * MS)
    chance = mesh.chance
    for _ in range(60):
        link = chance.choice(mesh.links)
        if chance.random() < 0.1 and link.ends:
            link.close()
        elif not link.ends:
            link.open()
        if chance.random() < 0.2 and link.ends:
            end = chance.choice(link.ends)
            end.node.switch.pause(end, not end.paused)
            end.flush()
        link.delay = chance.randrange(100, 30 * MS)
        for _ in range(chance.randrange(12)):
            to: list[Node | int] = [*nodes, EVERYBODY]
            chance.choice(nodes).send(chance.choice(to), chance.randrange(14, 1515))
        mesh.run(chance.randrange(200 * MS))
    mesh.run(SECOND)
    mesh.check()
    if Mesh.version == 2:   # what is told when depends on what came together; what is known in the end does not
        mesh.run(30 * SECOND)
        return [[(known[0], *known[4:]) for known in node.switch.known()] for node in nodes]
    seen: list[Any] = []
    for node in nodes:
        switch = node.switch
        assert switch.frames_from_links
        seen += [node.tap.frames, sorted(switch.routes.best()), switch.dropped(), switch.frames_to_links]
        seen += [switch.frames_from_links, switch.copies, switch.echoes_unasked, switch.ids.came_back]
        for port in sorted(switch.ports(), key=lambda port: port.index):
            seen += [port.echo.ping, port.packets_in, port.packets_out, port.frames_in, port.bytes_out]
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_a_mesh_ends_the_same_however_its_streams_are_cut(seed: int) -> None:
    whole = story(seed, "whole")
    assert story(seed, "random") == whole
    assert story(seed, "bytes") == whole

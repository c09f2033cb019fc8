# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log says when a limit of routing is hit or two nodes want the same MAC: when, how often, whom it names."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloudvpn.mesh import Mesh
from cloudvpn.options import Config
from cloudvpn.routewatch import RouteWatch

B, STRANGER, MAC = 0xB, 0xC, 0x02005E100001


@dataclass
class FakeMesh:
    """This node is 0xa; node 0xb, named b, is linked to it as port 1. Counters of trouble are set by the tests."""

    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        self.links = [SimpleNamespace(index=1, peer_id=B, info=SimpleNamespace(describe=lambda: "b at 192.0.2.1:4000"))]
        self.nodes = SimpleNamespace(
            refused_full=0, own_heard=0, own_heard_port=0, best=lambda: [(STRANGER, 1, 0, 1, 1)])
        self.routes = SimpleNamespace(refused_full=0, count_of=lambda port: 256)
        self.hosts = SimpleNamespace(
            conflicts=0, conflict_mac=MAC, conflict_owners=[STRANGER, B], moves_held=0, held_mac=MAC, learned_full=0,
            refused_link=0, refused_full=0, refused_owners=0, disputed=0, disputed_mac=MAC, disputed_port=1,
            count_of=lambda port: 65536)
        self.switch = SimpleNamespace(
            node_id=0xA, links_slowed=0, slowed_port=1, nodes=self.nodes, hosts=self.hosts, routes=self.routes)
        self.watch = RouteWatch(cast(Mesh, self))


@pytest.fixture
def mesh(caplog: pytest.LogCaptureFixture) -> FakeMesh:
    caplog.set_level(logging.WARNING, logger="cloudvpn")
    return FakeMesh()


def test_a_mesh_without_trouble_is_not_spoken_of(mesh: FakeMesh, caplog: pytest.LogCaptureFixture) -> None:
    mesh.watch.look(0.0)
    assert not caplog.messages


def test_what_goes_on_is_said_once_a_minute_and_what_is_over_no_more(
    mesh: FakeMesh, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(150):
        mesh.hosts.learned_full += second < 100
        mesh.watch.look(float(second))
    assert len(caplog.messages) == 3, "at 0 s, at 60 s, and at 120 s of what came until 100 s"
    mesh.watch.look(1000.0)
    assert len(caplog.messages) == 3


@pytest.mark.parametrize(
    ("where", "counter", "said"),
    [
        ("hosts", "conflicts", ["b at 192.0.2.1:4000 and node 000000000000000c both have the MAC 02:00:5e:10:00:01"]),
        ("hosts", "moves_held", ["02:00:5e:10:00:01", "Do two nodes bridge the same network"]),
        ("hosts", "learned_full", ["max_local_macs 4096"]),
        ("hosts", "refused_link", ["b at 192.0.2.1:4000 announces more hosts than max_link_claims 65536"]),
        ("hosts", "refused_full", ["no room", "most of them by b at 192.0.2.1:4000"]),
        ("hosts", "refused_owners", ["no room"]),
        ("nodes", "refused_full", ["max_nodes 1024", "most of them behind b at 192.0.2.1:4000"]),
        ("routes", "refused_full", ["max_remote_routes 256", "most of them by b at 192.0.2.1:4000"]),
        ("hosts", "disputed", ["b at 192.0.2.1:4000 says otherwise of this node's host 02:00:5e:10:00:01"]),
        ("nodes", "own_heard", ["a link that is gone announces this node itself"]),
        ("switch", "links_slowed", ["b at 192.0.2.1:4000 brought more routes", "read more slowly"]),
    ],
)
def test_each_trouble_is_named(
    mesh: FakeMesh, caplog: pytest.LogCaptureFixture, where: str, counter: str, said: list[str]
) -> None:
    table: Any = getattr(mesh, where)
    setattr(table, counter, 1)
    mesh.watch.look(0.0)
    (message,) = caplog.messages
    assert all(words in message for words in said)


def test_who_lies_about_this_node_is_named(mesh: FakeMesh, caplog: pytest.LogCaptureFixture) -> None:
    mesh.nodes.own_heard, mesh.nodes.own_heard_port = 1, 1
    mesh.watch.look(0.0)
    assert caplog.messages[0].startswith("b at 192.0.2.1:4000 announces this node itself")

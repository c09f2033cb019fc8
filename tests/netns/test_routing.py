# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that is killed and a link that is cut, in meshes with longer ways left: docs/routing.md.

    ring:  0 - 1 - 2 - 3 - 4 - 5 - 0        grid:  0 - 1 - 2
                                                   |   |   |
                                                   3 - 4 - 5
                                                   |   |   |
                                                   6 - 7 - 8

While it happens all others ping each other, and one node sends numbered frames to the MAC of the one that is killed.
All nodes have `promisc`: whoever passes a frame on shows it to its interface, so we see how often a frame came by.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from tests.netns.lab import Lab, Node, SteadyPing
from tests.netns.test_bridging import BRIDGED, make_bridge, plug
from tests.netns.test_queues import fresh
from tests.netns.test_status import read_json

PORT = 4000
RING = [(node, (node + 1) % 6) for node in range(6)]
GRID = [(node, node + 1) for node in range(9) if node % 3 < 2] + [(node, node + 3) for node in range(6)]
FRAME_BYTES = 7000  # beside so large ones pings weigh little
FRAME_RATE = 200    # a second
ENOUGH = 50         # answers to each ping after the fault: a second without one more gap
RESET = "link down: .*reset by peer"
REPEATS = [2, pytest.param(20, marks=pytest.mark.long)]


class Mesh:
    """Node i is `ni` with 10.9.0.(i + 1); of each pair of neighbours the first one dials."""

    def __init__(self, lab: Lab, edges: Sequence[tuple[int, int]], version: int) -> None:
        self.lab, self.version = lab, version
        self.wires = {edge: lab.wire(*(f"n{place}" for place in edge)) for edge in edges}
        self.nodes = [self._start(place) for place in range(max(map(max, edges)) + 1)]
        self.wait_whole()
        self.macs = [lab.host(node.name).mac("tap0") for node in self.nodes]

    def _start(self, place: int) -> Node:
        dials = [f"connect {wire.address(f'n{to}')} {PORT}" for (by, to), wire in self.wires.items() if by == place]
        return self.lab.node(
            f"n{place}", f"listen 0.0.0.0 {PORT}", *dials, "conn_retry 200ms", "iface yes", "iface_dev tap0",
            f"iface_address {self.address(place)}/24", "iface_mtu 8000", "promisc yes", "status-interval 100ms",
            f"link_version {self.version}")

    @staticmethod
    def address(place: int) -> str:
        return f"10.9.0.{place + 1}"

    def wait_whole(self) -> None:
        """All links are up and everybody knows everybody."""
        for place, node in enumerate(self.nodes):
            degree = sum(place in edge for edge in self.wires)
            self.lab.until(
                lambda node=node, degree=degree: sum(link.ping > 0 for link in node.status().links) == degree,
                20, f"{degree} links of {node.name}")
            self.lab.until(lambda node=node: len(node.status().routes) == len(self.nodes), 10, f"routes of {node.name}")

    @contextlib.contextmanager
    def all_pinging(self, without: int | None = None) -> Iterator[list[SteadyPing]]:
        """Every pair while the block runs; it begins when all have answers."""
        places = [place for place in range(len(self.nodes)) if place != without]
        with contextlib.ExitStack() as stack:
            pings = [
                stack.enter_context(self.lab.host(f"n{source}").pinging(self.address(target)))
                for source, target in itertools.combinations(places, 2)
            ]
            self.lab.until(lambda: all(len(ping.answers()) > 5 for ping in pings), 10, "answers to all pings")
            yield pings

    def wait_answers(self, pings: list[SteadyPing], begin: float) -> float:
        """Until all pings go on; the longest gap of any of them, seconds."""
        self.lab.until(lambda: all(ping.count_since(begin) >= ENOUGH for ping in pings), 20, "answers after the fault")
        return max(ping.longest_gap(begin) for ping in pings)

    def knows(self, place: int) -> bool:
        """Whether anybody else still has a way to the node's MAC."""
        mac = self.macs[place].hex(":")
        return any(mac in node.status().routes for other, node in enumerate(self.nodes) if other != place)


class Numbered:
    """Sends numbered frames from one node's interface to the MAC of another one, and watches all interfaces.

    `seen` is how often each node's interface saw each frame, as of the last `look`.
    """

    def __init__(self, mesh: Mesh, source: int, target: int) -> None:
        self._head = mesh.macs[target] + mesh.macs[source] + b"\x88\xb5"
        self._ports = {node.name: mesh.lab.host(node.name).frames("tap0") for node in mesh.nodes}
        self._sender = mesh.lab.host(f"n{source}").frames("tap0")
        self._over, self._thread = threading.Event(), threading.Thread(target=self._send)
        self.sent = 0
        self.seen: dict[str, Counter[int]] = {node.name: Counter() for node in mesh.nodes}

    def _send(self) -> None:
        begin = time.monotonic()
        while not self._over.wait(max(begin + self.sent / FRAME_RATE - time.monotonic(), 0)):
            self._sender.send((self._head + self.sent.to_bytes(4, "big")).ljust(FRAME_BYTES, b"\0"))
            self.sent += 1

    def __enter__(self) -> Numbered:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for port in (self._sender, *self._ports.values()):
            port.close()

    def look(self) -> dict[str, Counter[int]]:
        for name, port in self._ports.items():
            frames = port.drain()
            self.seen[name].update(int.from_bytes(frame[14:18], "big") for frame in frames if frame[:14] == self._head)
        return self.seen

    def forget(self, name: str) -> None:
        """The node's interface is about to go."""
        self._ports.pop(name).close()


def out_of_hops(lab: Lab, node: Node) -> int:
    """Frames that the node dropped because of the hop limit, the backstop of version 2."""
    (count,) = re.findall(r"^dropped: .*\bhops (\d+)", fresh(lab, node), re.MULTILINE)
    return int(count)


class Death(NamedTuple):
    gap: float          # seconds, the longest of any ping between others
    forgotten: float    # seconds until nobody had a route any more
    crossings: float    # of links by a frame that was sent after the death, on the average
    most_visits: int    # of one node by one frame
    circling: int       # frames that a node saw three times: as unicast, as a broadcast, and again


def kill(mesh: Mesh, victim: int, source: int) -> Death:
    lab, node = mesh.lab, mesh.nodes[victim]
    with mesh.all_pinging(without=victim) as pings, Numbered(mesh, source, victim) as frames:
        lab.until(lambda: frames.look()[node.name], 5, "frames at the node that will die")
        frames.forget(node.name)
        before, sent, begin = lab.bytes_carried(), frames.sent, time.time()
        node.kill()
        lab.until(lambda: not mesh.knows(victim), 10, "the dead node is forgotten")
        forgotten = time.time() - begin
        gap = mesh.wait_answers(pings, begin)
        crossings = (lab.bytes_carried() - before) / ((frames.sent - sent) * FRAME_BYTES)
        assert frames.sent - sent > FRAME_RATE / 2, "nothing was sent to the dead node"
        visits = [count for seen in frames.look().values() for count in seen.values()]
    node.status_file.unlink()
    node.start()
    mesh.wait_whole()
    return Death(gap, forgotten, crossings, max(visits, default=0), sum(count > 2 for count in visits))


def cut(mesh: Mesh, edge: tuple[int, int]) -> float:
    """The longest gap of any ping, seconds. The second node of the edge, which accepts, resets."""
    both = [mesh.nodes[place] for place in edge]
    downs = [len(re.findall(RESET, node.log_text())) for node in both]
    with mesh.all_pinging() as pings:
        begin = time.time()
        mesh.wires[edge].reset(both[1].name, PORT)
        for node, count in zip(both, downs, strict=True):
            node.wait_log(RESET, 5, count + 1)
        gap = mesh.wait_answers(pings, begin)
    mesh.wires[edge].accept(both[1].name)
    mesh.wait_whole()
    return gap


def show(what: str, figures: Sequence[float], unit: str = "s") -> None:
    """With pytest -s, or if the test fails."""
    middle, every = statistics.median(figures), ", ".join(f"{figure:.2f}" for figure in sorted(figures))
    print(f"{what}: median {middle:.2f} {unit}, most {max(figures):.2f} {unit}, all: {every}")


@pytest.fixture(scope="module", params=["ring-2", "grid-2", "grid-1", "ring-1"])
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    shape, version = request.param.split("-")
    with Lab() as lab:
        yield Mesh(lab, RING if shape == "ring" else GRID, int(version))


@pytest.mark.parametrize("repeats", REPEATS)
def test_when_a_node_dies_no_frame_circles_and_the_others_go_on_reaching_each_other(mesh: Mesh, repeats: int) -> None:
    is_ring = len(mesh.nodes) == 6
    # In the grid what is left is a ring of 8, or circles of 4 that touch.
    deaths = [kill(mesh, *((3, 0) if is_ring else [(4, 0), (8, 3)][turn % 2])) for turn in range(repeats)]
    show("longest gap", [death.gap for death in deaths])
    show("forgotten", [death.forgotten for death in deaths])
    show("crossings", [death.crossings for death in deaths], "of a link a frame")
    show("most visits", [death.most_visits for death in deaths], "of a node by a frame")
    assert max(death.forgotten for death in deaths) < 1
    if mesh.version == 2:
        assert not any(out_of_hops(mesh.lab, node) for node in mesh.nodes)
        assert max(death.most_visits for death in deaths) <= 1
        assert max(death.gap for death in deaths) < 1
        # A broadcast crosses each of the 10 links that are left at most twice.
        assert max(death.crossings for death in deaths) < (8 if is_ring else 20)
    else:
        assert sum(death.circling for death in deaths) / repeats < 1
        assert max(death.gap for death in deaths) < 2.5


@pytest.mark.parametrize("repeats", REPEATS)
def test_when_a_link_is_cut_traffic_resumes_over_the_longer_way(mesh: Mesh, repeats: int) -> None:
    edges = [(2, 3), (0, 1)] if len(mesh.nodes) == 6 else [(4, 5), (0, 3)]
    gaps = [cut(mesh, edges[turn % 2]) for turn in range(repeats)]
    show("longest gap", gaps)
    assert max(gaps) < (1 if mesh.version == 2 else 2.5)


# What is told of it


def test_the_status_names_all_nodes_and_hosts_with_next_hop_and_cost(lab: Lab) -> None:
    """a -- b -- c, and a host behind c's interface."""
    wires = {pair: lab.wire(*pair) for pair in ("ab", "bc")}
    nodes = {
        name: lab.node(name, f"listen 0.0.0.0 {PORT}", "iface yes", "iface_dev tap0", "learn_macs yes",
                       "conn_keepalive 200ms", "conn_retry 200ms", "status_format json" if name == "c" else "",
                       *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for name in "abc"
    }
    a, b, c = nodes.values()
    lab.until(lambda: len(a.status().nodes) == 3, 15, "three nodes known to a")
    host = bytes.fromhex("020000000077")
    with lab.host("c").frames("tap0") as port:
        port.send(b"\xff" * 6 + host + b"\x88\xb5" + bytes(46))
    known = lab.until(lambda: host.hex(":") in (status := a.status()).routes and status, 5, "the host known to a")
    ids = {node: node.status().node for node in (a, b)} | {c: read_json(c)["node_id"]}
    assert set(known.nodes) == set(ids.values()) and known.node == ids[a]
    assert known.nodes[ids[a]] == (-1, 0, 0, 1)
    near, far = known.nodes[ids[b]], known.nodes[ids[c]]
    assert (near.via, near.hops, near.hosts, far.via, far.hops, far.hosts) == (0, 1, 1, 0, 2, 2)
    assert 0 < near.cost < far.cost
    assert known.routes[host.hex(":")][::2] == (0, 2)
    assert known.hosts[host.hex(":")] == ("learned", ids[c])
    routes = {route["mac"]: route for route in read_json(c)["routes"]}
    assert [(routes[mac]["kind"], routes[mac]["node"], routes[mac]["distance"])
            for mac in (host.hex(":"), read_json(c)["interface"]["mac"], known.mac)] == [
                ("learned", ids[c], 0), ("fixed", ids[c], 0), ("fixed", ids[a], 2)]
    b.kill()
    lab.until(lambda: len(a.status().nodes) == 1 and len(a.status().routes) == 1, 5, "all others forgotten by a")


def test_a_node_knows_at_most_max_nodes_others(lab: Lab) -> None:
    """a -- b -- c"""
    wires = {pair: lab.wire(*pair) for pair in ("ab", "bc")}
    a, _, c = (
        lab.node(name, f"listen 0.0.0.0 {PORT}", "conn_retry 200ms", f"max_nodes {1 if name == 'a' else 2}",
                 *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for name in "abc"
    )
    lab.until(lambda: len(c.status().nodes) == 3, 15, "three nodes known to c")
    a.wait_log("warning there are more nodes than max_nodes 1")
    fresh(lab, a)
    assert len(a.status().nodes) == 2, "itself and one more"


# Both versions in one mesh


def test_across_a_node_of_version_1_everybody_reaches_everybody_and_learned_hosts_too(lab: Lab) -> None:
    """hp -- p --2-- q --1-- r --1-- s --2-- t -- ht: r speaks version 1 only; hp and ht are hosts behind bridges."""
    wires = {pair: lab.wire(*pair) for pair in ("pq", "qr", "rs", "st")}
    addresses = {"hp": "10.9.0.1", "q": "10.9.0.2", "r": "10.9.0.3", "s": "10.9.0.4", "ht": "10.9.0.5"}
    own = {name: ["iface yes", "iface_dev tap0", f"iface_address {addresses[name]}/24"] for name in "qrs"}
    own["r"].append("link_version 1")
    for site in "pt":
        make_bridge(lab.host(site))
        plug(lab.host(f"h{site}"), lab.host(site), "eth0")
        lab.host(f"h{site}").ip(f"addr add {addresses[f'h{site}']}/24 dev eth0")
        own[site] = [*BRIDGED, "learn_macs yes"]
    nodes = {
        name: lab.node(name, f"listen 0.0.0.0 {PORT}", *lines, "conn_retry 200ms",
                       *(f"connect {wires[pair].address(pair[1])} {PORT}" for pair in wires if pair[0] == name))
        for name, lines in own.items()
    }
    for left, right, version in ("pq2", "qr1", "rs1", "st2"):
        nodes[left].wait_log(f"link up: {right} at .*version {version}", 15)
    for source, target in itertools.permutations(addresses, 2):
        lab.wait_for_ping(source, addresses[target])
        assert lab.host(source).ping(addresses[target], 10, 0.01).received == 10, f"{source} to {target}"
    ends = [lab.host(f"h{site}").mac("eth0") for site in "pt"]
    known = {mac.hex(":") for mac in ends}
    for node in nodes.values():
        lab.until(lambda node=node: known <= set(node.status().routes), 5, f"both hosts known to {node.name}")
    sent = [ends[1] + ends[0] + b"\x88\xb5" + number.to_bytes(50, "big") for number in range(100)]
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(lab.host(f"h{site}").frames("eth0")) for site in "pt")
        middle = [stack.enter_context(lab.host(name).frames("tap0")) for name in "qrs"]
        for frame in sent:
            near.send(frame)
        far.expect(lambda frame: frame == sent[-1])
        assert not [frame for port in middle for frame in port.drain() if frame in sent], "it was flooded"

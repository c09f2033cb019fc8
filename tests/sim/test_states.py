# SPDX-License-Identifier: GPL-3.0-or-later
"""Anything in any order: frames, links, nodes, hosts, options. What must hold: `watched.py`; in the end: here."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fuzz.steps import assert_all_is_forgotten, assert_empty
from tests.sim.mesh import EVERYBODY, HEARTBEAT, MS, SECOND, Link, Node
from tests.sim.test_super_frames import UNKNOWN, offload, tcp_frame
from tests.sim.watched import WatchedMesh, made

HOSTS = [0x020000000100 + number for number in range(3)]
GROUP = 0x01005E000001
TIMES = [MS, 5 * MS, 20 * MS, HEARTBEAT, 200 * MS, SECOND, 3 * SECOND, 12 * SECOND]
FREE = dict(up=(0, 0, 2048), down=(0, 0, 20480))
ROOM: dict[str, Any] = dict(max_nodes=20, max_link_claims=200, max_port_routes=50, max_local=3, max_offers=500)
NO_ROOM: dict[str, Any] = dict(max_nodes=2, max_link_claims=2, max_port_routes=2, max_local=1, max_offers=500)

number = st.integers(0, 59)  # of one of up to 5 nodes, or of their links
size = st.sampled_from([60, 60, 1500, 8192, 8193])
yes = st.booleans()
rarely = st.sampled_from([False, False, False, True])


class States(RuleBasedStateMachine):
    versions: tuple[int, ...]

    @initialize(
        seed=st.integers(0, 1 << 32),
        count=st.integers(3, 5),
        versions=st.lists(number, min_size=5, max_size=5),
        headless=st.lists(rarely, min_size=5, max_size=5),
        learning=st.lists(yes, min_size=5, max_size=5),
        pairs=st.lists(
            st.tuples(number, number, st.sampled_from([MS // 2, MS, 10 * MS, 60 * MS])), min_size=4, max_size=8
        ),
        tight=rarely,
    )
    def build(
        self, seed: int, count: int, versions: list[int], headless: list[bool], learning: list[bool],
        pairs: list[tuple[int, int, int]], tight: bool,
    ) -> None:  # fmt: skip
        self.mesh, self.pauses = WatchedMesh(seed), random.Random(seed)
        self.tight, self.sent = tight, 0
        for at in range(count):
            self.mesh.node(
                headless=headless[at] and at > 0, version=self.versions[versions[at] % len(self.versions)],
                learn_macs=learning[at], mac_age=20 * SECOND, keepalive=SECOND, timeout=5 * SECOND,
                max_proto=16, max_data=40, max_waiting=150_000, **(NO_ROOM if tight else ROOM),
            )  # fmt: skip
        self.nodes = self.mesh.nodes
        self.places = dict.fromkeys(HOSTS, self.nodes[0])
        for at in range(1, count):  # a tree, and what comes on top of it
            self.mesh.link(self.nodes[at], self.nodes[pairs[at - 1][0] % at], pairs[at - 1][2])
        for a, b, delay in pairs[count - 1 :]:
            if a % count != b % count:
                self.mesh.link(self.nodes[a % count], self.nodes[b % count], delay)

    def node(self, number: int) -> Node:
        return self.nodes[number % len(self.nodes)]

    def link(self, number: int) -> Link:
        return self.mesh.links[number % len(self.mesh.links)]

    def enter(self, node: Node, to: int, size: int = 60, source: int = 0) -> bytes:
        """A frame from the interface, if there is one."""
        self.sent += 1
        data = made(self.sent, to, source or node.mac, size)
        if node.mac and node.is_alive:
            self.mesh.enter(node, data)
        return data

    def open(self, link: Link) -> None:
        if not link.ends and all(node.is_alive for node in link.nodes):
            link.is_silent = False
            link.open()

    # What may happen.

    @rule(time=st.sampled_from(TIMES))
    def wait(self, time: int) -> None:
        self.mesh.run(time)

    @rule(a=number, b=number, size=size)
    def send(self, a: int, b: int, size: int) -> None:
        self.enter(self.node(a), self.node(b).mac or UNKNOWN, size)

    @rule(a=number, to=st.sampled_from([EVERYBODY, UNKNOWN, GROUP]), size=size)
    def flood(self, a: int, to: int, size: int) -> None:
        self.enter(self.node(a), to, size)

    @rule(a=number, to=st.one_of(number, st.sampled_from([EVERYBODY, UNKNOWN, *HOSTS])), size=st.integers(200, 30_000))
    def send_super(self, a: int, to: int, size: int) -> None:
        self.sent += 1
        node = self.node(a)
        data = bytearray(tcp_frame(node.mac, (self.node(to).mac if to < 60 else to) or UNKNOWN, size))
        data[34:38] = self.sent.to_bytes(4, "big")
        if node.mac and node.is_alive:
            self.mesh.enter(node, bytes(data), offload(1448 if size > 1448 else 100))

    @rule(host=st.sampled_from(HOSTS), a=number, to=st.one_of(number, st.sampled_from([EVERYBODY, *HOSTS])))
    def host_speaks(self, host: int, a: int, to: int) -> None:
        """From here; it may have moved."""
        node = self.node(a)
        if node.mac and node.is_alive:
            self.places[host] = node
            self.enter(node, (self.node(to).mac if to < 60 else to) or UNKNOWN, source=host)

    @rule(a=number, host=st.sampled_from(HOSTS), count=st.integers(1, 60))
    def send_to_host(self, a: int, host: int, count: int) -> None:
        for _ in range(count):
            self.enter(self.node(a), host)

    @rule(a=number, b=number, c=number, host=st.sampled_from(HOSTS))
    def chase(self, a: int, b: int, c: int, host: int) -> None:
        """A host moves from b to c while frames from a are on their way to it."""
        self.host_speaks(host, b, EVERYBODY)
        self.mesh.run(200 * MS)
        self.enter(self.node(a), host)
        self.host_speaks(host, c, EVERYBODY)
        self.enter(self.node(a), host)
        self.mesh.run(MS)
        self.enter(self.node(a), host)

    @rule(a=number, b=number, at=number, pause=st.sampled_from([MS, 5 * MS, 20 * MS, HEARTBEAT]))
    def lose_a_link_on_the_way(self, a: int, b: int, at: int, pause: int) -> None:
        """Frames go on and on, and find another way or none."""
        for step in range(16):
            if step == 4:
                self.link(at).close()
            self.send(a, b, 60)
            self.mesh.run(pause)

    @rule(at=number)
    def close(self, at: int) -> None:
        self.link(at).close()

    @rule(at=number)
    def open_again(self, at: int) -> None:
        self.open(self.link(at))

    @rule(at=number)
    def flap(self, at: int) -> None:
        self.link(at).close()
        self.open(self.link(at))

    @rule(at=number)
    def silence(self, at: int) -> None:
        self.link(at).is_silent = True

    @rule(at=number, delay=st.sampled_from([1, MS, 20 * MS, 200 * MS]))
    def delay(self, at: int, delay: int) -> None:
        self.link(at).delay = delay

    @rule(at=number, side=st.integers(0, 1), paused=yes)
    def pause(self, at: int, side: int, paused: bool) -> None:
        link = self.link(at)
        if link.ends:
            end = link.ends[side]
            end.node.switch.pause(end, paused)
            end.flush()

    @rule(at=number, side=st.integers(0, 1), to_all=yes, size=size)
    def crowd(self, at: int, side: int, to_all: bool, size: int) -> None:
        """More for a link that stands still than waits for it."""
        self.pause(at, side, True)
        a, b = self.link(at).nodes[:: 1 - 2 * side]
        for _ in range(45):
            self.enter(a, EVERYBODY if to_all else b.mac or UNKNOWN, size)

    @rule(a=number)
    def kill(self, a: int) -> None:
        self.mesh.collect()
        self.node(a).kill()

    @precondition(lambda self: sum(node.lives for node in self.nodes) < 16)  # each has tables of 15 MB
    @rule(a=number)
    def start(self, a: int) -> None:
        """Anew, and all its links that can be."""
        self.mesh.collect()
        node = self.node(a)
        node.kill()
        node.start()
        for link in node.links:
            self.open(link)

    @rule(
        a=number, multi_ratio=st.sampled_from([0, 0, 2, 20]), promisc=rarely, ignore_macs=rarely, broadcast_send=rarely,
        broadcast_nocopy=rarely, allowed=st.sampled_from([(), (), (0x88B5,), (0x0800,)]),
        broadcast_limit=st.sampled_from([0, 0, 1, 20]),
    )  # fmt: skip
    def set_policy(self, a: int, **policy: Any) -> None:
        node = self.node(a)
        node.switch.set_policy(**policy)
        if policy["promisc"]:
            self.mesh.overhears.add((node, node.lives))

    @rule(a=number, on=yes, mac_age=st.sampled_from([SECOND, 20 * SECOND]), most=st.integers(0, 3))
    def set_learning(self, a: int, on: bool, mac_age: int, most: int) -> None:
        self.node(a).switch.set_learning(on, mac_age, most)

    @rule(
        a=number, up=st.sampled_from([0, 0, 5_000, 100_000]), each_up=st.sampled_from([0, 0, 5_000]),
        down=st.sampled_from([0, 0, 5_000]), each_down=st.sampled_from([0, 0, 5_000]),
    )  # fmt: skip
    def set_limits(self, a: int, up: int, each_up: int, down: int, each_down: int) -> None:
        self.node(a).switch.set_limits(self.mesh.now, up=(up, each_up, 2048), down=(down, each_down, 4096))

    @rule(a=number, is_open=yes)
    def set_interface(self, a: int, is_open: bool) -> None:
        self.node(a).tap.is_open = is_open

    # What must hold after each step, and in the end.

    @invariant()
    def holds(self) -> None:
        """Some time passes, too: hypothesis plays most of its games with some of the rules only."""
        self.mesh.check_all()
        self.mesh.run(self.pauses.choice((0, 0, MS, 30 * MS, 300 * MS)))
        self.mesh.check_all()

    def teardown(self) -> None:
        if not hasattr(self, "mesh"):
            return
        try:
            if not sys.exc_info()[0]:
                self.assert_all_is_well_in_the_end()
                SEEN.update(self.mesh.seen)
                for node in self.nodes:
                    SEEN.update(+Counter(node.switch.dropped()))
        finally:
            self.mesh.free()

    def assert_all_is_well_in_the_end(self) -> None:
        self.come_to_rest()
        self.mesh.check_all()
        if not self.tight:
            self.assert_tables_agree()
            self.assert_all_are_reached()
        for link in self.mesh.links:
            link.close()
        self.mesh.check_all()
        for node in self.nodes:
            assert_empty(node.switch)
            assert not node.switch.hosts.has_news()
            assert_all_is_forgotten(node)

    def come_to_rest(self) -> None:
        for node in self.nodes:
            if not node.is_alive:
                node.start()
            node.tap.is_open = True
            node.switch.set_policy()
            node.switch.set_limits(self.mesh.now, **FREE)
            node.switch.set_learning(node.limits["learn_macs"], 20 * SECOND, 3)
        for link in self.mesh.links:
            if link.is_silent:
                link.close()
            self.open(link)
            for end in link.ends:
                end.node.switch.pause(end, False)
                end.flush()
        self.mesh.run(60 * SECOND)
        learners = [node.number - 1 for node in self.nodes if node.mac and node.limits["learn_macs"]]
        if len(learners) > 1 and all(node.version == 2 for node in self.nodes):
            # In version 1 a host is where it was, too, until `mac_age` is over.
            for host in HOSTS:
                self.chase(self.sent, learners[0], learners[1], host)
                learners.append(learners.pop(0))
            self.mesh.run(12 * SECOND)  # who moved often is held for 10 s
        for host, node in self.places.items():
            self.enter(node, EVERYBODY, source=host)
        self.mesh.run(5 * SECOND)

    def assert_tables_agree(self) -> None:
        learned = {host for host, node in self.places.items() if node.limits["learn_macs"]}
        expected = {node.mac for node in self.nodes} - {0} | learned
        for node in self.nodes:
            known = {mac: (kind, owner) for mac, _, _, _, kind, owner in node.switch.known()}
            assert known.keys() == expected, (node, [hex(mac) for mac in known.keys() ^ expected])
            for host in learned:
                place = self.places[host]
                port = node.switch.way_to(host)
                assert (port == 0) == (place is node), (node, hex(host), port)
            if all(other.version == 2 for other in self.nodes):
                ids = {other.switch.node_id for other in self.nodes}
                assert {best[0] for best in node.switch.nodes.best()} == ids
                owners = {mac: owner for mac, (_, owner) in known.items()}
                assert owners == {
                    mac: other.switch.node_id
                    for mac, other in [(other.mac, other) for other in self.nodes if other.mac]
                    + [(host, self.places[host]) for host in learned]
                }

    def assert_all_are_reached(self) -> None:
        self.mesh.collect()
        for a in self.nodes:
            if not a.mac:
                continue
            goals = {b.mac: b for b in self.nodes if b.mac and b is not a}
            goals |= {host: node for host, node in self.places.items() if node is not a}
            sent = {self.enter(a, mac): goal for mac, goal in goals.items()}
            self.mesh.run(SECOND)
            got = self.mesh.collect()
            for data, goal in sent.items():
                assert got[goal].count(data) == 1, (a, goal)


SEEN = Counter[str]()


@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("versions", [(2,), (1,), (1, 2, 2)], ids=["version 2", "version 1", "both versions"])
def test_whatever_happens_in_whatever_order_the_mesh_keeps_its_promises(
    versions: tuple[int, ...], examples: int
) -> None:
    machine = type("Machine", (States,), {"versions": versions})
    SEEN.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    wanted = {"type 4", "duplicate", "nowhere", "link_closed", "queue_full"}
    wanted |= {"type 8" if version == 2 else "type 3" for version in versions}
    assert wanted | ({"sent on"} if versions == (2,) else set()) <= SEEN.keys()

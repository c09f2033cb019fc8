# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator: what it measures is so, what a script says happens, and what is wrong in a file is told."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from cloudvpn._fast.wire import read_packets
from cloudvpn.errors import ConfigError
from cloudvpn.options import MS, SECOND
from cloudvpn.sim import cli, picture, report
from cloudvpn.sim.events import Script
from cloudvpn.sim.figures import FIGURES, Figures, percentile
from cloudvpn.sim.lies import LIES, Victim
from cloudvpn.sim.links import End, packets
from cloudvpn.sim.mesh import Mesh
from cloudvpn.sim.run import merge, run
from cloudvpn.sim.scenario import Scenario, load
from cloudvpn.sim.script import VERBS, parse_action
from cloudvpn.sim.shapes import SHAPES
from cloudvpn.sim.traffic import make_frame
from cloudvpn.sim.ways import NOWHERE

LINE = """
[[node]]
name = "a"
[[node]]
name = "b"
[[node]]
name = "c"
[[link]]
between = "a-b"
rtt = "10ms"
[[link]]
between = "b-c"
rtt = "20ms"
"""
VERSION_1 = "[defaults]\nversion = 1\n"  # the ways of MACs are all there is
SQUARE = '[topology]\nshape = "ring"\nnodes = 4\n'


def write(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"part{number}.toml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def scenario(folder: Path, *texts: str) -> Scenario:
    return load(write(folder, *texts))


def event(at: str, do: str) -> str:
    return f'\n[[event]]\nat = "{at}"\ndo = "{do}"\n'


def traffic(source: str, target: str, every: str = "10ms", more: str = "") -> str:
    return f'\n[[traffic]]\nfrom = "{source}"\nto = "{target}"\nevery = "{every}"\n{more}\n'


def at_rest(folder: Path, *texts: str, seed: int = 1, time: int = 10 * SECOND) -> Mesh:
    """A mesh that has run so long."""
    mesh = Mesh(scenario(folder, *texts), seed)
    mesh.start()
    mesh.clock.run_to(mesh.begun + time)
    return mesh


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = cli.start([str(word) for word in words])
    return code, *capsys.readouterr()


# What it measures.


def test_a_line_has_the_ways_and_the_pings_of_its_links(tmp_path: Path) -> None:
    result = run(scenario(tmp_path, LINE, 'duration = "10s"'), 1)
    [window] = result.windows
    assert window.paths["a>c"] == (["a", "b", "c"], 30 * MS)
    assert window.paths["b>a"] == (["b", "a"], 10 * MS)
    assert len(window.paths) == 6
    figures = window.figures
    assert (figures.loops, figures.unreachable, figures.remembered, figures.value("stretch")) == (0, 0, 0, 1)
    assert figures.quiet is not None and 5 * SECOND < figures.quiet < 10 * SECOND
    assert result.nodes == {"a": "version 2", "b": "version 2", "c": "version 2"}
    assert result.links == [("a", "b", 10 * MS, "up"), ("b", "c", 20 * MS, "up")]


def test_every_frame_is_there_half_a_round_trip_later(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE)
    mesh.frames.send("a", "c", 100)
    mesh.clock.run_to(mesh.clock.now + 15 * MS - 1)
    assert mesh.frames.totals() == {}, "it is on its way"
    mesh.clock.run_to(mesh.clock.now + 1)
    assert mesh.frames.totals()[0] == {"sent": 1, "lost": 0, "doubled": 0}


def test_the_other_way_round_is_taken_when_a_link_is_cut(tmp_path: Path) -> None:
    result = run(scenario(tmp_path, SQUARE + traffic("n1", "n2") + event("5s", "cut n1-n2")), 1)
    before, after = result.windows
    assert before.paths["n1>n2"] == (["n1", "n2"], 10 * MS)
    assert after.paths["n1>n2"] == (["n1", "n4", "n3", "n2"], 30 * MS)
    assert before.figures.frames["sent"] > 0 < after.figures.frames["sent"]
    assert before.figures.frames["lost"] <= 2, "while the mesh came up"
    assert after.figures.back and max(after.figures.back) <= SECOND
    assert ("n1", "n2", 10 * MS, "cut") in result.links


def test_a_dead_node_is_forgotten_and_that_is_timed(tmp_path: Path) -> None:
    result = run(scenario(tmp_path, SQUARE + traffic("n1", "n3") + event("5s", "kill n3")), 1)
    figures = result.windows[1].figures
    assert len(figures.forgotten) == 3 and figures.remembered == 0
    assert 0 < max(figures.forgotten) < 4 * SECOND
    assert figures.frames["hopeless"] == figures.frames["sent"] > 700
    assert figures.frames["lost"] == 0
    assert result.nodes["n3"] == "dead"


def test_a_silent_death_is_noticed_by_the_timeout_and_the_times_count_from_there(tmp_path: Path) -> None:
    settings = '[defaults]\nkeepalive = "200ms"\ntimeout = "2s"\n[[link]]\nbetween = "n4-n1"\nrtt = "77ms"\n'
    result = run(scenario(tmp_path, settings, SQUARE + event("5s", "silence n3")), 1)
    figures = result.windows[1].figures
    assert figures.forgotten and figures.remembered == 0
    assert figures.value("back_s") < 1 <= figures.value("out_s") < 4
    loud = run(scenario(tmp_path, settings, SQUARE + event("5s", "kill n3")), 1).windows[1].figures
    assert loud.value("out_s") < 1


def test_pairs_that_are_joined_and_have_no_way_are_counted_at_once(tmp_path: Path) -> None:
    settings = '[defaults]\ntimeout = "60s"\n'
    triangle = '[topology]\nshape = "complete"\nnodes = 3\n'
    result = run(scenario(tmp_path, settings, triangle + event("5s", "silence n1-n2") + event("6s", "watch")), 1)
    figures = result.windows[1].figures
    assert figures.unreachable == 2, "n1 and n2, whose link takes all and carries nothing"
    assert figures.value("broken") == 2


def test_announcements_are_counted_by_link_and_direction(tmp_path: Path) -> None:
    result = run(scenario(tmp_path, LINE, 'duration = "10s"', "[defaults]\nversion = 1\n"), 1)
    told, figures = result.windows[0].told, result.windows[0].figures
    assert set(told) == {"a>b", "b>a", "b>c", "c>b"}
    assert figures.messages == sum(counts["messages"] for counts in told.values())
    assert figures.link_bytes == max(counts["bytes"] for counts in told.values())
    # A set with the own MAC, at least; a set of one route is 16 bytes.
    assert all(counts["route sets"] >= 1 and counts["bytes"] >= 16 for counts in told.values())


# Loops: against a look at everything.


def brute_force(mesh: Mesh, target: int) -> tuple[list[bool], set[int]]:
    """For each node whether its walk arrives; and all nodes that lie on a circle."""
    following = mesh.ways.next[target]
    arrives, circling = [], set()
    for number in range(len(following)):
        at, seen = number, list[int]()
        while at != NOWHERE and at not in seen and at != target:
            seen.append(at)
            at = following[at]
        arrives.append(at == target == following[target])
        if at in seen:
            circling.update(seen[seen.index(at) :])
    return arrives, circling


def test_loops_and_arrivals_are_those_that_a_look_at_all_nodes_finds(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, VERSION_1, '[topology]\nshape = "random"\nnodes = 12\ndegree = 4\n')
    chance, loops, broken = random.Random(1), 0, 0
    ways = {node.number: dict(zip(mesh.ways.macs, mesh.ways.ports[node.number], strict=True)) for node in mesh.nodes}
    for node in mesh.nodes:
        node.way = ways[node.number].get
    for _ in range(3000):
        node = chance.choice(mesh.nodes)
        target = chance.choice([number for number in mesh.ways.targets if number != node.number])
        ways[node.number][mesh.nodes[target].mac] = chance.choice([*node.ends, None])
        if chance.random() < 0.02:
            link = chance.choice(mesh.links)
            link.set_silent(not link.is_silent)
        mesh.ways.check(node)
        for number in mesh.ways.targets:
            arrives, circling = brute_force(mesh, number)
            assert mesh.ways.arrives[number] == arrives
            assert set(mesh.ways._loops[number]) == circling
            broken += arrives.count(False)
            loops += len(circling)
    assert loops > 1000 < broken
    assert mesh.ways.figures.loops > 100


def test_a_loop_is_timed_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, VERSION_1, LINE)
    a, b, c = mesh.nodes
    mesh.ways.begin()
    [back] = [port for port, end in b.ends.items() if end.other is a]
    [forth] = [port for port, end in b.ends.items() if end.other is c]
    b.way = {a.mac: back, b.mac: 0, c.mac: back}.get
    mesh.ways.check(b)
    assert (mesh.ways.figures.loops, mesh.loops) == (1, [(10 * SECOND, "c", ["a", "b"])])
    mesh.clock.now += 70 * MS
    b.way = {a.mac: back, b.mac: 0, c.mac: forth}.get
    mesh.ways.check(b)
    figures = mesh.ways.end()
    assert (figures.loops, figures.loop, figures.back) == (1, 70 * MS, [70 * MS] * 2)


def test_a_loop_of_macs_that_frames_with_an_egress_would_leave_is_none(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE)
    a, b, c = mesh.nodes
    [back] = [port for port, end in b.ends.items() if end.other is a]
    b.way = {a.mac: back, b.mac: 0, c.mac: back}.get
    mesh.ways.check(b)
    assert mesh.ways.figures.loops == 0
    assert mesh.ways.path(0, 2) is None


def test_a_loop_that_is_there_in_the_end_has_lasted_until_then(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, VERSION_1, LINE)
    a, b, c = mesh.nodes
    mesh.ways.begin()
    [back] = [port for port, end in b.ends.items() if end.other is a]
    b.way = {a.mac: back, b.mac: 0, c.mac: back}.get
    mesh.ways.check(b)
    mesh.clock.now += 5 * MS
    figures = mesh.ways.end()
    assert (figures.loop, figures.unreachable) == (5 * MS, 2)


def test_a_node_that_takes_its_own_mac_for_somebody_elses_is_found(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE)
    a = mesh.nodes[0]
    assert mesh.ways.figures.own_mac_lost == 0
    real = a.way
    a.way = lambda mac: 1 if mac == a.mac else real(mac)
    mesh.ways.check(a)
    assert mesh.ways.figures.own_mac_lost == 1
    assert mesh.ways.path(2, 0) is None


def test_the_paths_of_a_mesh_in_rest_are_compared_with_the_best_ones(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, SQUARE)
    assert mesh.ways.best(0) == {0: 0, 1: 10 * MS, 2: 20 * MS, 3: 10 * MS}
    assert mesh.ways.stretches({"n1>n2": (["n1", "n2"], 10 * MS), "n1>n3": (["n1", "n2", "n3"], 30 * MS)}) == [1, 1.5]


# Frames.


def test_a_frame_that_comes_to_a_node_again_has_looped(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE)
    a, b, c = mesh.nodes
    mesh.frames.send("a", "c", 60)
    data = b"\0" * 24 + make_frame(c.mac, a.mac, 0, 60)
    for target in (a, b, a):
        mesh.frames.crosses(data, 24, target)
    assert mesh.frames.looped[0] == {"crossings": 3, "looped": 1}
    assert mesh.frames.crossings[0] == 4


def test_a_frame_counts_where_its_receiver_is_and_twice_is_doubled(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE)
    a, b, c = mesh.nodes
    for times in range(3):
        mesh.frames.send("a", "c", 60)
        made = make_frame(c.mac, a.mac, times, 60)
        mesh.frames.came(b, made)
        for _ in range(times):
            mesh.frames.came(c, made)
    # The real ones are still on their way: so many came as were said to.
    assert mesh.frames.totals()[0] == {"sent": 2, "lost": 0, "doubled": 1}
    assert mesh.nodes[2].switch.frames_to_tap == 0


def test_no_frame_is_lost_uncounted(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, '[topology]\nshape = "grid"\nnodes = 9\n' + traffic("all", "all", "100ms"), time=SECOND)
    script = Script(mesh)
    for words in ("cut r1c1-r1c2", "kill r2c2", "flap r3c1-r3c2 3 100ms"):
        script.do(parse_action(words))
    mesh.clock.run_to(mesh.clock.now + 3 * SECOND)
    for node in mesh.nodes:
        switch = node.switch
        came = switch.frames_from_tap + switch.frames_from_links + switch.copies
        assert came == switch.frames_to_tap + switch.frames_to_links + sum(switch.dropped().values())
    assert mesh.dropped().total() > 0


# Links.


def arrival(mesh: Mesh, size: int = 1000, count: int = 1) -> list[int]:
    """How long frames from a take to b, sent at once."""
    a, b = mesh.nodes[:2]
    start, first, times = mesh.clock.now, len(mesh.frames._came), list[int]()
    for _ in range(count):
        mesh.frames.send(a.name, b.name, size)
    while len(times) < count:
        mesh.clock.run_to(mesh.clock.now + 100)
        times += [mesh.clock.now - start] * (sum(mesh.frames._came[first:]) - len(times))
        assert mesh.clock.now < start + 5 * SECOND
    return times


PAIR = '[[node]]\nname = "a"\n[[node]]\nname = "b"\n[[link]]\nbetween = "a-b"\nrtt = "10ms"\n'


def test_a_rate_makes_frames_wait_for_each_other(tmp_path: Path) -> None:
    [alone] = arrival(at_rest(tmp_path, PAIR))
    assert alone == 5 * MS
    times = arrival(at_rest(tmp_path, PAIR + 'rate = "1Mbit"\n'), count=10)
    per_frame = 8 * MS  # 1,000 bytes; and a header
    assert 5 * MS + 10 * per_frame < times[-1] < 5 * MS + 11 * per_frame


def test_jitter_and_loss_delay_and_nothing_is_overtaken(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, PAIR + 'jitter = "20ms"\n')
    waits = [arrival(mesh)[0] for _ in range(50)]
    assert 5 * MS <= min(waits) < 8 * MS and 20 * MS < max(waits) <= 25 * MS + 100
    mesh = at_rest(tmp_path, PAIR + "loss = 0.2\n")
    waits = [arrival(mesh)[0] for _ in range(50)]
    assert min(waits) == 5 * MS and 200 * MS < max(waits) < 2 * SECOND


def test_a_silent_link_loses_nothing_if_it_speaks_again_in_time(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, PAIR)
    script = Script(mesh)
    script.do(parse_action("silence a-b"))
    mesh.frames.send("a", "b", 60)
    mesh.clock.run_to(mesh.clock.now + SECOND)
    assert mesh.links[0].ends[0].held
    assert mesh.frames._came == b"\0"
    script.do(parse_action("heal a-b"))
    mesh.clock.run_to(mesh.clock.now + 10 * MS)
    assert mesh.frames._came == b"\1"
    assert mesh.links[0].works


def test_the_end_of_a_killed_node_is_heard_behind_all_that_it_sent(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, PAIR)
    a, b = mesh.nodes
    mesh.frames.send("a", "b", 60)
    a.stop()
    mesh.clock.run_to(mesh.clock.now + 5 * MS - 1)
    assert len(b.ends) == 1
    mesh.clock.run_to(mesh.clock.now + 1)
    assert len(b.ends) == 0
    assert mesh.frames._came == b"\1"


def test_a_link_that_timed_out_is_dialled_again(tmp_path: Path) -> None:
    settings = '[defaults]\nkeepalive = "100ms"\ntimeout = "500ms"\nretry = "300ms"\n'
    mesh = at_rest(tmp_path, settings, PAIR)
    [link] = mesh.links
    link.loss = 1 - 1e-9  # so late that it is as good as lost
    first = link.ends
    mesh.chance.random = lambda: 0.5  # type: ignore[method-assign]
    link.rtt = 2 * SECOND
    link.loss = 0
    mesh.clock.run_to(mesh.clock.now + SECOND)
    assert not link.works
    link.rtt = 10 * MS
    mesh.clock.run_to(mesh.clock.now + 6 * SECOND)
    assert link.works and link.ends is not first


def test_a_slowed_reader_takes_what_waited_when_it_reads_on(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, PAIR)
    b = mesh.nodes[1]
    [end] = b.ends.values()
    end.set_reading(False)
    mesh.frames.send("a", "b", 60)
    mesh.clock.run_to(mesh.clock.now + SECOND)
    assert mesh.frames._came == b"\0" and end.unread
    end.set_reading(True)
    mesh.clock.run_to(mesh.clock.now)
    assert mesh.frames._came == b"\1" and not end.unread


# Scripts.


def after(folder: Path, *words: str, shape: str = SQUARE, time: int = 5 * SECOND) -> Mesh:
    mesh = at_rest(folder, shape)
    for one in words:
        Script(mesh).do(parse_action(one))
        mesh.clock.run_to(mesh.clock.now + time)
    return mesh


def states(mesh: Mesh) -> str:
    """Of the links."""
    return "".join("C" if link.is_cut else "S" if link.is_silent else "+" if link.works else "-" for link in mesh.links)


@pytest.mark.parametrize(
    ("words", "links", "alive"),
    [
        (["cut n1-n2"], "C+++", 4),
        (["cut n2-n1", "heal n1-n2"], "++++", 4),
        (["cut random", "cut random", "heal all"], "++++", 4),
        (["kill n1"], "-++-", 3),
        (["kill n1", "start n1"], "++++", 4),
        (["silence n1", "start all"], "++++", 4),
        (["silence n1-n2"], "S+++", 4),
        (["silence n1-n2", "heal random"], "++++", 4),
        (["restart n1 10ms"], "++++", 4),
        (["restart all 2s"], "++++", 4),
        (["flap n1-n2 3 100ms"], "++++", 4),
        (["partition n1,n2"], "+C+C", 4),
        (["partition half"], None, 4),
        (["kill n1", "kill n1"], "-++-", 3),
        (["watch"], "++++", 4),
        (["lie n1 zero 1s"], "++++", 4),
        (["wander 3 1s", "move h n3"], "++++", 4),
    ],
)
def test_what_a_script_says_happens(tmp_path: Path, words: list[str], links: str | None, alive: int) -> None:
    mesh = after(tmp_path, *words, shape=SQUARE + '[[host]]\nname = "h"\nat = "n1"\n')
    assert states(mesh) == links or (links is None and states(mesh).count("C") == 2)
    assert sum(node.is_alive for node in mesh.nodes) == alive
    assert [text.split(" (")[0] for _, text in mesh.journal if not text.startswith("move random")] == words


def test_flapping_goes_down_and_up_so_often(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, SQUARE)
    Script(mesh).do(parse_action("flap n1-n2 3 100ms"))
    seen = []
    for _ in range(8):
        mesh.clock.run_to(mesh.clock.now + 50 * MS)
        seen.append(states(mesh)[0])
        mesh.clock.run_to(mesh.clock.now + 50 * MS)
    assert "".join(seen) == "C+C+C+++"


def test_a_changed_link_is_another_one(tmp_path: Path) -> None:
    mesh = after(tmp_path, "change n1-n2 rtt=80ms", "change all rate=5Mbit", "change n1-n2 loss=0.5",
                 "change n1-n2 jitter=3ms")  # fmt: skip
    link = mesh.links[0]
    assert (link.rtt, link.jitter, link.loss, link.rate) == (80 * MS, 3 * MS, 0.5, 5_000_000)
    assert {link.rate for link in mesh.links} == {5_000_000}


def test_a_restarted_node_is_another_one_with_the_same_mac(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, SQUARE)
    node = mesh.nodes[0]
    before = node.switch.node_id, node.mac
    Script(mesh).do(parse_action("restart n1 1s"))
    mesh.clock.run_to(mesh.clock.now + 5 * SECOND)
    assert node.switch.node_id != before[0] and node.mac == before[1]
    assert mesh.ways.path(0, 2)


def test_a_host_that_moves_is_reached_where_it_is(tmp_path: Path) -> None:
    host = '[defaults]\nlearn = true\n[[host]]\nname = "h"\nat = "n2"\n'
    text = SQUARE + host + traffic("n1", "h", "10ms") + event("5s", "move h n3") + event("10s", "watch")
    windows = run(scenario(tmp_path, text), 1).windows
    assert windows[1].figures.frames["lost"] <= 5, "on their way"
    assert windows[2].figures.frames["sent"] > 900
    assert windows[2].figures.frames["lost"] == 0


def test_chaos_draws_its_events_and_tells_which(tmp_path: Path) -> None:
    mesh = after(tmp_path, "chaos 40 5s", shape='[topology]\nshape = "random"\nnodes = 10\n', time=6 * SECOND)
    verbs = [text.split()[0] for _, text in mesh.journal]
    assert verbs[0] == "chaos" and len(verbs) == 41
    assert set(verbs) == {"chaos", "cut", "heal", "kill", "start", "restart", "flap", "silence"}
    assert all(re.search(r" \(\S+\)$| \S+-\S+$", text) for _, text in mesh.journal[1:]), "which node or link it was"


# Liars.


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_a_packet_that_can_be_read(kind: str, version: int) -> None:
    victims = [Victim(number << 40, 0x020000000000 + number, 5, 1000) for number in range(1, 9)]
    told = LIES[kind](victims, version, 77, random.Random(1))
    read, used = read_packets(told, version)
    assert used == len(told) and read
    assert {packet[0] for packet in read} <= ({1, 2} if version == 1 else {10, 11, 12})
    assert [(kind, end - at) for kind, at, end in packets(told)] == [
        (packet[0], 4 + len(packet[1]) * {10: 24, 11: 16, 12: 24}.get(packet[0], 12)) for packet in read
    ]


def test_a_liar_passes_no_frame_on_and_is_honest_again_later(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, LINE + traffic("a", "c", "10ms"))
    life = mesh.nodes[1].lives
    mesh.ways.begin()
    mesh.window = 1
    Script(mesh).do(parse_action("lie b huge 2s"))
    assert mesh.nodes[1].is_lying and mesh.ways.path(0, 2) is None
    mesh.clock.run_to(mesh.clock.now + 2 * SECOND - 1)
    mesh.window = 2
    mesh.clock.run_to(mesh.clock.now + 5 * SECOND)
    assert not mesh.nodes[1].is_lying and mesh.nodes[1].lives == life + 1
    assert mesh.ways.path(0, 2)
    totals = mesh.frames.totals()
    assert totals[1]["lost"] == totals[1]["sent"] > 190
    assert totals[2]["lost"] < totals[2]["sent"] / 2


# Everything that is random comes from the seed.


def test_the_same_seed_gives_the_same_report_and_another_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[topology]\nshape = "random"\nnodes = 8\n[defaults]\nrtt = ["4ms", "80ms"]\njitter = "3ms"\nloss = 0.01\n'
    [path] = write(tmp_path, text + traffic("n1", "n5") + event("5s", "chaos 10 5s"))
    reports = [command(capsys, path, "--json", "--seed", seed)[1] for seed in ("7", "7", "8")]
    assert reports[0] == reports[1] != reports[2]


def test_runs_in_several_processes_are_those_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = write(tmp_path, '[topology]\nshape = "ring"\nnodes = 5\n' + event("5s", "kill random"))
    one, two = (command(capsys, path, "--json", "--runs", "4", "--jobs", jobs)[1] for jobs in ("1", "2"))
    assert one == two
    assert json.loads(one)["seeds"] == [1, 2, 3, 4]


def test_runs_are_added_up(tmp_path: Path) -> None:
    one = scenario(tmp_path, SQUARE + traffic("n1", "n3") + event("5s", "kill n3"))
    runs = [run(one, seed) for seed in (1, 2)]
    total = merge(runs, "kill")
    parts = [result.windows[1].figures for result in runs]
    assert total.messages == sum(part.messages for part in parts)
    assert total.value("messages_per_run") == total.messages / 2
    assert total.link_bytes == max(part.link_bytes for part in parts)
    assert sorted(total.forgotten) == sorted(parts[0].forgotten + parts[1].forgotten)
    assert total.quiet == min(part.quiet or 0 for part in parts)
    assert merge(runs).frames["sent"] == sum(w.figures.frames["sent"] for result in runs for w in result.windows)


def test_percentiles_are_samples() -> None:
    assert [percentile(range(1, 101), percent) for percent in (50, 95, 100)] == [50, 95, 100]
    assert percentile([], 95) == 0 and percentile([7], 50) == 7


# Shapes.


@pytest.mark.parametrize(
    ("shape", "nodes", "links"),
    [("line", 5, 4), ("ring", 5, 5), ("star", 5, 4), ("grid", 9, 12), ("complete", 6, 15), ("cliques", 8, 13)],
)
def test_shapes_have_their_links(tmp_path: Path, shape: str, nodes: int, links: int) -> None:
    mesh = at_rest(tmp_path, f'[topology]\nshape = "{shape}"\nnodes = {nodes}\n')
    assert (len(mesh.nodes), len(mesh.links)) == (nodes, links)
    assert set(mesh.components()) == {0}
    assert len(mesh.ways.paths()) == nodes * (nodes - 1)


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_random_meshes_are_connected_and_of_about_their_degree(degree: int) -> None:
    names = SHAPES["random"].names(30)
    for seed in range(20):
        edges = SHAPES["random"].edges(names, degree, random.Random(seed))
        assert len({frozenset(edge) for edge in edges}) == len(edges)
        assert 0.8 * degree < 2 * len(edges) / 30 <= degree
        reached, todo = {names[0]}, [names[0]]
        while todo:
            at = todo.pop()
            near = {b if a == at else a for a, b in edges if at in (a, b)} - reached
            reached |= near
            todo += near
        assert len(reached) == 30


def test_a_link_or_node_of_a_shape_may_be_another_one(tmp_path: Path) -> None:
    more = '[[link]]\nbetween = "n2-n1"\nrtt = "77ms"\n[[link]]\nbetween = "n1-n3"\n'
    more += '[[node]]\nname = "n4"\nversion = 1\n'
    mesh = at_rest(tmp_path, SQUARE + more)
    assert sorted((link.name, link.rtt) for link in mesh.links) == [
        ("n1-n3", 10 * MS), ("n2-n1", 77 * MS), ("n2-n3", 10 * MS), ("n3-n4", 10 * MS), ("n4-n1", 10 * MS),
    ]  # fmt: skip
    versions = {link.name: {end.version for end in link.ends} for link in mesh.links}
    assert versions == {"n1-n3": {2}, "n2-n1": {2}, "n2-n3": {2}, "n3-n4": {1}, "n4-n1": {1}}


def test_a_share_of_the_nodes_is_of_version_1(tmp_path: Path) -> None:
    mesh = at_rest(tmp_path, SQUARE + "[defaults]\nversion_1_share = 0.5\n")
    assert sorted(node.settings.version for node in mesh.nodes) == [1, 1, 2, 2]


def test_a_node_without_an_interface_passes_frames_and_is_no_target(tmp_path: Path) -> None:
    result = run(scenario(tmp_path, LINE.replace('"b"\n[[node]]', '"b"\ninterface = false\n[[node]]')), 1)
    assert set(result.windows[0].paths) == {"a>c", "b>a", "b>c", "c>a"}
    assert result.windows[0].figures.unreachable == 0


# Expectations and the exit code.


def test_an_expectation_that_holds_is_told_and_the_exit_code_is_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = write(tmp_path, LINE + '[[expect]]\nunreachable = 0\nbytes_per_link = "<= 5000"\nframes_sent = 0\n')
    code, out, problems = command(capsys, path)
    assert (code, problems) == (0, "")
    assert re.search(r"^ok +\S+:15: unreachable == 0: it is 0$", out, re.MULTILINE)


def test_one_that_fails_names_file_and_line_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = LINE + event("5s", "kill c") + '[[expect]]\nafter = "kill"\nforgotten_s = "<= 0"\n[[expect]]\nmessages = 1\n'
    [path] = write(tmp_path, text)
    code, out, problems = command(capsys, path)
    assert code == 1
    lines = problems.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"cloudvpn-sim: {path}:20: forgotten_s <= 0 after kill: it is [\d.]+", lines[0])
    assert lines[1].startswith(f"cloudvpn-sim: {path}:22: messages == 1: it is ")
    assert out.count("FAILED") == 2


def test_after_looks_at_the_time_from_such_events_to_the_next_ones(tmp_path: Path) -> None:
    text = LINE + traffic("a", "b", "100ms") + event("5s", "cut b-c") + event("7s", "heal all") + event("8s", "cut b-c")
    runs = [run(scenario(tmp_path, text), 1)]
    sent = {after: merge(runs, after).frames["sent"] for after in ("", "start", "cut", "cut b", "heal")}
    assert sent["cut"] == sent["cut b"] == 20 + 100 and sent["heal"] == 10 and sent["start"] == 40
    assert sent[""] == 170


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_expected_and_is_in_the_json(name: str, tmp_path: Path) -> None:
    one = scenario(tmp_path, LINE + event("2s", "kill c") + f'[[expect]]\n{name} = ">= 0"\n')
    runs = [run(one, 1)]
    verdicts = report.judge(one, runs)
    assert [verdict.holds for verdict in verdicts] == [True]
    assert name in report.as_json(one, runs, verdicts)["figures"]


def test_figures_of_no_window_are_nothing() -> None:
    assert {name: value for name, value in Figures().all().items() if value} == {"stretch": 1.0}


# What is printed.


def test_the_report_has_events_ways_announcements_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = write(tmp_path, LINE + traffic("a", "c") + event("5s", "cut b-c"))
    code, out, problems = command(capsys, path)
    assert (code, problems) == (0, "")
    assert out.startswith("part0: 3 nodes, 2 links, seed 1, 15 s each, which took ")
    parts = (
        r"  5 s +cut b-c ", r"ways in the end\n  a to b +a-b, 10 ms", r"announcements\n +link +messages +bytes",
        r"tables in the end\n +node .*\n +a ",
    )  # fmt: skip
    for part in parts:
        assert re.search(part, out), part


def test_all_ways_are_printed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = write(tmp_path, '[topology]\nshape = "complete"\nnodes = 9\n' + traffic("n1", "n2"))
    few, all_ways = (command(capsys, path, *words)[1] for words in ([], ["--paths"]))
    assert (few.count(" to n"), all_ways.count(" to n")) == (1, 72)


def test_what_if_tells_which_ways_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = write(tmp_path, SQUARE)
    code, out, _ = command(capsys, path, "--what-if", "cut n1-n2", "--what-if", "kill n3", "--json")
    assert code == 0
    assert [entry["event"] for entry in json.loads(out)["events"]] == ["start", "cut n1-n2", "kill n3"]
    code, out, _ = command(capsys, path, "--what-if", "cut n1-n2", "--what-if", "heal n1-n2")
    first, second = re.split(r"what if .*\n", out)[1:3]
    assert re.search(r"n1 to n2 +n1-n2, 10 ms +-> +n1-n4-n3-n2, 30 ms\n", first)
    assert re.search(r"n1 to n2 +n1-n4-n3-n2, 30 ms +-> +n1-n2, 10 ms\n", second)


def test_the_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = write(tmp_path, LINE + event("5s", "cut random") + "[[expect]]\nloops = 0\n")
    told: dict[str, Any] = json.loads(command(capsys, path, "--json")[1])
    assert told["ok"] is all(entry["ok"] for entry in told["expectations"])
    assert [entry["event"] for entry in told["events"]] == ["start", "cut random"]
    first = told["first_run"]
    assert {node["name"] for node in first["nodes"]} == {"a", "b", "c"}
    assert sorted(link["state"] for link in first["links"]) == ["cut", "up"]
    [entry] = first["journal"]
    assert entry["at_s"] == 5 and re.fullmatch(r"cut random \([abc]-[abc]\)", entry["event"])
    assert set(told["figures"]) == set(FIGURES) and told["dropped"] is not None
    assert first["ways"] and first["announcements"]["a>b"]["messages"] > 0


def test_the_picture_has_every_node_and_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = write(tmp_path, SQUARE + event("5s", "cut n1-n2") + event("6s", "kill n3"))
    drawing = tmp_path / "mesh.svg"
    assert command(capsys, path, "--picture", drawing)[0] == 0
    root = ET.fromstring(drawing.read_text())
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles) == [
        "n1-n2: 10 ms, cut", "n1: version 2", "n2-n3: 10 ms, down", "n2: version 2", "n3-n4: 10 ms, down", "n3: dead",
        "n4-n1: 10 ms, up", "n4: version 2",
    ]  # fmt: skip
    assert command(capsys, path, "--picture", tmp_path / "none" / "mesh.svg") == (
        1, "", f"cloudvpn-sim: command line: --picture: {tmp_path}/none/mesh.svg: No such file or directory\n"
    )  # fmt: skip


def test_nodes_have_places_of_their_own_in_the_picture() -> None:
    names = SHAPES["grid"].names(25)
    places = picture.arrange(names, SHAPES["grid"].edges(names, 0, random.Random(1)))
    for name, (x, y) in places.items():
        assert 0 < x < picture.SIZE and 0 < y < picture.SIZE
        assert min(abs(complex(x - u, y - v)) for other, (u, v) in places.items() if other != name) > 20


def test_a_terminal_sees_how_far_it_is_and_a_file_does_not(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    [path] = write(tmp_path, 'duration = "60s"\n' + SQUARE)
    command = [sys.executable, "-m", "cloudvpn.sim", str(path)]
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # else the bar has no room
    os.set_blocking(master, False)
    with open(master, "rb", buffering=0) as screen, open(terminal, "wb", buffering=0) as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, timeout=60, check=False)
        seen = screen.read(65536) or b""
    assert done.returncode == 0 and b"%" in seen and b"part0" in seen
    assert b"%" not in done.stdout
    quiet = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (quiet.returncode, quiet.stderr) == (0, b"")


# Several files, and bad ones.


def test_files_are_read_as_if_they_were_one(tmp_path: Path) -> None:
    texts = SQUARE, '[defaults]\nrtt = "33ms"\n' + event("5s", "kill n1"), 'seed = 9\nduration = "30s"\n'
    one = scenario(tmp_path, *texts)
    assert (one.name, one.seed, one.duration) == ("part0+part1+part2", 9, 30 * SECOND)
    assert run(one, 1).links[0][2] == 33 * MS, "defaults count for all files"


BAD = [
    ("", "1: there is no node; write [topology] or [[node]]"),
    ("a = ", "1: Invalid value; this is not TOML"),
    ("[topology]\nshape = 'star'\n", '1: topology: "nodes" is missing'),
    ("\n[topology]\nshape = 'star'\nnodes = 2.5\n", '4: nodes: "2.5" is not a whole number from 2 to 256'),
    ("[topology]\nshape = 'stra'\nnodes = 2\n",
     '2: shape: "stra" is not one of line, ring, star, grid, complete, cliques, random'),
    ("[topology]\nshape = 'grid'\nnodes = 8\n", "3: nodes: a grid has a square: 4, 9, 16 nodes, not 8"),
    ("[topology]\nshape = 'complete'\nnodes = 200\n", "3: nodes: that would be more than 4096 links"),
    (SQUARE + "dgree = 3\n", '4: dgree: there is no such option here; did you mean "degree"?'),
    (SQUARE + "[defults]\nrtt = '3ms'\n", "4: defults: there is no such option here"),
    ("sed = 3\n" + SQUARE, '1: sed: there is no such option here; did you mean "seed"?'),
    ("runs = true\n" + SQUARE, '1: runs: "True" is not a whole number from 1 to 1000'),
    ("event = 3\n" + SQUARE, "1: event: write it as [[event]]"),
    (SQUARE + "[event]\nat = '1s'\ndo = 'watch'\n", "4: event: write it as [[event]]"),
    ("defaults = 3\n" + SQUARE, "1: defaults: write it as [defaults]"),
    (SQUARE + "[defaults]\nrtt = '3m'\n", '5: rtt: "3m" is not a time such as "5s" or "200ms"'),
    (SQUARE + "[defaults]\nrtt = ['5ms', '3ms']\n",
     "5: rtt: \"['5ms', '3ms']\" is not a list of a time and a longer one"),
    (SQUARE + "[defaults]\nrtt = '2h'\n", '5: rtt: "2h" is not a time of at most an hour'),
    (SQUARE + "[defaults]\nheartbeat = '0s'\n", '5: heartbeat: "0s" is not a time over 0'),
    (SQUARE + "[defaults]\nloss = 1.5\n", '5: loss: "1.5" is not a share from 0 to 1, such as 0.01'),
    (SQUARE + "[defaults]\nrate = '5M'\n",
     '5: rate: "5M" is not a rate such as "20Mbit", in kbit, Mbit or Gbit a second'),
    (SQUARE + "[defaults]\nversion = 3\n", '5: version: "3" is not one of 1, 2'),
    (SQUARE + "[defaults]\nrule = 2010\n", '5: rule: "2010" is not one of 2009'),
    (SQUARE + "[defaults]\nlearn = 'yes'\n", '5: learn: "yes" is not true or false'),
    (SQUARE + "[[node]]\nname = 'a-b'\n",
     '5: name: "a-b" is not a name of letters, digits, _ and . (not all, not random)'),
    (SQUARE + "[[node]]\nname = 'x'\n[[node]]\nversion = 1\n", '6: node: "name" is missing'),
    (SQUARE + "[[link]]\nbetween = 'n1-n9'\n", '5: between: there is no node "n9"'),
    (SQUARE + "[[link]]\nbetween = 'n1'\n", '5: between: "n1" is not two nodes such as "a-b"'),
    (SQUARE + "[[link]]\nbetween = 'n1-n1'\n", '5: between: "n1-n1" is not a link of two different nodes'),
    (SQUARE + "[[host]]\nname = 'n1'\nat = 'n2'\n", '5: name: "n1" is the name of another one'),
    (SQUARE + "[[host]]\nname = 'h'\nat = 'nx'\n", '6: at: there is no node "nx"'),
    (SQUARE + event("1s", "cut n1 n2"), '7: do: "cut n1 n2" is not an event: write `cut LINK|random`'),
    (SQUARE + event("1s", "ctu n1-n2"), '7: do: "ctu n1-n2" is not an event: "ctu" is none of cut, heal, '),
    (SQUARE + event("1s", "flap n1-n2 x"),
     '"x" is not a number from 1 to 10000; write `flap LINK|random [COUNT] [TIME]`'),
    (SQUARE + event("1s", "lie n1 white"), '"white" is not one of zero, huge, jump, strangers, macs; write `lie '),
    (SQUARE + event("1s", "change n1-n2 rtt=x"), '"rtt=x" is not rtt= and a time such as "5s" or "200ms"; write'),
    (SQUARE + event("1s", "change n1-n2 mtu=9"),
     '"mtu=9" is not rtt=TIME, jitter=TIME, loss=SHARE or rate=RATE; write `change LINK|random|all SETTING`'),
    (SQUARE + event("1s", "change n1-n2 loss=x"), '"loss=x" is not loss= and a share from 0 to 1'),
    (SQUARE + event("1s", "kill n9"), '7: do: there is no node "n9"'),
    (SQUARE + event("1s", "partition n1,x"), '7: do: there is no node "x"'),
    (SQUARE + event("1s", "move h n1"), '7: do: there is no host "h"'),
    (SQUARE + event("1s", "cut n1-n3"), '7: do: there is no link "n1-n3"'),
    (SQUARE + event("1s", "wander"), "7: do: there is no host that could move"),
    (SQUARE + traffic("n1", "n9"), '6: from: there is no node or host "n9"'),
    (SQUARE + "[[node]]\nname = 'r'\ninterface = false\n" + traffic("n1", "r"), '9: from: "r" has no interface'),
    (SQUARE + traffic("n1", "n2", more="size = 20"), '9: size: "20" is not a whole number from 60 to 1514'),
    (SQUARE + "[[expect]]\nlops = 0\n", '5: lops: there is no such option here; did you mean "loops"?'),
    (SQUARE + "[[expect]]\nloops = '= 0'\n", '5: loops: "= 0" is not a number such as 0, or a bound such as "<= 0.6"'),
    (SQUARE + "[[expect]]\nafter = 'kill'\nloops = 0\n", '6: loops: after: no event begins with "kill"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem[:40] for _, problem in BAD])
def test_what_is_wrong_in_a_file_is_told_with_its_line(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = write(tmp_path, text)
    code, out, problems = command(capsys, path)
    assert (code, out) == (1, "")
    assert problems.startswith(f"cloudvpn-sim: {path}:") and problem in problems
    assert len(problems.splitlines()) == 1


def test_all_mistakes_of_a_file_are_told_together(tmp_path: Path) -> None:
    [path] = write(tmp_path, SQUARE + "[defaults]\nrtt = 5\nloss = 'x'\n" + event("x", "kill n1"))
    with pytest.raises(ConfigError) as caught:
        load([path])
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["5", "6", "9"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "the following arguments are required: FILE"),
        (["none.toml"], "none.toml: No such file or directory; give the path of a scenario file"),
        (["{}", "--seed", "-1"], '"-1" is not a whole number from 0 to '),
        (["{}", "--runs", "0"], 'argument --runs: "0" is not a whole number from 1 to 1000'),
        (["{}", "--what-if", "kil n1"], '--what-if "kil n1": "kil" is none of cut, '),
        (["{}", "--what-if", "kill n9"], '--what-if "kill n9": there is no node "n9"'),
        (["{}", "--what-if", "cut n1-n3"], '--what-if "cut n1-n3": there is no link "n1-n3"'),
        (["{}", "--colour"], "unrecognized arguments: --colour"),
        (["{}", "{}"], "topology: there is one already, in another file"),
    ],
)
def test_wrong_words_on_the_command_line(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = write(tmp_path, SQUARE)
    code, out, problems = command(capsys, *(word.replace("{}", str(path)) for word in words))
    assert (code, out) == (1, "") and problems.startswith("cloudvpn-sim: ") and problem in problems


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mesh.toml"
    path.write_bytes(b"\xff\xfe")
    assert command(capsys, path) == (1, "", f"cloudvpn-sim: {path}: not a text in UTF-8\n")


def test_a_link_that_a_random_mesh_does_not_have_is_found_before_anything_runs(tmp_path: Path) -> None:
    [path] = write(tmp_path, '[topology]\nshape = "random"\nnodes = 30\ndegree = 2\n' + event("1s", "cut n1-n2"))
    one = load([path])  # which links there are depends on the seed
    with pytest.raises(ConfigError, match=f'{path}:8: do: there is no link "n1-n2"'):
        run(one, 1)


# The documentation.

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "simulator.md"


@pytest.mark.skipif(not DOC.exists(), reason="needs a checkout")
def test_the_documentation_names_every_option_event_and_figure() -> None:
    from cloudvpn.sim import figures, scenario, script

    text = DOC.read_text()
    for marker, table in (("events", script.table()), ("figures", figures.table())):
        assert f"<!-- {marker} -->\n\n{table}\n<!-- /{marker} -->" in text, "run tools/readme"
    others = "version_1_share", "rule_2009_share", "seed", "runs", "duration", "settle"
    for key in (*scenario.NODE_KEYS, *scenario.LINK_KEYS, *SHAPES, *LIES, *others):
        assert f"`{key}`" in text, key


EXAMPLES = sorted((ROOT / "examples" / "simulations").glob("*.toml"))


@pytest.mark.skipif(not EXAMPLES, reason="needs a checkout")
def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_as_it_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, problems = command(capsys, path)
    assert (code, problems) == (0, "")


def test_every_verb_is_done_by_the_script() -> None:
    assert all(callable(getattr(Script, verb)) for verb in VERBS)
    assert issubclass(End, object)

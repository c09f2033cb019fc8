# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of faults share: meshes on wires, pings that must not miss one, and what a node may not grow by."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.netns.lab import DAEMON, Lab, Node
from tests.netns.test_queues import fresh
from tests.netns.test_reload import count_descriptors, read_rss

PORT = 4000
MEMORY_MAX = 4_000_000  # bytes that a node may have grown by when all is as it was


def address(name: str) -> str:
    """Of the interface of the node `a`, `b`, ..."""
    return f"10.9.0.{ord(name) - ord('a') + 1}"


def lines_of(name: str, *lines: str) -> list[str]:
    return [f"listen 0.0.0.0 {PORT}", "conn_retry 1s", "status-interval 100ms", "iface yes", "iface_dev tap0",
            f"iface_address {address(name)}/24", *lines]


def triangle(lab: Lab, *lines: str, of_b: Sequence[str] = (), command_of_b: Sequence[str] = DAEMON) -> dict[str, Node]:
    """a - b, b - c, a - c: wires 0 to 2; the first of each dials. `of_b` are lines for b alone."""
    wires = [lab.wire(*pair) for pair in ("ab", "bc", "ac")]
    dials = {"a": [wires[0].address("b"), wires[2].address("c")], "b": [wires[1].address("c")], "c": []}
    nodes = {
        name: lab.node(name, *lines_of(name, *lines, *(of_b if name == "b" else ())),
                       *(f"connect {place} {PORT}" for place in dials[name]),
                       command=command_of_b if name == "b" else DAEMON)
        for name in "abc"
    }
    wait_links(lab, nodes, 2)
    wait_pings(lab, nodes)
    return nodes


def links_up(node: Node) -> int:
    return sum(link.ping > 0 for link in node.status().links)


def wait_links(lab: Lab, nodes: dict[str, Node], count: int, deadline: float = 30) -> None:
    for node in nodes.values():
        lab.until(lambda node=node: links_up(node) == count, deadline, f"{count} links of {node.name}")


def wait_pings(lab: Lab, names: Sequence[str] | dict[str, Node], deadline: float = 30) -> None:
    for source, target in itertools.combinations(names, 2):
        lab.wait_for_ping(source, address(target), deadline)


@contextlib.contextmanager
def unbroken(lab: Lab, *pairs: str, interval: float = 0.02) -> Iterator[None]:
    """While the block runs each pair, such as "ac", pings; every ping until its end must be answered, if late."""
    with contextlib.ExitStack() as stack:
        heard = {pair: lab.directory / f"heard-{pair}" for pair in pairs}
        for (source, target), path in heard.items():
            command = lab.host(source).command(["ping", "-n", "-i", interval, "-s", 16, address(target)])
            ping = subprocess.Popen(command, stdout=stack.enter_context(path.open("w")))
            stack.callback(ping.wait)
            stack.callback(ping.kill)
        lab.until(lambda: all(map(numbers, heard.values())), 10, "answers before the fault")
        yield
        for pair, path in heard.items():
            sent = max(numbers(path)) + 1   # that one and those before it
            lab.until(lambda path=path, sent=sent: numbers(path).issuperset(range(1, sent + 1)), 15,
                      f"all {sent} answers to {pair[0]} from {pair[1]}")


def numbers(path: Path) -> set[int]:
    """Of the answered pings in what `ping` has printed."""
    return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", path.read_text())}


@contextlib.contextmanager
def keeping_on(lab: Lab, most: float, *pairs: str) -> Iterator[None]:
    """While the block runs each pair pings; no two answers are `most` seconds apart, nor the last one from the end."""
    with contextlib.ExitStack() as stack:
        pings = {pair: stack.enter_context(lab.host(pair[0]).pinging(address(pair[1]))) for pair in pairs}
        lab.until(lambda: all(len(ping.answers()) > 5 for ping in pings.values()), 10, "answers before the fault")
        begun = time.time()
        yield
        ended = time.time()
        for pair, ping in pings.items():
            lab.until(lambda ping=ping: ping.count_since(ended), most, f"pings from {pair[0]} to {pair[1]} go on")
        gaps = {pair: round(ping.longest_gap(begun), 2) for pair, ping in pings.items()}
        print(f"longest gaps in seconds: {gaps}")
        assert max(gaps.values()) < most, gaps


class Footprint(NamedTuple):
    memory: int         # bytes
    descriptors: int


def footprint(node: Node) -> Footprint:
    return Footprint(read_rss(node), count_descriptors(node))


def assert_not_grown(lab: Lab, node: Node, before: Footprint) -> None:
    """What a node takes for a moment, such as the thread that writes its status, may be there for a moment."""
    lab.until(lambda: count_descriptors(node) <= before.descriptors, 10, f"descriptors of {node.name} as before")
    grown = read_rss(node) - before.memory
    assert grown < MEMORY_MAX, f"{node.name} has grown by {grown}"


def assert_sound(lab: Lab, nodes: dict[str, Node]) -> None:
    """All run, no code of ours raised, every frame is counted."""
    for node in nodes.values():
        assert node.exit_code is None, node.report()
        assert "internal error" not in node.log_text() and "Traceback" not in node.log_text(), node.report()
        text = fresh(lab, node)
        frames = {name: int(count) for name, count in
                  re.findall(r"(from interface|to interface|from links|to links|copies) (\d+)", text)}
        drops = sum(drops_of(text).values())
        assert frames["from interface"] + frames["from links"] + frames["copies"] == (
            frames["to interface"] + frames["to links"] + drops), text


def drops_of(text: str) -> dict[str, int]:
    line = re.findall("^dropped: (.*)$", text, re.MULTILINE)
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", line[0])}


def counter(node: Node, name: str) -> int:
    """One of those that the status writes as `name number`; 0 if it is not there."""
    found = re.search(rf"\b{name} (\d+)", node.status().text)
    return int(found[1]) if found else 0

# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at any moment: what is left behind stops no new start on the same configuration, and the others go on.

    a --w1-- b --w2-- c --w3-- a        b is killed: while it starts, shakes hands, reloads, carries traffic
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.netns.faults import address, assert_sound, keeping_on, triangle, wait_links
from tests.netns.lab import Lab, Node

BACK = 5.0      # seconds from listening to traffic; it takes conn_retry, 0.3 s, but the machine may be busy
# What it logs on its way: keys are read, the interface is there, it listens, it is in the mesh.
MARKS = ["info cloudvpn ", "info interface ", "info listening on", "info link up"]
GAP = 3.0       # seconds between answers of those that are not killed; it takes a tenth
ROUNDS = [1, pytest.param(15, marks=pytest.mark.long)]


def family(session: int) -> list[int]:
    """The processes of a daemon's session: itself and its helpers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue    # it has ended meanwhile
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def run_and_kill(node: Node, mark: str, chance: random.Random) -> None:
    """Starts it, and kills it soon after its log has the mark; one that is up perhaps while it reloads."""
    seen = node.log_text().count(mark)
    node.start()
    node.wait_log(mark, 20, seen + 1)
    if mark == MARKS[-1] and chance.random() < 0.7:
        node.signal(signal.SIGHUP)
    time.sleep(chance.uniform(0, 0.05))
    node.kill()
    assert node.exit_code == -signal.SIGKILL, node.report()


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", ["persistent", "confined"])
def test_a_node_that_is_killed_at_any_moment_starts_again(lab: Lab, kind: str, rounds: int) -> None:
    home = lab.directory / "home"
    home.mkdir()
    lines = [f"status-file {home}/status", "status-interval 100ms"]
    if kind == "persistent":
        lines.append("iface_persist yes")
    else:
        shutil.chown(home, "nobody")
        lines += ["user nobody", f"chroot {home}", f"status-file {home}/status"]
    left = home / ".status.whenkill"   # as a node leaves it that was writing
    left.touch()
    nodes = triangle_with_b(lab, lines, home)
    b, chance = nodes["b"], random.Random(rounds)
    marks = rounds * (MARKS if kind == "persistent" else MARKS[1::2])
    mac, sessions, times = lab.host("b").mac("tap0"), list[int](), list[float]()
    lab.host("a").ip(f"neigh replace {address('b')} lladdr {mac.hex(':')} dev tap0")    # ARP asks once a second only
    with keeping_on(lab, GAP, "ac"), lab.host("a").pinging(address("b")) as ping:
        for mark in marks:
            sessions.append(b.pid)
            b.kill()
            run_and_kill(b, mark, chance)
            sessions.append(b.pid)
            seen = b.log_text().count("listening on")
            b.start()
            lab.until(lambda seen=seen: b.log_text().count("listening on") > seen, 20, "b listens again")
            listens = time.time()
            lab.until(lambda listens=listens: ping.count_since(listens), BACK, "traffic")
            times.append(ping.answers()[-ping.count_since(listens)] - listens)
    print(f"{kind}: killed {2 * len(marks)} times; back {max(times):.2f} s after it listened, at most")
    lab.until(lambda: not any(family(session) for session in sessions), 10, "the end of all helpers of the dead")
    assert lab.host("b").mac("tap0") == mac, "the node has its MAC again"
    wait_links(lab, {name: nodes[name] for name in "ac"}, 2)
    lab.until(lambda: {path.name for path in home.iterdir()} <= {"status", *allowed(home)}, 5, "no file is left behind")
    assert re.search(rf"^uptime: .*\n\nlocal interface: {mac.hex(':')}", (home / "status").read_text(), re.MULTILINE)
    assert re.findall(r"^.*(?: error |Traceback|Error: ).*$", b.log_text(), re.MULTILINE) == []
    assert_sound(lab, {name: nodes[name] for name in "ac"})


def triangle_with_b(lab: Lab, lines: list[str], home: Path) -> dict[str, Node]:
    """b's own status is elsewhere than those of the others."""
    config = lab.directory / "b.status"
    os.symlink(home / "status", config)     # for who looks at its links from here
    return triangle(lab, "conn_retry 300ms", of_b=lines)


def allowed(home: Path) -> set[str]:
    """One status that is being written, and what the living node holds in its chroot."""
    partial = sorted(path.name for path in home.glob(".status.*"))[:1]
    stages = sorted(path.name for path in home.glob(".cloudvpn-*"))[:1]
    return {*partial, *stages}

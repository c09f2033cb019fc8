# SPDX-License-Identifier: GPL-3.0-or-later
"""One run: the mesh, the traffic, faults and reloads in turn with rests between them, and the end."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from tests.netns.lab import Lab, until
from tests.netns.test_floods import lost_at_receiver
from tests.soak.faults import FAULTS, RELOADS, Deed, hold, in_turns, kind_of
from tests.soak.mesh import CALM, NAMES, PATIENCE, STORMY_LINKS, Mesh
from tests.soak.record import SETTLE, Event, Run
from tests.soak.traffic import Traffic
from tests.soak.watch import Watch

BULKS = [("c", "a"), ("d", "b"), ("b", "e"), ("c", "f"), ("d", "g"), ("e", "h"), ("f", "a"), ("g", "b")]


class Plan(NamedTuple):
    """It ends after `seconds`, but not before each of the faults has happened once."""

    seconds: float
    seed: int
    warm_up: float                          # seconds of each process
    rest: tuple[float, float] = (4.0, 8.0)  # seconds after the mesh has settled, least and most
    interval: float = 1.0                   # seconds between two looks at a process
    faults: Sequence[Deed] = FAULTS
    reloads: Sequence[Deed] = RELOADS


def perform(lab: Lab, plan: Plan, keep: Path | None = None) -> Run:
    """`keep`: where logs are left. What goes wrong on the way is among the troubles of the run."""
    mesh = Mesh(lab)
    mesh.wait_whole()
    run = Run(plan.seed, plan.seconds, CALM, plan.warm_up, tuple(STORMY_LINKS))
    traffic = Traffic(run, {name: lab.host(name) for name in NAMES}, mesh.address, BULKS)
    watch = Watch(run, list(mesh.nodes.values()), plan.interval)
    before = cpu_seconds()
    try:
        watch.start()
        traffic.start()
        try:
            storm(mesh, run, plan)
        except AssertionError as error:     # it is judged as far as it came
            run.trouble.append(str(error).partition("\n")[0])
        traffic.quiet()
        with contextlib.suppress(AssertionError):   # what is missing then is lost, and judged
            until(traffic.is_complete, PATIENCE, "all that was sent arrives")
    finally:
        watch.stop()
        traffic.stop()
    run.seconds = run.now()
    finish(mesh, run, keep)
    run.cpu = (cpu_seconds() - before) / run.now() / (os.cpu_count() or 1)
    return run


def storm(mesh: Mesh, run: Run, plan: Plan) -> None:
    """A rest with a reload in its midst, then a fault, until the time is over."""
    random = Random(plan.seed)
    faults, reloads = in_turns(plan.faults, random), in_turns(plan.reloads, random)
    with tqdm(total=plan.seconds, unit="s", disable=None, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s") as bar:
        while run.now() < plan.seconds or len(run.faults) < len(plan.faults):
            for deeds, events in ((reloads, run.reloads), (faults, run.faults)):
                hold(random.uniform(*plan.rest) / 2)
                do(next(deeds), mesh, run, events, random)
                bar.set_postfix_str(events[-1].kind)
                bar.update(min(run.now(), plan.seconds) - bar.n)
            hold(SETTLE)
        hold(plan.rest[1])


def do(deed: Deed, mesh: Mesh, run: Run, events: list[Event], random: Random) -> None:
    begin, what = run.now(), "failed"
    try:
        what = deed(mesh, random)
        mesh.wait_whole()
    except AssertionError as error:
        raise AssertionError(f"{begin:.1f} s, {kind_of(deed)} {what}: {error}") from error
    finally:
        events.append(Event(kind_of(deed), what, begin, run.now()))


def finish(mesh: Mesh, run: Run, keep: Path | None) -> None:
    """What can be seen only at the end."""
    since = time.time()
    try:
        until(lambda: mesh.is_whole(since) or run.trouble, PATIENCE, "a last status")
    except AssertionError:
        run.trouble += [f"at the end {lacking}" for name in NAMES if (lacking := mesh.lacks(name, since))]
    for name in NAMES:
        run.overflows[name] = lost_at_receiver(mesh.lab.host(name))
        if status := mesh.status(name):
            frames = status["frames"]
            run.frames[name] = (
                frames["from_interface"] + frames["from_links"] + frames["copies"],
                frames["to_interface"] + frames["to_links"] + sum(status["dropped"].values()),
            )
    run.downs = {name: mesh.count_lines(name, r"link down: [abcd] at") for name in sorted(CALM)}
    run.exits = mesh.stop_all()
    run.logs = {name: node.log_text() for name, node in mesh.nodes.items()}
    for name, text in run.logs.items():
        if keep is not None:
            (keep / f"{name}.log").write_text(text)


def cpu_seconds() -> float:
    """Of this process and all that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

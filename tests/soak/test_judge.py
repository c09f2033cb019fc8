# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of a soak finds what is wrong, and nothing else: each case is a good run in which one thing is changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.judge import judge, loss_of, strange_lines
from tests.soak.record import BEFORE, SETTLE, Bulk, Event, Flow, Life, Run, Sample
from tests.soak.report import write

SECONDS = 600
RATE = 10   # datagrams a second
FAULT = Event("kill node", "e", 100, 110)
TIME = "2026-05-01T09:30:00.000+00:00"
MB = 1_000_000


def good_run() -> Run:
    """Two calm nodes and a stormy one, which was killed once and lost what was sent to it meanwhile."""
    run = Run(seed=1, seconds=SECONDS, calm=frozenset("ab"), warm_up=120, broken_links=("eb",))
    run.faults, run.reloads = [FAULT], [Event("reload options", "a", 50, 51)]
    run.sent.extend(number / RATE for number in range(SECONDS * RATE))
    run.flows = {pair: Flow(bytearray(b"\1" * len(run.sent))) for pair in itertools.permutations("abe", 2)}
    for number in range(100 * RATE, 110 * RATE):
        run.flows["a", "e"].arrived[number] = 0
    run.bulks = {("a", "b"): Bulk(sent=10 * MB, received=10 * MB, history=[(0, 0), (600, 10 * MB)])}
    run.lives = [life("a", 1, 0, SECONDS), life("b", 2, 0, SECONDS), life("e", 3, 0, 100), life("e", 4, 101, SECONDS)]
    run.logs = dict.fromkeys("abe", f"{TIME} info link up: a at 198.18.1.1:4000, dialled, TLSv1.3, version 2\n")
    run.frames, run.exits = {"a": (1000, 1000)}, dict.fromkeys("abe", 0)
    return run


def life(node: str, pid: int, begin: int, end: int, grown: Callable[[int], int] = lambda seconds: 0) -> Life:
    """`grown`: bytes after so many seconds."""
    return Life(node, pid, [
        Sample(time, 50 * MB + grown(time - begin), 20 + time % 2, 3, 12, 100_000) for time in range(begin, end)
    ])  # fmt: skip


def test_a_good_run_has_no_problem() -> None:
    assert judge(good_run()) == []


def lose(source: str, target: str, second: float) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.flows[source, target].arrived[int(second * RATE)] = 0

    return change


def let_grow(field: str, amount: float, number: int = 0) -> Callable[[Run], None]:
    """By so much until the end, in equal steps."""
    def change(run: Run) -> None:
        samples = run.lives[number].samples
        for place, sample in enumerate(samples):
            value = getattr(sample, field) + int(amount * place / len(samples))
            samples[place] = sample._replace(**{field: value})

    return change


def say(name: str, *lines: str) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.logs[name] += "".join(f"{line}\n" for line in lines)

    return change


def put(target: str, value: object) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        setattr(run, target, value)

    return change


def put_bulk(**values: object) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        for name, value in values.items():
            setattr(run.bulks["a", "b"], name, value)

    return change


def come_twice(run: Run) -> None:
    run.flows["b", "e"].arrived[1050] = 2


CASES: dict[str, tuple[Callable[[Run], None], str]] = {
    "a datagram between calm nodes": (lose("a", "b", 300), "a to b, calm nodes: lost 1 of 6000, the first at 300.0 s"),
    "one between calm nodes while something is broken": (lose("b", "a", 105), "b to a, calm nodes: lost 1 of 6000"),
    "one to a stormy node long after the fault": (lose("e", "a", 300), "e to a, with no fault near: lost 1 of 58"),
    "one just before what a fault excuses": (lose("e", "a", 100 - BEFORE - 0.1), "e to a, with no fault near: lost 1"),
    "one just after it": (lose("e", "a", 110 + SETTLE + 0.1), "e to a, with no fault near: lost 1"),
    "a datagram that comes twice, also at a fault": (come_twice, "b to e: 1 datagrams came more than once"),
    "a datagram with other content": (put("strange", ["7.0 s, at e: 00"]), "nobody sent like that: 7.0 s, at e: 00"),
    "TCP with other content": (put_bulk(corrupt=2), "bulk from a to b: 2 pieces with other content"),
    "TCP that breaks": (put_bulk(broken=["9 s: reset"]), "bulk from a to b: broke 1 times: 9 s: reset"),
    "TCP that hangs": (put_bulk(received=5 * MB), "bulk from a to b: 5000000 of 10000000 bytes arrived"),
    "TCP that never began": (put_bulk(received=0, sent=0), "bulk from a to b: nothing arrived"),
    "a leak of 10 kB a second": (let_grow("rss", 6 * MB), "a (process 1): RSS grew from 51."),
    "a leak in a process that was started again": (let_grow("rss", 5 * MB, 3), "e (process 4): RSS grew from 51."),
    "a descriptor each three minutes": (let_grow("fds", 4), "a (process 1): descriptors grew from "),
    "a task each minute": (let_grow("tasks", 10, 1), "b (process 2): tasks grew from "),
    "a thread each half minute": (let_grow("threads", 20), "a (process 1): threads grew from "),
    "a traceback": (
        say("a", f"{TIME} error internal error", "    Traceback (most recent call last):", "    ValueError: 1"),
        "log of a, 1 times:     ValueError: 1",
    ),
    "what Python prints by itself": (say("e", "Exception ignored in: <x>"), "log of e, 1 times: Exception ignored in"),
    "a warning that nothing explains": (say("e", f"{TIME} warning many nodes"), "log of e, 1 times: warning many"),
    "a lost link where none was broken": (
        say("a", f"{TIME} warning no link to 198.18.1.1 4000: timed out"), "log of a, 1 times: warning no link"),
    "a log that grows": (say("b", *[f"{TIME} info again"] * 1000), "log of b: "),
    "frames that nobody counted": (put("frames", {"a": (1000, 999)}), "a: of 1000 frames and copies 999 were sent on"),
    "a link between calm nodes": (put("downs", {"a": 1}), "a: 1 times a link to a calm node was lost"),
    "a daemon that dies at its end": (put("exits", {"a": -11}), "a ended with -11 after SIGTERM"),
    "no fault at all": (put("faults", []), "no fault was injected"),
    "no reload at all": (put("reloads", []), "nothing was reloaded"),
    "a run that could not go on": (put("trouble", ["the mesh is not whole"]), "the mesh is not whole"),
    "datagrams that we were too slow to fetch": (put("overflows", {"a": 3}), "3 datagrams were at a and not fetched"),
    "faults without a pause": (put("faults", [Event("x", "", 0, 600)]), "a to e: no datagram was sent that could be"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_found_and_said(case: str) -> None:
    change, problem = CASES[case]
    run = good_run()
    change(run)
    assert [found for found in judge(run) if problem in found], judge(run)
    assert "**All held.**" not in write(run, judge(run))


@pytest.mark.parametrize("change", [
    lose("a", "e", 100 - BEFORE + 0.1),
    lose("e", "b", 110 + SETTLE - 0.1),
    let_grow("rss", 1.9 * MB),
    let_grow("threads", 6),
    say("b", f"{TIME} warning no link to 198.18.1.1 4000: timed out"),      # it has a link that is broken
    say("e", f'{TIME} warning refused e at 198.18.1.1:4000, its link is cut: "e" (serial 1): it was revoked on 2026'),
    say("e", f"{TIME} warning refused 198.18.1.1:47200: closed by the peer during the handshake, its log may say why"),
])  # fmt: skip
def test_what_a_fault_or_the_bounds_excuse_is_no_problem(change: Callable[[Run], None]) -> None:
    run = good_run()
    change(run)
    assert judge(run) == []


def test_memory_before_the_warm_up_and_of_short_lives_is_not_judged() -> None:
    run = good_run()
    run.lives[0] = life("a", 1, 0, SECONDS, lambda seconds: min(seconds, 119) * 100_000)
    run.lives[2] = life("e", 3, 0, 100, lambda seconds: seconds * 100_000)
    assert judge(run) == []


def test_losses_are_counted_exactly() -> None:
    loss = loss_of(good_run(), ("a", "e"))
    assert (loss.sent, loss.lost, loss.judged_lost, loss.twice) == (6000, 100, 0, 0)
    assert loss.judged == 6000 - (10 + BEFORE + SETTLE) * RATE - 1


def test_the_same_line_is_told_once_with_its_number() -> None:
    text = f"{TIME} warning odd\n" * 3 + f"{TIME} info fine\n" + f"{TIME.replace('30', '31')} warning odd\n"
    assert strange_lines(text, at_faults=True) == {"warning odd": 4}


def test_the_report_tells_the_figures(tmp_path: Path) -> None:
    text = write(good_run(), [], "soak.png")
    assert "**All held.**" in text and "![the run over time](soak.png)" in text
    assert "| all other pairs | 24,000 | 23,476 | 0 | 100 | 0 |" in text
    assert "| kill node | 1 | 10.0 to 10.0 |" in text and "| e | 4 | 498 | 50.0 | +0.00 |" in text
    pytest.importorskip("matplotlib")
    from tests.soak.picture import draw

    draw(good_run(), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run was as it must be: each function gives what was not, in plain words, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from tests.soak.record import Life, Pair, Run, Sample

GROWTH_SHARE, GROWTH_BYTES = 0.02, 2_000_000    # of RSS after the warm-up; the larger one counts
PART = 0.25     # of the samples after the warm-up: the first ones and the last ones are compared
SAMPLES_OF_MEMORY, SAMPLES_OF_REST = 40, 4      # the least, after the warm-up, to judge a process by
# Threads that pools may still start: libuv's has 4, at the first look-up; Python's makes one when all others are busy.
POOLS = 4 + 2
LOG_BASE, LOG_LINES = 20_000, 8     # bytes; lines that one event may cost one node, on the average
LINE = 200      # bytes

# All that a node may say above `info` when what is done here is done to it.
EXPECTED_ALWAYS = (
    r"warning no link to 198\.18\.\d+\.\d+ \d+: connection refused",     # at the start: who dials may be there first
    r'error .*\.conf:\d+: conect: unknown option, the nearest known one is connect',
    r"error SIGHUP: the configuration stays as it was: correct what is said above, then send SIGHUP again",
)
EXPECTED_AT_FAULTS = (
    r"warning no link to 198\.18\.\d+\.\d+ \d+: .*",
    r"warning refused [a-h] at .*, its link is cut: .*: it was revoked on .*",
    # It was frozen, and who dialled did not wait for it.
    r"warning refused 198\.18\.\d+\.\d+:\d+: closed by the peer during the handshake, its log may say why",
)
INFO = r"\d{4}-\d\d-\d\dT\S+ info "


def judge(run: Run) -> list[str]:
    """All problems; none: the run was good."""
    checks: Sequence[Callable[[Run], list[str]]] = (
        troubles, losses, contents, memory, held, logs, ends,
    )  # fmt: skip
    return [problem for check in checks for problem in check(run)]


def troubles(run: Run) -> list[str]:
    """The run itself: it could be made, and has done what it was to do."""
    problems = list(run.trouble)
    problems += [] if run.faults else ["no fault was injected"]
    problems += [] if run.reloads else ["nothing was reloaded"]
    problems += [
        f"{count} datagrams were at {name} and not fetched in time: the loss cannot be judged"
        for name, count in run.overflows.items() if count
    ]  # fmt: skip
    return problems


# Traffic


class Loss(NamedTuple):
    """Of one pair: datagrams that were sent, those of them that no fault excuses, and how many of each were lost."""

    sent: int
    lost: int
    judged: int
    judged_lost: int
    twice: int
    first: float | None     # when the first of `judged_lost` was sent


def loss_of(run: Run, pair: Pair, disturbed: Sequence[bool] | None = None) -> Loss:
    """A fault excuses only pairs of which a way may lead over it."""
    arrived = run.flows[pair].arrived
    if run.is_calm(pair):
        disturbed = [False] * len(arrived)
    elif disturbed is None:
        disturbed = disturbance(run)
    lost = [number for number, count in enumerate(arrived) if not count]
    judged = [number for number in lost if not disturbed[number]]
    return Loss(
        len(arrived), len(lost), len(arrived) - sum(disturbed), len(judged), sum(count > 1 for count in arrived),
        run.sent[judged[0]] if judged else None,
    )  # fmt: skip


def disturbance(run: Run) -> list[bool]:
    """Of each number, whether a fault excuses its loss."""
    return [run.is_disturbed(time) for time in run.sent]


def losses(run: Run) -> list[str]:
    disturbed, problems = disturbance(run), []
    for pair in run.flows:
        loss = loss_of(run, pair, disturbed)
        way = f"{pair[0]} to {pair[1]}"
        if loss.judged_lost:
            why = "calm nodes" if run.is_calm(pair) else "with no fault near"
            problems.append(f"{way}, {why}: lost {loss.judged_lost} of {loss.judged}, the first at {loss.first:.1f} s")
        if loss.twice:
            problems.append(f"{way}: {loss.twice} datagrams came more than once")
        if not loss.judged:
            problems.append(f"{way}: no datagram was sent that could be judged")
    return problems


def contents(run: Run) -> list[str]:
    problems = [f"a datagram that nobody sent like that: {what}" for what in run.strange]
    for (source, target), bulk in run.bulks.items():
        way = f"bulk from {source} to {target}"
        if bulk.corrupt:
            problems.append(f"{way}: {bulk.corrupt} pieces with other content than was sent")
        if bulk.broken:
            problems.append(f"{way}: broke {len(bulk.broken)} times: {bulk.broken[0]}")
        elif bulk.received != bulk.sent:
            problems.append(f"{way}: {bulk.received} of {bulk.sent} bytes arrived")
        if not bulk.received:
            problems.append(f"{way}: nothing arrived")
    return problems


# Processes


class Change(NamedTuple):
    """Medians of the first and the last samples of a process after its warm-up, while nothing was broken."""

    before: float
    after: float

    @property
    def growth(self) -> float:
        return self.after - self.before


def change_of(run: Run, life: Life, read: Callable[[Sample], float | None], least: int) -> Change | None:
    """None for a process that did not live long enough after its warm-up to be judged."""
    if not life.samples:
        return None
    warm = life.samples[0].time + run.warm_up
    samples = [sample for sample in life.samples if sample.time >= warm and not run.is_disturbed(sample.time)]
    values = [value for sample in samples if (value := read(sample)) is not None]
    if len(values) < least:
        return None
    count = max(int(len(values) * PART), 1)
    return Change(median(values[:count]), median(values[-count:]))


def memory_of(run: Run, life: Life) -> Change | None:
    return change_of(run, life, lambda sample: sample.rss, SAMPLES_OF_MEMORY)


def memory(run: Run) -> list[str]:
    problems = []
    for life in run.lives:
        change = memory_of(run, life)
        if change and change.growth > max(GROWTH_BYTES, GROWTH_SHARE * change.before):
            sizes = f"{change.before / 1e6:.1f} to {change.after / 1e6:.1f} MB"
            problems.append(f"{life.node} (process {life.pid}): RSS grew from {sizes}")
    return problems


HELD: dict[str, tuple[Callable[[Sample], float | None], float]] = {
    "descriptors": (lambda sample: sample.fds, 0),
    "threads": (lambda sample: sample.threads, POOLS),
    "tasks": (lambda sample: sample.tasks, 0),
}


def held(run: Run) -> list[str]:
    return [
        f"{life.node} (process {life.pid}): {what} grew from {change.before:g} to {change.after:g}"
        for life in run.lives
        for what, (read, allowed) in HELD.items()
        if (change := change_of(run, life, read, SAMPLES_OF_REST)) and change.growth > allowed
    ]


# What nodes say, and how they end


def logs(run: Run) -> list[str]:
    problems = []
    for name, text in run.logs.items():
        strange = strange_lines(text, at_faults=is_at_faults(run, name))
        problems += [f"log of {name}, {count} times: {line}" for line, count in strange.items()]
        most = LOG_BASE + LOG_LINES * LINE * (len(run.faults) + len(run.reloads))
        if len(text) > most:
            problems.append(f"log of {name}: {len(text)} bytes, more than {most}")
    return problems


def is_at_faults(run: Run, name: str) -> bool:
    """Whether links of the node are broken."""
    return name not in run.calm or any(name in link for link in run.broken_links)


def strange_lines(text: str, at_faults: bool) -> Counter[str]:
    """Lines that are neither `info` nor expected, without their times: so tracebacks, and what Python prints, too."""
    expected = re.compile("|".join((*EXPECTED_ALWAYS, *(EXPECTED_AT_FAULTS if at_faults else ()))))
    found: Counter[str] = Counter()
    for line in text.splitlines():
        time, _, said = line.partition(" ")
        if not re.match(INFO, line) and not (re.match(r"\d{4}-\d\d-\d\dT", time) and expected.fullmatch(said)):
            found[said if time.startswith("20") else line] += 1
    return found


def ends(run: Run) -> list[str]:
    problems = [
        f"{name}: of {frames} frames and copies {told} were sent on or counted as dropped"
        for name, (frames, told) in run.frames.items() if frames != told
    ]  # fmt: skip
    problems += [f"{name}: {count} times a link to a calm node was lost" for name, count in run.downs.items() if count]
    return problems + [f"{name} ended with {code} after SIGTERM" for name, code in run.exits.items() if code]

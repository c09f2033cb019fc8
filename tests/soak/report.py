# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run has shown, as Markdown."""

from __future__ import annotations

from collections import Counter

from bench.machine import describe_machine
from tests.soak.judge import HELD, SAMPLES_OF_REST, Change, Loss, change_of, disturbance, loss_of, memory_of
from tests.soak.record import BEFORE, SETTLE, Run


def write(run: Run, problems: list[str], picture: str = "") -> str:
    machine = describe_machine()
    disturbed = disturbance(run)
    losses = {pair: loss_of(run, pair, disturbed) for pair in run.flows}
    calm = add([loss for pair, loss in losses.items() if run.is_calm(pair)])
    stormy = add([loss for pair, loss in losses.items() if not run.is_calm(pair)])
    parts = [
        f"# Soak of {run.seconds / 60:.0f} minutes, seed {run.seed}",
        "\n".join(["**This did not hold:**", "", *(f"- {problem}" for problem in problems)])
        if problems else "**All held.**",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}; "
        f"nodes, traffic and this program took {run.cpu:.0%} of all processors.",
        *([f"![the run over time]({picture})"] if picture else []),
        "## Loss",
        f"Between {', '.join(sorted(run.calm))} every datagram counts, the whole time: no way between them leads over "
        "what is broken. Of all other pairs those count that were not sent between "
        f"{BEFORE:g} s before a fault and {SETTLE:g} s after all links were up again and everybody knew everybody.",
        table(
            ["datagrams", "sent", "count", "of these lost", "lost in all", "came twice"],
            [["between calm nodes", *cells(calm)], ["all other pairs", *cells(stormy)]],
        ),
        "By pair, those that count / all; rows send:",
        by_pair(losses),
        "## TCP",
        table(
            ["from, to", "MB arrived", "wrong pieces", "broken"],
            [[" to ".join(pair), f"{bulk.received / 1e6:.1f}", str(bulk.corrupt), str(len(bulk.broken))]
             for pair, bulk in run.bulks.items()],
        ),
        "## Processes",
        f"Medians of the first and the last quarter of the looks after {run.warm_up:.0f} s, while nothing was broken; "
        "- : it did not live long enough.",
        table(
            ["node", "process", "lived, s", "RSS, MB", "growth, MB", *HELD],
            [lived(run, number) for number in range(len(run.lives))],
        ),
        "## What was done",
        table(["fault", "times", "until all was whole, s, least to most"], faults(run)),
        table(["reload", "times"], reloads(run)),
        "## Logs",
        table(
            ["node", "bytes", "lines"],
            [[name, str(len(text)), str(text.count("\n"))] for name, text in run.logs.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def add(losses: list[Loss]) -> Loss:
    sent, lost, judged, judged_lost, twice = (sum(column) for column in list(zip(*losses, strict=True))[:5])
    return Loss(sent, lost, judged, judged_lost, twice, None)


def cells(loss: Loss) -> list[str]:
    return [f"{count:,}" for count in (loss.sent, loss.judged, loss.judged_lost, loss.lost, loss.twice)]


def by_pair(losses: dict[tuple[str, str], Loss]) -> str:
    names = sorted({name for pair in losses for name in pair})
    shown = {pair: f"{loss.judged_lost} / {loss.lost}" for pair, loss in losses.items()}
    return table(["", *names], [[source, *(shown.get((source, name), "") for name in names)] for source in names])


def lived(run: Run, number: int) -> list[str]:
    life = run.lives[number]
    rss = memory_of(run, life)
    others = [show(change_of(run, life, read, SAMPLES_OF_REST)) for read, _ in HELD.values()]
    seconds = f"{life.samples[-1].time - life.samples[0].time:.0f}"
    return [life.node, str(life.pid), seconds, show(rss, 1e6), f"{rss.growth / 1e6:+.2f}" if rss else "-", *others]


def show(change: Change | None, unit: float = 1) -> str:
    if change is None:
        return "-"
    before, after = (f"{value / unit:.1f}" if unit > 1 else f"{value:g}" for value in (change.before, change.after))
    return before if before == after else f"{before} to {after}"


def faults(run: Run) -> list[list[str]]:
    rows = []
    for kind, count in Counter(event.kind for event in run.faults).items():
        times = [event.end - event.begin for event in run.faults if event.kind == kind]
        rows.append([kind, str(count), f"{min(times):.1f} to {max(times):.1f}"])
    return rows


def reloads(run: Run) -> list[list[str]]:
    return [[kind, str(count)] for kind, count in Counter(event.kind for event in run.reloads).items()]


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What is printed of the runs of a scenario: for people, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from cloudvpn.options import SECOND
from cloudvpn.sim.figures import Figures
from cloudvpn.sim.run import Run, merge
from cloudvpn.sim.scenario import Expectation, Scenario
from cloudvpn.sim.ways import Path

SMALL: Final = 8  # nodes of a mesh whose ways are all told
MOST_ROWS: Final = 40

COLUMNS: Final = {
    "at": "", "event": "", "loops": "loops", "longest": "loop_s", "back p50": "back_p50_s", "p95": "back_p95_s",
    "max": "back_s", "forgotten": "forgotten_s", "no way": "unreachable", "lost": "frames_lost",
    "looped": "frames_looped", "doubled": "frames_doubled", "told": "messages", "bytes": "bytes",
    "B/link": "bytes_per_link",
}  # fmt: skip


class Verdict(NamedTuple):
    expectation: Expectation
    value: float

    @property
    def holds(self) -> bool:
        return self.expectation.bound.holds(self.value)

    def __str__(self) -> str:
        expectation = self.expectation
        after = f" after {expectation.after}" if expectation.after else ""
        return f"{expectation.place} {expectation.bound}{after}: it is {show(self.value)}"


def judge(scenario: Scenario, runs: list[Run]) -> list[Verdict]:
    by_event = {one.after: merge(runs, one.after) for one in scenario.expectations}
    return [Verdict(one, by_event[one.after].value(one.figure)) for one in scenario.expectations]


def events(runs: list[Run]) -> list[tuple[int, str, Figures]]:
    """The windows of the first run, each with the figures of all runs."""
    merged = []
    for at, window in enumerate(runs[0].windows):
        figures = Figures(runs=len(runs))
        for one in runs:
            figures.add(one.windows[at].figures)
        merged.append((window.at, window.event, figures))
    return merged


# For people.


def text(scenario: Scenario, runs: list[Run], verdicts: Sequence[Verdict], took: float, all_paths: bool) -> str:
    first, seeds = runs[0], f"seed {runs[0].seed}" if len(runs) == 1 else f"seeds {runs[0].seed} to {runs[-1].seed}"
    lines = [
        f"{scenario.name}: {len(first.nodes)} nodes, {len(first.links)} links, {seeds}, "
        f"{scenario.duration / SECOND:g} s each, which took {took:.1f} s",
        "",
        *_events(runs),
        "",
        *_what_ifs(scenario, first),
        *_paths(scenario, first, all_paths),
        *_announcements(first),
        *_tables(first),
        *_dropped(runs),
    ]
    for at, target, members in first.loops[:5]:
        lines.append(f"a loop towards {target} at {at / SECOND:.3f} s: {', '.join(members)}")
    lines += [f"{'ok    ' if verdict.holds else 'FAILED'}  {verdict}" for verdict in verdicts]
    return "\n".join(lines) + "\n"


def _events(runs: list[Run]) -> Iterator[str]:
    rows = [list(COLUMNS)]
    for at, event, figures in events(runs):
        row = [f"{at / SECOND:g} s", event]
        rows.append(row + [show(figures.value(name)) for name in COLUMNS.values() if name])
    yield from align(rows, left=2)


def _what_ifs(scenario: Scenario, first: Run) -> Iterator[str]:
    """What each of them changed."""
    asked = {event.at for event in scenario.events if event.place.startswith("command line")}
    for before, window in zip(first.windows, first.windows[1:], strict=False):
        if window.at in asked:
            yield f"what if {window.event}: ways that change"
            rows = [
                [pair.replace(">", " to "), _way(before.paths.get(pair)), "->", _way(window.paths.get(pair))]
                for pair in sorted(before.paths.keys() | window.paths.keys())
                if before.paths.get(pair) != window.paths.get(pair)
            ]
            yield from _some(align(rows, left=4) if rows else ["none"])


def _paths(scenario: Scenario, first: Run, all_paths: bool) -> Iterator[str]:
    paths = first.windows[-1].paths
    wanted = {f"{one.source}>{one.target}" for one in scenario.traffic}
    if all_paths or len(first.nodes) <= SMALL or not wanted & paths.keys():
        wanted = set(paths)
    rows = [[pair.replace(">", " to "), _way(paths[pair])] for pair in sorted(wanted & paths.keys())]
    if rows:
        yield "ways in the end" + (f", of the run with seed {first.seed}" if scenario.runs > 1 else "")
        yield from align(rows, left=2) if all_paths else _some(align(rows, left=2))


def _way(path: Path | None) -> str:
    return f"{'-'.join(path[0])}, {path[1] / 1000:g} ms" if path else "no way"


def announcements(first: Run) -> dict[str, Counter[str]]:
    """By link and direction, of the whole run."""
    told: dict[str, Counter[str]] = {}
    for window in first.windows:
        for link, counts in window.told.items():
            told[link] = told.get(link, Counter()) + counts
    return told


def _announcements(first: Run) -> Iterator[str]:
    told = announcements(first)
    kinds = sorted({kind for counts in told.values() for kind in counts} - {"messages", "bytes"})
    rows = [["link", "messages", "bytes", *kinds]]
    for link, counts in sorted(told.items(), key=lambda entry: -entry[1]["bytes"]):
        rows.append([link, *(show(counts[name]) for name in ("messages", "bytes", *kinds))])
    yield "announcements"
    yield from _some(align(rows, left=1))


def _tables(first: Run) -> Iterator[str]:
    names = sorted({name for sizes in first.tables.values() for name in sizes})
    rows = [["node", *names, ""]]
    for node, kind in first.nodes.items():
        rows.append([node, *(show(first.tables.get(node, {}).get(name, 0)) for name in names), kind])
    yield "tables in the end"
    yield from _some(align(rows, left=1))


def _dropped(runs: list[Run]) -> Iterator[str]:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in merge(runs).dropped.most_common() if count)
    if reasons:
        yield f"frames dropped in nodes: {reasons}"


def _some(rows: Sequence[str]) -> list[str]:
    more = len(rows) - MOST_ROWS
    return [*rows[:MOST_ROWS], f"  and {more} more, see --json"] if more > 0 else list(rows)


def align(rows: list[list[str]], left: int) -> list[str]:
    """The first columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def show(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


# For programs.


def as_json(scenario: Scenario, runs: list[Run], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    first, total = runs[0], merge(runs)
    return {
        "scenario": scenario.name,
        "seeds": [one.seed for one in runs],
        "duration_s": scenario.duration / SECOND,
        "ok": all(verdict.holds for verdict in verdicts),
        "figures": total.all(),
        "dropped": dict(total.dropped),
        "events": [
            {"at_s": at / SECOND, "event": event, "figures": figures.all()} for at, event, figures in events(runs)
        ],
        "expectations": [
            {
                "place": verdict.expectation.place, "figure": verdict.expectation.figure,
                "bound": str(verdict.expectation.bound), "after": verdict.expectation.after,
                "value": verdict.value, "ok": verdict.holds,
            }
            for verdict in verdicts
        ],
        "first_run": {
            "seed": first.seed,
            "nodes": [
                {"name": name, "state": state, "tables": first.tables.get(name, {})}
                for name, state in first.nodes.items()
            ],
            "links": [{"a": a, "b": b, "rtt_s": rtt / SECOND, "state": state} for a, b, rtt, state in first.links],
            "announcements": {link: dict(counts) for link, counts in announcements(first).items()},
            "ways": {
                pair: {"nodes": names, "rtt_s": rtt / SECOND} for pair, (names, rtt) in first.windows[-1].paths.items()
            },
            "loops": [{"at_s": at / SECOND, "to": to, "nodes": members} for at, to, members in first.loops],
            "journal": [{"at_s": at / SECOND, "event": event} for at, event in first.journal],
        },
    }  # fmt: skip

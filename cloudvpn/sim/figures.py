# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run is measured by: `Figures` of the time after one event, which can be added up over events and runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any, Final, NamedTuple

SECONDS: Final = 1e-6


def percentile(samples: Iterable[int], percent: int) -> int:
    """The least sample that so many percent are not above; 0 without samples."""
    ordered = sorted(samples)
    return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else 0


@dataclass
class Figures:
    """Times in microseconds. Lists hold one sample for each pair of nodes, all else is a sum or a maximum."""

    loops: int = 0
    loop: int = 0  # the longest
    forgotten: list[int] = field(default_factory=list)
    remembered: int = 0
    back: list[int] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    unreachable: int = 0
    converged: int = 0
    stretch: float = 0.0  # the sum of all ways
    ways: int = 0
    starving: int = 0
    runs: int = 1
    own_mac_lost: int = 0
    peer_errors: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    crossings: int = 0  # most of one frame
    messages: int = 0
    bytes: int = 0
    link_messages: int = 0
    link_bytes: int = 0
    link_bytes_per_node: float = 0.0
    quiet: int | None = None
    tables: dict[str, int] = field(default_factory=dict)  # the largest
    claims_differ: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, other: Figures) -> None:
        for name in (one.name for one in fields(self)):
            mine, more = getattr(self, name), getattr(other, name)
            if name in ("frames", "dropped"):
                mine.update(more)
            elif name == "tables":
                self.tables = {key: max(mine.get(key, 0), more.get(key, 0)) for key in mine | more}
            elif name == "quiet":
                self.quiet = min((time for time in (mine, more) if time is not None), default=None)
            elif name in ("loop", "converged", "crossings", "link_messages", "link_bytes", "link_bytes_per_node"):
                setattr(self, name, max(mine, more))
            elif name != "runs":
                setattr(self, name, mine + more)

    def value(self, figure: str) -> float:
        return FIGURES[figure].value(self)

    def all(self) -> dict[str, float]:
        return {name: figure.value(self) for name, figure in FIGURES.items()}


def table() -> str:
    """The figures in Markdown."""
    return "| figure | what it is |\n|---|---|\n" + "".join(
        f"| `{name}` | {figure.meaning} |\n" for name, figure in FIGURES.items()
    )


class Figure(NamedTuple):
    value: Callable[[Figures], float]
    meaning: str


def _times(name: str, what: str) -> dict[str, Figure]:
    def at(percent: int) -> Callable[[Figures], float]:
        return lambda figures: percentile(getattr(figures, name), percent) * SECONDS

    return {
        f"{name}_s": Figure(at(100), f"{what}; the slowest pair"),
        f"{name}_p95_s": Figure(at(95), "95 % of the pairs were not slower"),
        f"{name}_p50_s": Figure(at(50), "half of the pairs were not slower"),
    }


def _plain(name: str, meaning: str, unit: float = 1) -> Figure:
    def value(figures: Figures) -> float:
        number: Any = getattr(figures, name)
        return float(number * unit)

    return Figure(value, meaning)


def _counted(counter: str, name: str, meaning: str) -> Figure:
    return Figure(lambda figures: float(getattr(figures, counter).get(name, 0)), meaning)


FIGURES: Final[dict[str, Figure]] = {
    "loops": _plain("loops", "times that the next hops towards a node began to form a circle"),
    "loop_s": _plain("loop", "how long the longest of them lasted", SECONDS),
    **_times("back", "a pair that had lost its way: from the last link that closed or opened until it has one again"),
    **_times("out", "the same, from the event on"),
    "broken": Figure(lambda figures: len(figures.back) + figures.unreachable, "pairs that had no way at some moment"),
    "unreachable": _plain("unreachable", "pairs that links connect and that have no way when the next event comes"),
    **_times("forgotten", "a node that cannot be reached any more: until the others have no way to it"),
    "remembered": _plain("remembered", "pairs without links between them, with a way when the next event comes"),
    "converged_s": _plain("converged", "from the last link that closed or opened to the last change of a way", SECONDS),
    "stretch": Figure(
        lambda figures: figures.stretch / figures.ways if figures.ways else 1.0,
        "round trip of the ways by that of the best ways, mean",
    ),
    "starving": _plain("starving", "nodes that another one has offers for and may use none, in the end"),
    "own_mac_lost": _plain("own_mac_lost", "times that a node took its own MAC for somebody else's"),
    "peer_errors": _plain("peer_errors", "links closed because of what the peer sent"),
    "frames_sent": _counted("frames", "sent", "frames of the traffic"),
    "frames_lost": _counted("frames", "lost", "frames that did not come, though links joined both ends when they left"),
    "frames_hopeless": _counted("frames", "hopeless", "frames that did not come, and no links joined both ends"),
    "frames_doubled": _counted("frames", "doubled", "frames that came twice"),
    "frames_looped": _counted("frames", "looped", "unicast frames that came to a node where they had been"),
    "frames_looped_per_run": Figure(lambda figures: figures.frames["looped"] / figures.runs, "the mean of it"),
    "crossings_looped": _counted("frames", "crossings", "how often that was, all frames together"),
    "crossings": _plain("crossings", "most links that one unicast frame crossed"),
    "messages": _plain("messages", "announcements (routes, requests, claims), all links together"),
    "messages_per_run": Figure(lambda figures: figures.messages / figures.runs, "the mean of it"),
    "bytes": _plain("bytes", "bytes of all these announcements"),
    "messages_per_link": _plain("link_messages", "most announcements on one link in one direction"),
    "bytes_per_link": _plain("link_bytes", "most bytes of them on one link in one direction"),
    "bytes_per_link_and_node": _plain("link_bytes_per_node", "the same, by the number of nodes"),
    "quiet_s": Figure(
        lambda figures: (figures.quiet or 0) * SECONDS, "from the last announcement until the next event comes"
    ),
    "nodes": _counted("tables", "nodes", "largest table of nodes"),
    "hosts": _counted("tables", "hosts", "largest table of hosts"),
    "claims": _counted("tables", "claims", "largest table of claims"),
    "routes": _counted("tables", "routes", "largest table of routes of version 1"),
    "claims_differ": _plain("claims_differ", "nodes whose claims are not those of most"),
}

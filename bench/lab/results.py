# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures, what they belong to, and the JSON file that keeps them."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """One measurement, or the medians of several."""

    tcp_mbit: float             # one stream, 10^6 bit/s that arrived
    cpu_s_per_gb: float         # CPU time of all daemons for 10^9 bytes of that stream
    loaded_rtt_us: float        # mean of the pings beside that stream
    loaded_lost: float          # of these pings
    tcp_streams_mbit: float     # four streams
    udp_kpps: float             # datagrams of 64 B that arrived, 1,000/s
    rtt_us: float               # mean of the pings with nothing beside


@dataclass
class Row:
    """One subject, and each of its measurements."""

    title: str
    runs: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> Figures:
        """Of each figure by itself. Raises ValueError if there is none."""
        if not self.runs:
            raise ValueError(f"{self.title}: nothing was measured")
        names = [field.name for field in fields(Figures)]
        return Figures(**{name: statistics.median(getattr(run, name) for run in self.runs) for name in names})


@dataclass
class Results:
    """All of a run. `missing` says which subject could not be measured, and the Debian packages that it needs."""

    machine: dict[str, str | int | None]
    rounds: int
    seconds: int
    rows: dict[str, Row] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Raises OSError, or ValueError, TypeError or KeyError for a file that `save` did not write."""
        stored = json.loads(path.read_text())
        rows = {
            name: Row(row["title"], [Figures(**run) for run in row["runs"]], row["failures"])
            for name, row in stored.pop("rows").items()
        }
        return cls(rows=rows, **stored)

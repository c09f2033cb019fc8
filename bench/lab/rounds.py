# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures several subjects in turn, round after round, so that what changes with time meets all of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.lab.hosts import SEARCH_PATH, BenchError, Lab
from bench.lab.load import Way, measure
from bench.lab.results import Results, Row
from bench.machine import describe_machine

# Debian's packages of the commands that every measurement needs.
TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "iperf3": "iperf3", "ping": "iputils-ping"}


@dataclass(frozen=True)
class Subject:
    """Something to be measured: `build` sets it up and gives the ways that load shall go.

    `needs`: the commands that it takes, and Debian's package of each.
    """

    title: str
    build: Callable[[Lab], Sequence[Way]]
    needs: Mapping[str, str]


def missing_packages(needs: Mapping[str, str]) -> list[str]:
    return sorted({package for command, package in needs.items() if not shutil.which(command, path=SEARCH_PATH)})


def apt_line(packages: Sequence[str]) -> str:
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def measure_in_turn(subjects: Mapping[str, Subject], rounds: int, seconds: int) -> Results:
    """Tells of each measurement on standard error as it goes."""
    results = Results(describe_machine(), rounds, seconds)
    for name, subject in subjects.items():
        if packages := missing_packages(subject.needs):
            results.missing[name] = packages
        else:
            results.rows[name] = Row(subject.title)
    if results.missing:
        packages = sorted({package for needed in results.missing.values() for package in needed})
        tell(f"left out: {', '.join(results.missing)}; to have them measured: {apt_line(packages)}")
    for number in range(1, rounds + 1):
        for name, row in results.rows.items():
            try:
                with Lab() as lab:
                    figures = measure(lab, subjects[name].build(lab), seconds)
            except BenchError as error:
                row.failures.append(str(error))
                tell(f"round {number}, {name}: {error}")
            else:
                row.runs.append(figures)
                tell(f"round {number}, {name}: {figures.tcp_mbit:,.0f} Mbit/s, {figures.cpu_s_per_gb:.2f} s/GB, "
                     f"{figures.udp_kpps:.0f} kpps, RTT {figures.rtt_us:.0f} us, "
                     f"under load {figures.loaded_rtt_us:,.0f} us")
    return results


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

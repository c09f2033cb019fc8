# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows where the time of two daemons goes while one stream of TCP goes through them as fast as it can."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.lab.command import DOCUMENT, end_politely, refuse_if_impossible
from bench.lab.hosts import BenchError, Lab, run
from bench.lab.load import Load, arrived_mbit, wait_for_ping
from bench.lab.nodes import Program
from bench.lab.rounds import TOOLS
from bench.lab.table import put_table, row_of
from bench.machine import describe_machine
from bench.peers.tunnels import direct
from bench.profile.groups import GROUPS, group_of
from bench.profile.samples import FIELDS, Sample, read_samples

HERTZ = 999             # not in step with the kernel's own timers
WARM_UP = 1             # seconds
READING = 120.0         # seconds that perf may take to print its samples


@dataclass(frozen=True)
class Profile:
    samples: list[Sample]       # of all CPUs
    sender: int                 # process ids of the daemons
    receiver: int
    mbit: float                 # that arrived meanwhile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--line", action="append", default=[], metavar="'OPTION VALUE'",
                        help="a line more for each configuration; nothing is kept")
    parser.add_argument("--data", type=Path, metavar="PATH",
                        help="leave what perf recorded there, for `perf report -i PATH`; nothing else is kept")
    options = parser.parse_args()
    refuse_if_impossible(TOOLS | {"perf": "linux-perf"})
    end_politely()
    try:
        table = markdown(record(Program(lines=tuple(options.line)), options.seconds, options.data))
    except BenchError as error:
        sys.exit(str(error))
    print(table)
    if not options.line and not options.data:
        put_table(DOCUMENT, "bench-profile", table)
    return 0


def record(program: Program, seconds: int, data: Path | None = None) -> Profile:
    """One stream from `b` to `a`, and what perf sees of it."""
    with Lab() as lab:
        data = data.absolute() if data else lab.directory / "perf.data"
        ways = direct(lab, program)
        wait_for_ping(lab, ways[0])
        [receiver], [sender] = (lab.host(name).processes() for name in "ab")
        load = Load(lab, ways, WARM_UP + seconds + WARM_UP)
        time.sleep(WARM_UP)
        run("perf", "record", "--all-cpus", "-g", "--freq", HERTZ, "--output", data, "--", "sleep", seconds,
            timeout=seconds + READING)
        mbit = arrived_mbit(load.end())
        samples = list(read_samples(run("perf", "script", "--input", data, "--fields", FIELDS, timeout=READING)))
    return Profile(samples, sender, receiver, mbit)


def markdown(profile: Profile) -> str:
    """Percent of all samples: 100 is all CPUs, all the time."""
    total = len(profile.samples)
    daemons = (profile.sender, profile.receiver)
    ours = [sample for sample in profile.samples if sample.process in daemons]
    counts = Counter((sample.process, group_of(sample)) for sample in ours)
    lines = [row_of(["", "sender", "receiver"]), "|---|---:|---:|"]
    for group in GROUPS:
        lines.append(row_of([group, *(percent(counts[daemon, group], total) for daemon in daemons)]))
    sums = Counter(sample.process for sample in ours)
    lines.append(row_of(["**the whole daemon**", *(percent(sums[daemon], total) for daemon in daemons)]))
    commands = Counter(sample.command for sample in profile.samples)
    idle = sum(sample.process == 0 for sample in profile.samples)
    rest = total - len(ours) - commands["iperf3"] - idle
    machine = describe_machine()
    lines += [
        "",
        f"Percent of {total:,} samples; 100 % is {machine['cpus']} CPUs. Beside the daemons: both iperf3 "
        f"{percent(commands['iperf3'], total)} %, idle {percent(idle, total)} %, everything else "
        f"{percent(rest, total)} %. {profile.mbit:,.0f} Mbit/s arrived. {machine['cpu']}, {machine['system']}.",
    ]
    return "\n".join(lines)


def percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

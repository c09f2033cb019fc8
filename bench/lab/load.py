# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures a way through a laboratory: what iperf3 and ping get through, and the CPU time that daemons take for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.lab.hosts import BenchError, Host, Lab, end
from bench.lab.results import Figures

STREAMS = 4
DATAGRAM_BYTES = 64
PINGS, PING_INTERVAL = 200, 0.005           # with nothing beside; seconds
LOADED_PING_INTERVAL = 0.02                 # seconds
OVERTIME = 20.0                             # seconds that iperf3 and ping may take longer than they should
TICKS = os.sysconf("SC_CLK_TCK")


class Way(NamedTuple):
    """Where load goes: the client sends to the server's address."""

    client: Host
    server: Host
    address: str


class Pings(NamedTuple):
    sent: int
    received: int
    mean_us: float


def measure(lab: Lab, ways: Sequence[Way], seconds: int) -> Figures:
    """Figures of the first way; the four streams are spread over all ways. Raises BenchError."""
    first = ways[0]
    for way in ways:
        wait_for_ping(lab, way)
    daemons = [process for host in lab.hosts for process in host.processes()]     # by now they are all inside
    alone = end_pings(begin_pings(first, PINGS, PING_INTERVAL))

    before = cpu_seconds(daemons)
    load = Load(lab, [first], seconds)
    pings = begin_pings(first, int(seconds / LOADED_PING_INTERVAL), LOADED_PING_INTERVAL)
    tcp = load.end()
    used = cpu_seconds(daemons) - before
    beside = end_pings(pings)

    several = Load(lab, ways, seconds, "-P", STREAMS // len(ways)).end()
    udp = Load(lab, [first], seconds, "-u", "-b", 0, "-l", DATAGRAM_BYTES).end()[0]["sum"]
    return Figures(
        tcp_mbit=arrived_mbit(tcp),
        cpu_s_per_gb=used / (tcp[0]["sum_received"]["bytes"] / 1e9),
        loaded_rtt_us=beside.mean_us,
        loaded_lost=beside.sent - beside.received,
        tcp_streams_mbit=arrived_mbit(several),
        udp_kpps=(udp["packets"] - udp["lost_packets"]) / udp["seconds"] / 1e3,
        rtt_us=alone.mean_us,
    )


def arrived_mbit(reports: Iterable[dict[str, Any]]) -> float:
    return sum(float(report["sum_received"]["bits_per_second"]) for report in reports) / 1e6


class Load:
    """iperf3 on all ways at once. The options are those of the client."""

    def __init__(self, lab: Lab, ways: Sequence[Way], seconds: int, *options: object) -> None:
        self._seconds = seconds
        self._servers = [begin_server(lab, way.server) for way in ways]
        self._clients = [
            way.client.begin("iperf3", "-J", "-c", way.address, "-t", seconds, *options) for way in ways
        ]

    def end(self) -> list[dict[str, Any]]:
        """The `end` of each client's report. Raises BenchError."""
        reports = [json.loads(end(client, False, self._seconds + OVERTIME)) for client in self._clients]
        for server in self._servers:
            end(server, False)
        for report in reports:
            if "error" in report:
                raise BenchError(f"iperf3: {report['error']}")
        return [report["end"] for report in reports]


def begin_server(lab: Lab, host: Host) -> subprocess.Popen[str]:
    """For one client, then it ends."""
    log = lab.log_of(host, "iperf3")
    log.unlink(missing_ok=True)
    server = lab.start(host, "iperf3", "-s", "-1", "--forceflush")
    lab.until(lambda: "listening" in log.read_text(), f"an iperf3 server on {host.name}")
    return server


def wait_for_ping(lab: Lab, way: Way) -> None:
    def answers() -> bool:
        return ", 1 received" in end(begin_pings(way, 1, 1), check=False)

    lab.until(answers, f"an answer from {way.address} to {way.client.name}")


def begin_pings(way: Way, count: int, interval: float) -> subprocess.Popen[str]:
    return way.client.begin("ping", "-nq", "-W", 1, "-c", count, "-i", interval, way.address)


def end_pings(process: subprocess.Popen[str]) -> Pings:
    """`mean_us` is not a number if none came back."""
    output = end(process, check=False, timeout=60 + OVERTIME)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    times = re.search(r"= [\d.]+/([\d.]+)/", output)
    if not counts:
        raise BenchError(f"ping: {output.strip()}")
    return Pings(int(counts[1]), int(counts[2]), float(times[1]) * 1000 if times else float("nan"))


def cpu_seconds(processes: Iterable[int]) -> float:
    """What they have used so far, in user and kernel mode; those that have ended count nothing."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])      # utime and stime, the 14th and 15th of all
    return ticks / TICKS

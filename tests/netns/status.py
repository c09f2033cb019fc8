# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the status file of a daemon, in the layout of 2009."""

from __future__ import annotations

import re
from typing import NamedTuple


class StatusLink(NamedTuple):
    """One connection in the status; pings in us, routes as MAC -> (dist, ping), nodes as id -> hops, labels so, too."""

    number: int
    ping: int
    text: str
    routes: dict[str, tuple[int, int]]
    nodes: dict[str, int]
    labels: dict[str, int]


class StatusNode(NamedTuple):
    """The way to one node of version 2."""

    via: int
    cost: int
    hops: int
    hosts: int


class Status(NamedTuple):
    """The status file, as far as it is there.

    `routes` is MAC -> (connection, ping in us, distance), `hosts` MAC -> (kind, node), `labels` those of `nodes`.
    """

    uptime: float | None
    mac: str | None
    listening: int
    links: list[StatusLink]
    routes: dict[str, tuple[int, int, int]]
    node: str | None
    nodes: dict[str, StatusNode]
    labels: dict[str, int]
    hosts: dict[str, tuple[str, str]]
    text: str


def parse_status(text: str) -> Status:
    links = []
    for part in re.split(r"^(?=connection \d+ )|^---$", text, flags=re.MULTILINE):
        if head := re.match(r"connection (\d+)\s+ping (\d+)", part):
            found = re.findall(r"^ `--route to (\S+)\s+dist (\d+)\s+ping (\d+)", part, re.MULTILINE)
            routes = {mac: (int(dist), int(ping)) for mac, dist, ping in found}
            offered = re.findall(r"^ `--node (\S+)\s+hops (\d+)\s.*label (\d+)$", part, re.MULTILINE)
            nodes = {node: int(hops) for node, hops, _ in offered}
            offered_labels = {node: int(label) for node, _, label in offered}
            links.append(StatusLink(int(head[1]), int(head[2]), part, routes, nodes, offered_labels))
    local = re.findall(r"^route to (\S+)\s+via conn (-?\d+)\s+ping (\d+)\s+distance (\d+)", text, re.MULTILINE)
    ways = re.findall(r"^node (\S+)\s+via conn (-?\d+)\s+cost (\d+)\s+hops (\d+)\s.*hosts (\d+)$", text, re.MULTILINE)
    labels = re.findall(r"^node (\S+)\s.*label (\d+)", text, re.MULTILINE)
    hosts = re.findall(r"^host (\S+)\s+(\w+)\s+at (.+)$", text, re.MULTILINE)
    node = re.search(r"^node: (\S+)", text, re.MULTILINE)
    uptime = re.search(r"^uptime: ([\d.]+)s", text, re.MULTILINE)
    mac = re.search(r"^local interface: ([0-9a-f:]{17})", text, re.MULTILINE)
    listening = re.search(r"^listening sockets: (\d+)", text, re.MULTILINE)
    return Status(
        float(uptime[1]) if uptime else None,
        mac[1] if mac else None,
        int(listening[1]) if listening else 0,
        links,
        {mac: (int(via), int(ping), int(dist)) for mac, via, ping, dist in local},
        node[1] if node else None,
        {name: StatusNode(*map(int, numbers)) for name, *numbers in ways},
        {name: int(label) for name, label in labels},
        {mac: (kind, place) for mac, kind, place in hosts},
        text,
    )

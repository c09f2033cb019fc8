# SPDX-License-Identifier: GPL-3.0-or-later
"""Route sets and diffs of several links: the table and its slow twin agree on what is best and what is told."""

from __future__ import annotations

from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from tests.fuzz.reader import Reader
from tests.model.naive import NaiveRouteTable
from tests.model.test_route_twin import entries, read

PORTS = 3
OFFERS_MAX = 64  # more than they can be; a large table takes a while to make
MACS = [0x020000000000 + number for number in range(6)] + [0xFFFFFFFFFFFF, 0]
PINGS = [0, 1, 2, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFC, 0x80000000]


def routes(data: bytes) -> None:
    reader = Reader(data)
    limits = {"max_dist": reader.choice([64, 2, 1, 65535]), "report_above": reader.choice([5000, 0, 0xFFFFFFFF])}
    table = RouteTable(PORTS, 256, RandomSource(1), **limits, max_offers=OFFERS_MAX)
    twin = NaiveRouteTable(PORTS, 256, **limits, max_offers=OFFERS_MAX)
    for port in range(1, PORTS + 1):
        table.open_port(port)
    while reader:
        port, step = 1 + reader.number() % PORTS, reader.number() % 8
        if step <= 3:
            rows = [(row_mac(reader), reader.choice([0, 1, 2, 63, 64, 65535]), ping(reader))
                    for _ in range(reader.number() % 8)]  # fmt: skip
            table.apply(port, entries(rows), step == 0)
            (twin.apply_set if step == 0 else twin.apply_diff)(port, rows)
        elif step == 4:
            cost = ping(reader)
            table.measure_port(port, cost)
            twin.measure(port, cost)
        elif step == 5:
            mac, present = row_mac(reader), bool(reader.number() & 1)
            table.set_local(mac, present)
            twin.set_local(mac, present)
        elif step == 6:
            table.close_port(port)
            twin.close(port)
            table.open_port(port)
            twin.open(port)
        else:
            told = {mac: (dist, cost) if cost else None for mac, dist, cost in read(table.told(False))}
            assert told == twin.diff()
            assert {mac: (dist, cost) for mac, dist, cost in read(table.told(True))} == twin.told
    assert {mac: way for mac, *way in table.best()} == {mac: list(way) for mac, way in twin.best().items()}
    for port in range(PORTS + 1):
        assert set(table.offered_by(port)) == twin.offered_by(port)


def row_mac(reader: Reader) -> int:
    return reader.choice(MACS)


def ping(reader: Reader) -> int:
    kind = reader.number()
    return PINGS[kind - 0x80] if 0x80 <= kind < 0x80 + len(PINGS) else reader.number(2)

# SPDX-License-Identifier: GPL-3.0-or-later
"""How many links there may be, whoever comes at the same time."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cloudvpn.dialer import Dialer
from cloudvpn.options import Endpoint
from tests.unit.node_lab import HOST, Log, load_case, log, node, until
from tests.unit.trust_cases import GOOD

__all__ = ["log"]

FULL = "all max_connections 1 are in use"


def test_dialers_that_race_make_no_more_links_than_there_may_be(
    tmp_path: Path, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = load_case(GOOD[0], tmp_path)

    async def dial() -> None:
        async with node(credentials) as (_, port), node(credentials, dials=port, most=1) as (client, _):
            for _ in range(4):
                Dialer(client, Endpoint(HOST, str(port)))
            await until(lambda: client.counters["links_up"], lambda: log.lines)
            await until(lambda: sum(FULL in line for line in log.lines) == 4, lambda: log.lines)
            assert len(client.links) == client.counters["links_up"] == 1

    uvloop.run(dial())
    assert all(record.levelno < logging.ERROR for record in caplog.records), "no dialer came to grief"


def gone(counters: Counter[str]) -> int:
    return counters["refused_full"] + counters["handshakes_crowded_out"]


def test_of_those_that_come_at_once_as_many_get_in_as_may(tmp_path: Path, log: Log) -> None:
    credentials = load_case(GOOD[0], tmp_path)

    async def visit() -> None:
        async with node(credentials, most=1) as (server, port), contextlib.AsyncExitStack() as clients:
            for _ in range(5):
                await clients.enter_async_context(node(credentials, dials=port))
            # Who had said nothing yet when another one came has left it its place.
            await until(lambda: server.counters["links_up"] and gone(server.counters) == 4, lambda: log.lines)
            assert len(server.links) == 1 and not server.opening

    uvloop.run(visit())


def test_a_link_is_counted_once_from_the_connection_on(tmp_path: Path, log: Log) -> None:
    credentials = load_case(GOOD[0], tmp_path)
    counted = []

    async def visit() -> None:
        async with node(credentials, most=2) as (server, port):
            make = server.link_made

            def made(*words: Any) -> None:
                counted.append((len(server.opening), len(server.links)))
                make(*words)
                counted.append((len(server.opening), len(server.links)))

            server.link_made = made  # type: ignore[method-assign]
            async with node(credentials, dials=port):
                await until(lambda: server.counters["links_up"], lambda: log.lines)
            await until(lambda: not server.links, lambda: log.lines)
            assert not server.opening

    uvloop.run(visit())
    assert counted == [(1, 0), (0, 1)]

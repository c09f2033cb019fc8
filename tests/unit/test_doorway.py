# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stays in the doorway of a real node, and who goes: strangers from several addresses of the loopback network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cloudvpn.budget import Budget
from cloudvpn.doorway import GRACE_SECONDS, RECORD_HEADER, RECORD_MAX, Stage, hello_bytes, source_of
from cloudvpn.mesh import Mesh
from tests.unit.node_lab import HOST, Log, load_case, log, node, until
from tests.unit.trust_cases import GOOD

__all__ = ["log"]


def make_hello() -> bytes:
    outgoing, context = ssl.MemoryBIO(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


HELLO = make_hello()
HALF = HELLO[: len(HELLO) // 2]


class Stranger:
    """Connects from 127.0.1.`number`; strangers of one number are of one source."""

    def __init__(self, mesh: Mesh, port: int, number: int) -> None:
        self.mesh = mesh
        self.socket = socket.create_connection((HOST, port), source_address=(f"127.0.1.{number}", 0))
        self.socket.setblocking(False)
        self.name = self.socket.getsockname()

    @property
    def is_in(self) -> bool:
        return any(visitor.remote == self.name for visitor in self.mesh.doorway.visitors)

    @property
    def stage(self) -> Stage | None:
        stages = [visitor.stage for visitor in self.mesh.doorway.visitors if visitor.remote == self.name]
        return stages[0] if stages else None

    @property
    def is_cut(self) -> bool:
        try:
            return not self.socket.recv(65536)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


class Street:
    """A node, and the strangers that come to it one after the other."""

    def __init__(self, mesh: Mesh, port: int, log: Log) -> None:
        self.mesh, self.port, self.log = mesh, port, log
        self.strangers: list[Stranger] = []

    async def come(self, number: int = 1, words: bytes = b"", stage: Stage | None = Stage.SILENT) -> Stranger:
        stranger = Stranger(self.mesh, self.port, number)
        self.strangers.append(stranger)
        await self.so(lambda: stranger.is_in)
        await self.say(stranger, words, stage)
        return stranger

    async def say(self, stranger: Stranger, words: bytes, stage: Stage | None) -> None:
        stranger.socket.send(words)
        await self.so(lambda: stranger.stage == stage)

    def age(self, seconds: float) -> None:
        for visitor in self.mesh.doorway.visitors:
            visitor.opened -= seconds

    async def so(self, condition: Callable[[], object]) -> None:
        await until(condition, lambda: ([stranger.stage for stranger in self.strangers], self.log.lines))

    @property
    def events(self) -> dict[str, int]:
        return {name: count for name, count in self.mesh.counters.items() if name.startswith(("handshakes", "refused"))}


def street(
    folder: Path, log: Log, work: Callable[[Street], Awaitable[None]], patience: float = 10, **limits: Any
) -> None:
    """Does the work with a node of these limits."""
    credentials = load_case(GOOD[0], folder)

    async def main() -> None:
        async with node(credentials, patience=patience) as (mesh, port):
            mesh.config = replace(mesh.config, **limits)
            made = Street(mesh, port, log)
            try:
                await work(made)
                doorway = mesh.doorway
                assert sum(doorway.counts) == len(doorway.visitors) == sum(map(len, doorway.sources.values()))
                waiting = {visitor.source for visitor in doorway.visitors if visitor.stage == Stage.WAITING}
                assert set(doorway.waiting) == waiting
            finally:
                for stranger in made.strangers:
                    stranger.socket.close()

    uvloop.run(main())


@pytest.mark.parametrize("come", [3, 4, 5])
@pytest.mark.parametrize("limit", ["max_handshakes", "max_handshakes_per_source"])
def test_over_a_limit_the_oldest_silent_one_goes(tmp_path: Path, log: Log, limit: str, come: int) -> None:
    async def work(street: Street) -> None:
        for number in range(come):
            await street.come(1 if "source" in limit else number + 1)
        gone = street.strangers[: max(0, come - 4)]
        await street.so(lambda: [one for one in street.strangers if one.is_cut] == gone)
        assert [one for one in street.strangers if not one.is_in] == gone
        assert street.events == ({"handshakes_crowded_out": 1} if gone else {})
        assert sum(f"over {limit} 4, and it had said nothing" in line for line in log.lines) == len(gone)

    street(tmp_path, log, work, **{limit: 4})


def use_up(budget: Budget) -> None:
    """For an hour."""
    budget.left = -budget.share * 3600


def test_who_has_said_a_hello_stays_longer_than_who_has_said_less(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        use_up(street.mesh.doorway.shaking)
        waiting = await street.come(1, HELLO, Stage.WAITING)
        half = await street.come(2, HALF, Stage.HALF)
        silent = await street.come(3)
        street.age(GRACE_SECONDS)
        for number, goes in ((4, half), (5, silent)):
            assert goes.is_in
            await street.come(number)
            assert not goes.is_in and waiting.is_in

    street(tmp_path, log, work, max_handshakes=3)


@pytest.mark.parametrize("words", [b"", HALF, HELLO])
def test_a_hello_may_be_a_moment_late_and_then_the_source_with_the_most_loses_one(
    tmp_path: Path, log: Log, words: bytes
) -> None:
    async def work(street: Street) -> None:
        use_up(street.mesh.doorway.shaking)
        stage = {b"": Stage.SILENT, HALF: Stage.HALF, HELLO: Stage.WAITING}[words]
        first = await street.come(1)
        second, third = [await street.come(2, words, stage) for _ in range(2)]
        street.age(-3600)
        await street.come(3)
        assert (first.is_in, second.is_in, third.is_in) == (True, False, True)
        await street.so(lambda: second.is_cut)

    street(tmp_path, log, work, max_handshakes=3)


def test_one_source_at_its_limit_takes_nothing_from_another(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        other = await street.come(1)
        for _ in range(20):
            await street.come(2)
        assert other.is_in and len(street.mesh.doorway.visitors) == 3
        assert street.events == {"handshakes_crowded_out": 18}

    street(tmp_path, log, work, max_handshakes_per_source=2)


def test_a_lower_limit_counts_from_the_next_connection_on(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        for _ in range(5):
            await street.come()
        street.mesh.config = replace(street.mesh.config, max_handshakes=2)
        assert len(street.mesh.doorway.visitors) == 5
        await street.come()
        assert [one.is_in for one in street.strangers] == [False] * 4 + [True] * 2

    street(tmp_path, log, work)


def test_no_more_than_half_are_in_tls_and_the_one_there_longest_makes_room(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        for number in range(1, 5):
            await street.come(number, HELLO, Stage.SHAKING)
        assert [one.is_in for one in street.strangers] == [False, False, True, True]
        assert street.events == {"handshakes_crowded_out": 2}

    street(tmp_path, log, work, max_handshakes=4)


def test_when_the_budget_is_used_up_who_comes_waits_and_sources_have_their_turns(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        doorway = street.mesh.doorway
        use_up(doorway.shaking)
        for number in (1, 1, 2, 1, 3):
            await street.come(number, HELLO, Stage.WAITING)
        begun: list[Stranger] = []
        doorway.shaking.share = 1e-9
        for _ in range(5):
            doorway.shaking.left = 1e-9                         # for one
            doorway.take_turns()
            assert doorway.next_turn
            doorway.next_turn.cancel()
            begun += [one for one in street.strangers if one.stage == Stage.SHAKING and one not in begun]
            await street.so(lambda: doorway.shaking.left < 0)   # it was charged
        assert [street.strangers.index(one) for one in begun] == [0, 2, 4, 1, 3]

    street(tmp_path, log, work)


@pytest.mark.parametrize(("words", "stage"), [(b"", Stage.SILENT), (HELLO[:1], Stage.HALF), (HELLO[:5], Stage.HALF),
                         (HELLO[:-1], Stage.HALF), (HELLO, Stage.SHAKING)])  # fmt: skip
def test_who_comes_no_further_goes_at_handshake_timeout(tmp_path: Path, log: Log, words: bytes, stage: Stage) -> None:
    async def work(street: Street) -> None:
        begun = street.mesh.loop.time()
        stranger = await street.come(1, words, stage)
        await street.so(lambda: stranger.is_cut)
        assert 0.45 < street.mesh.loop.time() - begun < 2
        assert not stranger.is_in and street.events == {"handshakes_expired": 1}
        assert sum("timed out" in line for line in log.lines) == 1

    street(tmp_path, log, work, patience=0.5)


@pytest.mark.parametrize("cuts", [[1], [5], [len(HELLO) - 1], [1, 4, 5, 6, 100], list(range(1, len(HELLO)))])
def test_a_hello_in_pieces_is_a_hello(tmp_path: Path, log: Log, cuts: list[int]) -> None:
    async def work(street: Street) -> None:
        stranger = await street.come()
        for start, end in zip([0, *cuts], cuts, strict=False):
            await street.say(stranger, HELLO[start:end], Stage.HALF)
        await street.say(stranger, HELLO[cuts[-1] :], Stage.SHAKING)

    street(tmp_path, log, work)


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"S", b"\x16\x02", b"\x16\x03\x01\x40\x01",
                         HELLO[:3] + b"\0\0", b"\x16\x03\x01\x00\x10\x02"])  # fmt: skip
def test_what_begins_like_no_hello_goes_at_once(tmp_path: Path, log: Log, words: bytes) -> None:
    async def work(street: Street) -> None:
        stranger = await street.come(1, words, None)
        await street.so(lambda: stranger.is_cut)
        assert street.events == {"handshakes_failed": 1} and sum("not TLS" in line for line in log.lines) == 1

    street(tmp_path, log, work)


@pytest.mark.parametrize("words", [b"", HELLO[:3], HALF])
def test_who_leaves_early_leaves_his_place(tmp_path: Path, log: Log, words: bytes) -> None:
    async def work(street: Street) -> None:
        stranger = await street.come(1, words, Stage.HALF if words else Stage.SILENT)
        stranger.socket.shutdown(socket.SHUT_WR)
        await street.so(lambda: stranger.is_cut)
        assert not stranger.is_in and street.events == {"handshakes_failed": 1}

    street(tmp_path, log, work)


def test_a_member_that_sends_no_packet_is_a_visitor_and_goes_when_it_is_crowded_out(tmp_path: Path, log: Log) -> None:
    credentials = load_case(GOOD[0], tmp_path)

    async def main() -> None:
        async with node(credentials) as (mesh, port):
            mesh.config = replace(mesh.config, max_handshakes_per_source=1)
            loop = asyncio.get_running_loop()
            _, silent = await asyncio.open_connection(HOST, port, ssl=credentials.client_context, server_hostname="")
            await until(lambda: mesh.doorway.counts[Stage.PROVING], lambda: log.lines)
            assert len(mesh.links) == 1 and mesh.places() == mesh.config.max_connections
            second = socket.create_connection((HOST, port))
            await until(lambda: not mesh.links and len(mesh.doorway.visitors) == 1, lambda: log.lines)
            assert mesh.counters["handshakes_crowded_out"] == 1 and not mesh.opening
            assert sum("no link to ours at" in line and "it had sent no packet" in line for line in log.lines) == 1
            silent.close()
            second.close()
            await until(lambda: not mesh.doorway.visitors, lambda: loop.time())

    uvloop.run(main())


def test_over_its_share_of_the_processor_nothing_is_accepted_for_a_while(tmp_path: Path, log: Log) -> None:
    async def work(street: Street) -> None:
        doorway = street.mesh.doorway
        [listener] = doorway.resting
        doorway.accepting.left = -doorway.accepting.share * 0.3     # for 0.3 s
        first = await street.come()
        begun = street.mesh.loop.time()
        assert doorway.resting[listener] is not None, "the one that used it up"
        second = await street.come()
        assert street.mesh.loop.time() - begun > 0.2 and first.is_in and second.is_in
        await street.so(lambda: doorway.resting[listener] is None)

    street(tmp_path, log, work)


@pytest.mark.parametrize(("host", "source"), [
    ("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::", "2001:db8:1:2::/64"),
    ("2001:db8:1:3::", "2001:db8:1:3::/64"), ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64"),
])  # fmt: skip
def test_a_source_is_an_address_or_a_64(host: str, source: str) -> None:
    assert source_of((host, 4000)) == source


def test_the_length_of_a_hello_is_known_from_its_header_on() -> None:
    assert [hello_bytes(HELLO[:size]) for size in range(6)] == [RECORD_HEADER] * 5 + [len(HELLO)]
    assert {hello_bytes(HELLO[:size]) for size in range(5, len(HELLO) + 1)} == {len(HELLO)}
    for length, known in ((0, 0), (1, 6), (RECORD_MAX, RECORD_HEADER + RECORD_MAX), (RECORD_MAX + 1, 0)):
        assert hello_bytes(b"\x16\x03\x03" + length.to_bytes(2, "big")) == known
    for place in (0, 1, 5):
        wrong = bytearray(HELLO)
        wrong[place] ^= 0xFF
        assert hello_bytes(bytes(wrong)) == 0

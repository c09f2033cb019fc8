# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits and times of a node on a clock that only the test moves, and that each option reaches what it limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from cloudvpn import daemon, dialer
from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.link import Link
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch
from cloudvpn._fast.wire import bare_packet, read_packets
from cloudvpn.bandwidth import Bandwidth
from cloudvpn.daemon import Node, build_switch
from cloudvpn.dialer import Dialer
from cloudvpn.doorway import Doorway, Stage, Visitor
from cloudvpn.errors import PeerError
from cloudvpn.mesh import LinkInfo, Mesh
from cloudvpn.options import MS, SECOND, Config, Endpoint

LARGEST_PACKET = 4 + 65535 * 12


class Mouth(Port):
    def __init__(self) -> None:
        self.written = b""

    def flush(self) -> None:
        while (data := self.take()) is not None:
            self.written += data

    def heard(self, kind: int) -> int:
        """How many packets of this type were written since the last time."""
        packets, written = read_packets(self.written)[0], self.written
        self.written = b""
        assert written or not packets
        return sum(packet[0] == kind for packet in packets)


def measured(**limits: int) -> tuple[Switch, Mouth, int]:
    """A switch, a port whose first echo was answered, and when."""
    chance = RandomSource(1)
    switch = Switch(RouteTable(4, 16, chance), IdCache(16, chance), chance, **limits)
    port = Mouth()
    switch.attach(port, SendQueue(), SECOND)
    (echo_id,) = (packet[1] for packet in read_packets(port.written)[0] if packet[0] == 5)
    switch.receive(port, bare_packet(6, echo_id), SECOND)
    port.written = b""
    return switch, port, SECOND


@pytest.mark.parametrize(("late", "asked"), [(-1, 0), (0, 1), (1, 1)])
def test_an_echo_is_asked_for_when_conn_keepalive_is_over(late: int, asked: int) -> None:
    switch, port, begun = measured(keepalive=3 * SECOND)
    switch.beat(begun + 3 * SECOND + late)
    assert port.heard(5) == asked


@pytest.mark.parametrize(("late", "is_silent"), [(-1, False), (0, True), (1, True)])
def test_a_link_is_silent_when_conn_timeout_is_over(late: int, is_silent: bool) -> None:
    switch, port, begun = measured(timeout=7 * SECOND)
    assert switch.beat(begun + 7 * SECOND + late) == [port] * is_silent


class Clock:
    """The loop's: what is to be called when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.refused = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> SimpleNamespace:
        if self.refused:
            self.refused -= 1
            raise MemoryError
        entry = (when, call)
        self.calls.append(entry)
        return SimpleNamespace(when=lambda: when, cancel=lambda: entry in self.calls and self.calls.remove(entry))

    def take(self) -> tuple[float, Callable[[], None]]:
        """The next call."""
        self.calls.sort(key=lambda entry: entry[0])
        return self.calls.pop(0)


def make_heart(period: int) -> tuple[Node, Clock, list[float]]:
    clock, beats = Clock(), list[float]()
    node = Node.__new__(Node)
    vars(node).update(
        config=replace(Config(), heartbeat=period), loop=clock, beat_at=0.0, interface=None, stopping=asyncio.Event(),
        switch=SimpleNamespace(beat=lambda now, wall: beats.append(clock.now)), late_beat=None,
        mesh=SimpleNamespace(close_silent=id, revive=int, forget_left=int),
        storms=SimpleNamespace(look=id), routes=SimpleNamespace(look=id),
    )  # fmt: skip
    return node, clock, beats


@pytest.mark.parametrize("period", [MS, 49 * MS, 50 * MS, 51 * MS, SECOND])
def test_the_heart_beats_once_in_each_period_and_makes_up_for_no_late_beat(period: int) -> None:
    node, clock, beats = make_heart(period)
    node.beat()
    for _ in range(100):
        clock.now, call = clock.take()
        call()
    seconds = period / SECOND
    assert beats == pytest.approx([number * seconds for number in range(101)])
    due, call = clock.take()
    clock.now = due + 2.5 * seconds
    call()
    assert clock.take()[0] == pytest.approx(due + 3 * seconds) and len(beats) == 102


@pytest.mark.parametrize("refused", [0, 1])
def test_a_beat_for_which_the_loop_had_no_memory_comes_half_a_period_late(refused: int) -> None:
    """It is not called (0), or could not be planned."""
    node, clock, beats = make_heart(SECOND)
    node.beat()
    due, call = clock.take()
    clock.refused = refused
    if refused:
        clock.now = due
        call()
    clock.now, call = clock.take()
    call()
    assert beats[-1] == 1.5
    clock.now, call = clock.take()
    call()
    assert beats[-1] == 2.0


@pytest.mark.parametrize("pause", [MS, SECOND, 10 * SECOND])
def test_a_lost_target_is_dialled_again_after_conn_retry_less_some_jitter(
    pause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    tries: list[int] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1000:
            raise asyncio.CancelledError

    async def try_all() -> None:
        tries.append(len(pauses))

    monkeypatch.setattr(dialer.asyncio, "sleep", sleep)
    mesh: Any = SimpleNamespace(
        config=replace(Config(), conn_retry=pause), is_full=lambda: False, keep=lambda work: None
    )
    target = Dialer(mesh, Endpoint("nowhere.invalid", "1"))
    target.try_all = try_all  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(target.run())
    seconds = pause / SECOND
    assert tries == list(range(1000))
    assert 0.75 * seconds <= min(pauses) < 0.77 * seconds and 0.98 * seconds < max(pauses) <= seconds


@pytest.mark.parametrize(("links", "opening", "visitors", "is_full"), [
    (1, 0, [], False), (2, 0, [], True), (1, 1, [], True), (3, 0, [], True),
    (1, 0, [Stage.SILENT], False), (1, 0, [Stage.HALF], False), (1, 0, [Stage.WAITING], True),
    (1, 1, [Stage.SHAKING], True), (2, 0, [Stage.PROVING], True), (0, 1, [Stage.SHAKING], False),
])  # fmt: skip
def test_no_more_than_max_connections_are_there_beside_silent_ones(
    links: int, opening: int, visitors: list[Stage], is_full: bool
) -> None:
    """Who is in the TLS handshake is in `opening`, who has yet to prove itself is a link already; each counts once."""
    doorway = Doorway(SimpleNamespace(loop=None))  # type: ignore[arg-type]
    for stage in visitors:
        doorway.visitors[Visitor(None, (), "", 0.0)] = None  # type: ignore[arg-type]
        doorway.counts[stage] += 1
    mesh = Mesh.__new__(Mesh)
    vars(mesh).update(
        config=replace(Config(), max_connections=2), links=set(range(links)), opening=set(range(opening)),
        doorway=doorway,
    )  # fmt: skip
    assert mesh.is_full() == is_full


@pytest.mark.parametrize("limit", [LARGEST_PACKET, LARGEST_PACKET + 1, 1 << 20])
def test_the_unparsed_input_of_a_link_is_at_most_max_input_queue_size(limit: int) -> None:
    """Before it is started nothing is parsed, so all that comes gathers."""
    link = Link(build_switch(replace(Config(), max_connections=1)), SimpleNamespace(), None, limit)
    taken = 0
    with pytest.raises(PeerError):
        while True:
            room = min(len(link.get_buffer(65536)), 50_000)
            taken += room
            link.buffer_updated(room)
    assert taken == limit


def test_the_least_max_input_queue_size_is_one_largest_packet() -> None:
    with pytest.raises(ValueError, match="must hold the largest packet, 786424 bytes"):
        Link(build_switch(replace(Config(), max_connections=1)), SimpleNamespace(), None, LARGEST_PACKET - 1)


def test_each_limit_of_the_configuration_reaches_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, dict[str, Any]] = {}

    def record(name: str, made: Callable[..., Any]) -> None:
        def make(*words: Any, **more: Any) -> Any:
            given[name] = more | dict(enumerate(words))
            return made(*words, **more)

        monkeypatch.setattr(daemon, name, make)

    for name, made in (("Switch", Switch), ("RouteTable", RouteTable), ("IdCache", IdCache)):
        record(name, made)
    config = replace(
        Config(), max_connections=11, max_remote_routes=12, route_max_dist=13, report_ping_changes_above=14,
        br_id_cache_size=15, conn_mtu=16, conn_keepalive=17, conn_timeout=18, max_waiting_total=19,
    )  # fmt: skip
    build_switch(config)
    table, cache, switch = (given[name] for name in ("RouteTable", "IdCache", "Switch"))
    assert [table[key] for key in (0, 1, "max_dist", "report_above")] == [11, 12, 13, 14]
    assert cache[0] == 15
    assert [switch[key] for key in ("max_frame", "keepalive", "timeout", "max_waiting")] == [16, 17, 18, 19]


def test_each_limit_of_the_configuration_reaches_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(
        Config(), max_waiting_proto_packets=7, max_waiting_data_packets=8, max_waiting_data_bytes=70_000,
        max_input_queue_size=800_000, handshake_timeout=6 * SECOND, comm_close_timeout=5 * SECOND,
    )  # fmt: skip
    inputs: list[int] = []
    given: dict[str, Any] = {}

    def make(*words: Any) -> Link:
        inputs.append(words[3])
        return Link(*words)

    async def open_link() -> Link:
        credentials: Any = SimpleNamespace(server_context=SimpleNamespace(), judge=lambda tls: peer)
        mesh = Mesh(config, build_switch(config), credentials)
        connection, other = socket.socketpair()
        extras = {"socket": connection, "ssl_object": SimpleNamespace(version=str), "sockname": ()}
        transport = SimpleNamespace(
            set_write_buffer_limits=lambda **more: None, get_extra_info=extras.get, write=bytes, abort=lambda: None
        )

        async def connect(factory: Callable[[], Link], sock: socket.socket, **more: Any) -> None:
            given.update(more)
            links.append(factory())
            links[0].connection_made(transport)

        links: list[Link] = []
        mesh.loop = SimpleNamespace(  # type: ignore[assignment]
            connect_accepted_socket=connect, call_later=mesh.loop.call_later, time=float
        )
        with connection, other:
            await mesh.open_link(connection, LinkInfo(("", 0), 0.0))
        return links[0]

    peer = SimpleNamespace(identity=None)
    monkeypatch.setattr("cloudvpn.mesh.Link", make)
    monkeypatch.setattr("cloudvpn.mesh.version_of", lambda tls: 1)
    monkeypatch.setattr(socket.socket, "setsockopt", lambda *words: None)
    queue = asyncio.run(open_link()).queue
    assert (queue.max_proto, queue.max_data, queue.max_data_bytes, inputs) == (7, 8, 70_000, [800_000])
    assert (given["ssl_handshake_timeout"], given["ssl_shutdown_timeout"]) == (6, 5)


def test_the_bandwidth_limits_reach_the_switch_once_and_again_when_they_change() -> None:
    given: list[Any] = []
    switch: Any = SimpleNamespace(set_alarm=id, set_limits=lambda now, **limits: given.append(limits))
    bandwidth = Bandwidth(switch, asyncio.new_event_loop())
    config = replace(Config(), uplimit_total=1, uplimit_conn=2, uplimit_burst=3, downlimit_burst=6)
    for _ in range(2):
        bandwidth.use(config)
    bandwidth.use(replace(config, downlimit_total=4, downlimit_conn=5))
    bandwidth.loop.close()
    assert given == [{"up": (1, 2, 3), "down": (0, 0, 6)}, {"up": (1, 2, 3), "down": (4, 5, 6)}]


@pytest.mark.parametrize(("wait", "delay"), [(-5000, 1), (0, 1), (1, 1), (1000, 1), (1001, 2), (1_000_000, 1000)])
def test_the_timer_is_never_early_and_never_below_its_grain(
    wait: int, delay: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delays in ms."""
    called: list[float] = []
    loop: Any = SimpleNamespace(call_later=lambda seconds, call: called.append(seconds))
    switch: Any = SimpleNamespace(set_alarm=id)
    monkeypatch.setattr("cloudvpn.bandwidth.monotonic_us", lambda: 77)
    Bandwidth(switch, loop).wake_at(77 + wait)
    assert called == [pytest.approx(delay / 1000)]
    assert not {later < now for now, later in pairwise([0, *called])} - {False}

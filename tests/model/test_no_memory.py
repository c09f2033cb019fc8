# SPDX-License-Identifier: GPL-3.0-or-later
"""Each allocation in turn fails in the send queue and in a switch: what is left fits what went in, to the frame."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import pytest

from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.port import Port
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.sendq import SendQueue
from cloudvpn._fast.switch import Switch

_testcapi = pytest.importorskip("_testcapi", reason="this Python was built without it")
T = TypeVar("T")
ECHO_REQUEST = bytes((5, 1, 0, 0))


def failing(after: int, work: Callable[[], T]) -> T | None:
    """What the work gives if its allocation number `after` fails; None: MemoryError."""
    _testcapi.set_nomemory(after, after + 1)
    try:
        return work()
    except MemoryError:
        return None
    finally:
        _testcapi.remove_mem_hooks()


@pytest.mark.parametrize("seed", range(4))
def test_a_queue_without_memory_loses_only_what_it_says_and_keeps_the_order(seed: int) -> None:
    chance = random.Random(seed)
    queue = SendQueue(max_data=1 << 20, max_data_bytes=1 << 20)
    waiting: list[bytes] = []
    failed = lost = popped = 0
    for _ in range(6000):
        after = chance.randrange(8)
        if chance.random() < 0.7:
            packet = chance.randbytes(chance.choice([1, 64, 1518, 8196, 60000, 65539]))
            if failing(after, lambda packet=packet: queue.push_data(packet)):  # type: ignore[misc]
                waiting.append(packet)
        elif got := failing(after, queue.pop):
            data, frames = got
            gone, waiting = waiting[:frames], waiting[frames:]
            assert data == b"".join(gone)
            popped += frames
        else:
            failed += bool(waiting)
        if queue.lost > lost:       # of the chunk that was being filled: the last ones
            del waiting[len(waiting) - (queue.lost - lost) :]
            lost = queue.lost
        assert queue.waiting_data == len(waiting)
        assert queue.waiting_bytes == sum(map(len, waiting))
    while got := queue.pop():
        assert got[0] == b"".join(waiting[: got[1]])
        del waiting[: got[1]]
    assert not waiting and failed > 10 and popped > 1000


@pytest.mark.parametrize("version", [1, 2])
def test_ports_that_come_and_go_without_memory_leave_no_place_taken_and_each_frame_is_counted(version: int) -> None:
    """Whatever fails while a port is attached or detached, or a frame is flooded: another one finds its place."""
    chance, number = RandomSource(version), random.Random(version)
    switch = Switch(RouteTable(4, 64, chance), IdCache(64, chance), chance, max_nodes=64)
    failed = 0
    for after in [step for step in range(40) for _ in range(3)]:
        ports = [Port() for _ in range(4)]
        for port in ports:
            switch.pause(port, True)        # what waits shall wait
            queue = SendQueue()
            failing(after, lambda port=port, queue=queue: switch.attach(port, queue, 1, version))  # type: ignore[misc]
            failed += port not in switch.ports()
            if port in switch.ports() and version == 1:
                failing(after % 3, lambda port=port: switch.receive(port, ECHO_REQUEST, 1))     # type: ignore[misc]
        assert switch.attached_count == len(switch.ports()) == len({port.index for port in switch.ports()})
        for _ in range(20):
            size = number.choice([60, 1500, 8000])
            failing(number.randrange(6), lambda size=size: switch.send_from_tap(b"\xff" * size, now=1))  # type: ignore
        for port in number.sample(ports, 4):
            failing(number.randrange(4), lambda port=port: switch.detach(port, 1))      # type: ignore[misc]
            switch.detach(port, 1)
        assert switch.attached_count == len(switch.ports()) == 0
        assert switch.frames_from_tap + switch.copies == switch.frames_to_links + sum(switch.dropped().values())
    assert failed > 3
    assert switch.frames_to_links == 0
    if version == 1:
        assert switch.dropped()["no_memory"] and switch.dropped()["link_closed"], switch.dropped()

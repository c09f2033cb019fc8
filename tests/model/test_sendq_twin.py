# SPDX-License-Identifier: GPL-3.0-or-later
"""The send queue against its slow twin: seeded random packets in and out, compared after each."""

from __future__ import annotations

import random

import pytest

from cloudvpn._fast.sendq import SendQueue
from tests.model.naive import PROTO_BYTES_MAX, WRITE_BYTES, NaiveSendQueue

LIMITS = [(64, 256, 1 << 20), (1, 1, 1), (1, 1, 65544), (3, 5, 4000), (64, 1 << 20, 100_000), (1 << 20, 7, 1 << 30)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_queue_and_twin_agree_after_each_operation(limits: tuple[int, int, int], seed: int) -> None:
    chance = random.Random(seed)
    queue, twin = SendQueue(*limits), NaiveSendQueue(*limits)
    refused = refused_proto = frames = 0
    for _ in range(3000):
        kind = chance.random()
        if kind < 0.2:
            packet = chance.randbytes(chance.choice([4, 4, 16, 3076, 3076, 150_000, 786_424]))
            has_found_place = queue.push_proto(packet)
            assert has_found_place == twin.push_proto(packet)
            refused_proto += not has_found_place
        elif kind < 0.8:
            packet = chance.randbytes(chance.choice([1, 18, 64, 1518, 1518, 8196, 65539]))
            has_found_place = queue.push_data(packet)
            assert has_found_place == twin.push_data(packet)
            refused += not has_found_place
        elif kind < 0.99:
            popped = queue.pop()
            assert twin.accepts(popped)
            frames += popped[1] if popped else 0
        else:
            assert queue.drop_all() == len(twin.data)
            twin.proto, twin.leaving, twin.data = [], b"", []
        assert (queue.waiting_proto, queue.waiting_data) == (len(twin.proto), len(twin.data))
        assert queue.waiting_bytes == sum(map(len, twin.data))
    assert refused and refused_proto and frames


@pytest.mark.parametrize("seed", range(3))
def test_of_a_limited_queue_exactly_the_granted_frames_leave_in_their_order(seed: int) -> None:
    chance = random.Random(seed)
    queue = SendQueue(max_data=1000)
    queue.limit()
    waiting: list[bytes] = []
    granted = partly = dropped = 0
    for _ in range(3000):
        kind = chance.random()
        if kind < 0.4:
            packet = chance.randbytes(chance.choice([1, 64, 1518, 8196, 65539]))
            if queue.push_data(packet):
                waiting.append(packet)
        elif kind < 0.7 and granted < len(waiting):
            assert queue.let(len(waiting[granted]))
            granted += 1
        elif kind < 0.97:
            popped = queue.pop()
            if granted == 0:
                assert popped is None
                continue
            assert popped
            data, frames = popped
            assert 1 <= frames <= granted and data == b"".join(waiting[:frames])
            partly += frames < granted
            del waiting[:frames]
            granted -= frames
        elif waiting:
            frames = queue.drop_chunk()
            assert frames
            del waiting[:frames]
            granted = max(granted - frames, 0)
            dropped += 1
        assert (queue.waiting_data, queue.waiting_frames) == (len(waiting), len(waiting))
        assert queue.waiting_bytes == sum(map(len, waiting))
    assert partly and dropped
    assert not queue.let(1 << 20)
    assert queue.drop_all() == len(waiting)
    assert queue.pop() is None


@pytest.mark.parametrize("limit", [1, 2, 64])
def test_the_packet_limits_hold_exactly(limit: int) -> None:
    queue = SendQueue(limit, limit)
    assert [queue.push_proto(b"prot") for _ in range(limit + 1)] == [True] * limit + [False]
    assert [queue.push_data(b"data") for _ in range(limit + 1)] == [True] * limit + [False]
    assert (queue.waiting_proto, queue.waiting_data) == (limit, limit)
    assert queue.pop() == (b"prot" * limit, 0)
    assert not queue.push_data(b"data")
    assert queue.push_proto(b"more")
    assert [queue.pop(), queue.pop()] == [(b"more", 0), (b"data" * limit, limit)]
    assert queue.pop() is None
    assert queue.push_data(b"data")


@pytest.mark.parametrize("size", [1, 18, 1518])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_byte_limit_of_frames_holds_exactly(size: int, beyond: int) -> None:
    queue = SendQueue(max_data_bytes=10_000)
    assert queue.push_data(bytes(10_000 - size))
    assert queue.push_data(bytes(size + beyond)) == (beyond <= 0)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_byte_limit_of_protocol_packets_holds_exactly(beyond: int) -> None:
    queue = SendQueue()
    assert queue.push_proto(bytes(PROTO_BYTES_MAX - 16))
    assert queue.push_proto(bytes(16 + beyond)) == (beyond <= 0)
    most = PROTO_BYTES_MAX + min(beyond, 0 if beyond < 1 else -16)
    for size in (*[WRITE_BYTES] * (most // WRITE_BYTES), most % WRITE_BYTES):
        # What has begun to leave counts until it has left.
        assert not queue.push_proto(bytes(PROTO_BYTES_MAX - most + 1))
        popped = queue.pop()
        assert popped and len(popped[0]) == size
        most -= size
    assert queue.pop() is None


@pytest.mark.parametrize("second", [-1, 0, 1])
def test_frames_leave_together_up_to_64_kib(second: int) -> None:
    queue = SendQueue()
    frames = [bytes([1]) * 32768, bytes([2]) * (WRITE_BYTES - 32768 + second)]
    assert all(queue.push_data(frame) for frame in frames)
    expected = [(frames[0] + frames[1], 2)] if second <= 0 else [(frames[0], 1), (frames[1], 1)]
    assert [queue.pop() for _ in expected] == expected
    assert queue.pop() is None


@pytest.mark.parametrize("size", [WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1, 1 << 20])
def test_a_packet_over_64_kib_leaves_alone_and_whole(size: int) -> None:
    queue = SendQueue()
    large = random.Random(size).randbytes(size)
    for _ in range(2):
        assert queue.push_data(large) or size == 1 << 20
    assert queue.pop() == (large, 1)


def test_a_write_that_was_taken_does_not_change_when_frames_follow() -> None:
    queue = SendQueue()
    queue.push_data(b"first")
    popped = queue.pop()
    queue.push_data(b"second")
    queue.push_proto(b"proto")
    assert popped == (b"first", 1)
    assert [queue.pop(), queue.pop(), queue.pop()] == [(b"proto", 0), (b"second", 1), None]

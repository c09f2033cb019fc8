# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining against its slow twin: seeded random batches, and what must be true of any batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudvpn._fast.coalesce import coalesce
from cloudvpn._fast.segment import cut
from tests.model import naive_offload as naive
from tests.model.batches import ARP, CHANGES, random_batch
from tests.model.naive_offload import ACK, CWR, ECE, FIN, PLAIN, PSH, RST, SYN, TCP, UDP, URG, Offload, number, put
from tests.model.packets import TIMESTAMPS, Flow

Written = Sequence[tuple[Offload, bytes]]


def apart(written: Written) -> list[bytes]:
    return [frame for offload, super_frame in written for frame in cut(super_frame, offload)]


def without_free_id(frame: bytes) -> bytes:
    """The frame without an IPv4 id that DF makes meaningless (RFC 6864), and without the checksum that covers it."""
    layers = naive.find_layers(frame)
    if layers is None or layers.is_v6 or not frame[layers.network + 6] & 0x40:
        return frame
    blank = bytearray(frame)
    put(blank, layers.network + 4, 0)
    put(blank, layers.network + 10, 0)
    return bytes(blank)


def by_flow(frames: Sequence[bytes]) -> dict[object, list[bytes]]:
    flows: dict[object, list[bytes]] = {}
    for frame in frames:
        flows.setdefault(naive.flow_key(frame), []).append(without_free_id(frame))
    return flows


def between_others(frames: Sequence[bytes]) -> list[Counter[bytes]]:
    """The frames of TCP and UDP before, between and after those of neither."""
    parts = [Counter[bytes]()]
    for frame in frames:
        if naive.find_layers(frame):
            parts[-1][without_free_id(frame)] += 1
        else:
            parts.append(Counter())
    return parts


def check(frames: list[bytes], udp: bool = True) -> int:
    """All that must be true; how many frames were joined."""
    written = coalesce(frames, udp)
    assert written == naive.coalesce(frames, udp), [frame.hex() for frame in frames]
    out = apart(written)
    assert by_flow(out) == by_flow(frames)
    assert between_others(out) == between_others(frames)
    unchanged = Counter(frame for offload, frame in written if offload == PLAIN)
    assert unchanged <= Counter(frames)
    for offload, frame in written:
        layers = naive.find_layers(frame)
        if offload != PLAIN:
            assert layers
            assert len(frame) - layers.network <= 65535
            assert 2 <= len(cut(frame, offload)) <= 64
            assert udp or layers.protocol == TCP
    return len(frames) - unchanged.total()


def check_many(seed: int, count: int) -> None:
    chance = random.Random(seed)
    frames = joined = 0
    for _ in range(count):
        batch = random_batch(chance, chance.choice([2, 5, 20, 70]))
        frames += len(batch)
        joined += check(batch, udp=chance.random() < 0.8)
    assert frames // 4 < joined < frames


@pytest.mark.parametrize("seed", range(5))
def test_coalesce_and_twin_agree(seed: int) -> None:
    check_many(seed, 1000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_coalesce_and_twin_agree_for_long(seed: int) -> None:
    check_many(seed, 50_000)


# By name

TCP4, TCP6 = Flow(tcp_options=TIMESTAMPS), Flow(is_v6=True, tcp_options=TIMESTAMPS)
UDP4, UDP6 = Flow(protocol=UDP), Flow(is_v6=True, protocol=UDP)


def train(flow: Flow, count: int, size: int = 100, last: int = 0, step: int = 1, first: int = 0) -> list[bytes]:
    """`count` frames that can be joined, the last one with these flags besides ACK."""
    frames = []
    for place in range(first, first + count):
        flags = ACK | last if place == first + count - 1 else ACK
        frames.append(flow.frame(bytes([place % 256]) * size, 1000 + place * size, 7 + place * step, flags))
    return frames


def counts(frames: list[bytes], udp: bool = True) -> list[int]:
    """How many frames stand in each that is written."""
    check(frames, udp)
    return [len(cut(frame, offload)) for offload, frame in coalesce(frames, udp)]


@pytest.mark.parametrize("flow", [TCP4, TCP6, UDP4, UDP6, replace(TCP4, tags=((0x88A8, 3), (0x8100, 4)))], ids=str)
def test_a_train_becomes_one_super_frame(flow: Flow) -> None:
    frames = train(flow, 10)
    layers = flow.layers()
    ((offload, frame),) = coalesce(frames)
    kind = 5 if flow.protocol == UDP else 4 if flow.is_v6 else 1
    assert offload == (1, kind, layers.payload, 100, layers.transport, 6 if flow.protocol == UDP else 16)
    assert (len(frame), naive.ones_sum(layers.pseudo_header(frame))) == (
        layers.payload + 1000, number(frame, layers.checksum_at())
    )  # fmt: skip
    assert cut(frame, offload) == frames


def test_no_frames_give_none_and_one_stays_as_it_is() -> None:
    assert coalesce([]) == []
    for frame in (ARP, Flow().frame(b"payload")):
        assert coalesce([frame]) == [(PLAIN, frame)]


def test_push_ends_a_super_frame_and_stays_in_it() -> None:
    frames = [*train(TCP4, 3, last=PSH), *train(TCP4, 2, first=3)]
    assert counts(frames) == [3, 2]
    assert coalesce(frames)[0][1][47] == ACK | PSH
    assert counts(train(TCP4, 3, last=PSH)[2:] + train(TCP4, 2, first=3)) == [1, 2]


def test_a_shorter_frame_ends_a_super_frame_and_a_longer_one_begins_another() -> None:
    short = TCP4.frame(bytes(99), 1300, 10)
    after = [TCP4.frame(bytes(100), 1399 + 100 * place, 11 + place) for place in range(2)]
    assert counts([*train(TCP4, 3), short, *after]) == [4, 2]
    assert counts([*train(TCP4, 3), TCP4.frame(bytes(101), 1300, 10)]) == [3, 1]


@pytest.mark.parametrize("flags", [FIN, SYN, RST, CWR, URG, FIN | PSH, CWR | ECE])
def test_other_flags_stay_alone(flags: int) -> None:
    assert counts([*train(TCP4, 3, last=flags), *train(TCP4, 2, first=3)]) == [2, 1, 2]


def test_echoed_congestion_is_joined_with_its_like() -> None:
    echoing = [TCP4.frame(bytes(100), 1000 + 100 * place, 7 + place, ACK | ECE) for place in range(3)]
    assert counts(echoing) == [3]
    assert counts([*echoing[:2], *train(TCP4, 2, first=2)]) == [2, 2]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("flow", [TCP4, TCP6, UDP4, UDP6], ids=["TCP4", "TCP6", "UDP4", "UDP6"])
def test_another_header_begins_a_new_super_frame(flow: Flow, change: dict[str, object]) -> None:
    other = replace(flow, **change)  # type: ignore[arg-type]
    frames = train(flow, 2) + train(other, 2, first=2)
    is_same = frames[2:] == train(flow, 2, first=2)  # a TCP option, say, is nothing to UDP
    assert counts(frames) == ([4] if is_same else [2, 2])


def test_ids_go_up_by_one_or_stay_where_df_is_set() -> None:
    df = replace(TCP4, has_df=True)
    assert counts(train(TCP4, 5)) == counts(train(df, 5)) == counts(train(df, 5, step=0)) == [5]
    assert counts(train(TCP4, 3, step=0)) == [1, 1, 1]
    assert counts(train(df, 3, step=2)) == counts(train(df, 3, step=-1)) == [1, 1, 1]
    assert counts([*train(df, 3), *train(df, 2, step=0, first=3)]) == [3, 2]


def test_sequence_numbers_and_ids_wrap() -> None:
    frames = [TCP4.frame(bytes(100), (1 << 32) - 150 + 100 * place, 65534 + place) for place in range(5)]
    assert counts(frames) == [5]
    assert apart(coalesce(frames)) == frames


def test_what_came_twice_or_out_of_order_is_not_joined() -> None:
    a, b, c, d = train(TCP4, 4)
    assert counts([a, b, b, c, d]) == [2, 3]
    assert counts([a, c, b, d]) == [1, 1, 1, 1]
    assert apart(coalesce([a, b, a, b])) == [a, b, a, b]


def test_empty_segments_go_out_in_their_place() -> None:
    frames = [*train(TCP4, 2), TCP4.frame(b"", 1200, 9), *train(TCP4, 2, first=3)]
    assert counts(frames) == [2, 1, 2]


@pytest.mark.parametrize("flow", [TCP4, TCP6, UDP4, UDP6], ids=["TCP4", "TCP6", "UDP4", "UDP6"])
@pytest.mark.parametrize("place", range(4))
def test_a_wrong_checksum_passes_unchanged(flow: Flow, place: int) -> None:
    frames = train(flow, 4)
    damaged = bytearray(frames[place])
    damaged[-1] ^= 1
    frames[place] = bytes(damaged)
    assert counts(frames) == [[1, 3], [1, 1, 2], [2, 1, 1], [3, 1]][place]
    assert (PLAIN, bytes(damaged)) in coalesce(frames)


def test_a_wrong_header_checksum_passes_unchanged() -> None:
    frames = train(TCP4, 4)
    damaged = bytearray(frames[1])
    damaged[24] ^= 1
    assert counts([frames[0], bytes(damaged), *frames[2:]]) == [1, 1, 2]


def test_padding_is_kept() -> None:
    frames = train(TCP4, 4, size=2)
    frames[1] += bytes(4)
    assert counts(frames) == [1, 1, 2]


def test_datagrams_without_checksum_or_of_another_length_are_not_joined() -> None:
    a, b, c, d = train(UDP4, 4)
    bare, other = bytearray(b), bytearray(b)
    put(bare, 40, 0)
    put(other, 38, number(other, 38) - 1)
    naive.write_checksum(other, UDP4.layers())
    assert counts([a, bytes(bare), c, d]) == counts([a, bytes(other), c, d]) == [1, 1, 2]


@pytest.mark.parametrize("flow", [UDP4, UDP6], ids=["UDP4", "UDP6"])
def test_datagrams_of_one_byte_are_joined_and_nothing_behind_them_is_read(flow: Flow) -> None:
    """`make asan` sees the reading: where TCP has its flags a datagram this small is over already."""
    assert counts(train(flow, 3, size=1)) == [3]


def test_udp_is_joined_only_where_the_kernel_takes_it() -> None:
    assert counts(train(UDP4, 4), udp=False) == counts(train(UDP6, 4), udp=False) == [1, 1, 1, 1]
    assert counts(train(TCP4, 4), udp=False) == [4]


def test_at_most_64_frames_and_65535_bytes_are_joined() -> None:
    assert counts(train(TCP4, 130)) == [64, 64, 2]
    assert counts(train(UDP6, 65)) == [64, 1]
    for flow in (Flow(), Flow(is_v6=True, tags=((0x8100, 1),))):
        headers = flow.layers().payload - flow.layers().network
        fits = (65535 - headers) // 10
        assert counts(train(flow, 12, size=fits)) == [10, 2]
        assert counts(train(flow, 12, size=fits + 1)) == [9, 3]
        rest = 65535 - headers - 10 * 6000
        frames = train(flow, 10, size=6000)
        for size, expected in ((rest, [11]), (rest + 1, [10, 1])):
            assert counts([*frames, flow.frame(bytes(size), 61000, 17)]) == expected


def test_what_is_no_tcp_or_udp_waits_for_all_that_came_before() -> None:
    a, b = train(TCP4, 4), train(UDP6, 4)
    frames = [a[0], b[0], a[1], b[1], ARP, a[2], b[2], a[3], b[3]]
    assert [frame for _, frame in coalesce(frames)][2] == ARP
    assert counts(frames) == [2, 2, 1, 2, 2]


def test_fragments_wait_for_all_that_came_before() -> None:
    fragment = bytearray(train(UDP4, 1)[0])
    fragment[20] = 0x20
    assert counts([*train(TCP4, 2), bytes(fragment), *train(TCP4, 2, first=2)]) == [2, 1, 2]


@pytest.mark.parametrize("flows", [8, 9])
def test_eight_flows_are_held_and_the_oldest_leaves_for_a_ninth(flows: int) -> None:
    trains = [train(replace(TCP4, host=10 + number), 3) for number in range(flows)]
    frames = [one[place] for place in range(3) for one in trains]
    assert counts(frames) == ([3] * 8 if flows == 8 else [1] * 27)
    frames = [one[0] for one in trains] + [frame for one in reversed(trains) for frame in one[1:]]
    assert counts(frames) == ([3] * 8 if flows == 8 else [1, *[3] * 8, 2])


def test_flows_leave_in_the_order_in_which_they_began() -> None:
    trains = [train(replace(TCP4, host=10 + number), 2) for number in range(8)]
    frames = [one[0] for one in trains] + [one[1] for one in reversed(trains)]
    assert [frame[29] for _, frame in coalesce(frames)] == list(range(10, 18))


# Any bytes

FRAMES = [*train(TCP4, 3), *train(UDP6, 3), *train(replace(UDP4, tags=((0x8100, 3),)), 2), ARP]
CHANGED = st.tuples(st.sampled_from(FRAMES), st.integers(0, 60), st.binary(max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + len(drawn[2]) :]
)
CUT_OFF = st.tuples(st.sampled_from(FRAMES), st.integers(0, 200)).map(lambda drawn: drawn[0][: drawn[1]])


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(FRAMES) | CHANGED | CUT_OFF | st.binary(max_size=100), max_size=12), st.booleans())
def test_any_bytes_come_out_again(frames: list[bytes], udp: bool) -> None:
    check(frames, udp)

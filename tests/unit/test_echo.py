# SPDX-License-Identifier: GPL-3.0-or-later
"""The echo meter: a ping is measured by the reply that was waited for, and by nothing else."""

from __future__ import annotations

import random

import pytest

from cloudvpn._fast.echo import EchoMeter

WAITING = 16  # requests whose replies may still come
NOW = 1_000_000
KEEPALIVE = 5_000_000


def test_a_new_meter_has_no_ping_and_lives_since_it_was_made() -> None:
    meter = EchoMeter(NOW, 0)
    assert (meter.ping, meter.last_reply, meter.unasked) == (0, NOW, 0)


@pytest.mark.parametrize(("taken", "ping"), [(0, 1), (1, 1), (2, 2), (123_456, 123_456), (0xFFFFFFFE, 0xFFFFFFFE),
                                             (0xFFFFFFFF, 0xFFFFFFFF), (1 << 32, 0xFFFFFFFF), (-1, 1)])  # fmt: skip
def test_a_reply_measures_the_ping_which_is_never_0_and_never_wraps(taken: int, ping: int) -> None:
    meter = EchoMeter(NOW, 200)
    assert meter.answer(meter.ask(NOW, KEEPALIVE), NOW + taken)
    assert (meter.ping, meter.last_reply) == (ping, NOW + taken)


def test_the_smoothed_ping_is_the_mean_of_three_and_then_moves_by_016() -> None:
    meter = EchoMeter(NOW, 0)
    smoothed = []
    for taken in (1000, 2000, 4000, 1000, 100_000, 2):
        assert meter.answer(meter.ask(NOW, KEEPALIVE), NOW + taken)
        assert meter.ping == taken
        smoothed.append(meter.smoothed)
    assert smoothed == [1000, 1500, 2333, 2120, 17_781, 14_936]


@pytest.mark.parametrize("taken", [0, 1, 0xFFFFFFFF, 1 << 40])
def test_the_smoothed_ping_stays_within_its_borders(taken: int) -> None:
    meter = EchoMeter(NOW, 0)
    for _ in range(50):
        meter.answer(meter.ask(NOW, KEEPALIVE), NOW + taken)
    assert meter.smoothed == meter.ping == min(max(taken, 1), 0xFFFFFFFF)


def test_a_reply_that_is_not_waited_for_does_not_move_the_smoothed_ping() -> None:
    meter = EchoMeter(NOW, 0)
    meter.answer(meter.ask(NOW, KEEPALIVE), NOW + 10)
    assert not meter.answer(7, NOW + 500) and meter.smoothed == 10


def test_ids_count_up_from_the_first_and_wrap() -> None:
    meter = EchoMeter(NOW, 254)
    assert [meter.ask(NOW, KEEPALIVE) for _ in range(4)] == [254, 255, 0, 1]


def test_a_reply_counts_once() -> None:
    meter = EchoMeter(NOW, 9)
    echo_id = meter.ask(NOW, KEEPALIVE)
    assert meter.answer(echo_id, NOW + 10)
    assert not meter.answer(echo_id, NOW + 20)
    assert (meter.ping, meter.last_reply, meter.unasked) == (10, NOW + 10, 1)


def test_no_reply_with_another_id_is_a_sign_of_life() -> None:
    meter = EchoMeter(NOW, 77)
    echo_id = meter.ask(NOW, KEEPALIVE)
    for wrong in set(range(256)) - {echo_id}:
        assert not meter.answer(wrong, NOW + 1)
    assert (meter.ping, meter.last_reply, meter.unasked) == (0, NOW, 255)
    assert meter.answer(echo_id, NOW + 2)


def test_no_reply_counts_before_any_request() -> None:
    for first_id in (0, 255):
        meter = EchoMeter(NOW, first_id)
        assert not any(meter.answer(echo_id, NOW + 1) for echo_id in range(256))


@pytest.mark.parametrize("later", [WAITING - 1, WAITING, WAITING + 1])
def test_the_last_sixteen_requests_are_waited_for(later: int) -> None:
    meter = EchoMeter(NOW, 250)
    first = meter.ask(NOW, KEEPALIVE)
    for number in range(1, later + 1):
        meter.ask(NOW + number, KEEPALIVE)
    assert meter.answer(first, NOW + 100) == (later < WAITING)


def test_replies_may_come_in_any_order() -> None:
    chance = random.Random(3)
    for _ in range(200):
        meter = EchoMeter(NOW, chance.randrange(256))
        asked = [(meter.ask(NOW + 10 * number, KEEPALIVE), NOW + 10 * number) for number in range(WAITING)]
        chance.shuffle(asked)
        for number, (echo_id, sent) in enumerate(asked):
            assert meter.answer(echo_id, NOW + 1000 + number)
            assert meter.ping == NOW + 1000 + number - sent
        assert meter.unasked == 0

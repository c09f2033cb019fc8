# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of multipath, bridging and broadcasts reach the switch, at the start and by a reload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudvpn.daemon import build_switch, set_policy
from cloudvpn.options import Config
from tests.sim.mesh import EVERYBODY, frame

OFF = {"multi_ratio": 0, "promisc": False, "ignore_macs": False, "broadcast_send": False, "broadcast_nocopy": False,
       "broadcast_limit": 10000}
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"multipath": True}, {"multi_ratio": 2}),
    ({"multipath": True, "multi_ratio": 7}, {"multi_ratio": 7}),
    ({"multi_ratio": 7}, {}),
    ({"promisc": True}, {"promisc": True}),
    ({"ignore_macs": True}, {"ignore_macs": True}),
    ({"broadcast_send": True}, {"broadcast_send": True}),
    ({"bridge_mode": True}, {"promisc": True, "ignore_macs": True, "broadcast_send": True}),
    ({"broadcast_nocopy": True}, {"broadcast_nocopy": True}),
    ({"broadcast_limit": 5}, {"broadcast_limit": 5}),
]


@pytest.mark.parametrize("live", [False, True], ids=["at the start", "by a reload"])
@pytest.mark.parametrize(("options", "expected"), CASES, ids=lambda case: " ".join(case))
def test_the_options_set_what_the_switch_does(options: dict[str, Any], expected: dict[str, Any], live: bool) -> None:
    config = replace(Config(), **options)
    switch = build_switch(replace(Config(), bridge_mode=True, multipath=True) if live else config)
    if live:
        set_policy(switch, config)
    assert {name: getattr(switch, name) for name in OFF} == OFF | expected


def test_the_filter_reaches_the_switch() -> None:
    switch = build_switch(replace(Config(), broadcast_filter_allow=(0x0806,)))
    switch.send_from_tap(frame(EVERYBODY, 2, b""))
    assert switch.dropped()["filtered"] == 1
    set_policy(switch, Config())
    switch.send_from_tap(frame(EVERYBODY, 2, b""))
    assert (switch.dropped()["filtered"], switch.dropped()["nowhere"]) == (1, 1)


def test_a_ratio_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="ratio of 1"):
        build_switch(Config()).set_policy(multi_ratio=1)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The MAC that an interface gets where the configuration names none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cloudvpn import tap
from cloudvpn.tap import stable_mac

KEYS, NAMES, MACHINES = (b"one key", b"another"), ("tap0", "tap1"), (b"here\n", b"there\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tap, "MACHINE_ID", tmp_path / "machine-id")
    return tmp_path / "machine-id"


def test_it_is_the_same_each_time_and_differs_by_key_name_and_machine(machine: Path) -> None:
    found = set()
    for word in MACHINES:
        machine.write_bytes(word)
        for key, name in itertools.product(KEYS, NAMES):
            assert stable_mac(key, name) == stable_mac(key, name)
            found.add(stable_mac(key, name))
    assert len(found) == 8


def test_it_is_locally_administered_and_no_group(machine: Path) -> None:
    macs = [stable_mac(bytes([number]), "tap0") for number in range(256)]
    assert all(len(mac) == 6 and mac[0] & 3 == 2 for mac in macs)
    assert len({mac[0] for mac in macs}) > 32, "the other bits are drawn"


def test_a_machine_without_a_name_of_its_own_does(machine: Path) -> None:
    assert not machine.exists() and stable_mac(b"key", "tap0") == stable_mac(b"key", "tap0")

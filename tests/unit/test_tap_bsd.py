# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP of BSD against a kernel and an ifconfig of our own: the real ones are not here."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import subprocess
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from cloudvpn import tap_bsd
from cloudvpn.errors import SetupError
from cloudvpn.options import Config
from cloudvpn.tap import TapState
from cloudvpn.tap_bsd import SIOCGIFFLAGS, SIOCGIFMTU, CharacterTap

IFCONFIG = """\
tap0: flags=8943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST> metric 0 mtu 1500
	options=80000<LINKSTATE>
	ether 58:9c:fc:10:ff:a1
	media: Ethernet autoselect
"""
CONFIG = Config(
    iface_device="tap0", mac=bytes.fromhex("02005e100001"), iface_mtu=1300,
    iface_address=(ip_interface("10.9.0.1/24"), ip_interface("fd09::1/64")), iface_up_command="ifup",
)  # fmt: skip


class System:
    """What the TAP asks of the system; `gone` when the interface was destroyed."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.said = IFCONFIG
        self.refuses = ""
        self.gone = False
        self.flags = 1

    def run(self, command: list[str] | str, **_: Any) -> subprocess.CompletedProcess[str]:
        words = command if isinstance(command, str) else " ".join(command)
        self.commands.append(words)
        if self.refuses and self.refuses in words:
            raise subprocess.CalledProcessError(1, command, stderr="ifconfig: not permitted\n")
        return subprocess.CompletedProcess(command, 0, self.said, "")

    def ioctl(self, _: object, request: int, argument: bytes) -> bytes:
        assert argument == b"tap0".ljust(32, b"\0")
        if self.gone:
            raise OSError(errno.ENXIO, "gone")
        value = {SIOCGIFFLAGS: struct.pack("=H", self.flags), SIOCGIFMTU: struct.pack("=i", 1500)}[request]
        return argument[:16] + value.ljust(16, b"\0")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    system = System()
    (tmp_path / "tap0").touch()
    monkeypatch.setattr(tap_bsd, "DEVICES", tmp_path)
    monkeypatch.setattr(subprocess, "run", system.run)
    monkeypatch.setattr(fcntl, "ioctl", system.ioctl)
    monkeypatch.setattr(logging.getLogger("cloudvpn"), "propagate", True)
    return system


def test_the_device_is_opened_and_set_up_by_ifconfig_and_the_log_says_that_it_is_untried(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    tap = CharacterTap.open(CONFIG)
    assert os.get_blocking(tap.fd) is False and tap.offloads == 0 and not tap.has_udp_offload
    assert "interface tap0: cloudvpn was never tried with the TAP devices of BSD and macOS" in caplog.text
    tap.set_up(CONFIG.mac)
    assert [one for one in system.commands if one != "ifconfig tap0"] == [
        "ifconfig tap0 ether 02:00:5e:10:00:01",
        "ifconfig tap0 mtu 1300",
        "ifconfig tap0 inet 10.9.0.1/24 alias",
        "ifconfig tap0 inet6 fd09::1/64 alias",
        "ifconfig tap0 up",
        "ifup",
    ]
    tap.keep()
    tap.close()
    with pytest.raises(OSError):
        os.fstat(tap.fd)


def test_looks_follow_the_flags_and_ask_ifconfig_once(system: System) -> None:
    tap = CharacterTap.open(CONFIG)
    assert tap.look() == TapState("tap0", 0x589CFC10FFA1, True, 1500)
    system.flags = 0
    assert tap.look() == TapState("tap0", 0x589CFC10FFA1, False, 1500)
    assert system.commands == ["ifconfig tap0"]
    system.gone = True
    assert tap.look() is None
    tap.close()


@pytest.mark.parametrize("word", ["ether", "lladdr", "address:"])
def test_the_mac_is_found_in_the_words_of_every_bsd(system: System, word: str) -> None:
    system.said = IFCONFIG.replace("ether", word)
    tap = CharacterTap.open(CONFIG)
    state = tap.look()
    assert state is not None and state.mac == 0x589CFC10FFA1
    tap.close()


def test_what_fails_is_named(system: System) -> None:
    with pytest.raises(SetupError, match=r"^opening TAP .*/tap9: No such file or directory: is a tap driver loaded"):
        CharacterTap.open(CONFIG, "tap9")
    tap = CharacterTap.open(CONFIG)
    system.refuses = "mtu"
    with pytest.raises(SetupError, match=r"^`ifconfig tap0 mtu 1300`: ifconfig: not permitted$"):
        tap.set_up(CONFIG.mac)
    tap.close()

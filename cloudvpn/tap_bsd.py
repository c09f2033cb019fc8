# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP of BSD and macOS: a character device. Written from tap(4) and ifconfig(8), and never tried there.

The interface has the name of its device; opening the device makes it, what sets it up is ifconfig.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Final

from cloudvpn.errors import SetupError
from cloudvpn.options import Config
from cloudvpn.tap import COMMAND_SECONDS, IFF_UP, Tap, TapState

log = logging.getLogger("cloudvpn")

DEVICES: Final = Path("/dev")
# sys/sockio.h; a struct ifreq has 32 bytes, 16 of them the name.
SIOCGIFFLAGS: Final = 0xC0206911
SIOCGIFMTU: Final = 0xC0206933
IFREQ_BYTES: Final = 32


class CharacterTap(Tap):
    """Closing it takes the interface down; whether it stays is up to the system."""

    @classmethod
    def open(cls, config: Config, name: str | None = None) -> CharacterTap:
        path = DEVICES / (name or config.iface_device)
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError as error:
            raise SetupError(f"opening TAP {path}: {error.strerror}: is a tap driver loaded, is this root?") from error
        log.warning("interface %s: cloudvpn was never tried with the TAP devices of BSD and macOS", path.name)
        return cls(config, fd, path.name)

    def __init__(self, config: Config, fd: int, name: str, offloads: int = 0) -> None:
        super().__init__(config, fd, name, offloads)
        self.mac: int | None = None

    def set_up(self, mac: bytes | None) -> None:
        config = self.config
        if mac is not None:
            self.configure("ether", mac.hex(":"))
        if config.iface_mtu is not None:
            self.configure("mtu", config.iface_mtu)
        self.set_addresses()
        self.configure("up")
        self.run_command("iface_up_command", config.iface_up_command)

    def set_addresses(self) -> None:
        for address in self.config.iface_address:
            self.configure("inet" if address.version == 4 else "inet6", address, "alias")

    def configure(self, *words: object) -> str:
        """Runs ifconfig on the interface; what it says. Raises SetupError."""
        command = ["ifconfig", self.name, *map(str, words)]
        try:
            return subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
            raise SetupError(f"`{' '.join(command)}`: {said}") from error

    def keep(self) -> None:
        log.info("iface_persist: on this system an interface stays until `ifconfig %s destroy`", self.name)

    def look(self) -> TapState | None:
        """Of its MAC only the first look asks: ifconfig is too slow for every heartbeat."""
        named = self.name.encode().ljust(IFREQ_BYTES, b"\0")
        try:
            flags = fcntl.ioctl(self.any_socket, SIOCGIFFLAGS, named)
            mtu = fcntl.ioctl(self.any_socket, SIOCGIFMTU, named)
            if self.mac is None:
                found = re.search(r"^\s*(?:ether|address:?|lladdr) ([0-9a-f:]{17})$", self.configure(), re.MULTILINE)
                self.mac = int(found[1].replace(":", ""), 16) if found else None
        except (OSError, SetupError):
            return None
        if self.mac is None:
            return None
        is_up = bool(struct.unpack_from("=H", flags, 16)[0] & IFF_UP)
        return TapState(self.name, self.mac, is_up, struct.unpack_from("=i", mtu, 16)[0])

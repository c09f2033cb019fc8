# SPDX-License-Identifier: GPL-3.0-or-later
"""The local interface: what a TAP has to do for us, and the one of Linux, which python-pytun opens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import struct
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from cloudvpn.errors import SetupError
from cloudvpn.options import Config

if sys.platform == "linux":
    import pytun

log = logging.getLogger("cloudvpn")

# linux/if_tun.h, linux/sockios.h: the TAP's own descriptor answers both, so a renamed interface is still found.
TUNGETIFF = 0x800454D2
TUNSETPERSIST = 0x400454CB
TUNSETOFFLOAD = 0x400454D0
SIOCGIFHWADDR = 0x8927
SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
IFF_VNET_HDR = 0x4000
IFF_UP = 1
# The largest super-frame that this host's own TCP may make. Packed for a link it still fits one super-segment of that
# link's TCP, 44 x 1,460 bytes or 45 x 1,428; any larger, and each would leave as a full one and a tiny one.
SUPER_FRAME_BYTES = 64200
IFREQ_BYTES = 40
COMMAND_SECONDS = 60
NETLINK_DESCRIPTORS = 8  # that pyroute2 opens at most: where it finds none, it leaves half an event loop behind
MACHINE_ID = Path("/etc/machine-id")

TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
TCP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
# What to ask the kernel for, the most first. Linux grants the two of UDP together or not at all, from 6.2 on.
OFFLOADS = (
    TCP_OFFLOADS | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    TCP_OFFLOADS | TUN_F_TSO_ECN,
    TCP_OFFLOADS,
    TUN_F_CSUM,
)


@dataclass(frozen=True)
class TapState:
    """What a look at the interface found."""

    name: str
    mac: int
    is_up: bool
    mtu: int    # bytes, without the Ethernet header


def format_mac(mac: int) -> str:
    return ":".join(f"{byte:02x}" for byte in mac.to_bytes(6, "big"))


def stable_mac(public_key: bytes, name: str) -> bytes:
    """A MAC for the interface `name` of this node, the same at each start: locally administered, no group.

    The machine has a part in it, because a key that was copied with all of its configuration must not bring one MAC to
    two places.
    """
    try:
        machine = MACHINE_ID.read_bytes()
    except OSError:
        machine = b""
    digest = hashlib.sha256(b"\0".join((machine, os.fsencode(name), public_key))).digest()
    return bytes((digest[0] & 0xFC | 0x02, *digest[1:6]))


class Tap(ABC):
    """An open TAP. Its methods raise SetupError; once it is set up, only set_addresses() needs rights."""

    is_new = True       # nobody else made the interface before

    def __init__(self, config: Config, fd: int, name: str, offloads: int = 0) -> None:
        """Takes the descriptor over. `offloads`: TUN_F_* flags; 0: frames have no offload header."""
        self.config = config
        self.fd = fd
        self.name = name
        self.offloads = offloads
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)
        # The kernel answers for an interface's flags on any socket; look() asks at each heartbeat.
        try:
            self.any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except BaseException:
            os.close(fd)
            raise

    @property
    def has_udp_offload(self) -> bool:
        return bool(self.offloads & TUN_F_USO4)

    @classmethod
    @abstractmethod
    def open(cls, config: Config, name: str | None = None) -> Tap:
        """Opens the interface that the configuration names, or `name`."""

    @abstractmethod
    def set_up(self, mac: bytes | None) -> None:
        """MAC (None: as it is), MTU, addresses, up, then the user's command."""

    @abstractmethod
    def set_addresses(self) -> None:
        """Sets those that the configuration names and that are not there."""

    @abstractmethod
    def keep(self) -> None:
        """From now on the interface outlives its descriptor."""

    @abstractmethod
    def look(self) -> TapState | None:
        """The interface as it is now, or None if it was deleted."""

    def run_command(self, option: str, command: str | None) -> None:
        """Runs a command of the user's; it must succeed within a minute."""
        if command is None:
            return
        state = self.look()
        environment = dict(os.environ, IFACE=self.name, MAC=format_mac(state.mac) if state else "")
        try:
            subprocess.run(
                command, shell=True, check=True, env=environment, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SetupError(f"{self.config.place(option, command)}: {error}") from error

    def close(self) -> None:
        self.any_socket.close()
        os.close(self.fd)


class LinuxTap(Tap):
    """Closing it removes the interface, unless it is persistent."""

    def __init__(self, config: Config, fd: int, name: str = "", offloads: int = 0) -> None:
        super().__init__(config, fd, name, offloads)
        self.look()

    @classmethod
    def open(cls, config: Config, name: str | None = None) -> LinuxTap:
        wanted = name or config.iface_dev or ""
        is_new = not exists(wanted)
        try:
            device, offloads = open_device(wanted, str(config.tunctl), config.iface_offload)
            try:
                tap = cls(config, os.dup(device.fileno()), wanted, offloads)
            finally:
                device.close()
        except (OSError, pytun.Error) as error:
            raise SetupError(opening_failed(wanted, str(config.tunctl), error)) from error
        tap.is_new = is_new
        return tap

    def set_up(self, mac: bytes | None) -> None:
        config = self.config
        hardware: dict[str, object] = {}
        if mac is not None:
            hardware["address"] = mac.hex(":")
        if config.iface_mtu is not None:
            hardware["mtu"] = config.iface_mtu
        try:
            if hardware:
                self.ask_netlink(lambda netlink, index: netlink.link("set", index=index, **hardware))
            if self.offloads:
                self.limit_super_frames()
            self.set_addresses()
            self.ask_netlink(lambda netlink, index: netlink.link("set", index=index, state="up"))
        except SetupError:
            raise
        except Exception as error:  # as in add_addresses()
            raise SetupError(f"setting up interface {self.name}: {error}") from error
        self.run_command("iface_up_command", config.iface_up_command)

    def limit_super_frames(self) -> None:
        try:
            self.ask_netlink(lambda netlink, index: netlink.link("set", index=index, gso_max_size=SUPER_FRAME_BYTES))
        except Exception as error:  # as in add_addresses(); a kernel that cannot do it is only slower
            log.debug("gso_max_size of %s: %s", self.name, error)

    def set_addresses(self) -> None:
        if not self.config.iface_address:
            return
        try:
            self.ask_netlink(self.add_addresses)
        except SetupError:
            raise
        except Exception as error:  # as in add_addresses(), or no descriptor or thread is left
            raise SetupError(f"addresses of interface {self.name}: {error}") from error

    def ask_netlink(self, ask: Callable[[IPRoute, int], object]) -> None:
        """Calls `ask` with a netlink socket and the index of the interface."""

        def run() -> None:
            require_descriptors(NETLINK_DESCRIPTORS)
            with IPRoute() as netlink:
                ask(netlink, socket.if_nametoindex(self.name))

        # pyroute2 runs an event loop of its own, which cannot be where another one runs already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(run).result()

    def add_addresses(self, netlink: IPRoute, index: int) -> None:
        for address in self.config.iface_address:
            try:
                netlink.addr("replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            except Exception as error:  # pyroute2 has its own family of errors, not all are OSError
                place = self.config.place("iface_address", address)
                raise SetupError(f"{place}: {address} on {self.name}: {error}") from error

    def keep(self) -> None:
        fcntl.ioctl(self.fd, TUNSETPERSIST, 1)

    def look(self) -> TapState | None:
        try:
            request = fcntl.ioctl(self.fd, TUNGETIFF, bytes(IFREQ_BYTES))
            hardware = fcntl.ioctl(self.fd, SIOCGIFHWADDR, bytes(IFREQ_BYTES))
            named = request[:16] + bytes(IFREQ_BYTES - 16)
            flags = fcntl.ioctl(self.any_socket, SIOCGIFFLAGS, named)
            mtu = fcntl.ioctl(self.any_socket, SIOCGIFMTU, named)
        except OSError:
            return None
        self.name = os.fsdecode(request[:16].rstrip(b"\0"))
        return TapState(
            name=self.name,
            mac=int.from_bytes(hardware[18:24], "big"),
            is_up=bool(struct.unpack_from("=H", flags, 16)[0] & IFF_UP),
            mtu=struct.unpack_from("=i", mtu, 16)[0],
        )


def require_descriptors(count: int) -> None:
    """Raises OSError if so many cannot be opened now."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def open_device(name: str, control: str, with_offloads: bool) -> tuple[pytun.TunTapDevice, int]:
    """A TAP with all the offloads that the kernel grants, and which: TUN_F_* flags; 0: it has no offload headers."""
    plain = pytun.IFF_TAP | pytun.IFF_NO_PI
    if with_offloads:
        try:
            device = pytun.TunTapDevice(name=name, flags=plain | IFF_VNET_HDR, dev=control)
        except (OSError, pytun.Error) as error:
            if number_of(error) != errno.EINVAL:
                raise
        else:
            for offloads in OFFLOADS:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(device.fileno(), TUNSETOFFLOAD, offloads)
                    return device, offloads
            device.close()
    device = pytun.TunTapDevice(name=name, flags=plain, dev=control)
    # A persistent interface keeps what the last program asked for, and would hand super-frames to one that cannot cut.
    fcntl.ioctl(device.fileno(), TUNSETOFFLOAD, 0)
    return device, 0


def offload_kinds(granted: int) -> tuple[str, ...]:
    return tuple(kind for flag, kind in ((TUN_F_TSO4, "TCP"), (TUN_F_USO4, "UDP")) if granted & flag)


def describe_offloads(kinds: Sequence[str]) -> str:
    return f"offloads for {' and '.join(kinds)}" if kinds else "no offloads"


def number_of(error: Exception) -> int | None:
    """The errno: python-pytun's errors have it among their arguments."""
    return getattr(error, "errno", None) or next((part for part in error.args if isinstance(part, int)), None)


def opening_failed(name: str, control: str, error: Exception) -> str:
    """What the kernel's answer means and what to do about it."""
    number = number_of(error)
    what = f"opening TAP {name or '(any name)'} through {control}"
    if number in (errno.EPERM, errno.EACCES):
        return f"{what}: no permission: start as root or with CAP_NET_ADMIN"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{what}: the device is missing: load the kernel module with `modprobe tun`"
    if number == errno.EBUSY:
        return f"{what}: another program uses this interface"
    if number == errno.EINVAL:
        return f"{what}: an interface of that name exists and is no TAP, or the name is not valid"
    return f"{what}: {error}"


def exists(name: str) -> bool:
    """Whether an interface of this name exists."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True

# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's interface over its life: taken into use, followed when it changes, missed when it is deleted."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

from cloudvpn._fast.switch import Switch
from cloudvpn._fast.tapport import TapPort
from cloudvpn.errors import SetupError
from cloudvpn.monitor import Monitor
from cloudvpn.options import ETHERNET_HEADER, Config
from cloudvpn.system_tap import SystemTap
from cloudvpn.tap import Tap, TapState, describe_offloads, exists, format_mac, offload_kinds, stable_mac

log = logging.getLogger("cloudvpn")


class Interface:
    """Connects the TAP to the switch. `look()` runs once a heartbeat: the kernel tells us of no change."""

    def __init__(
        self, config: Config, switch: Switch, loop: asyncio.AbstractEventLoop, public_key: bytes
    ) -> None:
        """The node's public key gives the interface its MAC where the configuration has none."""
        self.config = config
        self.public_key = public_key
        self.mac = config.mac
        self.switch = switch
        self.port = TapPort(loop, switch, self.lost)
        self.device: Tap | None = None
        self.state: TapState | None = None
        self.name = config.iface_dev or "tap%d"
        self.complaint: str | None = None       # what was said about coming back, or about addresses
        self.lacks_addresses = False
        self.monitor: Monitor | None = None     # has the rights that we gave up

    def trust_monitor(self, monitor: Monitor) -> None:
        """From now on what needs rights is for the monitor to do."""
        self.monitor = monitor
        if self.device is not None:
            monitor.watch(self.device)

    def make(self, name: str | None) -> Tap:
        """Opens and sets up the TAP."""
        device = SystemTap.open(self.config, name)
        if self.mac is None and device.is_new:      # one that was there before keeps its own
            self.mac = stable_mac(self.public_key, device.name)
        try:
            device.set_up(self.mac)
        except BaseException:
            device.close()
            raise
        return device

    def open(self, name: str | None = None) -> None:
        """Opens and sets up the TAP and gives it to the switch. Raises SetupError and leaves nothing behind."""
        device = self.monitor.open_tap(self.config, self.mac) if self.monitor else self.make(name)
        try:
            state = device.look()
            if state is None:
                raise SetupError(f"interface {device.name} was deleted while it was set up")
        except BaseException:
            device.close()
            raise
        self.device = device
        self.use(state)
        self.port.open(device.fd, bool(device.offloads), device.has_udp_offload)
        log.info("interface %s, MAC %s, %s%s", state.name, format_mac(state.mac),
                 describe_offloads(offload_kinds(device.offloads)), "" if state.is_up else ", down")

    def keep(self) -> None:
        """Obeys `iface_persist`, once nothing can fail any more."""
        if self.device is not None and self.config.iface_persist:
            self.device.keep()

    def use(self, state: TapState) -> None:
        if self.state is None or state.mtu != self.state.mtu:
            self.check_mtu(state)
        self.state = state
        self.name = state.name
        self.switch.set_tap(self.port, state.mac)

    def check_mtu(self, state: TapState) -> None:
        most = self.config.conn_mtu - ETHERNET_HEADER
        if state.mtu > most and state.mtu != self.config.iface_mtu:     # of that one the configuration's reader warns
            log.warning(
                "interface %s: its MTU %d allows frames that are larger than conn-mtu %d and are dropped: "
                "set its MTU to %d or less (iface_mtu), or conn-mtu to %d", state.name, state.mtu, self.config.conn_mtu,
                most, state.mtu + ETHERNET_HEADER,
            )

    def lost(self, number: int) -> None:
        """The descriptor is dead: the interface was deleted. Links stay up, its MAC is withdrawn."""
        log.warning(
            "interface %s is gone (%s): links stay up; it is used again as soon as an interface of that name is made, "
            "for example with `ip tuntap add %s mode tap`", self.name, os.strerror(number), self.name,
        )
        self.port.close()
        self.switch.set_tap(None, 0)
        self.state = None
        self.lacks_addresses = False
        if self.device is not None:
            self.device.close()
            self.device = None

    def look(self) -> None:
        """Follows what has changed since the last heartbeat."""
        if self.device is None:
            self.come_back()
            return
        if self.lacks_addresses:
            self.set_addresses()
        state, before = self.device.look(), self.state
        if state is None:
            self.lost(errno.EBADFD)
            return
        if before is None or state == before:
            return
        if state.mac != before.mac:
            log.info("interface %s: MAC changed from %s to %s",
                     state.name, format_mac(before.mac), format_mac(state.mac))
        if state.name != before.name:
            log.info("interface %s was renamed to %s", before.name, state.name)
            if self.monitor is not None:
                self.monitor.watch(self.device)
        if state.is_up != before.is_up:
            if state.is_up:
                log.info("interface %s is up again", state.name)
                self.set_addresses()
            else:
                log.warning("interface %s is down: frames for it are lost until it is up again", state.name)
        self.use(state)

    def set_addresses(self) -> None:
        """The kernel takes IPv6 addresses away from an interface that goes down. What fails is tried again."""
        assert self.device is not None
        try:
            if self.monitor is None:
                self.device.set_addresses()
            else:
                self.monitor.set_addresses(self.device)
        except SetupError as error:
            self.lacks_addresses = True
            self.complain(str(error))
        else:
            self.lacks_addresses = False
            self.complaint = None

    def come_back(self) -> None:
        if not exists(self.name):
            return
        try:
            self.open(self.name)
            self.keep()
            self.complaint = None
        except SetupError as error:
            self.complain(f"interface {self.name} is there again, but: {error}")

    def complain(self, problem: str) -> None:
        if problem != self.complaint:   # once, not once a heartbeat
            self.complaint = problem
            log.error("%s", problem)

    def close(self) -> None:
        """Gives the interface back, after the user's command."""
        if self.device is None:
            return
        self.port.close()
        self.switch.set_tap(None, 0)
        try:
            if self.monitor is None:
                self.device.run_command("iface_down_command", self.config.iface_down_command)
            else:
                self.monitor.run_down_command(self.device)
        except SetupError as error:
            log.error("%s", error)
        self.device.close()
        self.device = None

# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a node together and runs it: limits, keys, interface, links, heartbeat, orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from cloudvpn import __version__
from cloudvpn._fast.idcache import IdCache
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable
from cloudvpn._fast.switch import Switch
from cloudvpn.bandwidth import Bandwidth, monotonic_us
from cloudvpn.config import Loaded, load_words
from cloudvpn.dialer import Dialer
from cloudvpn.errors import SetupError
from cloudvpn.interface import Interface
from cloudvpn.memory import share_arena
from cloudvpn.mesh import Mesh
from cloudvpn.options import SECOND, Config
from cloudvpn.reload import Reloader, TrustFiles
from cloudvpn.routewatch import RouteWatch
from cloudvpn.separation import Separation
from cloudvpn.service import ServiceManager
from cloudvpn.status import StatusFile
from cloudvpn.storms import StormWatch
from cloudvpn.tls import Credentials

log = logging.getLogger("cloudvpn")

# Descriptors beside the links: standard streams, TAP, listeners, the loop's own, status file, resolver.
SPARE_DESCRIPTORS = 64


def raise_descriptor_limit(max_connections: int) -> None:
    """Raises SetupError if so many links cannot be open at once."""
    needed = max_connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        most = hard if hard == resource.RLIM_INFINITY else max(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    except (ValueError, OSError) as error:
        raise SetupError(
            f"max_connections {max_connections} needs {needed} open files, the limit is {hard}: "
            f"raise it (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit), or lower max_connections"
        ) from error


def build_switch(config: Config) -> Switch:
    random = RandomSource()
    routes = RouteTable(
        config.max_connections, config.max_remote_routes, random,
        max_dist=config.route_max_dist, report_above=config.report_ping_changes_above,
    )
    switch = Switch(
        routes, IdCache(config.br_id_cache_size, random), random,
        max_frame=config.conn_mtu, keepalive=config.conn_keepalive, timeout=config.conn_timeout,
        max_waiting=config.max_waiting_total, max_nodes=config.max_nodes, max_link_claims=config.max_link_claims,
    )
    switch.beat(monotonic_us(), int(time.time()))   # from here on it knows the time
    set_policy(switch, config)
    return switch


def set_policy(switch: Switch, config: Config) -> None:
    switch.set_policy(
        multi_ratio=config.multi_ratio if config.multipath else 0,
        promisc=config.promisc or config.bridge_mode,
        ignore_macs=config.ignore_macs or config.bridge_mode,
        broadcast_send=config.broadcast_send or config.bridge_mode,
        broadcast_nocopy=config.broadcast_nocopy,
        allowed=config.broadcast_filter_allow,
        broadcast_limit=config.broadcast_limit,
    )
    switch.set_learning(config.learn_macs, config.mac_age, config.max_local_macs)


class Node:
    """One running node."""

    def __init__(
        self, words: Sequence[str], config: Config, trust: TrustFiles, credentials: Credentials,
        service: ServiceManager, separation: Separation,
    ) -> None:
        self.words = words
        self.config = config
        self.separation = separation
        self.service = service
        self.loop = asyncio.get_running_loop()
        self.switch = build_switch(config)
        self.bandwidth = Bandwidth(self.switch, self.loop)
        self.bandwidth.use(config)
        self.mesh = Mesh(config, self.switch, credentials)
        self.interface: Interface | None = None
        if config.iface:
            self.interface = Interface(config, self.switch, self.loop, credentials.public_key)
        self.status = StatusFile(config, self.mesh, self.interface) if config.status_file else None
        self.reloader = Reloader(self.read, self.mesh, trust, self.apply, service)
        self.storms = StormWatch(self.mesh)
        self.routes = RouteWatch(self.mesh)
        self.dialers: list[Dialer] = []
        self.stopping = asyncio.Event()
        self.beat_at = self.loop.time()
        self.late_beat: asyncio.TimerHandle | None = None   # where the loop found no memory for the one before

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises SetupError, and leaves nothing behind, if it cannot start."""
        self.loop.set_exception_handler(self.report)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop, number)
        self.loop.add_signal_handler(signal.SIGHUP, self.reloader.signalled.set)
        try:
            if self.interface is not None:
                self.interface.open()
            await self.mesh.listen()
            self.give_up_rights()
            if self.interface is not None:
                self.interface.keep()
            self.dial()
            self.mesh.keep(self.reloader.run)
            self.beat()
            if self.status is not None:
                self.status.start()
            # What was loaded so far stays: the collector need not walk through it, links waiting meanwhile.
            gc.collect()
            gc.freeze()
            self.service.ready()
            self.service.watch(self.loop, self.describe)
            await self.stopping.wait()
        finally:
            await self.mesh.close()
            if self.status is not None:
                self.status.stop()
            if self.interface is not None:
                self.interface.close()
            self.service.close()
        log.info("stopped")

    def beat_again(self, period: float) -> None:
        """Sees to the next beat, and to one more that comes where the loop finds no memory for that one."""
        late, self.late_beat = self.late_beat, None
        try:
            self.loop.call_at(self.beat_at, self.beat)
            self.late_beat = self.loop.call_at(self.beat_at + period / 2, self.beat)
        except MemoryError:
            if late is None or late.when() <= self.loop.time():
                # A dead node that its service manager takes for a live one would be worse.
                os.write(2, b"no memory is left for the heartbeat: the node ends\n")
                os._exit(1)
            self.late_beat = late
            self.beat_at -= period      # for that one to plan
        else:
            if late is not None:
                late.cancel()

    def report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback of the loop or a transport raised; the loop goes on, the transport closes."""
        error = context.get("exception")
        if isinstance(error, MemoryError):
            self.mesh.lack_memory("a callback or a link")
        else:
            log.error("internal error: %s", context.get("message"), exc_info=error)

    def stop(self, number: int) -> None:
        log.info("%s: closing all links", signal.Signals(number).name)
        self.service.stopping(self.config.comm_close_timeout / SECOND)
        self.stopping.set()

    def describe(self) -> str:
        """For `systemctl status`."""
        return f"links up: {self.switch.up_count}, MACs known: {self.switch.known_count}"

    def give_up_rights(self) -> None:
        """All that needs them is done. Raises SetupError."""
        separation = self.separation
        if self.status is not None:
            self.status.path = separation.inside(self.status.path)
        if self.interface is not None and separation.monitor is not None:
            self.interface.trust_monitor(separation.monitor)
        separation.enter()
        self.mesh.resolver = separation.resolver

    def read(self) -> Loaded:
        """Reads the configuration anew. Raises ConfigError."""
        monitor = self.separation.monitor
        return load_words(self.words) if monitor is None else monitor.load_config()

    def dial(self) -> None:
        """One dialer for each `connect`, and no other."""
        missing = list(self.config.connect)
        for dialer in list(self.dialers):
            if dialer.target in missing:
                missing.remove(dialer.target)
            else:
                self.dialers.remove(dialer)
                dialer.stop()
        self.dialers += [Dialer(self.mesh, target) for target in missing]

    async def apply(self, config: Config) -> None:
        """Makes a configuration that was read again count."""
        self.config = self.mesh.config = config
        if self.separation.monitor is not None:
            self.separation.monitor.accept_config()
        if self.interface is not None:
            self.interface.config = config
        if self.status is not None:
            self.status.config = config
        log.setLevel(config.log_level.upper())
        set_policy(self.switch, config)
        self.bandwidth.use(config)
        await self.mesh.listen_anew()
        self.dial()

    def beat(self) -> None:
        """The heartbeat. Late beats are not made up for: the next comes at the next whole period."""
        if self.stopping.is_set():
            return
        period = self.config.heartbeat / SECOND
        self.beat_at += period * max(1, -(-(self.loop.time() - self.beat_at) // period))
        self.beat_again(period)
        self.mesh.close_silent(self.switch.beat(monotonic_us(), int(time.time())))
        self.storms.look(self.loop.time())
        self.routes.look(self.loop.time())
        self.mesh.revive()
        self.mesh.forget_left()
        if self.interface is not None:
            self.interface.look()


def run(words: Sequence[str], config: Config) -> None:
    """Runs a node to its end. Raises ConfigError or SetupError before anything has started.

    `words` are those of the command line, from which `config` was read and will be read again.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)    # until the loop handles it: files are about to be read anyway
    share_arena()
    service = ServiceManager(os.environ)
    raise_descriptor_limit(config.max_connections)
    separation = Separation(words, config)
    try:
        trust = TrustFiles()
        credentials = trust.load(config)
        for warning in credentials.warnings:
            log.warning("%s", warning)
        log.info("cloudvpn %s, process %d", __version__, os.getpid())

        async def main() -> None:
            await Node(words, config, trust, credentials, service, separation).run()

        uvloop.run(main())
    finally:
        separation.close()

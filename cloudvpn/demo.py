# SPDX-License-Identifier: GPL-3.0-or-later
"""The story that `cloudvpn --demo` tells: a small mesh comes up on this machine, carries traffic, survives a cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloudvpn import __version__
from cloudvpn.demo_net import PREFIX, Ground, Namespace
from cloudvpn.demo_nodes import STATUS_SECONDS, Daemon, write_config, write_trust
from cloudvpn.demo_traffic import Pinger, move
from cloudvpn.errors import SetupError

DRAWING: Final = r"""
    10.77.0.1                   10.77.0.2
        a ------------------------- b           each node: a network namespace
          \                       /             with a daemon, a key and a
            \                   /               certificate of its own
              '----- r -------'
                     |                          each line: a wire that carries
                     c                          one TLS link
                 10.77.0.3
                                                r has no interface, it relays
"""
WIRES: Final = (("a", "b"), ("a", "r"), ("b", "r"), ("c", "r"))     # the first dials, the second listens
START_ORDER: Final = "rbac"                                         # who is dialled comes first
ADDRESSES: Final = {"a": "10.77.0.1", "b": "10.77.0.2", "c": "10.77.0.3"}
PORT: Final = 4000
LINK_UP: Final = " link up: "       # in the log
LINK_DOWN: Final = " link down: "
PINGS: Final = 10
PING_INTERVAL: Final = 0.02     # seconds
MOVE_SECONDS: Final = 3.0
PATIENCE: Final = 30.0          # seconds for what takes less than one on an idle machine
TAIL: Final = 15                # lines of the log of a daemon that died
COLOURS: Final = {"a": 36, "b": 35, "c": 33, "r": 34}
WARNING_COLOUR: Final = 31
BOLD: Final = 1


def show() -> None:
    """Returns when all was shown, on a terminal after Ctrl-C. Raises SetupError, or KeyboardInterrupt if cut short."""
    try:
        asyncio.run(Demo.play())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def mac(name: str) -> str:
    return f"02:00:00:00:00:0{name}"    # a, b and c are hexadecimal digits


def is_listener(name: str) -> bool:
    return any(name == listener for _, listener in WIRES)


def paint(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


class Demo:
    """One run. Signals and dying daemons cancel the task that tells; what it made goes in every case."""

    def __init__(self, task: asyncio.Task[None], ground: Ground, folder: Path) -> None:
        self.task = task
        self.ground = ground
        self.folder = folder
        self.daemons: dict[str, Daemon] = {}
        self.failure: SetupError | None = None
        self.is_told = False
        self.begun = time.monotonic()

    @classmethod
    async def play(cls) -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        # All of the tear-down is synchronous, so that no second signal can get between.
        with contextlib.ExitStack() as stack:
            ground = Ground(START_ORDER, WIRES)
            stack.callback(ground.close)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX))
            demo = cls(task, ground, Path(folder))
            stack.callback(demo.stop)
            try:
                await demo.tell()
            except asyncio.CancelledError:
                if demo.failure is None and not demo.is_told:
                    raise
            if demo.failure is not None:
                raise demo.failure
        demo.say("\nAll of it is gone: daemons, namespaces, keys.")

    async def tell(self) -> None:
        self.say(f"CloudVPN {__version__}: a mesh on this machine, out of sight of its real network")
        self.say(DRAWING.rstrip())
        await self.start()
        await self.show_pings()
        await self.show_rates()
        await self.show_cut()
        self.show_status()
        self.show_entrance()
        self.is_told = True
        if sys.stdout.isatty():
            self.say("\nThe mesh runs on, its log goes on here. Ctrl-C ends it.")
            await asyncio.Event().wait()

    # Talking.

    def say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
            self.fail(f"standard output: {error.strerror}")

    def head(self, text: str) -> None:
        self.say("\n" + paint(text, BOLD))

    def log(self, name: str, line: str) -> None:
        """One line of a daemon's log, with our time and without what says nothing here."""
        level, text = match.groups() if (match := re.match(r"\S+T\S+ (\w+) (.*)", line)) else ("", line)
        text = text if level in ("info", "") else paint(f"{level}: {text}", WARNING_COLOUR)
        self.say(f"{time.monotonic() - self.begun:7.2f} s  {paint(name, COLOURS[name])}  {text}")

    # Watching.

    def fail(self, reason: str) -> None:
        self.failure = self.failure or SetupError(reason)
        self.task.cancel()

    def ended(self, daemon: Daemon) -> None:
        tail = "\n".join(daemon.lines[-TAIL:])
        self.fail(f"the daemon of {daemon.name} ended with {daemon.process.wait()}, its log:\n{tail}")

    async def until(self, what: str, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end:
                raise SetupError(f"{what}: not within {PATIENCE:g} s")
            await asyncio.sleep(PING_INTERVAL)

    def space(self, name: str) -> Namespace:
        return self.ground.spaces[name]

    def way(self, source: str, target: str) -> str:
        """As the status file of `source` tells it."""
        first, distance = self.daemons[source].find_route(mac(target)) or ("unknown", 0)
        if first == target:
            return "direct"
        return f"through {first}" + (f" and {distance - 2} more" if distance > 2 else "")

    # The chapters.

    async def start(self) -> None:
        self.head("Four nodes start")
        write_trust(self.folder, self.ground.names)
        for name in START_ORDER:
            config = write_config(self.folder, name, self.config_lines(name))
            daemon = self.daemons[name] = Daemon(name, config, self.space(name), self.log, self.ended)
            if is_listener(name):
                await self.until(f"{name} listening", daemon.is_listening)
        await self.until("links", lambda: all(
            daemon.count(LINK_UP) >= sum(name in wire for wire in WIRES) for name, daemon in self.daemons.items()))
        await self.until("routes", lambda: all(
            self.daemons[one].find_route(mac(other)) for one, other in itertools.permutations(ADDRESSES, 2)))

    def config_lines(self, name: str) -> list[str]:
        lines = [f"connect {self.ground.address(b, a)} {PORT}" for a, b in WIRES if a == name]
        if is_listener(name):
            lines.append(f"listen 0.0.0.0 {PORT}")
        if name in ADDRESSES:
            lines += ["iface yes", "iface_dev tap0", f"iface_address {ADDRESSES[name]}/24", f"mac {mac(name)}"]
        return lines

    async def show_pings(self) -> None:
        self.head("Pings across the mesh")
        for source, target in itertools.combinations(ADDRESSES, 2):
            await self.ping(source, target)

    async def ping(self, source: str, target: str) -> None:
        with Pinger(self.space(source), ADDRESSES[target], PING_INTERVAL) as pinger:
            await self.answers(pinger)
        self.result(source, target, f"{pinger.rtt * 1000:8.2f} ms", self.way(source, target))

    def result(self, source: str, target: str, value: str, way: str) -> None:
        self.say(f"  {source} -> {target}  {ADDRESSES[target]}  {value:<14}  {way}")

    async def answers(self, pinger: Pinger) -> None:
        """To questions that are asked from now on."""
        begin = len(pinger.sent)
        await self.until(f"answers of {pinger.target} to pings", lambda: pinger.count_from(begin) >= PINGS)

    async def show_rates(self) -> None:
        self.head(f"Data over TCP, {MOVE_SECONDS:g} s each, on the way that has the lowest ping just then")
        for source, target in (("a", "b"), ("a", "c")):
            moving = asyncio.create_task(
                move(self.space(source), self.space(target), ADDRESSES[target], MOVE_SECONDS))
            ways = Counter[str]()   # load changes pings, and with them the best way
            try:
                while not (await asyncio.wait([moving], timeout=STATUS_SECONDS))[0]:
                    ways[self.way(source, target)] += 1
                rate = moving.result()
            except (OSError, asyncio.TimeoutError) as error:
                raise SetupError(f"data from {source} to {target}: {str(error) or 'no end'}") from error
            finally:
                moving.cancel()
                await asyncio.wait([moving])
            shares = [f"{way} ({count / ways.total():.0%})" for way, count in ways.most_common(2)]
            self.result(source, target, f"{rate * 8 / 1e6:8.0f} Mbit/s", ", ".join(shares))

    async def show_cut(self) -> None:
        self.head("The wire between a and b is cut, and mended")
        await self.until("quiet after the load", lambda: self.way("a", "b") == "direct")
        with Pinger(self.space("a"), ADDRESSES["b"], PING_INTERVAL) as pinger:
            await self.answers(pinger)
            await self.switch("down", LINK_DOWN)
            await self.answers(pinger)
            outage = pinger.outage
        self.result("a", "b", f"{outage:8.2f} s out", f"{self.way('a', 'b')} now; conn_timeout is 2 s here")
        await self.switch("up", LINK_UP)
        await self.until("the way back", lambda: self.way("a", "b") == "direct")
        await self.ping("a", "b")

    async def switch(self, state: str, event: str) -> None:
        """Until both ends have noticed."""
        ends = [self.daemons["a"], self.daemons["b"]]
        wanted = [end.count(event) + 1 for end in ends]
        self.ground.switch("a", "b", state)
        await self.until(f"the link a - b {state}", lambda: all(
            end.count(event) >= count for end, count in zip(ends, wanted, strict=True)))

    def show_status(self) -> None:
        self.head("Links and routes of a, from its status-file")
        shown = ("connection ", " = certificate", " >> in", " << out", "route to ")
        for line in self.daemons["a"].status().splitlines():
            if line.startswith(shown):
                self.say(f"  {line}")

    def show_entrance(self) -> None:
        self.head("Enter a node, from another terminal")
        entrance = self.ground.entrance("a", self.daemons["a"].process.pid)
        self.say(f"  {entrance} ping {ADDRESSES['c']}\n  {entrance} bash\n"
                 "In there, `ip link set to-b down` cuts the wire from a to b, `up` mends it.\n"
                 f"Configurations and status files are in {self.folder}.")

    def stop(self) -> None:
        for daemon in self.daemons.values():
            daemon.stop()
        for daemon in self.daemons.values():
            daemon.wait()

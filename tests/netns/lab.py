# SPDX-License-Identifier: GPL-3.0-or-later
"""A laboratory of network namespaces in which tests run real daemons, joined by wires that can be cut.

    with Lab() as lab:
        wire = lab.wire("a", "b")  # makes the hosts too; w1 has 198.18.1.1 and .2, fd00:0:0:1::1 and ::2
        node = lab.node("a", "listen 198.18.1.1 4000", "iface yes", "iface_dev tap0")
        lab.until(lambda: lab.host("a").has("tap0"), 5, "tap0")

All deadlines are seconds from the call. Everything that was made is gone at the end of the `with` block.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import importlib.util
import ipaddress
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import pytest

from tests.netns.frames import FramePort
from tests.netns.keys import identity, write_private
from tests.netns.pings import NUMBERS, Ping, Pinger, Pings
from tests.netns.status import Status, parse_status

T = TypeVar("T")
DAEMON = [sys.executable, "-m", "cloudvpn"]
NETNS = Path("/run/netns")
POLL = 0.01
CLONE_NEWNET = 0x40000000
TOOLS = ["ip", "bridge", "ss", "sysctl", "nsenter", "nft", "ping", "iperf3"]
_libc = ctypes.CDLL(None, use_errno=True)
_serials = itertools.count(1)


def why_not() -> str | None:
    """Why no Lab can be made here."""
    if os.geteuid():
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    lacking = [tool for tool in TOOLS if not shutil.which(tool)]
    return f"needs {', '.join(lacking)}" if lacking else None


def has_daemon() -> bool:
    """Whether DAEMON can be started at all."""
    return bool(importlib.util.find_spec("cloudvpn")) and bool(importlib.util.find_spec("cloudvpn.__main__"))


def run(arguments: Sequence[object], check: bool = True, timeout: float = 10.0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; a failed check shows what it said."""
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0 or not check, f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


# Hosts and wires


class Host:
    """One network namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name, self.namespace = name, namespace

    def command(self, arguments: Sequence[object]) -> list[str]:
        """The same command inside; it keeps the process id that the caller holds."""
        return ["nsenter", f"--net={NETNS / self.namespace}", "--", *map(str, arguments)]

    def run(
        self, arguments: Sequence[object], check: bool = True, timeout: float = 10.0
    ) -> subprocess.CompletedProcess[str]:
        return run(self.command(arguments), check, timeout)

    def ip(self, words: str) -> Any:
        """Runs `ip` with the words; what it prints, as JSON."""
        out = run(["ip", "-n", self.namespace, "-j", *words.split()]).stdout
        return json.loads(out) if out.strip() else None

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes in the block belong to the namespace, also after it."""
        with open("/proc/thread-self/ns/net") as outer, open(NETNS / self.namespace) as inner:
            _set_namespace(inner.fileno())
            try:
                yield
            finally:
                _set_namespace(outer.fileno())

    def has(self, iface: str) -> bool:
        return self.run(["ip", "link", "show", iface], check=False).returncode == 0

    def mac(self, iface: str) -> bytes:
        return bytes.fromhex(self.ip(f"link show {iface}")[0]["address"].replace(":", ""))

    def counters(self, iface: str) -> dict[str, int]:
        """rx_bytes, rx_packets, rx_dropped, ... and the same with tx_."""
        stats = self.ip(f"-s link show {iface}")[0]["stats64"]
        return {f"{way}_{name}": count for way in ("rx", "tx") for name, count in stats[way].items()}

    def frames(self, iface: str) -> FramePort:
        with self.inside():
            return FramePort(iface)

    def is_listening(self, port: int) -> bool:
        return bool(self.run(["ss", "-Htln", f"sport = :{port}"]).stdout)

    def reset_tcp(self, port: int) -> int:
        """Kills the TCP connections from and to `port`, with an RST to the other side; how many sockets."""
        done = self.run(["ss", "-HtK", "state", "established", f"( sport = :{port} or dport = :{port} )"])
        return len(done.stdout.splitlines())

    def ping(self, target: str, count: int = 3, interval: float = 0.05, size: int = 56, wait: int = 1) -> Ping:
        """`wait` is how many seconds the last answer is waited for; rtts are 0 without an answer."""
        with self.inside():
            pinger = Pinger(target)
        with pinger:
            return pinger.ping(count, interval, size, wait)

    def pings(self, target: str, interval: float, count: int = NUMBERS) -> Pings:
        """Goes on beside what the block does."""
        with self.inside():
            return Pings(Pinger(target), interval, count)

    @contextlib.contextmanager
    def pinging(self, target: str, interval: float = 0.02) -> Iterator[SteadyPing]:
        """A ping each `interval` seconds while the block runs."""
        command = self.command(["ping", "-nD", "-i", interval, "-s", 16, target])
        with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out) as process:
            try:
                yield SteadyPing(f"{self.name} to {target}", out)
            finally:
                process.kill()


class SteadyPing:
    """When the answers to a ping that goes on and on have come, in the seconds of time.time()."""

    def __init__(self, name: str, out: TextIO) -> None:
        self.name, self._out = name, out
        self._answers: list[float] = []
        self._read, self._rest = 0, ""

    def answers(self) -> list[float]:
        # The process writes at the position that this one's `read` would move.
        text = self._rest + os.pread(self._out.fileno(), 1 << 20, self._read).decode()
        self._read += len(text) - len(self._rest)
        *lines, self._rest = text.split("\n")
        found = (re.match(r"\[([\d.]+)\] \d+ bytes from .* time=", line) for line in lines)
        self._answers += (float(match[1]) for match in found if match)
        return self._answers

    def count_since(self, begin: float) -> int:
        return len(self.answers()) - bisect.bisect(self._answers, begin)

    def longest_gap(self, begin: float) -> float:
        """Seconds between two answers, from the last one before `begin` on."""
        answers = self.answers()
        tail = answers[max(bisect.bisect(answers, begin) - 1, 0) :]
        return max((after - before for before, after in itertools.pairwise(tail)), default=math.inf)


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Wire:
    """A bridge in a namespace between the hosts: host i has the interface `iface` with 198.18.N.i and fd00:0:0:N::i."""

    def __init__(self, number: int, middle: Host, hosts: Sequence[Host]) -> None:
        self.number, self.iface = number, f"w{number}"
        self._middle = middle
        self._hosts = {host.name: host for host in hosts}
        self._places = {host.name: place for place, host in enumerate(hosts, start=1)}
        middle.ip(f"link add br{number} type bridge mcast_snooping 0")
        middle.ip(f"link set br{number} up")
        for host in hosts:
            port = self._port(host.name)
            host.ip(f"link add {self.iface} type veth peer name {port} netns {middle.namespace}")
            middle.ip(f"link set {port} master br{number} up")
            host.ip(f"addr add {self.address(host.name)}/24 dev {self.iface}")
            host.ip(f"addr add {self.address6(host.name)}/64 dev {self.iface} nodad")
            host.ip(f"link set {self.iface} up")

    def _port(self, name: str) -> str:
        return f"p{self.number}-{self._places[name]}"

    def address(self, name: str) -> str:
        return str(ipaddress.ip_address("198.18.0.0") + self.number * 256 + self._places[name])

    def address6(self, name: str) -> str:
        return f"fd00:0:0:{self.number:x}::{self._places[name]:x}"

    def cut(self, *names: str) -> None:
        """Silently: the hosts (all, if none is named) see a link that is up and carries nothing."""
        for name in names or self._places:
            self._middle.run(["bridge", "link", "set", "dev", self._port(name), "state", 0])

    def heal(self, *names: str) -> None:
        for name in names or self._places:
            self._middle.run(["bridge", "link", "set", "dev", self._port(name), "state", 3])

    def part(self, *names: str) -> None:
        """Silently: these hosts hear each other and no others, the others hear each other, until `join`."""
        ports = ", ".join(self._port(name) for name in names)
        table = f"br{self.number}"
        rules = [f"add rule bridge {table} forward iifname {{ {ports} }} oifname != {{ {ports} }} drop",
                 f"add rule bridge {table} forward iifname != {{ {ports} }} oifname {{ {ports} }} drop"]
        chain = f"add chain bridge {table} forward {{ type filter hook forward priority 0; }}"
        self._middle.run(["nft", "; ".join([f"add table bridge {table}", chain, *rules])])

    def join(self) -> None:
        self._middle.run(["nft", f"delete table bridge br{self.number}"])

    def reset(self, name: str, port: int) -> None:
        """The host answers TCP to the port, of connections that are there too, with resets, until `accept`."""
        rule = f"iifname {self.iface} tcp dport {port} tcp flags & rst == 0 reject with tcp reset"
        chain = f"add chain inet {self.iface} input {{ type filter hook input priority 0; }}"
        self._hosts[name].run(
            ["nft", f"add table inet {self.iface}; {chain}; add rule inet {self.iface} input {rule}"])

    def accept(self, name: str) -> None:
        self._hosts[name].run(["nft", f"delete table inet {self.iface}"])

    def unplug(self, *names: str) -> None:
        """The hosts lose the carrier."""
        for name in names or self._places:
            self._middle.ip(f"link set {self._port(name)} down")

    def plug(self, *names: str) -> None:
        for name in names or self._places:
            self._middle.ip(f"link set {self._port(name)} up")


# Daemons


class Node:
    """One daemon: its process, configuration and log. Started again, it appends to its log."""

    def __init__(self, name: str, host: Host, command: Sequence[str], config: Path) -> None:
        self.name, self.host, self.config = name, host, config
        self.log, self.status_file = config.with_suffix(".log"), config.with_suffix(".status")
        self._command = host.command([*command, config])
        self.start()

    def start(self) -> None:
        # The daemon is the same package as the one the tests import.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.config.parent,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N if signal N ended it."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, deadline: float = 15.0) -> int:
        """Until it has ended; its exit code."""
        until(lambda: self.exit_code is not None, deadline, f"the end of {self.name}", [self])
        return self._process.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()

    def terminate(self, deadline: float = 15.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def end(self) -> None:
        """After a test. What coverage has measured a node writes when it ends by itself."""
        if "COVERAGE_RUN" in os.environ and self.exit_code is None:
            self.cont()
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_log(self, pattern: str, deadline: float = 5.0, count: int = 1) -> str:
        """Until the log has `count` matches of the regex; the whole text of the last one."""

        def matches() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self.log_text(), re.MULTILINE))

        what = f"{count} times /{pattern}/ in the log of {self.name}"
        return until(lambda: (found := matches())[count - 1 :] and found, deadline, what, [self])[-1][0]

    def status(self) -> Status:
        return parse_status(self.status_file.read_text() if self.status_file.exists() else "")

    def report(self) -> str:
        """State and end of the log, for failure messages."""
        state = "runs" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"--- {self.name} (pid {self.pid}, {state}), end of {self.log}:\n{self.log_text()[-3000:]}"


def until(predicate: Callable[[], T], deadline: float, what: str, nodes: Sequence[Node] = ()) -> T:
    """Polls until the predicate gives something true, and returns that."""
    end = time.monotonic() + deadline
    while not (result := predicate()):
        if time.monotonic() > end:
            raise AssertionError("\n".join([f"{what}: not within {deadline} s", *(node.report() for node in nodes)]))
        time.sleep(POLL)
    return result


# The whole


class Lab:
    """Makes hosts, wires and nodes, and takes all of them away at the end."""

    def __init__(self) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self.prefix = f"cv{os.getpid()}n{next(_serials)}"
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self.hosts: dict[str, Host] = {}
        self.wires: list[Wire] = []
        self.nodes: list[Node] = []
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def host(self, name: str) -> Host:
        """The host of that name, made when it is first asked for."""
        if name not in self.hosts:
            host = Host(name, f"{self.prefix}-{name}")
            run(["ip", "netns", "add", host.namespace])
            self._cleanup.callback(run, ["ip", "netns", "del", host.namespace], check=False)
            host.ip("link set lo up")
            self.hosts[name] = host
        return self.hosts[name]

    def wire(self, *names: str) -> Wire:
        """Joins two or more hosts by a bridge of their own."""
        hosts = [self.host(name) for name in names]
        self.wires.append(Wire(len(self.wires) + 1, self._middle(), hosts))
        return self.wires[-1]

    def bytes_carried(self) -> int:
        """What all hosts together have sent into their wires so far, headers included."""
        with self._middle().inside():
            table = Path("/proc/thread-self/net/dev").read_text()
        return sum(int(count) for count in re.findall(r"^ *p\d+-\d+: *(\d+)", table, re.MULTILINE))

    def _middle(self) -> Host:
        made = "wires" in self.hosts
        middle = self.host("wires")
        if not made:  # the bridges themselves say nothing
            middle.run(["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])
        return middle

    def node(
        self,
        host: str,
        *lines: str,
        command: Sequence[str] = DAEMON,
        kind: str = "ecdsa",
        name: str | None = None,
        ca: str = "lab",
    ) -> Node:
        """Starts a daemon on the host; the lines come after those for keys and status, so they win."""
        name = name or host
        config = self.directory / f"{name}.conf"
        keys = identity(name, kind, ca)
        status = config.with_suffix(".status")
        common = [f"cert {keys.cert}", f"key {keys.key}", f"ca {keys.ca}", f"status-file {status}"]
        common += ["status-interval 200000", "status-verbose yes"]
        write_private(config, "".join(f"{line}\n" for line in [*common, *lines]).encode())
        return self.run_node(host, config, command)

    def run_node(self, host: str, config: Path, command: Sequence[str] = DAEMON) -> Node:
        """Starts a daemon on the host, named as its configuration file."""
        node = Node(config.stem, self.host(host), command, config)
        self._cleanup.callback(node.end)
        self.nodes.append(node)
        return node

    def until(self, predicate: Callable[[], T], deadline: float, what: str) -> T:
        return until(predicate, deadline, what, self.nodes)

    def wait_for_ping(self, source: str, target: str, deadline: float = 15.0) -> None:
        self.until(lambda: self.host(source).ping(target, 1).received, deadline, f"ping from {source} to {target}")

    def iperf3(
        self, client: str, server: str, target: str, *options: object, seconds: int = 1
    ) -> tuple[float, dict[str, Any]]:
        """What arrived, in Mbit/s, and the client's whole JSON report."""
        port = 5201
        with subprocess.Popen(
            self.host(server).command(["iperf3", "-s", "-1", "-p", port]), stdout=subprocess.DEVNULL
        ) as listener:
            try:
                self.until(lambda: self.host(server).is_listening(port), 5, "iperf3 server")
                command = ["iperf3", "-J", "-c", target, "-p", port, "-t", seconds, *options]
                report = json.loads(self.host(client).run(command, timeout=seconds + 20).stdout)
            finally:
                listener.kill()
        end = report["end"]
        total = end.get("sum_received") or end["sum"]
        return total["bits_per_second"] / 1e6, report

# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces, the wires between them, and the processes inside.

    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.wire(a, b)                              # 198.18.1.1 and 198.18.1.2
        lab.start(a, "iperf3", "-s")                # its log: lab.directory / "a-iperf3.log"
        b.run("iperf3", "-c", "198.18.1.1")

At the end of the block, also after Ctrl-C, all of it is gone. Nothing else is touched: the namespaces are named as the
directory, by chance.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

NETNS = Path("/run/netns")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
PATIENCE = 20.0     # seconds for what takes less than three on an idle machine
GRACE = 3.0         # seconds between SIGTERM and SIGKILL
POLL = 0.05
LOG_TAIL = 600      # bytes of each log that a failure shows


class BenchError(Exception):
    """Something could not be measured; the text says why."""


class Host:
    """One network namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name, self.namespace = name, namespace

    def begin(self, *words: object) -> subprocess.Popen[str]:
        """Starts a command whose output `end` gives."""
        return _popen(self.inside(words), subprocess.PIPE)

    def run(self, *words: object, check: bool = True, timeout: float = PATIENCE) -> str:
        return end(self.begin(*words), check, timeout)

    def inside(self, words: tuple[object, ...]) -> list[str]:
        """The command that does this inside; it keeps its process id."""
        return ["nsenter", f"--net={NETNS / self.namespace}", "--", *map(str, words)]

    def has(self, iface: str) -> bool:
        return f": {iface}:" in self.ip("-o link")

    def is_listening(self, port: int) -> bool:
        return bool(self.run("ss", "-Htln", f"sport = :{port}"))

    def ip(self, words: str) -> str:
        return run("ip", "-n", self.namespace, *words.split())

    def bring_up(self, iface: str, address: str, mtu: int | None = None) -> None:
        self.ip(f"address replace {address}/24 dev {iface}")
        self.ip(f"link set {iface} up" + (f" mtu {mtu}" if mtu else ""))

    def processes(self) -> list[int]:
        """The ids of all processes inside, whoever started them."""
        try:
            namespace = (NETNS / self.namespace).stat().st_ino
        except FileNotFoundError:
            return []
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):      # it has ended, or it is nothing that we could have started
                if os.stat(f"/proc/{process}/ns/net").st_ino == namespace:
                    found.append(int(process))
        return found


class Lab:
    """Makes hosts, wires and processes, and takes all of them away at the end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self._hosts: dict[str, Host] = {}
        self._wires = 0
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._cleanup.close()

    @property
    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    def host(self, name: str) -> Host:
        """The host of that name, made when it is first asked for."""
        if name not in self._hosts:
            host = Host(name, f"{self.directory.name}-{name}")
            self._cleanup.callback(_remove, host)
            run("ip", "netns", "add", host.namespace)
            host.ip("link set lo up")
            self._hosts[name] = host
        return self._hosts[name]

    def wire(self, first: Host, second: Host) -> tuple[str, str]:
        """A veth pair between the two; their addresses on it."""
        self._wires += 1
        iface = f"wire{self._wires}"
        addresses = f"198.18.{self._wires}.1", f"198.18.{self._wires}.2"
        run("ip", "link", "add", iface, "netns", first.namespace,
            "type", "veth", "peer", "name", iface, "netns", second.namespace)
        for host, address in zip((first, second), addresses, strict=True):
            host.bring_up(iface, address)
        return addresses

    def start(self, host: Host, *words: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a daemon that runs until the end; what it says goes to its log."""
        with self.log_of(host, str(words[0])).open("a") as log:
            return _popen(host.inside(words), log, self.directory, environment)

    def log_of(self, host: Host, program: str) -> Path:
        return self.directory / f"{host.name}-{Path(program).name}.log"

    def until(self, predicate: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Polls until it is true. Raises BenchError, with the end of all logs, if that takes too long."""
        deadline = time.monotonic() + patience
        while not predicate():
            if time.monotonic() > deadline:
                raise BenchError(f"{what}: not within {patience:.0f} s{self._logs()}")
            time.sleep(POLL)

    def _logs(self) -> str:
        logs = sorted(self.directory.glob("*.log"))
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-LOG_TAIL:]}" for log in logs)


def run(*words: object, check: bool = True, timeout: float = PATIENCE) -> str:
    """Runs a command to its end; what it says, on both outputs."""
    return end(_popen([*map(str, words)], subprocess.PIPE), check, timeout)


def end(process: subprocess.Popen[str], check: bool = True, timeout: float = PATIENCE) -> str:
    """What it said until its end. Raises BenchError if it failed or takes too long."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{told(process)} takes longer than {timeout:.0f} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if check and process.returncode:
        raise BenchError(f"{told(process)} gave {process.returncode}: {output.strip()}")
    return output


def told(process: subprocess.Popen[str]) -> str:
    return subprocess.list2cmdline(process.args) if isinstance(process.args, list) else str(process.args)


def _popen(
    command: list[str], output: int | IO[str], directory: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=os.environ | {"PATH": SEARCH_PATH} | (environment or {}),
        start_new_session=True,     # Ctrl-C is for us: we end them
    )


def _remove(host: Host) -> None:
    """Ends what is inside, politely first, then the namespace."""
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        for process in host.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + grace
        while host.processes() and time.monotonic() < deadline:
            time.sleep(POLL)
    run("ip", "netns", "del", host.namespace, check=False)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that would end this process do nothing in the block."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

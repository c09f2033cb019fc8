# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon as a service: what it tells the service manager and when, and that the rights of its unit are enough.

No systemd runs here: its side of the socket is played by the test, and its sandbox by sandbox.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import sandbox
from tests.netns.lab import DAEMON, Lab, Node

PORT = 4000
UNIT = Path(__file__).parents[2] / "systemd" / "cloudvpn@.service"
needs_unit = pytest.mark.skipif(not UNIT.exists(), reason="needs a checkout")


class Manager:
    """The side of systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def hear(self, key: str, deadline: float = 15.0) -> str:
        """Until a message with this key comes; its value."""
        end = time.monotonic() + deadline
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                said = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            except TimeoutError:
                break
            if key in said:
                return said[key]
        raise AssertionError(f"no {key} within {deadline} s")

    def has_heard(self, key: str) -> bool:
        self.socket.setblocking(False)
        try:
            while True:
                if f"{key}=" in self.socket.recv(4096).decode():
                    return True
        except BlockingIOError:
            return False

    def environment(self, watchdog: float = 30) -> list[str]:
        return ["env", f"NOTIFY_SOCKET={self.path}", f"WATCHDOG_USEC={watchdog * 1e6:.0f}"]


@pytest.fixture
def manager(lab: Lab) -> Iterator[Manager]:
    manager = Manager(lab.directory / "notify")
    yield manager
    manager.socket.close()


def test_a_node_is_ready_when_its_interface_is_up_and_its_listeners_are_bound(lab: Lab, manager: Manager) -> None:
    hold = lab.directory / "hold"
    os.mkfifo(hold)
    told = lab.directory / "told"
    a = lab.node(
        "a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_dev tap0",
        f"iface_up_command env > {told}; cat {hold}", command=[*manager.environment(), *DAEMON],
    )  # fmt: skip
    lab.until(told.exists, 15, "iface_up_command")
    assert not manager.has_heard("READY"), "its command still runs"
    hold.write_text("")
    assert manager.hear("READY") == "1"
    assert a.host.is_listening(PORT) and "UP" in a.host.ip("link show tap0")[0]["flags"]
    assert "IFACE=tap0" in told.read_text() and not re.search("NOTIFY_SOCKET|WATCHDOG_", told.read_text())


def test_a_start_that_fails_is_never_ready(lab: Lab, manager: Manager) -> None:
    node = lab.node("a", "listen 192.0.2.1 4000", command=[*manager.environment(), *DAEMON])
    assert node.wait() == 1
    assert not manager.has_heard("READY")


def test_links_reloads_the_watchdog_and_the_end_are_told(lab: Lab, manager: Manager) -> None:
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", command=[*manager.environment(0.2), *DAEMON])
    assert manager.hear("READY") == "1"
    assert manager.hear("STATUS") == "links up: 0, MACs known: 1"
    lab.node("b", f"connect {wire.address('a')} {PORT}", "iface yes")
    a.wait_log("link up: ", 15)
    lab.until(lambda: manager.hear("STATUS") == "links up: 1, MACs known: 2", 15, "the link in the status")
    for good in (True, False):
        if not good:
            a.config.write_text(a.config.read_text() + "nonsense\n")
        before = time.monotonic_ns() // 1000
        a.signal(signal.SIGHUP)
        assert before <= int(manager.hear("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert manager.hear("READY") == "1", "whatever came of it"
        a.wait_log("SIGHUP: the configuration" if good else "unknown option")
    for _ in range(3):
        assert manager.hear("WATCHDOG") == "1"
    a.stop()
    while manager.has_heard("WATCHDOG"):  # what was under way
        pass
    with pytest.raises(AssertionError, match="no WATCHDOG"):
        manager.hear("WATCHDOG", 0.5)
    a.cont()
    assert manager.hear("WATCHDOG") == "1"
    a.signal(signal.SIGTERM)
    assert manager.hear("EXTEND_TIMEOUT_USEC") == "15000000"
    assert a.wait() == 0


# The unit


def settings(name: str) -> list[str]:
    """The words of this setting of the unit."""
    found = re.findall(rf"^{name}=(.+)$", UNIT.read_text(), re.MULTILINE)
    return [word for value in found for word in value.split()]


@needs_unit
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_no_mistake_in_the_unit(tmp_path: Path) -> None:
    def verify(text: str) -> subprocess.CompletedProcess[str]:
        unit = tmp_path / UNIT.name
        unit.write_text(text.replace("/usr/local/sbin/cloudvpn", sys.executable))
        command = ["systemd-analyze", "verify", "--man=no", unit]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    good = verify(UNIT.read_text())
    assert (good.returncode, good.stdout + good.stderr) == (0, "")
    assert "Lockpersonality" in verify(UNIT.read_text().replace("LockPersonality", "Lockpersonality")).stderr


def allowed_calls() -> set[str]:
    """What SystemCallFilter of the unit leaves, with the sets that this systemd knows."""

    def members(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        text = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        found = [line.strip() for line in text.splitlines()[1:] if not line.strip().startswith("#")]
        return {call for one in found for call in members(one)}

    allowed = members("@default")
    for value in re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.MULTILINE):
        calls = {call for name in value.removeprefix("~").split() for call in members(name)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


@needs_unit
@pytest.mark.parametrize("traced", [False, True])
def test_the_rights_of_the_unit_are_enough(lab: Lab, manager: Manager, traced: bool) -> None:
    """A node with an interface starts, talks to a peer, writes its status, reloads and ends with them."""
    if traced and not (shutil.which("strace") and shutil.which("systemd-analyze")):
        pytest.skip("needs strace and systemd-analyze")
    folder, trace = lab.directory / "run", lab.directory / "run" / "trace"
    folder.mkdir()
    wire = lab.wire("a", "b")
    lab.node("b", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.1.0.2/24")
    command = [*manager.environment(), *([f"SANDBOX_TRACE={trace}"] if traced else []), sys.executable,
               sandbox.__file__, str(folder), ",".join(settings("CapabilityBoundingSet")), *DAEMON]  # fmt: skip
    a = lab.node(
        "a", f"connect {wire.address('b')} {PORT}", "iface yes", "iface_dev tap0", "iface_address 10.1.0.1/24",
        "iface_address fd01::1/64", "mac 02:00:00:00:00:0a", "listen :: 4001", f"status-file {folder}/status",
        "iface_up_command ip link set $IFACE txqueuelen 777", "max_connections 2000", command=command,
    )  # fmt: skip
    manager.hear("READY", 60)
    assert privileges(a) == {"CapBnd": 1 << 12, "CapEff": 1 << 12, "CapPrm": 1 << 12, "NoNewPrivs": 1}
    lab.wait_for_ping("a", "10.1.0.2", 30)
    assert a.host.ip("link show tap0")[0]["txqlen"] == 777
    lab.until((folder / "status").exists, 15, "the status")
    a.signal(signal.SIGHUP)
    a.wait_log("are in use", 30)
    assert a.terminate(30) == 0 and "Traceback" not in a.log_text(), a.report()
    if traced:
        ended = re.compile(rf"^{a.pid} +\+\+\+ exited with 0 \+\+\+\n\Z", re.MULTILINE)
        text = lab.until(lambda: ended.search(text := trace.read_text()) and text, 15, "the end of the trace")
        text = text[text.rindex('"-m", "cloudvpn"') :]  # without what made the sandbox
        calls = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))
        assert len(calls) > 50 and {"ioctl", "epoll_wait", "execve", "rename"} <= calls
        assert calls <= allowed_calls()
        families = set(re.findall(r" socket(?:pair)?\((AF_\w+)", text))
        assert {"AF_INET", "AF_NETLINK"} <= families <= set(settings("RestrictAddressFamilies"))


def privileges(node: Node) -> dict[str, int]:
    text = Path(f"/proc/{node.pid}/status").read_text()
    found = re.findall(r"^(CapBnd|CapEff|CapPrm|NoNewPrivs):\t(\w+)$", text, re.MULTILINE)
    return {name: int(value, 16) for name, value in found}

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service manager hears, on sockets as it has them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudvpn.service import STATUS_SECONDS, ServiceManager

DEADLINE = 20


class Manager:
    """The side of systemd."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.settimeout(DEADLINE)
        self.name = name

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))

    def hears_nothing_more(self) -> bool:
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(f"@cloudvpn-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def test_each_state_is_told_as_sd_notify_has_it(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.name, "HOME": "/"}
    service = ServiceManager(environment)
    service.ready()
    assert manager.hear() == {"READY": "1"}
    before = time.monotonic_ns() // 1000
    service.reloading()
    heard = manager.hear()
    assert heard.pop("RELOADING") == "1"
    assert before <= int(heard.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000 and not heard
    service.ready()
    assert manager.hear() == {"READY": "1"}
    service.stopping(10)
    assert manager.hear() == {"STOPPING": "1", "STATUS": "closing all links", "EXTEND_TIMEOUT_USEC": "15000000"}
    service.close()
    service.ready()
    assert manager.hears_nothing_more()
    assert environment == {"HOME": "/"}, "what the node starts must not speak for it"


def test_the_watchdog_hears_of_a_loop_that_turns_and_changes_are_shown_once(manager: Manager) -> None:
    words = iter(["no links", "no links", "one link"])
    environment = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}

    async def run() -> None:
        service = ServiceManager(environment)
        service.watch(asyncio.get_running_loop(), lambda: next(words, "one link"))
        heard = [await asyncio.to_thread(manager.hear) for _ in range(4)]
        assert heard == [{"WATCHDOG": "1", "STATUS": "no links"}, {"WATCHDOG": "1"},
                         {"WATCHDOG": "1", "STATUS": "one link"}, {"WATCHDOG": "1"}]  # fmt: skip
        service.stopping(0)
        while "STOPPING" not in await asyncio.to_thread(manager.hear):
            pass
        assert await asyncio.to_thread(manager.hear) == {"WATCHDOG": "1"}, "an end that takes long is no hang"
        service.close()

    asyncio.run(run())
    assert "WATCHDOG_USEC" not in environment and "WATCHDOG_PID" not in environment


@pytest.mark.parametrize(
    ("microseconds", "process", "period", "is_watched"),
    [
        ("30000000", "", STATUS_SECONDS, True),
        ("19999998", "", 9.999999, True),
        ("1", "", 5e-7, True),
        ("30000000", "1", STATUS_SECONDS, False),
        ("0", "", STATUS_SECONDS, False),
        ("", "", STATUS_SECONDS, False),
        ("soon", "", STATUS_SECONDS, False),
    ],
)
def test_the_watchdog_is_met_twice_in_its_time(
    microseconds: str, process: str, period: float, is_watched: bool
) -> None:
    service = ServiceManager({"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": process})
    assert (service.period, service.is_watched) == (period, is_watched)


def test_without_a_service_manager_nothing_is_sent_and_no_timer_runs() -> None:
    async def run() -> None:
        service = ServiceManager({})
        service.ready()
        service.reloading()
        service.watch(asyncio.get_running_loop(), lambda: pytest.fail("asked for nobody"))
        service.stopping(1)
        service.close()
        assert service.timer is None

    asyncio.run(run())


@pytest.mark.parametrize("place", ["/nowhere/notify", "relative", "/a\0b", "vsock:2:1234", "@" + "x" * 200])
def test_a_service_manager_that_cannot_be_reached_is_a_warning(place: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "cloudvpn"):
        service = ServiceManager({"NOTIFY_SOCKET": place})
        service.ready()
        service.close()
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("cannot connect to NOTIFY_SOCKET")


def test_a_service_manager_that_goes_or_does_not_listen_stops_nothing(
    manager: Manager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudvpn.service.PATIENCE_SECONDS", 0.01)
    service = ServiceManager({"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "20000"})
    with caplog.at_level(logging.WARNING, "cloudvpn"):
        for _ in range(10_000):  # more than its queue holds
            service.send("WATCHDOG=1", 0)
        assert not caplog.messages
        service.ready()
        assert caplog.messages == ["cannot tell the service manager READY=1: timed out"]
        manager.socket.close()
        service.ready()
        service.reloading()
    assert len(caplog.messages) == 1
    service.close()

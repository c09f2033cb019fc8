# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk is full under what a daemon writes: the status file, and the log that its stderr was sent to.

    a: tap0 --w1-- b: the daemon, tap0, with a disk of 64 KiB of its own
"""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tests.netns.lab import DAEMON, Lab, Node
from tests.netns.test_floods import events

PORT = 4000
NO_SPACE = "No space left on device"


class Disk:
    """A small file system that only the daemon sees, at `inside`."""

    def __init__(self, lab: Lab) -> None:
        self.inside = lab.directory / "disk"
        self.inside.mkdir()
        self.mount = f"mount -t tmpfs -o size=64k,mode=755 tmpfs {self.inside}"

    def command(self, redirect: str = "") -> list[str]:
        """Starts the daemon on it."""
        script = f'{self.mount} && exec "$@" {redirect}'
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *DAEMON]

    def seen(self, node: Node) -> Path:
        """Where we find it."""
        return Path(f"/proc/{node.pid}/root{self.inside}")

    def fill(self, node: Node) -> None:
        with (self.seen(node) / "filler").open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
            while True:
                file.write(bytes(1024))
        assert caught.value.errno == errno.ENOSPC, "the fault did not happen"

    def empty(self, node: Node) -> None:
        (self.seen(node) / "filler").unlink()


def start(lab: Lab, disk: Disk, redirect: str, *lines: str) -> Node:
    """10.9.0.1 in a, and the daemon in b: 10.9.0.2."""
    wire = lab.wire("a", "b")
    lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_address 10.9.0.1/24")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", "iface yes", "iface_address 10.9.0.2/24",
                 "conn_retry 200ms", *lines, command=disk.command(redirect))
    lab.wait_for_ping("b", "10.9.0.1")
    return b


@pytest.mark.parametrize("form", ["text", pytest.param("json", marks=pytest.mark.long)])
def test_under_a_full_disk_the_old_status_stays_whole_and_a_new_one_is_written_when_there_is_room(
    lab: Lab, form: str
) -> None:
    disk = Disk(lab)
    b = start(lab, disk, "", f"status_file {disk.inside}/status", "status-interval 100ms", f"status-format {form}")
    status = disk.seen(b) / "status"
    lab.until(lambda: status.exists() and b"198.18." in status.read_bytes(), 15, "a status")
    disk.fill(b)
    b.wait_log(f"error status-file: {disk.inside}/status: {NO_SPACE}$", 15)
    old = status.read_bytes()
    assert lab.host("b").ping("10.9.0.1", 50, 0.02).loss == 0       # a second: ten more attempts
    assert status.read_bytes() == old, "the fault did not happen"
    if form == "json":
        assert json.loads(old)["links"]
    else:
        assert old.startswith(b"cloudvpn status\n") and b"\nwritten: " in old, "it is whole"
    assert sorted(path.name for path in disk.seen(b).iterdir()) == ["filler", "status"], "no part of a new one is left"
    disk.empty(b)
    lab.until(lambda: status.read_bytes() != old, 15, "a new status")
    assert b.log_text().count("status-file") == 1, b.report()
    disk.fill(b)
    b.wait_log("error status-file: ", 15, 2)        # another time, another line
    assert "link down" not in b.log_text() and "Traceback" not in b.log_text(), b.report()
    assert b.terminate() == 0


def test_lines_of_a_log_on_a_full_disk_are_lost_and_nothing_else(lab: Lab) -> None:
    disk = Disk(lab)
    b = start(lab, disk, f"2>>{disk.inside}/log", f"connect 127.0.0.1 {PORT + 1}", "log_level debug",
              "status-interval 100ms")
    log = disk.seen(b) / "log"
    lab.until(lambda: "link up" in log.read_text(), 15, "its log is there")
    disk.fill(b)
    with log.open("ab", buffering=0) as file, pytest.raises(OSError):
        while True:     # to the end of its last page
            file.write(b"\n" * 1024)
    full, failed = log.stat().st_size, events(b)["dials_failed"]
    lab.until(lambda: events(b)["dials_failed"] > failed + 3, 30, "attempts to dial, each with a line of debug")
    assert lab.host("b").ping("10.9.0.1", 20, 0.02).loss == 0
    assert log.stat().st_size == full, "the fault did not happen"
    disk.empty(b)
    lab.until(lambda: log.stat().st_size > full, 15, "lines come again")
    assert "Traceback" not in log.read_text() and "Logging error" not in log.read_text()
    assert b.status().links
    assert b.terminate() == 0

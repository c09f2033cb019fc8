# SPDX-License-Identifier: GPL-3.0-or-later
"""`cloudvpn --demo` as a user runs it: what it shows, and that nothing of it is left, however it ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.alone,    # its namespaces have fixed names
]

Popen = subprocess.Popen[str]
WHOLE = 180.0       # seconds for a whole run on a busy machine; idle it takes 15
NOBODY = 65534


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The temporary folder of the demonstration: whatever is in there is its own."""
    with tempfile.TemporaryDirectory(prefix="cloudvpn-test-") as folder:
        os.chmod(folder, 0o777)     # for a run without root
        yield Path(folder)


@pytest.fixture
def start(scratch: Path) -> Iterator[Callable[..., Popen]]:
    """Starts demonstrations; one that a failed test leaves running is ended."""
    started = []

    def start(python: str = sys.executable, **more: Any) -> Popen:
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(scratch), **more}
        started.append(subprocess.Popen([python, "-m", "cloudvpn", "--demo"], text=True, **more))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=WHOLE)


def environment(scratch: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def daemons(scratch: Path) -> list[str]:
    """Processes that were given a file in `scratch`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(scratch) in path.read_bytes():
                found.append(path.parent.name)
        except OSError:     # it has just ended
            continue
    return found


def leftovers(scratch: Path) -> list[str]:
    names = [path.name for path in Path("/run/netns").glob("cloudvpn-demo-*")]
    return [*names, *(path.name for path in scratch.iterdir()), *daemons(scratch)]


def read_until(process: Popen, pattern: str) -> str:
    """The first line of its output that matches."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if re.search(pattern, line):
            return line
        lines.append(line)
    raise AssertionError(f"no /{pattern}/ in:\n{''.join(lines)}{process.communicate()[1]}")


def check_story(text: str) -> None:
    pings = re.findall(r"^  (\w) -> (\w)  10\.77\.0\.\d +([\d.]+) ms  ", text, re.MULTILINE)
    assert [pair for *pair, _ in pings] == [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b"]], text
    assert all(float(rtt) > 0 for *_, rtt in pings), text
    rates = re.findall(r"^  (\w) -> (\w)  10\.77\.0\.\d +(\d+) Mbit/s  .*(?:direct|through r)", text, re.MULTILINE)
    assert [pair for *pair, _ in rates] == [["a", "b"], ["a", "c"]], text
    assert all(float(rate) > 0 for *_, rate in rates), text
    assert text.count(" link down: ") >= 2, text
    outage = re.search(r"^  a -> b  10\.77\.0\.2 +([\d.]+) s out  through r.* now;", text, re.MULTILINE)
    assert outage and 0 <= float(outage[1]) < 30, text
    assert len(re.findall(r"^  route to 02:00:00:00:00:0[abc] ", text, re.MULTILINE)) == 3, text


def test_shows_everything_once_where_there_is_no_terminal(start: Callable[..., Popen], scratch: Path) -> None:
    process = start()
    out, complaints = process.communicate(timeout=WHOLE)
    assert (process.returncode, complaints) == (0, ""), out
    check_story(out)
    assert leftovers(scratch) == []


def test_waits_on_a_terminal_with_an_entrance_that_works(start: Callable[..., Popen], scratch: Path) -> None:
    master, slave = pty.openpty()
    process = start(stdout=slave, stderr=slave)
    os.close(slave)
    out = b""
    while b"Ctrl-C ends it" not in out:
        data = os.read(master, 4096)    # OSError: it ended early
        out += data
    entrance = re.search(rb"^  (.*) ping 10\.77\.0\.3\r$", out, re.MULTILINE)
    assert entrance, out
    done = subprocess.run(
        [*entrance[1].decode().split(), "ip", "-4", "-br", "addr"], capture_output=True, text=True, check=True)
    assert "10.77.0.1/24" in done.stdout
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=WHOLE) == 0
    os.close(master)
    assert leftovers(scratch) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, " link up: "), (signal.SIGTERM, " link up: "), (signal.SIGHUP, " link up: "),
     (signal.SIGINT, "Data over TCP")],
)  # fmt: skip
def test_leaves_nothing_when_it_is_interrupted(
    start: Callable[..., Popen], scratch: Path, number: signal.Signals, moment: str
) -> None:
    process = start()
    read_until(process, moment)
    assert daemons(scratch)
    process.send_signal(number)
    _, complaints = process.communicate(timeout=WHOLE)
    assert (process.returncode, complaints) == (130, "")
    assert leftovers(scratch) == []


def test_shows_the_log_of_a_daemon_that_dies_and_ends(start: Callable[..., Popen], scratch: Path) -> None:
    process = start()
    relay = int(read_until(process, r" r  cloudvpn .* process \d+").split()[-1])
    read_until(process, " r  link up: ")
    os.kill(relay, signal.SIGKILL)
    _, complaints = process.communicate(timeout=WHOLE)
    assert process.returncode == 1
    assert "the daemon of r ended with -9" in complaints
    assert "link up: " in complaints
    assert leftovers(scratch) == []


def test_refuses_a_second_one_and_clears_away_a_killed_one(start: Callable[..., Popen], scratch: Path) -> None:
    first = start()
    read_until(first, " link up: ")
    second = start()
    assert "another demonstration is running" in second.communicate(timeout=WHOLE)[1]
    assert second.returncode == 1
    assert first.poll() is None
    first.kill()
    first.communicate()
    end = time.monotonic() + WHOLE
    while daemons(scratch) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(leftovers(scratch)) == 5     # four names and a folder, but no process
    third = start()
    read_until(third, " link up: ")
    assert len(list(scratch.iterdir())) == 1
    third.send_signal(signal.SIGINT)
    third.communicate(timeout=WHOLE)
    assert leftovers(scratch) == []


def test_names_the_program_that_is_missing(start: Callable[..., Popen], scratch: Path) -> None:
    process = start(env=environment(scratch) | {"PATH": "/nonexistent"})
    assert "install the package iproute2" in process.communicate(timeout=WHOLE)[1]
    assert process.returncode == 1


def can_run(python: str, scratch: Path, user: dict[str, Any]) -> bool:
    probe = [python, "-c", "import cloudvpn.daemon, cloudvpn.demo"]
    try:
        return subprocess.run(probe, env=environment(scratch), capture_output=True, check=False, **user).returncode == 0
    except OSError:
        return False


def test_works_without_root_or_names_what_is_missing(start: Callable[..., Popen], scratch: Path) -> None:
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    # The interpreter of the tests may be in a home that is closed to others; its twin of the system will do.
    twins = (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")
    python = next((twin for twin in twins if can_run(twin, scratch, user)), None)
    if python is None:
        pytest.skip("no Python that other users can run has what the daemon needs")
    process = start(python, **user)
    out, complaints = process.communicate(timeout=WHOLE)
    if process.returncode == 0:
        check_story(out)
    else:
        reasons = ("no root, and this system does not allow unprivileged user namespaces (", "/dev/net/tun is not ")
        assert process.returncode == 1 and complaints.startswith(tuple(f"cloudvpn: {text}" for text in reasons))
    assert leftovers(scratch) == []

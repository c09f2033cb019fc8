# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon as a process: its arguments, its limits, its signals, its log and its status file."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cloudvpn import __version__
from tests.netns.keys import Identity, identity, write_private
from tests.netns.lab import DAEMON, Lab, Node

PORT = 4000
LINE = r"/\S+\.conf:\d+: "     # where an error lies
NO_RAISING = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
TIMED = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "

# The status of the 2009 daemon, line by line; what is new is one line of a connection, and the last block.
RATE = r"[\d.]+(B|[KMGT]iB)/s, +\d+pkt/s; total [\d.]+(B|[KMGT]iB), \d+pkt"
ADDRESS = "([0-9a-f]{2}:){5}[0-9a-f]{2}"
LAYOUT = rf"""cloudvpn status
uptime: [\d.]+s

local interface: {ADDRESS}
listening sockets: 1

connections: 1
connection \d+ \tping \d+ \troute count 1 \t\(fd \d+\)
 = connected to addr `198\.18\.1\.2 \d+'
( = certificate .*
)* = connected for [\d.]+ seconds
 >> in  {RATE}
 << out {RATE}
 `--node [0-9a-f]{{16}} \thops 0 \tcost 0 \tnumber \d+ \tlabel 0
( `--node .*
)*---

 >> total in  {RATE}
 << total out {RATE}
---

local route count: 2
(route to {ADDRESS} \tvia conn (-1|\d+) \tping \d+ \tdistance [01]
){{2}}---

(.+
)*---
"""


def cloudvpn(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DAEMON, *map(str, words)], capture_output=True, text=True, timeout=30, check=False)


def write_config(path: Path, keys: Identity, *lines: str) -> Path:
    common = [f"cert {keys.cert}", f"key {keys.key}", f"ca {keys.ca}", f"listen 127.0.0.1 {PORT}"]
    path.write_text("".join(f"{line}\n" for line in [*common, *lines]))
    return path


def errors(node: Node) -> list[str]:
    assert "Traceback" not in node.log_text(), node.report()
    return [line for line in node.log_text().splitlines() if line.startswith("cloudvpn: ")]


def make_pair(lab: Lab, *lines: str) -> tuple[Node, Node]:
    """b dials a."""
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_dev tap0", *lines)
    lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", "iface yes", "conn_retry 1min", *lines)
    for node in (a, b):
        node.wait_log("link up: ", 15)
    return a, b


def open_files(node: Node) -> tuple[int, int]:
    limits = Path(f"/proc/{node.pid}/limits").read_text()
    soft, hard = re.findall(r"^Max open files +(\d+) +(\d+)", limits, re.MULTILINE)[0]
    return int(soft), int(hard)


# Arguments


def test_version_and_help_are_printed(tmp_path: Path) -> None:
    version = cloudvpn("--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"cloudvpn {__version__}\n", "")
    usage = cloudvpn("--help")
    assert (usage.returncode, usage.stderr) == (0, "") and usage.stdout.startswith("usage: cloudvpn ")
    for option in ("connect", "max_connections", "status-file"):
        assert re.search(rf"^  -{option} ", usage.stdout, re.MULTILINE)


def test_no_words_at_all_are_an_error() -> None:
    nothing = cloudvpn()
    assert nothing.returncode == 1 and nothing.stderr.startswith("usage: cloudvpn node.conf")


def test_check_tells_a_good_configuration_from_each_mistake_of_a_bad_one(tmp_path: Path) -> None:
    keys = identity("A")
    good = cloudvpn("--check", write_config(tmp_path / "good.conf", keys, "poll_interval 5ms"))
    assert (good.returncode, good.stdout) == (0, "cloudvpn: the configuration is good\n")
    assert "cloudvpn: poll_interval: accepted, but has no effect: 2009 needed it on Win32\n" in good.stderr

    write_config(tmp_path / "more.conf", keys, "mac 03:00:00:00:00:01")
    lines = ["conect 10.0.0.1 4000", "# fine", "conn_retry soon", "max_connections 70000", "@include more.conf",
             f"crl {tmp_path}/none.pem", "listen 300.1.1.1 4000", "conn_keepalive 5min"]  # fmt: skip
    bad = cloudvpn("--check", write_config(tmp_path / "bad.conf", keys, *lines))
    assert (bad.returncode, bad.stdout) == (1, "")
    expected = [
        "bad.conf:5: conect: unknown option, the nearest known one is connect",
        "bad.conf:7: conn_retry: expected a time .*, got \"soon\"",
        "bad.conf:8: max_connections: expected a number from 1 to 65535, got \"70000\"",
        "more.conf:5: mac: expected .*",
        "bad.conf:11: listen: expected HOST PORT.*",
        "bad.conf:10: crl: cannot read \".*none.pem\": No such file or directory",
        "bad.conf:12: conn_keepalive: conn_timeout must exceed conn_keepalive.*",
    ]  # fmt: skip
    said = bad.stderr.splitlines()
    assert len(said) == len(expected), bad.stderr
    for one in expected:
        assert any(re.fullmatch(f"cloudvpn: {re.escape(str(tmp_path))}/{one}", line) for line in said), (one, said)

    damaged = tmp_path / "damaged.key"
    write_private(damaged, b"-----BEGIN PRIVATE KEY-----\nnonsense\n")
    unfit = cloudvpn("--check", write_config(tmp_path / "unfit.conf", keys, f"key {damaged}"))
    assert unfit.returncode == 1 and f'/unfit.conf:5: key: cannot use "{damaged}": it holds no good' in unfit.stderr
    assert len(unfit.stderr.splitlines()) == 1


# Starts that fail


def test_a_start_that_fails_ends_with_1_and_a_message_and_leaves_nothing_behind(lab: Lab) -> None:
    host = lab.host("a")
    with host.inside():
        taken = socket.create_server(("127.0.0.1", PORT))
    bad_key = lab.directory / "bad.key"
    write_private(bad_key, b"-----BEGIN PRIVATE KEY-----\nnonsense\n")
    interface = ["iface yes", "iface_dev tap0", f"listen 127.0.0.1 {PORT + 1}"]
    failures = {
        "port": ([*interface, "iface_persist yes", f"listen 127.0.0.1 {PORT}"],
                 f"{LINE}listen 127.0.0.1 {PORT}: address already in use; .*`ss -ltnp`"),
        "tunctl": ([*interface, "tunctl /dev/net/none"],
                   "opening TAP tap0 through /dev/net/none: the device is missing: .*modprobe tun"),
        "key": ([*interface, f"key {bad_key}"], f'{LINE}key: cannot use "{bad_key}": it holds no good PRIVATE'),
        "pair": ([*interface, f"key {identity('other').key}"], f"{LINE}key: cannot use .*it does not fit the first"),
        "files": (["listen 127.0.0.1 0", "max_connections 65535"],
                  "max_connections 65535 needs 65599 open files, the limit is 4096: .*LimitNOFILE=65599"),
    }  # fmt: skip
    files = {path.name for path in lab.directory.iterdir()}
    for name, (lines, message) in failures.items():
        command = [*NO_RAISING, "prlimit", "--nofile=256:4096", *DAEMON] if name == "files" else DAEMON
        node = lab.node("a", *lines, name=name, command=command)
        assert node.wait() == 1
        assert len(errors(node)) == 1 and re.match(f"(?i)cloudvpn: {message}", errors(node)[0]), node.report()
        assert not host.has("tap0") and not host.is_listening(PORT + 1)
        files |= {f"{name}.conf", f"{name}.log"}
    assert {path.name for path in lab.directory.iterdir()} == files
    taken.close()


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed(lab: Lab) -> None:
    limits = {"raised": ("256:4096", (1064, 4096)), "enough": ("2000:4096", (2000, 4096))}
    for name, (given, _) in limits.items():
        command = [*NO_RAISING, "prlimit", f"--nofile={given}", *DAEMON]
        lab.node("a", "listen 127.0.0.1 0", "max_connections 1000", name=name, command=command)
    for node in lab.nodes:
        node.wait_log("listening on 127.0.0.1:", 15)
        assert open_files(node) == limits[node.name][1]
        assert node.terminate() == 0


# Ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_links_and_ends_with_0(lab: Lab, number: signal.Signals) -> None:
    a, b = make_pair(lab)
    lab.until(lambda: a.status_file.exists() and a.status().links, 5, "the status file")
    begun = time.monotonic()
    a.signal(number)
    assert a.wait() == 0
    assert time.monotonic() - begun < 3, "comm_close_timeout is 10 s"
    b.wait_log(r"info link down: a at 198\.18\.1\.1:4000: closed by the peer$")
    a.wait_log(rf"info {number.name}: closing all links\n(?:.* info link down: b at .*: this node is shutting down\n)"
               r".* info stopped\n\Z")
    assert not a.host.has("tap0") and not a.status_file.exists()
    assert not list(lab.directory.glob(".*")), "a temporary file is left"


def test_the_side_that_dialled_says_goodbye_too(lab: Lab) -> None:
    a, b = make_pair(lab)
    assert b.terminate() == 0
    b.wait_log(r"info SIGTERM: closing all links\n(?:.* info link down: a at .*: this node is shutting down\n)"
               r".* info stopped\n\Z")
    a.wait_log(r"info link down: b at .*: closed by the peer$")


def test_a_peer_that_does_not_answer_delays_the_end_by_comm_close_timeout_only(lab: Lab) -> None:
    a, b = make_pair(lab, "comm_close_timeout 1s")
    b.stop()
    begun = time.monotonic()
    assert a.terminate() == 0
    assert 0.9 < time.monotonic() - begun < 2.5
    a.wait_log("info link down: b at ")
    assert "Traceback" not in a.log_text()
    b.cont()
    b.wait_log("info link down: a at ")


# The status file


def test_the_status_has_the_lines_of_2009_and_is_always_whole(lab: Lab) -> None:
    a, _ = make_pair(lab, "status-interval 100ms")
    lab.until(lambda: re.fullmatch(LAYOUT, a.status().text), 10, "a status in the layout of 2009")
    seen: set[int] = set()
    end = time.monotonic() + 20
    reads = 0
    while len(seen) < 15 and time.monotonic() < end:
        with a.status_file.open() as file:
            text = file.read()
            seen.add(os.fstat(file.fileno()).st_mtime_ns)
        assert text.startswith("cloudvpn status\nuptime: ") and text.endswith("\n---\n")
        assert text.count("\n---\n") == 4
        reads += 1
    assert len(seen) == 15 and reads > 15


def test_a_status_that_cannot_be_written_is_said_once_and_stops_nothing(lab: Lab) -> None:
    folder, missing = lab.directory / "folder", lab.directory / "none" / "status"
    folder.mkdir()
    nodes = [
        lab.node("a", "listen 127.0.0.1 0", "status-interval 100ms", f"status-file {path}", name=name)
        for name, path in {"homeless": missing, "blocked": folder}.items()
    ]
    for node in nodes:
        node.wait_log("error status-file: ", 15)
    begun = time.monotonic()
    lab.until(lambda: time.monotonic() - begun > 1, 5, "ten more attempts of each")
    for node in nodes:
        assert node.log_text().count("status-file: ") == 1, node.report()
    missing.parent.mkdir()
    lab.until(missing.exists, 5, "the status, once its folder is there")
    for node in nodes:
        assert node.terminate() == 0, node.report()
        assert "Traceback" not in node.log_text(), node.report()
    assert folder.is_dir() and not missing.exists()
    assert not list(lab.directory.glob(".*"))


# The log


def test_the_log_is_a_line_an_event_with_a_time_or_for_the_journal_a_priority(lab: Lab) -> None:
    log = lab.directory / "journal.log"
    log.touch()
    stream = f"JOURNAL_STREAM={log.stat().st_dev}:{log.stat().st_ino}"
    lines = ["listen 127.0.0.1 0", "poll_interval 4ms", "poll_interval 5ms"]
    plain = lab.node("a", *lines, name="plain", command=["env", "JOURNAL_STREAM=1:1", *DAEMON])
    journal = lab.node("a", *lines, name="journal", command=["env", stream, *DAEMON])
    quiet = lab.node("a", *lines, "log_level error", name="quiet")
    events = [
        ("info", "poll_interval: accepted, but has no effect: 2009 needed it on Win32"),
        ("warning", 'ca: "lab" has no CRL: its certificates cannot be revoked'),
        ("info", rf"cloudvpn {re.escape(__version__)}, process \d+"),
        ("info", r"listening on 127\.0\.0\.1:\d+"),
        ("info", "SIGTERM: closing all links"),
        ("info", "stopped"),
    ]
    lab.until(lambda: quiet.status().listening, 15, "the quiet one")
    for node in (plain, journal):
        node.wait_log("listening on", 15)
    for node in (quiet, plain, journal):
        assert node.terminate() == 0
    assert quiet.log_text() == ""
    priority = {"info": "<6>", "warning": "<4>"}
    for node, starts in ((plain, {level: f"{TIMED}{level} " for level in priority}), (journal, priority)):
        said = node.log_text().splitlines()
        assert len(said) == len(events), node.report()
        for level, text in events:
            assert any(re.fullmatch(starts[level] + text, line) for line in said), (level, text, said)

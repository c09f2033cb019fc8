# SPDX-License-Identifier: GPL-3.0-or-later
"""A real daemon that gives its rights up: none is left, none comes back, and all goes on working.

    a: listens on :4000, becomes `daemon` in group `mail` in an empty directory --w1-- b: dials a, stays root
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import sandbox
from tests.netns.keys import identity
from tests.netns.lab import DAEMON, Host, Lab, Node, Wire
from tests.netns.test_process import NO_RAISING
from tests.netns.test_reload import REVOKED, keygen, reload

PORT = 4000
USER, GROUP = 1, 8  # of Debian and most others: daemon, mail
NAMES = ["user daemon", "group mail"]
TAP = ["iface yes", "iface_dev tap0"]
INTRUDER = [sys.executable, str(Path(__file__).with_name("intruder.py"))]
READ = "info SIGHUP: the configuration, keys, CAs and CRLs were read again and are in use"


def make_jail(lab: Lab) -> Path:
    """Empty, and root's, but for a directory where the node may write."""
    jail = lab.directory / "jail"
    (jail / "run").mkdir(parents=True)
    lab.directory.chmod(0o755)
    os.chown(jail / "run", USER, GROUP)
    return jail


def confine(lab: Lab, name: str, *lines: str, command: list[str] = DAEMON) -> Node:
    jail = make_jail(lab)
    node = lab.node(name, *lines, *NAMES, f"chroot {jail}", f"status-file {jail}/run/status", command=command)
    node.status_file = jail / "run" / "status"
    return node


def make_pair(lab: Lab, *lines_of_a: str) -> tuple[Node, Node]:
    wire = lab.wire("a", "b")
    a = confine(lab, "a", f"listen 0.0.0.0 {PORT}", *TAP, "iface_address 10.9.0.1/24", *lines_of_a)
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", *TAP, "iface_address 10.9.0.2/24", "conn_retry 200ms")
    lab.wait_for_ping("b", "10.9.0.1")
    return a, b


def facts(task: Path) -> dict[str, str]:
    """/proc/PID/status."""
    return dict(re.findall(r"^(\w+):\s*(.*?)\s*$", (task / "status").read_text(), re.MULTILINE))


def children(node: Node) -> dict[str, Path]:
    """The helpers by their names, as /proc/PID."""
    pids = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return {facts(Path("/proc", pid))["Name"]: Path("/proc", pid) for pid in pids}


def assert_powerless(task: Path) -> None:
    found = facts(task)
    assert found["Uid"].split() == [str(USER)] * 4 and found["Gid"].split() == [str(GROUP)] * 4, found
    assert found["Groups"].split() == [str(GROUP)], found
    assert {int(found[f"Cap{one}"], 16) for one in ("Inh", "Prm", "Eff", "Amb")} == {0}, found
    assert found["NoNewPrivs"] == "1", found


def assert_secret(process: Path) -> None:
    """Another process of the same user cannot look into it, and it leaves no core."""
    look = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "cat"]
    for name in ("environ", "maps", "mem"):
        assert subprocess.run([*look, process / name], capture_output=True, check=False).returncode, name
    assert re.search(r"^Max core file size +0 +0 ", (process / "limits").read_text(), re.MULTILINE)


# What is left


def test_no_thread_has_a_right_left_and_only_the_monitor_keeps_its_own(lab: Lab) -> None:
    a, b = make_pair(lab, f"connect localhost {PORT + 1}")
    process, jail = Path(f"/proc/{a.pid}"), lab.directory / "jail"
    lab.until(lambda: len(list((process / "task").iterdir())) > 1, 10, "a thread beside the loop")
    reload(a, READ)
    for task in (process / "task").iterdir():
        assert_powerless(task)
    assert os.readlink(process / "root") == os.readlink(process / "cwd") == str(jail)
    helpers = children(a)
    assert set(helpers) == {"cloudvpn-root", "cloudvpn-names"}
    for task in (helpers["cloudvpn-names"] / "task").iterdir():
        assert_powerless(task)
    assert facts(helpers["cloudvpn-root"])["Uid"].split() == ["0"] * 4
    for one in (process, *helpers.values()):
        assert_secret(one)
    links = {os.readlink(one) for one in (process / "fd").iterdir()}
    assert not any(Path(link).is_dir() and not link.startswith(str(jail)) for link in links), "a way out of the chroot"
    for one in (process / "fdinfo").iterdir():  # a thread of the kernel would go on as root
        assert re.search(r"^SqThread:\t-1$", text := one.read_text(), re.MULTILINE) or "SqThread" not in text
    assert not children(b), "b gives nothing up"
    assert_secret(Path(f"/proc/{b.pid}"))


def test_an_intruder_gets_nothing_back_and_nothing_from_outside(lab: Lab) -> None:
    """The same attempts by a node that stays root show that they are good ones."""
    root = lab.node("a", "listen 127.0.0.1 0", name="root", command=INTRUDER)
    root.wait_log("^intruder: done$", 15)
    confined = confine(lab, "a", "listen 127.0.0.1 0", *TAP, "iface_down_command true", command=INTRUDER)
    confined.wait_log("^intruder: done$", 15)

    def outcomes(node: Node) -> dict[str, str]:
        return dict(re.findall(r"^intruder: (.*?): (.*)$", node.log_text(), re.MULTILINE))

    needs_jail = {"chroot", "core", "capability"}
    assert {name for name, said in outcomes(root).items() if said != "worked"} <= needs_jail, root.report()
    said = outcomes(confined)
    for name in ("setuid", "setresuid", "setgid", "setgroups", "capability", "namespace", "chroot", "port",
                 "kill monitor", "trace monitor", "trace resolver"):  # fmt: skip
        assert said[name].startswith("PermissionError: [Errno 1") or "not permitted" in said[name], (name, said[name])
    for name in ("outside", "dots"):
        assert said[name].startswith("FileNotFoundError"), (name, said[name])
    assert said["shadow"] == said["directory"] == "PermissionError: [Errno 13] no option names it"
    assert said["other words"].startswith("EOFError"), "the monitor talks no longer to who sends such things"
    assert said["no interface"] == "SetupError: this is no interface, or it was deleted"
    assert re.match("SetupError: opening TAP tap0 through .*: another program uses", said["second interface"])
    assert "worked" not in said.values() and len(said) == 19, said
    assert confined.terminate() == 0
    assert "error process cloudvpn-root ended" in confined.log_text()


@pytest.mark.parametrize(
    ("lines", "user", "group", "warning"),
    [
        (["user daemon"], USER, 1, None),
        (["group mail"], 0, GROUP, "group: without user the node stays root, whom a group does not bind"),
        (["chroot jail"], 0, None, "chroot: without user the node stays root, who can leave a chroot"),
        (["user root"], 0, None, "user: this is root, who keeps all rights: name another user"),
        (["user daemon", "group daemon"], USER, 1, None),
    ],
)
def test_each_option_alone_does_its_part_and_what_is_weak_is_said(
    lab: Lab, lines: list[str], user: int, group: int | None, warning: str | None
) -> None:
    make_jail(lab)
    a = lab.node("a", f"listen 127.0.0.1 {PORT}", "status-file jail/run/status", *lines)
    a.status_file = lab.directory / "jail/run/status"
    lab.until(lambda: a.status().listening, 15, "the status")
    found = facts(Path(f"/proc/{a.pid}"))
    assert found["Uid"].split() == [str(user)] * 4
    if group is not None:
        assert (found["Gid"].split(), found["Groups"]) == ([str(group)] * 4, str(group))
    inside = os.readlink(f"/proc/{a.pid}/root")
    assert inside == (str(lab.directory / "jail") if lines == ["chroot jail"] else "/")
    assert len(re.findall("^.* warning .*root", a.log_text(), re.MULTILINE)) == (warning is not None), a.report()
    assert warning is None or warning in a.log_text()
    reload(a, READ)
    assert a.terminate() == 0 and "Traceback" not in a.log_text()


def test_the_rights_that_the_unit_names_are_enough(lab: Lab) -> None:
    wire, jail = lab.wire("a", "b"), make_jail(lab)
    rights = "CAP_NET_ADMIN,CAP_SETUID,CAP_SETGID,CAP_SYS_CHROOT"
    b = lab.node("b", f"listen 0.0.0.0 {PORT}", *TAP, "iface_address 10.9.0.2/24")
    b.wait_log("listening on", 15)
    a = lab.node("a", f"connect {wire.address('b')} {PORT}", *TAP, "iface_address 10.9.0.1/24", *NAMES,
                 f"chroot {jail}", f"status-file {jail}/run/status",
                 command=[sys.executable, sandbox.__file__, str(jail), rights, *DAEMON])  # fmt: skip
    lab.wait_for_ping("a", "10.9.0.2")
    assert_powerless(Path(f"/proc/{a.pid}"))
    reload(a, READ)
    assert a.terminate() == 0 and " error " not in a.log_text(), a.report()


# What goes on


def test_the_interface_is_followed_set_up_again_and_given_back_by_the_user_s_command(lab: Lab) -> None:
    told = lab.directory / "told"
    commands = [f'iface_up_command echo "up $IFACE $(id -u)" >> {told}',
                f'iface_down_command echo "down $IFACE $MAC $(id -u)" >> {told}']  # fmt: skip
    a, _ = make_pair(lab, "iface_address fd09::1/64", *commands)
    host = lab.host("a")

    def addresses() -> set[str]:
        found = host.ip("addr show tap0")[0]["addr_info"]
        return {one["local"] for one in found if one["scope"] == "global"}

    host.ip("link set tap0 down")
    a.wait_log("warning interface tap0 is down")
    host.ip("link set tap0 up")
    lab.until(lambda: addresses() == {"10.9.0.1", "fd09::1"}, 5, "what the kernel takes away is set again")
    host.ip("link set tap0 address 02:00:5e:10:00:77")
    a.wait_log("info interface tap0: MAC changed from .* to 02:00:5e:10:00:77")
    host.ip("link set tap0 down")
    host.ip("link set tap0 name lan0")
    host.ip("link set lan0 up")
    a.wait_log("info interface tap0 was renamed to lan0")
    host.ip("link del lan0")
    a.wait_log("warning interface lan0 is gone")
    host.ip("tuntap add lan0 mode tap")
    a.wait_log("info interface lan0, MAC .*, offloads for TCP")
    lab.wait_for_ping("b", "10.9.0.1")
    mac = host.mac("lan0").hex(":")
    assert a.terminate() == 0, a.report()
    assert told.read_text() == f"up tap0 0\nup lan0 0\ndown lan0 {mac} 0\n"
    assert "Traceback" not in a.log_text() and " error " not in a.log_text(), a.report()


def test_who_is_revoked_goes_and_a_renewed_certificate_is_shown(lab: Lab) -> None:
    folder, jail = lab.directory / "mesh", make_jail(lab)
    place = lab.wire("a", "b").address("a")
    keygen(folder, "ca")
    words = {"a": ["--listen", "0.0.0.0", PORT], "b": ["--connect", place, PORT]}
    for name, ways in words.items():
        keygen(folder, "node", name)
        keygen(folder, "config", name, *ways)
    common = "reload_interval 1s\nconn_retry 200ms\nstatus-interval 100ms\n"
    with (folder / "a.conf").open("a") as config:
        config.write(f"user daemon\ngroup mail\nchroot {jail}\nstatus-file {jail}/run/status\n{common}")
    with (folder / "b.conf").open("a") as config:
        config.write(f"status-file b.status\n{common}")
    a, b = (lab.run_node(name, folder / f"{name}.conf") for name in "ab")
    a.status_file = jail / "run/status"
    for node in (a, b):
        node.wait_log("info link up: ", 15)

    keygen(folder, "renew", "a")
    assert stat_owner(folder / "a.key") == (0, 0o600), "the node itself cannot read it"
    a.wait_log("info key, certificate, CAs and CRLs were read again: a file has changed")
    leftovers = [path for path in jail.iterdir() if path.name.startswith(".cloudvpn-")]
    assert [path.stat().st_size for path in leftovers] == [0], "the encrypted key does not stay there"
    keygen(folder, "node", "a", "--force")
    a.wait_log("info key, certificate, CAs and CRLs were read again: a file has changed", 5, 2)
    a.host.reset_tcp(PORT)
    b.wait_log("info link up: a", 5, 2)

    keygen(folder, "revoke", "b")
    a.wait_log(rf"warning refused b at .*, its link is cut: {REVOKED}")
    a.wait_log(rf"warning refused 198\.18\.1\.2:\d+: {REVOKED}", 15)

    (folder / "a.key").chmod(0o644)
    a.wait_log(f'error .*: key: "{folder}/a.key" has mode 0644, others may read or change it: run `chmod 0600')
    (folder / "a.key").chmod(0o600)
    a.wait_log("info the files of key, certificate, CAs and CRLs are good again")
    (folder / "crl.pem").rename(folder / "away.pem")
    a.wait_log('error .*: crl: cannot use ".*/crl.pem": it does not exist, correct the path')
    assert a.terminate() == 0 and "Traceback" not in a.log_text(), a.report()
    assert not [path for path in jail.iterdir() if path.name.startswith(".cloudvpn-")]


def stat_owner(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_uid, info.st_mode & 0o777


def test_a_changed_configuration_is_read_from_outside_and_a_bad_one_is_told(lab: Lab) -> None:
    a, _ = make_pair(lab)
    good = a.config.read_text()
    a.config.write_text(good.replace(f"listen 0.0.0.0 {PORT}", f"listen 0.0.0.0 {PORT}\nlisten localhost {PORT + 1}"))
    reload(a, READ)
    a.wait_log(rf"info listening on 127\.0\.0\.1:{PORT + 1}$")
    a.config.write_text(good + "conn_retry soon\nuser nobody-of-that-name\n")
    said = reload(a, "error SIGHUP: the configuration stays")
    assert 'conn_retry: expected a time' in said and 'user: expected the name of a user of this system' in said
    a.config.write_text(good + "listen 0.0.0.0 80\nuser nobody\n")
    said = reload(a, READ)
    assert "warning changed, but need a restart: user (from daemon to nobody)" in said
    assert re.search(r"error .*: listen 0\.0\.0\.0 80: permission denied.*: the other listeners go on", said, re.I)
    assert a.host.is_listening(PORT) and "link down" not in a.log_text()


# Names


class NameServer:
    """Answers A on UDP port 53 of a host; the table may change."""

    def __init__(self, host: Host, address: str, table: dict[str, str]) -> None:
        self.table, self.asked = table, 0
        with host.inside():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            query, client = self.socket.recvfrom(1024)
            if not query:
                return
            end = query.index(0, 12) + 5
            name, at = [], 12
            while query[at]:
                name.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            found = self.table.get(".".join(name)) if query[end - 4 : end - 2] == b"\0\1" else None
            self.asked += 1
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(found) if found else b""
            header = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, bool(found), 0, 0)
            self.socket.sendto(header + query[12:end] + answer, client)

    def close(self) -> None:
        with contextlib.suppress(OSError):      # not connected, but the thread wakes up
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@contextlib.contextmanager
def name_server(host: Host, wire: Wire, table: dict[str, str]) -> Iterator[NameServer]:
    server = NameServer(host, wire.address(host.name), table)
    try:
        yield server
    finally:
        server.close()


def test_names_are_looked_up_anew_outside_of_the_chroot(lab: Lab) -> None:
    """The name moves; then the name server does, and /etc/resolv.conf follows, as on a laptop."""
    wires = [lab.wire("a", "b") for _ in range(2)]
    first, second = (wire.address("a") for wire in wires)
    a = lab.node("a", f"listen 0.0.0.0 {PORT}")
    lab.until(lambda: a.host.is_listening(PORT), 15, "a listens")
    settings, table = lab.directory / "resolv.conf", {"alpha.test": first}
    settings.write_text(f"nameserver {first}\noptions timeout:1 attempts:1\n")
    mount = f'mount --bind {settings} /etc/resolv.conf && exec "$@"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *DAEMON]
    with name_server(a.host, wires[0], table):
        b = confine(lab, "b", f"connect alpha.test {PORT}", "conn_retry 200ms", command=command)
        b.wait_log(rf"info link up: a at {first}:{PORT}, dialled", 15)
        assert not list((lab.directory / "jail").glob("etc*")), "the chroot has no file of a resolver"
        table["alpha.test"] = second
        assert a.host.reset_tcp(PORT), "the fault did not happen"
        b.wait_log(rf"info link up: a at {second}:{PORT}, dialled", 10)
        table.clear()
        assert a.host.reset_tcp(PORT), "the fault did not happen"
        b.wait_log(rf"warning no link to alpha\.test {PORT}: (No address|Name or service|Temporary failure)", 10)
    with name_server(a.host, wires[1], {"alpha.test": first}) as server:
        settings.write_text(f"nameserver {second}\n")
        b.wait_log(rf"info link up: a at {first}:{PORT}, dialled", 15, 2)
        assert server.asked
    assert b.terminate() == 0 and "Traceback" not in b.log_text()


# The status file


def test_the_status_is_written_as_the_user_inside_the_chroot_through_no_link(lab: Lab) -> None:
    treasure, jail = lab.directory / "treasure", make_jail(lab)
    treasure.write_text("root's\n")
    for path in (jail / "run/status", jail / "treasure"):
        path.symlink_to(treasure)
    os.symlink("run", jail / "way")
    a = lab.node("a", f"listen 127.0.0.1 {PORT}", *NAMES, f"chroot {jail}", f"status-file {jail}/way/../way/status",
                 command=["env", "TZ=Asia/Kolkata", *DAEMON])
    status = jail / "run/status"
    lab.until(lambda: not status.is_symlink() and status.exists(), 15, "the status")
    info = status.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (USER, GROUP, 0o644)
    assert status.read_text().startswith("cloudvpn status\n") and treasure.read_text() == "root's\n"
    assert a.terminate() == 0
    assert not status.exists() and list((jail / "run").iterdir()) == []
    if Path("/usr/share/zoneinfo/Asia/Kolkata").exists():
        assert {line[23:29] for line in a.log_text().splitlines()} == {"+05:30"}, "the log keeps its time zone"


def test_a_place_where_the_user_may_not_write_is_said_and_stops_nothing(lab: Lab) -> None:
    lab.directory.chmod(0o755)
    a = lab.node("a", f"listen 127.0.0.1 {PORT}", "user daemon")
    a.wait_log(rf"error status-file: {a.status_file}: Permission denied$", 15)
    assert a.host.is_listening(PORT) and not a.status_file.exists()
    assert a.terminate() == 0


# Memory


def locked(process: Path) -> int:
    """Bytes."""
    return int(facts(process)["VmLck"].split()[0]) * 1024


def test_all_memory_is_locked_where_root_stays(lab: Lab) -> None:
    make_jail(lab)
    nodes = [lab.node("a", f"listen 127.0.0.1 {port}", "chroot jail", "status-file jail/run/status",
                      *lines, name=f"node{port}") for port, lines in ((PORT, ["mlockall yes"]), (PORT + 1, []))]
    for node in nodes:
        node.wait_log("process .* looks names up", 15)
    with_it, without = ([Path(f"/proc/{node.pid}"), *children(node).values()] for node in nodes)
    for process in with_it:
        found = facts(process)
        assert locked(process) > 0.9 * int(found["VmRSS"].split()[0]) * 1024 > 10 << 20, found
        assert found["VmSwap"] == "0 kB"
    assert {locked(process) for process in without} == {0}
    sizes = [int(facts(processes[0])["VmRSS"].split()[0]) for processes in (with_it, without)]
    assert sizes[0] < sizes[1] * 1.5, "stacks and buffers that are only reserved must not be filled"


def test_memory_stays_locked_and_grows_after_the_change_of_the_user(lab: Lab) -> None:
    try:
        resource.prlimit(0, resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (PermissionError, ValueError):
        pytest.skip("root may not raise RLIMIT_MEMLOCK here")
    command = ["prlimit", "--memlock=8388608:8388608", *DAEMON]
    a = confine(lab, "a", f"listen 127.0.0.1 {PORT}", "mlockall yes", command=command)
    a.wait_log("process .* looks names up", 15)
    process = Path(f"/proc/{a.pid}")
    assert_powerless(process)
    assert locked(process) > 8 << 20, "more than the limit that it was started with"
    for _ in range(20):
        reload(a, READ)
    assert facts(process)["VmSwap"] == "0 kB" and "MemoryError" not in a.log_text()


def test_where_the_limit_of_locked_memory_stays_a_node_that_gives_root_up_does_not_start(lab: Lab) -> None:
    command = [*NO_RAISING, "prlimit", "--memlock=8388608:8388608", *DAEMON]
    a = confine(lab, "a", f"listen 127.0.0.1 {PORT}", *TAP, "mlockall yes", command=command)
    assert a.wait() == 1
    expected = "cloudvpn: mlockall: all memory may be locked only without a limit, it is 8388608 bytes and .*\n"
    assert re.fullmatch(expected, a.log_text()), a.report()
    assert list((lab.directory / "jail").iterdir()) == [lab.directory / "jail/run"]


# Starts that fail, and ends


def test_what_cannot_be_done_is_told_and_leaves_nothing_behind(lab: Lab) -> None:
    jail, host = make_jail(lab), lab.host("a")
    keys = identity("a")
    no_setuid = ["setpriv", "--bounding-set", "-setuid", "--inh-caps", "-setuid", *DAEMON]
    no_chroot = ["setpriv", "--bounding-set", "-sys_chroot", "--inh-caps", "-sys_chroot", *DAEMON]
    read_only = ["unshare", "-m", "--propagation", "private", "sh", "-c",
                 f'mount --bind -r {jail} {jail} && exec "$@"', "sh", *DAEMON]  # fmt: skip
    failures = {
        "setuid": (no_setuid, NAMES, "giving up rights: Operation not permitted"),
        "jailer": (no_chroot, [f"chroot {jail}"], "giving up rights: Operation not permitted"),
        "frozen": (read_only, [f"chroot {jail}"], f"chroot {jail}: Read-only file system: a file must be made in it"),
        "nowhere": (DAEMON, ["chroot /no/where"], '.*: chroot: cannot use "/no/where": No such file or directory'),
        "file": (DAEMON, [f"chroot {keys.ca}"], ".*: chroot: cannot use .*: it is no directory"),
        "outside": (DAEMON, [f"chroot {jail}"],
                    f'.*: status-file: must lie in the chroot, such as "{jail}/outside.status"'),
        "user": (DAEMON, ["user no-one"], '.*: user: expected the name of a user of this system, got "no-one"'),
        "group": (DAEMON, ["group none"], '.*: group: expected the name of a group of this system, got "none"'),
    }  # fmt: skip
    for name, (command, lines, message) in failures.items():
        place = [] if name == "outside" else [f"status-file {jail}/run/status"]
        persistent = [*TAP, "iface_persist yes"]
        node = lab.node("a", f"listen 127.0.0.1 {PORT}", *persistent, *place, *lines, name=name, command=command)
        assert node.wait() == 1, node.report()
        said = [line for line in node.log_text().splitlines() if line.startswith("cloudvpn: ")]
        assert len(said) == 1 and re.match(f"cloudvpn: {message}", said[0]), node.report()
        assert "Traceback" not in node.log_text(), node.report()
        assert not host.has("tap0") and not host.is_listening(PORT)
        assert list(jail.iterdir()) == [jail / "run"] and not list((jail / "run").iterdir())


def test_a_node_that_is_no_root_says_so_unless_it_is_that_user_already(lab: Lab) -> None:
    lab.directory.chmod(0o755)
    keys, mine = identity("a"), lab.directory / "mine"
    mine.mkdir()
    key = mine / "key"
    key.write_bytes(keys.key.read_bytes())
    config = mine / "a.conf"
    for path, mode in ((mine, 0o755), (key, 0o600)):
        path.chmod(mode)
        os.chown(path, 65534, 65534)
    cert, ca = (mine / path.name for path in (keys.cert, keys.ca))
    cert.write_bytes(keys.cert.read_bytes())
    ca.write_bytes(keys.ca.read_bytes())
    base = f"key {key}\ncert {cert}\nca {ca}\nlisten 127.0.0.1 {PORT}\nstatus-file {mine}/status\n"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *DAEMON]
    if lab.host("a").run([*command, "--version"], check=False).returncode:
        pytest.skip("nobody can read this Python")
    config.write_text(base + "user daemon\n")
    other = lab.run_node("a", config, command)
    assert other.wait() == 1
    assert re.search(r"^cloudvpn: .*/a\.conf:6: user: only root can do this: start the node as root", other.log_text(),
                     re.MULTILINE), other.report()  # fmt: skip
    config.write_text(base + "user nobody\ngroup nogroup\n")
    same = lab.run_node("a", config, command)
    same.wait_log("listening on", 15)
    assert not children(same) and same.terminate() == 0


def test_a_node_that_is_killed_takes_its_helpers_with_it(lab: Lab) -> None:
    a, _ = make_pair(lab)
    helpers, jail = children(a), lab.directory / "jail"
    assert len(helpers) == 2 and [path for path in jail.iterdir() if path.name.startswith(".cloudvpn-")]
    a.kill()

    def is_over(process: Path) -> bool:
        try:
            return facts(process)["State"].startswith("Z")  # nobody may wait for them here
        except (FileNotFoundError, ProcessLookupError):
            return True

    lab.until(lambda: all(map(is_over, helpers.values())), 5, "the end of the helpers")
    assert not [path for path in jail.iterdir() if path.name.startswith(".cloudvpn-")]
    assert not a.host.has("tap0")


def test_signals_to_the_whole_group_end_the_node_in_order(lab: Lab) -> None:
    told = lab.directory / "told"
    a, b = make_pair(lab, f"iface_down_command echo down >> {told}")
    os.killpg(a.pid, signal.SIGHUP)
    a.wait_log(READ)
    os.killpg(a.pid, signal.SIGTERM)
    assert a.wait() == 0
    b.wait_log("info link down: a at .*: closed by the peer$")
    assert told.read_text() == "down\n" and "Traceback" not in a.log_text(), a.report()


def test_a_helper_that_is_gone_is_told_and_the_node_carries_on(lab: Lab) -> None:
    a, b = make_pair(lab, "reload_interval 1s", "iface_address fd09::1/64", f"connect localhost {PORT + 1}",
                     "conn_retry 200ms", "iface_down_command true")  # fmt: skip
    for helper in children(a).values():
        os.kill(int(helper.name), signal.SIGKILL)
    gone = "the process that keeps the rights of root has ended: restart the node"
    a.wait_log(rf"error .*: key: cannot use .*{gone}")
    said = reload(a, "error SIGHUP: the configuration stays")
    assert f"error {gone}\n" in said
    a.wait_log("warning no link to localhost .*: the process that looks names up has ended: restart the node")
    for state in ("down", "up"):
        lab.host("a").ip(f"link set tap0 {state}")
        a.wait_log(rf"interface tap0 is {state}")
    a.wait_log(f"error {gone}$", 5, 2)
    lab.wait_for_ping("b", "10.9.0.1")
    assert "link down" not in b.log_text()
    assert a.terminate() == 0 and "Traceback" not in a.log_text(), a.report()

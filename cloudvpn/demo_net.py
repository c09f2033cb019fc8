# SPDX-License-Identifier: GPL-3.0-or-later
"""The ground of the demonstration: network namespaces of its own, joined by wires that can be cut."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cloudvpn.errors import SetupError

PREFIX: Final = "cloudvpn-demo-"
NETNS: Final = Path("/run/netns")           # where `ip netns` keeps its names
TUN: Final = "/dev/net/tun"
OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"
COMMAND_SECONDS: Final = 30.0
# linux/sched.h
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
# Switches of the kernel and of distributions that forbid users their own namespaces, and the value that does.
FORBIDDING: Final = (
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ("user/max_user_namespaces", "0"),
    ("user/max_net_namespaces", "0"),
)

_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int) -> None:
    """Calls the C library: `os` has setns() and unshare() from Python 3.12 on. Raises OSError."""
    if getattr(_libc, function)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run_ip(words: str) -> str:
    """Runs `ip` from iproute2; what it prints. Raises SetupError with what it complains of."""
    done = subprocess.run(
        ["ip", *words.split()], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        start_new_session=True,     # Ctrl-C at the terminal is for us
    )
    if done.returncode:
        hint = ""
        if "not permitted" in done.stderr or "denied" in done.stderr:
            hint = "\nroot lacks CAP_NET_ADMIN or CAP_SYS_ADMIN here: in a container, start that with --privileged"
        raise SetupError(f"`ip {words}`: {done.stderr.strip() or f'ended with {done.returncode}'}{hint}")
    return done.stdout


# What the machine must have.


def check_machine() -> int:
    """An open TUN device. Raises SetupError if the machine lacks something that can be seen beforehand."""
    if shutil.which("ip") is None:
        raise SetupError("the command `ip` is missing: install the package iproute2")
    try:
        return os.open(TUN, os.O_RDWR)
    except OSError as error:
        hint = "load the kernel module with `modprobe tun`; a container needs `--device /dev/net/tun`"
        if error.errno == errno.EACCES:
            hint = "run `sudo cloudvpn --demo`, or let everybody use it with `sudo chmod 0666 /dev/net/tun`"
        raise SetupError(f"{TUN} is not accessible ({error.strerror}): {hint}") from error


def become_root() -> None:
    """Makes this process the root of user and network namespaces of its own. Raises SetupError."""
    # Written by hand, as `unshare --map-root-user` does: no program is needed and the process stays the same.
    maps = {"setgroups": "deny", "uid_map": f"0 {os.geteuid()} 1", "gid_map": f"0 {os.getegid()} 1"}
    try:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
        for name, text in maps.items():
            Path("/proc/self", name).write_text(text)
    except OSError as error:
        switches = [f"{name.replace('/', '.')} = {value}" for name, value in FORBIDDING if read_switch(name) == value]
        raise SetupError(
            "no root, and this system does not allow unprivileged user namespaces "
            f"({', '.join(switches) or error.strerror}): run `sudo cloudvpn --demo`"
        ) from error


def read_switch(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


# Namespaces and wires.


class Namespace:
    """One network namespace. It lives as long as this object is open, or its name or a process in it is there."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.descriptor = os.open(path, os.O_RDONLY)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Processes started and sockets made in the block belong to the namespace, also after it."""
        outside = os.open(OWN_NAMESPACE, os.O_RDONLY)
        call("setns", self.descriptor, CLONE_NEWNET)
        try:
            yield
        finally:
            call("setns", outside, CLONE_NEWNET)
            os.close(outside)

    def run_ip(self, words: str) -> str:
        with self.entered():
            return run_ip(words)


class Ground:
    """All namespaces and wires. As root they have names for `ip netns`, otherwise nobody else can see them."""

    def __init__(self, names: Sequence[str], wires: Sequence[tuple[str, str]]) -> None:
        """Raises SetupError, and leaves nothing behind, if the machine does not let us."""
        self.device = check_machine()
        self.is_rootless = os.geteuid() != 0
        self.names = names
        self.wires = wires
        self.spaces: dict[str, Namespace] = {}
        try:
            if self.is_rootless:
                become_root()
            else:
                self.remove_stale()
            for name in names:
                self.spaces[name] = self.make_nameless(name) if self.is_rootless else self.make(name)
                self.spaces[name].run_ip("link set lo up")
            for wire in wires:
                self.lay(*wire)
        except BaseException:
            self.close()
            raise

    def remove_stale(self) -> None:
        """What a demonstration that was killed left behind: its processes went with it, its names stayed."""
        try:
            fcntl.flock(self.device, fcntl.LOCK_EX | fcntl.LOCK_NB)     # the one file that all of them open anyway
        except OSError:
            raise SetupError("another demonstration is running on this machine: end that first") from None
        for name in self.names:
            if (NETNS / (PREFIX + name)).exists():
                run_ip(f"netns del {PREFIX}{name}")
        for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
            if folder.lstat().st_uid == 0:      # not of a user, who may run one of his own without root
                shutil.rmtree(folder, ignore_errors=True)

    def make(self, name: str) -> Namespace:
        run_ip(f"netns add {PREFIX}{name}")
        return Namespace(name, str(NETNS / (PREFIX + name)))

    def make_nameless(self, name: str) -> Namespace:
        outside = os.open(OWN_NAMESPACE, os.O_RDONLY)
        call("unshare", CLONE_NEWNET)
        try:
            return Namespace(name, OWN_NAMESPACE)
        finally:
            call("setns", outside, CLONE_NEWNET)
            os.close(outside)

    def lay(self, first: str, second: str) -> None:
        """A pair of virtual Ethernet interfaces: `to-b` in a, `to-a` in b."""
        peer = f"/proc/{os.getpid()}/fd/{self.spaces[second].descriptor}"
        self.spaces[first].run_ip(f"link add to-{second} type veth peer name to-{first} netns {peer}")
        for name, other in ((first, second), (second, first)):
            self.spaces[name].run_ip(f"addr add {self.address(name, other)}/24 dev to-{other}")
            self.spaces[name].run_ip(f"link set to-{other} up")

    def address(self, name: str, other: str) -> str:
        """The address of `name` on its wire to `other`, out of those for tests of networks (RFC 2544)."""
        number, wire = next((n, wire) for n, wire in enumerate(self.wires, 1) if {*wire} == {name, other})
        return f"198.18.{number}.{1 + wire.index(name)}"

    def switch(self, name: str, other: str, state: str) -> None:
        """`down` cuts a wire, `up` mends it."""
        self.spaces[name].run_ip(f"link set to-{other} {state}")

    def entrance(self, name: str, process: int) -> str:
        """The command that gets a user into a node, the daemon of which is `process`."""
        if self.is_rootless:
            return f"nsenter --target {process} --user --net --preserve-credentials"
        return f"{'sudo ' if 'SUDO_UID' in os.environ else ''}ip netns exec {PREFIX}{name}"

    def close(self) -> None:
        for name, space in self.spaces.items():
            os.close(space.descriptor)
            if not self.is_rootless:
                with contextlib.suppress(SetupError):   # somebody was faster
                    run_ip(f"netns del {PREFIX}{name}")
        self.spaces.clear()
        os.close(self.device)

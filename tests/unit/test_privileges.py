# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be given up, and that a change which did not happen is found. The daemon's own: tests/netns."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudvpn import privileges
from cloudvpn.errors import SetupError
from cloudvpn.options import Config
from cloudvpn.privileges import Confinement, forbid_dumps, forbid_new_rights, lock_memory, plan

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS = 3, 39
_libc = ctypes.CDLL(None)


def in_child(work: Callable[[], object]) -> str:
    """What the work returns, or the error, in a process that may lose everything."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, "x", 70, 71, "", "/", "/")))
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 72, [])))


def be(monkeypatch: pytest.MonkeyPatch, user: int, group: int) -> None:
    for name, number in (("getuid", user), ("geteuid", user), ("getgid", group), ("getegid", group)):
        monkeypatch.setattr(os, name, lambda number=number: number)


def test_who_the_node_becomes(accounts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, 0, 0)
    assert plan(Config()) is None
    assert plan(Config(user="a")) == Confinement(70, 71, None), "the user's own group"
    assert plan(Config(user="a", group="b")) == Confinement(70, 72, None)
    assert plan(Config(group="b")) == Confinement(None, 72, None)
    assert plan(Config(chroot=Path("/c"))) == Confinement(None, None, Path("/c"))
    assert plan(Config(user="a", group="b", chroot=Path("/c"))) == Confinement(70, 72, Path("/c"))


def test_only_root_can_and_who_is_there_already_need_not(accounts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, 70, 72)
    assert plan(Config(user="a", group="b")) is None
    places = {("user", "a"): "node.conf:7: user"}
    be(monkeypatch, 5, 72)
    with pytest.raises(SetupError, match=r"^node\.conf:7: user: only root can do this: start the node as root"):
        plan(Config(user="a", places=places))
    be(monkeypatch, 70, 5)
    with pytest.raises(SetupError, match=r"^user: only root"):
        plan(Config(user="a", group="b"))
    with pytest.raises(SetupError, match=r"^chroot: only root"):
        plan(Config(chroot=Path("/c")))


@needs_root
@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ("setuid", r"user \(0, 0, 0\), setuid\(0\), seteuid\(0\), setgroups\(\), chroot\(\), capabilities [0-9a-f]+"),
        ("setgid", r"groups \(0, 0, 0\), \[8\]"),
        ("setgroups", r"groups \(8, 8, 8\), \[.*\]"),
    ],
)
def test_a_right_that_was_not_given_up_is_found(lost: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, lost)

    def enter() -> None:
        os.setgroups([4, 8])
        setattr(os, lost, lambda *_: setattr(os, lost, real))  # once it does nothing
        Confinement(1, 8, None).enter()

    said = in_child(enter)
    setattr(os, lost, real)
    pattern = f"^SetupError: giving up rights failed, this is left: {left}$"
    assert re.match(pattern, said), said


@needs_root
def test_a_user_who_can_come_back_is_found() -> None:
    def enter() -> None:
        os.setuid = lambda user: os.setresuid(user, user, 0)
        Confinement(1, 8, None).enter()

    said = in_child(enter)
    assert said.startswith("SetupError: giving up rights failed, this is left: user (1, 1, 0), "), said


@needs_root
def test_capabilities_that_stay_over_the_change_are_found() -> None:
    def enter() -> None:
        assert _libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
        Confinement(1, 8, None).enter()

    said = in_child(enter)
    assert re.match("^SetupError: .* this is left: capabilities [0-9a-f]+$", said), said


@needs_root
def test_a_change_that_is_not_allowed_is_told(tmp_path: Path) -> None:
    said = in_child(Confinement(1, 8, tmp_path / "none").enter)
    assert said == "SetupError: giving up rights: No such file or directory"


def test_no_dumps_and_no_new_rights() -> None:
    def work() -> tuple[int, ...]:
        forbid_dumps()
        forbid_new_rights()
        core = resource.getrlimit(resource.RLIMIT_CORE)
        return *core, _libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), _libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)

    assert in_child(work) == "(0, 0, 0, 1)"


def test_memory_that_is_to_come_is_locked_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the right to exceed the limit, or without a limit; never with one that would be met later."""
    asked: list[int] = []
    limits = [(8 << 20, 8 << 20)]

    def set_limit(_: int, limit: tuple[int, int]) -> None:
        if limits[0][1] != resource.RLIM_INFINITY:
            raise ValueError("not allowed to raise maximum limit")
        limits[0] = limit

    class Libc:
        def mlockall(self, flags: int) -> int:
            asked.append(flags)
            return 0

    monkeypatch.setattr(privileges, "_libc", Libc())
    monkeypatch.setattr(privileges, "capabilities", lambda: rights)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[0])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    refused = "without a limit, it is 8388608 bytes and cannot be raised here: set it before"
    rights = 1 << 14
    lock_memory(will_lose_rights=False)
    assert asked == [7] and limits == [(8 << 20, 8 << 20)]
    with pytest.raises(SetupError, match=refused):
        lock_memory(will_lose_rights=True)
    rights = 0
    with pytest.raises(SetupError, match=refused):
        lock_memory(will_lose_rights=False)
    assert asked == [7]
    limits = [(8 << 20, resource.RLIM_INFINITY)]
    lock_memory(will_lose_rights=True)
    assert asked == [7, 7] and limits == [(resource.RLIM_INFINITY, resource.RLIM_INFINITY)]
    lock_memory(will_lose_rights=True, also_future=False)
    assert asked == [7, 7, 5]

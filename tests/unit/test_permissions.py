# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may read keys and write configurations: every mode and owner, and what the user is told to run."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from cloudvpn.config import load_words
from cloudvpn.errors import ConfigError
from cloudvpn.permissions import config_problem, secret_problem

WE, OTHER = 4711, 4712


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are a user without a name."""
    monkeypatch.setattr(os, "geteuid", lambda: WE)

    def look_up(user: int) -> pwd.struct_passwd:
        if user == 0:
            return pwd.struct_passwd(("root", "x", 0, 0, "", "/", "/"))
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", look_up)


def info(owner: int, mode: int, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(("owner", "most"), [(0, 0o640), (WE, 0o600)])
def test_a_secret_is_for_its_owner_and_of_roots_the_group_may_read(owner: int, most: int) -> None:
    for mode in range(0o1000):
        is_good = not mode & 0o077 & ~most
        problem = secret_problem("/k", info(owner, mode))
        assert (problem == "") == is_good, oct(mode)
        if problem:
            assert problem == f'"/k" has mode {mode:04o}, others may read or change it: run `chmod {most:04o} /k`'


def test_where_we_are_root_a_secret_is_advised_to_be_roots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert secret_problem("/k", info(0, 0o640)) == ""
    assert "chmod 0600 /k" in secret_problem("/k", info(0, 0o644))


@pytest.mark.parametrize("owner", [0, WE])
def test_a_configuration_is_written_by_its_owner_only(owner: int) -> None:
    for mode in range(0o1000):
        problem = config_problem("/c", info(owner, mode))
        assert (problem == "") == (not mode & 0o022), oct(mode)
        if problem:
            assert problem == f'"/c" has mode {mode:04o}, others may write it: run `chmod go-w /c`'


def test_files_of_another_user_are_refused_with_all_that_mends_them() -> None:
    owned = '"/x" belongs to 4712 (mode '
    assert secret_problem("/x", info(OTHER, 0o600)) == f"{owned}0600), who can change it: run `chown 4711 /x`"
    assert "run `chown 4711 /x && chmod 0600 /x`" in secret_problem("/x", info(OTHER, 0o640))
    assert config_problem("/x", info(OTHER, 0o644)) == f"{owned}0644), who can change it: run `chown 4711 /x`"
    assert "run `chown 4711 /x && chmod go-w /x`" in config_problem("/x", info(OTHER, 0o666))


def test_a_pipe_is_not_judged() -> None:
    assert secret_problem("/dev/fd/3", info(OTHER, 0o666, stat.S_IFIFO)) == ""
    assert config_problem("/dev/fd/3", info(OTHER, 0o666, stat.S_IFIFO)) == ""


@pytest.mark.parametrize("name", ["plain", "with space", "-dash", "quote'd", "$(touch x)", "é"])
def test_the_command_that_is_said_mends_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid)
    monkeypatch.chdir(tmp_path)
    for judge, mode in ((secret_problem, 0o666), (config_problem, 0o777)):
        Path(name).touch()
        Path(name).chmod(mode)
        command = judge(name, os.stat(name)).split("run `")[1].removesuffix("`")
        subprocess.run(command, shell=True, check=True, cwd="/")
        assert judge(name, os.stat(name)) == ""
        assert shlex.split(command)[-1] == str(tmp_path / name)


def test_a_configuration_is_refused_with_all_its_other_errors_or_only_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid)
    monkeypatch.chdir(tmp_path)
    modes = {"key": 0o644, "pass": 0o604, "cert": 0o666, "node.conf": 0o664, "more.conf": 0o646}
    for name in modes:
        Path(name).touch()
    Path("node.conf").write_text("key key\ncert cert\nca cert\nkey_pass_file pass\nlisten :: 0\n@include more.conf\n")
    Path("more.conf").write_text("# others may write this one, too\n")
    for name, mode in modes.items():
        Path(name).chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_words(["node.conf", "-conn_retry", "soon"])
    starts = [
        "command line: -conn_retry: expected a time",
        'strict_permissions: "node.conf" has mode 0664, others may write it: run `chmod go-w ',
        'strict_permissions: "more.conf" has mode 0646, others may write it: run `chmod go-w ',
        f'node.conf:1: key: "{tmp_path}/key" has mode 0644, others may read or change it: run `chmod 06',
        f'node.conf:4: key_pass_file: "{tmp_path}/pass" has mode 0604, others may read or change it: run `chmod 06',
    ]
    for problem, start in zip(caught.value.problems, starts, strict=True):
        assert problem.startswith(start)
    warnings = load_words(["node.conf", "-strict_permissions", "no"]).warnings
    for warning, start in zip(warnings, starts[1:], strict=True):
        assert warning.startswith(start)

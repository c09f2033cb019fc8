# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudvpn-keygen and its files: modes, no overwriting, interruption, the lock, names, passwords."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.unit.keygen_lab import NOW, bad, cert, contents, crl, good, keygen, make_mesh, number

RUNS = 8


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    return make_mesh(tmp_path / "mesh", "alpha")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


# Modes and overwriting


@pytest.mark.usefixtures("open_umask")
def test_keys_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    folder = make_mesh(tmp_path / "mesh", "alpha")
    good("request", "beta", "--dir", folder)
    good("dh", "--dir", folder)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"ca.key", "alpha.key", "beta.key", ".lock"}
    assert {mode for mode in modes.values()} == {0o600, 0o644}


@pytest.mark.usefixtures("open_umask")
def test_keys_are_private_before_they_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, sync = set(), os.fsync

    def look(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".key." in name:
            seen.add(os.fstat(descriptor).st_mode & 0o777)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    good("request", "beta", "--dir", tmp_path)
    assert seen == {0o600}


@pytest.mark.parametrize(
    ("words", "name"),
    [(["ca"], "ca.key"), (["ca"], "ca.crt"), (["ca"], "crl.pem"), (["ca"], "index.jsonl"), (["node", "a"], "a.key"),
     (["node", "a"], "a.crt"), (["request", "a"], "a.csr"), (["request", "a"], "a.key"), (["dh"], "dh.pem"),
     (["config", "a", "--listen", "::", "1"], "a.conf"), (["sign", "b.csr", "--yes"], "b.crt")],
)  # fmt: skip
def test_nothing_is_overwritten_without_force(tmp_path: Path, words: list[str], name: str) -> None:
    if words[0] != "ca":
        make_mesh(tmp_path)
    good("request", "b", "--dir", tmp_path)
    (tmp_path / name).write_text("precious")
    before = contents(tmp_path)
    assert "--force" in bad(*words, "--dir", tmp_path)
    assert contents(tmp_path) == before
    assert keygen(*words, "--dir", tmp_path, "--force").code == 0
    assert (tmp_path / name).read_bytes() != b"precious"


def test_a_link_is_not_followed(mesh: Path, tmp_path: Path) -> None:
    (mesh / "beta.key").symlink_to(tmp_path / "elsewhere")
    assert "--force" in bad("node", "beta", "--dir", mesh)
    good("node", "beta", "--dir", mesh, "--force")
    assert not (tmp_path / "elsewhere").exists() and not (mesh / "beta.key").is_symlink()


# Interruption


def fail_at(count: int, function: Callable[..., object], error: BaseException) -> Callable[..., object]:
    calls = 0

    def replacement(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            raise error
        return function(*args, **kwargs)

    return replacement


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_a_write_that_fails_changes_nothing(
    mesh: Path, monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException
) -> None:
    before = contents(mesh)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_at(count, os.fsync, error))
        assert keygen("node", "beta", "--dir", mesh).code == (1 if error is FULL else 130)
    assert contents(mesh) == before
    good("node", "beta", "--dir", mesh)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_rename_that_fails_leaves_only_whole_files_and_an_index_that_knows_more(
    mesh: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    before = contents(mesh)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at(count, os.replace, FULL))
        assert "No space left" in bad("node", "beta", "--dir", mesh)
    after = contents(mesh)
    assert after.pop("index.jsonl").startswith(before.pop("index.jsonl"))
    assert after == before
    assert keygen("node", "beta", "--dir", mesh).code == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_ca_is_there_with_all_its_files_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at(count, os.replace, FULL))
        bad("ca", "--dir", tmp_path)
    assert contents(tmp_path) == {}
    good("ca", "--dir", tmp_path)


def test_a_revocation_that_was_killed_halfway_is_healed_by_the_next_list(
    mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at(2, os.replace, KeyboardInterrupt()))
        assert keygen("revoke", "alpha", "--dir", mesh).code == 130
    assert len(crl(mesh)) == 0
    assert "`cloudvpn-keygen crl`" in bad("revoke", "alpha", "--dir", mesh)
    good("crl", "--dir", mesh)
    assert crl(mesh).get_revoked_certificate_by_serial_number(cert(mesh / "alpha.crt").serial_number)


# The lock


def _revoke(folder: Path, name: str, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    os._exit(keygen("revoke", name, "--dir", folder).code)


def test_concurrent_revocations_lose_nothing_and_share_no_number(tmp_path: Path) -> None:
    names = [f"n{one}" for one in range(RUNS)]
    mesh = make_mesh(tmp_path / "mesh", *names)
    first, processes = number(mesh), multiprocessing.get_context("fork")
    start = processes.Barrier(RUNS)
    runs = [processes.Process(target=_revoke, args=(mesh, name, start)) for name in names]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * RUNS
    assert number(mesh) == first + RUNS  # the clock stands still in these tests
    assert {one.serial_number for one in crl(mesh)} == {cert(mesh / f"{name}.crt").serial_number for name in names}
    states = [json.loads(line)["state"] for line in (mesh / "index.jsonl").read_text().splitlines()]
    assert states == ["revoked"] * RUNS


# Names


BAD_NAMES = ["", ".", "..", "a/b", "../a", "/a", "-a", "--a", ".a", "a b", "a\nb", "a\0b", "a\x7f", "ü", "a\u202eb",
             "ca", "CA", "a" * 65, "\udcff", "a*", "$a", "a:b", "a\\b"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("words", [["node"], ["request"], ["renew"], ["config", "--listen", "::", "1"]])
def test_names_that_are_no_safe_file_names_are_refused(mesh: Path, words: list[str], name: str) -> None:
    if (words, name) == (["renew"], "ca"):
        return
    before = contents(mesh)
    bad(*words, "--dir", mesh, "--", name)
    assert contents(mesh) == before


@pytest.mark.parametrize("name", ["a", "A" * 64, "a.b-c_d@e+f", "0", "_x", "a..b", "cab"])
def test_other_names_are_good(mesh: Path, name: str) -> None:
    good("node", name, "--dir", mesh)
    assert "would be let in" in good("verify", mesh / f"{name}.crt", "--dir", mesh)


# Passwords


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text("påss word\n")
    return path


def answers(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    left = list(words)
    monkeypatch.setattr("getpass.getpass", lambda prompt: left.pop(0))
    return left


def test_a_ca_key_with_a_password_wants_it_each_time(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = tmp_path / "mesh"
    good("ca", "--dir", mesh, "--password-file", secret)
    load_pem_private_key((mesh / "ca.key").read_bytes(), "påss word".encode())
    good("node", "a", "--dir", mesh, "--ca-password-file", secret)
    answers(monkeypatch, "påss word", "wrong")
    good("node", "b", "--dir", mesh)
    assert "password is wrong" in bad("revoke", "b", "--dir", mesh)
    assert len(crl(mesh)) == 0
    good("list", "--dir", mesh)


def test_a_new_password_is_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "one", "two")
    assert "differ" in bad("request", "a", "--dir", tmp_path, "--password")
    assert contents(tmp_path) == {}
    left = answers(monkeypatch, "one", "one", "one")
    good("request", "a", "--dir", tmp_path, "--password")
    load_pem_private_key((tmp_path / "a.key").read_bytes(), b"one")
    assert "password     yes" in good("show", tmp_path / "a.key")
    assert left == []


def test_without_a_terminal_a_password_needs_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    monkeypatch.setattr("getpass.getpass", getpass.fallback_getpass)  # what getpass() does without a terminal
    assert "no terminal" in bad("request", "a", "--dir", tmp_path, "--password")


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "no good"), (b"a\nb", "no good"), (b"\xff", "UTF-8"), (b"x" * 1024, "1023")]
)
def test_bad_password_files_are_refused(tmp_path: Path, secret: Path, data: bytes, what: str) -> None:
    secret.write_bytes(data)
    assert what in bad("request", "a", "--dir", tmp_path, "--password-file", secret)
    assert "No such file" in bad("request", "a", "--dir", tmp_path, "--password-file", tmp_path / "none")


def test_the_longest_password_can_be_used_again(tmp_path: Path, secret: Path) -> None:
    secret.write_text("x" * 1023)
    good("ca", "--dir", tmp_path / "mesh", "--password-file", secret)
    good("crl", "--dir", tmp_path / "mesh", "--ca-password-file", secret)
    secret.chmod(0o644)
    assert "chmod 600" in keygen("crl", "--dir", tmp_path / "mesh", "--ca-password-file", secret, now=NOW).err

# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor as a process: what it hands out, what it refuses, how it ends. Its rights are tests/netns's business."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudvpn import files, pki
from cloudvpn.config import load_words
from cloudvpn.errors import ConfigError, SetupError
from cloudvpn.files import Stage
from cloudvpn.monitor import Monitor
from cloudvpn.options import Config
from cloudvpn.privileges import Confinement
from cloudvpn.reload import TrustFiles

BASE = "key key\ncert cert\nca ca\ncrl crl\nkey_pass_file pass\nlisten 127.0.0.1 0\n"
PASSWORD = "geheim"
CA = pki.make_ca("CA")
NODE = pki.issue(CA, "node")


@dataclass
class Lab:
    folder: Path
    words: list[str]
    config: Config
    stage: Stage
    monitor: Monitor


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    pki.write_key(tmp_path / "key", NODE[0], PASSWORD)
    pki.write_cert(tmp_path / "cert", NODE[1])
    pki.write_cert(tmp_path / "ca", CA.cert)
    pki.write_cert(tmp_path / "crl", pki.make_crl(CA))
    (tmp_path / "pass").write_text(f"{PASSWORD}\n")
    (tmp_path / "node.conf").write_text(BASE)
    for name in ("pass", "node.conf"):
        (tmp_path / name).chmod(0o600)
    (tmp_path / "jail").mkdir()
    words = [str(tmp_path / "node.conf")]
    config = load_words(words).config
    stage = Stage(Confinement(None, None, tmp_path / "jail"))
    monitor = Monitor(words, config, stage)
    yield Lab(tmp_path, words, config, stage, monitor)
    monitor.close()


def is_running(monitor: Monitor) -> bool:
    return Path(f"/proc/{monitor.helper.pid}/stat").read_text().rpartition(") ")[2][0] != "Z"


def wait_for_end(monitor: Monitor) -> None:
    end = time.monotonic() + 10
    while is_running(monitor):
        assert time.monotonic() < end
        time.sleep(0.002)


def test_it_has_no_descriptor_but_its_own(lab: Lab) -> None:
    with open(lab.folder / "key", "rb"):
        other = Monitor(lab.words, lab.config, lab.stage)
        other.stat(lab.folder / "key")  # it has begun to serve
        assert len(os.listdir(f"/proc/{other.helper.pid}/fd")) == 4
        other.close()


def test_named_files_are_stated_and_opened_for_reading_and_no_others(lab: Lab) -> None:
    (lab.folder / "other").write_text("secret")
    for name in ("key", "cert", "ca", "crl", "pass"):
        path = lab.folder / name
        assert lab.monitor.stat(path) == path.stat()
        assert lab.monitor.stat(path).st_mtime_ns == path.stat().st_mtime_ns
        fd = lab.monitor.open(path)
        assert os.read(fd, 1 << 20) == path.read_bytes() and not os.get_inheritable(fd)
        with pytest.raises(OSError):
            os.write(fd, b"x")
        os.close(fd)
    for path in ("other", "key/../other", "", "node.conf", "./key"):
        for call in (lab.monitor.stat, lab.monitor.open):
            with pytest.raises(PermissionError, match="no option names it"):
                call(Path(f"{lab.folder}/{path}") if path != "./key" else Path("key"))


def test_a_file_that_became_a_directory_or_a_pipe_or_went_is_not_opened(lab: Lab) -> None:
    path = lab.folder / "crl"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        lab.monitor.stat(path)
    for make in (path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(OSError, match="it is no regular file"):
            lab.monitor.open(path)
        path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(lab.folder / "ca")  # root laid it
    os.close(lab.monitor.open(path))


def test_the_configuration_is_read_again_and_brings_new_names(lab: Lab) -> None:
    conf = lab.folder / "node.conf"
    conf.write_text(BASE + "crl crl2\nconn_retry 7s\n")
    with pytest.raises(ConfigError) as caught:
        lab.monitor.load_config()
    assert caught.value.problems == (f'{conf}:7: crl: cannot read "{lab.folder}/crl2": No such file or directory',)
    (lab.folder / "crl2").write_bytes((lab.folder / "crl").read_bytes())
    with pytest.raises(PermissionError):
        lab.monitor.stat(lab.folder / "crl2")
    loaded = lab.monitor.load_config()
    assert loaded == load_words(lab.words) and loaded.config.places == load_words(lab.words).config.places
    lab.monitor.stat(lab.folder / "crl2")
    conf.write_text(BASE + "conn_retry soon\n")
    with pytest.raises(ConfigError, match="conn_retry: expected a time"):
        lab.monitor.load_config()
    lab.monitor.stat(lab.folder / "crl2")


def test_a_configuration_of_any_size_comes_through(lab: Lab) -> None:
    (lab.folder / "node.conf").write_text(BASE + "".join(f"connect host{number}.test 1\n" for number in range(20000)))
    assert len(lab.monitor.load_config().config.connect) == 20000


def test_keys_cas_and_lists_are_loaded_through_it_and_leave_no_trace(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_access", lab.monitor)
    monkeypatch.setattr(files, "_stage", lab.stage)
    held: list[bytes] = []
    holding = Stage.holding

    def hold(stage: Stage, data: bytes) -> object:
        held.append(data)
        return holding(stage, data)

    monkeypatch.setattr(Stage, "holding", hold)
    monkeypatch.setattr(lab.stage, "inside", str(lab.stage.outside))  # this process is in no chroot
    trust = TrustFiles()
    credentials = trust.load(lab.config)
    assert credentials.chain == (NODE[1],) and trust.load_changed(lab.config) is None
    assert held and all(b"BEGIN ENCRYPTED PRIVATE KEY" in data for data in held) and len({*held}) == len(held)
    assert lab.stage.outside is not None and lab.stage.outside.read_bytes() == b""
    pki.write_cert(lab.folder / "crl", pki.make_crl(CA, [NODE[1].serial_number]))
    reloaded = trust.load_changed(lab.config)
    assert reloaded is not None and "revoked" in reloaded.warnings[-1]
    (lab.folder / "pass").write_text("wrong\n")
    with pytest.raises(ConfigError, match="the password is wrong"):
        trust.load_changed(lab.config)


def test_a_stage_without_a_chroot_is_in_memory_only() -> None:
    stage = Stage(Confinement(os.getuid(), None, None))
    with stage.holding(b"x" * 100) as name:
        assert Path(name).read_bytes() == b"x" * 100
    with stage.holding(b"y") as name:
        assert Path(name).read_bytes() == b"y"
    assert os.readlink(stage.inside).startswith("/memfd:") and Path(stage.inside).read_bytes() == b""
    os.close(stage.fd)


def test_calls_of_many_threads_get_their_own_answers(lab: Lab) -> None:
    names = ["key", "cert", "ca", "crl"]
    wrong: list[str] = []

    def call(name: str) -> None:
        for _ in range(200):
            fd = lab.monitor.open(lab.folder / name)
            if os.fstat(fd).st_ino != (lab.folder / name).stat().st_ino:
                wrong.append(name)
            os.close(fd)

    threads = [threading.Thread(target=call, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_node_that_had_no_interface_gets_none(lab: Lab) -> None:
    with pytest.raises(SetupError, match="the node had no interface"):
        lab.monitor.open_tap(lab.config, None)


@pytest.mark.parametrize("request_", [b"[]", b"{", b'["serve"]', b'["stat"', b"\xff", b'["stat", ' + b" " * 70000])
def test_a_malformed_request_ends_it(lab: Lab, request_: bytes) -> None:
    lab.monitor.pipe.send_bytes(request_)
    wait_for_end(lab.monitor)
    with pytest.raises(OSError, match="has ended: restart the node"):
        lab.monitor.stat(lab.folder / "key")


@pytest.mark.parametrize("words", [["stat"], ["stat", 1], ["stat", None], ["stat", "a\0b"], ["config", 1], ["tap", 5]])
def test_wrong_words_are_answered_with_an_error(lab: Lab, words: list[object]) -> None:
    lab.monitor.pipe.send_bytes(json.dumps(words).encode())
    error, _, has_descriptor = lab.monitor.pipe.recv()
    assert error is not None and not has_descriptor
    assert lab.monitor.stat(lab.folder / "key")


def test_signals_for_the_group_do_not_end_it_and_its_end_is_told_by_every_call(lab: Lab) -> None:
    lab.monitor.stat(lab.folder / "key")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(lab.monitor.helper.pid, number)
        lab.monitor.stat(lab.folder / "key")
    os.kill(lab.monitor.helper.pid, signal.SIGKILL)
    wait_for_end(lab.monitor)
    gone = "the process that keeps the rights of root has ended: restart the node"
    with pytest.raises(OSError, match=gone):
        lab.monitor.open(lab.folder / "key")
    with pytest.raises(ConfigError, match=f"^{gone}$"):
        lab.monitor.load_config()
    with pytest.raises(SetupError, match=f"^{gone}$"):
        lab.monitor.open_tap(lab.config, None)


def test_it_ends_with_the_node_and_takes_the_stage_away(lab: Lab) -> None:
    assert lab.stage.outside is not None and lab.stage.outside.exists()
    lab.monitor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(lab.monitor.helper.pid, 0)
    assert not lab.stage.outside.exists()


def test_a_descriptor_of_something_else_is_no_interface(lab: Lab) -> None:
    one, other = socket.socketpair()
    lab.monitor.pipe.send_bytes(b'["addresses"]')
    from multiprocessing.reduction import send_handle
    send_handle(lab.monitor.pipe, one.fileno(), lab.monitor.helper.pid)
    error, value, _ = lab.monitor.pipe.recv()
    assert error is SetupError and value == ("this is no interface, or it was deleted",)
    one.close()
    other.close()

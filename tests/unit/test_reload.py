# SPDX-License-Identifier: GPL-3.0-or-later
"""Reloads in this process: what is read when, what a bad file does, and which links stay."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cloudvpn import pki, reload
from cloudvpn.config import load_words
from cloudvpn.daemon import build_switch
from cloudvpn.errors import ConfigError
from cloudvpn.mesh import LinkInfo, Mesh
from cloudvpn.options import OPTIONS, SECOND, Config, Endpoint
from cloudvpn.reload import Reloader, TrustFiles, keep_running
from cloudvpn.service import ServiceManager
from cloudvpn.tls import Peer, identify

CA = pki.make_ca("CA")
NODE = pki.issue(CA, "node")
PEERS = [pki.issue(CA, f"peer {number}")[1] for number in range(3)]
PASSWORD = "geheim"


@dataclass(eq=False)
class FakeLink:
    """As much of a link as judging it needs."""

    info: LinkInfo
    up: bool = True
    reason: str | None = None

    def abort(self, reason: str) -> None:
        self.reason = reason


@dataclass
class Files:
    """A node's files in a folder, and the words that name them."""

    folder: Path
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        pki.write_key(self.folder / "key", NODE[0], PASSWORD)
        pki.write_cert(self.folder / "cert", NODE[1])
        pki.write_cert(self.folder / "ca", CA.cert)
        self.revoke()
        self.write("pass", f"{PASSWORD}\n".encode())
        self.write("conf", b"key key\ncert cert\nca ca\ncrl crl\nkey_pass_file pass\nlisten 127.0.0.1 0\n")
        self.words = [str(self.folder / "conf")]

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)
        (self.folder / name).chmod(0o600)

    def revoke(self, *numbers: int) -> None:
        pki.write_cert(self.folder / "crl", pki.make_crl(CA, [PEERS[number].serial_number for number in numbers]))

    def config(self) -> Config:
        return load_words(self.words).config


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("cloudvpn")
    logger.propagate = True
    caplog.set_level(logging.INFO, "cloudvpn")


class Lab:
    """A mesh of fake links in a running loop, and its reloader on a clock of our own."""

    def __init__(self, files: Files) -> None:
        self.files, self.trust = files, TrustFiles()
        config = replace(files.config(), max_connections=2000, max_remote_routes=1)
        self.mesh = Mesh(config, build_switch(config), self.trust.load(config))
        self.applied: list[Config] = []
        self.now = datetime.now(timezone.utc)
        self.reloader = Reloader(
            lambda: load_words(files.words), self.mesh, self.trust, self.apply, ServiceManager({}), lambda: self.now)

    async def apply(self, config: Config) -> None:
        self.applied.append(config)

    def link(self, number: int) -> FakeLink:
        identity = identify(PEERS[number])
        peer = Peer(identity, (PEERS[number], CA.cert))
        link = FakeLink(LinkInfo(("192.0.2.1", number), 0.0, identity=identity, peer=peer))
        self.mesh.links.add(link)  # type: ignore[arg-type]
        return link


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 120)

    asyncio.run(limited())


# Our own certificate


def test_a_certificate_of_our_own_that_ended_meanwhile_keeps_no_list_out(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        lab = Lab(files)
        links = [lab.link(number) for number in range(2)]
        serials = [NODE[1].serial_number, PEERS[0].serial_number]
        pki.write_cert(files.folder / "crl", pki.make_crl(CA, serials))
        await lab.reloader.reload(on_signal=False)
        assert links[0].reason is not None and "was revoked" in links[0].reason and links[1].reason is None
        assert "peers would refuse it" in caplog.text and not lab.reloader.complaint

    in_loop(test)


def test_a_new_certificate_of_our_own_that_peers_would_refuse_is_not_taken(files: Files) -> None:
    trust = TrustFiles()
    trust.load(files.config())
    ended = datetime.now(timezone.utc) - timedelta(minutes=1)
    pki.write_cert(files.folder / "cert", pki.certify(CA, "node", NODE[0].public_key(), not_after=ended))
    with pytest.raises(ConfigError, match="expired"):
        trust.load(files.config())


# What is read


def test_files_are_read_again_if_one_has_changed_in_any_way(files: Files) -> None:
    trust, config = TrustFiles(), files.config()
    assert trust.load_changed(config) is not None and trust.load_changed(config) is None
    for name in ("key", "cert", "ca", "crl", "pass"):
        path = files.folder / name
        info, data = path.stat(), path.read_bytes()
        path.write_bytes(data)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))  # the same size, and a clock that was set back
        assert trust.load_changed(config) is not None, name
        other = files.folder / "other"
        other.write_bytes(data)
        other.chmod(0o600)
        other.rename(path)
        assert trust.load_changed(config) is not None, name
        assert trust.load_changed(config) is None
    with_other_paths = replace(config, ca=(*config.ca, *config.ca))
    assert trust.load_changed(with_other_paths) is not None


def test_a_failed_read_is_tried_again_though_no_file_changed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    trust, config = TrustFiles(), files.config()
    trust.load(config)
    files.revoke(1)

    def fail(*_: object, **__: object) -> None:
        raise ConfigError(["too many open files"])

    with monkeypatch.context() as patched:
        patched.setattr(reload, "load", fail)
        with pytest.raises(ConfigError):
            trust.load_changed(config)
    assert trust.load_changed(config) is not None


def test_each_load_makes_new_contexts(files: Files) -> None:
    trust, config = TrustFiles(), files.config()
    first, second = trust.load(config), trust.load(config)
    assert first.server_context is not second.server_context and first.client_context is not second.client_context


def test_a_password_comes_from_its_file_anew_and_from_a_pipe_once(files: Files) -> None:
    trust, config = TrustFiles(), files.config()
    (files.folder / "key").unlink()
    pki.write_key(files.folder / "key", NODE[0], "another")
    with pytest.raises(ConfigError, match="the password is wrong"):
        trust.load(config)
    files.write("pass", b"another\r\n")
    trust.load(config)
    (files.folder / "pass").unlink()
    os.mkfifo(files.folder / "pass")
    writer = threading.Thread(target=lambda: (files.folder / "pass").write_text("another"))
    writer.start()
    trust.load(config)
    writer.join()
    trust.load(config)  # would wait for ever


@pytest.mark.parametrize("data", [None, b"\xff\xfe", b"wrong"])
def test_a_bad_password_file_is_named_and_never_quoted(files: Files, data: bytes | None) -> None:
    config = files.config()
    (files.folder / "pass").unlink()
    if data is not None:
        files.write("pass", data)
    with pytest.raises(ConfigError, match="key_pass_file") as caught:
        TrustFiles().load(config)
    assert "wrong\n" not in str(caught.value) and PASSWORD not in str(caught.value)


def test_a_key_that_others_may_read_is_refused_unless_that_is_allowed(files: Files) -> None:
    config = files.config()
    (files.folder / "key").chmod(0o644)
    with pytest.raises(ConfigError, match=r'conf:1: key: ".*/key" has mode 0644, .*: run `chmod 06.0 '):
        TrustFiles().load(config)
    TrustFiles().load(replace(config, strict_permissions=False))


# What takes effect


def test_only_live_options_change_and_the_others_are_named() -> None:
    running = Config(key_pass=PASSWORD, max_connections=8)
    wanted = Config(
        key_pass="neu", connect=(Endpoint("a", "1"),), conn_retry=SECOND, conn_mtu=9 << 10, mac=bytes(5) + b"\1",
        iface_mtu=None, max_connections=9, learn_macs=True, max_nodes=2000,
    )  # fmt: skip
    config, differing = keep_running(running, wanted, 8)
    assert config == replace(running, key_pass="neu", connect=wanted.connect, conn_retry=SECOND, learn_macs=True)
    assert differing == [
        "mac (from not set to 00:00:00:00:00:01)", "max_nodes (from 1024 to 2000)", "conn-mtu (from 8k to 9k)",
        "max_connections (from 8 to 9)",
    ]  # fmt: skip
    lowered, differing = keep_running(running, replace(running, max_connections=2), 8)
    assert lowered.max_connections == 2 and differing == []


def test_no_password_needs_a_restart() -> None:
    assert OPTIONS["key_pass"].live and OPTIONS["key_pass_file"].live


# Links


def test_links_are_judged_by_the_new_list_and_by_the_clock(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        lab = Lab(files)
        links = [lab.link(number) for number in range(3)]
        files.revoke(1)
        await lab.reloader.reload(False)
        assert [link.reason is None for link in links] == [True, False, True]
        assert "it was revoked on" in str(links[1].reason) and "its link is cut: " in caplog.text
        assert lab.mesh.counters["refused_later"] == 1
        lab.now += timedelta(days=400)
        await lab.reloader.reload(False)
        assert all("expired" in str(link.reason) for link in (links[0], links[2]))
        assert lab.mesh.counters["refused_later"] == 3

    in_loop(test)


def test_a_new_certificate_of_our_own_is_for_new_links_and_old_links_stay(files: Files) -> None:
    async def test() -> None:
        lab = Lab(files)
        link, before = lab.link(0), lab.mesh.credentials
        renewed = pki.certify(CA, "node", NODE[0].public_key())
        pki.write_cert(files.folder / "cert", renewed)
        await lab.reloader.reload(False)
        assert link.reason is None and lab.mesh.credentials.chain == (renewed,)
        assert lab.mesh.credentials.server_context is not before.server_context

    in_loop(test)


def test_a_link_goes_with_the_ca_that_let_it_in(files: Files) -> None:
    async def test() -> None:
        lab = Lab(files)
        link = lab.link(0)
        other = pki.make_ca("other")
        key, cert = pki.issue(other, "node")
        for name in ("key", "crl"):
            (files.folder / name).unlink()
        pki.write_key(files.folder / "key", key, PASSWORD)
        pki.write_cert(files.folder / "cert", cert)
        pki.write_cert(files.folder / "ca", other.cert)
        pki.write_cert(files.folder / "crl", pki.make_crl(other))
        await lab.reloader.reload(False)
        assert link.reason is not None

    in_loop(test)


def test_judging_many_links_lets_others_run_and_a_failure_stops_at_its_link(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        lab = Lab(files)
        links = [lab.link(number % 3) for number in range(1000)]
        seconds = 0.0
        monkeypatch.setattr(lab.mesh, "loop", type("Clock", (), {"time": lambda _: seconds})())

        def judge(_: object, peer: Peer, now: datetime) -> None:
            nonlocal seconds
            seconds += 0.001
            if peer.identity.name == "peer 1":
                raise ValueError("strange")

        monkeypatch.setattr(type(lab.mesh.credentials), "judge_again", judge)
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.get_running_loop().create_task(tick())
        await lab.reloader.judge_links()
        ticking.cancel()
        assert turns >= 300
        assert [link.reason for link in links] == [None, "strange", None] * 333 + [None]

    in_loop(test)


# When


def test_a_signal_during_a_reload_leads_to_one_more_and_an_end_meanwhile_waits_for_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        lab = Lab(files)
        reading, go_on = threading.Semaphore(0), threading.Semaphore(0)
        real = lab.trust.load
        lab.trust.load = lambda config: (reading.release(), go_on.acquire(), real(config))[2]  # type: ignore[method-assign]
        running = asyncio.get_running_loop().create_task(lab.reloader.run())
        lab.reloader.signalled.set()
        await asyncio.to_thread(reading.acquire)
        lab.reloader.signalled.set()
        lab.reloader.signalled.set()
        go_on.release()
        await asyncio.to_thread(reading.acquire)    # the second one has begun, so the first one is done
        assert lab.mesh.counters["reloads"] == 1 and len(lab.applied) == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        go_on.release()
        assert len(lab.applied) == 1

    in_loop(test)


def test_an_internal_error_ends_neither_judging_nor_the_reloads(
    files: Files, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        lab = Lab(files)
        link = lab.link(0)
        lab.now += timedelta(days=400)
        with monkeypatch.context() as patched:
            patched.setattr(lab.trust, "load", None)
            await lab.reloader.reload(True)
        assert "internal error" in caplog.text and "it expired on" in str(link.reason)
        caplog.clear()
        lab.applied = None  # type: ignore[assignment]
        running = asyncio.get_running_loop().create_task(lab.reloader.run())
        lab.reloader.signalled.set()
        while "internal error" not in caplog.text:
            await asyncio.sleep(0)
        lab.applied = []
        lab.reloader.signalled.set()
        while not lab.applied:
            await asyncio.sleep(0)
        running.cancel()

    in_loop(test)


def test_a_thousand_reloads_half_of_them_with_a_broken_file_change_nothing(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    good = {path: path.read_bytes() for path in files.folder.iterdir()}

    async def test() -> None:
        lab = Lab(files)
        links = [lab.link(number) for number in range(3)]
        await lab.reloader.reload(True)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(500):
            path = list(good)[number % len(good)]
            path.write_bytes(good[path][:-30] + b"\n")
            used = lab.mesh.credentials
            await lab.reloader.reload(number % 3 == 0)
            assert lab.mesh.credentials is used or path.name == "conf"
            path.write_bytes(good[path])
            await lab.reloader.reload(number % 3 != 0)
            assert all(link.reason is None for link in links)
        assert len(os.listdir("/proc/self/fd")) == before
        assert lab.reloader.complaint == () and len(lab.applied) == lab.mesh.counters["reloads"]

    in_loop(test)
    assert PASSWORD not in caplog.text
    assert caplog.text.count("stays in use") > 300

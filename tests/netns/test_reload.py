# SPDX-License-Identifier: GPL-3.0-or-later
"""Real daemons whose files change while they run: who is revoked goes, what is bad changes nothing.

    a: listens on :4000 --w1-- b: dials a
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloudvpn import pki
from tests.netns.keys import write_private
from tests.netns.lab import Lab, Node

PORT = 4000
KEYGEN = [sys.executable, "-m", "cloudvpn.keygen"]
READ = "info SIGHUP: the configuration, keys, CAs and CRLs were read again"
FAILED = "error SIGHUP: the configuration stays as it was"
REVOKED = r'"b" \(serial [0-9a-f]+, issuer "cloudvpn CA"\): it was revoked on \d{4}-'
CUT = r"warning refused b at 198\.18\.1\.2:\d+, its link is cut: "


def keygen(folder: Path, command: str, *words: object) -> None:
    done = subprocess.run(
        [*KEYGEN, command, *map(str, words), "--dir", folder], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


class Pair:
    """Two nodes with the keys and the configurations that the key tool made, and a link between them."""

    def __init__(self, lab: Lab, *lines_of_a: str) -> None:
        self.lab, self.folder = lab, lab.directory / "mesh"
        self.place = lab.wire("a", "b").address("a")
        self.crl = self.folder / "crl.pem"
        keygen(self.folder, "ca")
        self.a = self.start("a", ["--listen", "0.0.0.0", PORT, "--address", "10.77.0.1/24"], lines_of_a)
        self.b = self.start("b", ["--connect", self.place, PORT, "--address", "10.77.0.2/24"])
        for node in (self.a, self.b):
            node.wait_log("info link up: ", 15)
        lab.wait_for_ping("a", "10.77.0.2")

    def start(self, name: str, words: list[object], lines: tuple[str, ...] = ()) -> Node:
        if not (self.folder / f"{name}.crt").exists():
            keygen(self.folder, "node", name)
        keygen(self.folder, "config", name, *words)
        config = self.folder / f"{name}.conf"
        common = [f"status-file {name}.status", "status-interval 100ms", "conn_retry 200ms", *lines]
        config.write_text(config.read_text() + "".join(f"{line}\n" for line in common))
        return self.lab.run_node(name, config)

    def assert_stayed(self) -> None:
        """The first link is the only one that ever was, and it is there."""
        self.lab.until(lambda: len(self.a.status().links) == 1, 5, "the link in the status")
        assert "link down" not in self.a.log_text()


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reload(node: Node, answer: str = READ) -> str:
    """Sends SIGHUP; what was logged from then until the answer."""
    with node.log.open() as log:
        log.seek(0, os.SEEK_END)
        said = ""
        node.signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while not re.search(answer, said):
            assert time.monotonic() < end, f"no answer to SIGHUP\n{node.report()}"
            said += log.read()
    return said


def read_rss(node: Node) -> int:
    """Bytes."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024


def count_descriptors(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


# Who may be here no longer


def test_who_is_revoked_is_out_a_second_after_sighup_and_cannot_come_back(lab: Lab) -> None:
    pair = Pair(lab, "reload_interval 1min")
    keygen(pair.folder, "revoke", "b")
    begun = time.monotonic()
    pair.a.signal(signal.SIGHUP)
    pair.a.wait_log(CUT + REVOKED)
    pair.a.wait_log(rf"info link down: b at .*: {REVOKED}")
    assert time.monotonic() - begun < 1
    pair.b.wait_log(r"info link down: a at .*:4000: ")
    lab.until(lambda: re.search(r"^links: .*refused [4-9]", pair.a.status().text, re.MULTILINE), 15, "four more tries")
    assert len(re.findall(rf"warning refused 198\.18\.1\.2:\d+: {REVOKED}", pair.a.log_text())) == 1
    pair.b.wait_log("warning no link to .*: closed by the peer before its first packet: probably refused, see its log$")
    lab.until(lambda: re.search(r"^links: .*refused_later 1", pair.a.status().text, re.MULTILINE), 5, "the counter")
    assert pair.a.status().links == [] and pair.a.log_text().count("info link up: ") == 1
    assert lab.host("a").ping("10.77.0.2", 1).received == 0


def test_the_timer_alone_finds_a_new_list_and_says_once_what_is_wrong_with_a_bad_one(lab: Lab) -> None:
    pair = Pair(lab, "reload_interval 1s")
    good = pair.crl.read_bytes()
    pair.crl.write_bytes(good[:-40])
    complaint = r'error .*/a\.conf:\d+: crl: cannot use ".*/crl\.pem": .*; until then what was read before stays '
    pair.a.wait_log(complaint)
    begun = time.monotonic()
    lab.until(lambda: time.monotonic() - begun > 2.5, 5, "two more turns of the timer")
    assert len(re.findall(complaint, pair.a.log_text(), re.MULTILINE)) == 1, pair.a.report()
    pair.assert_stayed()
    pair.crl.write_bytes(good)
    pair.a.wait_log("info the files of key, certificate, CAs and CRLs are good again$")
    keygen(pair.folder, "revoke", "b")
    pair.a.wait_log(CUT + REVOKED)


def test_an_expired_peer_is_cut_by_the_clock(lab: Lab) -> None:
    folder, place = lab.directory / "mesh", lab.wire("a", "b").address("a")
    keygen(folder, "ca")
    keygen(folder, "node", "a")
    for name, words in (("a", ["--listen", place, PORT]), ("b", ["--connect", place, PORT])):
        keygen(folder, "config", name, *words)
        with (folder / f"{name}.conf").open("a") as config:
            config.write(f"reload_interval 1s\nconn_retry 200ms\nstatus-file {name}.status\nstatus-interval 100ms\n")
    issuer = pki.Issuer(
        load_pem_private_key((folder / "ca.key").read_bytes(), None),  # type: ignore[arg-type]
        x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()),
    )
    end = (datetime.now(timezone.utc) + timedelta(seconds=7)).replace(microsecond=0)
    key, cert = pki.issue(issuer, "b", not_after=end)
    write_private(folder / "b.key", pki.key_to_pem(key))
    pki.write_cert(folder / "b.crt", cert)
    a, b = (lab.run_node(name, folder / f"{name}.conf") for name in "ab")
    a.wait_log("info link up: b", 6)
    a.wait_log(r'warning certificate of peer "b" .* expires on .* in 0 hours: ')
    b.wait_log(r'warning own certificate "b" .* expires on .* in 0 hours: ')
    lab.until(lambda: "\nexpiring: certificate of peer" in a.status().text, 5, "the line in the status")
    assert datetime.now(timezone.utc) <= end
    a.wait_log(CUT + r'"b" .*: it expired on ', 15)
    assert timedelta(0) < datetime.now(timezone.utc) - end < timedelta(seconds=5)
    a.wait_log(r"warning refused 198\.18\.1\.2:\d+: .*: it expired on ")


def test_a_bad_configuration_changes_nothing_and_keeps_no_revocation_out(lab: Lab) -> None:
    pair = Pair(lab)
    config = pair.folder / "a.conf"
    good = config.read_text()
    config.write_text(good.replace(str(PORT), str(PORT + 1)) + "conect x 1\nconn_retry soon\n")
    said = reload(pair.a, FAILED)
    assert "conect: unknown option, the nearest known one is connect" in said
    assert 'conn_retry: expected a time such as 10000000 (microseconds), 5s or 200ms, got "soon"' in said
    assert pair.a.host.is_listening(PORT) and not pair.a.host.is_listening(PORT + 1)
    config.write_text(good)
    config.chmod(0o664)
    said = reload(pair.a, FAILED)
    assert f'"{config}" has mode 0664, others may write it: run `chmod go-w {config}`' in said
    pair.assert_stayed()
    keygen(pair.folder, "revoke", "b")
    reload(pair.a, FAILED)
    pair.a.wait_log(CUT + REVOKED)


# What else SIGHUP takes in


def test_connect_listen_and_log_level_change_and_links_that_need_not_go_stay(lab: Lab) -> None:
    pair = Pair(lab)
    config_a, config_b = pair.folder / "a.conf", pair.folder / "b.conf"
    rewrite(config_a, f"listen 0.0.0.0 {PORT}", f"listen {pair.place} {PORT}\nlisten 0.0.0.0 {PORT + 1}")
    reload(pair.a)      # an address of 0.0.0.0 is free only when that one is
    pair.a.wait_log(rf"info listening on {re.escape(pair.place)}:{PORT}$")
    rewrite(config_a, f"listen {pair.place} {PORT}\n", "listen 192.0.2.1 1\n")
    said = reload(pair.a)
    assert re.search(r"error .*/a\.conf:\d+: listen 192\.0\.2\.1 1: Cannot assign .*: the other", said), said
    assert not pair.a.host.is_listening(PORT) and pair.a.host.is_listening(PORT + 1)
    pair.assert_stayed()

    rewrite(config_b, f"connect {pair.place} {PORT}", f"connect {pair.place} {PORT + 1}\nconnect {pair.place} 9")
    reload(pair.b)
    pair.b.wait_log(f"info link down: a at .*: connect {pair.place} {PORT} is no longer configured$")
    pair.b.wait_log(f"info link up: a at .*:{PORT + 1}, dialled", 15)
    pair.b.wait_log(f"warning no link to {pair.place} 9: connection refused$")
    rewrite(config_b, f"connect {pair.place} 9\n", "")
    reload(pair.b)
    lab.wait_for_ping("b", "10.77.0.1")
    before = lab.until(lambda: "reloads 2" in (status := pair.b.status()).text and status, 5, "a status after that")
    lab.until(lambda: (pair.b.status().uptime or 0) > (before.uptime or 0) + 1, 5, "five times conn_retry")
    failed = re.compile(r"dials_failed (\d+)")
    assert failed.findall(before.text) == failed.findall(pair.b.status().text) != []

    with config_b.open("a") as config:
        config.write("log_level warning\n")
    pair.b.signal(signal.SIGHUP)
    lab.until(lambda: "reloads 3" in pair.b.status().text, 5, "the third reload, which logs nothing")
    assert len(re.findall(READ, pair.b.log_text())) == 2


def test_options_that_need_a_restart_are_named_with_both_values(lab: Lab) -> None:
    pair = Pair(lab, "max_connections 10")
    with (pair.folder / "a.conf").open("a") as config:
        config.write("conn-mtu 9k\nmac 02:00:00:00:00:01\nmax_connections 20\nconn_retry 1s\npromisc\n")
    warning = "warning changed, but need a restart: mac (from not set to 02:00:00:00:00:01), "
    warning += "conn-mtu (from 8k to 9k), max_connections (from 10 to 20)\n"
    assert warning in reload(pair.a) and warning in reload(pair.a)
    assert "link down" not in pair.a.log_text()


# Many


def test_a_thousand_reloads_half_of_them_with_broken_files_drop_no_link_and_grow_nothing(lab: Lab) -> None:
    pair = Pair(lab)
    paths = [pair.folder / name for name in ("crl.pem", "ca.crt", "a.crt", "a.key", "a.conf")]
    good = {path: path.read_bytes() for path in paths}
    renewed = pair.folder / "renewed"
    before: tuple[int, int] = (0, 0)
    with lab.host("a").pings("10.77.0.2", 0.02) as pings:
        for number in range(500):
            path = paths[number % len(paths)]
            path.write_bytes(good[path][: len(good[path]) // 2] + b"\xff\n")
            reload(pair.a, FAILED)
            renewed.write_bytes(good[path])
            renewed.chmod(path.stat().st_mode)
            renewed.rename(path)
            reload(pair.a)
            if number == 25:
                before = read_rss(pair.a), count_descriptors(pair.a)
        after = read_rss(pair.a), count_descriptors(pair.a)
    assert pings.result.sent > 20 and pings.result.loss == 0, pings.result
    assert after[1] == before[1] and after[0] - before[0] < 2_000_000, (before, after)
    assert "link down" not in pair.a.log_text() + pair.b.log_text()
    lab.until(lambda: "reloads 500, reloads_failed 500\n" in pair.a.status().text, 5, "the counters")

# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of day jumps by days under a running node (libfaketime): links and timers go by another clock.

    a: listens on :4000, its time of day is what the test says --w1-- b: dials a
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cloudvpn import pki
from tests.netns.faults import PORT, address, assert_sound, footprint, lines_of, links_up, unbroken
from tests.netns.keys import write_private
from tests.netns.lab import DAEMON, Lab
from tests.netns.test_queues import fresh

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime")
AGO, LATER = timedelta(days=60), timedelta(days=600)    # certificates are valid from and to
LIST_DAYS = 30
OTHER_MAC = "02:00:00:00:00:aa"


class Pair:
    """a, whose clock `jump` moves, and b; with a list of revoked certificates."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.offset, self.crl = lab, lab.directory / "offset", lab.directory / "crl.pem"
        now = datetime.now(timezone.utc)
        valid = {"not_before": now - AGO, "not_after": now + LATER}
        issuer = pki.make_ca("CA", **valid)
        pki.write_cert(lab.directory / "ca.crt", issuer.cert)
        pki.write_cert(self.crl, pki.make_crl(issuer, days=LIST_DAYS, last_update=now - AGO))
        wire = lab.wire("a", "b")
        lines = ["reload_interval 1s", "conn_keepalive 200ms", "conn_timeout 10s", f"crl {self.crl}",
                 f"ca {lab.directory}/ca.crt", "conn_retry 500ms"]
        self.jump(0)
        # The file is read once a second: with each look at a clock it would slow the node down by far.
        faked = ["env", f"LD_PRELOAD={LIBRARIES[0]}", f"FAKETIME_TIMESTAMP_FILE={self.offset}",
                 "FAKETIME_CACHE_DURATION=1", "DONT_FAKE_MONOTONIC=1"]
        self.nodes = {}
        for name, command in (("a", [*faked, *DAEMON]), ("b", DAEMON)):
            key, cert = pki.issue(issuer, name, **valid)
            stem = lab.directory / f"own-{name}"
            pki.write_key(stem.with_suffix(".key"), key)
            pki.write_cert(stem.with_suffix(".crt"), cert)
            config = "".join(f"{line}\n" for line in [
                *lines_of(name, *lines), f"cert {stem}.crt", f"key {stem}.key", "status-verbose yes",
                f"status-file {lab.directory}/{name}.status",
                *([f"connect {wire.address('a')} {PORT}"] if name == "b" else [])])
            path = write_private(lab.directory / f"{name}.conf", config.encode())
            self.nodes[name] = lab.run_node(name, path, command)
        self.a, self.b = self.nodes["a"], self.nodes["b"]
        for node in (self.a, self.b):
            node.wait_log("info link up: ", 20)
        lab.wait_for_ping("a", address("b"))

    def jump(self, days: float) -> None:
        """The clock of a is so many days ahead of the others' from now on."""
        new = write_private(self.offset.with_suffix(".new"), f"{int(days * 86400):+d}\n".encode())
        os.replace(new, self.offset)

    def wait_timer(self, days: float) -> None:
        """Until the timer of a has read files again, by a clock that is so many days ahead."""
        said = re.compile(r"^(\S+) info key, certificate, CAs and CRLs were read again: a file", re.MULTILINE)

        def turn() -> bool:
            before = len(said.findall(self.a.log_text()))
            self.crl.write_bytes(self.crl.read_bytes() + b"\n")
            lines = self.lab.until(lambda: said.findall(self.a.log_text())[before:], 15, "files are read again")
            ahead = (datetime.fromisoformat(lines[-1]) - datetime.now(timezone.utc)) / timedelta(days=1)
            return abs(ahead - days) < 0.1

        self.lab.until(turn, 15, f"the clock of a is {days} days ahead")

    def set_mac(self, mac: str) -> None:
        """Gives a's interface another MAC; b must believe it."""
        self.lab.host("a").ip(f"link set tap0 address {mac}")
        node = self.a.status().node
        mine = lambda: {host for host, (_, place) in self.b.status().hosts.items() if place == node}  # noqa: E731
        self.lab.until(lambda: mine() == {mac}, 15, f"b knows {mac} at a, and no other")


def test_links_timers_and_claims_live_through_jumps_of_the_time_of_day(lab: Lab) -> None:
    pair = Pair(lab)
    own, uptime, before = lab.host("a").mac("tap0").hex(":"), pair.a.status().uptime or 0.0, footprint(pair.a)
    with unbroken(lab, "ab", "ba"):
        for days in (10, -10, 0):
            pair.jump(days)
            pair.wait_timer(days)
            stated = re.search(r"^uptime: ([\d.]+)s", fresh(lab, pair.a), re.MULTILINE)
            assert stated and uptime < float(stated[1]) < uptime + 300, "the uptime is not that of the time of day"
    for days, mac in ((10, OTHER_MAC), (-10, own), (0, OTHER_MAC)):     # claims are numbered by the time of day
        pair.jump(days)
        pair.set_mac(mac)
    assert "link down" not in pair.a.log_text() + pair.b.log_text()
    assert footprint(pair.a).memory - before.memory < 4_000_000
    assert_sound(lab, pair.nodes)


def test_who_is_not_valid_by_the_new_time_is_cut_and_comes_back_with_the_old_one(lab: Lab) -> None:
    pair = Pair(lab)
    pair.jump(LATER.days + 1)
    pair.a.wait_log(r"warning refused b at 198\.18\.1\.2:\d+, its link is cut: .*: it expired on \d{4}-", 15)
    lab.until(lambda: links_up(pair.b) == 0, 15, "the link is gone")
    verdicts = {LIST_DAYS + 1: 'it may be revoked: the CRL of "CA"', -AGO.days - 1: "it is not valid before"}
    for days, verdict in verdicts.items():
        pair.jump(days)
        pair.a.wait_log(rf"warning refused 198\.18\.1\.2:\d+: .*: {verdict}", 15)
    pair.jump(0)
    lab.until(lambda: links_up(pair.a) == links_up(pair.b) == 1, 20, "the link is there again")
    lab.wait_for_ping("a", address("b"))
    reminders = re.findall("warning .* (?:expires|expired) on .*", pair.a.log_text())
    assert len(reminders) < 20, "each end is said once a day, not at each turn of the timer"
    assert_sound(lab, pair.nodes)

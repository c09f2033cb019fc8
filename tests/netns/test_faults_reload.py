# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGHUP again and again while files are being replaced, links come and go and handshakes are under way.

    a: listens on :4000 --w1-- b: dials a        a is told to reload; both have new certificates of the same CA in turn
"""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloudvpn import pki
from tests.netns.faults import assert_not_grown, assert_sound, counter, footprint, links_up
from tests.netns.keys import write_private
from tests.netns.lab import Lab
from tests.netns.test_reload import Pair, reload

SIGNALS = 500       # a second
VERSIONS = 4        # of each file


class Churn:
    """Replaces the files one by one, some in place so that they are read when half is there, and sends SIGHUPs."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.node, self.chance, self.sent = pair.a, random.Random(seed), 0
        issuer = pki.Issuer(
            load_pem_private_key((pair.folder / "ca.key").read_bytes(), None),  # type: ignore[arg-type]
            x509.load_pem_x509_certificate((pair.folder / "ca.crt").read_bytes()),
        )
        self.versions: dict[Path, list[bytes]] = {pair.folder / "a.crt": [], pair.folder / "a.key": [], pair.crl: []}
        for _ in range(VERSIONS):
            key, cert = pki.issue(issuer, "a")
            made = (pki.to_pem(cert), pki.key_to_pem(key), pki.to_pem(pki.make_crl(issuer)))
            for versions, data in zip(self.versions.values(), made, strict=True):
                versions.append(data)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=work) for work in (self.signal, self.replace)]

    def signal(self) -> None:
        while not self.over.wait(1 / SIGNALS):
            self.node.signal(signal.SIGHUP)
            self.sent += 1

    def replace(self) -> None:
        while not self.over.wait(0.002):
            version = self.chance.randrange(VERSIONS)
            for path, versions in self.versions.items():
                if self.chance.random() < 0.3:
                    path.write_bytes(versions[version][: self.chance.randrange(100)])
                    self.over.wait(0.002)
                write_private(path.with_suffix(".new"), versions[version]).replace(path)

    def __enter__(self) -> Churn:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()
        for path, versions in self.versions.items():    # at rest all of one version
            write_private(path.with_suffix(".new"), versions[0]).replace(path)


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_storm_of_sighups_while_files_and_links_change_harms_nothing(lab: Lab, seconds: int) -> None:
    pair = Pair(lab)
    reload(pair.a)
    before = footprint(pair.a)
    ups, end = 0, time.monotonic() + seconds
    with Churn(pair, seconds) as churn:
        while time.monotonic() < end:
            ups = pair.a.log_text().count("info link up")
            lab.host("b").run(["ss", "-HtK", "dst", pair.place])
            lab.until(lambda ups=ups: pair.a.log_text().count("info link up") > ups, 20, "the next link")
    assert churn.sent > 50 * seconds, "the storm did not happen"
    assert pair.a.log_text().count("info link up") > seconds, "links did not come and go"
    reload(pair.a)
    lab.until(lambda: links_up(pair.a) == 1, 15, "the link in the status")
    counts = counter(pair.a, "reloads"), counter(pair.a, "reloads_failed")
    print(f"{churn.sent} SIGHUPs, {counts[0]} reloads and {counts[1]} that failed, "
          f"{pair.a.log_text().count('info link up')} links, {footprint(pair.a)} after {before}")
    assert min(counts) > 2, f"files were whole and were not: {counts}"
    assert not re.search("Traceback|internal error", pair.a.log_text()), pair.a.report()
    lab.wait_for_ping("a", "10.77.0.2")
    assert_not_grown(lab, pair.a, before)
    assert_sound(lab, {"a": pair.a, "b": pair.b})

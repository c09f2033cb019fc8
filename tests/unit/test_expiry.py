# SPDX-License-Identifier: GPL-3.0-or-later
"""What ends soon is said in time, once a day, and again when it has ended."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cloudvpn import pki
from cloudvpn.cli import run
from cloudvpn.expiry import Reminder, find_endings
from cloudvpn.tls import Credentials, Peer, identify, load

NOW = datetime.now(timezone.utc).replace(microsecond=0)
DAY = timedelta(days=1)
MOMENT = timedelta(seconds=1)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Credentials and one peer behind an intermediate; each thing ends in so many days."""

    def make(own: float = 400, ca: float = 400, crl: float = 400, peer: float = 400, sub: float = 400) -> Any:
        root = pki.make_ca("CA", not_after=NOW + ca * DAY)
        middle = pki.Issuer(*pki.issue(root, "sub", is_ca=True, not_after=NOW + sub * DAY))
        key, cert = pki.issue(root, "we", not_after=NOW + own * DAY)
        _, leaf = pki.issue(middle, "peer\n", not_after=NOW + peer * DAY)
        paths = {name: tmp_path / name for name in ("key", "cert", "ca", "crl")}
        for path in paths.values():
            path.unlink(missing_ok=True)
        pki.write_key(paths["key"], key)
        pki.write_cert(paths["cert"], cert)
        pki.write_cert(paths["ca"], root.cert)
        pki.write_cert(paths["crl"], pki.make_crl(root, next_update=NOW + crl * DAY))
        credentials = load(paths["key"], paths["cert"], [paths["ca"]], [paths["crl"]], None)
        return credentials, Peer(identify(leaf), (leaf, middle.cert, root.cert))

    return make


def describe(credentials: Credentials, peer: Peer, now: datetime = NOW) -> list[str]:
    return [ending.describe(now) for ending in find_endings(credentials, [peer, peer], now)]


def test_nothing_is_said_of_what_lasts(make: Any) -> None:
    assert describe(*make()) == []


@pytest.mark.parametrize(
    ("what", "days", "start"),
    [
        ("own", 30, 'own certificate "we" (serial '),
        ("ca", 30, 'CA "CA" (serial '),
        ("sub", 30, 'CA "sub" (serial '),
        ("peer", 30, 'certificate of peer "peer\\x0a" (serial '),
        ("crl", 3, 'CRL of "CA" expires on '),
    ],
)
def test_each_is_warned_of_from_its_day_on_and_only_once(make: Any, what: str, days: int, start: str) -> None:
    both = make(**{what: 40})
    end = NOW + 40 * DAY
    assert describe(*both, end - days * DAY) == []
    [said] = describe(*both, end - days * DAY + MOMENT)
    assert said.startswith(start) and f"expires on {end:%Y-%m-%d %H:%M} UTC, in {days - 1} days: " in said
    [said] = describe(*both, end - 2 * DAY + MOMENT)
    assert "in 47 hours" in said
    [said] = describe(*both, end + MOMENT)
    assert f"expired on {end:%Y-%m-%d %H:%M} UTC: " in said and "cloudvpn-keygen " in said


def test_what_ends_first_comes_first(make: Any) -> None:
    said = describe(*make(own=20, ca=25, crl=2, peer=10))
    assert [line.split(" expires")[0].split(" (")[0] for line in said] == [
        'CRL of "CA"', 'certificate of peer "peer\\x0a"', 'own certificate "we"', 'CA "CA"',
    ]  # fmt: skip


def test_the_log_has_one_line_a_day_and_one_at_the_end(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    credentials, peer = make(own=2.5)
    reminder = Reminder()
    logging.getLogger("cloudvpn").propagate = True
    lines = []
    for hour in range(100):
        now = NOW + timedelta(hours=hour)
        caplog.clear()
        # A peer that comes and goes changes nothing for the others.
        reminder.remind(find_endings(credentials, [peer] * (hour % 2), now), now)
        lines += [(hour, record.message.split(" UTC")[0].split()[-4]) for record in caplog.records]
    assert lines == [(0, "expires"), (24, "expires"), (48, "expires"), (61, "expired"), (85, "expired")]
    assert len(reminder.said) == 1


def test_a_check_of_the_configuration_says_what_ends(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(own=20)
    (tmp_path / "conf").write_text("key key\ncert cert\nca ca\ncrl crl\nlisten :: 0\n")
    assert run(["--check", str(tmp_path / "conf")]) == 0
    said = capsys.readouterr()
    assert said.out == "cloudvpn: the configuration is good\n"
    assert said.err.startswith('cloudvpn: own certificate "we" (serial ') and "expires on" in said.err

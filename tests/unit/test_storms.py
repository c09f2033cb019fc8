# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log says of a link whose broadcasts are over the limit: when, how often, with which figures."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from cloudvpn.mesh import Mesh
from cloudvpn.options import Config
from cloudvpn.storms import StormWatch

BEAT = 0.05


@dataclass(frozen=True)
class FakeIdentity:
    name: str


@dataclass
class FakeInfo:
    name: str
    remote: tuple[str, int] = ("192.0.2.1", 4000)
    broadcasts_refused: int = 0

    @property
    def identity(self) -> FakeIdentity | None:
        return FakeIdentity(self.name) if self.name else None

    def describe(self) -> str:
        return f"{self.name} at 192.0.2.1:4000"


@dataclass(eq=False)
class FakeLink:
    info: FakeInfo
    broadcasts_in: int = 0
    broadcasts_refused: int = 0
    unicasts_refused: int = 0


@dataclass
class FakeMesh:
    """Links that get broadcasts over a limit of 100 a second, and a clock."""

    config: Config = field(default_factory=lambda: replace(Config(), broadcast_limit=100))
    links: set[FakeLink] = field(default_factory=set)
    refused: int = 0

    def __post_init__(self) -> None:
        self.now = 100.0
        self.watch = StormWatch(cast(Mesh, self))

    @property
    def switch(self) -> FakeMesh:
        return self

    def dropped(self) -> dict[str, int]:
        return {"broadcast_limit": self.refused}

    def link(self, name: str) -> FakeLink:
        link = FakeLink(FakeInfo(name))
        self.links.add(link)
        return link

    def run(self, seconds: float, **rates: Any) -> None:
        """So many broadcasts a beat on the links of these names, of which the limit lets 5 pass."""
        for _ in range(round(seconds / BEAT)):
            for link in self.links:
                count = rates.get(link.info.name, 0)
                link.broadcasts_in += count
                link.broadcasts_refused += max(0, count - 5)
                self.refused += max(0, count - 5)
            self.now += BEAT
            self.watch.look(self.now)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_link_at_its_limit_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    mesh = FakeMesh()
    mesh.link("b")
    mesh.run(5, b=5)
    assert lines(caplog) == []


def test_a_link_over_its_limit_is_named_with_its_rate_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    mesh = FakeMesh()
    mesh.link("b"), mesh.link("c")
    mesh.run(0.9, b=50, c=5)
    assert lines(caplog) == [], "a rate takes a second to measure"
    mesh.run(0.2, b=50, c=5)
    [line] = lines(caplog)
    assert line.startswith("b at 192.0.2.1:4000 brings 1000 broadcasts a second, more than broadcast_limit 100/s: 900 ")
    assert "loop" in line and "storm" in line
    mesh.run(59, b=50, c=5)
    assert lines(caplog) == []
    mesh.run(5, b=50, c=5)
    assert len(lines(caplog)) == 1
    mesh.run(70)
    assert lines(caplog) == []
    mesh.run(2, b=6)
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(("unicasts", "looks_like"), [(0, "a loop"), (10, "a loop"), (11, "traffic of hosts behind")])
def test_what_it_looks_like_is_said_by_what_most_of_the_dropped_frames_are(
    unicasts: int, looks_like: str, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = FakeMesh()
    link = mesh.link("b")
    link.unicasts_refused = 1000    # from before
    for _ in range(30):
        link.unicasts_refused += unicasts
        mesh.run(BEAT, b=25)
    [line] = lines(caplog)
    assert f"This looks like {looks_like}" in line


def test_each_link_has_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    mesh = FakeMesh()
    mesh.link("b"), mesh.link("c")
    mesh.run(2, b=50, c=20)
    assert sorted(line.split()[0] for line in lines(caplog)) == ["b", "c"]


@pytest.mark.parametrize("name", ["b", ""])
def test_a_peer_that_dials_anew_does_not_fill_the_log(name: str, caplog: pytest.LogCaptureFixture) -> None:
    mesh = FakeMesh()
    for _ in range(10):
        mesh.link(name)
        mesh.run(2, **{name: 50})
        mesh.links.clear()
        mesh.run(1)
    assert len(lines(caplog)) == 1
    assert not mesh.watch.storms
    mesh.link("d")
    mesh.run(62)
    mesh.run(2, d=50)
    assert list(mesh.watch.said) == ["d"]

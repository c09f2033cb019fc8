# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of whole meshes have in common."""

from __future__ import annotations

import pytest

from cloudvpn.memory import map_tables
from tests.sim.mesh import Mesh

map_tables()


@pytest.fixture(params=[1, 2], ids=["version 1", "version 2"])
def each_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs once with each version of the wire."""
    monkeypatch.setattr(Mesh, "version", request.param)

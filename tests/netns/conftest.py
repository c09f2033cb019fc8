# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory that a test asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab

# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/options.md: a row for every option, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudvpn.options import OPTIONS

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs" / "options.md"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="needs a checkout")



def rows() -> dict[str, str]:
    """Option -> the cell of its tests."""
    lines = re.findall(r"^\| ([\w-]+) \| (.*?) \|.*\|$", DOCS.read_text(), re.MULTILINE)
    table = [line for line in lines if line[0] != "option"]
    assert len(table) == len(dict(table)), "an option has two rows"
    return dict(table)


def test_every_option_has_a_row_in_the_order_of_the_table() -> None:
    assert list(rows()) == [option.name for option in OPTIONS.values()]


@pytest.mark.parametrize("name", [option.name for option in OPTIONS.values()])
def test_the_tests_that_a_row_names_are_there(name: str) -> None:
    cell = rows()[name]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", cell)
    assert named, "it needs a test"
    assert re.sub(r"`[^`]+`", "", cell).strip() == "", cell
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(), re.MULTILINE), f"{file}::{test}"

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README says is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudvpn.config import load_file
from cloudvpn.help import options_table

README = Path(__file__).parents[2] / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="needs a checkout")


def test_the_options_table_is_that_of_the_parser() -> None:
    assert f"<!-- options -->\n\n{options_table()}\n<!-- /options -->" in README.read_text(), "run tools/readme"


def test_the_configurations_of_the_walk_through_are_good(tmp_path: Path) -> None:
    blocks = re.findall(r"```\n(key .*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for name in ("alpha.key", "alpha.crt", "beta.key", "beta.crt", "ca.crt", "crl.pem"):
        (tmp_path / name).write_text("read by the tests of tls.py")
        (tmp_path / name).chmod(0o600)
    for text in blocks:
        config = tmp_path / "node.conf"
        config.write_text(text)
        loaded = load_file(config)
        assert loaded.warnings == () and loaded.unused == ()


def test_there_are_two_commands_and_the_makefile_has_them() -> None:
    commands = re.findall(r"^make (\w+)  ", README.read_text(), re.MULTILINE)
    assert commands == ["run", "test"]
    makefile = README.with_name("Makefile").read_text()
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)

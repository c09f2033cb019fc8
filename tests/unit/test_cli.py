# SPDX-License-Identifier: GPL-3.0-or-later
"""The first word of the command line, which says what to do."""

from __future__ import annotations

import pytest

from cloudvpn import __version__
from cloudvpn.cli import run
from cloudvpn.help import usage


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--version", f"cloudvpn {__version__}\n"), ("-version", f"cloudvpn {__version__}\n"),
        ("--help", usage()), ("-help", usage()), ("-h", usage()),
    ],
)  # fmt: skip
def test_a_command_has_a_minus_or_two(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([word]) == 0
    assert capsys.readouterr() == (said, "")


@pytest.mark.parametrize("word", ["--version", "--help", "-h", "--demo"])
def test_a_command_without_arguments_takes_no_other_words(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([word, "node.conf"]) == 1
    assert capsys.readouterr() == ("", f"cloudvpn: command line: {word}: takes no other words\n")


def test_a_command_behind_a_file_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["/dev/null", "--check"]) == 1
    assert "cloudvpn: command line: --check: it has to be the first word\n" in capsys.readouterr().err

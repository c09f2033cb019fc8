# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: nothing that a peer or a file names can forge a line."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator

import pytest

from cloudvpn.log import LineFormatter, escape, is_journal, set_up

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("cloudvpn")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


def record(message: str, level: int = logging.INFO, failure: BaseException | None = None) -> logging.LogRecord:
    info = (type(failure), failure, failure.__traceback__) if failure else None
    return logging.LogRecord("cloudvpn", level, __file__, 1, message, (), info)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ""),
        ("plain text, ~ and é ☃ 漢", "plain text, ~ and é ☃ 漢"),
        ("back\\slash", "back\\slash"),
        ("a\nb", "a\\x0ab"),
        ("\r\t\0\x1b[31m\x7f", "\\x0d\\x09\\x00\\x1b[31m\\x7f"),
        ("\x1f \x7e\x80\x9f\xa0\xa1\xad", "\\x1f ~\\x80\\x9f\\xa0\xa1\\xad"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\u202eexe\u2066\u200b\ufeff", "\\u202eexe\\u2066\\u200b\\ufeff"),
        ("\udcff", "\\udcff"),
        ("\ue000\U000e0001\U0001f600", "\\ue000\\U000e0001\U0001f600"),
    ],
)
def test_what_cannot_be_printed_becomes_visible(text: str, seen: str) -> None:
    assert escape(text) == seen


def test_every_character_escapes_to_printable_text_and_escaping_twice_changes_nothing() -> None:
    for code in range(sys.maxunicode + 1):
        once = escape(chr(code))
        assert once.isprintable() and escape(once) == once


@pytest.mark.parametrize("message", ["a\nb", "a\r\n<0>b", "\u2028", "\x85x", "a\x0bb\x0cc\x1cd"])
def test_a_record_is_one_line_whatever_it_says(message: str) -> None:
    for for_journal in (False, True):
        assert len(LineFormatter(for_journal=for_journal).format(record(message)).splitlines()) == 1


def test_without_the_journal_a_line_has_time_and_level() -> None:
    line = LineFormatter(for_journal=False).format(record("link up", logging.WARNING))
    assert re.fullmatch(STAMP + " warning link up", line)


@pytest.mark.parametrize(
    ("level", "prefix"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (50, "<2>")],
)
def test_for_the_journal_a_line_has_its_priority_only(level: int, prefix: str) -> None:
    assert LineFormatter(for_journal=True).format(record("link up", level)) == prefix + "link up"


@pytest.mark.parametrize(("for_journal", "more"), [(False, "    "), (True, "<3>    ")])
def test_all_lines_of_a_traceback_are_indented(for_journal: bool, more: str) -> None:
    try:
        raise ValueError("one\n<0>two\u2028three\x1b")
    except ValueError as error:
        text = LineFormatter(for_journal=for_journal).format(record("broken", logging.ERROR, error))
    first, *lines = text.split("\n")
    assert first.endswith("broken") and len(text.splitlines()) == 1 + len(lines)
    assert all(line.startswith(more) and line.isprintable() for line in lines)
    assert lines[-2:] == [f"{more}<0>two", f"{more}three\\x1b"]


def test_the_journal_is_known_by_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    try:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not is_journal(write)
        info = os.fstat(write)
        monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
        assert is_journal(write)
        monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino + 1}")
        assert not is_journal(write)
    finally:
        os.close(read)
        os.close(write)
    assert not is_journal(write)


@pytest.mark.parametrize(("level", "shown"), [("error", 1), ("warning", 2), ("info", 3), ("debug", 4)])
def test_the_level_sets_what_is_logged(level: str, shown: int, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.append(other := logging.StreamHandler(sys.stderr))  # of a library, say
    set_up("debug")
    set_up(level)  # replaces the first: no line comes twice
    for weight in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
        logging.getLogger("cloudvpn.mesh").log(weight, "peer %s", "a\nb")
    logging.getLogger().handlers.remove(other)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == shown and all(line.endswith("peer a\\x0ab") for line in lines)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual pages say what the parsers do, and every viewer can show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cloudvpn.keygen.words import make_parser
from cloudvpn.options import OPTIONS, find
from cloudvpn.sim.figures import FIGURES
from cloudvpn.sim.script import VERBS
from cloudvpn.sim.words import make_parser as simulator_parser

man = pytest.importorskip("tools.man", reason="needs a checkout")

NO_OPTIONS = {"queue_full", "handshakes_expired", "handshakes_crowded_out"}  # names of counters


@pytest.mark.parametrize("name", man.PAGES)
def test_the_pages_are_made_from_the_tables_of_the_parsers(name: str) -> None:
    assert (man.FOLDER / name).read_text() == man.page(name), "run make docs"


def test_every_option_and_no_other_has_its_paragraph_in_the_order_of_the_table() -> None:
    assert list(man.texts()) == [option.name for option in OPTIONS.values()]


@pytest.mark.parametrize("name", [option.name for option in OPTIONS.values()])
def test_a_paragraph_says_more_than_the_table(name: str) -> None:
    text, row = man.texts()[name], find(name)
    assert row is not None
    assert len(text) > 120
    for word in re.findall(r"`([a-z_-]+)`", text):
        if re.search(r"[_-]", word.strip("-")) and word not in NO_OPTIONS:
            assert find(word), f"{word} is no option"
    for line in re.findall(r"^    (.+)$", text, re.MULTILINE):
        key, value = line.split(None, 1)
        option = find(key)
        assert option is not None
        option.parse(value)


def test_what_the_table_knows_is_added() -> None:
    page = man.page("cloudvpn.conf.5")
    assert "Default: \\fB10s\\fR. Range: 1ms to 24h.\n" in page
    assert page.count("\nMay be given again.") == sum(option.is_list for option in OPTIONS.values())
    for option in OPTIONS.values():
        assert f".TP\n\\fB{man.escape(option.name, True)}\\fR " in page


def test_every_subcommand_and_every_word_of_it_is_in_the_page() -> None:
    page = man.page("cloudvpn-keygen.1")
    parser = make_parser()
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert commands
    for name, command in commands.items():  # type: ignore[union-attr]
        part = page[page.index(f".SS {name}\n") :].split("\n.SS ", 1)[0]
        words = {flag for action in command._actions if action.dest != "help" for flag in action.option_strings}
        assert words == set(re.findall(r"^\\fB(--[\w-]+)\\fR", part.replace("\\-", "-"), re.MULTILINE))


def test_every_word_event_and_figure_of_the_simulator_is_in_its_page() -> None:
    page = man.page("cloudvpn-sim.1").replace("\\-", "-")
    flags = {flag for action in simulator_parser()._actions for flag in action.option_strings} - {"-h"}
    assert flags <= set(re.findall(r"--[\w-]+", page))
    for name in (*VERBS, *FIGURES):
        assert re.search(rf"^\.TP\n\\fB{name}( [^\n]*)?\\fR$", page, re.MULTILINE), name


CHECKS = {
    "mandoc": ["mandoc", "-T", "lint", "-W", "style"],
    "man": ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"],
}


def complaints(checker: str, page: Path) -> str:
    if not shutil.which(checker):
        pytest.skip(f"needs {checker}")
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    done = subprocess.run([*CHECKS[checker], page], capture_output=True, text=True, timeout=60, env=environment)
    if "minimized" in done.stdout:
        pytest.skip("this system has a man that shows no pages")
    return done.stderr + (done.stdout if checker == "mandoc" else "")


@pytest.mark.parametrize("checker", CHECKS)
def test_viewers_find_no_fault_in_them(checker: str, tmp_path: Path) -> None:
    for name in man.PAGES:
        assert complaints(checker, man.FOLDER / name) == ""
    bad = tmp_path / "bad.8"
    bad.write_text(man.page(man.PAGES[0]) + "\\fQbad\n.TQX 1\n")
    assert complaints(checker, bad)


def test_what_roff_takes_for_a_request_or_an_escape_is_shown_as_it_is() -> None:
    text = "% X 1 2026-01-01\n\n# NAME\n\nx `-` y\n\n.dot and `a-b'c` and \\n ~\n\n    .x '\\e'\n    'y\n"
    assert man.roff(text, {}).split(".ad l\n")[1] == (
        ".SH NAME\nx \\fB\\-\\fR y\n.PP\n\\&.dot and \\fBa\\-b\\(aqc\\fR and \\en \\(ti\n"
        ".PP\n.RS 4\n.EX\n\\&.x \\(aq\\ee\\(aq\n\\(aqy\n.EE\n.RE\n"
    )

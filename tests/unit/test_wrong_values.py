# SPDX-License-Identifier: GPL-3.0-or-later
"""Each option set to each kind of wrong value: the error names file, line, option and what was expected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloudvpn.config import MAX_SHOWN, load_words
from cloudvpn.errors import ConfigError
from cloudvpn.options import OPTIONS, YES_NO
from tests.unit.test_options import BAD

# As they are written in a file: blanks around a value are none of it, and a yes/no option may stand alone.
WRITTEN = [
    (key, text) for key, texts in BAD for text in texts
    if text == text.strip(" \t\n") and not (text == "" and OPTIONS[key].kind is YES_NO)
]  # fmt: skip


def expected(key: str) -> tuple[str, ...]:
    option = OPTIONS[key]
    return (option.kind.expected, f"{option.kind.noun} from {option.range}")


def is_promised(problem: str, place: str, key: str, text: str) -> bool:
    """Whether it is FILE:LINE: OPTION: expected WHAT, got VALUE."""
    shown = f'"{text}"' if text else "nothing"
    return any(problem == f"{place}: {OPTIONS[key].name}: expected {what}, got {shown}" for what in expected(key))


def test_every_option_is_among_them() -> None:
    assert {key for key, _ in WRITTEN} == set(OPTIONS)


@pytest.mark.parametrize(("key", "text"), WRITTEN, ids=lambda cell: cell[:20])
def test_a_wrong_value_is_told_with_its_place(key: str, text: str, tmp_path: Path) -> None:
    config = tmp_path / "node.conf"
    config.write_text(f"# fine\n\n{OPTIONS[key].name}  {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_words([str(config)])
    shown = text if len(text) <= 60 else text[:60] + "..."
    problem = caught.value.problems[0]
    if shown.isprintable():
        assert is_promised(problem, f"{config}:3", key, shown)
    else:  # shown with what it has that cannot be seen
        assert problem.startswith(f"{config}:3: {OPTIONS[key].name}: expected ") and problem.isprintable()


def test_a_run_tells_one_for_each_option_and_starts_nothing(tmp_path: Path) -> None:
    """As the user sees them, in as many runs as there are too many for one."""
    first = dict(reversed(WRITTEN))
    keys = list(OPTIONS)
    for begin in range(0, len(keys), MAX_SHOWN):
        part = keys[begin : begin + MAX_SHOWN]
        config = tmp_path / f"from{begin}.conf"
        config.write_text("".join(f"{OPTIONS[key].name} {first[key]}\n" for key in part))
        command = [sys.executable, "-m", "cloudvpn", "--check", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        lines = done.stderr.splitlines()
        for number, key in enumerate(part, start=1):
            line = lines[number - 1].removeprefix("cloudvpn: ")
            assert is_promised(line, f"{config}:{number}", key, first[key]), line

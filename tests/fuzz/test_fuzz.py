# SPDX-License-Identifier: GPL-3.0-or-later
"""Five seconds of each target, from its corpus on, the same changes each time; `make fuzz` goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fuzz.driver import SIZE_MAX, SLOW, Fault, Watch, inputs
from tests.fuzz.targets import NAMES, corpus, target

SECONDS = 5
SEED = 1


@pytest.mark.parametrize("name", NAMES)
def test_no_input_makes_it_fail_or_hang(name: str) -> None:
    watch, known = Watch(target(name)), corpus(name)
    end = time.monotonic() + SECONDS
    for data in inputs(known, SEED):
        watch(data)
        if watch.executions > len(known) and time.monotonic() > end:
            break
    assert watch.executions > len(known)


def test_all_corpora_together_are_small_and_each_input_is_one_that_is_run() -> None:
    assert sum(len(data) for name in NAMES for data in corpus(name)) < 200_000
    for name in NAMES:
        assert corpus(name) and max(map(len, corpus(name))) <= SIZE_MAX


def raises(data: bytes) -> None:
    assert data[:1] != b"\7", "a seven"


def hangs(data: bytes) -> None:
    end = time.thread_time() + (1.2 * SLOW if b"\7" in data else 0)
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("fails", "reason"), [(raises, "AssertionError: a seven"), (hangs, "took 1[0-9]{2} ms")])
def test_a_failing_input_is_found_and_told(fails: Callable[[bytes], None], reason: str) -> None:
    watch = Watch(fails)
    with pytest.raises(Fault, match=f"(?s){reason}.*07") as caught:
        for data in inputs([b"\1\2\3"], SEED):
            watch(data)
    again = bytes.fromhex(str(caught.value).split(": ")[-1].split("\n")[0])
    with pytest.raises(Fault):
        watch(again)

# SPDX-License-Identifier: GPL-3.0-or-later
"""How values are written in scenarios and scripts. Each function raises ValueError with what was expected."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cloudvpn.options import DURATION, HOUR

Span = tuple[int, int]  # us, from, to; drawn for each link

NAME: Final = re.compile(r"[A-Za-z0-9_.]{1,32}")
RATES: Final = {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}


def time(value: Any) -> int:
    """Microseconds."""
    try:
        parsed = DURATION.parse(value)
    except (ValueError, KeyError, TypeError):
        raise ValueError('a time such as "5s" or "200ms"') from None
    assert isinstance(parsed, int)
    if parsed > HOUR:
        raise ValueError("a time of at most an hour")
    return parsed


def pause(value: Any) -> int:
    """A time that passes."""
    if parsed := time(value):
        return parsed
    raise ValueError("a time over 0")


def span(value: Any) -> Span:
    """A time, or two between which one is drawn."""
    low, high = map(time, value) if isinstance(value, list) and len(value) == 2 else (time(value),) * 2
    if low > high:
        raise ValueError("a list of a time and a longer one")
    return low, high


def rate(value: Any) -> int:
    """Bits a second."""
    match = re.fullmatch(r"([1-9]\d{0,5})(kbit|Mbit|Gbit)", value if isinstance(value, str) else "")
    if match is None:
        raise ValueError('a rate such as "20Mbit", in kbit, Mbit or Gbit a second')
    return int(match[1]) * RATES[match[2]]


def share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a share from 0 to 1, such as 0.01")
    return float(value)


def number(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def choice(*words: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, bool) or value not in words:
            raise ValueError("one of " + ", ".join(map(str, words)))
        return value

    return parse


def yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("some text")
    return value


def name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value) or value in ("all", "random"):
        raise ValueError("a name of letters, digits, _ and . (not all, not random)")
    return value


def pair(value: Any) -> tuple[str, str]:
    """Two names with a minus between them."""
    if not isinstance(value, str) or value.count("-") != 1:
        raise ValueError('two nodes such as "a-b"')
    a, b = map(name, value.split("-"))
    if a == b:
        raise ValueError("a link of two different nodes")
    return a, b


class Bound(NamedTuple):
    """What a figure must be."""

    sign: str
    value: float

    def holds(self, figure: float) -> bool:
        return bool(SIGNS[self.sign](figure, self.value))

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


SIGNS: Final = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}


def bound(value: Any) -> Bound:
    """A number, which it must be, or a comparison."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Bound("==", value)
    match = re.fullmatch(r"\s*(<=|>=|<|>|==)\s*(\d{1,12}(?:\.\d{1,9})?)\s*", value if isinstance(value, str) else "")
    if match is None:
        raise ValueError('a number such as 0, or a bound such as "<= 0.6"')
    return Bound(match[1], float(match[2]))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of a script: `cut a-b`, `restart all 2s`. Parsed here, done in `events`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from cloudvpn.options import MS, SECOND
from cloudvpn.sim import values
from cloudvpn.sim.lies import LIES
from cloudvpn.sim.source import quote, suggest


class Operand(NamedTuple):
    """One word behind the verb. `default` None: it must be there. Some words stand for many or for any."""

    kind: str
    parse: Callable[[str], Any]
    default: Any = None
    also: tuple[str, ...] = ()


class Action(NamedTuple):
    """`operands` are parsed, and as many as the verb has."""

    text: str
    verb: str
    operands: tuple[Any, ...]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The links that it names."""
        for operand, value in zip(VERBS[self.verb].operands, self.operands, strict=True):
            if operand.kind in ("link", "node or link") and isinstance(value, tuple):
                yield value[0], value[1]

    def names(self, kind: str) -> Iterator[str]:
        """The nodes or hosts that it names, where they are not `all` or `random`."""
        for operand, value in zip(VERBS[self.verb].operands, self.operands, strict=True):
            if value in operand.also:
                continue
            if operand.kind == kind and isinstance(value, str):
                yield value
            elif kind == "node" and operand.kind in ("link", "node or link", "nodes") and isinstance(value, tuple):
                yield from value
            elif kind == "node" and operand.kind == "node or link":
                yield value


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 10_000:
        raise ValueError("a number from 1 to 10000")
    return int(text)


def _node_or_link(text: str) -> str | tuple[str, str]:
    return values.pair(text) if "-" in text else values.name(text)


def _nodes(text: str) -> tuple[str, ...]:
    return tuple(map(values.name, text.split(",")))


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if key not in SETTINGS:
        raise ValueError("rtt=TIME, jitter=TIME, loss=SHARE or rate=RATE")
    try:
        return key, SETTINGS[key](float(value) if re.fullmatch(r"[\d.]*\d", value) else value)
    except ValueError as error:
        raise ValueError(f"{key}= and {error.args[0]}") from None


SETTINGS: Final[dict[str, Callable[[Any], Any]]] = {
    "rtt": values.span, "jitter": values.span, "loss": values.share, "rate": values.rate,
}  # fmt: skip


def _node(*also: str) -> Operand:
    return Operand("node", values.name, also=("random", *also))


def _link(*also: str) -> Operand:
    return Operand("link", values.pair, also=("random", *also))


class Verb(NamedTuple):
    meaning: str
    operands: tuple[Operand, ...] = ()


VERBS: Final = {
    "cut": Verb("the link is lost; both nodes see it at once", (_link(),)),
    "heal": Verb("a link that was cut or silent works again", (_link("all"),)),
    "silence": Verb(
        "a cable is pulled or a machine stops: nobody is told, and the neighbours notice by `timeout`",
        (Operand("node or link", _node_or_link, also=("random",)),),
    ),
    "kill": Verb("the daemon dies; its neighbours see its links end", (_node(),)),
    "start": Verb("a dead node starts again, with empty tables", (_node("all"),)),
    "restart": Verb(
        "killed, and started that much later (1s); `all`: each at a random moment within that time",
        (_node("all"), Operand("time", values.pause, SECOND)),
    ),
    "flap": Verb(
        "cut and healed so often (10), with so much time between one and the other (200ms)",
        (_link(), Operand("count", _count, 10), Operand("time", values.pause, 200 * MS)),
    ),
    "partition": Verb(
        "all links between these nodes, such as `a,b,c`, and the others are cut; `half`: a random part of the mesh",
        (Operand("nodes", _nodes, also=("half",)),),
    ),
    "change": Verb(
        "the link is another one from now on: `rtt=80ms`, `jitter=5ms`, `loss=0.01` or `rate=2Mbit`",
        (_link("all"), Operand("setting", _setting)),
    ),
    "move": Verb(
        "the host is plugged in at another node, and says so with a broadcast as hosts do",
        (Operand("host", values.name, also=("random",)), _node()),
    ),
    "wander": Verb(
        "so many random moves of hosts (30) within that time (15s)",
        (Operand("count", _count, 30), Operand("time", values.pause, 15 * SECOND)),
    ),
    "lie": Verb(
        f"for that time (5s) the node passes no frame on and tells its neighbours lies, one of {', '.join(LIES)}; "
        "then it restarts",
        (_node(), Operand("lie", values.choice(*LIES)), Operand("time", values.pause, 5 * SECOND)),
    ),
    "chaos": Verb(
        "so many random events (46) within that time (15s): cut, heal, kill, start, restart, flap, silence and, where "
        "there are hosts, move",
        (Operand("count", _count, 46), Operand("time", values.pause, 15 * SECOND)),
    ),
    "watch": Verb("nothing happens; the figures of the time from here on stand by themselves"),
}


def table() -> str:
    """The events in Markdown."""
    rows = [(usage(verb).replace("|", "\\|"), meaning) for verb, (meaning, _) in VERBS.items()]
    return "| event | what happens |\n|---|---|\n" + "".join(f"| `{words}` | {meaning} |\n" for words, meaning in rows)


def usage(verb: str) -> str:
    words = [verb]
    for operand in VERBS[verb].operands:
        word = "|".join([operand.kind.upper().replace(" OR ", "|"), *operand.also])
        words.append(word if operand.default is None else f"[{word}]")
    return " ".join(words)


def parse_action(text: str) -> Action:
    """Raises ValueError with a sentence."""
    verb, *words = text.split() or [""]
    if verb not in VERBS:
        raise ValueError(f"{quote(verb)} is none of {', '.join(VERBS)}{suggest(verb, list(VERBS))}")
    operands = VERBS[verb].operands
    if len(words) > len(operands) or any(operand.default is None for operand in operands[len(words) :]):
        raise ValueError(f"write `{usage(verb)}`")
    parsed = [operand.default for operand in operands]
    for at, (operand, word) in enumerate(zip(operands, words, strict=False)):
        try:
            parsed[at] = word if word in operand.also else operand.parse(word)
        except ValueError as error:
            raise ValueError(f"{quote(word)} is not {error.args[0]}; write `{usage(verb)}`") from None
    return Action(" ".join([verb, *words]), verb, tuple(parsed))

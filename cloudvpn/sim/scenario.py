# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenario files: nodes, links, a script, traffic and expectations, checked. Several files make one scenario."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cloudvpn.errors import ConfigError
from cloudvpn.options import MS, SECOND
from cloudvpn.sim import values
from cloudvpn.sim.figures import FIGURES
from cloudvpn.sim.script import Action, parse_action
from cloudvpn.sim.shapes import SHAPES
from cloudvpn.sim.source import Source, Table, quote, suggest
from cloudvpn.sim.values import Bound, Span

MAX_NODES: Final = 256
MAX_LINKS: Final = 4096


@dataclass(frozen=True)
class NodeSettings:
    """Times in microseconds. `rule` 2009 is the way that the daemon of that year chose routes."""

    version: int = 2
    rule: int = 0
    interface: bool = True
    learn: bool = False
    heartbeat: int = 50 * MS
    keepalive: int = 5 * SECOND
    timeout: int = 60 * SECOND


@dataclass(frozen=True)
class LinkSettings:
    """Times in microseconds, `rate` in bit/s each way (0: no limit), `loss` the share of writes that TCP repeats."""

    rtt: Span = (10 * MS, 10 * MS)
    jitter: Span = (0, 0)
    loss: float = 0.0
    rate: int = 0
    retry: int = 10 * SECOND


@dataclass(frozen=True)
class Link:
    a: str
    b: str
    settings: LinkSettings


@dataclass(frozen=True)
class Topology:
    shape: str
    nodes: int
    degree: int = 4


@dataclass(frozen=True)
class Host:
    """A MAC behind the interface of a node."""

    name: str
    at: str


@dataclass(frozen=True)
class Event:
    at: int
    action: Action
    place: str  # in the file


@dataclass(frozen=True)
class Traffic:
    """`source` and `target` are names, or `all`. One frame of `size` bytes each `every` us for each pair."""

    source: str
    target: str
    every: int
    size: int = 100
    start: int = SECOND
    end: int | None = None
    place: str = ""


@dataclass(frozen=True)
class Expectation:
    """`after`: only what came after events whose words begin so."""

    figure: str
    bound: Bound
    after: str
    place: str


@dataclass
class Scenario:
    name: str
    seed: int = 1
    runs: int = 1
    duration: int = 0
    settle: int = 10 * SECOND
    node_settings: NodeSettings = NodeSettings()
    link_settings: LinkSettings = LinkSettings()
    version_1_share: float = 0.0  # of all nodes, which ones is drawn
    rule_2009_share: float = 0.0
    topology: Topology | None = None
    nodes: dict[str, NodeSettings] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)

    def edges(self, chance: random.Random) -> list[Link]:
        """The links of one run: those of the shape, drawn, except where the file has one of its own, and these."""
        if self.topology is None:
            return self.links
        shape = SHAPES[self.topology.shape]
        names = shape.names(self.topology.nodes)
        written = {frozenset((link.a, link.b)) for link in self.links}
        drawn = shape.edges(names, self.topology.degree, chance)
        return [Link(a, b, self.link_settings) for a, b in drawn if {a, b} not in written] + self.links


NODE_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "version": values.choice(1, 2), "rule": values.choice(2009), "interface": values.yes_no, "learn": values.yes_no,
    "heartbeat": values.pause, "keepalive": values.pause, "timeout": values.pause,
}  # fmt: skip
LINK_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "rtt": values.span, "jitter": values.span, "loss": values.share, "rate": values.rate, "retry": values.pause,
}  # fmt: skip


def load(paths: Sequence[Path], what_if: Sequence[str] = ()) -> Scenario:
    """Reads the files as if they were one; the words of `what_if` become events after the script."""
    problems: list[str] = []
    scenario = Scenario("+".join(path.stem for path in paths))
    sources = [Source(path, problems) for path in paths]
    # Defaults first, whichever file they are in: nodes and links are made from them.
    for read in (_read_top, _read_defaults, _read_topology, _read_nodes, _read_links, _read_rest):
        for source in sources:
            read(source, scenario)
    for source in sources:
        source.top.finish()
    if not scenario.nodes and not problems:
        problems.append(f"{paths[0]}:1: there is no node; write [topology] or [[node]]")
    scenario.events.sort(key=lambda event: event.at)
    last = scenario.events[-1].at if scenario.events else 0
    for number, words in enumerate(what_if, 1):
        place = f"command line: --what-if {quote(words)}"
        last = max(last + scenario.settle, scenario.duration if number == 1 else 0)
        try:
            scenario.events.append(Event(last, parse_action(words), place))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    scenario.duration = max(scenario.duration, last + scenario.settle)
    _check_names(scenario, problems)
    if problems:
        raise ConfigError(problems)
    return scenario


def _read_top(source: Source, scenario: Scenario) -> None:
    table = source.top
    scenario.seed = _or(table.take("seed", values.number(0, 2**63 - 1)), scenario.seed)
    scenario.runs = _or(table.take("runs", values.number(1, 1000)), scenario.runs)
    scenario.duration = _or(table.take("duration", values.pause), scenario.duration)
    scenario.settle = _or(table.take("settle", values.pause), scenario.settle)


def _read_defaults(source: Source, scenario: Scenario) -> None:
    if table := source.table("defaults"):
        scenario.node_settings = _node_settings(table, scenario.node_settings)
        scenario.link_settings = _link_settings(table, scenario.link_settings)
        scenario.version_1_share = _or(table.take("version_1_share", values.share), scenario.version_1_share)
        scenario.rule_2009_share = _or(table.take("rule_2009_share", values.share), scenario.rule_2009_share)
        table.finish()


def _read_topology(source: Source, scenario: Scenario) -> None:
    if not (table := source.table("topology")):
        return
    if scenario.topology is not None:
        table.complain("", "there is one already, in another file")
    name = table.need("shape", values.choice(*SHAPES))
    nodes = table.need("nodes", values.number(2, MAX_NODES))
    degree = _or(table.take("degree", values.number(2, 16)), 4)
    table.finish()
    if name is None or nodes is None:
        return
    shape = SHAPES[name]
    if not shape.is_size(nodes):
        table.complain("nodes", f"a {name} has {shape.size} nodes, not {nodes}")
    elif name == "complete" and nodes * (nodes - 1) // 2 > MAX_LINKS:
        table.complain("nodes", f"that would be more than {MAX_LINKS} links")
    else:
        scenario.topology = Topology(name, nodes, degree)
        scenario.nodes.update(dict.fromkeys(shape.names(nodes), scenario.node_settings))


def _read_nodes(source: Source, scenario: Scenario) -> None:
    for table in source.tables("node"):
        name = table.need("name", values.name)
        settings = _node_settings(table, scenario.nodes.get(name or "", scenario.node_settings))
        if name is not None:
            scenario.nodes[name] = settings
            if len(scenario.nodes) > MAX_NODES:
                table.complain("", f"more than {MAX_NODES} nodes")
        table.finish()


def _read_links(source: Source, scenario: Scenario) -> None:
    for table in source.tables("link"):
        ends = table.need("between", values.pair)
        settings = _link_settings(table, scenario.link_settings)
        if ends is not None and all(_is_node(table, "between", end, scenario) for end in ends):
            scenario.links.append(Link(*ends, settings))
            if len(scenario.links) > MAX_LINKS:
                table.complain("", f"more than {MAX_LINKS} links")
        table.finish()


def _read_rest(source: Source, scenario: Scenario) -> None:
    for table in source.tables("host"):
        name, at = table.need("name", values.name), table.need("at", values.name)
        if name is not None and at is not None and _is_node(table, "at", at, scenario):
            if name in scenario.nodes or name in {host.name for host in scenario.hosts}:
                table.complain("name", f"{quote(name)} is the name of another one")
            scenario.hosts.append(Host(name, at))
        table.finish()
    for table in source.tables("event"):
        moment, action = table.need("at", values.time), table.need("do", _action)
        if moment is not None and action is not None:
            scenario.events.append(Event(moment, action, table.place("do")))
        table.finish()
    for table in source.tables("traffic"):
        _read_traffic(table, scenario)
    for table in source.tables("expect"):
        after = _or(table.take("after", values.text), "")
        for key in [key for key in table.left() if key in FIGURES]:
            if (bound := table.take(key, values.bound)) is not None:
                scenario.expectations.append(Expectation(key, bound, after, table.place(key)))
        table.finish(FIGURES)


def _action(value: Any) -> Action:
    try:
        return parse_action(values.text(value))
    except ValueError as error:
        raise ValueError(f"an event: {error}") from None


def _read_traffic(table: Table, scenario: Scenario) -> None:
    ends = [table.need(key, values.text) for key in ("from", "to")]
    every = table.need("every", values.pause)
    size = _or(table.take("size", values.number(60, 1514)), 100)
    start, end = _or(table.take("start", values.time), SECOND), table.take("end", values.time)
    table.finish()
    if ends[0] is not None and ends[1] is not None and every is not None:
        scenario.traffic.append(Traffic(ends[0], ends[1], every, size, start, end, table.place("from")))


def _node_settings(table: Table, base: NodeSettings) -> NodeSettings:
    given: dict[str, Any] = {key: table.take(key, parse) for key, parse in NODE_KEYS.items()}
    settings = replace(base, **{key: value for key, value in given.items() if value is not None})
    # The rule of 2009 is one of version 1.
    return replace(settings, version=1) if settings.rule == 2009 else settings


def _link_settings(table: Table, base: LinkSettings) -> LinkSettings:
    given: dict[str, Any] = {key: table.take(key, parse) for key, parse in LINK_KEYS.items()}
    return replace(base, **{key: value for key, value in given.items() if value is not None})


def _is_node(table: Table, key: str, name: str, scenario: Scenario) -> bool:
    if name not in scenario.nodes:
        table.complain(key, f"there is no node {quote(name)}{suggest(name, list(scenario.nodes))}")
    return name in scenario.nodes


def _check_names(scenario: Scenario, problems: list[str]) -> None:
    """What can only be known when all is read."""
    hosts = [host.name for host in scenario.hosts]
    for event in scenario.events:
        if event.at > scenario.duration:
            problems.append(f"{event.place}: at is after the end, which is the duration")
        for kind, known in (("node", list(scenario.nodes)), ("host", hosts)):
            for name in event.action.names(kind):
                if name not in known:
                    problems.append(f"{event.place}: there is no {kind} {quote(name)}{suggest(name, known)}")
        if not hosts and event.action.text.startswith(("wander", "move random")):
            problems.append(f"{event.place}: there is no host that could move; write [[host]]")
    for traffic in scenario.traffic:
        for name in (traffic.source, traffic.target):
            if name != "all" and name not in scenario.nodes and name not in hosts:
                known = [*scenario.nodes, *hosts]
                problems.append(f"{traffic.place}: there is no node or host {quote(name)}{suggest(name, known)}")
            elif name in scenario.nodes and not scenario.nodes[name].interface:
                problems.append(f"{traffic.place}: {quote(name)} has no interface")
    words = [event.action.text for event in scenario.events]
    for expectation in scenario.expectations:
        if expectation.after and not any(text.startswith(expectation.after) for text in [*words, "start"]):
            problems.append(f"{expectation.place}: after: no event begins with {quote(expectation.after)}")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value

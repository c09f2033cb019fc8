# SPDX-License-Identifier: GPL-3.0-or-later
"""The status: two forms of the same facts, names that stay, and a file that leads nowhere else."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudvpn import status
from cloudvpn._fast.ports import DROP_NAMES
from cloudvpn.facts import (
    ExpiringFacts,
    FlowFacts,
    FrameFacts,
    InterfaceFacts,
    LinkFacts,
    ListenerFacts,
    NodeFacts,
    NodeOfferFacts,
    OfferFacts,
    RefusedFacts,
    RouteFacts,
    RoutingFacts,
    TrafficFacts,
    WayFacts,
)  # fmt: skip
from cloudvpn.help import facts_tables
from cloudvpn.options import Config
from cloudvpn.status_formats import FORMATS, as_json, as_text, format_bytes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "status.md"
needs_checkout = pytest.mark.skipif(not DOCS.exists(), reason="needs a checkout")

KIB = 1024
ONE, TWO = 0x4EACC95937D2, 0xBE8854E7D317
A1, B2, C3 = "00000000000000a1", "00000000000000b2", "00000000000000c3"

# The status of a node of 2009 that is the first of three, with what is new of a link and of version 2.
OF_2009 = """\
cloudvpn status
uptime: 3.50574s

local interface: be:88:54:e7:d3:17
listening sockets: 1

connections: 2
connection 0 \tping 1572 \troute count 2 \t(fd 6)
 = connected to addr `10.77.0.2 34504'
 = certificate `b', TLSv1.3, version 2, node 00000000000000b2
 = connected for 3.38591 seconds
 >> in  4B/s, 0pkt/s; total 2.73KiB, 32pkt
 << out 8B/s, 0pkt/s; total 2.63KiB, 31pkt
 `--node 00000000000000b2 \thops 0 \tcost 0 \tnumber 31 \tlabel 0
 `--node 00000000000000c3 \thops 1 \tcost 2979 \tnumber 32 \tlabel 2970
connection 1 \tping 1245 \troute count 2 \t(fd 7)
 = connected to addr `10.77.0.3 52842'
 = certificate `c', TLSv1.2, version 1
 = connected for 3.26625 seconds
 >> in  8B/s, 0pkt/s; total 40B, 4pkt
 << out 26B/s, 0pkt/s; total 1018B, 14pkt
 `--route to 4e:ac:c9:59:37:d2 \tdist 2 \tping 3827
 `--route to be:88:54:e7:d3:17 \tdist 1 \tping 2253
---

 >> total in  12B/s, 0pkt/s; total 2.77KiB, 36pkt
 << total out 34B/s, 0pkt/s; total 3.62KiB, 45pkt
---

local route count: 2
route to 4e:ac:c9:59:37:d2 \tvia conn 0 \tping 1575 \tdistance 1
route to be:88:54:e7:d3:17 \tvia conn -1 \tping 1 \tdistance 0
---
"""
NEW = """
written: 2026-11-24 19:00:00 UTC by cloudvpn 0.1.0, process 77
listening: 0.0.0.0 15135
interface: tap0 up, offloads for TCP; 5 reads, 500 bytes, 6 writes, 600 bytes
frames: from interface 11, to interface 12, from links 13, to links 14, copies 15
dropped: short 1, queue_full 2
routes refused: own 21, far 22, full 23; broadcast ids that came back after they were forgotten 24
node: 00000000000000a1
node 00000000000000a1 \tvia conn -1 \tcost 0 \thops 0 \tnumber 41 \tlabel 0 \thosts 1
node 00000000000000b2 \tvia conn 0 \tcost 1574 \thops 1 \tnumber 42 \tlabel 1573 \thosts 0
host 4e:ac:c9:59:37:d2 \told \tat no node of version 2
host be:88:54:e7:d3:17 \tfixed \tat 00000000000000a1
ways changed: offer 51
ways announced: refused 52; links slowed 54, doubted 55
hosts: moves 53
expiring: own certificate "a" expires on 2026-11-26 19:00 UTC, in 2 days: renew it
handshakes: 9
links: dials_failed 3, links_up 2
---
"""
# The names that programs rely on: to change one is to break them, and needs another `format`.
AS_JSON = {
    "format": 1, "program": "0.1.0", "process": 77, "time": "2026-11-24T19:00:00.000000Z", "uptime_seconds": 3.50574,
    "interface": {"name": "tap0", "mac": "be:88:54:e7:d3:17", "is_up": True, "offloads": ["TCP"], "reads": 5,
                  "bytes_read": 500, "writes": 6, "bytes_written": 600},
    "listeners": [{"host": "0.0.0.0", "port": 15135}],
    "links": [
        {"connection": 0, "ping_us": 1572, "route_count": 2, "descriptor": 6, "host": "10.77.0.2", "port": 34504,
         "certificate": "b", "tls": "TLSv1.3", "version": 2, "age_seconds": 3.38591,
         "traffic": {
             "received": {"bytes": 2796, "packets": 32, "bytes_per_second": 4.0, "packets_per_second": 0.25},
             "sent": {"bytes": 2693, "packets": 31, "bytes_per_second": 8.0, "packets_per_second": 0.25}},
         "waiting_frames": 0, "dropped_frames": 0, "broadcasts_refused": 0, "node": "00000000000000b2", "offers": None,
         "node_offers": [
             {"node": "00000000000000b2", "sequence": 31, "label": 0, "cost_us": 0, "hops": 0},
             {"node": "00000000000000c3", "sequence": 32, "label": 2970, "cost_us": 2979, "hops": 1}]},
        {"connection": 1, "ping_us": 1245, "route_count": 2, "descriptor": 7, "host": "10.77.0.3", "port": 52842,
         "certificate": "c", "tls": "TLSv1.2", "version": 1, "age_seconds": 3.26625,
         "traffic": {
             "received": {"bytes": 40, "packets": 4, "bytes_per_second": 8.0, "packets_per_second": 0.25},
             "sent": {"bytes": 1018, "packets": 14, "bytes_per_second": 26.0, "packets_per_second": 0.25}},
         "waiting_frames": 0, "dropped_frames": 0, "broadcasts_refused": 0, "node": None,
         "offers": [{"mac": "4e:ac:c9:59:37:d2", "distance": 2, "ping_us": 3827},
                    {"mac": "be:88:54:e7:d3:17", "distance": 1, "ping_us": 2253}], "node_offers": None},
    ],
    "traffic": {
        "received": {"bytes": 2836, "packets": 36, "bytes_per_second": 12.0, "packets_per_second": 0.25},
        "sent": {"bytes": 3707, "packets": 45, "bytes_per_second": 34.0, "packets_per_second": 0.25}},
    "routes": [{"mac": "4e:ac:c9:59:37:d2", "connection": 0, "ping_us": 1575, "distance": 1, "kind": "old",
                "node": None},
               {"mac": "be:88:54:e7:d3:17", "connection": -1, "ping_us": 1, "distance": 0, "kind": "fixed",
                "node": "00000000000000a1"}],
    "frames": {"from_interface": 11, "to_interface": 12, "from_links": 13, "to_links": 14, "copies": 15},
    "dropped": {"short": 1, "queue_full": 2},
    "routes_refused": {"own": 21, "far": 22, "full": 23},
    "node_id": "00000000000000a1",
    "nodes": [{"node": "00000000000000a1", "connection": -1, "cost_us": 0, "hops": 0, "sequence": 41, "label": 0},
              {"node": "00000000000000b2", "connection": 0, "cost_us": 1574, "hops": 1, "sequence": 42,
               "label": 1573}],
    "routing": {"changes": {"offer": 51}, "announcements": {"refused": 52}, "hosts": {"moves": 53}, "links_slowed": 54,
                "links_doubted": 55},
    "ids_came_back": 24,
    "expiring": [{"what": 'own certificate "a"', "time": "2026-11-26T19:00:00.000000Z", "remedy": "renew it"}],
    "handshakes": 9,
    "events": {"dials_failed": 3, "links_up": 2},
}  # fmt: skip


def traffic(received: tuple[int, int, int], sent: tuple[int, int, int]) -> TrafficFacts:
    """Each of bytes, packets, bytes a second."""
    return TrafficFacts(*(FlowFacts(count, packets, float(rate), 0.25) for count, packets, rate in (received, sent)))


def example() -> NodeFacts:
    time = datetime(2026, 11, 24, 19, tzinfo=timezone.utc)
    return NodeFacts(
        1, "0.1.0", 77, time, 3.50574, InterfaceFacts("tap0", TWO, True, ("TCP",), 5, 500, 6, 600),
        [ListenerFacts("0.0.0.0", 15135)],
        [LinkFacts(0, 1572, 2, 6, "10.77.0.2", 34504, "b", "TLSv1.3", 2, 3.38591,
                   traffic((2796, 32, 4), (2693, 31, 8)), 0, 0, 0, B2, None,
                   [NodeOfferFacts(B2, 31, 0, 0, 0), NodeOfferFacts(C3, 32, 2970, 2979, 1)]),
         LinkFacts(1, 1245, 2, 7, "10.77.0.3", 52842, "c", "TLSv1.2", 1, 3.26625,
                   traffic((40, 4, 8), (1018, 14, 26)), 0, 0, 0, None,
                   [OfferFacts(ONE, 2, 3827), OfferFacts(TWO, 1, 2253)], None)],
        traffic((2836, 36, 12), (3707, 45, 34)),
        [RouteFacts(ONE, 0, 1575, 1, "old", None), RouteFacts(TWO, -1, 1, 0, "fixed", A1)],
        FrameFacts(11, 12, 13, 14, 15), {"short": 1, "queue_full": 2}, RefusedFacts(21, 22, 23), A1,
        [WayFacts(A1, -1, 0, 0, 41, 0), WayFacts(B2, 0, 1574, 1, 42, 1573)],
        RoutingFacts({"offer": 51}, {"refused": 52}, {"moves": 53}, 54, 55), 24,
        [ExpiringFacts('own certificate "a"', time + timedelta(days=2), "renew it")],
        9, {"dials_failed": 3, "links_up": 2},
    )  # fmt: skip


# The two forms


def text_of(facts: NodeFacts) -> str:
    return "".join(as_text(facts))


def json_of(facts: NodeFacts) -> str:
    return "".join(as_json(facts))


def test_the_text_is_that_of_2009_and_a_block_of_what_is_new() -> None:
    assert text_of(example()) == OF_2009 + NEW


def test_the_json_has_the_names_that_were_promised() -> None:
    text = json_of(example())
    assert json.loads(text) == AS_JSON
    assert text.endswith("}\n") and text.count("\n") == 1


Change = tuple[str, Callable[[], None]]


def changes(facts: Any, path: str = "") -> Iterator[Change]:
    """Each fact by its path, and what makes another one of it."""
    if is_dataclass(facts):
        places: list[tuple[str, Any, Callable[[Any], None]]] = [
            (one.name, getattr(facts, one.name), lambda new, name=one.name: setattr(facts, name, new))
            for one in fields(facts)
        ]
    else:
        keys = list(facts) if isinstance(facts, dict) else range(len(facts))
        places = [(str(key), facts[key], lambda new, key=key: facts.__setitem__(key, new)) for key in keys]
    for name, value, put in places:
        if is_dataclass(value) or isinstance(value, (list, dict)):
            yield from changes(value, f"{path}.{name}")
            if isinstance(value, list):
                yield f"{path}.{name}[]", value.pop
        elif name not in ("offers", "node_offers"):     # null: of the other version, or not asked for
            yield f"{path}.{name}", lambda put=put, value=value: put(another(value))


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if value is None:
        return "x"
    if isinstance(value, (int, float)):
        return value // 2 + 1_000_000
    return value + {str: "x", tuple: ("UDP",), datetime: timedelta(days=1)}[type(value)]


def test_every_fact_is_in_both_forms() -> None:
    """So they cannot tell different stories: whichever fact changes, both texts do."""
    paths = [path for path, _ in changes(example())]
    assert len(paths) > 80 and ".links.1.traffic.sent.packets" in paths and ".expiring.0.time" in paths
    for number, path in enumerate(paths):
        facts = example()
        before = {form: [*write(facts)] for form, write in FORMATS.items()}
        list(changes(facts))[number][1]()
        same = {form for form, write in FORMATS.items() if [*write(facts)] == before[form]}
        assert same == ({"text"} if path == ".format" else set()), path  # of the JSON's names, not of the node


def test_what_is_not_there_is_told_in_both_forms() -> None:
    headless = replace(example(), interface=None)
    assert "\nlocal interface: none\n" in text_of(headless) and "\ninterface: " not in text_of(headless)
    assert json.loads(json_of(headless))["interface"] is None
    gone = copy.deepcopy(example())
    assert gone.interface is not None
    gone.interface.mac = None
    assert "\nlocal interface: tap0 is gone\n" in text_of(gone) and "\ninterface: tap0 gone, " in text_of(gone)
    assert json.loads(json_of(gone))["interface"]["mac"] is None
    brief = copy.deepcopy(example())
    for link in brief.links:
        link.offers = link.node_offers = None
    assert "--route" not in text_of(brief) and "--node" not in text_of(brief)
    assert [link["offers"] for link in json.loads(json_of(brief))["links"]] == [None, None]
    assert "links: none yet\n---\n" in text_of(replace(example(), events={}))


@pytest.mark.parametrize("form", FORMATS)
def test_of_many_hosts_the_whole_is_never_in_memory(form: str, tmp_path: Path) -> None:
    routes = [RouteFacts(mac, 0, 1000, 1, "learned", A1) for mac in range(ONE, ONE + 20_000)]
    facts = replace(example(), routes=routes)
    tracemalloc.start()
    try:
        status.replace(tmp_path / "status", FORMATS[form](facts))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "status").stat().st_size > 2_000_000 and peak < 400_000


def test_sizes_are_written_as_2009_did() -> None:
    sizes = [0, 1023, KIB, 2796, KIB**2 - 1, KIB**2, KIB**5]
    assert [format_bytes(size) for size in sizes] == [
        "0B", "1023B", "1.00KiB", "2.73KiB", "1024.00KiB", "1.00MiB", "1024.00TiB"]  # fmt: skip


# docs/status.md


@needs_checkout
def test_the_tables_of_the_documentation_are_those_of_the_code() -> None:
    assert f"<!-- facts -->\n\n{facts_tables()}\n<!-- /facts -->" in DOCS.read_text(), "run tools/readme"


@needs_checkout
def test_every_name_of_the_json_is_in_the_tables() -> None:
    def names(value: Any, key: str = "") -> Iterator[str]:
        for part in value if isinstance(value, list) else []:
            yield from names(part)
        if isinstance(value, dict) and key not in ("dropped", "events", "changes", "announcements", "hosts"):
            for name, part in value.items():
                yield name
                yield from names(part, name)

    rows = set(re.findall(r"^\| (\w+) \| \w", facts_tables(), re.MULTILINE))
    assert set(names(AS_JSON)) == rows


@needs_checkout
def test_every_reason_and_every_event_is_explained() -> None:
    rows = re.findall(r"^\| ([a-z_, ]+) \|", DOCS.read_text(), re.MULTILINE)
    explained = {name for row in rows for name in row.split(", ")}
    assert set(DROP_NAMES) <= explained
    sources = "".join(path.read_text() for path in (ROOT / "cloudvpn").glob("*.py"))
    events = set(re.findall(r'counters\["(\w+)"\]', sources))
    assert len(events) >= 10 and events <= explained


# The file


def names_to_come(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """What temporary files will be called, as if an attacker had guessed it."""
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: iter(names))


def test_a_link_laid_at_the_temporary_name_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name, target in (("one", victim), ("two", tmp_path / "none"), ("three", Path("/dev/null"))):
        (tmp_path / f".status.{name}").symlink_to(target)
    names_to_come(monkeypatch, "one", "two", "three", "four")
    status.replace(tmp_path / "status", "new")
    assert (tmp_path / "status").read_text() == "new" and not (tmp_path / "status").is_symlink()
    assert victim.read_text() == "untouched" and not (tmp_path / "none").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".status.one", ".status.three", ".status.two", "status", "victim"]  # fmt: skip


def test_a_link_laid_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "status"
    victim.write_text("untouched")
    for other in (victim, tmp_path / "none", Path("/dev/null")):
        target.symlink_to(other)
        status.replace(target, "new")
        assert not target.is_symlink() and target.read_text() == "new"
        target.unlink()
    target.hardlink_to(victim)
    status.replace(target, "new")
    assert victim.read_text() == "untouched" and not (tmp_path / "none").exists()
    assert target.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "status"
    target.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "replace", refuse)
        status.replace(target, "new")
    with pytest.raises(OSError, match="name too long"):
        status.replace(tmp_path / ("x" * 250), "new")
    assert [path.name for path in tmp_path.iterdir()] == ["status"] and target.read_text() == "old"


def test_names_that_are_no_text_are_written_all_the_same(tmp_path: Path) -> None:
    status.replace(tmp_path / "status", "tap\udcff é")
    assert (tmp_path / "status").read_text("utf-8") == "tap\\udcff é"


def test_a_status_that_is_ready_too_late_is_not_left_behind(tmp_path: Path) -> None:
    """Its thread may still be at work when the node has ended."""
    mesh = SimpleNamespace(loop=SimpleNamespace(time=lambda: 0.0))
    file = status.StatusFile(Config(status_file=tmp_path / "status"), mesh, None)  # type: ignore[arg-type]
    file.has_started = True
    file.save(example(), "text")
    assert file.path.exists()
    file.stop()
    file.save(example(), "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_if_the_node_never_started(tmp_path: Path) -> None:
    mesh = SimpleNamespace(loop=SimpleNamespace(time=lambda: 0.0))
    file = status.StatusFile(Config(status_file=tmp_path / "status"), mesh, None)  # type: ignore[arg-type]
    file.path.write_text("of another node")
    file.stop()
    assert file.path.read_text() == "of another node"

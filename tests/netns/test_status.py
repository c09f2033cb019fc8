# SPDX-License-Identifier: GPL-3.0-or-later
"""The status file of a real daemon: its two forms, and links that somebody laid in its way."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

from tests.netns.keys import write_private
from tests.netns.lab import Lab, Node
from tests.netns.status import Status

PORT = 4000


def read_json(node: Node) -> Any:
    """None while the file is not there, or still text."""
    text = node.status_file.read_text() if node.status_file.exists() else ""
    return json.loads(text) if text.startswith("{") else None


def in_common(status: Status) -> dict[str, Any]:
    """What the text says of a mesh at rest and must not change from one status to the next."""
    return {
        "mac": status.mac,
        "listening": re.findall(r"^listening: (.+) (\d+)$", status.text, re.MULTILINE),
        "addresses": re.findall(r"addr `(.+) (\d+)'$", status.text, re.MULTILINE),
        "certificates": re.findall(r"certificate `(.+)', (\S+), version (\d)", status.text),
        "offers": [{mac: distance for mac, (distance, _) in link.routes.items()} for link in status.links],
        "node offers": [link.nodes for link in status.links],
        "nodes": {node: (way.via, way.hops) for node, way in status.nodes.items()},
        "node": status.node,
        "hosts": {mac: kind for mac, (kind, _) in status.hosts.items()},
        "routes": {mac: (via, distance) for mac, (via, _, distance) in status.routes.items()},
        "process": re.findall(r"process (\d+)$", status.text, re.MULTILINE),
        "uplinks": int(re.findall(r"links_up (\d+)", status.text)[0]),
    }


def test_json_tells_what_the_text_told_and_sighup_changes_the_form(lab: Lab) -> None:
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "iface_dev tap0")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", "iface yes")
    lab.until(lambda: a.status().links and a.status().links[0].ping and len(a.status().routes) == 2, 15, "two routes")
    told = in_common(a.status())
    write_private(a.config, (a.config.read_text() + "status_format json\n").encode())
    a.signal(signal.SIGHUP)
    facts = lab.until(lambda: read_json(a), 10, "a status in JSON")
    assert facts["format"] == 1 and facts["interface"]["name"] == "tap0" and facts["interface"]["is_up"]
    assert in_json(facts) == told
    assert facts["links"][0]["ping_us"] > 0 and facts["links"][0]["traffic"]["received"]["bytes"] > 0
    moving = lab.until(lambda: (now := read_json(a)) and now["uptime_seconds"] > facts["uptime_seconds"] and now, 5, "")
    assert moving["time"] > facts["time"]
    frames, lost = moving["frames"], sum(moving["dropped"].values())
    assert (frames["from_interface"] + frames["from_links"] + frames["copies"]
            == frames["to_interface"] + frames["to_links"] + lost)  # fmt: skip
    assert b.terminate() == 0
    alone = lab.until(lambda: (now := read_json(a)) and not now["links"] and now, 5, "no link in the status")
    assert alone["events"]["links_lost"] == 1 and len(alone["routes"]) == 1
    assert alone["traffic"]["received"]["bytes"] >= facts["links"][0]["traffic"]["received"]["bytes"]


def in_json(facts: Any) -> dict[str, Any]:
    return {
        "mac": facts["interface"]["mac"],
        "listening": [(one["host"], str(one["port"])) for one in facts["listeners"]],
        "addresses": [(link["host"], str(link["port"])) for link in facts["links"]],
        "certificates": [(link["certificate"], link["tls"], str(link["version"])) for link in facts["links"]],
        "offers": [{offer["mac"]: offer["distance"] for offer in link["offers"] or ()} for link in facts["links"]],
        "node offers": [{way["node"]: way["hops"] for way in link["node_offers"] or ()} for link in facts["links"]],
        "nodes": {way["node"]: (way["connection"], way["hops"]) for way in facts["nodes"]},
        "node": facts["node_id"],
        "hosts": {route["mac"]: route["kind"] for route in facts["routes"]},
        "routes": {route["mac"]: (route["connection"], route["distance"]) for route in facts["routes"]},
        "process": [str(facts["process"])],
        "uplinks": facts["events"]["links_up"],
    }


def test_without_status_verbose_no_offers_are_told(lab: Lab) -> None:
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", "iface yes", "status_format json", "status-verbose no")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", "iface yes", "status-verbose no")
    link = lab.until(lambda: (now := read_json(a)) and now["links"] and now["links"][0], 15, "a link")
    assert link["offers"] is None
    lab.until(lambda: len(b.status().routes) == 2, 15, "two routes")
    assert b.status().links and not b.status().links[0].routes


def test_a_link_laid_at_the_status_file_is_replaced_and_at_the_end_nothing_else_is_gone(lab: Lab) -> None:
    victim, target = lab.directory / "victim", lab.directory / "a.status"
    victim.write_text("untouched")
    target.symlink_to(victim)
    a = lab.node("a", "listen 127.0.0.1 0", "status-interval 100ms")
    lab.until(lambda: not target.is_symlink(), 15, "the file in the place of the link")
    assert a.status().listening == 1 and victim.read_text() == "untouched"
    laid = lab.directory / "laid"
    laid.symlink_to(victim)
    laid.replace(target)  # again, while it runs
    lab.until(lambda: not target.is_symlink(), 5, "the file in the place of the link")
    assert a.terminate() == 0
    assert not target.exists() and victim.read_text() == "untouched"

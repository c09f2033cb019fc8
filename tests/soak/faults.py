# SPDX-License-Identifier: GPL-3.0-or-later
"""What is broken, and what is changed, while the mesh runs: which, where and for how long says the random generator.

A fault happens in the stormy half only. Its function returns when it is mended, with what it was, and has seen that it
happened. A reload happens anywhere, and nobody may lose anything by it.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from tests.netns.lab import Host, Node, until
from tests.soak.mesh import FAILED, NAMES, PATIENCE, PORT, STORMY, STORMY_LINKS, Mesh

Deed = Callable[[Mesh, Random], str]

RESET = r"link down: .*reset by peer"
# Values that lose nothing: what may be changed by a reload, and what needs a start.
LIVE = {
    "multipath": ("yes", "no"),
    "multi_ratio": ("2", "3"),
    "heartbeat": ("50ms", "20ms"),
    "tcp_nodelay": ("yes", "no"),
    "learn_macs": ("yes", "no"),
    "promisc": ("yes", "no"),
    "max_waiting_data_packets": ("256", "512"),
    "uplimit-conn": ("100M", "50M"),
    "broadcast_limit": ("10000", "5000"),
    "status-verbose": ("yes", "no"),
    "max_handshakes": ("128", "64"),
}
AT_START = {
    "conn-mtu": ("8k", "9k"),
    "iface_offload": ("yes", "no"),
    "report_ping_changes_above": ("5ms", "1ms"),
    "br_id_cache_size": ("65536", "32768"),
}


def hold(seconds: float) -> None:
    """A fault lasts: nothing tells when it has lasted long enough."""
    time.sleep(seconds)


def change(mesh: Mesh, name: str, random: Random, options: dict[str, tuple[str, str]]) -> str:
    """Another value of two options of the node."""
    chosen = random.sample(sorted(options), 2)
    for option in chosen:
        first, second = options[option]
        mesh.options[name][option] = second if mesh.options[name].get(option) == first else first
    mesh.write(name)
    return ", ".join(f"{option} {mesh.options[name][option]}" for option in chosen)


# Faults


def reset_link(mesh: Mesh, random: Random) -> str:
    link = random.choice(STORMY_LINKS)
    before = {name: mesh.count_lines(name, RESET) for name in link}
    mesh.wires[link].reset(link[1], PORT)
    try:
        for name in link:
            mesh.nodes[name].wait_log(RESET, PATIENCE, before[name] + 1)
    finally:
        mesh.wires[link].accept(link[1])
    return f"{link[0]} - {link[1]}"


def kill_node(mesh: Mesh, random: Random) -> str:
    name = random.choice(STORMY)
    kill(mesh.nodes[name])
    hold(random.uniform(0.2, 3))
    mesh.nodes[name].start()
    return name


def kill(node: Node) -> None:
    node.kill()
    assert node.exit_code == -signal.SIGKILL
    node.status_file.unlink(missing_ok=True)


def restart_node(mesh: Mesh, random: Random) -> str:
    """It ends in order, and starts with a new certificate and other options."""
    name = random.choice(STORMY)
    mesh.renew(name)
    changed = change(mesh, name, random, LIVE | AT_START)
    assert mesh.nodes[name].terminate(PATIENCE) == 0
    mesh.nodes[name].start()
    return f"{name}: {changed}"


def unplug_cable(mesh: Mesh, random: Random) -> str:
    link = random.choice(STORMY_LINKS)
    unplugged(mesh, link, random.uniform(0.5, 8))
    return f"{link[0]} - {link[1]}"


def unplugged(mesh: Mesh, link: str, seconds: float) -> None:
    wire = mesh.wires[link]
    wire.unplug()
    try:
        for name in link:
            until(partial(has_no_carrier, mesh.lab.host(name), wire.iface), PATIENCE, f"no carrier at {name}")
        hold(seconds)
    finally:
        wire.plug()


def has_no_carrier(host: Host, iface: str) -> bool:
    return "NO-CARRIER" in host.ip(f"link show {iface}")[0]["flags"]


def cut_silently(mesh: Mesh, random: Random) -> str:
    """Both ends see a link that is up and carries nothing."""
    link = random.choice(STORMY_LINKS)
    wire = mesh.wires[link]
    wire.cut()
    try:
        assert not mesh.lab.host(link[0]).ping(wire.address(link[1]), 1).received
        hold(random.uniform(0, 8))
    finally:
        wire.heal()
    return f"{link[0]} - {link[1]}"


def freeze_node(mesh: Mesh, random: Random) -> str:
    name = random.choice(STORMY)
    mesh.nodes[name].stop()
    try:
        until(lambda: mesh.state(name) == "T", PATIENCE, f"{name} is stopped")
        hold(random.uniform(0.5, 8))
    finally:
        mesh.nodes[name].cont()
    return name


def kill_and_unplug(mesh: Mesh, random: Random) -> str:
    """Two at once, and what is left is in one piece."""
    name, link = random.choice([("f", "eh"), ("g", "ea"), ("e", "gh"), ("h", "fe")])
    kill(mesh.nodes[name])
    unplugged(mesh, link, random.uniform(0.5, 6))
    mesh.nodes[name].start()
    return f"{name}, {link[0]} - {link[1]}"


def revoke_certificate(mesh: Mesh, random: Random) -> str:
    """The node gets a new one, and all that it had before are revoked; its peers know it under one of those."""
    name = random.choice(STORMY)
    mesh.revoked += mesh.serials[name]
    mesh.serials[name].clear()
    mesh.renew(name)
    mesh.reload(name)
    mesh.write_crl()
    peers = [other for other in NAMES if any({name, other} == set(link) for link in STORMY_LINKS)]
    refused = rf"warning refused {name} at .*, its link is cut: .*it was revoked on"
    before = {peer: mesh.count_lines(peer, refused) for peer in peers}
    mesh.reload([other for other in NAMES if other != name])
    for peer in peers:
        mesh.nodes[peer].wait_log(refused, PATIENCE, before[peer] + 1)
    return name


# Reloads


def reload_unchanged(mesh: Mesh, random: Random) -> str:
    mesh.reload(NAMES)
    return "all"


def reload_options(mesh: Mesh, random: Random) -> str:
    name = random.choice(NAMES)
    changed = change(mesh, name, random, LIVE)
    mesh.reload(name)
    return f"{name}: {changed}"


def renew_certificate(mesh: Mesh, random: Random) -> str:
    name = random.choice(NAMES)
    mesh.renew(name)
    mesh.reload(name)
    return name


def renew_crl(mesh: Mesh, random: Random) -> str:
    mesh.write_crl()
    mesh.reload(NAMES)
    return "all"


def reload_broken_file(mesh: Mesh, random: Random) -> str:
    name = random.choice(NAMES)
    mesh.write(name, "conect 192.0.2.1 1")
    try:
        mesh.reload(name, FAILED)
    finally:
        mesh.write(name)
    mesh.reload(name)
    return name


def storm_of_signals(mesh: Mesh, random: Random) -> str:
    """Twenty SIGHUPs to one node; several may lead to one reload."""
    name = random.choice(NAMES)
    for _ in range(19):
        mesh.nodes[name].signal(signal.SIGHUP)
    mesh.reload(name)
    return name


FAULTS: Sequence[Deed] = (
    reset_link, kill_node, unplug_cable, restart_node, cut_silently, freeze_node, revoke_certificate, kill_and_unplug,
)  # fmt: skip
RELOADS: Sequence[Deed] = (
    reload_options, renew_certificate, reload_broken_file, renew_crl, storm_of_signals, reload_unchanged,
)  # fmt: skip


def in_turns(deeds: Sequence[Deed], random: Random) -> Iterator[Deed]:
    """All of them, in the given order, then again and again in any."""
    yield from deeds
    for _ in itertools.count():
        yield from random.sample(deeds, len(deeds))


def kind_of(deed: Deed) -> str:
    return deed.__name__.replace("_", " ")

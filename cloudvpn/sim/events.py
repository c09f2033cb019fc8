# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what a script says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from cloudvpn.options import MS, SECOND
from cloudvpn.sim import tables
from cloudvpn.sim.lies import LIES, Victim
from cloudvpn.sim.links import Link
from cloudvpn.sim.mesh import Mesh
from cloudvpn.sim.node import Node
from cloudvpn.sim.script import Action, parse_action

Named = TypeVar("Named", Node, Link)

LIE_INTERVAL: Final = 100 * MS
CHAOS: Final = ("cut", "heal", "kill", "start", "restart", "flap", "silence")


class Script:
    """The verbs are the public methods; `do` finds them. `random` is drawn when the event happens."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.chance, self.clock = mesh, mesh.chance, mesh.clock

    def do(self, action: Action) -> None:
        self._drew: list[str] = []
        verb: Callable[..., None] = getattr(self, action.verb)
        verb(*action.operands)
        drew = f" ({', '.join(self._drew)})" if self._drew else ""
        self.mesh.journal.append((self.clock.now - self.mesh.begun, action.text + drew))

    # The verbs.

    def cut(self, name: Any) -> None:
        for link in self._links(name, lambda link: link.works):
            link.cut()

    def heal(self, name: Any) -> None:
        for link in self._links(name, lambda link: link.is_cut or link.is_silent):
            link.is_cut = False
            if link.is_silent:
                link.set_silent(False)
            link.dial()

    def silence(self, name: Any) -> None:
        if isinstance(name, tuple):
            for link in self._links(name, lambda link: link.works):
                link.set_silent(True)
        else:
            self._node(name).stop(silently=True)

    def kill(self, name: str) -> None:
        self._node(name).stop()

    def start(self, name: str) -> None:
        dead = [node for node in self.mesh.nodes if not node.is_alive]
        if name != "all":
            dead = self._draw(dead) if name == "random" else [self.mesh.named[name]]
        for node in dead:
            self._revive(node)

    def restart(self, name: str, time: int) -> None:
        """One is back after that time; all of them at some moment within it."""
        nodes = self.mesh.nodes if name == "all" else [self._node(name)]
        for node in nodes:
            node.stop()
        for node in nodes:
            self.clock.after(self.chance.randrange(time) if name == "all" else time, partial(self._revive, node))

    def flap(self, name: Any, count: int, time: int) -> None:
        """Cut and healed so often, in turns of that time."""
        links = self._links(name, lambda link: link.works)
        for turn in range(count):
            for link in links:
                self.clock.after(2 * turn * time, link.cut)
                self.clock.after((2 * turn + 1) * time, partial(self._mend, link))

    def partition(self, names: Any) -> None:
        side = self._half() if names == "half" else set(names)
        for link in self.mesh.links:
            if len({node.name in side for node in link.nodes}) == 2:
                link.cut()

    def change(self, name: Any, setting: tuple[str, Any]) -> None:
        key, value = setting
        for link in self._links(name, lambda link: link.works):
            setattr(link, key, self.chance.randint(*value) if isinstance(value, tuple) else value)

    def move(self, name: str, to: str) -> None:
        """The host is plugged in elsewhere, and says so, as hosts do."""
        hosts = self.mesh.hosts
        if name == "random":
            name = self.chance.choice(list(hosts))
            self._drew.append(name)
        hosts[name].node = self._node(to)
        self.mesh.frames.announce(hosts[name])

    def wander(self, count: int, time: int) -> None:
        """Hosts move, each move at a random moment."""
        for _ in range(count):
            self.clock.after(self.chance.randrange(time), lambda: self.do(parse_action("move random random")))

    def watch(self) -> None:
        """Nothing happens: the figures from here on are counted by themselves."""

    def lie(self, name: str, kind: str, time: int) -> None:
        """Says it again and again and passes no frame on; then it is restarted, and honest."""
        node = self._node(name)
        node.is_lying = True
        self.mesh.ways.refresh(node)
        for at in range(0, time, LIE_INTERVAL):
            self.clock.after(at, partial(self._tell_lie, node, node.lives, kind))
        self.clock.after(time, partial(self._repent, node, node.lives))

    def chaos(self, count: int, time: int) -> None:
        for _ in range(count):
            self.clock.after(self.chance.randrange(time), self._anything)

    # Their parts.

    def _revive(self, node: Node) -> None:
        if not node.is_alive:
            node.start()

    def _mend(self, link: Link) -> None:
        link.is_cut = False
        link.dial()

    def _tell_lie(self, node: Node, life: int, kind: str) -> None:
        if not node.is_alive or node.lives != life:
            return
        seqs, wall = tables.sequences(node.switch), self.clock.now // SECOND
        victims = [
            Victim(other.switch.node_id, other.mac, seqs.get(other.switch.node_id, 0), wall)
            for other in self.mesh.nodes
            if other is not node and other.is_alive
        ]
        for end in list(node.ends.values()):
            end.link.carry(end, LIES[kind](victims, end.version, node.switch.node_id, self.chance))

    def _repent(self, node: Node, life: int) -> None:
        if node.lives == life and node.is_alive:
            node.stop()
            node.start()

    def _anything(self) -> None:
        """What can happen: half of the nodes stay alive."""
        mesh = self.mesh
        dead = sum(not node.is_alive for node in mesh.nodes)
        broken = any(link.is_cut or link.is_silent for link in mesh.links)
        works = any(link.works for link in mesh.links)
        possible = {
            "cut": works, "flap": works, "silence": works, "heal": broken, "start": dead > 0,
            "kill": dead < len(mesh.nodes) // 2, "restart": dead < len(mesh.nodes) // 2,
        }  # fmt: skip
        verbs = [verb for verb in CHAOS if possible[verb]]
        if mesh.hosts:
            verbs.append("move")
        verb = self.chance.choice(verbs)
        if verb == "silence":
            link = self.chance.choice([link for link in mesh.links if link.works])
            self.do(parse_action(f"silence {link.name}"))
        elif verb == "flap":
            self.do(parse_action("flap random 2 100ms"))
        else:
            self.do(parse_action(f"{verb} random" + " random" * (verb == "move")))

    def _draw(self, choices: Sequence[Named]) -> list[Named]:
        """One of them, if there is one."""
        drawn = [self.chance.choice(choices)] if choices else []
        self._drew += [one.name for one in drawn]
        return drawn

    def _node(self, name: str) -> Node:
        alive = [node for node in self.mesh.nodes if node.is_alive] or self.mesh.nodes
        return self._draw(alive)[0] if name == "random" else self.mesh.named[name]

    def _links(self, name: Any, is_meant: Callable[[Link], bool]) -> list[Link]:
        """`random` and `all` are among those that are meant."""
        links = self.mesh.links
        if name == "all":
            return [link for link in links if is_meant(link)]
        if name == "random":
            return self._draw([link for link in links if is_meant(link)])
        return self.mesh.links_of(*name)

    def _half(self) -> set[str]:
        """Half of the nodes, near each other."""
        [first] = self._draw(self.mesh.nodes)
        side, todo = {first.name}, [first]
        while todo and len(side) < len(self.mesh.nodes) // 2:
            for link in todo.pop(0).links:
                for node in link.nodes:
                    if node.name not in side and len(side) < len(self.mesh.nodes) // 2:
                        side.add(node.name)
                        todo.append(node)
        return side

# SPDX-License-Identifier: GPL-3.0-or-later
"""Privilege separation: a process that keeps the rights of the start and does a few fixed things for the node.

It reads the configuration, hands out descriptors of the files that it names, sets up the interface again and runs
iface_down_command. Who took the node over can ask for these, and for nothing that root did not write down: requests are
JSON and carry no commands, no contents and no paths but those of the configuration. Only answers are pickled.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Final

from cloudvpn.config import Loaded, load_words
from cloudvpn.errors import ConfigError, SetupError
from cloudvpn.files import Stage
from cloudvpn.helper import Helper
from cloudvpn.options import Config, named_files
from cloudvpn.privileges import lock_memory
from cloudvpn.system_tap import SystemTap
from cloudvpn.tap import Tap

log = logging.getLogger("cloudvpn")

MAX_REQUEST: Final = 64 << 10  # bytes
GONE: Final = "the process that keeps the rights of root has ended: restart the node"


class Monitor:
    """The node's side. Calls wait for the answer, and one at a time, in any thread."""

    def __init__(self, words: Sequence[str], config: Config, stage: Stage) -> None:
        """`words` are those of the command line, from which `config` was read."""
        self.helper = Helper(
            "cloudvpn-root", socket.SOCK_STREAM,
            lambda ours: _Server(words, config, Connection(ours.detach())).serve(stage),
        )
        self.pipe = Connection(self.helper.socket.detach())
        self.lock = threading.Lock()

    def load_config(self) -> Loaded:
        """Reads the configuration again. Raises ConfigError."""
        try:
            loaded: Loaded = self.ask("config")
        except OSError as error:
            raise ConfigError([str(error.strerror)]) from error
        return loaded

    def accept_config(self) -> None:
        """What was read last is in use now."""
        with contextlib.suppress(OSError):      # gone: who needs an answer is told
            self.ask("accept")

    def stat(self, path: Path) -> os.stat_result:
        info: os.stat_result = self.ask("stat", str(path))
        return info

    def open(self, path: Path) -> int:
        _, fd = self.ask("open", str(path))
        return int(fd)

    def watch(self, tap: Tap) -> None:
        """This is the node's interface, now or under a new name; only one of its name is opened later."""
        with contextlib.suppress(OSError):      # as above
            self.ask("watch", sends=tap.fd)

    def open_tap(self, config: Config, mac: bytes | None) -> Tap:
        """Opens and sets up an interface that was made again. Raises SetupError."""
        (name, offloads), fd = self.ask_for_setup("tap", None if mac is None else mac.hex())
        return SystemTap(config, fd, name, offloads)

    def set_addresses(self, tap: Tap) -> None:
        """Raises SetupError."""
        self.ask_for_setup("addresses", sends=tap.fd)

    def run_down_command(self, tap: Tap) -> None:
        """Raises SetupError."""
        self.ask_for_setup("down", sends=tap.fd)

    def ask_for_setup(self, request: str, *words: str | None, sends: int | None = None) -> Any:
        try:
            return self.ask(request, *words, sends=sends)
        except OSError as error:
            raise SetupError(str(error.strerror)) from error

    def ask(self, request: str, *words: str | None, sends: int | None = None) -> Any:
        """Raises what the monitor met, and OSError if it is gone. An answer with a descriptor: a pair."""
        with self.lock:
            try:
                self.pipe.send_bytes(json.dumps([request, *words]).encode())
                if sends is not None:
                    send_handle(self.pipe, sends, self.helper.pid)
                error, value, has_descriptor = self.pipe.recv()
                if has_descriptor:
                    value = value, recv_handle(self.pipe)
                    os.set_inheritable(value[1], False)
            except (EOFError, OSError) as problem:
                raise OSError(errno.EPIPE, GONE) from problem
            except RuntimeError as problem:     # it came, and there was no place for it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from problem
        if error is not None:
            raise error(*value)
        return value

    def close(self) -> None:
        self.pipe.close()
        self.helper.close()


class _Server:
    """The monitor itself."""

    def __init__(self, words: Sequence[str], config: Config, pipe: Connection) -> None:
        self.words = words
        self.config = config        # of the start: what needs a restart is in here
        self.accepted = self.read = config
        self.pipe = pipe
        self.name: str | None = None
        self.calls: dict[str, Callable[..., Any]] = {
            "config": self.load_config, "accept": self.accept, "stat": self.stat, "open": self.open,
            "watch": self.watch, "tap": self.open_tap, "addresses": self.set_addresses, "down": self.run_down_command,
        }

    def serve(self, stage: Stage) -> None:
        if self.config.mlockall:
            lock_memory(will_lose_rights=False)     # key_pass is in here
        try:
            while True:
                self.answer(*json.loads(self.pipe.recv_bytes(MAX_REQUEST)))
        except (EOFError, ConnectionError):
            pass    # the node has ended
        finally:
            stage.remove()

    def answer(self, request: str, *words: Any) -> None:
        """Any error is the answer; a malformed request ends the monitor."""
        call = self.calls[request]
        fd = None
        error: type[Exception] | None = None
        try:
            value = call(*words)
            if request in ("open", "tap"):
                value, fd = value
        except ConfigError as problem:
            error, value = ConfigError, (problem.problems,)
        except SetupError as problem:
            error, value = SetupError, (str(problem),)
        except OSError as problem:
            error, value = OSError, (problem.errno, problem.strerror or str(problem))
        except Exception as problem:
            log.exception("internal error in the monitor, request %r", request)
            error, value = SetupError, (f"internal error: {problem!r}",)
        self.pipe.send((error, value, fd is not None))
        if fd is not None:
            send_handle(self.pipe, fd, os.getppid())
            os.close(fd)

    # Files.

    def load_config(self) -> Loaded:
        loaded = load_words(self.words)
        self.read = loaded.config
        return loaded

    def accept(self) -> None:
        self.accepted = self.read

    def check(self, path: str) -> Path:
        named = {str(one): one for config in (self.config, self.accepted, self.read) for one in named_files(config)}
        if path not in named:
            raise PermissionError(errno.EACCES, "no option names it")
        return named[path]

    def stat(self, path: str) -> os.stat_result:
        return self.check(path).stat()

    def open(self, path: str) -> tuple[None, int]:
        fd = os.open(self.check(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # a directory would lead out of the chroot
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no regular file any more")
        return None, fd

    # The interface.

    @contextlib.contextmanager
    def received(self) -> Iterator[Tap]:
        """The TAP whose descriptor the node has sent: what it does not hold open itself it cannot name."""
        fd = recv_handle(self.pipe)
        tap = SystemTap(self.config, fd, self.name or "", 0)
        try:
            if tap.look() is None:
                raise SetupError("this is no interface, or it was deleted")
            yield tap
        finally:
            tap.close()

    def watch(self) -> None:
        with self.received() as tap:
            self.name = tap.name

    def open_tap(self, mac: str | None) -> tuple[tuple[str, int], int]:
        if self.name is None:
            raise SetupError("the node had no interface")
        tap = SystemTap.open(self.config, self.name)
        try:
            tap.set_up(None if mac is None else bytes.fromhex(mac))
            return (tap.name, tap.offloads), os.dup(tap.fd)
        finally:
            tap.close()

    def set_addresses(self) -> None:
        with self.received() as tap:
            tap.set_addresses()

    def run_down_command(self) -> None:
        with self.received() as tap:
            tap.run_command("iface_down_command", self.accepted.iface_down_command)

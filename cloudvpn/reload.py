# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads configuration, keys, CAs and revocation lists again while the node runs, and judges every link anew.

A timer reads what trust depends on, if a file has changed; SIGHUP reads all. A bad file changes nothing. Files are read
and parsed in a thread, frames go on meanwhile; only one reload runs at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from cryptography import x509

from cloudvpn import files, memory
from cloudvpn.config import SECRETS, Loaded
from cloudvpn.errors import ConfigError
from cloudvpn.expiry import Reminder, find_endings
from cloudvpn.log import escape
from cloudvpn.mesh import Mesh
from cloudvpn.options import OPTIONS, SECOND, Config, named_files
from cloudvpn.pem import FileProblem
from cloudvpn.permissions import secret_problem
from cloudvpn.service import ServiceManager
from cloudvpn.tls import Credentials, load

log = logging.getLogger("cloudvpn")

JUDGE_SECONDS: Final = 0.002    # of judging links, then frames have their turn
MAX_PASSWORD: Final = 64 << 10  # bytes

T = TypeVar("T")
Signature: TypeAlias = tuple[tuple[Path, tuple[int, ...]], ...]


class TrustFiles:
    """The files that `key`, `key_pass_file`, `cert`, `ca`, `crl` and `dh` name; all methods may run in a thread."""

    def __init__(self) -> None:
        self.signature: Signature = ()          # of the files as they were last read with success
        self.chain: tuple[x509.Certificate, ...] = ()   # our own, as it was last read with success
        self.passwords: dict[Path, str] = {}    # from pipes, which can be read once only

    def load(self, config: Config) -> Credentials:
        """Raises ConfigError, with a sentence for each bad file and the line that names it."""
        try:
            return self.load_files(config)
        except ConfigError as error:
            raise ConfigError([locate(problem, config) for problem in error.problems]) from error

    def load_files(self, config: Config) -> Credentials:
        assert config.key is not None and config.cert is not None   # the configuration was checked
        signature = sign(config)    # before the files are read: what changes meanwhile is read again
        if config.strict_permissions:
            check_secrets(config)
        password = config.key_pass if config.key_pass_file is None else self.read_password(config.key_pass_file)
        credentials = load(
            config.key, config.cert, config.ca, config.crl, password,
            dh=config.dh, crl_required=config.crl_required, link_version=config.link_version, in_use=self.chain,
        )
        self.signature, self.chain = signature, credentials.chain
        return credentials

    def load_changed(self, config: Config) -> Credentials | None:
        """None if every file is as it was."""
        return None if self.signature and sign(config) == self.signature else self.load(config)

    def read_password(self, path: Path) -> str:
        try:
            is_file = stat.S_ISREG(files.stat(path).st_mode)
            if not is_file and path in self.passwords:
                return self.passwords[path]
            with files.open_file(path) as file:
                password = file.read(MAX_PASSWORD).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            what = f'cannot read "{path}": {reason}, correct it'
            raise ConfigError([FileProblem("key_pass_file", path, what)]) from error
        if not is_file:
            self.passwords[path] = password
        return password


def locate(problem: str, config: Config) -> str:
    return problem.at(config.place(problem.option, problem.path)) if isinstance(problem, FileProblem) else problem


def sign(config: Config) -> Signature:
    """What changes whenever a file does; the time of a file's status tells a new owner or mode, too."""
    return tuple((path, _sign_file(path)) for path in named_files(config))


def _sign_file(path: Path) -> tuple[int, ...]:
    try:
        info = files.stat(path)
    except OSError:
        return ()
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def check_secrets(config: Config) -> None:
    """Raises ConfigError if others may read the key or its password."""
    problems = []
    for name in SECRETS:
        path: Path | None = getattr(config, name)
        with contextlib.suppress(OSError):      # who reads it says why
            if path is not None and (problem := secret_problem(path, files.stat(path))):
                problems.append(FileProblem(name, path, problem))
    if problems:
        raise ConfigError(problems)


def keep_running(running: Config, wanted: Config, most_links: int) -> tuple[Config, list[str]]:
    """`wanted` with the running values of what needs a restart, and each such option that differs with both values.

    There is memory for `most_links` links.
    """
    kept = {key: getattr(running, key) for key, row in OPTIONS.items() if not row.live}
    if wanted.max_connections > most_links:
        kept["max_connections"] = most_links
    differing = [
        escape(f"{OPTIONS[key].name} (from {OPTIONS[key].show(value)} to {OPTIONS[key].show(getattr(wanted, key))})")
        for key, value in kept.items() if getattr(wanted, key) != value and not OPTIONS[key].unused
    ]
    return replace(wanted, **kept), differing


async def read_in_thread(read: Callable[[], T]) -> T:
    """Raises ConfigError, also where the system lacks the memory for it."""
    try:
        memory.require(memory.FOR_FILES)
        return await asyncio.to_thread(read)
    except (MemoryError, RuntimeError) as error:    # the latter: for a thread
        raise ConfigError([f"files cannot be read again: {error or os.strerror(errno.ENOMEM)}"]) from error


class Reloader:
    """Runs as long as the node does. `read` reads the configuration; `apply` makes a new one count."""

    def __init__(
        self, read: Callable[[], Loaded], mesh: Mesh, trust: TrustFiles, apply: Callable[[Config], Awaitable[None]],
        service: ServiceManager,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.read = read
        self.mesh = mesh
        self.trust = trust
        self.apply = apply
        self.service = service
        self.clock = clock
        self.signalled = asyncio.Event()
        self.complaint: tuple[str, ...] = ()    # what is wrong with the files now
        self.reminder = Reminder()

    async def run(self) -> None:
        self.remind()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.signalled.wait(), self.mesh.config.reload_interval / SECOND)
            on_signal = self.signalled.is_set()
            self.signalled.clear()      # a signal during the reload leads to another one
            if on_signal:
                self.service.reloading()
            try:
                await self.reload(on_signal)
            except Exception:   # the next one may do better
                log.exception("internal error after files were read again")
            if on_signal:
                self.service.ready()

    async def reload(self, on_signal: bool) -> None:
        """A bad configuration keeps no CRL from being read again; bad keys, CAs or CRLs keep all as it was."""
        wanted, is_good = None, False
        try:
            wanted = await self.read_config() if on_signal else None
            is_good = await self.reload_trust(wanted or self.mesh.config, on_signal)
        except Exception:   # links must be judged by the clock at least
            log.exception("internal error while files were read again")
        await self.judge_links()    # first: to bind a listener may take the time of a name server
        if wanted is not None and is_good:
            await self.apply(wanted)
            self.mesh.counters["reloads"] += 1
            log.info("SIGHUP: the configuration, keys, CAs and CRLs were read again and are in use")
        elif on_signal:
            self.mesh.counters["reloads_failed"] += 1
            log.error("SIGHUP: the configuration stays as it was: correct what is said above, then send SIGHUP again")
        self.remind()

    async def read_config(self) -> Config | None:
        """None if it is bad; what needs a restart is as before."""
        try:
            loaded = await read_in_thread(self.read)
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s", problem)
            return None
        for warning in loaded.warnings:
            log.warning("%s", warning)
        config, differing = keep_running(self.mesh.config, loaded.config, self.mesh.switch.max_ports)
        if differing:
            log.warning("changed, but need a restart: %s", ", ".join(differing))
        return config

    async def reload_trust(self, config: Config, on_signal: bool) -> bool:
        """Whether the files are good. The timer reads them only if they changed, and says only what is new."""
        read = self.trust.load if on_signal else self.trust.load_changed
        try:
            credentials = await read_in_thread(lambda: read(config))
        except ConfigError as error:
            if on_signal or error.problems != self.complaint:
                for problem in error.problems:
                    log.error("%s; until then what was read before stays in use", problem)
            self.complaint = error.problems
            return False
        if self.complaint:
            self.complaint = ()
            log.info("the files of key, certificate, CAs and CRLs are good again")
        if credentials is not None:
            self.use(credentials)
            if not on_signal:
                log.info("key, certificate, CAs and CRLs were read again: a file has changed")
        return True

    def use(self, credentials: Credentials) -> None:
        """From now on every new link is judged by these."""
        said = self.mesh.credentials.warnings
        self.mesh.credentials = credentials
        for warning in credentials.warnings:
            if warning not in said:
                log.warning("%s", warning)

    async def judge_links(self) -> None:
        """Cuts every link whose peer may not be here any more. Links made meanwhile are judged when they are made."""
        loop, credentials = self.mesh.loop, self.mesh.credentials
        begun = loop.time()
        for link in list(self.mesh.links):
            if loop.time() - begun > JUDGE_SECONDS:
                await asyncio.sleep(0)
                begun = loop.time()
            if link.reason is not None or link.info.peer is None:
                continue
            try:
                memory.require(memory.FOR_A_LINK)
                credentials.judge_again(link.info.peer, self.clock())
            except MemoryError:             # the next turn judges it
                self.mesh.lack_memory("the judgement of a link")
            except Exception as error:      # Refused; and whatever else it is, no other link may miss its turn
                self.mesh.refuse_later(link, str(error))

    def remind(self) -> None:
        now = self.clock()
        self.reminder.remind(find_endings(self.mesh.credentials, self.mesh.peers(), now), now)

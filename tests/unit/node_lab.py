# SPDX-License-Identifier: GPL-3.0-or-later
"""Real nodes without interface in this process, on the loop that the daemon uses, and the lines that they log.

A line is the dialling side's if it names the port that the other one listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from cloudvpn.daemon import build_switch
from cloudvpn.dialer import Dialer
from cloudvpn.mesh import Mesh
from cloudvpn.options import SECOND, Config, Endpoint
from cloudvpn.tls import Credentials, load
from tests.unit.trust_cases import CA, Case, issue

HOST: Final = "127.0.0.1"
DEADLINE: Final = 20  # seconds
OURS: Final = issue(CA, "ours")


@dataclass
class Log(logging.Handler):
    """The lines of both nodes."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    __hash__ = logging.Handler.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def of(self, port: int, *, dials: bool) -> list[str]:
        """What one side says of its link to the other, which listens on `port` or dials it."""
        lines = [line for line in self.lines if re.match("refused|no link|link up", line)]
        return [line for line in lines if bool(re.search(rf"[: ]{port}\b", line)) == dials]

    async def heard_from_both(self, port: int) -> None:
        await until(lambda: self.of(port, dials=True) and self.of(port, dials=False), lambda: self.lines)


@pytest.fixture
def log() -> Iterator[Log]:
    logger, handler = logging.getLogger("cloudvpn"), Log()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def until(is_so: Callable[[], object], what: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE
    while not is_so():
        assert asyncio.get_running_loop().time() < end, what()
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def node(
    credentials: Credentials, *, dials: int = 0, patience: float = 10, most: int = 1024
) -> AsyncIterator[tuple[Mesh, int]]:
    """A node that listens, or dials this port; and the port.

    `patience` is its handshake_timeout in seconds, `most` its max_connections.
    """
    end = Endpoint(HOST, str(dials or free_port()))
    config = replace(
        Config(), handshake_timeout=int(patience * SECOND), conn_retry=600 * SECOND, comm_close_timeout=SECOND,
        connect=(end,) if dials else (), listen=() if dials else (end,), max_connections=most,
    )  # fmt: skip
    mesh = Mesh(config, build_switch(config), credentials)
    try:
        await mesh.listen()
        if dials:
            Dialer(mesh, end)
        yield mesh, int(end.port)
    finally:
        await mesh.close()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def load_case(case: Case, folder: Path) -> Credentials:
    """Of a good node: its own certificate, and the CAs and lists of the case."""
    paths = replace(case, identity=OURS, above=()).write(make_folder(folder / "good"))
    crl = [paths["crl"]] if case.crls else []
    return load(paths["key"], paths["cert"], [paths["ca"]], crl, None, crl_required=case.crl_required)


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path

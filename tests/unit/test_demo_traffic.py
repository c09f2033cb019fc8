# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic of the demonstration where no network is needed; tests/netns/test_demo.py has it whole."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from cloudvpn.demo_traffic import accept


def test_a_connection_that_comes_as_the_demonstration_is_interrupted_is_no_error() -> None:
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            task = loop.create_task(accept(listener))
            await asyncio.sleep(0)  # it waits
            with socket.create_connection(listener.getsockname()):
                loop.call_soon(task.cancel)  # before the loop, in the same turn, hears of the connection
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await asyncio.sleep(0)
                listener.accept()[0].close()  # it had come

    asyncio.run(run())
    assert complaints == []


def test_a_connection_is_accepted_whether_it_is_there_or_comes_later() -> None:
    async def run(is_early: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            if is_early:
                near = socket.create_connection(listener.getsockname())
            task = asyncio.create_task(accept(listener))
            await asyncio.sleep(0)
            if not is_early:
                near = socket.create_connection(listener.getsockname())
            with near, await task as far:
                near.send(b"hello")
                assert await asyncio.get_running_loop().sock_recv(far, 5) == b"hello"

    for is_early in (True, False):
        asyncio.run(asyncio.wait_for(run(is_early), 10))

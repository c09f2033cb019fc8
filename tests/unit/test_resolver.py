# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that looks names up: the answers of getaddrinfo(), many at once, and an end that waits for none."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from cloudvpn.privileges import Confinement
from cloudvpn.resolver import Resolver


def slow_lookup(host: str, port: str, **_: object) -> list[tuple[object, ...]]:
    """In the helper: `slow.test` answers when the test is over, `N.test` is 192.0.2.N, else nothing is."""
    if host == "slow.test":
        time.sleep(600)
    if host == "broken.test":
        raise LookupError("unknown encoding: idna")
    if not host.split(".")[0].isdigit():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{host.split('.')[0]}", int(port)))] * 1000


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Resolver]:
    with monkeypatch.context() as patched:
        if getattr(request, "param", True):
            patched.setattr(socket, "getaddrinfo", slow_lookup)
        resolver = Resolver(Confinement(None, None, None), lock=False)
    yield resolver
    resolver.close()


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(limited())


@pytest.mark.parametrize("resolver", [False], indirect=True)
def test_it_answers_as_getaddrinfo_does(resolver: Resolver) -> None:
    async def test() -> None:
        for host, port, flags in (("127.0.0.1", "80", 0), ("::1", "80", 0), ("localhost", "80", 0),
                                  ("0.0.0.0", "0", socket.AI_PASSIVE)):  # fmt: skip
            expected = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
            assert await resolver.look_up(host, port, flags) == [(one[0], one[4]) for one in expected]
        with pytest.raises(socket.gaierror) as caught:
            await resolver.look_up("a" * 70 + ".test", "80")
        assert caught.value.strerror

    in_loop(test)


def test_slow_names_hold_up_no_others_and_each_caller_gets_his_own(resolver: Resolver) -> None:
    async def test() -> None:
        slow = [asyncio.ensure_future(resolver.look_up("slow.test", "1")) for _ in range(8)]
        found = await asyncio.gather(*(resolver.look_up(f"{number}.test", "5") for number in range(200)))
        assert [one[0] for one in found] == [
            (socket.AF_INET, (f"192.0.2.{number}", 5)) for number in range(200)]  # fmt: skip
        assert {len(one) for one in found} == {256}
        for host, reason in (("other.test", "Name or service not known"), ("broken.test", "unknown encoding")):
            with pytest.raises(OSError) as caught:
                await resolver.look_up(host, "1")
            assert reason in str(caught.value.strerror)
        assert not any(one.done() for one in slow)
        for one in slow:
            one.cancel()
        await asyncio.wait(slow)
        assert not resolver.waiting
        begun = time.monotonic()
        resolver.close()
        assert time.monotonic() - begun < 4, "it waits for slow names"

    in_loop(test)


def test_its_end_is_told_to_who_waits_and_to_who_comes_later(resolver: Resolver) -> None:
    async def test() -> None:
        waiting = asyncio.ensure_future(resolver.look_up("slow.test", "1"))
        await resolver.look_up("1.test", "1")
        os.kill(resolver.helper.pid, signal.SIGKILL)
        for one in (waiting, resolver.look_up("1.test", "1")):
            with pytest.raises(OSError, match="has ended: restart the node") as caught:
                await one
            assert caught.value.strerror

    in_loop(test)

"""Look-ups of names: in threads of their own, shared, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.patience import patient
from understudy.monitor.proxy import resolver
from understudy.monitor.proxy.resolver import Resolver

V4 = int(socket.AF_INET)


class Names:
    """A name server whose answers can be held back."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.hung: set[str] = set()
        self.go_on = threading.Event()

    def __call__(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        if host in self.hung:
            self.go_on.wait()
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, 1, 6, "", (one, 0)) for one in self.addresses[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.go_on.set()


@pytest.mark.anyio
async def test_callers_share_a_look_up(names: Names) -> None:
    names.addresses["a"] = ["1.1.1.1", "1.1.1.2", "1.1.1.1"]
    names.hung.add("a")
    ours = Resolver(asyncio.get_running_loop())
    first, second = ours.resolve("a"), ours.resolve("a")
    assert first is second
    assert ours.known("a") == ()
    names.go_on.set()
    assert await first == ((V4, "1.1.1.1"), (V4, "1.1.1.2"))
    assert ours.known("a") == first.result()
    assert names.asked == ["a"]


@pytest.mark.anyio
async def test_a_look_up_that_hangs_delays_no_other(names: Names) -> None:
    names.addresses["quick"] = ["1.1.1.1"]
    ours = Resolver(asyncio.get_running_loop())
    for number in range(resolver._THREADS - 1):
        names.hung.add(f"hung{number}")
        ours.resolve(f"hung{number}")
    async with asyncio.timeout(patient(10)):
        assert await ours.resolve("quick") == ((V4, "1.1.1.1"),)


@pytest.mark.anyio
async def test_threads_are_bounded_and_a_hanging_name_is_asked_for_again(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_HANGS_AFTER", 0.0)
    names.addresses["a"] = ["1.1.1.1"]
    names.hung.add("a")
    ours = Resolver(asyncio.get_running_loop())
    hung = ours.resolve("a")
    async with asyncio.timeout(patient(10)):
        while names.asked != ["a"]:
            await asyncio.sleep(0.01)
        names.hung.clear()
        assert await ours.resolve("a") == ((V4, "1.1.1.1"),)
        names.hung.add("a")
        for _ in range(20):
            ours.resolve("a")
            await asyncio.sleep(0.01)
        assert ours._running["a"] <= resolver._THREADS_OF_A_NAME
        for number in range(2 * resolver._THREADS):
            names.hung.add(f"hung{number}")
            ours.resolve(f"hung{number}")
        assert ours._running.total() == resolver._THREADS
        names.go_on.set()
        await hung
        while ours._running or ours._queue or ours._latest:
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_a_failed_look_up_leaves_the_addresses_before(names: Names) -> None:
    names.addresses["a"] = ["1.1.1.1"]
    ours = Resolver(asyncio.get_running_loop())
    await ours.resolve("a")
    names.addresses.clear()
    with pytest.raises(socket.gaierror):
        await ours.resolve("a")
    names.addresses["a"] = []
    with pytest.raises(OSError, match="a has no address"):
        await ours.resolve("a")
    assert ours.known("a") == ((V4, "1.1.1.1"),)


@pytest.mark.anyio
async def test_what_is_kept_is_bounded(names: Names) -> None:
    ours = Resolver(asyncio.get_running_loop())
    many = [f"10.0.{i // 250}.{i % 250}" for i in range(1000)]
    for number in range(resolver._KNOWN + 50):
        names.addresses[f"n{number}"] = many
        await ours.resolve(f"n{number}")
    assert len(ours._known) == resolver._KNOWN
    assert ours.known("n0") == ()
    assert len(ours.known(f"n{resolver._KNOWN}")) == resolver.MOST_ADDRESSES


def test_a_process_ends_while_a_look_up_hangs() -> None:
    """The threads of an executor would be waited for."""
    program = """
import asyncio, socket, time
from understudy.monitor.proxy.resolver import Resolver
socket.getaddrinfo = lambda *a, **k: time.sleep(3600)
async def main():
    future = Resolver(asyncio.get_running_loop()).resolve("hangs")
    await asyncio.wait([future], timeout=0.1)
    print(future.done())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, timeout=patient(60),
    )  # fmt: skip
    assert done.stdout == "False\n"

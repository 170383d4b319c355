"""Poisson arrivals over keep-alive connections, latency counted from the moment that was meant.

``python -m benchmarks.proxy.open_loop PORT RATE SECONDS SEED`` prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from typing import cast

import uvloop

from benchmarks.proxy.contenders import PATH
from benchmarks.proxy.load import LOAD_CORE, body

CONNECTIONS = 64
_PATIENCE_SECONDS = 5.0
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Timer:
    """A kernel timer on a file descriptor: exact to microseconds and idle until then.

    The event loop's own timers tick in milliseconds, and spinning would take the backend's time,
    which shares this core.
    """

    class _Spec(ctypes.Structure):
        _fields_ = (("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
                    ("at_s", ctypes.c_long), ("at_ns", ctypes.c_long))  # fmt: skip

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = self._Spec(0, 0, 0, 0)
        self._pointer = ctypes.byref(self._spec)

    def set(self, at: float) -> None:
        """Readable at ``at`` of the monotonic clock, in seconds; at once if that is over."""
        ns = max(1, int(at * 1e9))
        self._spec.at_s, self._spec.at_ns = divmod(ns, 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, _ABSOLUTE, self._pointer, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, loop: OpenLoop) -> None:
        self.loop = loop
        self.due = 0.0
        self.buffer = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        ok = self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.loop.answered(self, time.monotonic() - self.due, ok)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class OpenLoop:
    """Sends on schedule, whatever the answers do; requests wait for one of the connections."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.idle: list[_Connection] = []
        self.busy: set[_Connection] = set()
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.waiting: deque[float] = deque()
        self.refused = 0

    def send(self, due: float) -> None:
        while self.idle:
            connection = self.idle.pop()
            if not connection.lost:
                self._write(connection, due)
                return
        self.waiting.append(due)

    def _write(self, connection: _Connection, due: float) -> None:
        connection.due = due
        self.busy.add(connection)
        connection.transport.write(self.message)

    def answered(self, connection: _Connection, latency: float, ok: bool) -> None:
        self.busy.discard(connection)
        self.latencies.append(latency)
        self.refused += not ok
        if self.waiting:
            self._write(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    async def run(self, port: int, rate: float, seconds: float, seed: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", port
            )
            self.idle.append(connection)
        pick = random.Random(seed)
        start = time.monotonic() + 0.1
        schedule: deque[float] = deque()
        due = start + pick.expovariate(rate)
        while due < start + seconds:
            schedule.append(due)
            due += pick.expovariate(rate)
        wanted = len(schedule)
        timer = _Timer()
        over = asyncio.Event()

        def fire() -> None:
            timer.clear()
            while schedule and schedule[0] <= (now := time.monotonic()):
                self.lags.append(now - schedule[0])
                self.send(schedule.popleft())
            if schedule:
                timer.set(schedule[0])
            else:
                over.set()

        loop.add_reader(timer.fd, fire)
        timer.set(schedule[0])
        await over.wait()
        loop.remove_reader(timer.fd)
        until = time.monotonic() + _PATIENCE_SECONDS
        while len(self.latencies) < wanted and time.monotonic() < until:
            await asyncio.sleep(0.01)
        # An answer that never came took at least this long; leaving it out would flatter.
        now = time.monotonic()
        self.unanswered = wanted - len(self.latencies)
        self.latencies += [now - connection.due for connection in self.busy]
        self.latencies += [now - due for due in self.waiting]

    def figures(self) -> dict[str, float]:
        """Latencies and lags behind the schedule in seconds."""
        return {
            "requests": len(self.latencies),
            "failed": self.refused + self.unanswered,
            "p50": quantile(self.latencies, 0.5),
            "p99": quantile(self.latencies, 0.99),
            "p99.9": quantile(self.latencies, 0.999),
            "send_lag_p99": quantile(self.lags, 0.99),
        }


def quantile(values: list[float], p: float) -> float:
    """The smallest value that at least the share ``p`` of ``values`` does not exceed."""
    ordered = sorted(values)
    rank = -int(-p * len(ordered) // 1)
    return ordered[max(0, min(len(ordered), rank) - 1)]


def open_loop(port: int, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Poisson arrivals at ``rate`` per second from a process of its own on the load's core."""
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.proxy.open_loop", str(port),
         str(rate), str(seconds), str(seed)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _main(port: int, rate: float, seconds: float, seed: int) -> None:
    payload = body(1)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    load = OpenLoop(head.encode() + payload)
    uvloop.run(load.run(port, rate, seconds, seed))
    print(json.dumps(load.figures()))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

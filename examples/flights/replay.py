"""The traffic: flights in the order of their time, sent when their moment has come.

An open loop: a request is sent at its scheduled moment whether or not earlier ones have been
answered, and its latency counts from that moment, so that a pause of the server shows in full.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from examples.flights.serving import MODEL

PATH = f"/v2/models/{MODEL}/infer"
TIMEOUT_SECONDS = 30.0
MOST_WAITING = 2_000
"""Requests that wait for their answer; more are not sent before one has come."""
MOST_LATE_SECONDS = 1.0
"""A machine that stood still for longer sends no burst of what it has missed."""


@dataclass(frozen=True, slots=True)
class Flight:
    """``late`` is the truth, known when it lands; ``values`` are in the order of the features."""

    id: str
    date: str
    late: int
    values: list[float | None]


def read_flights(path: Path) -> list[Flight]:
    """The flights to replay, in order."""
    with path.open() as lines:
        return [Flight(**json.loads(line)) for line in lines]


def request_bytes(flight: Flight, address: str) -> bytes:
    """The whole HTTP request for one flight, in the Open Inference Protocol."""
    tensor = {
        "name": "flight",
        "shape": [1, len(flight.values)],
        "datatype": "FP64",
        "data": flight.values,
    }
    body = json.dumps({"id": flight.id, "inputs": [tensor]}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: {flight.id}\r\n\r\n"
    )
    return head.encode() + body


def schedule(
    flights: list[Flight], rate: float | Callable[[], float], seconds: float
) -> Iterator[tuple[float, Flight]]:
    """Moments from the start, in seconds, at an even ``rate``; flights are spread over the time.

    A ``rate`` that is a function may change as it goes.
    """
    index, moment = 0, 0.0
    while moment < seconds - 1e-9:
        yield moment, flights[min(len(flights) - 1, int(moment / seconds * len(flights) + 1e-6))]
        index += 1
        moment = moment + 1.0 / rate() if callable(rate) else index / rate


@dataclass(slots=True)
class Tally:
    """What the clients saw. Latencies in seconds, from the scheduled moment."""

    sent: int = 0
    answered: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    date: str = ""


class Traffic:
    """Replays flights against ``host:port`` over keep-alive connections."""

    def __init__(
        self, host: str, port: int, departed: Callable[[Flight], None] = lambda flight: None
    ) -> None:
        self._departed = departed
        self._host = host
        self._port = port
        self.tally = Tally()
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._tasks: dict[asyncio.Task[None], float] = {}
        """Requests that wait for their answer, and when each was due: the oldest first."""
        self._late = 0.0

    def behind(self) -> float:
        """Seconds since the oldest request that waits for its answer was due."""
        oldest = next(iter(self._tasks.values()), None)
        return max(self._late, 0.0 if oldest is None else time.monotonic() - oldest)

    async def run(
        self,
        flights: list[Flight],
        rate: float | Callable[[], float],
        seconds: float,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send all, or until it is ``enough``, and wait for all answers. What a machine that stood
        still has missed is left out."""
        address = f"{self._host}:{self._port}"
        started = time.monotonic()
        for moment, flight in schedule(flights, rate, seconds):
            if enough():
                break
            while len(self._tasks) >= MOST_WAITING:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            wait = started + moment - time.monotonic()
            self._late = max(0.0, -wait)
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._late > MOST_LATE_SECONDS:
                started += self._late
            self.tally.sent += 1
            self.tally.date = flight.date
            self._departed(flight)
            message = request_bytes(flight, address)
            task = asyncio.create_task(self._send(message, started + moment))
            self._tasks[task] = started + moment
            task.add_done_callback(self._forget)
        self._late = 0.0
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._idle:
            self._idle.pop()[1].close()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    async def carried(self, flights: list[Flight], seconds: float, clients: int = 4) -> float:
        """Answers per second to ``clients`` that send one flight after the other: what the server
        carries. Nothing of it counts."""
        address = f"{self._host}:{self._port}"
        until = time.monotonic() + seconds
        answered = 0

        async def client(number: int) -> None:
            nonlocal answered
            while time.monotonic() < until:
                flight = flights[(number + clients * answered) % len(flights)]
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._exchange(request_bytes(flight, address))
                answered += 1

        await asyncio.gather(*map(client, range(clients)))
        while self._idle:
            self._idle.pop()[1].close()
        return answered / seconds

    async def _send(self, message: bytes, due: float) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._exchange(message)
            self.tally.answered += 1
            if status != 200:
                self.tally.errors.append(f"status {status}")
        except (OSError, EOFError, ValueError) as error:
            self.tally.errors.append(f"{type(error).__name__}: {error}")
        self.tally.latencies.append(time.monotonic() - due)

    async def _exchange(self, message: bytes) -> int:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                break
            writer.close()  # the other side has closed it: it was idle for too long
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1])

"""``python -m understudy.demo.traffic SETTINGS.json``: the clients of the demo, as a process.

Requests leave in an open loop, by the engine of ``understudy gate``: when they are due, whether or
not earlier ones were answered, so that a server that stalls cannot hide it. Commands come as JSON
lines on standard input; what clients saw goes to standard output.

The rate follows what the machine carries: it halves when requests wait, and grows back slowly.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.http import call
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.engine.sender import Endpoint, Sender
from understudy.loadtest.engine.timer import now_ns

RING = 1 << 15
"""Requests whose bytes are kept; far more than can be in flight."""
CHUNK_SECONDS = 0.1
SLOWEST = 4.0
"""Requests per second below which the rate does not fall."""
_POST_SECONDS = 0.5
_MOST_LABELS = 2_000
_TIMEOUT_SECONDS = 30.0


Measured = tuple[float, float]
"""A mean, and the deviation with which it is measured each time."""


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of request. ``body`` is JSON in parts: texts, and values that are measured again for
    each request. ``label`` is the truth about it, posted as feedback; None: there is none."""

    head: str
    body: Sequence[str | Measured]
    label: float | None = None

    def render(self, number: str, chance: np.random.Generator) -> bytes:
        """The whole request, with ``number`` as its id."""
        parts = [
            part if isinstance(part, str) else f"{chance.normal(*part):.2f}" for part in self.body
        ]
        data = "".join(parts).encode()
        return (
            f"{self.head}x-request-id: {number}\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode() + data


class Pace:
    """The rate of requests: as wished, or what the machine carries.

    Requests are ``behind`` by the time in seconds that they take or wait. Beyond ``late`` the rate
    halves, at most once in two seconds; after four seconds without that, it grows by a fifth.
    """

    def __init__(self, wanted: float, late: float) -> None:
        self.wanted = wanted
        self.late = late
        self.rate = wanted
        self._changed = 0.0
        self.lowered = 0

    def look(self, now: float, behind: float) -> None:
        """Adjust the rate; ``now`` is monotonic, in seconds."""
        if behind > self.late and now - self._changed >= 2.0 and self.rate > SLOWEST:
            self.rate = max(SLOWEST, self.rate / 2.0)
            self.lowered += 1
            self._changed = now
        elif behind <= self.late and self.rate < self.wanted and now - self._changed >= 4.0:
            self.rate = min(self.wanted, self.rate * 1.2)
            self._changed = now


@dataclass(slots=True)
class _Labels:
    """Posts labels some time after their requests, from a thread."""

    url: str
    delay: float
    waiting: deque[tuple[float, str, float]] = field(default_factory=deque)
    posted: int = 0
    error: str = ""

    def run(self) -> None:
        while True:
            time.sleep(_POST_SECONDS)
            now = time.monotonic()
            due: list[dict[str, Any]] = []
            while self.waiting and self.waiting[0][0] <= now and len(due) < _MOST_LABELS:
                _, number, label = self.waiting.popleft()
                due.append({"request_id": number, "label": label})
            if not due:
                continue
            body = json.dumps(due).encode()
            try:
                answer = call(
                    f"{self.url}/v1/feedback",
                    "POST",
                    body,
                    {"Content-Type": "application/json"},
                    timeout_seconds=_TIMEOUT_SECONDS,
                )
                self.error = "" if answer.status < 300 else f"status {answer.status}"
                self.posted += len(due)
            except OSError as error:
                self.error = str(error)


class Clients:
    """Sends messages as the commands on standard input say, until it is told to stop."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._run = str(settings["run"])
        self._pace = Pace(float(settings["rate"]), float(settings["late"]))
        self._messages = [Message(*one) for one in settings["messages"]]
        self._chance = np.random.default_rng(int(settings["seed"]))
        self._holding = False
        """Whether requests are late for a reason that the story tells: the rate stays."""
        self._ring = [b""] * RING
        self._next = 0
        self._stopped = False
        endpoint = Endpoint(
            settings["host"], int(settings["port"]), timeout=_TIMEOUT_SECONDS, connections=256
        )
        self._sender = Sender(endpoint, self._ring)
        self._labels = _Labels(str(settings["control"]), float(settings["label_delay"]))
        self._input = b""
        self._sent: dict[int, tuple[str, float | None]] = {}

    def run(self) -> None:
        """Until it is told to stop, and the last answer is there."""
        threading.Thread(target=self._labels.run, daemon=True).start()
        self._origin = now_ns()
        self._sender.run(self._moments(), self._origin, self._report, 0.2)
        self._report()

    def _moments(self) -> Iterator[NDArray[np.float64]]:
        """Poisson arrivals, drawn a moment before they are due, with the bytes that are sent."""
        at = 0.0
        while not self._stopped:
            rate = self._pace.rate
            gaps = self._chance.exponential(1.0 / rate, max(1, int(rate * CHUNK_SECONDS)))
            # After a pause of the machine, requests are not sent in one burst.
            at = max(at, (now_ns() - self._origin) / 1e9 - 2.0)
            moments = at + np.cumsum(gaps)
            for _ in moments:
                self._render()
            at = float(moments[-1])
            yield moments

    def _render(self) -> None:
        place, self._next = self._next % RING, self._next + 1
        message = self._messages[int(self._chance.integers(len(self._messages)))]
        number = f"{self._run}-{self._next:06d}"
        self._ring[place] = message.render(number, self._chance)
        self._sent[place] = number, message.label

    def _report(self) -> None:
        self._read_commands()
        ended = self._sender.drain()
        now = time.monotonic()
        for place, ok in zip(ended.payload.tolist(), ended.ok.tolist(), strict=True):
            number, label = self._sent.pop(place, ("", None))
            if ok and label is not None:
                self._labels.waiting.append((now + self._labels.delay, number, label))
        if not self._holding:
            self._pace.look(now, self._behind(ended))
        print(json.dumps(self._report_of(ended)), flush=True)

    def _behind(self, ended: FinishedRequests) -> float:
        """Seconds by which requests are late: of those that ended, the median; of the others, the
        oldest."""
        oldest = self._sender.earliest
        waiting = 0.0 if oldest is None else (now_ns() - self._origin) / 1e9 - oldest
        taken = float(np.median(ended.ended - ended.due)) if len(ended.due) else 0.0
        return max(taken, waiting / 2.0)

    def _report_of(self, ended: FinishedRequests) -> dict[str, Any]:
        return {
            "latencies": [round(float(x), 5) for x in np.maximum(ended.ended - ended.due, 0.0)],
            "ok": int(ended.ok.sum()),
            "errors": ended.errors,
            "rate": self._pace.rate,
            "wanted": self._pace.wanted,
            "lowered": self._pace.lowered,
            "in_flight": self._sender.in_flight,
            "labels": self._labels.posted,
            "labels_error": self._labels.error,
        }

    def _read_commands(self) -> None:
        while select.select([0], [], [], 0.0)[0]:
            data = os.read(0, 1 << 20)
            if not data:
                self._stop()
                return
            self._input += data
            *lines, self._input = self._input.split(b"\n")
            for line in lines:
                self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        does: dict[str, Callable[[Any], None]] = {
            "messages": self._exchange,
            "hold": self._hold,
            "stop": lambda _: self._stop(),
        }
        for name, value in command.items():
            does[name](value)

    def _exchange(self, messages: list[list[Any]]) -> None:
        self._messages = [Message(*one) for one in messages]

    def _hold(self, holding: bool) -> None:
        self._holding = holding

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._sender.stop()


if __name__ == "__main__":
    Clients(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()

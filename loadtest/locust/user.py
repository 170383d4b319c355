"""A Locust user that sends at a fixed rate, independent of the responses.

Locust's users wait for their responses, so a stalled server receives fewer requests, which hides
the stall (coordinated omission). This user runs an open loop with the engine, in a separate
process, and adds the results to Locust's statistics in bulk; the web page, workers, reports and
exit codes are Locust's. The number of users sets the load: each sends ``rate`` requests per second,
and Poisson processes add up to one.

    from understudy.loadtest.locust.user import OpenLoopUser

    class Predictions(OpenLoopUser):
        host = "http://127.0.0.1:8080"
        path = "/v2/models/m/infer"
        rate = 200.0
        limit = 0.05
        template = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64",
                                "data": {"$vector": 2}}]}
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any, ClassVar

import gevent
import numpy as np
from gevent import threadpool
from locust import User, task
from locust.stats import StatsEntry, StatsError
from pydantic import ValidationError

from understudy.common.problems import problems
from understudy.loadtest.engine.answer import Check
from understudy.loadtest.engine.pool import Open, drive
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.plan import Checks, Engine, Payloads
from understudy.loadtest.gate.sending import checks_of, not_looked_at
from understudy.loadtest.gate.target import address_of, allowed, target_of
from understudy.loadtest.locust import lag
from understudy.loadtest.payloads.calls import Calls
from understudy.loadtest.payloads.request import Payload, as_body
from understudy.loadtest.payloads.template import Drawer
from understudy.loadtest.scenarios.shapes import steady

_LONGEST = 7 * 86400.0
_numbers = itertools.count()


class OpenLoopUser(User):
    """An open-loop user that sends ``rate`` requests per second. ``template`` is a body in which
    objects like ``{"$uniform": [0, 1]}`` stand for drawn values; ``payloads`` are bodies to use
    instead. ``checks`` say what the answers must be, as in a plan of the gate. ``seed``, with the
    number of the worker and the user, makes runs repeatable. With ``limit``, a latency in seconds,
    a run whose senders were late is INVALID.

    >>> class Predictions(OpenLoopUser):
    ...     host = "http://127.0.0.1:8080"
    ...     path = "/v1/models/delays:predict"
    ...     rate = 200.0
    ...     template = {"instances": [{"distance": {"$uniform": [0, 3000]}}]}
    >>> Predictions.rate, Predictions.timeout
    (200.0, 30.0)
    """

    abstract = True
    rate: ClassVar[float] = 100.0
    path: ClassVar[str] = "/"
    method: ClassVar[str] = "POST"
    headers: ClassVar[dict[str, str]] = {}
    template: ClassVar[Any] = None
    payloads: ClassVar[list[Any]] = []
    checks: ClassVar[dict[str, Any]] = {}
    count: ClassVar[int] = 500
    seed: ClassVar[int] = 1
    timeout: ClassVar[float] = 30.0
    limit: ClassVar[float | None] = None
    connections: ClassVar[int] = 256
    own_this_target: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._over = threading.Event()
        self._origin = 0.0

    @task
    def dispatch(self) -> None:
        """The task that Locust starts: send until Locust stops it."""
        lag.statistics.start(self.path)
        worker = max(0, getattr(self.environment.runner, "worker_index", 0) or 0)
        number = next(_numbers)
        host = self.host or self.environment.host
        if not host:
            raise LoadTestError("name the target: host = … or --host")
        address = address_of(host)
        allowed(address, self.own_this_target)
        engine = Engine(connections=self.connections).model_copy(update={"timeout": self.timeout})
        drawer = Drawer(self.seed)
        given = self.payloads or [drawer.fill(self.template) for _ in range(self.count)]
        payloads = [
            Payload(as_body(one), self.method, address.path + self.path, self.headers)
            for one in given
        ]
        if address.grpc:
            payloads = [Calls().of(one) for one in payloads]
        requests = [one.to_bytes(address.authority) for one in payloads]
        check = self._check(payloads)
        seed = self.seed * 1_000_003 + worker * 1_009 + number
        load = Open(steady(self.rate, _LONGEST), seed=seed)
        pool = threadpool.ThreadPool(1)

        def send() -> None:
            self._origin = time.monotonic()
            drive(
                target_of(address, engine), requests, load, check,
                watch=lambda _: self._over.is_set(), sink=self._add_finished,
            )  # fmt: skip

        try:
            # The engine blocks, so it must not run in Locust's greenlets.
            pool.spawn(send).get()
        except gevent.GreenletExit:
            self._over.set()
            pool.join()
            raise
        except LoadTestError:
            # The end of the test also ends the engine's process.
            if getattr(self.environment.runner, "state", "") in ("spawning", "running"):
                raise

    def _check(self, payloads: list[Payload]) -> Check:
        """The checks of the answers, as those of the gate. Raises LoadTestError."""
        try:
            declared = Checks.model_validate(self.checks)
        except ValidationError as error:
            found = problems(error, self.checks, Checks)
            raise LoadTestError(
                "; ".join(f"{type(self).__name__}.checks.{key}: {text}" for key, text in found)
            ) from None
        check = checks_of(declared, Payloads(path=self.path, method=self.method), payloads)
        unseen = not_looked_at(check, len(payloads))
        if unseen:
            lag.statistics.unseen[self.path] = unseen
        return check

    def _add_finished(self, parts: list[FinishedRequests]) -> None:
        """Add finished requests to Locust's statistics."""
        stats = self.environment.stats
        now = time.time() - time.monotonic()
        for part in parts:
            if not len(part.due):
                continue
            lag.statistics.add(self.path, part, self.limit)
            ok = part.ok
            seconds = (now + self._origin + part.ended).astype(np.int64)
            milliseconds = np.maximum(part.ended - part.due, 0.0) * 1e3
            for entry in (stats.get(self.path, self.method), stats.total):
                _log(entry, milliseconds, ok, seconds)
            for name, count in part.errors.items():
                error = stats.errors.setdefault(
                    StatsError.create_key(self.method, self.path, name),
                    StatsError(self.method, self.path, name),
                )
                error.occurrences += count


def _log(entry: StatsEntry, milliseconds: Any, ok: Any, seconds: Any) -> None:
    """As :meth:`StatsEntry.log`, but for many requests. Times are not rounded to two digits,
    because that would distort the tail."""
    count = len(milliseconds)
    entry.num_requests += count
    entry.num_failures += int((~ok).sum())
    total: Any = entry  # its annotations say whole numbers, its arithmetic takes any
    total.total_response_time += float(milliseconds.sum())
    low, high = float(milliseconds.min()), float(milliseconds.max())
    total.min_response_time = low if entry.min_response_time is None else min(
        entry.min_response_time, low
    )  # fmt: skip
    total.max_response_time = max(entry.max_response_time, high)
    rounded = np.where(milliseconds < 100.0, milliseconds.round(1), milliseconds.round())
    times: dict[float, int] = total.response_times
    for value, number in zip(*np.unique(rounded, return_counts=True), strict=True):
        times[float(value)] = times.get(float(value), 0) + int(number)
    for second, number in zip(*np.unique(seconds, return_counts=True), strict=True):
        at = int(second)
        entry.num_reqs_per_sec[at] = entry.num_reqs_per_sec.get(at, 0) + int(number)
    bad = seconds[~ok]
    for second, number in zip(*np.unique(bad, return_counts=True), strict=True):
        at = int(second)
        entry.num_fail_per_sec[at] = entry.num_fail_per_sec.get(at, 0) + int(number)
    entry.last_request_timestamp = float(seconds.max())

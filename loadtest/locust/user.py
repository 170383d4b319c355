"""A Locust user that is a dispatcher: it sends at a rate of its own, whatever the answers do.

Locust's users wait for their answers, so a server that stalls is asked less, and the stall hides
(coordinated omission). This one hands a stretch of open-loop arrivals to the engine, which runs in
a process of its own, and puts what comes back into Locust's statistics in bulk; the web page,
workers, reports and exit codes are Locust's. The number of users that Locust is told sets the load:
each of them sends ``rate`` requests per second, and Poisson processes add up to one.

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
import os
import threading
import time
from typing import Any, ClassVar

import gevent
import numpy as np
from gevent import threadpool
from locust import User, task
from locust.stats import StatsEntry, StatsError

from understudy.loadtest.engine.book import Taken
from understudy.loadtest.engine.pool import Open, drive
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.plan import Engine
from understudy.loadtest.gate.target import address_of, allowed, target_of
from understudy.loadtest.locust import lag
from understudy.loadtest.payloads.request import Payload, as_body
from understudy.loadtest.payloads.template import Drawer
from understudy.loadtest.scenarios.shapes import steady

# The sending processes import the `locust` program again, as multiprocessing does. There it must
# not replace the standard library's select by gevent's, which has no epoll.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

_LONGEST = 7 * 86400.0
_numbers = itertools.count()


class OpenLoopUser(User):
    """``rate`` per second and user. ``template`` is a body in which objects like ``{"$uniform": [0,
    1]}`` stand for values that are drawn; ``payloads`` are given instead where they are ready.
    ``seed`` with the worker's and the user's number makes it repeatable. With a ``limit``, the
    latency in seconds that is to be shown, a run whose senders were late is INVALID.

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
        """What Locust starts: send until it is stopped."""
        worker = max(0, getattr(self.environment.runner, "worker_index", 0) or 0)
        number = next(_numbers)
        host = self.host or self.environment.host
        if not host:
            raise LoadTestError("name the target: host = … or --host")
        address = address_of(host)
        allowed(address, self.own_this_target)
        engine = Engine(connections=self.connections, timeout=self.timeout)
        drawer = Drawer(self.seed)
        given = self.payloads or [drawer.fill(self.template) for _ in range(self.count)]
        requests = [
            Payload(as_body(one), self.method, address.path + self.path, self.headers).to_bytes(
                address.authority
            )
            for one in given
        ]
        seed = self.seed * 1_000_003 + worker * 1_009 + number
        load = Open(steady(self.rate, _LONGEST), seed=seed)
        pool = threadpool.ThreadPool(1)

        def send() -> None:
            self._origin = time.monotonic()
            drive(
                target_of(address, engine), requests, load,
                watch=lambda _: self._over.is_set(), keep=self._take,
            )  # fmt: skip

        try:
            # The engine's own waiting must not hold up Locust's greenlets.
            pool.spawn(send).get()
        except gevent.GreenletExit:
            self._over.set()
            pool.join()
            raise
        except LoadTestError:
            # Whoever ends the whole test ends the engine's process with it.
            if getattr(self.environment.runner, "state", "") in ("spawning", "running"):
                raise

    def _take(self, parts: list[Taken]) -> None:
        """Put what has ended into Locust's statistics."""
        stats = self.environment.stats
        now = time.time() - time.monotonic()
        for part in parts:
            if not len(part.due):
                continue
            lag.book.add(self.path, part, self.limit)
            ok = (part.status >= 200) & (part.status < 400)
            seconds = (now + self._origin + part.ended).astype(np.int64)
            milliseconds = np.maximum(part.ended - part.due, 0.0) * 1e3
            for entry in (stats.get(self.path, self.method), stats.total):
                _log(entry, milliseconds, ok, seconds)
            wrong = {
                f"HTTP {s}": int((part.status == s).sum()) for s in np.unique(part.status[~ok])
            }
            wrong.pop("HTTP 0", None)
            for name, count in {**wrong, **part.errors}.items():
                error = stats.errors.setdefault(
                    StatsError.create_key(self.method, self.path, name),
                    StatsError(self.method, self.path, name),
                )
                error.occurrences += count


def _log(entry: StatsEntry, milliseconds: Any, ok: Any, seconds: Any) -> None:
    """What :meth:`StatsEntry.log` does for one request, for many; times are not rounded to two
    digits, since a tail is what is looked for."""
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

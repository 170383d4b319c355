"""The capacity of a queue that is known, and its tail at loads that were not measured.

Two servers with exponential service times of 10 ms each, first come first served. The rate at which
p99 is 150 ms follows from theory (M/M/2); the search must find it within 5 %, the predictions from
service times the measured p99 within 10 % up to a load of 0.8.

    python -m benchmarks load-capacity [--quick]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks.harness import Claim, Result, environment
from benchmarks.load.server import Serving
from loadtest.capacity.breakpoint import Judged, search
from loadtest.capacity.queue import predict
from loadtest.engine.pool import Open, Target, drive
from loadtest.gate.plan import Objectives
from loadtest.gate.verdict import judge, missed_already, together
from loadtest.payloads.request import Payload
from loadtest.scenarios.shapes import steady

SERVERS, SECONDS, LIMIT = 2, 0.01, 0.15


def exact_quantile(rate: float, p: float = 0.99) -> float:
    """Of the time in an M/M/c system, in seconds (Gross & Harris, Fundamentals of Queueing Theory,
    2.3)."""
    mu, c = 1.0 / SECONDS, SERVERS
    a = rate / mu
    rho = a / c
    if rho >= 1.0:
        return math.inf
    waiting = a**c / math.factorial(c) / (1.0 - rho)
    erlang = waiting / (sum(a**k / math.factorial(k) for k in range(c)) + waiting)

    def tail(t: float) -> float:
        gap = c * mu - rate - mu
        if abs(gap) < 1e-9:
            return math.exp(-mu * t) * (1.0 + erlang * mu * t) - (1.0 - p)
        both = erlang * (math.exp(-mu * t) - math.exp(-(c * mu - rate) * t)) * mu / gap
        return math.exp(-mu * t) + both - (1.0 - p)

    return float(brentq(tail, 1e-6, 1e4))


def run(quick: bool = False) -> Result:
    result = Result(
        "load-capacity", environment(quick=quick, servers=SERVERS, limit_ms=LIMIT * 1e3)
    )
    exact = float(brentq(lambda r: exact_quantile(r) - LIMIT, 1.0, SERVERS / SECONDS - 1e-3))
    objectives = Objectives(p99=LIMIT)
    requests = [Payload(b"{}", path="/m").to_bytes("bench")]
    seconds = 20.0 if quick else 60.0
    seeds = iter(range(1, 10_000))
    found = []
    with Serving("queue", SERVERS, SECONDS, 5) as port:
        target = Target("127.0.0.1", port, connections=512, timeout=10.0)

        def measured(rate: float, length: float) -> Any:
            load = Open(steady(rate, length), seed=next(seeds))
            stop = lambda so_far: missed_already(objectives, so_far)  # noqa: E731
            return drive(target, requests, load, watch=stop)

        def probe(rate: float) -> Judged:
            outcome = measured(rate, seconds)
            passed = together(judge(objectives, outcome)) == "passed"
            p99 = outcome.quantile(0.99) or 0.0
            # At the very limit no test can tell; the estimate decides then.
            if not passed and "invalid" in {c.said for c in judge(objectives, outcome)}:
                passed = p99 <= LIMIT
            print(f"  {rate:.1f}/s: {p99 * 1e3:.0f} ms", file=sys.stderr, flush=True)
            return Judged(rate, passed, "", outcome)

        capacity = search(probe, 60.0, 400.0, precision=0.04)
        rows: list[list[Any]] = []
        service = np.random.default_rng(3).exponential(SECONDS, 5_000)
        for load in (0.3, 0.5, 0.7, 0.8):
            rate = load * SERVERS / SECONDS
            outcome = drive(target, requests, Open(steady(rate, 2.0 * seconds), seed=next(seeds)))
            predicted = predict(service, rate, 0.99, SERVERS).value
            p99 = outcome.quantile(0.99) or 0.0
            value = predicted.value if predicted is not None else math.nan
            rows.append([load, p99 * 1e3, value * 1e3, exact_quantile(rate) * 1e3, value / p99])
            found.append(abs(value / p99 - 1.0))
    middle = ((capacity.low or 0.0) + (capacity.high or 0.0)) / 2.0
    result.tables.append(
        ("p99 by load",
         ["load", "measured ms", "predicted ms", "theory ms", "predicted / measured"], rows)
    )  # fmt: skip
    result.measurements = {
        "exact": exact,
        "low": capacity.low,
        "high": capacity.high,
        "loads": rows,
    }
    result.claims = [
        Claim("breakpoint / the queue's own, off by", abs(middle / exact - 1.0), 0.05, "<="),
        Claim("predicted p99 off by, up to a load of 0.8 (largest)", max(found), 0.10, "<="),
    ]
    return result

"""The capacity of a queue that is known, and its tail at loads that were not measured.

Four servers with exponential service times of 20 ms each, first come first served. The rate at
which p99 is 200 ms follows from theory (M/M/4); the search must find it within 5 %. What is
measured at half of the capacity tells the times in service, and from these the p99 of other loads
must be predicted within 10 % up to a load of 0.8. Nothing of the server but the number of its
servers is told to either.

    python -m benchmarks load-capacity [--quick]
"""

from __future__ import annotations

import math
import sys
from typing import Any

from scipy.optimize import brentq

from benchmarks.harness import Claim, Result, environment
from benchmarks.load.server import Serving
from loadtest.capacity.breakpoint import Judged, estimate, search
from loadtest.capacity.queue import highest_rate, in_service, predict
from loadtest.engine.pool import Open, Target, drive
from loadtest.gate.plan import Objectives
from loadtest.gate.verdict import judge, together
from loadtest.payloads.request import Payload
from loadtest.scenarios.shapes import steady

SERVERS, SECONDS, LIMIT = 4, 0.02, 0.2


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
    seconds = 15.0 if quick else 30.0
    seeds = iter(range(1, 10_000))
    found = []
    with Serving("queue", SERVERS, SECONDS, 5) as port:
        target = Target("127.0.0.1", port, connections=512, timeout=10.0)

        def measured(rate: float, length: float) -> Any:
            load = Open(steady(rate, length), seed=next(seeds))
            return drive(target, requests, load)

        def probe(rate: float) -> Judged:
            outcome = measured(rate, seconds)
            passed = together(judge(objectives, outcome)) == "passed"
            p99 = outcome.quantile(0.99) or 0.0
            # At the very limit no test can tell; the estimate decides then.
            if not passed and "invalid" in {c.said for c in judge(objectives, outcome)}:
                passed = p99 <= LIMIT
            print(f"  {rate:.1f}/s: {p99 * 1e3:.0f} ms", file=sys.stderr, flush=True)
            return Judged(rate, passed, "", outcome)

        capacity = search(probe, 85.0, 400.0, precision=0.04)
        middle = estimate(capacity, 0.99, LIMIT)
        rows: list[list[Any]] = []
        half = drive(
            target, requests, Open(steady(0.5 * SERVERS / SECONDS, 4.0 * seconds), seed=next(seeds))
        )
        service = in_service(half.due, half.due + half.latency, SERVERS)
        # A tail at a high load needs a long look: neighbours wait together.
        for load, times in ((0.3, 1.0), (0.6, 2.0), (0.7, 3.0), (0.8, 5.0)):
            rate = load * SERVERS / SECONDS
            outcome = drive(target, requests, Open(steady(rate, times * seconds), seed=next(seeds)))
            predicted = predict(service, rate, 0.99, SERVERS).value
            p99 = outcome.quantile(0.99) or 0.0
            value = predicted.value if predicted is not None else math.nan
            rows.append([load, p99 * 1e3, value * 1e3, exact_quantile(rate) * 1e3, value / p99])
            found.append(abs(value / p99 - 1.0))
            print(f"  load {load}: {p99 * 1e3:.0f} ms, predicted {value * 1e3:.0f} ms",
                  file=sys.stderr, flush=True)  # fmt: skip
    best = highest_rate(service, LIMIT, 0.99, SERVERS)
    result.tables.append(
        ("p99 by load",
         ["load", "measured ms", "predicted ms", "theory ms", "predicted / measured"], rows)
    )  # fmt: skip
    result.measurements = {
        "exact": exact,
        "low": capacity.low,
        "high": capacity.high,
        "estimate": [middle.value, middle.low, middle.high] if middle else None,
        "predicted": best,
        "service_mean_ms": float(service.mean()) * 1e3,
        "probes": [[p.rate, p.passed, p.outcome.quantile(0.99)] for p in capacity.probes],
        "loads": rows,
    }
    result.tables.append(
        ("The highest rate with a p99 within 200 ms",
         ["who", "per second", "from", "to", "off by"],
         [["theory", exact, None, None, None],
          ["search: passed and failed", None, capacity.low, capacity.high, None],
          ["estimate of all probes", middle and middle.value, middle and middle.low,
           middle and middle.high, abs(middle.value / exact - 1.0) if middle else None],
          ["predicted from half of the load", best, None, None,
           abs(best / exact - 1.0) if best else None]])
    )  # fmt: skip
    result.claims = [
        Claim(
            "breakpoint / the queue's own, off by",
            abs(middle.value / exact - 1.0) if middle else None,
            0.05,
            "<=",
        ),
        Claim("predicted p99 off by, up to a load of 0.8 (largest)", max(found), 0.10, "<="),
    ]
    return result

"""The capacity of a queue that is known, and its tail at loads that were not measured.

Four servers with exponential service times of 20 ms each, first come first served. The rate at
which p99 is 200 ms follows from theory (M/M/4); the search must find it within 5 %. What is
measured at half of the capacity tells the times in service, and from these the p99 of other loads
must be predicted within 10 % up to a load of 0.8. Nothing of the server but the number of its
servers is told to either.

A p99 is uncertain itself: neighbours wait overall_verdict, so that at a load of 0.8 that of 24,000
requests strays from theory by 8 % (one standard deviation, by simulation), and says little about a
prediction. So four such queues are measured at once, each with its own arrivals and times, and
longer at higher loads, until what remains is 2 to 3 %; the intervals (95 %) are from pieces of
15 s, drawn anew.

    python -m benchmarks load-capacity [--quick]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks.harness import Claim, Result, environment
from benchmarks.load.server import Serving
from understudy.common.units import write_seconds
from understudy.loadtest.capacity.breakpoint import StepVerdict, estimate, search
from understudy.loadtest.capacity.queue import Service, highest_rate, observed, predict
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import Open, Target, drive
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.verdict import evaluate, overall_verdict
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.scenarios.shapes import steady

SERVERS, SECONDS, LIMIT = 4, 0.02, 0.2
QUEUES = 4
"""Servers that are measured at once."""
PIECE = 15.0
"""Seconds of a piece for the intervals: far longer than a queue at a load of 0.8 remembers."""
LOADS = ((0.3, 1.0), (0.6, 2.0), (0.7, 4.0), (0.8, 12.0))
"""Where the p99 is measured, and for how many stretches of the usual length."""


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


def quantile(outcomes: Iterable[Outcome], p: float = 0.99) -> tuple[float, float, float]:
    """Of all their requests, with the ends of its interval."""
    pieces = [
        one.part(at, at + PIECE).latency
        for one in outcomes for at in np.arange(0.0, one.due[-1] - PIECE / 2, PIECE)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    some = (rng.integers(0, len(pieces), len(pieces)) for _ in range(400))
    drawn = [np.quantile(np.concatenate([pieces[k] for k in one]), p) for one in some]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.quantile(np.concatenate(pieces), p)), float(low), float(high)


def run(quick: bool = False) -> Result:
    result = Result(
        "load-capacity",
        environment(quick=quick, servers=SERVERS, queues=QUEUES, limit_ms=LIMIT * 1e3),
    )
    exact = float(brentq(lambda r: exact_quantile(r) - LIMIT, 1.0, SERVERS / SECONDS - 1e-3))
    objectives = Objectives.model_validate({"p99": write_seconds(LIMIT)})
    requests = [Payload(b"{}", path="/m").to_bytes("bench")]
    seconds = 15.0 if quick else 30.0
    seeds = iter(range(1, 10_000))
    with ExitStack() as stack:
        servers = [Serving("queue", SERVERS, SECONDS, 5 + k) for k in range(QUEUES)]
        ports = [stack.enter_context(one) for one in servers]
        result.environment |= servers[0].scheduled

        def measured(rate: float, length: float, port: int, seed: int) -> Outcome:
            target = Target("127.0.0.1", port, connections=512, timeout=10.0)
            return drive(target, requests, Open(steady(rate, length), seed=seed))

        def everywhere(rate: float, length: float) -> list[Outcome]:
            with ThreadPoolExecutor(QUEUES) as threads:
                begun = [
                    threads.submit(measured, rate, length, port, next(seeds)) for port in ports
                ]
                return [one.result() for one in begun]

        def probe(rate: float) -> StepVerdict:
            outcome = measured(rate, seconds, ports[0], next(seeds))
            passed = overall_verdict(evaluate(objectives, outcome)) == "passed"
            p99 = outcome.quantile(0.99) or 0.0
            # At the very limit no test can tell; the estimate decides then.
            if not passed and "invalid" in {c.verdict for c in evaluate(objectives, outcome)}:
                passed = p99 <= LIMIT
            print(f"  {rate:.1f}/s: {p99 * 1e3:.0f} ms", file=sys.stderr, flush=True)
            return StepVerdict(rate, passed, "", outcome)

        capacity = search(probe, 85.0, 400.0, precision=0.04)
        middle = estimate(capacity, 0.99, LIMIT)
        halves = [
            observed(one.due, one.due + one.latency, SERVERS)
            for one in everywhere(0.5 * SERVERS / SECONDS, 8.0 * seconds)
        ]
        service = Service(
            np.concatenate([one.times for one in halves]),
            float(np.mean([one.way for one in halves])),
        )
        rows: list[list[Any]] = []
        for load, times in LOADS:
            rate = load * SERVERS / SECONDS
            p99, low, high = quantile(everywhere(rate, times * seconds))
            told = predict(service, rate, 0.99, SERVERS).value
            value = [math.nan] * 3 if told is None else [told.value, told.low, told.high]
            theory = exact_quantile(rate)
            rows.append([load, *(1e3 * x for x in (p99, low, high, *value, theory)),
                         value[0] / p99, value[0] / theory, p99 / theory])  # fmt: skip
            print(f"  load {load}: {p99 * 1e3:.0f} ms, predicted {value[0] * 1e3:.0f} ms",
                  file=sys.stderr, flush=True)  # fmt: skip
    best = highest_rate(service, LIMIT, 0.99, SERVERS)
    result.tables.append(
        ("p99 by load",
         ["load", "measured ms", "from", "to", "predicted ms", "from", "to", "theory ms",
          "predicted / measured", "predicted / theory", "measured / theory"], rows)
    )  # fmt: skip
    result.measurements = {
        "exact": exact,
        "low": capacity.low,
        "high": capacity.high,
        "estimate": [middle.value, middle.low, middle.high] if middle else None,
        "predicted": best,
        "service_mean_ms": float(service.times.mean()) * 1e3,
        "way_ms": service.way * 1e3,
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
        Claim(
            "predicted p99 off by, up to a load of 0.8 (largest)",
            max(abs(row[8] - 1.0) for row in rows),
            0.10,
            "<=",
        ),
        Claim(
            "predicted p99 / theory, off by, up to a load of 0.8 (largest)",
            max(abs(row[9] - 1.0) for row in rows),
            0.10,
            "<=",
        ),
    ]
    return result

"""Predicts latencies at other loads from measured service times.

Requests arrive as a Poisson process and wait for the first free of c servers; each takes a service
time that is drawn from the measured ones. The recursion of Kiefer & Wolfowitz (1955) follows the
workloads of the servers from arrival to arrival; with one server it is Lindley's (1952). Service
times must be those *within* the server, at a middling load: what a client sees at low load contains
the network and the wake-ups of an idle machine, and inflates the prediction badly. They follow from
when requests came and went, where it is known how many are worked on at once: :func:`in_service`.
Of a request that had to wait this is the time between two departures, in which the way to the
server and back cancels; one that found a server free has it in its time. :func:`observed` tells it
from the difference, since two per cent more in service are seven per cent more in the p99 at a load
of 0.8.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.statistics.intervals import Interval

Floats = NDArray[np.float64]
FEWEST = 200
_LONGEST = 200_000
"""Requests of a simulation. Its own noise must stay below that of what was measured."""
HIGHEST_LOAD = 0.95
"""Highest utilisation of a prediction; beyond it, the queue is not stationary within a test."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """``value`` is the quantile ``p`` of the latency in seconds at ``rate``; ``load`` is the share
    of the servers' time that is used."""

    rate: float
    p: float
    load: float
    value: Interval | None
    why_not: str = ""


def sojourns(gaps: Floats, service: Floats, servers: int) -> Floats:
    """Time in the system of each request, (n,): ``gaps`` between arrivals, ``service`` times."""
    if servers == 1:
        # W_n = max(0, W_{n-1} + S_{n-1} - A_n): a running sum over its running minimum.
        steps = np.concatenate([[0.0], service[:-1] - gaps[1:]])
        total = np.cumsum(steps)
        values: Floats = total - np.minimum.accumulate(np.minimum(total, 0.0)) + service
        return values
    free = [0.0] * servers
    now = 0.0
    out = np.empty(len(service))
    for number, (gap, time) in enumerate(zip(gaps.tolist(), service.tolist(), strict=True)):
        now += gap
        begins = max(now, free[0])
        heapq.heapreplace(free, begins + time)
        out[number] = begins + time - now
    return out


def in_service(arrived: Floats, departed: Floats, servers: int) -> Floats:
    """The time that each request was worked on, (n,), without its wait, in order of ``arrived``.

    First come, first served by ``servers``: a request begins when it has come and fewer than that
    many of those before it are still there, which is at the ``servers``-th largest of their
    departures. Undoes :func:`sojourns`. Times in seconds; where they contradict the order, as
    clocks that are not exact let them, the time is not positive.
    """
    return departed - _begun(arrived, departed, servers)


def _begun(arrived: Floats, departed: Floats, servers: int) -> Floats:
    departures: list[float] = []
    values = arrived.copy()
    for number, (begins, ends) in enumerate(zip(arrived.tolist(), departed.tolist(), strict=True)):
        if len(departures) < servers:
            heapq.heappush(departures, ends)
        else:
            if departures[0] > begins:
                values[number] = departures[0]
            heapq.heappushpop(departures, ends)
    return values


@dataclass(frozen=True, slots=True)
class Service:
    """``times`` within the server, of the requests of which they are known; ``way`` is what a
    request needs besides, there and back. All in seconds."""

    times: Floats
    way: float = 0.0


def observed(arrived: Floats, departed: Floats, servers: int) -> Service:
    """Times in service from when requests came and went, as :func:`in_service`, with the way to the
    server and back taken out of those that found a server free.

    The way is what these took longer on average than those that waited. That difference is
    uncertain, and counts the less the more it is (James and Stein 1961).
    """
    begun = _begun(arrived, departed, servers)
    times = departed - begun
    waited = begun > arrived
    way = _difference(times[~waited], times[waited])
    times = np.where(waited, times, times - way)
    return Service(times[np.isfinite(times) & (times > 0.0)], way)


def _difference(free: Floats, waited: Floats) -> float:
    if min(len(free), len(waited)) < FEWEST:
        return 0.0
    result = float(free.mean() - waited.mean())
    uncertain = float(free.var() / len(free) + waited.var() / len(waited))
    return result * max(0.0, 1.0 - uncertain / result**2) if result > 0.0 else 0.0


def predict(
    service: Service, rate: float, p: float = 0.99, servers: int = 1, seed: int = 0, runs: int = 10
) -> Prediction:
    """A latency quantile at a Poisson ``rate``, with the interval over ``runs`` of the simulation,
    each with service times resampled from the measured ones (a bootstrap).

    Above :data:`HIGHEST_LOAD` of the capacity, or with fewer than :data:`FEWEST` service times,
    nothing is predicted."""
    x = service.times
    if len(x) < FEWEST:
        return Prediction(rate, p, 0.0, None, f"{len(x)} service times, {FEWEST} are required")
    load = rate * float(x.mean()) / servers
    if load >= HIGHEST_LOAD:
        return Prediction(
            rate,
            p,
            load,
            None,
            f"{load:.0%} of the capacity: no prediction above {HIGHEST_LOAD:.0%}",
        )
    rng = np.random.default_rng(seed)
    count = int(min(_LONGEST, max(20_000, 200.0 / (1.0 - p) / (1.0 - load) ** 2)))
    results = []
    for _ in range(runs):
        sample = rng.choice(rng.choice(x, len(x)), count)
        times = sojourns(rng.exponential(1.0 / rate, count), sample, servers)
        results.append(float(np.quantile(times[count // 10 :], p)) + service.way)
    low, high = (float(np.quantile(results, q)) for q in (0.025, 0.975))
    return Prediction(rate, p, load, Interval(float(np.mean(results)), low, high))


def highest_rate(
    service: Service, limit: float, p: float = 0.99, servers: int = 1, seed: int = 0
) -> float | None:
    """The highest Poisson rate at which the quantile stays within ``limit`` seconds, by bisection;
    None where even an idle server misses it, or there are too few service times."""
    x = service.times
    if len(x) < FEWEST or float(np.quantile(x, p)) + service.way > limit:
        return None
    low, high = 0.0, HIGHEST_LOAD * servers / float(x.mean())
    for _ in range(12):
        middle = (low + high) / 2.0
        result = predict(service, middle, p, servers, seed, runs=3).value
        if result is not None and result.value <= limit:
            low = middle
        else:
            high = middle
    return low

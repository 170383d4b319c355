"""The four scenarios of MLPerf LoadGen, with its definitions and the fields of its summary.

SingleStream: one query at a time, p90. MultiStream: eight samples a query, one query at a time,
p99 of queries. Server: Poisson arrivals, p99 within a limit. Offline: everything at once,
throughput. A run is valid when its percentile has enough queries by LoadGen's early stopping and
took at least its shortest time; shorter ones are labelled so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import Arrivals, Loop, Open
from understudy.loadtest.scenarios.shapes import steady
from understudy.loadtest.statistics.percentile import queries_needed

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
PERCENTILES: Mapping[str, float] = {"SingleStream": 0.90, "MultiStream": 0.99, "Server": 0.99}
SAMPLES_PER_QUERY = 8
OFFLINE_SAMPLES = 24_576
RULE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """``limit`` is the latency bound of Server in seconds, ``rate`` its queries per second;
    ``users`` how many connections Offline keeps busy."""

    scenario: Scenario
    seconds: float = RULE_SECONDS
    rate: float = 1.0
    limit: float | None = None
    queries: int | None = None
    users: int = 32
    seed: int = 0
    mode: Literal["PerformanceOnly", "AccuracyOnly"] = "PerformanceOnly"

    def load(self) -> Arrivals:
        """The load for the engine."""
        if self.scenario == "Server":
            return Open(steady(self.rate, self.seconds), seed=self.seed)
        if self.scenario == "Offline":
            return Loop(self.users, 1, self.queries or OFFLINE_SAMPLES, self.seconds)
        at_once = SAMPLES_PER_QUERY if self.scenario == "MultiStream" else 1
        return Loop(1, at_once, self.queries, self.seconds)


def query_latencies(settings: Settings, outcome: Outcome) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Latencies of queries in seconds, (n,); a query of several samples takes as long as its
    slowest."""
    if settings.scenario != "MultiStream":
        return outcome.latency
    # Samples of a query are due at the same moment.
    due, query = np.unique(outcome.due, return_inverse=True)
    values = np.zeros(len(due))
    np.maximum.at(values, query, outcome.latency)
    return values


@dataclass(frozen=True, slots=True)
class Result:
    """The result by LoadGen's rules. ``why`` lists the reasons against ``valid``. ``fields`` are
    those of LoadGen's detailed log; their latencies are in nanoseconds."""

    settings: Settings
    valid: bool
    why: tuple[str, ...]
    fields: Mapping[str, Any]

    def log(self) -> str:
        """The detailed log: lines as LoadGen writes them."""
        lines = []
        for key, value in self.fields.items():
            entry = {
                "key": key, "value": value, "time_ms": 0.0, "namespace": "mlperf::logging",
                "event_type": "POINT_IN_TIME", "metadata": {"is_error": False, "is_warning": False},
            }  # fmt: skip
            lines.append(f":::MLLOG {json.dumps(entry)}")
        return "\n".join(lines) + "\n"


def evaluate(settings: Settings, outcome: Outcome) -> Result:
    """The result of a run by LoadGen's rules."""
    latencies = query_latencies(settings, outcome)
    count = len(latencies)
    why: list[str] = []
    ns = np.sort(latencies) * 1e9
    fields: dict[str, Any] = {
        "effective_scenario": settings.scenario,
        "effective_test_mode": settings.mode,
        "effective_min_duration_ms": int(RULE_SECONDS * 1e3),
        "result_query_count": count,
        "result_min_latency_ns": int(ns[0]) if count else None,
        "result_max_latency_ns": int(ns[-1]) if count else None,
        "result_mean_latency_ns": int(ns.mean()) if count else None,
    }
    for p in (0.5, 0.9, 0.95, 0.97, 0.99, 0.999):
        if count:
            name = f"result_{p * 100:.2f}_percentile_latency_ns"
            fields[name] = int(ns[min(count - 1, int(np.ceil(p * count)) - 1)])
    if outcome.failed:
        why.append(f"{outcome.failed:,} of {outcome.count:,} requests failed")
    duration = outcome.seconds
    met_duration = duration >= RULE_SECONDS
    fields["result_min_duration_met"] = met_duration
    if settings.scenario == "Offline":
        fields["result_samples_per_second"] = count / duration if duration else None
        enough = count >= OFFLINE_SAMPLES
        fields["result_min_queries_met"] = enough
        if not enough:
            why.append(f"{count:,} samples, {OFFLINE_SAMPLES:,} are required")
    else:
        p = PERCENTILES[settings.scenario]
        bound, met = _early_stopping(settings, ns, p)
        fields |= bound
        fields["early_stopping_met"] = met
        if not met:
            why.append(
                f"{count:,} queries are not enough for the {100 * p:g}th percentile: "
                f"at least {queries_needed(p, int(settings.scenario != 'Server')):,}"
                + ("" if settings.limit is None else ", more where some are over the limit")
            )
    if settings.scenario == "Server":
        fields["result_completed_samples_per_sec"] = count / duration if duration else None
        fields["effective_target_qps"] = settings.rate
        fields["effective_target_latency_ns"] = int((settings.limit or 0.0) * 1e9)
    if not met_duration:
        why.append(f"ran {duration:.0f} s, a submission needs {RULE_SECONDS:.0f} s")
    valid = not [reason for reason in why if "submission" not in reason]
    fields["result_validity"] = "VALID" if valid else "INVALID"
    fields["result_invalid_reason"] = "; ".join(why)
    return Result(settings, valid, tuple(why), fields)


def _early_stopping(
    settings: Settings, ns: np.ndarray[Any, np.dtype[np.float64]], p: float
) -> tuple[dict[str, Any], bool]:
    """For Server: whether the limit holds. Otherwise: a proven upper bound of the percentile."""
    count = len(ns)
    if settings.scenario == "Server":
        over = int((ns > (settings.limit or 0.0) * 1e9).sum())
        needed = queries_needed(p, over)
        return {"early_stopping_queries_needed": needed}, count >= needed
    # As LoadGen has it: of the most queries that may be over the limit, all but one are discarded.
    allowed = discards(p, count)
    if allowed < 1:
        return {}, False
    name = "early_stopping_latency_ss" if settings.scenario == "SingleStream" else (
        "early_stopping_latency_ms"
    )  # fmt: skip
    return {name: int(ns[count - allowed])}, True


def discards(p: float, count: int) -> int:
    """How many of ``count`` queries may exceed a limit that is proven for the percentile; -1 if
    there are too few queries."""
    low, high = -1, count
    while low + 1 < high:
        middle = (low + high) // 2
        if queries_needed(p, middle) <= count:
            low = middle
        else:
            high = middle
    return low

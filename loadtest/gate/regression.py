"""Compares two results of the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.plan import LLM_TIMES
from understudy.loadtest.gate.words import Unit, figure
from understudy.loadtest.statistics.intervals import difference, mean

ChangeVerdict = Literal["better", "worse", "same", "cannot be told", "not in both"]
_BOOTSTRAPS = 500
_BEYOND = 10.0
"""Requests beyond a quantile from which on it is compared."""
_FEWEST = 100
"""Requests from which on shares of failures are compared."""
_RATE_DEVIATIONS = 6.0


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a stage before and after. ``low`` and ``high`` bound the change: of the relative
    one, as 0.1 for 10 % more, or with ``absolute`` of the difference. Larger is worse, but for a
    rate (``unit`` "per second")."""

    stage: str
    figure: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    verdict: ChangeVerdict
    why: str = ""
    unit: Unit = "seconds"
    absolute: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "stage": self.stage, "figure": self.figure, "before": self.before,
            "after": self.after, "low": self.low, "high": self.high, "said": self.verdict,
            "why": self.why, "unit": self.unit, "absolute": self.absolute,
        }  # fmt: skip

    def values(self) -> tuple[str, str]:
        """Before and after, with their units."""
        before, after = (
            figure(value, self.unit) if value is not None else "–"
            for value in (self.before, self.after)
        )
        return before, after

    def interval(self) -> str:
        """As ``+25 % (+18 % to +33 %)``; empty where the change is not known."""
        if self.before is None or self.after is None or (not self.absolute and not self.before):
            return ""
        change = self.after - self.before if self.absolute else self.after / self.before - 1.0
        unit = " points" if self.absolute else " %"
        value, low, high = (
            f"{100.0 * one:+.3g}{unit}" if one is not None else "?"
            for one in (change, self.low, self.high)
        )
        return value if self.low is None and self.high is None else f"{value} ({low} to {high})"


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], margin: float, seed: int = 0
) -> list[Change]:
    """Compare p50, p99 (of the times of language models as well), failures, capacity and cold start
    of the stages of two results. One run each does not show the variation between runs, so
    relative changes below ``margin`` count as the same. Raises PlanError for results that cannot be
    compared."""
    _comparable(before, after)
    old = {stage["name"]: stage for stage in before["stages"]}
    rng = np.random.default_rng(seed)
    changed: list[Change] = []
    for stage in after["stages"]:
        name = stage["name"]
        other = old.pop(name, None)
        if other is None:
            changed.append(_not_told(name, "stage", "the stage is new", "not in both"))
            continue
        changed += _stage(name, other, stage, margin, rng)
    changed += [_not_told(name, "stage", "the stage was removed", "not in both") for name in old]
    if not any(one.verdict != "not in both" for one in changed):
        raise PlanError("the stages of these results have no figures that are compared")
    return changed


def overall(changed: list[Change]) -> tuple[int, str]:
    """The exit code and a sentence: 1, something got worse; 2, that cannot be told of a stage that
    both results have; 0, nothing got worse."""
    worse = [f"{one.stage}: {one.figure}" for one in changed if one.verdict == "worse"]
    open_ = [
        f"{one.stage}: {one.figure}: {one.why}"
        for one in changed
        if one.verdict == "cannot be told"
    ]
    if worse:
        return 1, f"WORSE: {', '.join(worse)}"
    if open_:
        return 2, f"INCONCLUSIVE: it cannot be told whether this got worse: {'; '.join(open_)}"
    return 0, "OK: nothing got worse"


def _comparable(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    names = [[str(stage["name"]) for stage in one["stages"]] for one in (before, after)]
    if not set(names[0]) & set(names[1]):
        first, second = (", ".join(some) or "none" for some in names)
        raise PlanError(
            f"the results have no stage in common: {first} in the first, {second} in the second"
        )
    for key, what in (("cores_usable", "usable cores"), ("cores", "cores")):
        a, b = (one.get("environment", {}).get(key) for one in (before, after))
        if a != b:
            raise PlanError(
                f"the results are of machines with another number of {what}: {a} in the first, {b} "
                "in the second"
            )


def _not_told(name: str, what: str, why: str, verdict: ChangeVerdict = "cannot be told") -> Change:
    return Change(name, what, None, None, None, None, verdict, why)


def _stage(
    name: str,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    margin: float,
    rng: np.random.Generator,
) -> list[Change]:
    if a["kind"] != b["kind"]:
        return [_not_told(name, "stage", f"{a['kind']} in the first, {b['kind']} in the second")]
    found: list[Change] = []
    if "capacity" in a and "capacity" in b:
        found.append(_rates(name, "capacity", a["capacity"], b["capacity"], margin))
    elif "until_break" in a and "until_break" in b:
        ends = [
            {"low": one["until_break"]["holds"], "high": one["until_break"]["breaks"]}
            for one in (a, b)
        ]
        found.append(_rates(name, "rate that holds", ends[0], ends[1], margin))
    elif "cold_start" in a and "cold_start" in b:
        found.append(_means(name, a["cold_start"]["seconds"], b["cold_start"]["seconds"], margin))
    elif "histogram" in a and "histogram" in b and not _warm_up(a, b):
        found += _load(name, a, b, margin, rng)
    if a["verdict"] == "passed" and b["verdict"] == "failed":
        found.append(_not_told(name, "verdict", "; ".join(b["why"]), "worse"))
    elif a["verdict"] in ("passed", "failed") and b["verdict"] in ("invalid", "not measured"):
        found.append(_not_told(name, "verdict", "; ".join(b["why"])))
    return found


def _warm_up(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Stages that are not judged have no say here either."""
    return "shown" in (a["verdict"], b["verdict"])


def _load(
    name: str,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    margin: float,
    rng: np.random.Generator,
) -> list[Change]:
    if a.get("late") or b.get("late"):
        return [_not_told(name, "latency", "the load generator was late")]
    (ra, na), (rb, nb) = ((one["load"]["rate"], one["load"]["requests"]) for one in (a, b))
    if a["kind"] == "load" and min(na, nb) > 0:
        # Rates of Poisson arrivals differ by chance.
        error = float(np.hypot(ra / na**0.5, rb / nb**0.5))
        if abs(ra - rb) > max(_RATE_DEVIATIONS * error, 0.01 * ra):
            why = f"another load: {ra:,.0f}/s in the first, {rb:,.0f}/s in the second"
            return [_not_told(name, "latency", why)]
    first, second = (Histogram.from_dict(one["histogram"]) for one in (a, b))
    found = [_quantile(name, p, first, second, margin, rng) for p in (0.5, 0.99)]
    for time in LLM_TIMES if "streams" in a and "streams" in b else ():
        told = [one["streams"][time] for one in (a, b)]
        if all(one["count"] for one in told):
            first, second = (Histogram.from_dict(one["histogram"]) for one in told)
            found += [_quantile(name, p, first, second, margin, rng, time) for p in (0.5, 0.99)]
    return [*found, _failures(name, a["load"], b["load"])]


def _quantile(
    name: str,
    p: float,
    a: Histogram,
    b: Histogram,
    margin: float,
    rng: np.random.Generator,
    time: str = "",
) -> Change:
    label = f"{time} p{100 * p:g}".strip()
    fewest, needed = min(a.count, b.count), round(_BEYOND / (1.0 - p))
    if fewest < needed:
        why = f"not enough requests: {fewest:,}, at least {needed:,} are required"
        return Change(name, label, a.quantile(p), b.quantile(p), None, None, "cannot be told", why)
    ratios = np.sort(_bootstrap_quantiles(b, p, rng) / _bootstrap_quantiles(a, p, rng))
    low, high = (float(np.quantile(ratios, q)) for q in (0.025, 0.975))
    return _ratio(name, label, a.quantile(p), b.quantile(p), low, high, margin)


def _ratio(
    name: str,
    label: str,
    before: float | None,
    after: float | None,
    low: float,
    high: float,
    margin: float,
) -> Change:
    """Worse: the whole interval of the ratio lies above 1 + ``margin``."""
    verdict: ChangeVerdict = "same"
    why = ""
    if low > 1.0 + margin:
        verdict = "worse"
    elif high < 1.0 / (1.0 + margin):
        verdict = "better"
    elif high > 1.0 + margin:
        verdict, why = "cannot be told", f"up to {100.0 * (high - 1.0):.3g} % more is possible"
    return Change(name, label, before, after, low - 1.0, high - 1.0, verdict, why)


def _bootstrap_quantiles(
    histogram: Histogram, p: float, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Quantiles of bootstrap samples: of n values the rank of the quantile is binomial."""
    n = histogram.count
    ranks = np.clip(rng.binomial(n, p, _BOOTSTRAPS), 1, n) / n
    return np.array([histogram.quantile(float(rank)) or 0.0 for rank in ranks])


def _failures(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Change:
    """Compare two shares of failures: without a margin, the 99 % interval of the change decides."""
    before, after = a["error_rate"], b["error_rate"]
    fewest = min(a["requests"], b["requests"])
    found = difference(a["failed"], a["requests"], b["failed"], b["requests"], 0.99)
    if fewest < _FEWEST or found is None:
        why = f"not enough requests: {fewest:,}, at least {_FEWEST:,} are required"
        return Change(
            name, "error rate", before, after, None, None, "cannot be told", why, "share", True
        )
    verdict: ChangeVerdict = "worse" if found.low > 0 else "better" if found.high < 0 else "same"
    return Change(
        name, "error rate", before, after, found.low, found.high, verdict, "", "share", True
    )


def _means(name: str, a: list[float], b: list[float], margin: float) -> Change:
    first, second = mean(a), mean(b)
    label, values = "cold start", (float(np.mean(a)), float(np.mean(b)))
    if first is None or second is None or min(first.low, second.low) <= 0.0:
        return Change(name, label, *values, None, None, "cannot be told", "not enough repeats")
    low, high = second.low / first.high, second.high / first.low
    return _ratio(name, label, *values, low, high, margin)


def _rates(
    name: str, label: str, a: Mapping[str, Any], b: Mapping[str, Any], margin: float
) -> Change:
    """Rates that passed, ``low``, below rates that failed, ``high``; lower is worse."""
    before, after = a["low"], b["low"]
    if before is None or after is None:
        why = "no rate passed"
        verdict: ChangeVerdict = "cannot be told" if before is None else "worse"
        return Change(name, label, before, after, None, None, verdict, why, "per second")
    low = after / a["high"] - 1.0 if a["high"] else None
    high = b["high"] / before - 1.0 if b["high"] else None
    verdict, why = "same", ""
    if after < before / (1.0 + margin):
        verdict = "worse"
        if b["high"] is None or b["high"] >= before:
            verdict, why = "cannot be told", "the rates that failed are not below"
    elif before < after / (1.0 + margin):
        verdict = "better"
    return Change(name, label, before, after, low, high, verdict, why, "per second")

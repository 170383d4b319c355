"""Compares two results of the same plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.errors import PlanError, reason
from understudy.loadtest.gate.result import FORMAT

ChangeVerdict = Literal["better", "worse", "same", "cannot be told"]
_BOOTSTRAPS = 500


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a stage before and after; ``low`` and ``high`` bound the ratio (95 %, by a
    bootstrap of the latencies). Larger is worse."""

    stage: str
    figure: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    verdict: ChangeVerdict
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "stage": self.stage, "figure": self.figure, "before": self.before,
            "after": self.after, "low": self.low, "high": self.high, "said": self.verdict,
            "why": self.why,
        }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """Read the result of a gate from a JSON file. Raises PlanError."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: cannot be read: {reason(error)}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise PlanError(
            f"{path}: is not a gate result; write one: understudy gate … --json-file {path}"
        )
    return report


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], margin: float, seed: int = 0
) -> list[Change]:
    """Compare p50, p99, failures and capacity of the stages of two results. One run each does not
    show the variation between runs, so relative changes below ``margin`` count as the same."""
    old = {stage["name"]: stage for stage in before["stages"]}
    rng = np.random.default_rng(seed)
    changed: list[Change] = []
    for stage in after["stages"]:
        name = stage["name"]
        other = old.pop(name, None)
        if other is None:
            changed.append(
                Change(name, "stage", None, None, None, None, "cannot be told", "the stage is new")
            )
            continue
        if "histogram" in stage and "histogram" in other:
            a, b = (Histogram.from_dict(one["histogram"]) for one in (other, stage))
            changed += [_quantile(name, p, a, b, margin, rng) for p in (0.5, 0.99)]
            changed.append(_failures(name, other["load"], stage["load"]))
        if "capacity" in stage and "capacity" in other:
            changed.append(_capacity(name, other["capacity"], stage["capacity"], margin))
        if other["verdict"] == "passed" and stage["verdict"] not in ("passed", "shown"):
            why = "; ".join(stage["why"])
            changed.append(Change(name, "verdict", None, None, None, None, "worse", why))
    changed += [
        Change(name, "stage", None, None, None, None, "cannot be told", "the stage was removed")
        for name in old
    ]
    return changed


def _quantile(
    name: str, p: float, a: Histogram, b: Histogram, margin: float, rng: np.random.Generator
) -> Change:
    figure = f"p{100 * p:g}"
    if min(a.count, b.count) * (1.0 - p) < 10.0:
        why = "not enough requests"
        return Change(name, figure, a.quantile(p), b.quantile(p), None, None, "cannot be told", why)
    ratios = np.sort(_bootstrap_quantiles(b, p, rng) / _bootstrap_quantiles(a, p, rng))
    low, high = (float(np.quantile(ratios, q)) for q in (0.025, 0.975))
    verdict: ChangeVerdict = "same"
    if low > 1.0 + margin:
        verdict = "worse"
    elif high < 1.0 / (1.0 + margin):
        verdict = "better"
    elif high > 1.0 + margin:
        verdict = "cannot be told"
    return Change(name, figure, a.quantile(p), b.quantile(p), low, high, verdict)


def _bootstrap_quantiles(
    histogram: Histogram, p: float, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Quantiles of bootstrap samples: of n values the rank of the quantile is binomial."""
    n = histogram.count
    ranks = np.clip(rng.binomial(n, p, _BOOTSTRAPS), 1, n) / n
    return np.array([histogram.quantile(float(rank)) or 0.0 for rank in ranks])


def _failures(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Change:
    before, after = a["error_rate"] or 0.0, b["error_rate"] or 0.0
    # Two proportions by their standard errors, with one failure more in each.
    na, nb = max(a["requests"], 1), max(b["requests"], 1)
    pa, pb = (a["failed"] + 1) / (na + 2), (b["failed"] + 1) / (nb + 2)
    error = float(np.sqrt(pa * (1.0 - pa) / na + pb * (1.0 - pb) / nb))
    verdict: ChangeVerdict = (
        "worse" if pb - pa > 2.6 * error else "better" if pa - pb > 2.6 * error else "same"
    )
    return Change(name, "error rate", before, after, None, None, verdict)


def _capacity(name: str, a: Mapping[str, Any], b: Mapping[str, Any], margin: float) -> Change:
    before, after = a["low"], b["low"]
    if before is None or after is None:
        why = "a result has no capacity"
        return Change(name, "capacity", before, after, None, None, "cannot be told", why)
    verdict: ChangeVerdict = "same"
    if after < before / (1.0 + margin) and (b["high"] or np.inf) < before:
        verdict = "worse"
    elif before < after / (1.0 + margin):
        verdict = "better"
    return Change(name, "capacity", before, after, None, None, verdict)

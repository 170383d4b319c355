"""Which answers of a language model keep a limit: failures never do, and cancelled ones only count
where the limit had passed before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.engine.outcome import Floats, Outcome

_COLUMNS = {"ttft": "first_token", "tpot": "per_token", "e2e": "last_token"}
"""Columns of streams by the name of an objective."""
_SHOWN = {
    "ttfc": "first_chunk",
    "ttft": "first_token",
    "ttfo": "first_answer",
    "tpot": "per_token",
    "e2e": "last_token",
    "longest_gap": "longest_gap",
}
_QUANTILES = (0.5, 0.9, 0.95, 0.99)
Mask = NDArray[np.bool_]


def over(
    outcome: Outcome, name: str, limit: float, slack: float | None = None
) -> tuple[Mask, Mask]:
    """Which requests count for a limit of ``name`` in seconds, and which of all are over it,
    (n,) each.

    With ``slack``, times that begin when a request was due begin when it was sent instead, and are
    ``slack`` seconds shorter: what may be the generator's fault is not held against the target.
    """
    streams, column = outcome.streams, _COLUMNS[name]
    values = streams[column]
    if slack is not None and name != "tpot":
        values = values - (outcome.latency - outcome.service) - slack
    passed = values <= limit  # False where the time is missing (NaN)
    counted = np.ones(len(values), np.bool_)
    if name == "tpot":
        # An answer of one token has no time between tokens.
        counted &= ~((streams["output_tokens"] == 1.0) & outcome.ok)
    # A client that left before the limit cannot know whether it would have been kept.
    left = (streams["cancelled"] > 0.0) & np.isnan(values)
    early = left if name == "tpot" else left & (outcome.latency <= limit)
    return counted & ~early, ~passed | ~outcome.ok


def not_good(
    outcome: Outcome, limits: Mapping[str, float], slack: float | None = None
) -> tuple[Mask, Mask]:
    """As :func:`over`, for answers that do not keep all ``limits`` in seconds by name. One without
    a time that is needed does not."""
    counted = outcome.streams["cancelled"] == 0.0
    bad = ~outcome.ok
    for name, limit in limits.items():
        bad = bad | over(outcome, name, limit, slack)[1]
    return counted, bad


def value(outcome: Outcome, name: str, p: float) -> float | None:
    """The quantile ``p`` of the times of ``name`` in seconds, where a failure takes for ever; None
    if that is the quantile, or too few are known."""
    counted, _ = over(outcome, name, 0.0)
    times = np.where(outcome.ok, outcome.streams[_COLUMNS[name]], np.inf)[counted]
    times = np.sort(np.where(np.isnan(times), np.inf, times))
    if len(times) * (1.0 - p) < 1.0:
        return None
    found = float(times[max(1, int(np.ceil(p * len(times) - 1e-9))) - 1])
    return found if np.isfinite(found) else None


def missing(outcome: Outcome, name: str) -> str:
    """Why good answers have no time of ``name``, for the reason of a verdict; else an empty
    text."""
    streams = outcome.streams
    whole = outcome.ok & (streams["cancelled"] == 0.0)
    without = whole & np.isnan(streams[_COLUMNS[name]])
    if name == "tpot":
        without &= np.isnan(streams["output_tokens"])
    count = int(without.sum())
    if not count:
        return ""
    if name == "tpot":
        return f"{count:,} told no number of tokens: ask for stream_options.include_usage"
    return f"{count:,} had no output" + (
        ": send stream: true" if np.isnan(streams["first_chunk"][without]).all() else ""
    )


def summary(outcome: Outcome) -> dict[str, Any]:
    """As JSON, for the report: times in seconds of answers that did not fail, and tokens."""
    streams = outcome.streams
    result: dict[str, Any] = {}
    for name, column in _SHOWN.items():
        known = streams[column][outcome.ok]
        known = known[~np.isnan(known)]
        result[name] = _quantiles(known)
        if name in _COLUMNS:
            histogram = Histogram()
            histogram.add(known)
            result[name]["histogram"] = histogram.to_dict()
    gaps = {f"p{100 * p:g}": outcome.gaps.quantile(p) for p in _QUANTILES}
    result["inter_chunk"] = {**gaps, "count": outcome.gaps.count}
    for name in ("output_tokens", "prompt_tokens"):
        known = streams[name][outcome.ok]
        known = known[~np.isnan(known)]
        total = float(known.sum())
        result[name] = {
            "known": len(known),
            "mean": total / len(known) if len(known) else None,
            "per_second": total / outcome.seconds if outcome.seconds and len(known) else None,
        }
    result["cancelled"] = int((streams["cancelled"] > 0.0).sum())
    return result


def _quantiles(known: Floats) -> dict[str, Any]:
    found: dict[str, Any] = {"count": len(known)}
    for p in _QUANTILES:
        enough = len(known) * (1.0 - p) >= 1.0
        found[f"p{100 * p:g}"] = float(np.quantile(known, p, method="higher")) if enough else None
    return found | {"max": float(known.max()) if len(known) else None}

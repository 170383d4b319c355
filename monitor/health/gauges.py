"""Figures of what is watched that the history keeps over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from understudy.monitor.health.drift.summary import summary_of
from understudy.monitor.health.watches import Watches

NAMES = ("statistic", "spread", "location", "psi")
"""Of each series; ``statistic`` and ``spread`` alarm at 1."""
ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "estimated_accuracy")
"""Of each model: by the labels of the last window, its interval, and without labels."""


def gauges_of(watches: Watches) -> dict[tuple[str, str, str], float]:
    """The present values, by model (with its version where several are watched), series (empty for
    the model as a whole) and name."""
    keys = {*watches.watches, *watches.performance}
    versions = Counter(model for model, _ in keys)
    found: dict[tuple[str, str, str], float] = {}
    for model, version in sorted(keys):
        label = f"{model} {version}" if versions[model] > 1 else model
        watch = watches.watches.get((model, version))
        for series in summary_of(watch)["series"] if watch is not None else ():
            for name in NAMES:
                if series[name] is not None:
                    found[label, series["name"], name] = series[name]
        performance = watches.performance.get((model, version))
        if performance is not None:
            for name, value in _accuracy(performance.summary()):
                found[label, "", name] = value
    return found


def _accuracy(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    realised = summary["window_intervals"].get("accuracy") or {}
    estimate = summary["estimate"] or {}
    values = (
        summary["window"].get("accuracy"),
        realised.get("low"),
        realised.get("high"),
        estimate.get("value"),
    )
    for name, value in zip(ACCURACY, values, strict=True):
        if isinstance(value, float):
            yield name, value

"""The state of a model's performance as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from understudy.monitor.health.performance.retrain import Point
from understudy.shadow.sequential import BernoulliInterval

if TYPE_CHECKING:
    from understudy.monitor.health.performance.watch import PerformanceWatch


def dump_state(watch: PerformanceWatch) -> dict[str, Any]:
    """Of a watch in which nothing waits."""
    return {
        "predictions": watch.predictions,
        "labels": watch.labels,
        "expected": watch.expected.to_dict() if watch.expected is not None else None,
        "realised": watch.realised.to_dict(),
        "calibration": watch.calibration.to_dict() if watch.calibration is not None else None,
        "slices": watch.slices.to_dict() if watch.slices is not None else None,
        "latches": watch.latches.to_dict(),
        "history": watch.history.to_dict(),
        "whole": watch.whole.to_dict(),
        "window": watch.window.to_dict(),
        "last": watch.last.to_dict() if watch.last is not None else None,
        "interval": watch.interval.to_dict(),
        "windows": [[p.at, p.value, p.error] for p in watch.windows],
        "unlabelled": watch.unlabelled.to_dict() if watch.unlabelled is not None else None,
        "began": watch.began,
        "delays": watch.delays.to_dict(),
        "segments": watch.declared.to_dict(),
    }


def load_state(watch: PerformanceWatch, state: Mapping[str, Any]) -> None:
    """Take over a saved state. Raises KeyError, TypeError or ValueError for another shape."""
    if (watch.expected is None) != (state["expected"] is None):
        raise ValueError("scores are judged in one and not in the other")
    if watch.expected is not None:
        watch.expected.restore(state["expected"])
    watch.realised.restore(state["realised"])
    if watch.calibration is not None and state["calibration"] is not None:
        watch.calibration.restore(state["calibration"])
    if watch.slices is not None:
        watch.slices.restore(state["slices"])
    watch.latches.restore(state["latches"])
    watch.history.restore(state["history"])
    watch.whole.restore(state["whole"])
    watch.window.restore(state["window"])
    if state["last"] is not None:
        watch.last = watch.tally()
        watch.last.restore(state["last"])
    watch.interval = BernoulliInterval.from_dict(state["interval"])
    watch.windows = [Point(*map(float, point)) for point in state["windows"]]
    if watch.unlabelled is not None:
        watch.unlabelled.restore(state["unlabelled"])
    watch.began = float(state["began"])
    watch.delays.restore(state["delays"])
    watch.declared.restore(state["segments"])
    watch.predictions = int(state["predictions"])
    watch.labels = int(state["labels"])

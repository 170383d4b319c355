"""The state of a model's watch as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.monitor.detectors import packed

if TYPE_CHECKING:
    from understudy.monitor.health.drift.watch import ModelWatch


def dump_state(watch: ModelWatch) -> dict[str, Any]:
    """Of a watch in which nothing waits."""
    return {
        "rows": watch.rows,
        "newest": watch.newest,
        "longest_gap": watch.longest_gap,
        "cusum": watch.cusum.to_dict(),
        "rates": watch.rates.to_dict(),
        "history": watch.history.to_dict(),
        "shifts": watch.shifts.to_dict(),
        "broken": watch.broken.to_dict(),
        "runs": watch.runs.to_dict(),
        "window": watch.window.to_dict(),
        "categories": watch.categories.to_dict(),
        "together": watch.together.to_dict() if watch.together is not None else None,
        "detectors": [detector.to_dict() for _, detector in watch.corroborators],
        "segments": watch.segments.to_dict(),
        # Where all digits are kept, who goes on elsewhere goes on as if nothing had happened.
        "repeats": watch.quality.repeats.to_dict() if packed.exact() else None,
        "unread": list(watch.quality.unread),
        "began": [[place, at] for place, at in watch.began.items()],
        "added": watch.quality.added,
        "violations": watch.violations.tolist(),
        "rising": [None if np.isnan(t) else round(t, 3) for t in watch.rising.tolist()],
    }


def load_state(watch: ModelWatch, state: Mapping[str, Any]) -> None:
    """Take over a saved state. Raises KeyError, TypeError or ValueError for another shape."""
    watch.cusum.restore(state["cusum"])
    watch.rates.restore(state["rates"])
    watch.history.restore(state["history"])
    rising = [np.nan if t is None else t for t in state["rising"]]
    watch.rising = np.array(rising, np.float64).reshape(len(watch.rules))
    watch.shifts.restore(state["shifts"])
    watch.broken.restore(state["broken"])
    watch.runs.restore(state["runs"])
    watch.window.restore(state["window"])
    watch.categories.restore(state.get("categories", {}))
    watch.segments.restore(state["segments"])
    if watch.together is not None:
        watch.together.restore(state["together"])
    for (_, detector), data in zip(watch.corroborators, state["detectors"], strict=True):
        detector.restore(data)
    if state.get("repeats") is not None:
        watch.quality.repeats.restore(state["repeats"])
    watch.quality.unread = [float(one) for one in state.get("unread", ())]
    watch.violations = np.array(state["violations"], np.int64).reshape(len(watch.rules))
    watch.began = {int(place): float(at) for place, at in state["began"]}
    watch.rows = int(state["rows"])
    watch.newest = float(state["newest"])
    watch.longest_gap = float(state["longest_gap"])
    watch.quality.added = {str(name): int(count) for name, count in state["added"].items()}

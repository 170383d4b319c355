"""The course of the evidence over time, in at most a few hundred points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from understudy.monitor.experiments.limits import limits_now
from understudy.shadow.experiment.challenger import Evidence
from understudy.shadow.state import Count, Saved, Stateful

MOST = 240


class Timeline(Stateful):
    """Points in order of time; when there are too many, every second one is dropped."""

    points: Saved[list[dict[str, Any]]]
    _every: Saved[Count]
    _skipped: Saved[Count]

    def __init__(self) -> None:
        self.points = []
        self._every = 1
        self._skipped = 0

    def add(self, point: dict[str, Any]) -> None:
        """Add the newest point; it replaces the last one until the spacing is reached."""
        if self._skipped and self.points:
            self.points[-1] = point
        else:
            self.points.append(point)
        self._skipped = (self._skipped + 1) % self._every
        if len(self.points) >= MOST:
            self.points = [*self.points[:-1:2], self.points[-1]]
            self._every *= 2


def point_of(at: float, mode: str, requests: int, evidence: Sequence[Evidence]) -> dict[str, Any]:
    """A point of the timeline: the evidence at the unix time ``at``, and what it was held
    against."""
    return {
        "at": round(at, 3),
        "mode": mode,
        "requests": requests,
        "metrics": {
            item.name: {
                **{key: of_item[key] for key in ("champion", "challenger", "difference", "status")},
                "log_e": round(item.log_pass, 4),
                "log_e_harm": round(item.log_harm, 4),
                **{key: _rounded(value) for key, value in limits_now(item).items()},
            }
            for item, of_item in zip(evidence, (one.to_dict() for one in evidence), strict=True)
        },
    }


def _rounded(value: float | None) -> float | None:
    """Points are many, and saved every few seconds."""
    return None if value is None else float(f"{value:.6g}")

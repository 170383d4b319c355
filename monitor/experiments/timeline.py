"""The course of the evidence over time, in at most a few hundred points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def point_of(
    at: float, mode: str, requests: int, evidence: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A point of the timeline: the evidence at the unix time ``at``."""
    return {
        "at": round(at, 3),
        "mode": mode,
        "requests": requests,
        "metrics": {
            item["metric"]: {
                "champion": item["champion"],
                "challenger": item["challenger"],
                "difference": item["difference"],
                "log_e": round(item["log_e"], 4),
                "log_e_harm": round(item["log_e_harm"], 4),
                "status": item["status"],
            }
            for item in evidence
        },
    }

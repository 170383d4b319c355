"""The course of the evidence over time, in at most a few hundred points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 240


class Timeline:
    """Points in order of time; when there are too many, every second one is dropped."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
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

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"points": self.points, "every": self._every, "skipped": self._skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`to_dict`."""
        self.points = list(state["points"])
        self._every = int(state["every"])
        self._skipped = int(state.get("skipped", 0))


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

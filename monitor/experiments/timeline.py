"""How the evidence came to be, in at most a few hundred points, however long it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 240


class Timeline:
    """Points in order of time; when there are too many, every second one goes."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
        self._every = 1
        self._skipped = 0

    def add(self, point: dict[str, Any]) -> None:
        """Add the newest point. It replaces the last one until that is worth keeping."""
        if self._skipped and self.points:
            self.points[-1] = point
        else:
            self.points.append(point)
        self._skipped = (self._skipped + 1) % self._every
        if len(self.points) >= MOST:
            self.points = [*self.points[:-1:2], self.points[-1]]
            self._every *= 2

    def dump_state(self) -> dict[str, Any]:
        """As JSON."""
        return {"points": self.points, "every": self._every, "skipped": self._skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo :meth:`dump_state`."""
        self.points = list(state["points"])
        self._every = int(state["every"])
        self._skipped = int(state.get("skipped", 0))


def point_of(
    at: float, mode: str, requests: int, evidence: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What a plot needs of the evidence at one moment; ``at`` is unix time."""
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

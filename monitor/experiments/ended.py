"""The final reports of experiments that were removed: one file in the state folder.

A report is what the API showed of the experiment last: the document, and the course of the evidence
in fewer points. Single records, such as the worst disagreements, are not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from understudy.common.durable import read_document, replace_document, set_aside
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.summary import document, limits_of

log = logging.getLogger(__name__)

FILE_NAME = "ended.json"
MOST = 50
"""Reports that are kept; the oldest are dropped first."""
MOST_BYTES = 1 << 20
"""Size of all reports together."""
_POINTS = 60
_SHOWN = ("name", "decision", "outcome", "tone", "phase", "weight", "traffic")
_VERSION = 1


def final_report(live: LiveExperiment, now: float, who: str, why: str) -> dict[str, Any]:
    """The last report of an experiment that ``who`` removed at unix time ``now``."""
    return {
        "ended": {"at": now, "who": who, "why": why},
        "document": document(live, now),
        "timelines": {
            name: _thinned(contestant.timeline.points)
            for name, contestant in live.contestants.items()
        },
        "plots": limits_of(live),
    }


def _thinned(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    step = -(-len(points) // _POINTS) or 1
    return [*points[:-1:step], *points[-1:]]


class EndedReports:
    """The reports, oldest first. A file that cannot be read is set aside."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self.reports: list[dict[str, Any]] = []
        try:
            data = orjson.loads(read_document(self._path))
            if data["version"] != _VERSION:
                raise ValueError(f"unknown version {data['version']!r}")
            self.reports = [_checked(one) for one in data["reports"]]
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever the file holds
            aside = set_aside(self._path)
            log.error("%s: cannot be used: %r; it is kept as %s", self._path, error, aside)

    def add(self, report: dict[str, Any]) -> None:
        """Keep one more report; :meth:`save` makes it durable."""
        self.reports = [*self.reports, report][-MOST:]

    def save(self) -> None:
        """Write the file, without the oldest reports if all would be too large. Raises OSError."""
        kept: list[bytes] = []
        size = 0
        for report in reversed(self.reports):
            text = orjson.dumps(report)
            size += len(text)
            if kept and size > MOST_BYTES:
                break
            kept.insert(0, text)
        self.reports = self.reports[-len(kept) :] if kept else []
        document = b'{"version":%d,"reports":[%b]}' % (_VERSION, b",".join(kept))
        replace_document(self._path, document)

    def find(self, name: str) -> dict[str, Any] | None:
        """The latest report of that name."""
        found = (one for one in reversed(self.reports) if one["document"]["name"] == name)
        return next(found, None)

    def summaries(self) -> list[dict[str, Any]]:
        """For lists, the latest first."""
        return [
            {
                "name": report["document"]["name"],
                "mode": report["document"]["mode"],
                "started": report["document"]["started"],
                "ended": report["ended"],
                "challengers": [
                    {key: one[key] for key in _SHOWN} for one in report["document"]["challengers"]
                ],
            }
            for report in reversed(self.reports)
        ]


def _checked(report: Mapping[str, Any]) -> dict[str, Any]:
    """Raises KeyError or TypeError for what is not a report."""
    whole = report["document"]
    for one in whole["challengers"]:
        one["metrics"], *(one[key] for key in _SHOWN)
    whole["name"], whole["mode"], whole["started"], report["timelines"], report["plots"]
    report["ended"]["at"], report["ended"]["who"], report["ended"]["why"]
    return dict(report)

"""Detectors that people know, on series that they name: they corroborate.

Control charts take means of rows; river's detectors take rows one by one, some of them slowly. The
alarm with the stated run length stays that of the CUSUMs and e-detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.detectors import Detector, ErrorDetector
from understudy.monitor.config.extensions import DETECTORS, implementation
from understudy.monitor.detectors.autocorrelation import BatchMeans
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.errors import MissingExtraError
from understudy.monitor.findings.finding import Signal
from understudy.shadow.state import Config, Count, Saved, Stateful

Floats = NDArray[np.float64]
POINT = 50
"""Rows of a point of a control chart."""
SHOWN = 5_000
"""Rows for which an alarm is shown."""


class _Detects(Protocol):
    def update(self, x: Floats, /) -> Evidence: ...
    def reset(self, series: NDArray[np.bool_], /) -> None: ...
    def dump_state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any], /) -> None: ...


class Corroborator(Stateful):
    """One declared detector of a ``series`` of values that are standard in the baseline, whose mean
    rests on ``baseline_rows``. Raises ValueError for options that cannot be, and MissingExtraError
    where river is not installed."""

    kind: Config[str]
    series: Config[str]
    alarms: Saved[Count]
    at: Saved[int]
    """Number of the row with which it last alarmed; -1: never."""
    time: Saved[float]
    direction: Saved[int]
    _rows: Saved[Count]
    _points: Saved[BatchMeans | None]
    _detector: Saved[_Detects]

    def __init__(self, declared: ErrorDetector, series: str, baseline_rows: float) -> None:
        self.kind = declared.kind
        self.series = series
        self.alarms = 0
        self.at = -1
        self.time = 0.0
        self.direction = 0
        self._rows = 0
        self._points = BatchMeans([POINT], [1.0]) if DETECTORS[self.kind].points else None
        self._detector = _detector(declared, baseline_rows)

    @property
    def name(self) -> str:
        """For people and machines."""
        return f"{self.kind} of {self.series}"

    @property
    def alarmed(self) -> bool:
        """Whether it has alarmed within the last rows."""
        return self.at >= 0 and self._rows - self.at < SHOWN

    def update(self, values: Floats, times: Floats) -> None:
        """Values (n,) with their unix times (n,); NaN says nothing."""
        rows = len(values)
        column = values[:, None]
        if self._points is not None:
            column = self._points.update(column)
        if len(column):
            evidence = self._detector.update(column)
            place = int(evidence.crossed[0])
            if place >= 0:
                row = rows - 1 if self._points is not None else place
                self.alarms += 1
                self.at, self.time = self._rows + row, float(times[row])
                self.direction = int(evidence.direction[0])
                self._detector.reset(np.ones(1, np.bool_))
        self._rows += rows

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "series": self.series,
            "kind": self.kind,
            "alarms": self.alarms,
            "alarmed": self.alarmed,
            "last": self.time or None,
        }


def corroborators_of(
    declared: Sequence[Detector], series: Sequence[str], rows: Floats
) -> tuple[list[tuple[int, Corroborator]], list[str]]:
    """Of the ``series`` that are named, with the place of each; and why others do not run. ``rows``
    (S, or more) is what their baseline rests on."""
    corroborators: list[tuple[int, Corroborator]] = []
    errors: list[str] = []
    for one in declared:
        if one.series not in series:
            errors.append(f"{one.kind}: the baseline has no series {one.series!r}")
            continue
        place = series.index(one.series)
        try:
            corroborators.append((place, Corroborator(one, one.series, float(rows[place]))))
        except (ValueError, MissingExtraError) as error:
            errors.append(str(error))
    return corroborators, errors


def corroborations(
    detectors: Sequence[Corroborator], kind: str, model: str, version: str
) -> list[Signal]:
    """What those that have alarmed of late have to say."""
    return [
        Signal(
            key=f"{kind}/{model}/{version}//detector/{one.name}",
            kind=kind,
            model=model,
            version=version,
            segment="",
            severity="info",
            title=f"{one.series}: {one.kind} detected a change"
            + {1: " upwards", -1: " downwards"}.get(one.direction, ""),
            since=one.time,
            rule=one.kind,
            guarantee="none: it uses its own settings and corroborates other findings",
            advice="Compare with other findings of this model at the same time.",
        )
        for one in detectors
        if one.alarmed
    ]


def _detector(declared: ErrorDetector, baseline_rows: float) -> _Detects:
    make = implementation(DETECTORS[declared.kind].code)
    try:
        detector: _Detects = make(declared.kind, declared.options, baseline_rows / POINT)
        return detector
    except TypeError as error:
        raise ValueError(f"{declared.kind}: {error}") from error

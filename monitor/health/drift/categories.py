"""Categorical columns of a model: whether their categories come in the shares they used to.

Ranks say little of categories: one that doubles at the expense of all others moves no location.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Encoder
from understudy.monitor.baseline.model import CategoryProfile
from understudy.monitor.detectors.composition import Composition
from understudy.monitor.detectors.packed import PackedMask, PackedWhole
from understudy.monitor.health.drift.window import GROUPS, Window
from understudy.monitor.health.examples import add
from understudy.shadow.state import Config, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_AT_LEAST = 3
"""Categories; the location of two says everything about them."""
_HOLD = 512
_TWO_SIDED_95 = 1.959963984540054


def of_categories(encoder: Encoder) -> NDArray[np.bool_]:
    """Which series are watched here, (S,)."""
    return np.array(
        [
            isinstance(profile, CategoryProfile) and np.count_nonzero(counts) >= _AT_LEAST
            for profile, counts in zip(encoder.profiles, encoder.counts, strict=True)
        ],
        np.bool_,
    )


@dataclass(frozen=True, slots=True)
class Shifted:
    """A series whose shares have changed: ``label`` is the category that is off the most, with its
    share ``before`` and ``now``, of so many ``rows``."""

    series: int
    label: str
    before: float
    now: float
    rows: float
    since: float | None
    weight: float
    examples: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share now, 95 % (Wilson 1927)."""
        z2 = _TWO_SIDED_95**2 / max(self.rows, 1.0)
        middle = (self.now + z2 / 2.0) / (1.0 + z2)
        spread = self.now * (1.0 - self.now) / max(self.rows, 1.0) + z2 / (4.0 * self.rows + 1e-9)
        half = _TWO_SIDED_95 / (1.0 + z2) * float(np.sqrt(spread))
        return max(0.0, middle - half), min(1.0, middle + half)


class Categories(Stateful):
    """``run_length`` (S,) of each series in rows, and ``inflated`` (S,), as those of its charts;
    those of the series that are watched here are used."""

    places: Config[NDArray[np.intp]]
    """Numbers of the series."""
    _groups: Config[NDArray[np.int64]]
    _labels: Config[list[list[str]]]
    _rows_of: Config[NDArray[np.intp]]
    detector: Saved[Composition]
    alarmed: Saved[PackedMask]
    _since: Saved[PackedWhole]
    _began: Saved[dict[int, float]]
    _examples: Transient[dict[int, list[str]]]

    def __init__(
        self, encoder: Encoder, window: Window, run_length: Floats, inflated: Floats
    ) -> None:
        self.places = np.flatnonzero(of_categories(encoder))
        self._groups = window.groups[self.places]
        self._labels = [window.labels[place] for place in self.places.tolist()]
        self._rows_of = np.arange(len(self.places))[None, :]
        self.detector = Composition(
            window.baseline[self.places], run_length[self.places], inflated[self.places]
        )
        self.alarmed = np.zeros(len(self.places), np.bool_)
        self._since = np.zeros(len(self.places), np.int64)
        self._began = {}
        self._examples = {}

    def update(self, codes: NDArray[np.int64], times: Floats, ids: Sequence[bytes]) -> None:
        """Codes (n, S) of the rows of a batch, with their unix times and request ids."""
        if not len(self.places):
            return
        groups = self._groups[self._rows_of, codes[:, self.places]]
        evidence = self.detector.update(groups, times)
        self._since[self.alarmed] += len(groups)
        fresh = evidence.alarms & ~self.alarmed
        for number in np.flatnonzero(fresh).tolist():
            began = self.detector.began(number)
            if began is not None:
                self._began[number] = began
        self.alarmed |= fresh
        self._since[fresh] = 0
        if not self.alarmed.any():
            return
        for number in np.flatnonzero(self.alarmed).tolist():
            grown = int(np.argmax(self._off(number)))
            rows = np.flatnonzero(groups[:, number] == grown)
            if len(rows):
                add(self._examples.setdefault(number, []), ids[int(rows[-1])])
        self._let_go()

    def _off(self, number: int) -> Floats:
        found: Floats = self.detector.now(number)[0] - self.detector.shares[number]
        return found

    def _let_go(self) -> None:
        opened = self.alarmed & (self._since >= _HOLD) & self.detector.usual()
        if opened.any():
            self.alarmed &= ~opened
            self.detector.reset(opened)
            for number in np.flatnonzero(opened).tolist():
                self._began.pop(number, None)
                self._examples.pop(number, None)

    @property
    def statistic(self) -> Floats:
        """Of each series that is watched here; it alarms at 1."""
        evidence = self.detector.evidence()
        with np.errstate(invalid="ignore"):
            found: Floats = np.maximum(evidence.statistic / evidence.threshold, 0.0)
        return found

    def shifted(self) -> list[Shifted]:
        """Those that have alarmed and have not recovered."""
        found = []
        for number in np.flatnonzero(self.alarmed).tolist():
            off = self._off(number)
            group = int(np.argmax(np.abs(off)))
            labels = self._labels[number]
            shares, rows = self.detector.now(number)
            found.append(
                Shifted(
                    int(self.places[number]),
                    labels[group] if group < len(labels) and group < GROUPS - 1 else "other",
                    float(self.detector.shares[number, group]),
                    float(shares[group]),
                    rows,
                    self._began.get(number),
                    self.detector.weight(number),
                    tuple(reversed(self._examples.get(number, ()))),
                )
            )
        return found

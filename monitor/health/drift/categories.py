"""Drift of the shares of categories.

Ranks detect little in categories: one that doubles at the expense of all others moves no location.
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
from understudy.monitor.health.drift.window import Window
from understudy.monitor.health.examples import add
from understudy.shadow.state import Config, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_AT_LEAST = 3
"""Fewest categories; with two, the location alone describes the shares."""
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
    """A series whose shares have changed: ``group`` is the group of categories that changed most,
    with its share ``before`` and ``now``, from ``rows`` rows."""

    series: int
    group: int
    before: float
    now: float
    rows: float
    since: float | None
    weight: float
    examples: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share ``now`` (Wilson 1927)."""
        z2 = _TWO_SIDED_95**2 / max(self.rows, 1.0)
        middle = (self.now + z2 / 2.0) / (1.0 + z2)
        spread = self.now * (1.0 - self.now) / max(self.rows, 1.0) + z2 / (4.0 * self.rows + 1e-9)
        half = _TWO_SIDED_95 / (1.0 + z2) * float(np.sqrt(spread))
        return max(0.0, middle - half), min(1.0, middle + half)


class Categories(Stateful):
    """Tests the categorical series. ``run_length`` (S,) in rows and ``inflated`` (S,) are those of
    the charts of all series."""

    indices: Config[NDArray[np.intp]]
    """Numbers of the series."""
    _groups: Config[NDArray[np.int64]]
    _rows_of: Config[NDArray[np.intp]]
    detector: Saved[Composition]
    alarmed: Saved[PackedMask]
    _since: Saved[PackedWhole]
    _began: Saved[dict[int, float]]
    _examples: Transient[dict[int, list[str]]]

    def __init__(
        self, encoder: Encoder, window: Window, run_length: Floats, inflated: Floats
    ) -> None:
        self.indices = np.flatnonzero(of_categories(encoder))
        self._groups = window.groups[self.indices]
        self._rows_of = np.arange(len(self.indices))[None, :]
        self.detector = Composition(
            window.baseline[self.indices], run_length[self.indices], inflated[self.indices]
        )
        self.alarmed = np.zeros(len(self.indices), np.bool_)
        self._since = np.zeros(len(self.indices), np.int64)
        self._began = {}
        self._examples = {}

    def update(self, codes: NDArray[np.int64], times: Floats, ids: Sequence[bytes]) -> None:
        """Codes (n, S) of the rows of a batch, with their unix times and request ids."""
        if not len(self.indices):
            return
        groups = self._groups[self._rows_of, codes[:, self.indices]]
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

    def widen(self, inflation: Floats) -> None:
        """``inflation`` (S,) of all series, for rows that depend on each other more than it seemed
        at first."""
        self.detector.widen(inflation[self.indices])

    def _off(self, number: int) -> Floats:
        result: Floats = self.detector.now(number)[0] - self.detector.shares[number]
        return result

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
        """Score of each categorical series; it alarms at 1."""
        evidence = self.detector.evidence()
        with np.errstate(invalid="ignore"):
            result: Floats = np.maximum(evidence.statistic / evidence.threshold, 0.0)
        return result

    def shifted(self) -> list[Shifted]:
        """Series that have alarmed and have not recovered."""
        result = []
        for number in np.flatnonzero(self.alarmed).tolist():
            off = self._off(number)
            group = int(np.argmax(np.abs(off)))
            shares, rows = self.detector.now(number)
            result.append(
                Shifted(
                    int(self.indices[number]),
                    group,
                    float(self.detector.shares[number, group]),
                    float(shares[group]),
                    rows,
                    self._began.get(number),
                    self.detector.weight(number),
                    tuple(reversed(self._examples.get(number, ()))),
                )
            )
        return result

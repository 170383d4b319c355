"""The worst slices among recent labelled predictions, searched for periodically.

The buckets of features are learned from a thousand labels; from then on rows are stored as codes,
and the search (:mod:`understudy.monitor.health.performance.slices`) runs after every thousand. The
slices are shown and raise no alarm: the error rate is guaranteed for one search, not for all of
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.calibration.codes import FeatureCodes
from understudy.monitor.evidence.pending import PREFIX
from understudy.monitor.health.performance.slices import Slice, worst_slices
from understudy.shadow.state import Count, Saved, Stateful, Transient

Floats = NDArray[np.float64]
ROWS = 10_000
"""Most labelled rows that are searched."""
STEP = 1_000


class WorstSlices(Stateful):
    """Takes labelled rows that were stored with their features. The slices that were found are
    saved, the rows are not."""

    found: Saved[list[dict[str, Any]]]
    labels: Saved[Count]
    _features: Transient[FeatureCodes | None]
    _first: Transient[list[tuple[Mapping[str, object], float]]]
    _codes: Transient[NDArray[np.uint8]]
    _wrong: Transient[Floats]
    _since: Transient[int]

    def __init__(self) -> None:
        self.found = []
        self.labels = 0
        self._features = None
        self._first = []
        self._codes = np.zeros((0, 0), np.uint8)
        self._wrong = np.zeros(0)
        self._since = 0

    def add(self, rows: Sequence[Mapping[str, object]], wrong: Floats) -> None:
        """Add labelled rows: their stored outputs, and whether each (n,) was wrong."""
        self.labels += len(rows)
        if self._features is None:
            self._first += list(zip(rows, wrong.tolist(), strict=True))
            if len(self._first) < STEP:
                return
            rows = [row for row, _ in self._first]
            wrong = np.array([bad for _, bad in self._first])
            self._first = []
            names = [n[len(PREFIX) :] for n in rows[0] if n.startswith(PREFIX)]
            self._features = FeatureCodes.learn(_columns(rows, names))
            self._codes = np.zeros((0, len(names)), np.uint8)
        names = [feature.name for feature in self._features.features]
        codes = self._features.encode(_columns(rows, names), len(rows))
        self._codes = np.concatenate([self._codes, codes])[-ROWS:]
        self._wrong = np.concatenate([self._wrong, wrong])[-ROWS:]
        self._since += len(rows)
        if self._since >= STEP:
            self._since = 0
            # Seeded by the number of labels, so that a replay uses the same halves.
            rng = np.random.default_rng(self.labels)
            slices = worst_slices(self._codes, self._wrong, self._features, rng)
            self.found = [_shown(one) for one in slices[:10]]


def _columns(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> dict[str, list[object]]:
    return {name: [row.get(PREFIX + name) for row in rows] for name in names}


def _shown(one: Slice) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in one.document().items()}

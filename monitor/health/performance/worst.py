"""The worst slices among the labelled predictions of late, looked for once in a while.

A thousand labels teach the features' buckets; from then on rows are kept as small codes, and the
search (:mod:`understudy.monitor.health.performance.slices`) runs again after every thousand. What
it finds is shown, and raises no alarm: its error rate holds for one look, not for all looks ever.
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
"""Labelled rows among which slices are looked for, at the most."""
STEP = 1_000


class WorstSlices(Stateful):
    """Takes labelled rows whose features were kept with them. Rows are not part of a saved state,
    the slices that were found are."""

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
        """The outputs of labelled predictions as they were kept, and whether each was wrong."""
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
            # By the number of labels, so that a replay looks at the same halves.
            rng = np.random.default_rng(self.labels)
            found = worst_slices(self._codes, self._wrong, self._features, rng)
            self.found = [_shown(one) for one in found[:10]]


def _columns(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> dict[str, list[object]]:
    return {name: [row.get(PREFIX + name) for row in rows] for name in names}


def _shown(one: Slice) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in one.document().items()}

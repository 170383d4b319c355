"""Refines the means of a small baseline with live rows that agree with it.

A mean that was estimated from n rows is off by N(0, 1/n) standard deviations. Against a chart that
error is a small shift that lasts for ever, so thresholds would have to allow for it, and every real
shift is found later. Each row is therefore taken relative to the mean of the baseline's rows *and*
the live ones before it; such values are independent under the null, as those of self-starting
charts are (Hawkins 1987), so that nothing has to be allowed for.

What must not happen is that a drift becomes the new normal. The mean moves no further than the
error that the baseline's own rows make plausible, it is left as it is while a chart has alarmed,
and nothing is learned once the baseline is as good as :data:`ENOUGH` rows make it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.packed import Packed
from understudy.shadow.state import Config, Derived, Saved, Stateful

Floats = NDArray[np.float64]
ENOUGH = 40_000.0
"""Rows, of the baseline and live ones together."""
_PLAUSIBLE = 3.0
"""Standard errors of the baseline's mean by which it may be moved."""
_PIECE = 32.0
"""A mean is used for this share of the rows behind it, and then computed again."""


class Refinement(Stateful):
    """Of S series that are standard under a baseline of ``rows`` (S,), infinite where it is known;
    ``inflation`` (S,) is the variance of long sums over that of independent rows."""

    _of_baseline: Config[Floats]
    _most: Config[Floats]
    _counts: Saved[Packed]
    _sums: Saved[Packed]
    _open: Derived[Floats]
    mean: Derived[Floats]
    """What is subtracted of each series."""
    _scale: Derived[Floats]
    _piece: Derived[int]

    def __init__(self, rows: Floats, inflation: Floats) -> None:
        self._of_baseline = rows
        self._most = _PLAUSIBLE * np.sqrt(inflation / np.maximum(rows, 1.0))
        self._counts = np.zeros(len(rows))
        self._sums = np.zeros(len(rows))
        self._refresh()

    def _restored(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        rows = self._of_baseline + self._counts
        open_ = rows < ENOUGH
        self._open = open_.astype(np.float64)
        with np.errstate(invalid="ignore"):
            result = np.where(self._counts > 0.0, self._sums / rows, 0.0)
        self.mean = np.clip(result, -self._most, self._most)
        self._scale = np.where(open_, np.sqrt(rows / (rows + 1.0)), 1.0)
        self._piece = max(1, int(rows.min() / _PIECE)) if open_.any() else 0

    def update(self, z: Floats, quiet: NDArray[np.bool_]) -> Floats:
        """Rows (n, S) relative to what is known before them; they are learned from where ``quiet``
        (S,). NaN and infinities say nothing."""
        result = np.empty_like(z)
        start = 0
        while start < len(z):
            stop = start + (self._piece or len(z))
            part = z[start:stop]
            np.subtract(part, self.mean, out=result[start:stop])
            if self._piece:
                result[start:stop] *= self._scale
                self._learn(part, quiet)
            start = stop
        return result

    def _learn(self, part: Floats, quiet: NDArray[np.bool_]) -> None:
        sums = part.sum(axis=0)
        weight = self._open * quiet
        if np.isfinite(sums).all():
            self._counts += len(part) * weight
        else:
            here = np.isfinite(part)
            sums = np.where(here, part, 0.0).sum(axis=0)
            self._counts += here.sum(axis=0) * weight
        self._sums += sums * weight
        self._refresh()

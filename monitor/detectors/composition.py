"""Whether categories still come in the shares they used to: an e-detector of any change of them.

Each row has the e-value q(x) / p(x), with p the baseline's shares and q what the rows before it
look like: a plug-in of the unknown alternative that never looks ahead, so that its mean is 1 under
the null (Robbins & Siegmund 1974; Ramdas, Grunwald, Vovk & Shafer 2023). q is averaged over several
spans of rows, the long ones for small changes and the short ones for large ones, and their mixture
runs by the Shiryaev-Roberts recursion (Shin, Ramdas & Rinaldo, arXiv:2203.03532).

The shares of the baseline are estimates. The mean of an e-value of the true shares against them
is 1 + X / n, with X chi-squared and n the baseline's rows; the 95 % point of X / n is taken off
the log of each, so that the mean is at most 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import chdtri
from understudy.monitor.detectors.edetector import log_sum, shiryaev_roberts
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import Packed, Times
from understudy.shadow.state import Config, Derived, Saved, Stateful

Floats = NDArray[np.float64]
SPANS = (256.0, 1024.0, 4096.0)
"""Rows over which the newest shares are averaged, with exponentially falling weights."""
_AT_ONCE = 64
"""Rows for which what the rows before them look like is worked out once."""
_PSEUDO = 0.5
_DRAWN = 2.0
"""Rows of the baseline for each category, among those of a span: what it looks like at first."""
_LEVEL = 0.05
_USUAL = 0.1


class Composition(Stateful):
    """C series of categories in at most G groups each: ``counts`` (C, G) of the baseline;
    ``run_length`` in rows and ``inflation`` (the variance of long sums over that of independent
    rows) are numbers or (C,). Codes of groups are 0 … G - 1; G is a value that is not there."""

    series: Config[int]
    groups: Config[int]
    shares: Config[Floats]
    log_threshold: Config[Floats]
    _kinds: Config[Floats]
    _held: Config[NDArray[np.bool_]]
    _rows: Config[Floats]
    _margin: Config[Floats]
    _inflation: Config[Floats]
    _offsets: Config[NDArray[np.intp]]
    _newest: Saved[Packed]
    _log_m: Saved[Packed]
    _height: Saved[Packed]
    """Of a CUSUM of the same, for the moment of the change alone."""
    since: Saved[Times]
    """When (unix time) that CUSUM was last at 0."""
    _table: Derived[Floats]

    def __init__(
        self, counts: Floats, run_length: float | Floats, inflation: float | Floats = 1.0
    ) -> None:
        self.series, self.groups = counts.shape
        used = np.maximum((counts > 0.0).sum(axis=1), 1)
        # One more than was seen, for what was not.
        indices = np.arange(self.groups)[None, :] <= used[:, None]
        held = indices | (counts > 0.0)
        rows = counts.sum(axis=1)
        self._kinds = np.minimum(used + 1, self.groups).astype(np.float64)
        self._held = held
        lifted = np.where(held, counts + _PSEUDO, 0.0)
        self.shares = lifted / lifted.sum(axis=1, keepdims=True)
        self._rows = np.maximum(rows, 1.0)
        beyond = chdtri(np.maximum(self._kinds - 1.0, 1.0), _LEVEL)
        self._margin = beyond / self._rows
        lengths = np.broadcast_to(np.asarray(run_length, np.float64), (self.series,))
        self.log_threshold = np.log(lengths)
        shape = (self.series, len(SPANS))
        self._inflation = np.maximum(
            np.broadcast_to(np.asarray(inflation, np.float64), (self.series,)), 1.0
        )
        self._newest = np.zeros((*shape, self.groups))
        self._log_m = np.full(shape, -np.inf)
        self._height = np.zeros(shape)
        self.since = np.full(shape, np.nan)
        self._offsets = np.arange(self.series, dtype=np.intp) * (self.groups + 1)
        self._refresh()

    def _restored(self) -> None:
        if self.series:
            self._refresh()

    def _refresh(self) -> None:
        drawn = (_DRAWN * self._kinds)[:, None, None]
        now = self._newest + drawn * self.shares[:, None, :]
        now /= now.sum(axis=2, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self._held[:, None, :], np.log(now / self.shares[:, None, :]), 0.0)
        ratio -= self._margin[:, None, None]
        ratio /= self._inflation[:, None, None]
        table = np.zeros((self.series, self.groups + 1, len(SPANS)))
        table[:, : self.groups] = ratio.transpose(0, 2, 1)
        self._table = table.reshape(-1, len(SPANS))

    def widen(self, inflation: Floats) -> None:
        """Set the inflation (C,), as above."""
        self._inflation = np.maximum(inflation, 1.0)
        self._refresh()

    def update(self, groups: NDArray[np.int64], times: Floats) -> Evidence:
        """Take the rows of a batch, (n, C), with their unix times (n,), in their order."""
        crossed = np.full(self.series, -1, np.intp)
        for start in range(0, len(groups), _AT_ONCE):
            part = groups[start : start + _AT_ONCE] + self._offsets
            log_e = self._table[part]
            rows = len(part)
            flat = log_e.reshape(rows, -1)
            log_m = shiryaev_roberts(self._log_m.ravel(), flat).reshape(log_e.shape)
            self._log_m = log_m[-1]
            mixed = log_sum(log_m) - np.log(len(SPANS))
            over = mixed >= self.log_threshold
            hit = over.any(axis=0) & (crossed < 0)
            crossed[hit] = start + np.argmax(over, axis=0)[hit]
            self._follow(log_e.sum(axis=0), float(times[start]))
            counted = np.bincount(part.ravel(), minlength=len(self._table))
            counted = counted.reshape(self.series, -1)[:, : self.groups]
            keep = (1.0 - 1.0 / np.array(SPANS)) ** counted.sum(axis=1)[:, None]
            self._newest = self._newest * keep[:, :, None] + counted[:, None, :]
            self._refresh()
        return self._evidence(crossed)

    def _follow(self, grown: Floats, time: float) -> None:
        began = (self._height <= 0.0) & (grown > 0.0)
        self.since[began] = time
        self._height = np.maximum(self._height + grown, 0.0)

    def _evidence(self, crossed: NDArray[np.intp]) -> Evidence:
        statistic = log_sum(self._log_m) - np.log(len(SPANS)) if self.series else np.zeros(0)
        nowhere = np.zeros(self.series, np.int8)
        return Evidence(statistic, self.log_threshold, crossed, nowhere)

    def evidence(self) -> Evidence:
        """As of now."""
        return self._evidence(np.full(self.series, -1, np.intp))

    def began(self, number: int) -> float | None:
        """When a series probably changed, by the span that is surest; None where that is open."""
        result = float(self.since[number, int(np.argmax(self._log_m[number]))])
        return None if np.isnan(result) else result

    def weight(self, number: int) -> float:
        """Log-likelihood ratio against no change, of what was learned on the way."""
        return float(self._height[number].max())

    def now(self, number: int) -> tuple[Floats, float]:
        """Shares (G,) of the newest rows of a series, and how many rows these stand for."""
        counts = self._newest[number, 0]
        return counts / max(float(counts.sum()), 1.0), float(counts.sum())

    def usual(self) -> NDArray[np.bool_]:
        """Which series look like the baseline again, (C,): a likelihood ratio of the newest rows
        that chance reaches in one of ten."""
        result = np.zeros(self.series, np.bool_)
        for number in range(self.series):
            shares, rows = self.now(number)
            held = shares > 0.0
            apart = float((shares[held] * np.log(shares[held] / self.shares[number][held])).sum())
            chance = float(chdtri(max(self._kinds[number] - 1.0, 1.0), _USUAL))
            allowed = chance * (1.0 / max(rows, 1.0) + 1.0 / self._rows[number])
            result[number] = 2.0 * apart <= allowed
        return result

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (C,)."""
        self._log_m[series] = -np.inf
        self._height[series] = 0.0
        self.since[series] = np.nan

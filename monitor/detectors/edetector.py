"""Shiryaev-Roberts e-detectors: an alarm for any bounded risk, with a guaranteed run length.

Null: values in [0, 1] whose mean, given the past, is at most mu0. Each bet l has the e-value
e = 1 + l (x - mu0), and M_t = e_t (1 + M_{t-1}). A mixture of bets alarms at sum w M >= A, and then
the average run length under the null is at least A, whatever the distribution and the dependence
(Shin, Ramdas & Rinaldo, arXiv:2203.03532, Theorem 2.4 and section 4).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import pack, unpack
from understudy.shadow.state import Config, Converter, Key, Saved, Stateful, Transient

Floats = NDArray[np.float64]
RATIOS = (1.15, 1.3, 1.6, 2.2, 3.5, 7.0)
"""Each bet is best for a risk that has grown by such a factor."""
_LARGEST_BET = 0.95
"""Of 1 / mu0, at which a single good value would end everything."""
_ONE_SIDED_95 = 1.6448536269514722
_SMALLEST_NULL = 1e-9
_LOG_MOST = 600.0
_MOST = math.exp(_LOG_MOST)
"""More evidence than that is not told apart, so that nothing overflows."""
_FEW = 12
"""Rows with something in them that are taken one by one."""


def null_rate(
    count: float, rows: float, smallest: float = 0.0, deviations: float = _ONE_SIDED_95
) -> float:
    """Upper bound of a baseline's rate, at 95 %, plus the smallest change that matters.

    ``count`` of ``rows`` in the baseline. The bound is p + 1.64 se, or as many se as ``deviations``
    says, with the se of Agresti and Coull's (1998) shifted estimate, so that a count of 0 does not
    make the null impossible.
    """
    if rows <= 0.0:
        return min(max(smallest, 0.01), 0.5)
    shifted = (count + 1.0) / (rows + 2.0)
    bound = count / rows + deviations * math.sqrt(shifted * (1.0 - shifted) / rows)
    return min(max(bound + smallest, _SMALLEST_NULL), 1.0 - 1e-6)


def bets_for(null: Floats, variance: Floats | None = None) -> Floats:
    """Bets (S, 6) for null means (S,).

    The bet that grows fastest for 0/1 values of mean mu1 is (mu1 - mu0) / (mu0 (1 - mu0)); for
    other values of known ``variance`` (S,) about (mu1 - mu0) / (variance + (mu1 - mu0)^2). The
    odds, rather than the mean, grow by the factors, so that the grid also fits a null above a half.
    """
    odds = null / (1.0 - null)
    raised = odds[:, None] * np.array(RATIOS)
    alternative = raised / (1.0 + raised)
    step = alternative - null[:, None]
    if variance is None:
        bets = step / (null * (1.0 - null))[:, None]
    else:
        bets = step / (variance[:, None] + step**2)
    limited: Floats = np.minimum(bets, _LARGEST_BET / null[:, None])
    return limited


def shiryaev_roberts(log_m: Floats, log_e: Floats) -> Floats:
    """M_t = e_t (1 + M_{t-1}) for e-values given as logs, shape (n, bets), from ``log_m`` (bets,).

    The logs of M after each row, (n, bets): M_t = exp(C_t) (M_0 + sum over j <= t of
    exp(-C_{j-1})) with C the running sum of ``log_e``, in log space.
    """
    sums = np.cumsum(log_e, axis=0)
    before = np.vstack([np.zeros(log_e.shape[1]), sums[:-1]])
    gathered = np.logaddexp.accumulate(np.vstack([log_m, -before]), axis=0)[1:]
    result: Floats = sums + gathered
    return result


def _dump_m(m: Floats) -> str:
    """As logs, which single precision can hold."""
    with np.errstate(divide="ignore"):
        return pack(np.log(m))


def _load_m(name: str, text: Any, now: Floats) -> Floats:
    return np.exp(np.minimum(unpack(text, now.shape), _LOG_MOST))


class SrDetector(Stateful):
    """One detector for each of S risks; ``run_length`` in rows, one number or (S,).

    Batches are (n, S) of values in [0, 1]; NaN says nothing. ``variance`` (S,) is that of the
    values under the null, where they are not 0 and 1; a wrong one costs time, not the guarantee.
    ``bets`` (S, bets) replace those of :func:`bets_for`. Raises ValueError for nulls outside of
    (0, 1) and for bets that could lose everything.
    """

    null: Config[Floats]
    series: Config[int]
    bets: Config[Floats]
    log_threshold: Config[Floats]
    _log_weight: Config[float]
    _threshold: Config[Floats]
    _zero: Config[Floats]
    _log_zero: Config[Floats]
    _fixed: Config[Floats]
    """M after zeros for ever: r / (1 - r)."""
    _log_one: Config[Floats]
    _after: Transient[tuple[int, Floats]]
    _m: Saved[Annotated[Floats, Key("log_m"), Converter(_dump_m, _load_m)]]
    """Not in logs: rows of zeros, which most of them are, then cost two operations."""

    def __init__(
        self,
        null: Floats,
        run_length: float | Floats,
        variance: Floats | None = None,
        bets: Floats | None = None,
    ) -> None:
        self.null = np.asarray(null, np.float64)
        if self.null.ndim != 1 or ((self.null <= 0.0) | (self.null >= 1.0)).any():
            raise ValueError("null means must lie between 0 and 1")
        self.series = len(self.null)
        self.bets = bets_for(self.null, variance) if bets is None else bets
        if ((self.bets <= 0.0) | (self.bets * self.null[:, None] >= 1.0)).any():
            raise ValueError("bets must lie between 0 and 1 / null")
        lengths = np.broadcast_to(np.asarray(run_length, np.float64), (self.series,))
        self.log_threshold = np.log(lengths)
        self._prepare()
        self._m = np.zeros(self.bets.shape)

    def _prepare(self) -> None:
        self._log_weight = -math.log(self.bets.shape[1])
        self._threshold = np.exp(np.minimum(self.log_threshold, _LOG_MOST))
        losing = self.bets * self.null[:, None]
        self._zero = 1.0 - losing
        self._log_zero = np.log1p(-losing)
        self._fixed = self._zero / losing
        self._log_one = np.log1p(self.bets * (1.0 - self.null[:, None]))
        self._after = (0, np.zeros(0))

    def update(self, x: Floats) -> Evidence:
        """Take the rows of a batch, in their order. Raises ValueError for another width."""
        if x.ndim != 2 or x.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {x.shape}")
        crossed = np.full(self.series, -1, np.intp)
        if len(x) == 1:
            if x.any():
                self._step(0, x[0], crossed)
            else:
                self._m += 1.0
                self._m *= self._zero
        elif len(x):
            busy = np.flatnonzero(x.any(axis=1))  # NaN counts as something
            if len(busy) <= _FEW:
                self._row_by_row(x, busy, crossed)
            else:
                self._by_series(x, crossed)
        np.minimum(self._m, _MOST, out=self._m)
        return self._evidence(crossed)

    def skip(self, rows: int) -> None:
        """So many rows of zeros for all of them."""
        self._stay_quiet(rows)

    def evidence(self) -> Evidence:
        """As of now."""
        return self._evidence(np.full(self.series, -1, np.intp))

    def _row_by_row(self, x: Floats, busy: NDArray[np.intp], crossed: NDArray[np.intp]) -> None:
        """Rows with something in them one after the other, with the zeros between in one step."""
        done = 0
        for row in busy.tolist():
            self._stay_quiet(row - done)
            self._step(row, x[row], crossed)
            done = row + 1
        self._stay_quiet(len(x) - done)

    def _step(self, row: int, x: Floats, crossed: NDArray[np.intp]) -> None:
        grown = (1.0 + self.bets * (x - self.null)[:, None]) * (1.0 + self._m)
        gone = np.isnan(x)
        if gone.any():
            grown[gone] = self._m[gone]
        self._m = grown
        over = grown.sum(axis=1) >= self._threshold * grown.shape[1]
        if over.any():
            crossed[over & (crossed < 0) & ~gone] = row

    def _stay_quiet(self, rows: int) -> None:
        """Rows of zeros: M becomes r^n M + r + r^2 + … + r^n = f + r^n (M - f) with f = r / (1 - r)
        and r < 1 the e-value of a zero."""
        if not rows:
            return
        if rows != self._after[0]:
            self._after = (rows, np.exp(rows * self._log_zero))
        self._m -= self._fixed
        self._m *= self._after[1]
        self._m += self._fixed

    def _by_series(self, x: Floats, crossed: NDArray[np.intp]) -> None:
        busy = x.any(axis=0)
        if not busy.all():
            kept = self._m[busy].copy()
            self._stay_quiet(len(x))
            self._m[busy] = kept
        for number in np.flatnonzero(busy):
            crossed[number] = self._take(int(number), x[:, number])

    def _take(self, number: int, values: Floats) -> int:
        """One series: the first row at which it crosses, or -1."""
        here = ~np.isnan(values)
        x = values[here]
        if not len(x):
            return -1
        bets, null = self.bets[number], self.null[number]
        steps = np.log1p(bets * (x[:, None] - null))
        with np.errstate(divide="ignore"):
            log_m = shiryaev_roberts(np.log(self._m[number]), steps)
        self._m[number] = np.exp(np.minimum(log_m[-1], _LOG_MOST))
        mixed = log_sum(log_m) + self._log_weight
        over = mixed >= self.log_threshold[number]
        if not over.any():
            return -1
        return int(np.flatnonzero(here)[int(np.argmax(over))])

    def _evidence(self, crossed: NDArray[np.intp]) -> Evidence:
        with np.errstate(divide="ignore"):
            statistic = np.log(self._m.sum(axis=1)) + self._log_weight
        direction = np.where(crossed >= 0, 1, 0).astype(np.int8)
        return Evidence(statistic, self.log_threshold, crossed, direction)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,)."""
        self._m[series] = 0.0


class SrBlocks(Stateful):
    """The same for 0/1 values that several replicas see: they send counts by block.

    A block's e-value for a bet is (1 + l (1 - mu0))^ones (1 - l mu0)^zeros, in any order. M
    grows by one each block, not each row, so the threshold is A / b for blocks of b rows.
    """

    _inner: Saved[SrDetector]

    def __init__(self, null: Floats, run_length: float | Floats, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a block has at least one row, not {rows}")
        inner = np.asarray(run_length, np.float64) / rows
        self._inner = SrDetector(null, np.maximum(inner, 1.0 + 1e-9))

    def update(self, counts: Floats, ones: Floats) -> Evidence:
        """A block: ``counts`` (S,) of values, ``ones`` (S,) of them 1, added up over replicas."""
        inner = self._inner
        log_e = ones[:, None] * inner._log_one + (counts - ones)[:, None] * inner._log_zero
        log_m = log_e + np.log1p(inner._m)
        inner._m = np.exp(np.minimum(log_m, _LOG_MOST))
        mixed = log_sum(log_m) + inner._log_weight
        crossed = np.where(mixed >= inner.log_threshold, 0, -1).astype(np.intp)
        return inner._evidence(crossed)


def log_sum(logs: Floats) -> Floats:
    """Logs of the sums of exp(logs) over the last axis; scipy's does the same, ten times slower for
    small arrays."""
    top = logs.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        result: Floats = np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0]
    return result

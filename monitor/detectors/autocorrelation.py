"""Autocorrelated rows: how far dependence between neighbours widens sums, and what undoes it.

For rows with autocorrelations r_1, r_2, ... the variance of a long sum is that of independent rows
times 1 + 2 (r_1 + r_2 + ...); for an AR(1) process, (1 + phi) / (1 - phi). A chart that ignores it
alarms far too often: with phi = 0.5 a CUSUM of run length 100,000 has one of some hundred. Two
ways out: thresholds that know the inflation (``CusumUnion(inflation=...)``), or means of batches
so long that neighbours hardly know of each other, for charts that need independent points (Law &
Carson, Operations Research 27, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.shadow.state import Config, Saved, Stateful

Floats = NDArray[np.float64]
_ONE_SIDED_95 = 1.6448536269514722
_STRONGEST = 0.98
"""Beyond this, rows are as good as one: no threshold would be honest and finite."""
_LEFT = 0.1
_LONGEST = 4096
_NOTABLE = 1.2
_SHOWN = 5


def lag1(x: Floats) -> Floats:
    """Correlation of each row with the one before, (S,), of rows (n, S); pairs without two finite
    values are left out. 0 where there are fewer than three pairs, or no variance."""
    result = np.zeros(x.shape[1])
    first, second = x[:-1], x[1:]
    both = np.isfinite(first) & np.isfinite(second)
    for number in range(x.shape[1]):
        a, b = first[both[:, number], number], second[both[:, number], number]
        if len(a) < 3:
            continue
        a, b = a - a.mean(), b - b.mean()
        scale = math.sqrt(float(a @ a) * float(b @ b))
        result[number] = float(a @ b) / scale if scale > 0.0 else 0.0
    return result


def inflation(correlation: float | None, rows: float = math.inf) -> float:
    """Variance of long sums over that of independent rows, for a lag-1 correlation that was
    estimated from ``rows``.

    1 for none, for a negative one, and for one that chance explains (below 1.64 standard errors);
    otherwise that of an AR(1) process with one standard error more than was found.
    """
    if correlation is None or not correlation > 0.0:
        return 1.0
    error = math.sqrt(max(1.0 - correlation**2, 0.0) / max(rows, 1.0))
    if correlation < _ONE_SIDED_95 / math.sqrt(max(rows, 1.0)):
        return 1.0
    phi = min(correlation + error, _STRONGEST)
    return (1.0 + phi) / (1.0 - phi)


def batch_length(correlation: float | None, left: float = _LEFT) -> int:
    """The fewest rows of an AR(1) process whose means have a lag-1 correlation of at most ``left``.

    Sums of b rows have the variance b (1 + phi) / (1 - phi) - 2 phi (1 - phi^b) / (1 - phi)^2, and
    neighbours the covariance phi ((1 - phi^b) / (1 - phi))^2. At most 4096.
    """
    if correlation is None or not correlation > left:
        return 1
    phi = min(correlation, 1.0 - 1e-6)
    low, high = 1, _LONGEST
    while low < high:
        middle = (low + high) // 2
        if _between(phi, middle) <= left:
            high = middle
        else:
            low = middle + 1
    return low


def _between(phi: float, rows: int) -> float:
    rest = 1.0 - phi**rows
    variance = rows * (1.0 + phi) / (1.0 - phi) - 2.0 * phi * rest / (1.0 - phi) ** 2
    return phi * (rest / (1.0 - phi)) ** 2 / variance


class BatchMeans(Stateful):
    """Standard rows (n, S) in, standard means of ``lengths`` (S,) rows each out.

    A mean of m values is scaled by the square root of m / inflation, so that long sums of what
    comes out have variance 1 each; a shift of d standard deviations per row is one of
    d sqrt(m / inflation) per mean. NaN and infinities count as rows, not as values.
    """

    lengths: Config[NDArray[np.int64]]
    inflations: Config[Floats]
    series: Config[int]
    _sums: Saved[Floats]
    """Of the open batches."""
    _counts: Saved[Floats]
    _rows: Saved[NDArray[np.int64]]

    def __init__(self, lengths: Sequence[int], inflations: Sequence[float]) -> None:
        if len(lengths) != len(inflations) or min(lengths, default=1) < 1:
            raise ValueError("a length of at least 1 and an inflation are needed for each series")
        self.lengths = np.array(lengths, np.int64)
        self.inflations = np.maximum(np.array(inflations, np.float64), 1.0)
        self.series = len(self.lengths)
        self._sums = np.zeros(self.series)
        self._counts = np.zeros(self.series)
        self._rows = np.zeros(self.series, np.int64)

    def update(self, x: Floats) -> Floats:
        """Take rows (n, S). The means that are complete, (m, S), where m is the most that any
        series has; NaN after the last of those with fewer, and for a batch without a value."""
        if x.ndim != 2 or x.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {x.shape}")
        complete = (self._rows + len(x)) // self.lengths
        result = np.full((int(complete.max(initial=0)), self.series), np.nan)
        if not len(x):
            return result
        gone = ~np.isfinite(x)
        values = np.where(gone, 0.0, x)
        for length in distinct(self.lengths):
            for start in distinct(self._rows[self.lengths == length]):
                here = np.flatnonzero((self.lengths == length) & (self._rows == start))
                self._group(int(length), int(start), here, values, gone, result)
        self._rows = (self._rows + len(x)) % self.lengths
        return result

    def _group(
        self,
        length: int,
        start: int,
        here: NDArray[np.intp],
        values: Floats,
        gone: NDArray[np.bool_],
        result: Floats,
    ) -> None:
        """Series of one length that are at the same row of their batch."""
        cuts = [0, *range(length - start, len(values), length)]
        sums = np.add.reduceat(values[:, here], cuts, axis=0)
        counts = np.add.reduceat(~gone[:, here], cuts, axis=0, dtype=np.float64)
        sums[0] += self._sums[here]
        counts[0] += self._counts[here]
        whole = (start + len(values)) // length
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = sums[:whole] / np.sqrt(counts[:whole] * self.inflations[here])
        scaled[counts[:whole] == 0.0] = np.nan
        result[:whole, here] = scaled
        rest = whole < len(sums)
        self._sums[here] = sums[-1] if rest else 0.0
        self._counts[here] = counts[-1] if rest else 0.0

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Forget the open batches of some of the series, a mask (S,)."""
        for held in (self._sums, self._counts, self._rows):
            held[series] = 0


def assumptions(
    factors: Mapping[str, float],
    *,
    seasonal: bool = False,
    learned: Sequence[str] = (),
    unwatched: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The assumptions of a run length, as texts.

    ``factors``, by name of a series, are those by which long sums vary more than sums of
    independent rows; ``seasonal``: a profile of hours and weekdays is subtracted; ``learned``:
    series of which live rows told the cycle; ``unwatched``: what features look like that are not
    tested.
    """
    notable = {name: value for name, value in factors.items() if value > _NOTABLE}
    strongest = sorted(notable, key=lambda name: -notable[name])
    listed = _listed([f"{name} ({notable[name]:.2g} times)" for name in strongest])
    result = []
    if notable:
        result.append(
            "rows depend on each other: sums of many rows vary more than those of independent "
            f"rows in {listed}; thresholds are raised by that factor, and a small change is found "
            "about as many times later; a memory that is longer than the baseline and live blocks "
            "of 8,192 rows show makes false alarms more frequent"
        )
    else:
        result.append(
            "rows look independent of each other in the baseline and so far; a memory that shows "
            "only later can raise a false alarm before thresholds are raised"
        )
    if seasonal or learned:
        known = "that of the baseline" if seasonal else ""
        live = f"learned from live rows for {_listed(list(learned))}" if learned else ""
        result.append(
            f"the weekly cycle (UTC) is {' and '.join(text for text in (known, live) if text)}; a "
            "cycle of another length, a holiday or a daylight saving change can raise a false alarm"
        )
    else:
        result.append(
            "no daily or weekly cycle is known; live rows show one after a week, and until then "
            "thresholds are raised for it as for any other dependence"
        )
    if unwatched:
        texts = [f"{name} (looks like {looks})" for name, looks in unwatched.items()]
        result.append(
            f"not tested for drift: {_listed(texts)}; leave these features out of the baseline, or "
            "name them in monitoring.declared"
        )
    return tuple(result)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more

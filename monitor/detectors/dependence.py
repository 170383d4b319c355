"""How far sums of dependent rows vary beyond those of independent ones, as it is, without a model.

An AR(1) process is described by its lag-1 correlation; sessions, sources that take turns, bursts
and slow components are not. Three measures of standard scores in the order of their rows:

* the lag-1 correlation, for a memory that is short (:func:`~.autocorrelation.inflation`);
* the variance of block sums of 32, 64, … rows over that of independent rows, from differences of
  neighbouring blocks (Allan, Proc. IEEE 54, 1966), which a single step or a trend hardly changes;
* the highest that two-sided CUSUMs of several slacks rose. A level that is reached once in n rows
  says how much a chart of that slack has to be raised, whatever the reason.

The same differences of blocks are learned from live rows (:class:`BlockVariance`), each limited to
three standard errors of what is known, so that a drift hardly moves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.autocorrelation import inflation as of_correlation
from understudy.monitor.detectors.packed import Packed, PackedRounded
from understudy.monitor.detectors.run_length import siegmund
from understudy.shadow.roots import find_root
from understudy.shadow.state import Config, Count, Saved, Stateful

Floats = NDArray[np.float64]
SHORTEST = 32
"""Rows of the smallest block."""
LEVELS = 9
"""Sizes of blocks, each twice the one before: up to 8,192 rows."""
GRID = tuple(2.0**power for power in range(-5, 2))
"""Slacks of the CUSUMs whose highest values are kept."""
_SIZES = SHORTEST * 2.0 ** np.arange(LEVELS)
_FEWEST = 8
"""Differences of blocks that say something about a size."""
_SURE = 4.0
"""Standard errors by which a block variance has to exceed that of independent rows."""
_LIKELY = 2.0
"""The same for the spread of a series whose location depends on the rows before, or the reverse."""
_CAREFUL = 2.0
"""Standard errors that are added: a variance that is a fifth too small makes false alarms twenty
times as frequent at usual run lengths, and one that is too large a fifth later."""
_RARE = 1e5
"""A chart rose too high when independent rows reach its level once in so many times the rows."""
_LIMIT = 9.0
"""Squared standard errors that a difference of live blocks counts at most."""
_PRIOR = 8.0
"""Blocks as which what is assumed at first counts."""
_REMEMBERED: list[float] = np.maximum(128.0, 65_536.0 / _SIZES).tolist()
"""Blocks of each size that a live variance is averaged over."""
_REPEATED = 32
"""A memory has to fit so often into the rows of a baseline that their highest CUSUM says how far
others may go."""
_LARGEST = 1e4


def block_sums(x: Floats, cuts: Sequence[int] | NDArray[np.intp]) -> Floats:
    """Sums of rows (n, S), from each of the ``cuts`` to the next; NaN and infinities count as 0."""
    with np.errstate(invalid="ignore"):
        sums: Floats = np.add.reduceat(x, cuts, axis=0)
    if not np.isfinite(sums).all():
        sums = np.add.reduceat(np.where(np.isfinite(x), x, 0.0), cuts, axis=0)
    return sums


def _error(blocks: Floats) -> Floats:
    """Relative standard error of a mean of so many squared differences of neighbouring blocks,
    which overlap by one block each."""
    result: Floats = np.sqrt(3.0 / np.maximum(blocks, 1.0))
    return result


@dataclass(frozen=True, slots=True)
class LongRun:
    """Variance of long sums over that of independent rows, (S,), at least 1: the ``estimate``, and
    the ``upper`` end of its error; ``span`` are the rows of the blocks that say so. 1 where no size
    of blocks is surely above 1."""

    estimate: Floats
    upper: Floats
    span: Floats


def _decided(variance: Floats, blocks: Floats) -> LongRun:
    """By ``variance`` (levels, S) from so many ``blocks`` (levels,), what the surest size says. The
    second half of the series are the spreads of those in the first."""
    error = _error(blocks)[:, None]
    known = (blocks >= _FEWEST)[:, None]
    sure = variance > np.where(known, np.exp(_SURE * error), np.inf)
    series = variance.shape[1]
    if not sure.any():
        return LongRun(np.ones(series), np.ones(series), np.full(series, float(SHORTEST)))
    related = np.roll(sure.any(axis=0), series // 2)
    sure |= known & (variance > np.exp(_LIKELY * error)) & related
    lower = np.where(sure, variance * np.exp(-2.0 * error), 0.0)
    level = lower.argmax(axis=0)
    best = np.take_along_axis(variance, level[None], axis=0)[0]
    # Neighbouring blocks share a memory that is not short beside them: what doubling the size has
    # added is added once more (Richardson's extrapolation).
    half_size = np.take_along_axis(variance, np.maximum(level - 1, 0)[None], axis=0)[0]
    grown = np.clip(best / np.maximum(half_size, 1.0), 1.0, 2.0)
    best = np.where(sure.any(axis=0), best, 1.0)
    upper = best * np.exp(_CAREFUL * error[level, 0])
    upper *= grown
    dependent = best > 1.0
    return LongRun(
        np.clip(best, 1.0, _LARGEST),
        np.where(dependent, np.clip(upper, 1.0, _LARGEST), 1.0),
        _SIZES[level],
    )


class BlockVariance(Stateful):
    """Variances of block sums of S series of standard scores, by size of the blocks: the locations
    of S / 2 series, then their spreads.

    ``assumed``, for live rows: what a baseline says about each series. Differences then count three
    standard errors at most, and old ones are forgotten.
    """

    series: Config[int]
    live: Config[bool]
    variance: Saved[PackedRounded]
    """Of sums of blocks over that of independent rows, (levels, S)."""
    weight: Saved[list[float]]
    """Differences behind them, by level."""
    _newest: Saved[PackedRounded]
    """The sum of the newest block of each size."""
    _blocks: Saved[list[Count]]
    _open: Saved[Packed]
    _rows: Saved[Count]

    def __init__(self, series: int, assumed: Sequence[Memory] | None = None) -> None:
        self.series = series
        self.live = assumed is not None
        self.variance = np.zeros((LEVELS, series))
        for number, memory in enumerate(assumed or ()):
            part = np.minimum(_SIZES / memory.span, 1.0)
            self.variance[:, number] = 1.0 + (memory.long_run - 1.0) * part
        self.weight = [_PRIOR if self.live else 0.0] * LEVELS
        self._newest = np.zeros((LEVELS, series))
        self._blocks = [0] * LEVELS
        self._open = np.zeros(series)
        self._rows = 0

    def update(self, x: Floats) -> bool:
        """Take rows (n, S) in their order; NaN and infinities count as 0. Whether a block of the
        smallest size is complete."""
        rows = len(x)
        if not rows:
            return False
        cuts = [0, *range(SHORTEST - self._rows, rows, SHORTEST)]
        sums = block_sums(x, cuts)
        sums[0] += self._open
        whole = (self._rows + rows) // SHORTEST
        self._rows = (self._rows + rows) % SHORTEST
        self._open = sums[-1] if whole < len(sums) else np.zeros(self.series)
        if whole:
            self._take(sums[:whole])
        return whole > 0

    def _take(self, blocks: Floats) -> None:
        """Blocks of the smallest size, those of twice the size that they complete, and so on."""
        moved: list[Floats] = []
        level = 0
        while len(blocks) and level < LEVELS:
            before = self._blocks[level]
            joined = np.concatenate([self._newest[level][None], blocks]) if before else blocks
            if len(joined) > 1:
                moved.append(joined[1:] - joined[:-1])
            self._newest[level] = blocks[-1]
            self._blocks[level] = before + len(blocks)
            whole = joined if before % 2 else blocks
            pairs = len(whole) // 2 * 2
            blocks = whole[0:pairs:2] + whole[1:pairs:2]
            level += 1
        if moved:
            # The sizes that have differences are the smallest ones.
            self._learn(moved)

    def _learn(self, moved: list[Floats]) -> None:
        """Differences of neighbouring blocks, for the smallest size, the next one, and so on."""
        levels, counts = len(moved), list(map(len, moved))
        squares = np.concatenate(moved)
        squares *= squares
        now = self.variance[:levels]
        scale = 2.0 * _SIZES[:levels, None]
        if self.live:
            most = np.maximum(now, 1.0) * (_LIMIT * scale)
            np.minimum(squares, np.repeat(most, counts, axis=0), out=squares)
        sums = np.add.reduceat(squares, [0, *accumulate(counts[:-1])], axis=0)
        for level, count in enumerate(counts):
            weight = self.weight[level] + count
            if self.live:
                weight = min(weight, max(_REMEMBERED[level], float(count)))
            self.weight[level] = weight
        sums /= scale
        sums -= np.array(counts)[:, None] * now
        now += sums / np.array(self.weight[:levels])[:, None]

    def long_run(self) -> LongRun:
        """What the blocks so far say about long sums."""
        return _decided(self.variance, np.array(self.weight))


@dataclass(frozen=True, slots=True)
class Memory:
    """What ``rows`` rows say about the dependence of one series of scores. ``lag1`` is the
    correlation of a row with the one before, None where it is not known; ``long_run`` the variance
    of long sums over that of independent rows, at least 1; ``span`` the rows of the blocks that say
    so, 1 for the lag-1 correlation; ``peaks`` the highest that CUSUMs with the slacks of
    :data:`GRID` rose, empty where that is not known."""

    rows: int = 0
    lag1: float | None = None
    long_run: float = 1.0
    span: int = 1
    peaks: tuple[float, ...] = ()

    @classmethod
    def of_correlation(cls, lag1: float | None, rows: int) -> Memory:
        """For a file that has the lag-1 correlation alone."""
        return cls(rows, lag1, of_correlation(lag1, float(rows)))

    def inflation(self, slack: float) -> float:
        """By how much the variance of a chart with this slack is raised.

        What the chart itself did in the baseline's rows is closer than the variance of sums: a
        series whose level alternates between two values never takes a chart far whose slack is
        larger. The error of that is added. Where sums look as those of independent rows, a chart
        counts that rose higher than these ever do, as in rare bursts.
        """
        if not self.peaks or self.rows < 2:
            return self.long_run
        below = [index for index, k in enumerate(GRID) if k <= slack * (1.0 + 1e-9)]
        if not below:
            return self.long_run
        index = below[-1]
        if self.rows < _REPEATED * self.span:
            # The memory is long: what these rows did is one of few possibilities.
            seen = _raised_by(GRID[index], _coarse(self.peaks[index]), self.rows, 1.0)
            return max(self.long_run, seen)
        return _raised_by(GRID[index], _coarse(self.peaks[index]), self.rows, self.long_run)

    def merge(self, other: Memory) -> Memory:
        """Of the rows of both: the stronger dependence."""
        rows = self.rows + other.rows
        known = [(m.lag1, m.rows) for m in (self, other) if m.lag1 is not None and m.rows]
        lag1 = sum(v * n for v, n in known) / sum(n for _, n in known) if known else None
        stronger = max((self, other), key=lambda one: one.long_run)
        peaks: tuple[float, ...] = ()
        if len(self.peaks) == len(other.peaks):
            peaks = tuple(map(max, self.peaks, other.peaks))
        return Memory(rows, lag1, stronger.long_run, stronger.span, peaks)

    def scaled(self, factor: float) -> Memory:
        """With variances that are larger by a factor."""
        if factor == 1.0:
            return self
        wide = max(1.0, self.long_run * factor) if self.long_run > 1.0 else factor
        return Memory(self.rows, self.lag1, wide, self.span, tuple(p * factor for p in self.peaks))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rows": self.rows,
            "lag1": None if self.lag1 is None else round(self.lag1, 6),
            "long_run": float(f"{self.long_run:.6g}"),
            "span": self.span,
            "peaks": [float(f"{peak:.5g}") for peak in self.peaks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Memory:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        peaks = tuple(float(peak) for peak in data["peaks"])
        wide = float(data["long_run"])
        if len(peaks) not in (0, len(GRID)) or not all(0.0 <= peak < math.inf for peak in peaks):
            raise ValueError(f"peaks must be {len(GRID)} numbers of at least 0")
        if not 1.0 <= wide < math.inf:
            raise ValueError("long_run must be at least 1")
        lag1 = None if data["lag1"] is None else float(data["lag1"])
        return cls(int(data["rows"]), lag1, wide, int(data["span"]), peaks)


def _coarse(peak: float) -> float:
    """Upwards by up to a twentieth, so that charts of about the same height share a computation."""
    return float(1.05 ** math.ceil(math.log(peak, 1.05))) if peak > 0.0 else 0.0


@lru_cache(maxsize=4096)
def _raised_by(slack: float, peak: float, rows: int, long_run: float) -> float:
    # Of a process whose sums vary I times as much, sums over sqrt(I) are as those of independent
    # rows, and so is the chart with its slack over sqrt(I).
    def logged(inflation: float) -> float:
        """Rows in which such a chart rises to the peak once, on average."""
        wide = math.sqrt(inflation)
        return math.log(siegmund(peak / wide, slack / wide))

    usual = math.log(rows)
    if peak <= 0.0 or logged(1.0) <= usual:
        risen = 1.0
    elif logged(_LARGEST) >= usual:
        risen = _LARGEST
    else:
        top = math.log(_LARGEST)
        risen = math.exp(find_root(lambda v: logged(math.exp(v)) - usual, 0.0, top, xtol=1e-3))
    # The highest of n rows has a Gumbel distribution, with a scale of I / (2 slack) and a standard
    # deviation of 1.28 times that.
    upper = risen * (1.0 + _CAREFUL * 1.28 * risen / (2.0 * slack * max(peak, 1e-9)))
    if peak > 0.0 and logged(long_run) > usual + math.log(_RARE):
        return upper
    return max(1.0, min(long_run, upper))


class Dependence:
    """Measures the dependence of S series of standard scores while their rows are counted."""

    def __init__(self, series: int) -> None:
        self.series = series
        self.rows = 0
        self._blocks = BlockVariance(series)
        self._last: Floats = np.full((1, series), np.nan)
        self._pairs: Floats = np.zeros(series)
        self._counts: Floats = np.zeros(series)
        self._sums: Floats = np.zeros((3, series))
        """Of scores, of their squares, and of products of neighbours."""
        self._heights: Floats = np.zeros((2, len(GRID), series))
        self._peaks: Floats = np.zeros((len(GRID), series))

    def update(self, x: Floats) -> None:
        """Take rows (n, S) in their order; NaN says nothing."""
        if not len(x):
            return
        self.rows += len(x)
        here = np.isfinite(x)
        z = np.where(here, x, 0.0)
        self._blocks.update(z)
        line = np.concatenate([self._last, x])
        products = line[1:] * line[:-1]
        both = np.isfinite(products)
        self._pairs += both.sum(axis=0)
        self._counts += here.sum(axis=0)
        self._sums += np.stack(
            [z.sum(axis=0), (z * z).sum(axis=0), np.where(both, products, 0.0).sum(axis=0)]
        )
        self._last = x[-1:].copy()
        totals = np.cumsum(z, axis=0)
        passed = np.cumsum(here, axis=0, dtype=np.float64)
        for index, slack in enumerate(GRID):
            for side, sign in enumerate((1.0, -1.0)):
                moved = sign * totals - slack * passed
                floor = np.minimum(
                    np.minimum.accumulate(moved, axis=0), -self._heights[side, index]
                )
                heights = moved - floor
                self._peaks[index] = np.maximum(self._peaks[index], heights.max(axis=0))
                self._heights[side, index] = heights[-1]

    def memories(self) -> list[Memory]:
        """What was measured so far, by series."""
        counts = np.maximum(self._counts, 1.0)
        mean = self._sums[0] / counts
        variance = self._sums[1] / counts - mean * mean
        blocks = self._blocks.long_run()
        result = []
        for number in range(self.series):
            rows, pairs, v = int(self._counts[number]), self._pairs[number], variance[number]
            lag1 = None
            if pairs >= 3 and v > 1e-9:
                product = float(self._sums[2, number] / pairs - mean[number] ** 2)
                lag1 = min(1.0, max(-1.0, product / float(v)))
            wide, span = of_correlation(lag1, float(rows)), 1
            if blocks.upper[number] > wide:
                wide, span = float(blocks.upper[number]), int(blocks.span[number])
            peaks = tuple(float(peak) for peak in self._peaks[:, number])
            result.append(Memory(rows, lag1, wide, span, peaks))
        return result

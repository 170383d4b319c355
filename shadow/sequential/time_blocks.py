"""Are the records of one arm independent, and if not: the comparison by blocks of time.

A split draws an arm for every request, so whatever both arms go through together (a burst, a slow
hour) cancels in the difference between them. What one arm goes through alone does not: a dependency
of its own that fails for 30 s, a server that pauses. Then the failures of that arm come in blocks,
one outage counts as a hundred failures, and a test by request rejects most comparisons of an arm
with itself.

The null hypothesis that is kept is about time: *blocks of time, long enough to be nearly
independent, do not differ between the arms in the mean*. One outage is then one observation.

:class:`TimeBlocks` adds up both arms' values in at most 96 blocks of successive records, whose
length doubles as records come in. With D the difference of a block from the overall difference,
linearised as a ratio of means, and e that of a record,

    V = B/(B-1) sum D^2 / sum e^2

is 1 when records are independent or depend on each other in both arms alike, and the integrated
autocorrelation time otherwise (batch means; Flyvbjerg & Petersen, J. Chem. Phys. 91 (1989) 461, for
the doubling). Blocks are joined, down to 16, until neighbours pass a check of their lag-1
correlation (2 standard errors), and decide when they are ten times as long as V. What correlation
is left widens the deviation as in an AR(1) sequence, (1 + r)/(1 - r). The deviation of a difference
by blocks is that of the D, with the width of Student's distribution for so few of them.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self

import numpy as np

from understudy.shadow.sequential.common import (
    Array,
    Packed,
    SequentialError,
)
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful, Two

MOST = 96
"""Blocks that are kept; with one more, pairs of them are joined."""
_FIRST = 8
"""Records of a block in the beginning."""
_FEWEST = 16
_EFFECTIVE = 8.0
"""The effective number of blocks, (sum D^2)^2 / sum D^4, from which they may decide."""
_ERRORS = 2.5
"""Standard errors of V, sqrt(2/B) for independent blocks, beyond which it is more than chance."""
_DOUBTED = 1.5
"""Standard errors of V from which evidence by request is divided by it."""
_RARE = 4.0
"""Added to V's limit for each effective event: with five events, two of which share a block by
chance, V is 1.4."""
_TIMES = 10.0
"""Records of a block at least, in integrated autocorrelation times."""
_MOST_CORRELATED = 0.3


@dataclass(frozen=True, slots=True)
class BlockJudgement:
    """A difference mean_1 - ratio * mean_0 - shift, judged by blocks.

    ``centre`` is its estimate, ``deviation`` that of one of ``records`` terms, so that the standard
    error is deviation / sqrt(records). ``inflation`` is V, ``widening`` the deviation over that of
    independent records; ``size`` the records of a block and ``blocks`` their number. ``discount``:
    evidence by record has to be divided by it while V may still be chance (V, or 1).
    ``dependent``: V is beyond what chance explains. ``decides``: blocks are long enough (ten times
    V, and they pass the check of their correlation), enough, and effective enough.
    """

    records: int
    centre: float
    deviation: float
    inflation: float
    widening: float
    discount: float
    size: int
    blocks: int
    dependent: bool
    decides: bool


def _rounded(blocks: Array) -> Array:
    """The blocks to 16 binary digits, far below their spread: so much is saved of them.

    Halves are rounded down, whatever rounding errors of batches make of them."""
    mantissa, exponent = np.frexp(blocks)
    return np.asarray(
        np.ldexp(np.rint(mantissa * 65536.0 - 1e-6) / 65536.0, exponent), dtype=np.float64
    )


def _pack_blocks(blocks: Array) -> str:
    """Floats of 32 bits as base64 text, by column and by byte, deflated."""
    planes = np.ascontiguousarray(blocks.T, dtype="<f4").view(np.uint8)
    raw = planes.reshape(blocks.shape[1], -1, 4).transpose(0, 2, 1).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


def _unpack_blocks(name: str, text: Any, now: Any) -> Array:
    width = now.shape[1]
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(base64.b64decode(text, validate=True), 4 * width * MOST + 1)
    except (TypeError, ValueError, zlib.error):
        raise SequentialError(name, "must be packed blocks") from None
    if len(raw) % (4 * width) or len(raw) > 4 * width * MOST:
        raise SequentialError(name, f"must be at most {MOST} blocks of {width} numbers")
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(width, 4, -1)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<f4")[:, :, 0].T
    if not np.isfinite(values).all():
        raise SequentialError(name, "must hold only finite numbers")
    return values.astype(np.float64)


class _Seen(NamedTuple):
    """Difference of both arms: records, what each arm adds to it by block, means, factors of both
    arms' residuals, and the estimate."""

    records: int
    parts: tuple[Array, Array]
    means: tuple[float, float]
    scale: tuple[float, float]
    centre: float

    @property
    def d(self) -> Array:
        """The difference by block, about its mean."""
        return self.parts[0] + self.parts[1]


def _joined(d: Array, size: int) -> tuple[Array, int, float, bool]:
    """Blocks that pass the check of their lag-1 correlation, or the fewest there may be: their
    differences, records per block, the correlation, and whether they pass."""
    while True:
        square = float(np.dot(d, d))
        r = float(np.dot(d[1:], d[:-1])) / square if square > 0.0 else 0.0
        if r <= 2.0 / math.sqrt(d.size):
            return d, size, r, True
        if d.size < 2 * _FEWEST:
            return d, size, r, False
        odd = d.size % 2
        joined = d[: d.size - odd].reshape(-1, 2).sum(axis=1)
        d, size = np.append(joined, d[-1]) if odd else joined, 2 * size


def _of_blocks(d: Array) -> float:
    return float(np.dot(d, d)) * d.size / (d.size - 1.0)


def _limit(blocks: int, events: float) -> float:
    """The V that chance explains."""
    return 1.0 + _ERRORS * math.sqrt(2.0 / blocks) + _RARE / max(events, 1.0)


def _variance(d: Array, r: float) -> float:
    """Of the sum of differences by block, with what correlation is left, as wide as Student's
    distribution of so few."""
    r = min(max(r, 0.0), _MOST_CORRELATED)
    return _of_blocks(d) * (1.0 + r) / (1.0 - r) * (1.0 + 3.5 / d.size) ** 2


def _enough(d: Array) -> bool:
    square, fourth = float(np.dot(d, d)), float(np.dot(d * d, d * d))
    return d.size >= _FEWEST and fourth > 0.0 and square * square >= _EFFECTIVE * fourth


_Blocks = Annotated[Array, Converter(_pack_blocks, _unpack_blocks)]


class TimeBlocks(Stateful):
    """Sums of both arms by blocks of successive records, for ``columns`` values of each.

    A column has the values of both arms; they need not be the same function of a record (the
    challenger's latency may be held against another threshold). Records are fed in their order of
    arrival. The state depends on their number and order only, not on batches, up to rounding.
    """

    columns: Config[int]
    size: Saved[Count]
    """Records of a closed block."""
    counts: Saved[Two[Count]]
    """Records of champion and challenger."""
    _closed: Saved[_Blocks]
    """By block: weight and weighted values of the champion, then of the challenger."""
    _open: Saved[Packed]
    """The same of the block that is not full."""
    _filled: Saved[Count]
    _squares: Saved[Packed]
    """By arm: sums of w^2 c^2, then by column of w^2 c y, then by column of w^2 y^2."""
    _cross: Saved[Packed]
    """By column: sums of the product of both arms' values, of pairs."""
    _reference: Saved[Packed]
    """By column: the first value, subtracted before anything is squared."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        width = 2 * (1 + columns)
        self.size = _FIRST
        self.counts = [0, 0]
        self._closed = np.zeros((0, width))
        self._open = np.zeros(width)
        self._filled = 0
        self._squares = np.zeros((2, 1 + 2 * columns))
        self._cross = np.zeros(columns)
        self._reference = np.zeros(columns)

    # In -----------------------------------------------------------------------------------------

    def add_split(
        self, arms: Array, values: Sequence[Array], share: Array, counts: Array | None = None
    ) -> None:
        """Add records of split traffic.

        ``arms`` (0 or 1), each of ``values`` (one array per column) and ``share``, the challenger's
        probability, have one cell per record. Units of assignment give their sums as values and
        their numbers of records as ``counts``.
        """
        if not arms.size:
            return
        first = 1.0 if counts is None else float(counts[0]) or 1.0
        self._refer([float(v[0]) / first for v in values])
        weight = 1.0 / np.where(arms == 1.0, share, 1.0 - share)
        mass = weight if counts is None else weight * counts
        both = np.empty((1 + self.columns, arms.size))
        both[0] = mass
        for k, column in enumerate(values):
            both[1 + k] = weight * column - mass * self._reference[k]
        rows = np.empty((2, *both.shape))
        np.multiply(both, arms, out=rows[1])
        np.subtract(both, rows[1], out=rows[0])
        for squares, mine in zip(self._squares, rows, strict=True):
            products = mine @ mine.T
            squares[: 1 + self.columns] += products[0]
            squares[1 + self.columns :] += products.diagonal()[1:]
        served = int(arms.sum())
        self.counts = [self.counts[0] + arms.size - served, self.counts[1] + served]
        self._take(rows.reshape(-1, arms.size))

    def add_pairs(self, champion: Sequence[Array], challenger: Sequence[Array]) -> None:
        """Add pairs: both arms' values of the same requests, one array per column."""
        n = champion[0].size if champion else 0
        if not n:
            return
        self._refer([float(v[0]) for v in champion])
        half = 1 + self.columns
        rows = np.ones((2 * half, n))
        for side, columns in enumerate((champion, challenger)):
            for k, column in enumerate(columns):
                np.subtract(column, self._reference[k], out=rows[side * half + 1 + k])
        products = rows @ rows.T
        for side, squares in enumerate(self._squares):
            mine = products[side * half : (side + 1) * half, side * half : (side + 1) * half]
            squares[:half] += mine[0]
            squares[half:] += mine.diagonal()[1:]
        self._cross += products[1:half, half + 1 :].diagonal()
        self.counts = [self.counts[0] + n, self.counts[1] + n]
        self._take(rows)

    def _refer(self, first: list[float]) -> None:
        if not any(self.counts):
            self._reference = np.array(first)

    def _take(self, rows: Array) -> None:
        """Add records, shape (cells of a block, records)."""
        # Blocks get longer at the same record, however the records were batched.
        while rows.shape[1]:
            room = (MOST + 1 - len(self._closed)) * self.size - self._filled
            self._append(rows[:, :room])
            rows = rows[:, room:]

    def _append(self, rows: Array) -> None:
        n = rows.shape[1]
        if self._filled + n < self.size:
            self._open = self._open + rows.sum(axis=1)
            self._filled += n
            return
        first = self.size - self._filled
        whole = (n - first) // self.size
        end = first + whole * self.size
        closed = np.empty((1 + whole, len(rows)))
        closed[0] = self._open + rows[:, :first].sum(axis=1)
        closed[1:] = rows[:, first:end].reshape(len(rows), whole, self.size).sum(axis=2).T
        self._open = rows[:, end:].sum(axis=1)
        self._filled = n - end
        self._closed = np.concatenate((self._closed, _rounded(closed)))
        self._shorten()

    def _shorten(self) -> None:
        """Join pairs of blocks until there are few enough."""
        while len(self._closed) > MOST:
            if len(self._closed) % 2:
                self._open = self._open + self._closed[-1]
                self._filled += self.size
                self._closed = self._closed[:-1]
            self._closed = _rounded(self._closed[0::2] + self._closed[1::2])
            self.size *= 2

    # Out ----------------------------------------------------------------------------------------

    def judge(
        self,
        column: int,
        ratio: float,
        shift: float,
        *,
        paired: bool,
        events: float | None = None,
        suspect: bool = False,
    ) -> BlockJudgement | None:
        """The difference mean_1 - ``ratio`` mean_0 - ``shift`` of a column; None before two blocks.

        ``events`` are the effective records behind the variance (None: values are 0 or 1, and
        their rarer ones are counted). ``suspect``: records are known to correlate, so that V need
        not be so large.
        """
        seen = self._difference(column, ratio, shift, 1)
        if seen is None:
            return None
        squares = self._squares_of(column, seen, paired)
        if squares <= 0.0:
            return None
        d, size, r, uncorrelated = _joined(seen.d, self.size)
        b = d.size
        # Two digits: an estimate from a hundred blocks has no more, and a restart keeps them.
        inflation = round(_of_blocks(d) / squares, 2)
        suspect = suspect or size > self.size or self._arm_depends(column, seen)
        chance = math.sqrt(2.0 / b)
        limit = 1.0 + _DOUBTED * chance
        if not suspect:
            known = events if events is not None else self._events(column, seen.means, (0, 1))
            limit = _limit(b, known)
        variance = _variance(d, r)
        settled = uncorrelated and size >= _TIMES * inflation
        return BlockJudgement(
            seen.records,
            seen.centre,
            math.sqrt(variance / seen.records),
            inflation,
            math.sqrt(variance / squares),
            inflation if inflation > 1.0 + _DOUBTED * chance else 1.0,
            size,
            b,
            inflation > limit,
            settled and _enough(d),
        )

    def _arm_depends(self, column: int, seen: _Seen) -> bool:
        """Whether the records of one arm depend on each other, perhaps as those of the other do."""
        for side in (0, 1):
            about = self._squares_about(side, column, seen.means[side])
            squares = seen.scale[side] ** 2 * about
            if squares > 0.0:
                part = seen.parts[side]
                known = self._events(column, seen.means, (side,))
                if _of_blocks(part) > squares * _limit(part.size, known):
                    return True
        return False

    def recent(
        self, column: int, ratio: float, shift: float, *, paired: bool
    ) -> tuple[int, float, float] | None:
        """Records, centre and deviation of the same difference over the last half of time.

        None where its blocks are not enough, too short, or still correlate.
        """
        whole, seen = (self._difference(column, ratio, shift, last) for last in (1, 2))
        if whole is None or seen is None:
            return None
        d, size, r, uncorrelated = _joined(seen.d, self.size)
        squares = self._squares_of(column, whole, paired) * seen.records / whole.records
        if not (uncorrelated and size * squares >= _TIMES * _of_blocks(d) and _enough(d)):
            return None
        return seen.records, seen.centre, math.sqrt(_variance(d, r) / seen.records)

    def _difference(self, column: int, ratio: float, shift: float, last: int) -> _Seen | None:
        blocks = self._closed
        if self._filled:
            blocks = np.concatenate((blocks, self._open[None, :]))
        blocks = blocks[len(blocks) - len(blocks) // last :]
        if len(blocks) < 2:
            return None
        n = len(blocks) * self.size - (self.size - self._filled if self._filled else 0)
        half = 1 + self.columns
        total = blocks.sum(axis=0)
        mass = float(total[0]), float(total[half])
        if min(mass) <= 0.0:
            return None
        first, second = (float(total[s * half + 1 + column]) / mass[s] for s in (0, 1))
        scale = (-ratio * n / mass[0], n / mass[1])
        parts = [
            scale[side] * (blocks[:, side * half + 1 + column] - mean * blocks[:, side * half])
            for side, mean in enumerate((first, second))
        ]
        centre = second - ratio * first + (1.0 - ratio) * float(self._reference[column]) - shift
        return _Seen(n, (parts[0], parts[1]), (first, second), scale, centre)

    def _squares_of(self, column: int, seen: _Seen, paired: bool) -> float:
        """The sum of the squared differences of single records."""
        squares = sum(
            seen.scale[side] ** 2 * self._squares_about(side, column, seen.means[side])
            for side in (0, 1)
        )
        if paired:
            cross = float(self._cross[column]) - seen.records * seen.means[0] * seen.means[1]
            squares += 2.0 * seen.scale[0] * seen.scale[1] * cross
        return squares

    def _squares_about(self, side: int, column: int, mean: float) -> float:
        """The sum of w^2 (y - mean c)^2."""
        s = self._squares[side]
        about = s[1 + self.columns + column] - 2.0 * mean * s[1 + column] + mean * mean * s[0]
        return max(float(about), 0.0)

    def _events(self, column: int, means: Sequence[float], sides: Sequence[int]) -> float:
        """The effective number of the rarer of values 0 and 1, weighted as in the difference."""
        square = fourth = 0.0
        for side in sides:
            n = self.counts[side]
            if n:
                p = means[side] + float(self._reference[column])
                k = n * min(max(min(p, 1.0 - p), 0.0), 0.5)
                weight = float(self._squares[side][0]) / n
                square += k * weight
                fourth += k * weight * weight
        return square * square / fourth if fourth > 0.0 else 0.0

    def merge(self, other: Self) -> Self:
        """The blocks of both, those of ``other`` after those of this one."""
        both = type(self)(self.columns)
        if not any(self.counts) or not any(other.counts):
            part = self if any(self.counts) else other
            both.load_state(part.dump_state())
            return both
        moved = other._moved(self._reference)
        both.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        both._reference = self._reference.copy()
        both._squares = self._squares + moved._squares
        both._cross = self._cross + moved._cross
        both.size = max(self.size, moved.size)
        for part in (self, moved):
            closed, open_, filled = part._closed, part._open, part._filled
            at = part.size
            while at < both.size:
                if len(closed) % 2:
                    open_, filled = open_ + closed[-1], filled + at
                    closed = closed[:-1]
                closed = closed[0::2] + closed[1::2]
                at *= 2
            both._closed = np.concatenate((both._closed, closed))
            both._open, both._filled = both._open + open_, both._filled + filled
        if both._filled >= both.size:
            both._closed = np.concatenate((both._closed, both._open[None, :]))
            both._open, both._filled = np.zeros_like(both._open), 0
        both._closed = _rounded(both._closed)
        both._shorten()
        return both

    def _moved(self, reference: Array) -> Self:
        """A copy whose values are counted from another reference."""
        copy = type(self)(self.columns)
        copy.load_state(self.dump_state())
        half = 1 + self.columns
        by = self._reference - reference
        for k in range(self.columns):
            step = float(by[k])
            for side in (0, 1):
                at, s = side * half, copy._squares[side]
                copy._closed[:, at + 1 + k] += step * copy._closed[:, at]
                copy._open[at + 1 + k] += step * copy._open[at]
                s[1 + self.columns + k] += 2.0 * step * s[1 + k] + step * step * s[0]
                s[1 + k] += step * s[0]
            # Pairs have weight 1: (y0 + h)(y1 + h)
            sums = [
                float(self._closed[:, at].sum() + self._open[at]) for at in (1 + k, half + 1 + k)
            ]
            copy._cross[k] += step * sum(sums) + step * step * self.counts[0]
        copy._reference = reference.copy()
        return copy

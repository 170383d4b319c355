"""Mean of bounded values by betting: the hedged capital confidence sequence and its test.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 2024
(arXiv:2010.09686), Thm 3: with x in [0, 1] and predictable l_i,

    K+(m) = prod(1 + l_i+ (x_i - m)),  K-(m) = prod(1 - l_i- (x_i - m)),

l_i+ = min(l_i, 1/2 / m), l_i- = min(l_i, 1/2 / (1-m)), and the confidence sequence is
{m : max(K+/2, K-/2) < 1/alpha}.

How the state stays small. [0, 1] is cut into cells that are narrower towards its ends
(m = sin^2). Within a cell the bets are capped for its worse end, so they do not depend on m there
and ln K is concave in m, with a curvature of at least S = sum (l/(1 + l (x - m_0)))^2 where m_0 is
the end with the larger capital. So ln K lies above its chord by at least S/2 (m - m_0)(m_1 - m).
Reading where that bound crosses ln(2/alpha) gives a limit between the grid's points which is never
too tight, and 40 cells (six numbers each, 2.7 KB as text) do the work of a grid of thousands.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import (
    Array,
    Ends,
    EProcess,
    Interval,
    MergeRule,
    Packed,
    Process,
    SequentialError,
    choice,
    count,
    logaddexp,
    probability,
    real,
)
from understudy.shadow.sequential.moments import BoundedMean, Bounds, Moments, OfBounds
from understudy.shadow.state import Derived, Saved, Setting

_CAP = 0.5
_BLOCK = 4  # the running interval is taken every so many records, whatever the batches
_CHUNK = 64 * _BLOCK
_LOG_2 = math.log(2.0)


class BettingInterval(BoundedMean, Process):
    """Confidence sequence for the mean of values in [lower, upper], whatever their law.

    Assumption: every value has the same mean given the past (for drifting means it covers the mean
    only while it does not move). Values outside the bounds are left out and counted in
    ``out_of_bounds``. For paired differences in shadow pass the differences, with bounds
    (lower - upper, upper - lower).

    ``alpha`` is fixed since the bets depend on it. ``cells`` from 8 to 48. The running
    intersection is taken after every 4th record, so it does not depend on how records were
    batched nor on who looked when, and it never widens.

    Merge: product, side by side (a positive bet of one replica times a positive bet of the other
    is again one); exact and associative. The running interval restarts at the merged one.

    Raises SequentialError, which names the argument. Source: Waudby-Smith and Ramdas (2024),
    estimating means of bounded random variables by betting.

    >>> import numpy as np
    >>> sequence = BettingInterval(0.0, 1.0, alpha=0.05)
    >>> sequence.update(np.random.default_rng(0).beta(2.0, 6.0, 2_000))
    >>> found = sequence.interval()
    >>> 0.2 < found.lower < 0.25 < found.upper < 0.3
    True
    """

    kind: ClassVar[str] = "betting-interval"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    alpha: Setting[float]
    cells: Setting[int]
    _edges: Derived[Array]
    _sides: Derived[tuple[tuple[float, Array, Array, Array], ...]]
    """Sign of the bet, end with the larger capital, the other end, cap of the bet."""
    _logs: Saved[Packed]
    """Per cell: ln K+ at its left and right end and S+, ln K- at its right and left end and S-."""
    _running: Saved[Ends]

    def __init__(
        self, lower: float = 0.0, upper: float = 1.0, alpha: float = 0.05, cells: int = 40
    ) -> None:
        self.bounds = Bounds(lower, upper)
        self.alpha = probability("alpha", alpha)
        self.cells = count("cells", cells)
        if not 8 <= self.cells <= 48:
            raise SequentialError("cells", f"must be from 8 to 48, not {cells}")
        self.moments = Moments()
        self._edges = np.sin(np.linspace(0.0, 0.5 * math.pi, self.cells + 1)) ** 2
        left, right = self._edges[:-1], self._edges[1:]
        self._sides = (
            (1.0, left, right, _CAP / right),
            (-1.0, right, left, _CAP / (1.0 - left)),
        )
        self._logs = np.zeros((6, self.cells))
        self._running = Interval(0.0, 1.0)

    def update(self, values: npt.ArrayLike) -> None:
        """Take values in their order of arrival, in their own unit."""
        x = self.bounds.scale(values)
        log_term = math.log(2.0 / self.alpha)
        start = 0
        while start < x.size:
            room = _BLOCK - self.moments.n % _BLOCK
            take = min(room, x.size - start)
            if room == _BLOCK and x.size - start >= _BLOCK:  # whole blocks, many at once
                take = min((x.size - start) // _BLOCK * _BLOCK, _CHUNK)
            part = x[start : start + take]
            if take == 1:
                bet = self.moments.step_one(float(part[0]), log_term)
                self._logs = self._logs + self._one_step(float(part[0]), bet)
                steps = self._logs[:, None, :]
            else:
                steps = self._steps(part, self.moments.step(part, log_term)[1])
                steps[:, 0] += self._logs
                np.cumsum(steps, axis=1, out=steps)
                self._logs = steps[:, -1].copy()
            start += take
            if self.moments.n % _BLOCK == 0:
                self._narrow(steps)

    def _one_step(self, x: float, bet: float) -> Array:
        """:meth:`_steps` of one record, (6, cells)."""
        out = np.empty((6, self.cells))
        for side, (sign, near, far, cap) in enumerate(self._sides):
            lam = np.minimum(bet, cap)
            row = 3 * side
            at_near, at_far = out[row], out[row + 1]
            np.multiply(lam, sign * (x - near), out=at_near)
            np.multiply(lam, sign * (x - far), out=at_far)
            at_near += 1.0
            at_far += 1.0
            np.square(lam / at_near, out=out[row + 2])
            np.log(out[row : row + 2], out=out[row : row + 2])
        return out

    def _steps(self, x: Array, bet: Array) -> Array:
        """What each block of records adds to the state, (6, blocks, cells).

        ``x`` is whole blocks, or less than one.
        """
        shape = (-1, min(x.size, _BLOCK), self.cells)
        out = np.empty((6, max(1, x.size // _BLOCK), self.cells))
        for side, (sign, near, far, cap) in enumerate(self._sides):
            lam = np.minimum(bet[:, None], cap)
            at_near = sign * lam * (x[:, None] - near) + 1.0
            at_far = at_near - lam * np.abs(far - near)
            row = 3 * side
            np.log(at_near.reshape(shape).prod(axis=1), out=out[row])
            np.log(at_far.reshape(shape).prod(axis=1), out=out[row + 1])
            out[row + 2] = np.square(lam / at_near).reshape(shape).sum(axis=1)
        return out

    def _narrow(self, logs: Array) -> None:
        """Intersect the running interval with the sets at the moments of ``logs`` (6, t, cells)."""
        self._running = self._running.intersect(self._limits(logs))

    def _limits(self, logs: Array) -> Interval:
        """The intersection of the sets not excluded at each of some moments, (6, t, cells)."""
        goal = math.log(2.0 / self.alpha)
        width = np.diff(self._edges)
        lower = _crossing(logs[:3], goal, self._edges, width)
        # Seen from the other end of [0, 1] the upper limit is a lower one.
        mirrored = _crossing(logs[3:, :, ::-1], goal, 1.0 - self._edges[::-1], width[::-1])
        return Interval(lower, 1.0 - mirrored)

    def interval(self) -> Interval:
        """The running intersection, in the values' unit: [lower, upper] before the 4th value."""
        return self.bounds.unscale_interval(self._running)

    def merge(self, other: Self) -> Self:
        """Multiply the capitals; the running interval restarts at the merged moment."""
        both = self.begin_merge(other)
        both.bounds = self.bounds.merge(other.bounds)
        both.moments = self.moments.merge(other.moments)
        both._logs = self._logs + other._logs
        both._narrow(both._logs[:, None, :])
        return both


def _crossing(side: Array, goal: float, edges: Array, width: Array) -> float:
    """The largest value below which everything is excluded at one of the moments.

    ``side`` (3, t, cells): ln K at both ends of each cell, the larger first, and S. The first cell
    whose second end is not excluded holds the limit: at its first edge, or where the bound
    high - (high - low) u + q u (1 - u), u in [0, 1], comes down to the goal.
    """
    excluded = side[1] >= goal
    cell = np.argmin(excluded, axis=1)
    rows = np.arange(cell.size)
    whole = excluded[rows, cell]  # every cell excluded: only the last edge is left
    high, low = side[0, rows, cell], side[1, rows, cell]
    q = 0.5 * side[2, rows, cell] * width[cell] ** 2
    above, slope = np.maximum(high - goal, 0.0), (high - low) - q
    root = slope + np.sqrt(slope**2 + 4.0 * q * above)
    share = np.divide(2.0 * above, root, out=np.zeros_like(root), where=above > 0.0)
    limit = edges[cell] + np.minimum(share, 1.0) * width[cell]
    return float(np.where(whole, edges[-1], limit).max())


class BettingTest(EProcess):
    """Evidence that the mean of values in [lower, upper] is not ``null``.

    The capital K+ (``alternative="greater"``: H0 mean <= null), K- ("less": H0 mean >= null), or
    the mean of both ("two-sided"), with the bets above and ln(1/alpha) in place of ln(2/alpha)
    when one-sided. For non-inferiority of a paired difference set ``null`` to minus the margin.

    Assumption: given the past, every value's mean lies on the null hypothesis' side. ``alpha`` only
    tunes the bets. Merge: product, side by side.

    Raises SequentialError, which names the argument.

    >>> import numpy as np
    >>> test = BettingTest(0.2, "greater")
    >>> test.update(np.random.default_rng(0).beta(2.0, 6.0, 2_000))  # their mean is 0.25
    >>> test.rejects(0.05)
    True
    """

    kind: ClassVar[str] = "betting-test"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    bounds: Saved[OfBounds]
    null: Setting[float]
    alternative: Setting[str]
    alpha: Setting[float]
    moments: Saved[Moments]
    _m: Derived[float]
    _log_term: Derived[float]
    _up: Saved[float]
    _down: Saved[float]

    def __init__(
        self,
        null: float,
        alternative: str = "two-sided",
        *,
        lower: float = 0.0,
        upper: float = 1.0,
        alpha: float = 0.05,
    ) -> None:
        self.bounds = Bounds(lower, upper)
        self._m = self.bounds.scale_one("null", null)
        self.null = real("null", null)
        self.alternative = choice("alternative", alternative, "two-sided", "greater", "less")
        self.alpha = probability("alpha", alpha)
        self.moments = Moments()
        self._up = 0.0
        self._down = 0.0
        self._log_term = math.log((2.0 if alternative == "two-sided" else 1.0) / self.alpha)

    @property
    def n(self) -> int:
        """Values within the bounds so far."""
        return self.moments.n

    @property
    def out_of_bounds(self) -> int:
        """Values left out because they lay outside the declared bounds."""
        return self.bounds.outside

    def update(self, values: npt.ArrayLike) -> None:
        """Take values in their order of arrival; the peak sees every one."""
        x = self.bounds.scale(values)
        if not x.size:
            return
        m = self._m
        if x.size == 1:
            value = float(x[0])
            bet = self.moments.step_one(value, self._log_term)
            self._up += math.log1p(min(bet, _CAP / m) * (value - m))
            self._down += math.log1p(-min(bet, _CAP / (1.0 - m)) * (value - m))
            self._look()
            return
        bets = self.moments.step(x, self._log_term)[1]
        gap = x - m
        up = np.log1p(np.minimum(bets, _CAP / m) * gap)
        down = np.log1p(-np.minimum(bets, _CAP / (1.0 - m)) * gap)
        up[0] += self._up
        down[0] += self._down
        up, down = np.cumsum(up), np.cumsum(down)
        self._up, self._down = float(up[-1]), float(down[-1])
        if self.alternative == "two-sided":
            along = np.logaddexp(up, down) - _LOG_2
        else:
            along = up if self.alternative == "greater" else down
        self._look(float(along.max()))

    def log_gains(self, values: Array, squares: Array, n: float) -> Array:
        """What each of ``values`` would add to the log of the capital as record ``n``.

        Shape (streams, values), of a one-sided test. ``squares``: each stream's sum of squared
        deviations from its mean so far, which its bet depends on.
        """
        m, width = self._m, self.bounds.width
        variance = (0.25 + squares / width**2) / n
        bets = np.sqrt(2.0 * self._log_term / (variance * n * math.log1p(n)))[:, None]
        gap = (values - self.bounds.lower) / width - m
        if self.alternative == "greater":
            return np.asarray(np.log1p(np.minimum(bets, _CAP / m) * gap))
        return np.asarray(np.log1p(-np.minimum(bets, _CAP / (1.0 - m)) * gap))

    @property
    def log_e(self) -> float:
        """Evidence against the null hypothesis now."""
        if self.alternative == "two-sided":
            return logaddexp(self._up, self._down) - _LOG_2
        return self._up if self.alternative == "greater" else self._down

    def merge(self, other: Self) -> Self:
        """Multiply the capitals of each side."""
        both = self.begin_merge(other)
        both.bounds = self.bounds.merge(other.bounds)
        both.moments = self.moments.merge(other.moments)
        both._up, both._down = self._up + other._up, self._down + other._down
        both._look()
        return both

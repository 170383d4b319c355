"""When a claim is proven, for many simulated experiments at once.

The tests of an experiment depend on its records through a few sums: counts of outcomes, moments of
values, records above a quantile. So it is these sums that are drawn, for all streams together, at
looks whose distance grows with the records so far, and the e-values are computed from them:

* rates: multinomial counts of outcomes, with the tests' own formulas;
* means: sums of blocks of 16 drawn records, so that skewed values open the gate of the asymptotic
  sequence (arXiv:2103.06476) as late as in traffic;
* quantiles: binomial counts of the records above each arm's true quantile. Around it the empirical
  distribution is the true one shifted by the same amount (Bahadur's representation), so the least
  favourable common value lies between both arms' empirical quantiles;
* bets on bounded pairs: the bet depends on the past through a variance, which is that of all
  streams.

What is left out are the checks of dependence (:mod:`understudy.shadow.sequential.time_blocks`),
which delay independent records by some percent, and the width of buckets. ``plan(…, exact=True)``
feeds every record to the measure instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from understudy.common import special
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures.base import NullBoundary, nulls
from understudy.shadow.experiment.measures.rate import paired_test, split_test
from understudy.shadow.experiment.planned_traffic import (
    Array,
    Traffic,
    at_scores,
    draw_pairs,
    draw_values,
    outcome_shares,
    rates_of,
)
from understudy.shadow.sequential import BettingTest, Gate, LabelBetting
from understudy.shadow.sequential.asymptotic import asymptotic_precision
from understudy.shadow.sequential.normal_mixture import log_normal_mixture
from understudy.shadow.sequential.two_quantiles import one_sided_evidence

GROWTH = 0.02
"""A look comes after this share of the records so far: one after every record would find the end at
most that much earlier."""
FIRST_LOOK = 16
_POOL = 1 << 15
"""Blocks that are drawn, from which streams take theirs."""
_PARTS = 6
"""Blocks that a stream takes at a look, at least: of pooled ones, where records are many."""
_BET_POOL = 1 << 13


class Evidence(ABC):
    """The sums of many streams, one row each; the first column is the challenger's requests."""

    columns: int

    @abstractmethod
    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        """Give each stream ``size`` records after ``seen`` of them."""

    @abstractmethod
    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        """Evidence for the claim, by stream. What is below ``goal`` may be any number below it."""


def crossings(
    hypothesis: Hypothesis,
    traffic: Traffic,
    gap: float,
    goal: float,
    limit: int,
    streams: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> Array:
    """The challenger's requests at the first look at which the evidence reaches ``goal``.

    One number per stream; infinite where that is not within ``limit`` records. ``progress`` is
    called with the share of the work that is done.
    """
    evidence = _evidence_for(hypothesis, traffic, gap, rng)
    ends = np.full(streams, math.inf)
    sums = np.zeros((streams, evidence.columns))
    waiting = np.arange(streams)
    seen = 0
    while seen < limit and waiting.size:
        size = FIRST_LOOK * max(1, int(GROWTH * seen) // FIRST_LOOK)
        evidence.add(sums, seen, size, rng)
        seen += size
        done = evidence.log_e(sums, seen, goal) >= goal
        if done.any():
            ends[waiting[done]] = sums[done, 0]
            waiting, sums = waiting[~done], sums[~done]
        if progress is not None:
            progress(max(1.0 - waiting.size / streams, math.log(seen) / math.log(max(limit, seen))))
    if progress is not None:
        progress(1.0)
    return ends


def _evidence_for(
    hypothesis: Hypothesis, traffic: Traffic, gap: float, rng: np.random.Generator
) -> Evidence:
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        if traffic.share is not None:
            return _Split(hypothesis, traffic.share, gap)
        return _Pairs(hypothesis, traffic, gap)
    if statistic is Statistic.QUANTILE:
        return _Quantiles(hypothesis, traffic, gap)
    if traffic.share is None and hypothesis.bounds is not None:
        return _BoundedPairs(hypothesis, traffic, gap, rng)
    return _Means(hypothesis, traffic, gap, rng)


class _Split(Evidence):
    """Outcomes of split traffic: the four kinds of records, and the capital of each bet."""

    def __init__(self, hypothesis: Hypothesis, share: float, gap: float) -> None:
        self._share = share
        self._test = split_test(hypothesis, nulls(hypothesis)[0], False, share)
        first, second = rates_of(hypothesis, gap)
        self._kinds = np.array(
            [
                (1.0 - share) * (1.0 - first),
                (1.0 - share) * first,
                share * (1.0 - second),
                share * second,
            ]
        )
        bets = self._test.bets if isinstance(self._test, LabelBetting) else 0
        self.columns = 5 + bets

    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        counts = rng.multinomial(size, self._kinds, len(sums)).astype(np.float64)
        if isinstance(self._test, LabelBetting):
            # The rate that is bet on moves within a batch as well: that of its middle.
            good = sums[:, 2] + sums[:, 4] + 0.5 * (counts[:, 1] + counts[:, 3])
            bad = seen + 0.5 * size - good
            sums[:, 5:] += self._test.log_gains(good, bad, counts, self._share)
        sums[:, 0] += counts[:, 2] + counts[:, 3]
        sums[:, 1:5] += counts

    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        if isinstance(self._test, LabelBetting):
            return self._test.log_mixed(sums[:, 5:])
        return self._test.log_e_of(sums[:, 4], sums[:, 2] + sums[:, 4], self._share)


class _Pairs(Evidence):
    """Outcomes of pairs: wins, losses, both and neither; and the capital where bets adapt."""

    columns = 6

    def __init__(self, hypothesis: Hypothesis, traffic: Traffic, gap: float) -> None:
        null = nulls(hypothesis)[0]
        self._test = paired_test(null)
        self._kinds = np.array(outcome_shares(hypothesis, traffic, gap))
        ratio = null.ratio
        # Of challenger - ratio * champion, for each kind of pair.
        self._values = np.array([1.0, -ratio, 1.0 - ratio, 0.0])

    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        counts = rng.multinomial(size, self._kinds, len(sums)).astype(np.float64)
        if isinstance(self._test, BettingTest):
            n = seen + 0.5 * size
            so_far = sums[:, 1:5] + 0.5 * counts
            mean = so_far @ self._values / n
            squares = so_far @ self._values**2 - n * mean * mean
            gains = self._test.log_gains(self._values, squares, n)
            sums[:, 5] += (counts * gains).sum(axis=1)
        sums[:, 0] += size
        sums[:, 1:5] += counts

    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        if isinstance(self._test, BettingTest):
            return sums[:, 5]
        wins, losses = sums[:, 1], sums[:, 2]
        return self._test.log_e_of(wins, losses, seen - wins - losses)


class _Pool:
    """Sums over blocks of successive records, from which streams draw theirs.

    ``blocks``: (blocks, columns), of 16 records each. Longer blocks are sums of these.
    """

    def __init__(self, blocks: Array, rng: np.random.Generator) -> None:
        self._levels = [blocks]
        self._rng = rng

    def draw(self, streams: int, size: int) -> Array:
        """Sums over ``size`` records (a multiple of 16), by stream."""
        count, level = size // FIRST_LOOK, 0
        total = np.zeros((streams, self._levels[0].shape[1]))
        while count:
            odd = count % 2 if count >= 2 * _PARTS else count
            if odd:
                total += self._sum(level, streams, odd)
            count = (count - odd) // 2
            level += 1
        return total

    def _sum(self, level: int, streams: int, count: int) -> Array:
        while level >= len(self._levels):
            last = self._levels[-1]
            self._levels.append(
                last[self._rng.permutation(len(last))] + last[self._rng.permutation(len(last))]
            )
        blocks = self._levels[level]
        chosen = self._rng.integers(0, len(blocks), (streams, count))
        return np.asarray(blocks[chosen].sum(axis=1))


class _Means(Evidence):
    """Power sums of values, by arm or of the difference: see
    :class:`understudy.shadow.experiment.measures.mean.Mean`."""

    columns = 11

    def __init__(
        self, hypothesis: Hypothesis, traffic: Traffic, gap: float, rng: np.random.Generator
    ) -> None:
        self._null = nulls(hypothesis)[0]
        self._precision = asymptotic_precision(hypothesis.planned, min(2.0 * hypothesis.alpha, 0.9))
        self._gate = Gate().effective
        self._paired = traffic.share is None
        size = _POOL * FIRST_LOOK
        if traffic.share is None:
            champion, challenger = draw_pairs(hypothesis, traffic, gap, size, rng)
            challenger = challenger + (gap - float((challenger - champion).mean()))
            self._reference = float(champion.mean())
            rows = _pair_powers(champion - self._reference, challenger - self._reference)
        else:
            arms = (rng.random(size) < traffic.share).astype(np.float64)
            values = draw_values(hypothesis, traffic, arms * gap, size, rng)
            served = arms == 1.0
            # The difference of the pool is the one that is planned for.
            off = float(values[served].mean() - values[~served].mean()) - gap
            values = values - np.where(served, (1.0 - traffic.share) * off, -traffic.share * off)
            self._reference = float(values[~served].mean())
            rows = _arm_powers(values - self._reference, served)
        self._pool = _Pool(rows.reshape(_POOL, FIRST_LOOK, -1).sum(axis=1), rng)

    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        sums[:, 1:] += self._pool.draw(len(sums), size)
        sums[:, 0] = seen + size if self._paired else sums[:, 6]

    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        ratio = self._null.ratio
        first, second = _Moments(sums[:, 1:6]), _Moments(sums[:, 6:11])
        if self._paired:
            # Columns: the champion's n, x and x^2, the challenger's x and x^2; then the difference.
            n = np.full(len(sums), float(seen))
            means = [sums[:, 2] / n, sums[:, 4] / n]
            spread = [sums[:, 3] / n - means[0] ** 2, sums[:, 5] / n - means[1] ** 2]
            between = 0.5 * (spread[0] + spread[1] - second.variance)
            variance = (spread[1] + ratio**2 * spread[0] - 2.0 * ratio * between) / n
            effective = second.effective
        else:
            n = first.n + second.n
            means = [first.mean, second.mean]
            with np.errstate(divide="ignore", invalid="ignore"):
                variance = second.variance / second.n + ratio**2 * first.variance / first.n
            effective = np.minimum(first.effective, second.effective)
        centre = means[1] - ratio * means[0] + (1.0 - ratio) * self._reference - self._null.shift
        if self._null.alternative == "less":
            centre = -centre
        ready = (effective >= self._gate) & (variance > 0.0)
        logs = np.full(len(sums), -math.inf)
        s = np.sqrt(n[ready] / variance[ready]) * centre[ready]
        logs[ready] = log_normal_mixture(s, n[ready], 1.0 / self._precision, sided=1)
        return logs


class _Moments:
    """Mean, variance and effective number (n / kurtosis) of n, sums of x, x^2, x^3 and x^4."""

    def __init__(self, sums: Array) -> None:
        n = np.maximum(sums[:, 0], 1.0)
        m1, m2, m3, m4 = (sums[:, k] / n for k in range(1, 5))
        self.n = sums[:, 0]
        self.mean = m1
        self.variance = np.maximum(m2 - m1**2, 0.0)
        fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1**2 * m2 - 3.0 * m1**4
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.n * self.variance**2 / fourth
        self.effective = np.where(fourth > 0.0, found, 0.0)


def _arm_powers(values: Array, served: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Array:
    powers = values[:, None] ** np.arange(5)
    return np.concatenate((powers * ~served[:, None], powers * served[:, None]), axis=1)


def _pair_powers(champion: Array, challenger: Array) -> Array:
    one = np.ones(champion.size)
    arms = np.stack((one, champion, champion**2, challenger, challenger**2), axis=1)
    return np.concatenate((arms, (challenger - champion)[:, None] ** np.arange(5)), axis=1)


class _BoundedPairs(Evidence):
    """The capital of bets on bounded differences of pairs."""

    columns = 2

    def __init__(
        self, hypothesis: Hypothesis, traffic: Traffic, gap: float, rng: np.random.Generator
    ) -> None:
        null: NullBoundary = nulls(hypothesis)[0]
        assert hypothesis.bounds is not None
        lower, upper = hypothesis.bounds
        ends = (lower * null.ratio, upper * null.ratio)
        self._test = BettingTest(
            null.shift,
            null.alternative,
            lower=lower - max(ends),
            upper=upper - min(ends),
            alpha=hypothesis.alpha,
        )
        size = _BET_POOL * FIRST_LOOK
        champion, challenger = draw_pairs(hypothesis, traffic, gap, size, rng)
        self._values = challenger - null.ratio * champion
        self._variance = float(self._values.var())

    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        n = seen + 0.5 * size
        gains = self._test.log_gains(self._values, np.array([self._variance * n]), n)[0]
        blocks = gains.reshape(_BET_POOL, FIRST_LOOK, 1).sum(axis=1)
        sums[:, 1] += _Pool(blocks, rng).draw(len(sums), size)[:, 0]
        sums[:, 0] += size

    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        return sums[:, 1]


_SCORES = np.linspace(-8.0, 8.0, 8001)
_BETWEEN = np.array([-0.3, -0.15, 0.0, 0.15, 0.3])


class _Quantiles(Evidence):
    """Records of each arm, and how many of them lie above the arm's own quantile."""

    columns = 4

    def __init__(self, hypothesis: Hypothesis, traffic: Traffic, gap: float) -> None:
        self._share = traffic.share
        self._p = hypothesis.metric.p
        self._null = nulls(hypothesis)[0]
        self._planned, self._alpha = hypothesis.planned, hypothesis.alpha
        self._level = np.asarray(special.ndtr(_SCORES))
        self._champion = at_scores(hypothesis, traffic, _SCORES, 0.0)
        self._challenger = at_scores(hypothesis, traffic, _SCORES, gap)

    def add(self, sums: Array, seen: int, size: int, rng: np.random.Generator) -> None:
        if self._share is None:
            served = np.full(len(sums), size)
            others = served
        else:
            served = rng.binomial(size, self._share, len(sums))
            others = size - served
        sums[:, 0] += served
        sums[:, 1] += others
        sums[:, 2] += rng.binomial(others, 1.0 - self._p)
        sums[:, 3] += rng.binomial(served, 1.0 - self._p)

    def log_e(self, sums: Array, seen: int, goal: float) -> Array:
        n1, n0 = sums[:, 0], sums[:, 1]
        logs = np.full(len(sums), -math.inf)
        some = (n0 > 0.0) & (n1 > 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # How far the empirical distribution lies below the true one, around the quantile.
            shift0 = sums[:, 2] / n0 - (1.0 - self._p)
            shift1 = sums[:, 3] / n1 - (1.0 - self._p)
        a0 = np.interp(self._p + shift0, self._level, self._champion)
        a1 = np.interp(self._p + shift1, self._level, self._challenger)
        a1 = (a1 - self._null.shift) / self._null.ratio
        weight = n1 / (n0 + n1)
        for number, step in enumerate((np.zeros(1), _BETWEEN)):
            at = np.flatnonzero(some)
            if not at.size:
                break
            part = np.clip(weight[at, None] + step, 0.0, 1.0)
            x = a0[at, None] + part * (a1 - a0)[at, None]
            found = self._evidence(x, n0[at], n1[at], shift0[at], shift1[at]).min(axis=1)
            logs[at] = found
            # The evidence at any one value bounds the least from above.
            some[at] = found >= goal if number == 0 else False
        return logs

    def _evidence(self, x: Array, n0: Array, n1: Array, shift0: Array, shift1: Array) -> Array:
        below0 = np.interp(x, self._champion, self._level) - shift0[:, None]
        y = self._null.ratio * x + self._null.shift
        below1 = np.interp(y, self._challenger, self._level) - shift1[:, None]
        # The least favourable value lies beside a record of each arm, which then counts against.
        step = 1.0 if self._null.alternative == "greater" else -1.0
        return one_sided_evidence(
            np.clip(below0 * n0[:, None] - step, 0.0, n0[:, None]),
            n0[:, None],
            np.clip(below1 * n1[:, None] + step, 0.0, n1[:, None]),
            n1[:, None],
            self._p,
            self._null.alternative,
            planned=self._planned,
            alpha=self._alpha,
            independent=self._share is not None,
        )

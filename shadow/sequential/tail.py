"""Did anything in the tail get worse? Exceedance counts over several thresholds at once.

Thresholds t_j run from the champion's median to its p99.9 and are frozen before the test. A record
above t_j went to the challenger with the known probability rho of its assignment, if the arms
do not differ. If the challenger exceeds t_j more often, with odds higher by a factor e^d, it is

    theta = rho e^d / (rho e^d + 1 - rho),

and E = mean over j and d of prod (theta/rho)^[challenger] ((1-theta)/(1-rho))^[champion] over the
exceedances of t_j: a mixture of likelihood ratios, each a supermartingale under "at every record
the challenger exceeds t_j no more often than the champion would". Looking at all thresholds through
one e-process is the idea of Lindon, Sanden & Shirikian (Netflix), arXiv:2205.14762; the count
process with its known share is Lindon & Malek, arXiv:2011.03567, Theorem 1 with the mixture over a
grid of d instead of a Dirichlet, so that the evidence adds up over records, replicas and a changing
rho.

What is needed of the assignment: every record has its own draw. Given that, the common level may
drift, burst or be autocorrelated in any way, as long as the *arms* do not differ. It is not enough
when each arm has slow episodes of its own (say, two servers that pause independently): exceedances
then come in runs of one arm, which :attr:`TailDetector.clustering` measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common.arrays import distinct
from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.common import (
    Array,
    EProcess,
    MergeRule,
    Packed,
    SequentialError,
    choice,
    logmeanexp,
    pack,
    positive,
    reals,
    same_length,
    shares_of,
    unpack,
)
from understudy.shadow.sequential.histogram import check_counts, check_edges
from understudy.shadow.state import Converter, Count, Derived, FieldError, Saved, Setting, Two

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Default quantiles of the champion at which the thresholds are set."""
MAX_THRESHOLDS = 16
_CHUNK = 512
_WATCHED = 0.95
_BETS = 4


def _effects(level: float) -> tuple[float, ...]:
    """Log odds ratios to bet on at the threshold of one level.

    A change that shows at the median is small against the many records there; one that
    shows only beyond p99 multiplies a rare event. A factor of 2 between bets costs at most 6 % of
    the growth of the best one.
    """
    if level <= 0.9:
        return (0.05, 0.1, 0.2, 0.4)
    return (0.1, 0.2, 0.4, 0.8) if level <= 0.98 else (0.4, 0.8, 1.6, 2.6)


def tail_thresholds(
    edges: npt.ArrayLike, counts: npt.ArrayLike, levels: npt.ArrayLike = LEVELS
) -> tuple[Array, Array]:
    """Thresholds and their levels from a histogram of the champion's past, to be frozen.

    ``edges`` and ``counts`` (one more than edges) as in
    :mod:`understudy.shadow.sequential.histogram`. Each threshold is the first edge with at least
    that share at or below. Levels that fall on the same edge, beyond the last edge, or beyond what
    the records can tell (fewer than five above) are left out. The records used here must not be fed
    to the detector.
    """
    e = check_edges(edges)
    c = check_counts("counts", counts, e.size + 1)
    below, n = np.cumsum(c[:-1]), int(c.sum())
    if n < 20:
        raise SequentialError("counts", f"must hold at least 20 records to set thresholds, not {n}")
    kept: dict[int, float] = {}
    for level in _check_levels(levels):
        at = int(np.searchsorted(below, level * n))
        if at < e.size and n - below[at] >= 5:
            kept.setdefault(at, float(level))
    if not kept:
        raise SequentialError("edges", "must have an edge that some records exceed")
    return e[list(kept)], np.array(list(kept.values()))


def _check_levels(levels: npt.ArrayLike) -> Array:
    q = reals("levels", levels)
    if not 0 < q.size <= MAX_THRESHOLDS:
        raise SequentialError("levels", f"must be 1 to {MAX_THRESHOLDS} values, not {q.size}")
    if not ((q > 0.0) & (q < 1.0)).all() or not (np.diff(q) > 0.0).all():
        raise SequentialError("levels", "must increase strictly between 0 and 1")
    return q


def _load_thresholds(name: str, text: Any, _: Any) -> Array:
    # As many as there are levels, which the constructor checks.
    return unpack(name, text, len(text) * 3 // 32 if isinstance(text, str) else 0)


def _load_levels(name: str, values: Any, _: Any) -> Array:
    return _check_levels(values)


@dataclass(frozen=True, slots=True)
class TailFinding:
    """One threshold: how often it was exceeded, and the evidence there alone."""

    threshold: float
    level: float
    champion: float | None
    """Share of the champion's records above; None without records."""
    challenger: float | None
    log_e: float


@lru_cache(maxsize=64)
def _table(share: float, ratio: float, sign: float, levels: tuple[float, ...]) -> Array:
    """ln of the factor of one exceedance, shape (2 arms, thresholds, bets)."""
    null = share * ratio / (share * ratio + 1.0 - share)
    d = sign * np.array([_effects(level) for level in levels])
    # theta/null and (1-theta)/(1-null), written so that a share near 0 or 1 loses no digits
    grown = np.log1p(null * np.expm1(d))
    table = np.stack((-grown, d - grown))
    table.setflags(write=False)
    return table


class TailDetector(EProcess):
    """One e-process over all thresholds of the tail.

    ``thresholds``: increasing, in the unit of the values; ``levels``: the champion's quantile that
    each stands for (chooses the bets). ``alternative``: "greater" (the challenger exceeds more
    often: worse, for a latency), "less" or "two-sided". ``ratio`` >= 1 is the margin: the
    challenger may exceed any threshold up to ``ratio`` times as often ("less": down to 1/ratio).

    Only counts and sums of log factors are kept. Merge: additive, exact up to rounding; a
    changing share simply adds up. The peak sees every record of a batch.
    """

    kind: ClassVar[str] = "tail-detector"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    thresholds: Setting[Annotated[Array, Converter(pack, _load_thresholds)]]
    levels: Setting[Annotated[Array, Converter(np.ndarray.tolist, _load_levels)]]
    alternative: Setting[str]
    ratio: Setting[float]
    _signs: Derived[tuple[float, ...]]
    _key: Derived[tuple[float, ...]]
    _logs: Saved[Packed]
    records: Saved[npt.NDArray[np.int64]]
    exceeded: Saved[npt.NDArray[np.int64]]
    _watched: Derived[int]
    _runs: Saved[Two[Count]]
    """Successive exceedances of the watched threshold; those of the same arm."""
    _last: Saved[int | None]
    """The arm of the last exceedance of that threshold."""

    def __init__(
        self,
        thresholds: npt.ArrayLike,
        levels: npt.ArrayLike = LEVELS,
        alternative: str = "greater",
        *,
        ratio: float = 1.0,
    ) -> None:
        self.thresholds = check_edges(thresholds)
        self.levels = _check_levels(levels)
        if self.thresholds.size != self.levels.size:
            raise SequentialError(
                "levels",
                f"must be as many as thresholds ({self.thresholds.size}), not {self.levels.size}",
            )
        self.alternative = choice("alternative", alternative, "greater", "less", "two-sided")
        self.ratio = positive("ratio", ratio)
        if self.ratio < 1.0:
            raise SequentialError("ratio", f"must be at least 1, not {self.ratio}")
        self._signs = {"greater": (1.0,), "less": (-1.0,), "two-sided": (1.0, -1.0)}[alternative]
        self._key = tuple(self.levels.tolist())
        size = self.thresholds.size
        self._logs = np.zeros((size, _BETS * len(self._signs)))
        self.records = np.zeros(2, dtype=np.int64)
        self.exceeded = np.zeros((2, size), dtype=np.int64)
        self._watched = int(np.argmin(np.abs(self.levels - _WATCHED)))
        self._runs = [0, 0]
        self._last = None

    def _restored(self) -> None:
        if self.records.min() < 0 or self.exceeded.min() < 0:
            raise FieldError("records", "and exceeded must be at least 0")
        if self._last not in (None, 0, 1):
            raise FieldError("last", f"must be an arm or null, not {self._last!r}")

    @property
    def log_e(self) -> float:
        """Evidence that some threshold is exceeded more often (or less, or differently)."""
        top = float(self._logs.max())
        return top + math.log(float(np.exp(self._logs - top).mean()))

    @property
    def clustering(self) -> float:
        """How much exceedances come in runs of one arm, in standard errors; 0 when independent.

        Above 4 the arms have slow episodes of their own and the guarantee does not hold: compare
        blocks of time longer than an episode instead.
        """
        pairs, same = self._runs
        w = self.exceeded[:, self._watched]
        total = int(w.sum())
        if pairs < 20 or not total:
            return 0.0
        share = float(w[1]) / total
        expected = share * share + (1.0 - share) ** 2
        spread = math.sqrt(pairs * expected * (1.0 - expected))
        return (same - pairs * expected) / spread if spread > 0.0 else 0.0

    def update(
        self,
        arms: npt.ArrayLike,
        values: npt.ArrayLike,
        share: float | npt.ArrayLike,
        *,
        peak: bool = True,
    ) -> None:
        """Take records in their order of arrival.

        ``arms``: 1 where the challenger served, 0 where the champion did; ``values`` in the unit of
        the thresholds; ``share``: the challenger's probability when each record was assigned, one
        number or one per record, strictly between 0 and 1. Without ``peak`` the running maximum is
        looked at once, at the end of the batch, which is several times faster; the evidence is the
        same.
        """
        arm, x = of_arms(arms, values)
        rho = shares_of(arm, share)
        above = np.searchsorted(self.thresholds, x)  # thresholds below x: how many it exceeds
        side = arm.astype(np.int64)
        served = int(side.sum())
        self.records += (arm.size - served, served)
        self._watch(side[above > self._watched])
        if arm.size == 1:
            self._take_one(int(side[0]), int(above[0]), float(rho[0]))
            return
        if not peak:
            self._take_counts(side, np.zeros_like(above), above, rho)
            return
        hit = np.nonzero(above)[0]
        reached = np.arange(self.thresholds.size)
        for start in range(0, hit.size, _CHUNK):
            rows = hit[start : start + _CHUNK]
            mask = above[rows, None] > reached
            self._take(side[rows], mask, rho if rho.size == 1 else rho[rows])

    def update_pairs(
        self, champion: npt.ArrayLike, challenger: npt.ArrayLike, *, peak: bool = True
    ) -> None:
        """Take values of both arms for the same requests (shadow mode), in order of arrival.

        A pair counts at a threshold when only one of the two exceeds it; each is then as likely to
        be that one (Bernoulli 1/2). What this says about *latency* in shadow is not causal: the
        mirrored request shares its load with the champion's.
        """
        x0, x1 = reals("champion", champion), reals("challenger", challenger)
        same_length(("champion", "challenger"), x0, x1)
        self.records += x0.size
        half = np.array([0.5])
        if not peak:
            first, second = (np.searchsorted(self.thresholds, x) for x in (x0, x1))
            side = (second > first).astype(np.int64)
            low, high = np.minimum(first, second), np.maximum(first, second)
            self._watch(side[(low <= self._watched) & (self._watched < high)])
            self._take_counts(side, low, high, half)
            return
        for start in range(0, x0.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            over0 = x0[part, None] > self.thresholds
            over1 = x1[part, None] > self.thresholds
            mask = over0 != over1
            rows = np.nonzero(mask.any(axis=1))[0]
            side = (x1[part] > x0[part]).astype(np.int64)
            self._watch(side[mask[:, self._watched]])
            self._take(side[rows], mask[rows], half)

    def _take_one(self, side: int, reached: int, rho: float) -> None:
        """A batch of one, by the same arithmetic as :meth:`_take`."""
        if reached:
            self._logs[:reached] += self._factors(rho)[side, :reached]
            self.exceeded[side, :reached] += 1
            self._look()

    def _take(self, side: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], rho: Array) -> None:
        """Add exceedances: ``side`` (rows,) arm, ``mask`` (rows, thresholds) where it counts."""
        if not side.size:
            return
        rates, which = (rho, 0) if rho.size == 1 else np.unique(rho, return_inverse=True)
        tables = np.stack([self._factors(float(r)) for r in rates])
        steps = tables[which, side] * mask[:, :, None]
        steps[0] += self._logs
        along = np.cumsum(steps, axis=0)
        self._logs = along[-1].copy()
        self.exceeded[1] += mask[side == 1].sum(axis=0)
        self.exceeded[0] += mask[side == 0].sum(axis=0)
        self._look(float(logmeanexp(along.reshape(side.size, -1)).max()))

    def _take_counts(
        self,
        side: npt.NDArray[np.int64],
        low: npt.NDArray[np.intp],
        high: npt.NDArray[np.intp],
        rho: Array,
    ) -> None:
        """Add records of an arm that count at the thresholds from ``low`` on, below ``high``."""
        width = self.thresholds.size + 1
        for share in distinct(rho) if rho.size > 1 else rho:
            here = slice(None) if rho.size == 1 else rho == share
            code = width * side[here]
            ends = np.bincount(code + high[here], minlength=2 * width)
            ends -= np.bincount(code + low[here], minlength=2 * width)
            # How many end beyond each threshold, less those that begin there.
            counts = ends.reshape(2, width)[:, :0:-1].cumsum(axis=1)[:, ::-1]
            self._logs = self._logs + (counts[:, :, None] * self._factors(float(share))).sum(axis=0)
            self.exceeded += counts
        self._look()

    def _factors(self, share: float) -> Array:
        """ln factors (2 arms, thresholds, bets of all signs)."""
        parts = [
            _table(share, self.ratio if sign > 0.0 else 1.0 / self.ratio, sign, self._key)
            for sign in self._signs
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _watch(self, side: npt.NDArray[np.int64]) -> None:
        if not side.size:
            return
        chain = side if self._last is None else np.concatenate(([self._last], side))
        self._runs[0] += chain.size - 1
        self._runs[1] += int(np.count_nonzero(chain[1:] == chain[:-1]))
        self._last = int(side[-1])

    def findings(self) -> list[TailFinding]:
        """Every threshold with its exceedance rates and its own evidence, strongest first."""
        alone = logmeanexp(self._logs)
        rates = [
            (self.exceeded[arm] / n).tolist() if (n := int(self.records[arm])) else None
            for arm in (0, 1)
        ]
        found = [
            TailFinding(
                float(self.thresholds[j]),
                float(self.levels[j]),
                rates[0][j] if rates[0] else None,
                rates[1][j] if rates[1] else None,
                float(alone[j]),
            )
            for j in range(self.thresholds.size)
        ]
        return sorted(found, key=lambda finding: -finding.log_e)

    def merge(self, other: Self) -> Self:
        """Add counts and log factors."""
        both = self.begin_merge(other)
        both._logs = self._logs + other._logs
        both.records = self.records + other.records
        both.exceeded = self.exceeded + other.exceeded
        both._runs = [a + b for a, b in zip(self._runs, other._runs, strict=True)]
        both._look()
        return both

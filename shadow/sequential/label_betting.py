"""Split traffic, binary outcomes: betting on which arm a record came from.

Each record went to the challenger with the known probability rho, whatever its outcome would be. If
the arms do not differ, the outcome says nothing about the arm, and no bet on it can
profit. The bet of effect delta multiplies the capital by

    f = p_arm(y) / (rho p_1(y) + (1 - rho) p_0(y)),
    p_1 = expit(beta + delta (1 - rho)),  p_0 = expit(beta - delta rho),

with beta the logit of the pooled success rate of the *past*; capitals are mixed over a grid of
delta. Only the randomisation is used: the base rate may drift, burst or be autocorrelated in any
way (design-based; compare Podkopaev & Ramdas 2023). f is the likelihood ratio against the reverse
information projection of the alternative on "no difference", and with a margin it is the one
against the projection on {theta_1 - theta_0 <= margin}, which is an e-variable because that set is
convex (Turner & Gruenwald, arXiv:2203.09785; Gruenwald, de Heide & Koolen, arXiv:1906.07801).

What is needed of the assignment, and refused otherwise: every record has its own draw. Blocks of
time, or many records of one sticky unit, make arms predictable from the past: analyse those by
block or by unit (one record per unit).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import (
    Array,
    EProcess,
    MergeRule,
    Packed,
    SequentialError,
    binary,
    choice,
    logmeanexp,
    non_negative,
    positive,
    probability,
    real,
    same_length,
    shares_of,
)
from understudy.shadow.state import Count, Derived, Saved, Setting, Two

GRID = 21
_REACH = 3.0  # the grid spans this many standard deviations
_BIN = 1.0 / 16.0  # beta is rounded to this: misjudging the base rate by 3 % costs no power
_MAX_BETA = 14.0
_CHUNK = 1024
_Settings = tuple[float, str, float, float, float]

_REFUSED = {
    "time-block": "alternating blocks of time confound the arm with whatever else changed; compare "
    "blocks as units, or split per record",
    "sticky": "repeated records of one unit share one draw; feed one record per unit",
}


def log_odds_effect(base_rate: float, difference: float) -> float:
    """The effect on the logit scale of moving ``base_rate`` by ``difference``; its sign is kept.

    ``base_rate`` is a probability in (0, 1), ``difference`` is added to it; their sum has to be in
    (0, 1) too, or SequentialError is raised.

    >>> round(log_odds_effect(0.10, -0.02), 3)
    -0.245
    """
    base = probability("base_rate", base_rate)
    moved = base + real("difference", difference)
    if not 0.0 < moved < 1.0:
        raise SequentialError("difference", f"must keep the rate between 0 and 1, not at {moved}")
    return math.log(moved / (1.0 - moved)) - math.log(base / (1.0 - base))


@lru_cache(maxsize=256)
def _grid(effect: float, centre: float, width: float, alternative: str) -> tuple[Array, Array]:
    """Effects on the logit scale and the logs of their weights, both of shape (bets,)."""
    if alternative == "two-sided" and centre == 0.0:
        unit = _REACH * width * np.linspace(-1.0, 1.0, GRID)
    else:
        size = GRID // 2 if alternative == "two-sided" else GRID
        unit = np.linspace(max(0.05, centre - _REACH * width), centre + _REACH * width, size)
        if alternative == "two-sided":
            unit = np.concatenate((-unit[::-1], unit))
    log_weight = -0.5 * ((np.abs(unit) - centre) / width) ** 2
    log_weight -= math.log(float(np.exp(log_weight).sum()))
    return effect * (-unit if alternative == "less" else unit), log_weight


def _project(p1: Array, p0: Array, share: float, margin: float) -> tuple[Array, Array]:
    """The pair on theta_1 - theta_0 = margin nearest to (p1, p0), elementwise.

    Minimises share KL(p1, q1) + (1 - share) KL(p0, q1 - margin) by Newton steps kept inside a
    shrinking bracket.
    """
    low = np.full_like(p1, max(0.0, margin))
    high = np.full_like(p1, min(1.0, 1.0 + margin))
    q = np.clip(share * p1 + (1.0 - share) * (p0 + margin), low + 1e-12, high - 1e-12)
    for _ in range(60):
        r = q - margin
        v1, v0 = q * (1.0 - q), r * (1.0 - r)
        slope = share * (q - p1) / v1 + (1.0 - share) * (r - p0) / v0
        low, high = np.where(slope < 0.0, q, low), np.where(slope < 0.0, high, q)
        curve = share * (p1 / q**2 + (1.0 - p1) / (1.0 - q) ** 2)
        curve += (1.0 - share) * (p0 / r**2 + (1.0 - p0) / (1.0 - r) ** 2)
        step = q - slope / curve
        inside = (step > low) & (step < high)
        new = np.where(inside, step, 0.5 * (low + high))
        if np.all(np.abs(new - q) <= 1e-15 + 1e-14 * np.abs(q)):
            break
        q = new
    return q, q - margin


@lru_cache(maxsize=4096)
def _log_factors(bin_: int, share: float, settings: _Settings) -> Array:
    """ln f for (champion failed, champion succeeded, challenger failed, challenger succeeded).

    Shape (4, bets): row 2 * arm + outcome.
    """
    effect, alternative, margin, centre, width = settings
    delta, _ = _grid(effect, centre, width, alternative)
    rate = 1.0 / (1.0 + math.exp(-bin_ * _BIN))
    edge = 1e-9
    base1 = min(max(rate + (1.0 - share) * margin, max(0.0, margin) + edge), 1.0 - edge)
    base1 = min(base1, 1.0 + margin - edge)
    base0 = base1 - margin
    odds1 = base1 / (1.0 - base1) * np.exp(delta * (1.0 - share))
    odds0 = base0 / (1.0 - base0) * np.exp(-delta * share)
    p1, p0 = odds1 / (1.0 + odds1), odds0 / (1.0 + odds0)
    if margin == 0.0:
        q1 = q0 = share * p1 + (1.0 - share) * p0
    else:
        q1, q0 = _project(p1, p0, share, margin)
    factors = np.stack(((1.0 - p0) / (1.0 - q0), p0 / q0, (1.0 - p1) / (1.0 - q1), p1 / q1))
    # The mean of f is linear along the null's edge, so its largest value sits at an end of it; what
    # rounding left above 1 is divided out and the bet stays fair exactly.
    worst = np.ones_like(p1)
    for theta1 in (max(0.0, margin), min(1.0, 1.0 + margin)):
        theta0 = theta1 - margin
        mean1 = theta1 * factors[3] + (1.0 - theta1) * factors[2]
        mean0 = theta0 * factors[1] + (1.0 - theta0) * factors[0]
        worst = np.maximum(worst, share * mean1 + (1.0 - share) * mean0)
    table = np.log(factors) - np.log(worst)
    table.setflags(write=False)
    return table


_Counted = list[tuple[int, float, npt.NDArray[np.int64]]]
"""Bin of the past rate, share, and the records with these by 2 * arm + outcome, shape (4,)."""


def _checked(
    arms: npt.ArrayLike, outcomes: npt.ArrayLike, share: float | npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Arms, outcomes and shares of records; the shares are one number where they are alike."""
    arm, y = binary("arms", arms), binary("outcomes", outcomes)
    same_length(("arms", "outcomes"), arm, y)
    return arm, y, shares_of(arm, share)


def _chunks(size: int) -> Iterator[slice]:
    for start in range(0, size, _CHUNK):
        yield slice(start, start + _CHUNK)


def _binned(good: npt.NDArray[Any], bad: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The bin of the rate of so many successes and failures, on the logit scale."""
    beta = np.log((good + 0.5) / (bad + 0.5))
    return np.rint(np.clip(beta, -_MAX_BETA, _MAX_BETA) / _BIN).astype(np.int64)


def _coded(arm: Array, y: Array) -> npt.NDArray[np.int64]:
    """2 * arm + outcome of each record."""
    return (2.0 * arm + y).astype(np.int64)


def _counted(bins: npt.NDArray[np.int64], code: npt.NDArray[np.int64], rho: Array) -> _Counted:
    """Count the records that are alike."""
    shares, of_share = (rho, None) if rho.size == 1 else np.unique(rho, return_inverse=True)
    low = int(bins.min())
    span = int(bins.max()) - low + 1
    key = 4 * (bins - low) + code
    if of_share is not None:
        key += 4 * span * of_share
    counts = np.bincount(key, minlength=4 * span * shares.size).reshape(shares.size, span, 4)
    return [
        (low + int(b), float(shares[i]), counts[i, b])
        for i, b in zip(*np.nonzero(counts.any(axis=2)), strict=True)
    ]


class LabelBetting(EProcess):
    """Are success rates of challenger and champion alike (or within a margin) on split traffic?

    ``effect`` is the smallest effect that matters, on the logit scale (see
    :func:`log_odds_effect`). The 21 bets (20 when two-sided) lie under a bell around ``centre``
    times the effect with standard deviation ``width`` times it, on each side that is tested; the
    default decides in about 0.85 of the fixed-horizon sample in the median. ``centre=0, width=1.5``
    is the plain Gaussian grid. ``margin`` is the difference of rates, challenger minus champion, on
    the null hypothesis' edge.

    Null hypotheses, all about every record given everything before it (theta_a = success
    probability if sent to arm a):

    * ``alternative="greater"``: theta_1 - theta_0 <= margin (superiority at margin 0;
      non-inferiority of a rate where higher is better at margin -d);
    * ``"less"``: theta_1 - theta_0 >= margin (the same for error rates);
    * ``"two-sided"``: theta_1 - theta_0 = margin.

    A margin on the *ratio* is not a bet of this form: use :class:`RateTest` on the events.

    Merge: product, effect by effect, so that replicas which each fed their own records add up;
    associative and exact. ``assignment`` must be "independent": "time-block" and "sticky" are
    refused.

    Raises SequentialError, which names the argument, for a value that cannot be used.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> test = LabelBetting(log_odds_effect(0.10, -0.02), "less")  # 2 points fewer errors matter
    >>> arms = (rng.random(20_000) < 0.5).astype(float)  # 1: the challenger served
    >>> errors = (rng.random(20_000) < np.where(arms == 1, 0.07, 0.10)).astype(float)
    >>> test.update(arms, errors, share=0.5)
    >>> test.rejects(0.05)
    True
    """

    kind: ClassVar[str] = "label-betting"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    effect: Setting[float]
    alternative: Setting[str]
    margin: Setting[float]
    centre: Setting[float]
    width: Setting[float]
    _key: Derived[_Settings]
    _log_weight: Derived[Array]
    _logs: Saved[Packed]
    """Of the capital of each effect."""
    records: Saved[Two[Count]]
    successes: Saved[Two[Count]]

    def __init__(
        self,
        effect: float,
        alternative: str = "two-sided",
        *,
        margin: float = 0.0,
        centre: float = 1.1,
        width: float = 0.5,
        assignment: str = "independent",
    ) -> None:
        if assignment in _REFUSED:
            raise SequentialError(
                "assignment", f"{assignment!r} is refused: {_REFUSED[assignment]}"
            )
        choice("assignment", assignment, "independent")
        self.effect = abs(real("effect", effect))
        if not 0.0 < self.effect <= 10.0:
            raise SequentialError("effect", f"must be above 0 and at most 10, not {effect!r}")
        self.alternative = choice("alternative", alternative, "two-sided", "greater", "less")
        self.margin = real("margin", margin)
        if not -1.0 < self.margin < 1.0:
            raise SequentialError("margin", f"must lie strictly between -1 and 1, not {margin!r}")
        self.centre = non_negative("centre", centre)
        self.width = positive("width", width)
        if max(self.centre, self.width) > 10.0:
            raise SequentialError("width", "and centre must be at most 10 (times the effect)")
        self._key = (
            self.effect,
            self.alternative,
            self.margin,
            self.centre,
            self.width,
        )
        self._log_weight = _grid(self.effect, self.centre, self.width, self.alternative)[1]
        self._logs = np.zeros(self._log_weight.size)
        self.records = [0, 0]
        self.successes = [0, 0]

    @property
    def log_e(self) -> float:
        """Evidence against the null hypothesis now."""
        logs = self._logs + self._log_weight
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).sum()))

    @property
    def bets(self) -> int:
        """The number of effects that are bet on."""
        return int(self._log_weight.size)

    def log_gains(self, good: Array, bad: Array, counts: Array, share: float) -> Array:
        """What records add to the logs of the capitals: (streams, bets), for many streams at once.

        ``good`` and ``bad``: each stream's successes and failures before them. ``counts``
        (streams, 4): records in which the champion failed, the champion succeeded, the challenger
        failed, the challenger succeeded.
        """
        bins, of_stream = np.unique(_binned(good, bad), return_inverse=True)
        tables = np.stack([_log_factors(int(bin_), share, self._key) for bin_ in bins])
        return np.asarray(np.einsum("sk,skb->sb", counts, tables[of_stream]))

    def log_mixed(self, logs: Array) -> Array:
        """Evidence from the logs of the capitals of each effect, along the last axis."""
        return logmeanexp(logs, self._log_weight)

    def rates(self) -> tuple[float | None, float | None]:
        """Success rates of champion and challenger; None where there is no record."""
        champion, challenger = (
            s / n if n else None for s, n in zip(self.successes, self.records, strict=True)
        )
        return champion, challenger

    def update(
        self,
        arms: npt.ArrayLike,
        outcomes: npt.ArrayLike,
        share: float | npt.ArrayLike,
        *,
        peak: bool = True,
    ) -> None:
        """Take records in their order of arrival.

        ``arms``: 1 where the challenger served, 0 where the champion did; ``outcomes``: 0 or 1;
        ``share``: the challenger's probability when each record was assigned, one number or one
        per record, strictly between 0 and 1. A ramp simply passes its new share. Without ``peak``
        the running maximum is looked at once, at the end of the batch, which is several times
        faster; the evidence is the same.
        """
        if np.ndim(arms) == 0 and np.ndim(outcomes) == 0 and np.ndim(share) == 0:
            self._take_one(arms, outcomes, share)
            return
        arm, y, rho = _checked(arms, outcomes, share)
        for part in _chunks(arm.size):
            bins, code = self._bins(y[part]), _coded(arm[part], y[part])
            rhos = rho if rho.size == 1 else rho[part]
            if peak:
                self._take(bins, code, rhos)
            else:
                self._take_counts(_counted(bins, code, rhos))

    @staticmethod
    def update_all(
        tests: Sequence[LabelBetting],
        arms: npt.ArrayLike,
        outcomes: npt.ArrayLike,
        share: float | npt.ArrayLike,
    ) -> None:
        """Give several tests the same records, as :meth:`update` without ``peak`` does. Those that
        have seen as many successes and failures bet on the same rates, which are worked out once.
        """
        arm, y, rho = _checked(arms, outcomes, share)
        for part in _chunks(arm.size):
            code, rhos = _coded(arm[part], y[part]), rho if rho.size == 1 else rho[part]
            found: dict[tuple[int, int], _Counted] = {}
            for test in tests:
                seen = sum(test.records), sum(test.successes)
                if seen not in found:
                    found[seen] = _counted(test._bins(y[part]), code, rhos)
                test._take_counts(found[seen])

    def _bins(self, y: Array) -> npt.NDArray[np.int64]:
        """The bin of the past rate before each record; of all together, shape (1,), where it is
        the same."""
        seen, good = sum(self.records), sum(self.successes)
        won = int(y.sum())
        # The lowest it can be, when all failures come first, and the highest.
        lost = y.size - won
        ends = _binned(np.array((good, good + won)), np.array((seen - good + lost, seen - good)))
        if ends[0] == ends[1]:
            return ends[:1]
        past_good = good + np.cumsum(y) - y
        return _binned(past_good, (seen + np.arange(y.size)) - past_good)

    def _take(self, bins: npt.NDArray[np.int64], code: npt.NDArray[np.int64], rho: Array) -> None:
        """Records one after the other, with a look after each."""
        steps = self._factors(bins, code, rho)
        steps[0] += self._logs
        np.cumsum(steps, axis=0, out=steps)
        self._logs = steps[-1].copy()
        if code.size > 1:
            self._look(float(logmeanexp(steps[:-1], self._log_weight).max()))
        self._count(np.bincount(code, minlength=4))

    def _take_counts(self, counted: _Counted) -> None:
        """Records that are alike together, with one look at the end."""
        total = np.zeros(self._logs.size)
        codes = np.zeros(4, np.int64)
        for bin_, share, counts in counted:
            total += counts @ _log_factors(bin_, share, self._key)
            codes += counts
        self._logs = self._logs + total
        self._count(codes)

    def _count(self, codes: npt.NDArray[np.int64]) -> None:
        """Add records by 2 * arm + outcome, and look."""
        failed0, won0, failed1, won1 = codes.tolist()
        self.records = [self.records[0] + failed0 + won0, self.records[1] + failed1 + won1]
        self.successes = [self.successes[0] + won0, self.successes[1] + won1]
        self._look()

    def _take_one(self, arm: Any, outcome: Any, share: Any) -> None:
        """A batch of one, by the same arithmetic as :meth:`_take`."""
        rho = probability("share", share)
        for name, value in (("arms", arm), ("outcomes", outcome)):
            if value not in (0, 1):
                raise SequentialError(name, "must hold only 0 and 1")
        a, y = int(arm), int(outcome)
        good = sum(self.successes)
        bad = sum(self.records) - good
        beta = min(max(float(np.log((good + 0.5) / (bad + 0.5))), -_MAX_BETA), _MAX_BETA)
        self._logs = self._logs + _log_factors(round(beta / _BIN), rho, self._key)[2 * a + y]
        self.records[a] += 1
        self.successes[a] += y
        self._look()

    def _factors(
        self, bins: npt.NDArray[np.int64], code: npt.NDArray[np.int64], rho: Array
    ) -> Array:
        """ln f per record and effect, shape (records, bets), from one table per (beta, share)."""
        shares, of_share = (rho, None) if rho.size == 1 else np.unique(rho, return_inverse=True)
        low = int(bins.min())
        span = int(bins.max()) - low + 1
        key = bins - low if of_share is None else (bins - low) + span * of_share
        if span == 1 and of_share is None:
            return _log_factors(low, float(shares[0]), self._key)[code]
        used, of_key = np.unique(key, return_inverse=True)
        tables = np.stack(
            [
                _log_factors(low + int(u) % span, float(shares[int(u) // span]), self._key)
                for u in used
            ]
        )
        return np.asarray(tables[of_key, code], dtype=np.float64)

    def merge(self, other: Self) -> Self:
        """Multiply the capitals of each effect; add the counts."""
        both = self.begin_merge(other)
        both._logs = self._logs + other._logs
        both.records = [a + b for a, b in zip(self.records, other.records, strict=True)]
        both.successes = [a + b for a, b in zip(self.successes, other.successes, strict=True)]
        both._look()
        return both

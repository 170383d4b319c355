"""Paired outcomes in shadow mode: the sequential McNemar test, also with a margin.

Champion and challenger answer the same request, so each pair gives D = +1 (only the challenger was
right), -1 (only the champion was right) or 0 (a tie). What the two have in common cancels, which is
why pairing needs several times fewer requests than comparing two streams.

Assumption: given the past, the mean of D stays on the null hypothesis' side at every pair. Drift
of the difficulty of requests is therefore allowed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.roots import find_minimum, find_root
from understudy.shadow.sequential.common import (
    Array,
    EProcess,
    Interval,
    MergeRule,
    SequentialError,
    binary,
    choice,
    count,
    log_beta_mixture,
    log_beta_mixture_1,
    log_beta_mixture_upper,
    logaddexp,
    logmeanexp,
    positive,
    probability,
    real,
    reals,
    same_length,
)
from understudy.shadow.state import Count, Saved, Setting

ALTERNATIVES = ("greater", "less", "two-sided")
_LOG_2 = math.log(2.0)
_OCTAVES, _STEPS = 14, 4
_CHUNK = 512


def pair_differences(champion: npt.ArrayLike, challenger: npt.ArrayLike) -> Array:
    """D in {-1, 0, 1} for two equally long batches of 0/1 outcomes in which 1 is good."""
    first, second = binary("champion", champion), binary("challenger", challenger)
    same_length(("champion", "challenger"), first, second)
    return second - first


def tune_concentration(effect: float, alpha: float = 0.05, *, sided: int = 1) -> float:
    """The A of Beta(A, A) that reaches 1/alpha soonest along the mean path of an effect.

    ``effect`` is the smallest effect that matters, as P(favours the challenger | discordant) - 1/2,
    in (0, 1/2). For a difference of rates d with a share s of discordant pairs it is d/(2 s).
    """
    gap = real("effect", effect)
    if not 0.0 < gap < 0.5:
        raise SequentialError("effect", f"must lie strictly between 0 and 1/2, not {gap}")
    if sided not in (1, 2):
        raise SequentialError("sided", f"must be 1 or 2, not {sided!r}")
    goal = -math.log(probability("alpha", alpha)) - (_LOG_2 if sided == 1 else 0.0)

    def pairs_needed(log_a: float) -> float:
        a = math.exp(log_a)
        low, high = 1.0, 4.0
        while log_beta_mixture_1(high * (0.5 + gap), high, 0.5, a, a) < goal:
            low, high = high, high * 2.0
        return find_root(
            lambda n: log_beta_mixture_1(n * (0.5 + gap), n, 0.5, a, a) - goal, low, high
        )

    centre = math.log(max(1.0, 0.125 / gap**2))
    best, _ = find_minimum(pairs_needed, centre - 3.0, centre + 3.0)
    return math.exp(best)


class _Pairs(EProcess):
    """Counts of pairs, with what both tests do alike."""

    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    wins: Saved[Count]
    losses: Saved[Count]
    ties: Saved[Count]

    def __init__(self) -> None:
        self.wins = 0
        self.losses = 0
        self.ties = 0

    @property
    def pairs(self) -> int:
        """All pairs seen, ties included."""
        return self.wins + self.losses + self.ties

    @property
    def estimate(self) -> float | None:
        """The difference of rates, challenger minus champion; None before any pair."""
        return (self.wins - self.losses) / self.pairs if self.pairs else None

    def update(self, differences: npt.ArrayLike) -> None:
        """Take pairs in their order of arrival, D in {-1, 0, 1}; the peak sees every one."""
        d = reals("differences", differences)
        up, down = d == 1.0, d == -1.0
        ups, downs = int(np.count_nonzero(up)), int(np.count_nonzero(down))
        ties = int(np.count_nonzero(d == 0.0))
        if ups + downs + ties != d.size:
            raise SequentialError("differences", "must hold only -1, 0 and 1")
        if d.size > 1:
            self._look_along(up, down)
        self.wins += ups
        self.losses += downs
        self.ties += ties
        self._look()

    def update_counts(self, wins: int, losses: int, ties: int = 0) -> None:
        """Take counts of pairs whose order is not known: one look for all of them."""
        add = (count("wins", wins), count("losses", losses), count("ties", ties))
        self.wins += add[0]
        self.losses += add[1]
        self.ties += add[2]
        self._look()

    @abstractmethod
    def _look_along(self, up: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> None:
        """Raise the peak to the best moment inside a batch that is about to be added."""

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.update_counts(
            self.wins + other.wins, self.losses + other.losses, self.ties + other.ties
        )
        return both


class PairedTest(_Pairs):
    """Sequential McNemar: are discordant pairs as likely to favour either side?

    log E = lnB(A+k, A+n-k) - lnB(A, A) + n ln 2 for k of n discordant pairs that favour the
    challenger: a Beta(A, A) mixture of likelihood ratios against 1/2 (Robbins 1970). One-sided, the
    mixture is cut to the alternative's half, which gains up to ln 2; it is then valid under the
    whole null hypothesis "at every pair the challenger is favoured with probability <= 1/2".

    ``concentration`` is A > 0 (default 5; see :func:`tune_concentration`). ``alternative`` is
    "greater" (challenger better), "less" or "two-sided". Merge: additive in the three counts.

    Raises SequentialError, which names the argument.

    >>> test = PairedTest(alternative="greater")
    >>> test.update([1] * 40 + [-1] * 10 + [0] * 500)  # 1: only the challenger was right
    >>> test.rejects(0.05)
    True
    """

    kind: ClassVar[str] = "paired"

    concentration: Setting[float]
    alternative: Setting[str]

    def __init__(self, concentration: float = 5.0, alternative: str = "two-sided") -> None:
        super().__init__()
        self.concentration = positive("concentration", concentration)
        self.alternative = choice("alternative", alternative, *ALTERNATIVES)

    def _look_along(self, up: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> None:
        won = up[up | down]
        if not won.size:
            return
        k = self.wins + np.cumsum(won, dtype=np.float64)
        n = self.wins + self.losses + 1.0 + np.arange(won.size)
        self._look(float(self.log_e_of(k, n - k).max()))

    def log_e_of(self, wins: Array, losses: Array, ties: npt.ArrayLike = 0.0) -> Array:
        """Evidence from other counts than those that were seen, elementwise."""
        a, n = self.concentration, wins + losses
        both = log_beta_mixture(wins, n, 0.5, a, a)
        if self.alternative != "two-sided":
            toward = wins if self.alternative == "greater" else losses
            tail = special.betaincc(a + toward, a + n - toward, 0.5)
            with np.errstate(divide="ignore"):
                both = both + np.log(tail) + _LOG_2
        return both

    @property
    def log_e(self) -> float:
        """Evidence against "no difference" (or "not better" / "not worse")."""
        a, n = self.concentration, self.wins + self.losses
        if self.alternative == "two-sided":
            return log_beta_mixture_1(self.wins, n, 0.5, a, a)
        toward = self.wins if self.alternative == "greater" else self.losses
        return log_beta_mixture_upper(toward, n, 0.5, a, a)


@lru_cache(maxsize=64)
def _half_beta_nodes(concentration: float) -> tuple[Array, Array]:
    """Bets c in (0, 1) and their log weights: Beta(A, A) on theta = (1+c)/2 > 1/2, as a quadrature.

    The nodes are four to the octave over 14 octaves, so a bet within 9 % of the best one exists at
    any sample size; being off by that much costs 1 % of the growth.
    """
    c = 0.97 * 2.0 ** (-np.arange(_OCTAVES * _STEPS) / _STEPS)
    log_weight = np.log(c) + (concentration - 1.0) * np.log1p(-c * c)
    log_weight -= special.logsumexp(log_weight)
    return c, log_weight


class PairedMargin(_Pairs):
    """Paired test against a margin, and the interval for the difference of rates.

    With x = (D+1)/2 in {0, 1/2, 1}, whose mean is m when the difference of rates is 2m - 1, the
    bet c multiplies the capital by 1 + c (x/m - 1) against "the mean is at most m", and by
    1 + c ((1-x)/(1-m) - 1) against "at least m", for c in (0, 1): Waudby-Smith & Ramdas 2024
    (arXiv:2010.09686), Prop. 2, with bets mixed over a fixed grid instead of adapted, so that the
    capital depends on the counts of wins, ties and losses only and merges by addition. The weights
    follow the Beta(A, A) of :class:`PairedTest`, which this test approximates at margin 0.

    ``null`` is the difference of rates (challenger minus champion, in (-1, 1)) that is tested:
    non-inferiority with margin 0.01 is ``null=-0.01, alternative="greater"``; superiority is
    ``null=0``. Two-sided evidence is the mean of both directions.
    """

    kind: ClassVar[str] = "paired-margin"

    null: Setting[float]
    alternative: Setting[str]
    concentration: Setting[float]

    def __init__(
        self, null: float = 0.0, alternative: str = "greater", concentration: float = 5.0
    ) -> None:
        super().__init__()
        self.null = real("null", null)
        if not -1.0 < self.null < 1.0:
            raise SequentialError("null", f"must lie strictly between -1 and 1, not {self.null}")
        self.alternative = choice("alternative", alternative, *ALTERNATIVES)
        self.concentration = positive("concentration", concentration)
        if self.concentration > 1e6:
            raise SequentialError("concentration", f"must be at most 1e6, not {concentration}")

    def _logs(self, difference: float, *, upward: bool) -> Array:
        """ln of the factors (3, bets) that a win, a tie and a loss multiply each capital by."""
        c, _ = _half_beta_nodes(self.concentration)
        m = 0.5 * (1.0 + (difference if upward else -difference))
        good, bad = np.log1p(c * (1.0 - m) / m), np.log1p(-c)
        tie = np.log1p(c * (0.5 - m) / m)
        return np.stack((good, tie, bad) if upward else (bad, tie, good))

    def _capital(self, difference: float, *, upward: bool) -> float:
        """ln of the mixed capital against "at most" (upward) or "at least" ``difference``."""
        counts = np.array((self.wins, self.ties, self.losses), dtype=np.float64)
        logs = counts @ self._logs(difference, upward=upward)
        logs += _half_beta_nodes(self.concentration)[1]
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).sum()))

    def _look_along(self, up: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> None:
        steps = np.stack((up, ~(up | down), down), axis=1)
        before = np.array((self.wins, self.ties, self.losses), dtype=np.float64)
        for start in range(0, len(steps), _CHUNK):
            counts = before + np.cumsum(steps[start : start + _CHUNK], axis=0)
            before = counts[-1]
            self._look(float(self._log_e_of(counts).max()))

    def log_e_of(self, wins: Array, losses: Array, ties: Array) -> Array:
        """Evidence from other counts than those that were seen, elementwise."""
        return self._log_e_of(np.stack((wins, ties, losses), axis=1))

    def _log_e_of(self, counts: Array) -> Array:
        """Evidence from (looks, 3) counts of wins, ties and losses."""
        _, log_weight = _half_beta_nodes(self.concentration)
        sides = [
            logmeanexp(counts @ self._logs(self.null, upward=upward), log_weight)
            for upward in (True, False)
            if self.alternative in ("two-sided", "greater" if upward else "less")
        ]
        return sides[0] if len(sides) == 1 else np.asarray(np.logaddexp(*sides) - _LOG_2)

    @property
    def log_e(self) -> float:
        """Evidence against the null hypothesis now."""
        if self.alternative == "two-sided":
            up = self._capital(self.null, upward=True)
            return logaddexp(up, self._capital(self.null, upward=False)) - _LOG_2
        return self._capital(self.null, upward=self.alternative == "greater")

    def interval(self, alpha: float = 0.05) -> Interval:
        """The confidence sequence for the difference of rates, as it stands now, inside [-1, 1].

        Each end spends alpha/2; intersect the intervals of successive looks to keep the running
        one.
        """
        goal = -math.log(probability("alpha", alpha)) + _LOG_2
        return Interval(self._end(goal, upward=True), self._end(goal, upward=False))

    def _end(self, goal: float, *, upward: bool) -> float:
        """The outermost difference not excluded; the capital is monotone in the difference."""
        outer = (-1.0 + 1e-12) if upward else (1.0 - 1e-12)
        estimate = self.estimate
        if estimate is None or self._capital(outer, upward=upward) < goal:
            return -1.0 if upward else 1.0
        inner = min(max(estimate, -1.0 + 1e-9), 1.0 - 1e-9)
        if self._capital(inner, upward=upward) >= goal:
            return inner
        end = find_root(lambda d: self._capital(d, upward=upward) - goal, outer, inner, xtol=1e-10)
        return end - 1e-10 if upward else end + 1e-10

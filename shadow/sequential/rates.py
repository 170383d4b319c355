"""Counts of events in two arms: is the challenger's share of them the share of its traffic?

Errors, timeouts, clicks: under equal rates an event falls to the challenger with the probability
rho with which records do, whatever the common intensity does over time (Poisson arrivals of any
shared, time-varying intensity; or Bernoulli outcomes of any shared, drifting probability, looking
only at the successes). So the count w of n events is a game against the coin rho.

Lindon & Malek, "Anytime-valid inference for multinomial count data", arXiv:2011.03567
(the multinomial mixture with two arms, and its Poisson reading).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.roots import find_root
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
    log_beta_upper,
    logsumexp,
    positive,
    probability,
)
from understudy.shadow.state import Converter, Saved, Setting

MAX_EPOCHS = 16
_LOG_RATIO_LIMIT = 60.0
_CHUNK = 512
_Epochs = dict[float, tuple[int, int]]


def _dump_epochs(epochs: _Epochs) -> list[list[float]]:
    return [[rho, w, n] for rho, (w, n) in sorted(epochs.items())]


def _load_epochs(name: str, rows: Any, _: Any) -> _Epochs:
    if not isinstance(rows, list) or len(rows) > MAX_EPOCHS:
        raise SequentialError(name, f"must be at most {MAX_EPOCHS} of [share, challenger, events]")
    found: _Epochs = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise SequentialError(name, "must be a list of [share, challenger, events]")
        w, n = count(name, row[1]), count(name, row[2])
        if w > n:
            raise SequentialError(name, f"has {w} of {n} events in the challenger")
        found[probability(name, row[0])] = (w, n)
    return found


_SavedEpochs = Annotated[_Epochs, Converter(_dump_epochs, _load_epochs)]


def _share_of_events(rho: float, ratio: float) -> float:
    """The probability that an event is the challenger's, at a ratio of rates."""
    return rho * ratio / (rho * ratio + 1.0 - rho)


@lru_cache(maxsize=64)
def _log_ratios(concentration: float, alternative: str) -> tuple[Array, Array]:
    """Log ratios beyond the null and their log weights, as in ``_half_beta_nodes`` of paired.py:
    the density of logit Beta(k/2, k/2) on nodes four to the octave."""
    eta = 4.0 * 2.0 ** (-np.arange(56) / 4.0)
    log_weight = np.log(eta) + concentration * (0.5 * eta - np.logaddexp(0.0, eta))
    log_weight -= logsumexp(log_weight)
    if alternative == "greater":
        return eta, log_weight
    if alternative == "less":
        return -eta, log_weight
    return np.concatenate((-eta, eta)), np.concatenate((log_weight, log_weight)) - math.log(2.0)


def _log_steps(rho: float, ratio: float, eta: Array) -> tuple[Array, Array]:
    """ln of the factor for an event of the challenger and of the champion, per log ratio:
    p_eta/p and (1-p_eta)/(1-p), whose odds are in the ratio e^eta."""
    odds = rho * ratio / (1.0 - rho)
    down = -np.log1p(odds / (1.0 + odds) * np.expm1(eta))
    return eta + down, down


def _log_likelihood(epochs: _Epochs, ratio: float, eta: Array) -> Array:
    total = np.zeros(eta.size)
    for rho, (w, n) in epochs.items():
        # sum over events of ln(p_eta/p): w eta - n ln((1 + odds e^eta)/(1 + odds))
        odds = rho * ratio / (1.0 - rho)
        total += w * eta - n * np.log1p(odds / (1.0 + odds) * np.expm1(eta))
    return total


class RateTest(EProcess):
    """Ratio of the challenger's rate to the champion's, from counts of events.

    log E = lnB(k p + w, k (1-p) + n - w) - lnB(k p, k (1-p)) - w ln p - (n-w) ln(1-p) for w of n
    events in the challenger, where p = rho r/(rho r + 1 - rho) is the share expected at the ratio
    ``null`` = r of the null hypothesis (1: equal rates; 1.2 with ``alternative="less"``:
    "not proven to stay below 1.2 times"). One-sided, the mixture is cut to the alternative and
    is valid for every ratio on the null hypothesis' side.

    ``concentration`` is k: 10 to 50; 20 by default. ``share`` is rho, given with each update since
    it is that at the time of assignment. Each distinct share is an epoch with counts of its own (at
    most 16) and the epochs' e-values multiply. That pays for the mixture once per epoch; so when a
    ramp is planned set ``ramp=True``: one mixture over the ratio for all epochs together (the prior
    that k means at a share of 1/2, as a quadrature). Merge: additive.

    Raises SequentialError, which names the argument.

    >>> test = RateTest(null=1.2, alternative="less")  # errors at most 1.2 times the champion's
    >>> test.update([1] * 150 + [0] * 300, share=0.5)
    >>> test.rejects(0.05)
    True
    """

    kind: ClassVar[str] = "rates"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    null: Setting[float]
    alternative: Setting[str]
    concentration: Setting[float]
    ramp: Setting[bool]
    _epochs: Saved[_SavedEpochs]
    """The challenger's events and all events, by share."""

    def __init__(
        self,
        null: float = 1.0,
        alternative: str = "two-sided",
        concentration: float = 20.0,
        *,
        ramp: bool = False,
    ) -> None:
        self.null = positive("null", null)
        if not 1e-6 <= self.null <= 1e6:
            raise SequentialError("null", f"must be a ratio between 1e-6 and 1e6, not {null!r}")
        self.alternative = choice("alternative", alternative, "two-sided", "greater", "less")
        self.concentration = positive("concentration", concentration)
        if not isinstance(ramp, bool):
            raise SequentialError("ramp", f"must be true or false, not {ramp!r}")
        self.ramp = ramp
        self._epochs = {}

    @property
    def challenger(self) -> int:
        """Events of the challenger, over all epochs."""
        return sum(w for w, _ in self._epochs.values())

    @property
    def events(self) -> int:
        """Events of both arms, over all epochs."""
        return sum(n for _, n in self._epochs.values())

    def update(self, arms: npt.ArrayLike, share: float) -> None:
        """Take events in order of arrival: 1 the challenger's, 0 the champion's."""
        arm = binary("arms", arms)
        rho, (w, n) = self._epoch(share)
        if arm.size > 1:
            along_w = w + np.cumsum(arm[:-1])
            along_n = np.arange(n + 1.0, n + float(arm.size))
            others = {r: c for r, c in self._epochs.items() if r != rho}
            self._look(self._highest(along_w, along_n, rho, others))
        self._epochs[rho] = (w + int(arm.sum()), n + arm.size)
        self._look()

    def update_counts(self, challenger: int, champion: int, share: float) -> None:
        """Take counts of events whose order is not known: one look for all of them."""
        add, other = count("challenger", challenger), count("champion", champion)
        rho, (w, n) = self._epoch(share)
        self._epochs[rho] = (w + add, n + add + other)
        self._look()

    def has_room(self, share: float) -> bool:
        """Whether counts under this share can be taken: the number of distinct ones is bounded."""
        return share in self._epochs or len(self._epochs) < MAX_EPOCHS

    def _epoch(self, share: float) -> tuple[float, tuple[int, int]]:
        rho = probability("share", share)
        if rho not in self._epochs and len(self._epochs) >= MAX_EPOCHS:
            raise SequentialError("share", f"took more than {MAX_EPOCHS} distinct values")
        return rho, self._epochs.get(rho, (0, 0))

    def _highest(self, w: Array, n: Array, rho: float, others: _Epochs) -> float:
        """The largest ln E along counts of one epoch, the others standing still."""
        p, k = _share_of_events(rho, self.null), self.concentration
        if self.ramp:
            eta, log_weight = _log_ratios(k, self.alternative)
            base = log_weight + _log_likelihood(others, self.null, eta)
            up, down = _log_steps(rho, self.null, eta)
            best = -math.inf
            for start in range(0, w.size, _CHUNK):
                won, all_ = w[start : start + _CHUNK, None], n[start : start + _CHUNK, None]
                best = max(best, float(logsumexp(won * up + (all_ - won) * down + base).max()))
            return best
        rest = self._log_e(others, self.null, self.alternative)
        if self.alternative == "less":
            w, p = n - w, 1.0 - p
        a, b = k * p, k * (1.0 - p)
        logs = log_beta_mixture(w, n, p, a, b)
        if self.alternative != "two-sided":
            with np.errstate(divide="ignore"):
                logs = logs + np.log(special.betaincc(a + w, b + n - w, p))
            logs = logs - log_beta_upper(p, a, b)
        return rest + float(logs.max())

    def _log_e(self, epochs: _Epochs, ratio: float, alternative: str) -> float:
        """ln E against ``ratio``."""
        k = self.concentration
        if self.ramp:
            eta, log_weight = _log_ratios(k, alternative)
            return float(logsumexp(log_weight + _log_likelihood(epochs, ratio, eta)))
        total = 0.0
        for rho, (w, n) in epochs.items():
            p = _share_of_events(rho, ratio)
            if alternative == "two-sided":
                total += log_beta_mixture_1(w, n, p, k * p, k * (1.0 - p))
            elif alternative == "greater":
                total += log_beta_mixture_upper(w, n, p, k * p, k * (1.0 - p))
            else:
                total += log_beta_mixture_upper(n - w, n, 1.0 - p, k * (1.0 - p), k * p)
        return total

    @property
    def log_e(self) -> float:
        """Evidence against the null hypothesis now."""
        return self._log_e(self._epochs, self.null, self.alternative)

    def log_e_of(self, w: Array, n: Array, share: float) -> Array:
        """Evidence from ``w`` events of the challenger among ``n`` at one ``share``, elementwise:
        of a test with ``ramp`` that has seen nothing else."""
        eta, log_weight = _log_ratios(self.concentration, self.alternative)
        up, down = _log_steps(share, self.null, eta)
        return logsumexp(w[:, None] * up + (n - w)[:, None] * down + log_weight)

    @property
    def estimate(self) -> float | None:
        """The maximum-likelihood ratio of rates; None before an event, inf without the champion."""
        w, n = self.challenger, self.events
        if n == 0:
            return None
        if w in (0, n):
            return 0.0 if w == 0 else math.inf

        def score(log_ratio: float) -> float:
            ratio = math.exp(log_ratio)
            return w - sum(m * _share_of_events(rho, ratio) for rho, (_, m) in self._epochs.items())

        limit = _LOG_RATIO_LIMIT
        return math.exp(find_root(score, -limit, limit, xtol=1e-12))

    def interval(self, alpha: float = 0.05) -> Interval:
        """The two-sided confidence sequence for the ratio of rates, as it stands now.

        Every ratio whose two-sided e-value is below 1/alpha; [0, inf) before the first event.
        """
        goal = -math.log(probability("alpha", alpha))
        estimate = self.estimate
        if estimate is None:
            return Interval(0.0, math.inf)

        def excess(log_ratio: float) -> float:
            return self._log_e(self._epochs, math.exp(log_ratio), "two-sided") - goal

        limit = _LOG_RATIO_LIMIT / 2.0
        centre = min(max(math.log(estimate), -limit), limit) if estimate > 0.0 else -limit
        lower = 0.0 if estimate == 0.0 else math.exp(_outward(excess, centre, -1.0, limit))
        upper = math.inf if math.isinf(estimate) else math.exp(_outward(excess, centre, 1.0, limit))
        return Interval(lower, upper)

    def merge(self, other: Self) -> Self:
        """Add the counts of equal shares."""
        both = self.begin_merge(other)
        for part in (self, other):
            for share, (w, n) in part._epochs.items():
                rho, (w0, n0) = both._epoch(share)
                both._epochs[rho] = (w0 + w, n0 + n)
        both._epochs = dict(sorted(both._epochs.items()))
        both._look()
        return both


def _outward(excess: Callable[[float], float], start: float, sign: float, limit: float) -> float:
    """Where ``excess`` first turns positive going from ``start`` in the direction ``sign``."""
    step, inner = 0.05, start
    if excess(start) > 0.0:
        return start
    while abs(inner) <= limit:
        outer = inner + sign * step
        if excess(outer) > 0.0:
            return find_root(excess, inner, outer, xtol=1e-10) + sign * 1e-10
        inner, step = outer, 2.0 * step
    return sign * math.inf

"""Was the split honoured? The sequential test for a sample ratio mismatch.

Rejecting invalidates the experiment: whatever lost or moved records may also have chosen which.

Lindon & Malek, "Anytime-valid inference for multinomial count data", arXiv:2011.03567
(the Dirichlet mixture against a point null).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.sequential.common import (
    HALF_LOG_2PI,
    Array,
    EProcess,
    MergeRule,
    SequentialError,
    count,
    positive,
    reals,
    stirling_rest,
    stirling_rest_1,
)
from understudy.shadow.state import Converter, FieldError, Saved, Setting

MAX_EPOCHS = 16
MAX_ARMS = 16


_Epochs = dict[tuple[float, ...], list[int]]


def _dump_epochs(epochs: _Epochs) -> list[list[list[float]]]:
    return [[list(theta), list(n)] for theta, n in sorted(epochs.items())]


def _load_epochs(name: str, rows: Any, _: Any) -> _Epochs:
    if not isinstance(rows, list):
        raise SequentialError(name, "must be a list of [shares, counts]")
    found: _Epochs = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], list):
            raise SequentialError(name, "must be a list of [shares, counts]")
        found[_checked(row[0])] = [count(name, n) for n in row[1]]
    return found


_SavedEpochs = Annotated[_Epochs, Converter(_dump_epochs, _load_epochs)]


def _checked(shares: npt.ArrayLike) -> tuple[float, ...]:
    """The probabilities of the arms, which sum to 1 exactly. Raises SequentialError."""
    theta = reals("shares", shares)
    if not 2 <= theta.size <= MAX_ARMS:
        raise SequentialError("shares", f"must name 2 to {MAX_ARMS} arms, not {theta.size}")
    if not (theta > 0.0).all():
        raise SequentialError("shares", "must all be above 0 (leave out an arm without traffic)")
    total = float(theta.sum())
    if abs(total - 1.0) > 1e-9:
        raise SequentialError("shares", f"must sum to 1, not {total}")
    if abs(total - 1.0) > 1e-14:  # at 1e9 records even 1e-9 too much would count as evidence
        theta = theta / total
    return tuple(float(x) for x in theta)


def log_dirichlet_mixture(counts: npt.ArrayLike, shares: Array, prior: Array) -> Array:
    """ln of the Dirichlet(prior) mixture of multinomial likelihood ratios against ``shares``.

    lnB(prior + n) - lnB(prior) - sum n_i ln share_i over the last axis of ``counts`` (..., arms).
    Accurate to about 1e-9 at counts of 1e9 (written around the Kullback-Leibler divergence).
    """
    n = np.asarray(counts, dtype=np.float64)
    post = prior + n
    total = post.sum(axis=-1, keepdims=True)
    excess = (post / total - shares) / shares
    near = excess > -0.5  # below, the excess has cancelled
    kl = np.sum(
        post * np.where(near, np.log1p(np.where(near, excess, 0.0)), np.log(post / total / shares)),
        axis=-1,
    )
    arms = shares.size
    shape = 0.5 * (np.log(total[..., 0]) - np.log(post).sum(axis=-1)) + (arms - 1) * HALF_LOG_2PI
    rest = stirling_rest(post).sum(axis=-1) - stirling_rest(total)[..., 0]
    norm = special.gammaln(prior).sum() - special.gammaln(prior.sum())
    return np.asarray(kl + shape + rest + float(np.dot(prior, np.log(shares))) - norm)


@lru_cache(maxsize=1024)
def _constant(theta: tuple[float, ...], k: float) -> float:
    """What does not depend on the counts: -lnB(k theta) less what cancels against lnB(k theta + n)
    when both are written by Stirling's formula."""
    value = stirling_rest_1(k) - 0.5 * math.log(k)
    for share in theta:
        value += 0.5 * math.log(k * share) - stirling_rest_1(k * share)
    return value


def _log_e(counts: tuple[int, ...], theta: tuple[float, ...], k: float) -> float:
    """:func:`log_dirichlet_mixture` with the prior k theta in plain numbers, for a single look."""
    total = k + sum(counts)
    value = _constant(theta, k) + 0.5 * math.log(total) - stirling_rest_1(total)
    for n, share in zip(counts, theta, strict=True):
        post = k * share + n
        excess = (post / total - share) / share
        kl = math.log1p(excess) if excess > -0.5 else math.log(post / total / share)
        value += post * kl - 0.5 * math.log(post) + stirling_rest_1(post)
    return value


class SplitCheck(EProcess):
    """Multinomial test that records reached the arms in the configured proportions.

    ``shares`` are the configured probabilities theta of the arms (sum 1). With alpha_0 = k theta,
    log E_k = lnB(alpha_0 + n) - lnB(alpha_0) - sum n_i ln theta_i, and E is the mean over ``k``:
    100 sees gross errors within a hundred records, 10^4 small ones sooner than 100 does.

    A changed split is a new epoch: pass its ``shares`` with the update (at most 16 distinct
    ones); for each k the epochs' e-values multiply. Merge: additive in the counts.

    Raises SequentialError, which names the argument.

    >>> check = SplitCheck([0.9, 0.1])
    >>> check.update([0] * 800 + [1] * 200)  # 20 % instead of 10 %
    >>> check.rejects(0.001)
    True
    """

    kind: ClassVar[str] = "srm"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    shares: Setting[tuple[float, ...]]
    k: Setting[tuple[float, ...]]
    _epochs: Saved[_SavedEpochs]
    """Records per arm, by the shares they were assigned under."""

    def __init__(self, shares: npt.ArrayLike, k: Sequence[float] = (100.0, 10_000.0)) -> None:
        self.shares = _checked(shares)
        self.k = tuple(positive("k", value) for value in k)
        if not 1 <= len(self.k) <= 8:
            raise SequentialError("k", "must hold 1 to 8 concentrations")
        self._epochs = {}

    def _restored(self) -> None:
        arms = len(self.shares)
        if any(len(theta) != arms or len(n) != arms for theta, n in self._epochs.items()):
            raise FieldError("epochs", f"must have {arms} arms")
        if len(self._epochs) * arms >= 8 * MAX_EPOCHS + arms:
            raise FieldError("epochs", "are too many for one process")

    @property
    def counts(self) -> tuple[int, ...]:
        """Records per arm over all epochs."""
        return tuple(sum(column) for column in zip(*self._epochs.values(), strict=True)) or (
            0,
        ) * len(self.shares)

    @property
    def expected(self) -> tuple[float, ...]:
        """Records per arm that the configured shares lead to expect, over all epochs."""
        found = np.zeros(len(self.shares))
        for theta, n in self._epochs.items():
            found += np.asarray(theta) * sum(n)
        return tuple(float(x) for x in found)

    def update(self, arms: npt.ArrayLike, shares: npt.ArrayLike | None = None) -> None:
        """Take the arm index of each record in order of arrival; one look at the end.

        Looking once per batch keeps the guarantee and the counts; only the peak could have been
        higher in between.
        """
        size = len(self.shares)
        if np.ndim(arms) == 0 and shares is None:
            one = [0] * size
            index = count("arms", arms)
            if index >= size:
                raise SequentialError("arms", f"must hold whole numbers from 0 to {size - 1}")
            one[index] = 1
            self._add(self.shares, one)
            self._look()
            return
        arm = reals("arms", arms)
        if arm.size and not ((arm == np.floor(arm)) & (arm >= 0) & (arm < size)).all():
            raise SequentialError("arms", f"must hold whole numbers from 0 to {size - 1}")
        self.update_counts(np.bincount(arm.astype(np.int64), minlength=size), shares)

    def update_counts(self, counts: npt.ArrayLike, shares: npt.ArrayLike | None = None) -> None:
        """Add records per arm, assigned under ``shares`` (default: those of the constructor)."""
        n = reals("counts", counts)
        if n.size != len(self.shares):
            raise SequentialError("counts", f"must have {len(self.shares)} arms, not {n.size}")
        if not ((n >= 0.0) & (n == np.floor(n))).all():
            raise SequentialError("counts", "must hold whole numbers of at least 0")
        theta = self.shares if shares is None else _checked(shares)
        if len(theta) != len(self.shares):
            raise SequentialError("shares", f"must name {len(self.shares)} arms, not {len(theta)}")
        self._add(theta, [int(x) for x in n])
        self._look()

    def _add(self, theta: tuple[float, ...], n: Sequence[int]) -> None:
        if theta not in self._epochs and len(self._epochs) * len(theta) >= 8 * MAX_EPOCHS:
            raise SequentialError("shares", "took too many distinct values for one process")
        known = self._epochs.get(theta, [0] * len(theta))
        self._epochs[theta] = [a + b for a, b in zip(known, n, strict=True)]

    @property
    def log_e(self) -> float:
        """Evidence that the split was not honoured."""
        per_k = [0.0] * len(self.k)
        for theta, n in self._epochs.items():
            if any(n):
                for i, k in enumerate(self.k):
                    per_k[i] += _log_e(tuple(n), theta, k)
        if not any(per_k):
            return 0.0
        top = max(per_k)
        return top + math.log(sum(math.exp(x - top) for x in per_k) / len(per_k))

    def merge(self, other: Self) -> Self:
        """Add the counts of equal splits."""
        both = self.begin_merge(other)
        for part in (self, other):
            for theta, n in part._epochs.items():
                both._add(theta, n)
        both._epochs = dict(sorted(both._epochs.items()))
        both._look()
        return both

    def deviation(self) -> tuple[float, ...]:
        """Observed minus configured share per arm, in points of 1; zeros before any record."""
        counts, expected = self.counts, self.expected
        total = sum(counts) or 1
        return tuple((n - e) / total for n, e in zip(counts, expected, strict=True))

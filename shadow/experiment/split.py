"""Whether the arms got what they were assigned, and whether what they got has ended.

Two questions that must not be confused: a request counts for the first when it is assigned, and
for the second until it finishes. A stall or a cold start therefore never looks like a broken split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.shadow.experiment.fates import SMALL
from understudy.shadow.experiment.odds import odds
from understudy.shadow.sequential import SplitCheck
from understudy.shadow.sequential.common import reject

ALPHA_SPLIT = 0.001
"""Largest probability of a false alarm of the split check."""
_FEW = 3
"""Mirrored requests that may be missing, however few pairs there are."""


def honoured(split: SplitCheck | None) -> bool:
    """False while the counts of the arms cannot be explained by the configured shares.

    The evidence now decides, not its maximum: the bound on false alarms is the same (Ville), and an
    imbalance that later assignments even out is judged again.
    """
    return split is None or not reject(split.log_e, ALPHA_SPLIT)


def mismatch(split: SplitCheck, arms: Sequence[str], noun: str) -> str:
    """Describe a split that was not honoured: assigned and expected ``noun`` of each of ``arms``,
    the champion first."""
    counts = ", ".join(
        f"{arm} {got:,} (expected {expected:,.0f})"
        for arm, got, expected in zip(arms, split.counts, split.expected, strict=True)
    )
    chance = odds(split.log_e, "every request had gone where it was assigned")
    return (
        f"sample ratio mismatch: {noun} assigned to {counts}; this has odds of {chance}, so no "
        "other measurement of this split can be trusted"
    )


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Requests by arm that were assigned at least ``age`` seconds ago and have not finished.

    ``shares`` are the probabilities of the arms at assignment; the champion is the first of both.
    """

    counts: tuple[int, ...]
    shares: tuple[float, ...]
    age: float

    def differs(self, challenger: int) -> bool:
        """Whether the champion and the arm ``challenger`` have clearly not the same number missing.

        If no arm keeps a request from finishing more often than the other, those missing were
        assigned by their shares alone, at each moment: the multinomial test of the split applies
        (Lindon & Malek, arXiv:2011.03567) with at most ``ALPHA_SPLIT`` false alarms at that moment.
        """
        share = np.array([self.shares[0], self.shares[challenger]])
        if not (share > 0.0).all():
            return False
        check = SplitCheck(share / share.sum())
        check.update_counts([self.counts[0], self.counts[challenger]])
        return reject(check.log_e, ALPHA_SPLIT)

    def describe(self, arms: Sequence[str]) -> str:
        """Name the numbers of all ``arms``."""
        return _described(self.counts, arms, self.age)


@dataclass(frozen=True, slots=True)
class OpenPairs:
    """Mirrored requests by challenger that have not finished ``age`` seconds after their start.

    ``pairs`` are those that have, by challenger. The champion has answered all of both.
    """

    counts: tuple[int, ...]
    pairs: tuple[int, ...]
    age: float

    def differs(self, challenger: int) -> bool:
        """Whether the arm ``challenger`` (1 is the first) lacks more than a few requests, and more
        than a share of all that could hide harm. Requests that are slow and finish are a share that
        falls, so they do not count for ever."""
        missing, pairs = self.counts[challenger - 1], self.pairs[challenger - 1]
        return missing > _FEW and missing > SMALL * (missing + pairs)

    def describe(self, arms: Sequence[str]) -> str:
        """Name the numbers of all challengers; ``arms`` begin with the champion."""
        return _described(self.counts, arms[1:], self.age)


def _described(numbers: Sequence[int], arms: Sequence[str], age: float) -> str:
    counts = ", ".join(f"{count:,} of {arm}" for arm, count in zip(arms, numbers, strict=True))
    return f"requests that have no answer yet after {age:.3g} s: {counts}"

"""The tail as a whole: has anything beyond the median become slower?"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from understudy.common.arrays import distinct
from understudy.common.units import percent
from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import (
    Array,
    Contrast,
    InitialValues,
    Measure,
    NullBoundary,
)
from understudy.shadow.sequential import Interval, TailDetector, tail_thresholds
from understudy.shadow.state import Saved, Transient

_FIRST = 500
"""Values of the champion from which the thresholds are set. They are not evidence: thresholds have
to be known before what is tested against them."""
_BY_BLOCKS = (0.5, 0.95, 0.99)
"""Levels of the thresholds whose exceedances are also counted by blocks of time."""


class Tail(Measure):
    """:class:`TailDetector`. A margin of 20 % allows each threshold to be exceeded 1.2 times as
    often. It can be broken and not passed, since "nowhere worse" cannot be shown."""

    kind = "tail"
    block_columns: ClassVar[int] = len(_BY_BLOCKS)

    _first: Saved[InitialValues]
    _detector: Saved[TailDetector | None]
    _thresholds: Transient[list[float]]
    """Those at the levels whose exceedances are counted by blocks, once they are needed."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._first = InitialValues(_FIRST)
        self._detector = None
        self._thresholds = []

    def _restored(self) -> None:
        super()._restored()
        self._thresholds = []

    def _set_up(self, champion: Array) -> int:
        """Set the thresholds by the first values of the champion; how many of these went into that.

        Values that are nearly all alike set none, and the next ones are tried.
        """
        used = self._first.add(np.zeros(champion.size), champion)
        if self._first.complete:
            values = np.sort(self._first.release()[1])
            edges = distinct(values)
            counts = np.diff(np.searchsorted(values, edges, side="right"), prepend=0)
            if edges.size > 10:
                thresholds, levels = tail_thresholds(edges, np.concatenate((counts, [0])))
                self._detector = TailDetector(
                    thresholds,
                    levels,
                    "greater" if self.hypothesis.lower_is_better else "less",
                    ratio=1.0 + self.hypothesis.margin.value,
                )
        return used

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        self._count_pairs(champion.size)
        while self._detector is None and champion.size:
            used = self._set_up(champion)
            champion, challenger = champion[used:], challenger[used:]
        if self._detector is not None and champion.size:
            self._detector.update_pairs(champion, challenger, peak=False)
            self.time_blocks.add_pairs(self._beyond(champion), self._beyond(challenger))

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        self._count_split(arms)
        while self._detector is None and values.size:
            champions = np.flatnonzero(arms == 0.0)
            used = self._set_up(values[champions])
            # Up to the champion's last record that was used, or all when none is left.
            end = int(champions[used - 1]) + 1 if 0 < used < champions.size else values.size
            arms, values, share = arms[end:], values[end:], share[end:]
        if self._detector is not None and values.size:
            self._detector.update(arms, values, share, peak=False)
            self.time_blocks.add_split(arms, self._beyond(values), share)

    def _beyond(self, values: Array) -> list[Array]:
        if not self._thresholds:
            assert self._detector is not None
            levels, thresholds = self._detector.levels, self._detector.thresholds
            at = [int(np.argmin(np.abs(levels - level))) for level in _BY_BLOCKS]
            self._thresholds = [float(thresholds[i]) for i in at]
        return [(values > threshold).astype(np.float64) for threshold in self._thresholds]

    def _contrasts(self, side: int) -> list[Contrast]:
        more, worse = 1.0 + self.hypothesis.margin.value, "greater"
        if not self.hypothesis.lower_is_better:
            more, worse = 1.0 / more, "less"
        null = NullBoundary(more, 0.0, worse)
        return [Contrast(column, null) for column in range(self.block_columns)] if side else []

    def _log_es(self) -> tuple[float, float]:
        return 0.0, self._detector.log_e if self._detector is not None else 0.0

    def estimates(self) -> tuple[float | None, float | None]:
        """Shares beyond the threshold where the evidence is strongest."""
        if self._detector is None:
            return None, None
        worst = self._detector.findings()[0]
        return worst.champion, worst.challenger

    def difference(self, alpha: float) -> Interval:
        return Interval()

    def _note(self) -> str:
        detector = self._detector
        if detector is None:
            return "the thresholds are being set"
        worst = detector.findings()[0]
        if worst.champion is None or worst.challenger is None:
            return ""
        return (
            f"beyond {worst.threshold * 1e3:.4g} ms (the champion's p{worst.level * 100:g}) are "
            f"{percent(worst.challenger)} of the challenger's and {percent(worst.champion)} of the "
            "champion's requests"
        )

    def _merge_into(self, both: Self, other: Self) -> None:
        if self._detector is not None and other._detector is not None:
            both._detector = self._detector.merge(other._detector)
        else:
            both._detector = self._detector or other._detector
        if both._detector is None:
            both._set_up(np.array([*self._first.arms[0], *other._first.arms[0]]))

"""Evidence of units of assignment that are read at several ages, under several weights.

A unit is drawn once, so what it shows at two ages, or under two weights when it comes back, is not
independent. Within one age and one set of weights each unit is one observation, and the measure of
that alone is valid. Their e-values are averaged with fixed weights and never multiplied: an average
of e-values is an e-value however they depend on each other (Vovk & Wang, "E-values: calibration,
combination and applications", Ann. Stat. 2021, Prop. 3.1). Intervals share alpha in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Self

from understudy.shadow.experiment.cutoffs import CUTOFFS, age_of
from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import MAX_LOG_E, Array, Measure
from understudy.shadow.sequential.common import Interval
from understudy.shadow.sequential.logspace import logaddexp
from understudy.shadow.state import Config, Converter, Count, FieldError, Saved

Make = Callable[[Hypothesis], Measure]
_NOTHING = -MAX_LOG_E


def _dump_parts(parts: list[Measure]) -> list[Any]:
    return [part.dump_state() for part in parts]


def _load_parts(name: str, states: Any, parts: list[Measure]) -> list[Measure]:
    if not isinstance(states, list) or len(states) != len(parts):
        raise FieldError(name, f"must be a list of {len(parts)} measures")
    for part, state in zip(parts, states, strict=True):
        part.load_state(state)
    return parts


class ByUnit(Measure):
    """One measure for each age; ``make`` makes that of one age."""

    kind = "by-unit"

    _make: Config[Make]
    parts: Saved[Annotated[list[Measure], Converter(_dump_parts, _load_parts)]]
    epoch: Saved[Count]
    """Number of the current weights, from 1."""

    def __init__(self, hypothesis: Hypothesis, make: Make) -> None:
        super().__init__(hypothesis, False)
        self._make = make
        self.epoch = 1
        self.parts = self._new_parts()
        self._carried = [_NOTHING, _NOTHING]

    def _new_parts(self) -> list[Measure]:
        """Those of the current weights; an interval of theirs has its share of alpha."""
        own = replace(self.hypothesis, alpha=self.hypothesis.alpha * self._weight)
        return [self._make(own) for _ in CUTOFFS]

    @property
    def _weight(self) -> float:
        """Of one age under the current weights; over all epochs and ages they sum to 1."""
        return 1.0 / (self.epoch * (self.epoch + 1) * len(CUTOFFS))

    @property
    def _log_rest(self) -> float:
        """Of the epochs to come, whose e-values are 1 so far."""
        return -math.log(self.epoch + 1)

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        raise TypeError("split traffic only")

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        """Records of which each is of another unit, such as the first label of each."""
        self.parts[0].update_split(arms, values, share)
        self._count()

    def update_at(self, cutoff: int, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        """Units that have reached the age ``CUTOFFS[cutoff]``."""
        self.parts[cutoff].update_units(arms, sums, counts, share)
        self._count()

    def _count(self) -> None:
        self.n = list(self.parts[0].n)
        self.outside = max(part.outside for part in self.parts)

    @property
    def _shown(self) -> int:
        """The age whose figures are shown: the last that nearly as many units have reached as the
        first."""
        enough = 0.9 * min(self.parts[0].n)
        return max(i for i, p in enumerate(self.parts) if min(p.n) >= enough)

    def _log_es(self) -> tuple[float, float]:
        to_pass = harm = _NOTHING
        for part in self.parts:
            to_pass = logaddexp(to_pass, math.log(self._weight) + part.log_pass)
            harm = logaddexp(harm, math.log(self._weight) + part.log_harm)
        return to_pass, harm

    @property
    def log_pass(self) -> float:
        return self._average(0)

    @property
    def log_harm(self) -> float:
        return self._average(1)

    def _average(self, side: int) -> float:
        so_far = logaddexp(self._carried[side], self._log_es()[side])
        return min(logaddexp(so_far, self._log_rest), MAX_LOG_E)

    def begin_epoch(self) -> None:
        now = self._log_es()
        self._carried = [
            min(logaddexp(self._carried[side], now[side]), MAX_LOG_E) for side in (0, 1)
        ]
        self.epoch += 1
        self.parts = self._new_parts()
        self._count()

    def estimates(self) -> tuple[float | None, float | None]:
        return self.parts[self._shown].estimates()

    def difference(self, alpha: float) -> Interval:
        return self.parts[self._shown].difference(alpha * self._weight)

    def ratio(self, alpha: float) -> Interval | None:
        return self.parts[self._shown].ratio(alpha * self._weight)

    @property
    def dependence(self) -> str:
        """Of units at the age that is shown: those that arrive together may share an outage."""
        return self.parts[self._shown].dependence

    def level(self, alpha: float) -> float:
        return self.parts[self._shown].level(alpha)

    def widened(self, interval: Interval, centre: float | None) -> Interval:
        return self.parts[self._shown].widened(interval, centre)

    def _note(self) -> str:
        if self.hypothesis.one_label:
            return "; ".join(filter(None, ("one label of each unit", self.parts[0]._note())))
        first = "first label" if self.hypothesis.metric.needs == "labels" else "first request"
        if not min(self.n):
            return f"a unit counts from {age_of(0)} after its {first}"
        shown = self.parts[self._shown]
        age = f"units {age_of(self._shown)} after their {first}"
        return "; ".join(filter(None, (age, shown._note())))

    def load_state(self, state: Any) -> None:
        epoch = state.get("epoch") if isinstance(state, dict) else None
        if type(epoch) is int and epoch >= 1:  # otherwise refused below
            self.epoch = epoch
            self.parts = self._new_parts()
        super().load_state(state)

    def _new(self) -> Self:
        return type(self)(self.hypothesis, self._make)

    def _merge_into(self, both: Self, other: Self) -> None:
        if other.epoch != self.epoch:
            raise ValueError("measures under different weights cannot be merged")
        both.epoch = self.epoch
        both.parts = [a.merge(b) for a, b in zip(self.parts, other.parts, strict=True)]
        both._count()

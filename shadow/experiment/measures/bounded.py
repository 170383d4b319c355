"""Evidence where some values are only known to lie in an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from understudy.common.units import percent
from understudy.shadow.experiment.batches import Array, Ends, Pairs, Split, Units, Values
from understudy.shadow.experiment.fates import SMALL, UNBOUNDED
from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures.base import Measure
from understudy.shadow.experiment.measures.by_unit import ByUnit
from understudy.shadow.sequential.common import Interval
from understudy.shadow.state import Config, Converter, Count, FieldError, Saved, Stateful, Two

_ARMS = ("champion", "challenger")


def _load_measure(name: str, state: Any, measure: Measure | None) -> Measure | None:
    if (measure is None) != (state is None):
        raise FieldError(name, "must be there exactly if both ends are")
    if measure is not None:
        measure.load_state(state)
    return measure


_MAYBE = Annotated[
    Measure | None,
    Converter(lambda measure: measure.dump_state() if measure is not None else None, _load_measure),
]


class BoundedMeasure(Stateful):
    """Evidence about one hypothesis from three copies of its measure.

    One sees the known values only, and is what is shown. A claim has to be proven with the values
    that are worst for the challenger, and harm with those that are best for it (Manski 1990), or
    by a fair sample of them (see ``skipped`` in :mod:`understudy.shadow.experiment.batches`). As
    long as every value is known, the three are one. Values of which not even an interval is known
    (an output without declared bounds) are left out; beyond a share of :data:`SMALL` there is then
    no evidence either way. Nor is a value outside the declared bounds known: it counts as anything
    within them.
    """

    _make: Config[Callable[[], Measure]]
    observed: Saved[Measure]
    worst: Saved[_MAYBE]
    best: Saved[_MAYBE]
    unknown: Saved[Two[Count]]
    """Values of champion and challenger that are not known."""
    _unbounded: Saved[Two[Count]]
    """Those of them that may be anything."""
    outside: Saved[Count]
    """Values that lay outside the declared bounds."""
    _bounds: Config[tuple[float, float] | None]
    _lower_is_better: Config[bool]
    _columns: Config[tuple[str, ...]]

    def __init__(self, make: Callable[[], Measure]) -> None:
        self._make = make
        self.observed = observed = make()
        self.worst = self.best = None
        self.unknown = [0, 0]
        self._unbounded = [0, 0]
        self.outside = 0
        h = observed.hypothesis
        self._bounds = h.bounds if h.metric.statistic is Statistic.MEAN else None
        self._lower_is_better = observed.hypothesis.lower_is_better
        self._columns = observed.hypothesis.columns

    # In -----------------------------------------------------------------------------------------

    def update_pairs(self, batch: Pairs) -> None:
        """Add pairs."""
        if self._bounds is not None:
            batch = self._inside_pairs(batch, self._bounds)
        known, ends = batch.column(*self._columns), self._ends_of(batch, self._of_pairs)
        self._feed(lambda measure, values: measure.update_pairs(*values), known, ends)

    def update_split(self, batch: Split) -> None:
        """Add records of split traffic."""
        if self._bounds is not None:
            batch = self._inside_split(batch, self._bounds)
        known, ends = batch.column(*self._columns), self._ends_of(batch, self._by_arm)
        self._feed(lambda measure, values: measure.update_split(*values), known, ends)

    def update_units(self, batch: Units) -> None:
        """Add units that have reached an age."""
        if self._bounds is not None:
            batch = self._inside_units(batch, self._bounds)
        names = self._columns
        known, ends = batch.column(*names), batch.ends(*names)

        def update(measure: Measure, values: Values) -> None:
            assert isinstance(measure, ByUnit)
            measure.update_at(batch.cutoff, *values)

        self._feed(update, known, self._by_arm(ends))

    def _ends_of(self, batch: Pairs | Split, sort: Callable[..., Ends | None]) -> Ends | None:
        """Values worst and best for the challenger; the best ones by a fair sample of the rows that
        were skipped."""
        names = self._columns
        ends = sort(batch.ends(*names))
        if ends is None or batch.skipped is None:
            return ends
        fair = sort(batch.ends(*names, sampled=True), count=False)
        assert fair is not None
        return ends[0], fair[1]

    def _inside_pairs(self, batch: Pairs, bounds: tuple[float, float]) -> Pairs:
        name = self._columns[0]
        pair = batch.columns.get(name)
        masks = [self._outside(values, bounds) for values in pair] if pair is not None else []
        if pair is None or not any(mask.any() for mask in masks):
            return batch

        def put(values: tuple[Array, Array], end: float) -> dict[str, tuple[Array, Array]]:
            first, second = (np.where(m, end, v) for m, v in zip(masks, values, strict=True))
            return {name: (first, second)}

        return replace(
            batch,
            columns={**batch.columns, **put(pair, math.nan)},
            low={**batch.low, **put(batch.low.get(name, pair), bounds[0])},
            high={**batch.high, **put(batch.high.get(name, pair), bounds[1])},
        )

    def _inside_split(self, batch: Split, bounds: tuple[float, float]) -> Split:
        name = self._columns[0]
        values = batch.columns.get(name)
        mask = self._outside(values, bounds) if values is not None else None
        if values is None or mask is None or not mask.any():
            return batch
        low, high = batch.low.get(name, values), batch.high.get(name, values)
        return replace(
            batch,
            columns={**batch.columns, name: np.where(mask, math.nan, values)},
            low={**batch.low, name: np.where(mask, bounds[0], low)},
            high={**batch.high, name: np.where(mask, bounds[1], high)},
        )

    def _inside_units(self, batch: Units, bounds: tuple[float, float]) -> Units:
        """Of units the means count."""
        name = self._columns[0]
        sums, counts = batch.columns.get(name, (np.zeros(0), np.zeros(0)))
        mask = self._outside(sums / np.maximum(counts, 1.0), bounds) & (counts > 0.0)
        if not mask.any():
            return batch

        def put(of: tuple[Array, Array], end: float) -> tuple[Array, Array]:
            return np.where(mask, end * of[1], of[0]), of[1]

        low, high = batch.low.get(name, (sums, counts)), batch.high.get(name, (sums, counts))
        return replace(
            batch,
            columns={**batch.columns, name: (sums, np.where(mask, 0.0, counts))},
            low={**batch.low, name: put(low, bounds[0])},
            high={**batch.high, name: put(high, bounds[1])},
        )

    def _outside(self, values: Array, bounds: tuple[float, float]) -> npt.NDArray[np.bool_]:
        """Which values lie outside the declared bounds; they are counted."""
        beyond: npt.NDArray[np.bool_] = (values < bounds[0]) | (values > bounds[1])
        self.outside += int(np.count_nonzero(beyond))
        return beyond

    def _of_pairs(self, ends: Ends | None, *, count: bool = True) -> Ends | None:
        """Values worst and best for the challenger, from (champion, challenger) with both ends."""
        if ends is None:
            return None
        low, high, finite = self._within(ends, (0, 1))
        for side in (0, 1) if count else ():
            self._count(side, low[side], high[side], finite)
        return self._sorted((low[0], high[1]), (high[0], low[1]), finite)

    def _by_arm(self, ends: Ends | None, *, count: bool = True) -> Ends | None:
        """Values worst and best for the challenger, from (arms, values, …) with both ends."""
        if ends is None:
            return None
        low, high, finite = self._within(ends, (1,))
        arms = low[0]
        theirs = arms == 1.0
        for side, mine in enumerate((~theirs, theirs) if count else ()):
            self._count(side, low[1][mine], high[1][mine], finite[mine])
        if low[1].ndim > 1:
            theirs = theirs[:, np.newaxis]
        up = (arms, np.where(theirs, high[1], low[1]), *low[2:])
        down = (arms, np.where(theirs, low[1], high[1]), *low[2:])
        return self._sorted(up, down, finite)

    def _sorted(self, up: Values, down: Values, finite: Any) -> Ends:
        """Values worst and best for the challenger, from those with which it is highest and lowest;
        only where these are finite."""
        if not finite.all():
            up, down = (tuple(column[finite] for column in values) for values in (up, down))
        return (up, down) if self._lower_is_better else (down, up)

    def _within(self, ends: Ends, which: tuple[int, ...]) -> tuple[Values, Values, Any]:
        """Ends within the declared bounds, and which rows then have finite ones.

        Of values in several columns, such as one with its covariate, only the first may be unknown:
        which combination would be the worst depends on the measure.
        """
        low, high = list(ends[0]), list(ends[1])
        bounds = self.hypothesis.bounds
        finite = np.ones(len(low[which[0]]), np.bool_)
        for column in which:
            least, most = low[column], high[column]
            if least.ndim > 1:
                same = (least[:, 1:] == most[:, 1:]) | np.isnan(least[:, 1:])
                finite &= same.all(axis=1)
                least, most = least[:, 0], most[:, 0]
            elif bounds is not None:
                least = low[column] = np.where(least == -UNBOUNDED, bounds[0], least)
                most = high[column] = np.where(most == UNBOUNDED, bounds[1], most)
            finite &= (least > -0.5 * UNBOUNDED) & (most < 0.5 * UNBOUNDED)
        return tuple(low), tuple(high), finite

    def _count(self, side: int, low: Array, high: Array, finite: Any) -> None:
        unknown = (low != high) & ~(np.isnan(low) & np.isnan(high))
        if unknown.ndim > 1:
            unknown = unknown.any(axis=1)
        self.unknown[side] += int(np.count_nonzero(unknown))
        self._unbounded[side] += int(np.count_nonzero(unknown & ~finite))

    def _feed(
        self, update: Callable[[Measure, Values], None], known: Values | None, ends: Ends | None
    ) -> None:
        if ends is not None and self.worst is None and _same(*ends):
            ends = None
        if ends is not None and self.worst is None:
            state = self.observed.dump_state()
            self.worst, self.best = self._make(), self._make()
            self.worst.load_state(state)
            self.best.load_state(state)
        if known is not None and len(known[0]):
            update(self.observed, known)
        worst, best = ends or (known, known)
        for measure, values in ((self.worst, worst), (self.best, best)):
            if measure is not None and values is not None and len(values[0]):
                update(measure, values)

    def begin_epoch(self) -> None:
        """Start a new epoch: the shares have changed."""
        for measure in self._measures():
            measure.begin_epoch()

    def _measures(self) -> tuple[Measure, ...]:
        return tuple(m for m in (self.observed, self.worst, self.best) if m is not None)

    # Out ----------------------------------------------------------------------------------------

    @property
    def hypothesis(self) -> Hypothesis:
        """What is tested."""
        return self.observed.hypothesis

    @property
    def n(self) -> list[int]:
        """Known values of champion and challenger."""
        return self.observed.n

    def estimates(self) -> tuple[float | None, float | None]:
        """Of champion and challenger, among the known values of this epoch."""
        return self.observed.estimates()

    @property
    def log_pass(self) -> float:
        """Evidence that the hypothesis holds whatever the unknown values are."""
        log_e = (self.worst or self.observed).log_pass
        return min(log_e, 0.0) if self._boundless else log_e

    @property
    def log_harm(self) -> float:
        """Evidence of harm whatever the unknown values are."""
        log_e = (self.best or self.observed).log_harm
        return min(log_e, 0.0) if self._boundless else log_e

    def difference(self, alpha: float) -> Interval:
        """Confidence sequence for challenger minus champion, whatever the unknown values are."""
        if self._boundless:
            return Interval()
        first, second = (_difference(m, alpha) for m in self._ends())
        return _hull(first, second)

    def ratio(self, alpha: float) -> Interval | None:
        """The same for challenger over champion; None where a ratio means nothing."""
        first, second = (_ratio(m, alpha) for m in self._ends())
        if first is None or second is None:
            return None
        return Interval(0.0, math.inf) if self._boundless else _hull(first, second)

    def _ends(self) -> tuple[Measure, Measure]:
        return self.worst or self.observed, self.best or self.observed

    @property
    def dependence(self) -> str:
        """What was found of the dependence of requests; "" while they are independent."""
        return self.observed.dependence

    @property
    def note(self) -> str:
        """What to know about the evidence; "" if nothing."""
        parts = [self.observed.note]
        for arm, share in zip(_ARMS, self._shares(self.unknown), strict=True):
            if share > SMALL:
                parts.append(
                    f"{percent(share)} of the {arm}'s values are not known, and count for the "
                    "worst and the best that they can be"
                )
        if self._boundless:
            parts.append("without `bounds` they may be anything")
        return "; ".join(filter(None, parts))

    @property
    def incomplete(self) -> bool:
        """Whether more values than a small share are not known."""
        return max(self._shares(self.unknown)) > SMALL

    @property
    def _boundless(self) -> bool:
        return max(self._shares(self._unbounded)) > SMALL

    def _shares(self, counts: list[int]) -> list[float]:
        return [
            count / (n + unknown) if count else 0.0
            for count, n, unknown in zip(counts, self.observed.n, self.unknown, strict=True)
        ]

    def merge(self, other: Self) -> Self:
        """The state of both together."""
        both = type(self)(self._make)
        both.observed = self.observed.merge(other.observed)
        if self.worst is not None or other.worst is not None:
            both.worst, both.best = (
                mine.merge(theirs) for mine, theirs in zip(self._ends(), other._ends(), strict=True)
            )
        both.unknown = [a + b for a, b in zip(self.unknown, other.unknown, strict=True)]
        both.outside = self.outside + other.outside
        both._unbounded = [a + b for a, b in zip(self._unbounded, other._unbounded, strict=True)]
        return both

    def load_state(self, state: Any) -> None:
        """Take over a state. Raises ValueError, KeyError or TypeError."""
        self.worst = self.best = None
        if isinstance(state, dict) and state.get("worst") is not None:
            self.worst, self.best = self._make(), self._make()
        super().load_state(state)


def _same(worst: Values, best: Values) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(worst, best, strict=True))


def _difference(measure: Measure, alpha: float) -> Interval:
    """Challenger minus champion, as wide as the dependence of requests makes it."""
    champion, challenger = measure.estimates()
    known = champion is not None and challenger is not None
    centre = challenger - champion if known else None  # type: ignore[operator]
    return measure.widened(measure.difference(measure.level(alpha)), centre)


def _ratio(measure: Measure, alpha: float) -> Interval | None:
    """Challenger over champion, likewise."""
    interval = measure.ratio(measure.level(alpha))
    champion, challenger = measure.estimates()
    centre = challenger / champion if champion and challenger is not None else None
    return measure.widened(interval, centre) if interval is not None else None


def _hull(first: Interval, second: Interval) -> Interval:
    return Interval(min(first.lower, second.lower), max(first.upper, second.upper))

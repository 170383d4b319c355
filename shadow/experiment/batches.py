"""What experiments are fed: columns of values, vectorised, in the order of arrival.

Columns by name: ``error``, ``timeout`` and ``unusable`` (0 or 1; the last for a request without a
usable answer: failed, refused, abandoned or unreadable), ``latency`` (seconds), ``cost``,
``disagreement`` (pairs only: whether the challenger's answer differs; for the champion, whether its
own answer to the same request did), ``field:NAME`` (a number of the answer), ``input:NAME`` (a
number of the request), ``correct`` (0 or 1) and ``reward`` (from feedback).

From labels also ``recalled`` and ``rejected`` (of the positive and the negative ones, whether they
were predicted so), ``true_positive`` and ``predicted_positive``, ``score`` and ``positive`` (of a
binary prediction and its label), ``brier``, ``log_loss`` and ``absolute_error``. A column whose
name ends in ``capped LOWER UPPER`` holds the values within these bounds. NaN stands for a value
that is not there.

Values that are there and not known, such as those of requests that were not evaluated, are NaN in
``columns``; ``low`` and ``high`` then hold that column with the ends of the interval in which each
value lies (see :mod:`understudy.shadow.experiment.fates`), which are equal for known values.

Several measures are about one column. Its known values are therefore selected once, and must not
be changed.

``skipped`` marks rows from while the challenger's circuit breaker was open: whether it is open
depends on earlier requests only, so what was sent all the same is a fair, if small, sample of them
(predictable sampling), and harm may be judged by it. A claim still has to hold for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.hypothesis import COVARIATE

Array = npt.NDArray[np.float64]
Values = tuple[Array, ...]
"""Columns of equal length; their users name them."""
Ends = tuple[Values, Values]
"""Lower and upper ends."""


def _where(values: Values, there: npt.NDArray[np.bool_]) -> Values:
    return values if there.all() else tuple(column[there] for column in values)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Requests that both arms were to answer: ``columns[name]`` is (champion, challenger).

    ``fresh`` is how many are new requests that both answered or failed to; labels that come late
    are none. ``left_out`` counts the others by reason.
    """

    columns: Mapping[str, tuple[Array, Array]]
    fresh: int = 0
    low: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    high: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: npt.NDArray[np.bool_] | None = None
    _known: dict[tuple[str, ...], Values | None] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def column(self, *names: str) -> Values | None:
        """Both arms' values where both are known; of several columns, one row for each pair."""
        if names not in self._known:
            self._known[names] = self._of(names, self.columns)
        return self._known[names]

    def ends(self, *names: str, sampled: bool = False) -> Ends | None:
        """The same with the lower and with the upper ends; None if all values are known.
        ``sampled``: without rows that were ``skipped``."""
        if self.low.keys().isdisjoint(names):
            return None
        keep = ~self.skipped if sampled and self.skipped is not None else None
        low = self._of(names, {**self.columns, **self.low}, keep)
        high = self._of(names, {**self.columns, **self.high}, keep)
        return None if low is None or high is None else (low, high)

    def _of(
        self,
        names: tuple[str, ...],
        columns: Mapping[str, tuple[Array, Array]],
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> Values | None:
        present = [columns[name] for name in names if name in columns]
        if len(present) < len(names):
            return None
        pair = tuple(_stacked([column[side] for column in present]) for side in (0, 1))
        there = _there(pair[0], names) & _there(pair[1], names)
        return _where(pair, there if keep is None else there & keep)


@dataclass(frozen=True, slots=True)
class Split:
    """Requests served by one arm each.

    ``arms`` is 1 for the challenger, 0 for the champion; ``share`` the probability, between 0 and 1
    exclusive, that such a record went to the challenger when it was assigned to one of the two.
    ``fresh`` are the rows that are new requests and were evaluated (None: all); labels that come
    late are none. Those have the time at which their request ``started``, the time ``at`` which
    they came, whether they are the ``first`` of their request (None: all), and the number of their
    ``unit`` where units are assigned. ``left_out`` counts requests that were not evaluated, by
    reason.
    """

    arms: Array
    share: Array
    columns: Mapping[str, Array]
    fresh: npt.NDArray[np.bool_] | None = None
    started: Array | None = None
    at: Array | None = None
    first: npt.NDArray[np.bool_] | None = None
    low: Mapping[str, Array] = field(default_factory=dict)
    high: Mapping[str, Array] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: npt.NDArray[np.bool_] | None = None
    unit: Array | None = None
    _known: dict[tuple[str, ...], Values | None] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def rows(self, which: npt.NDArray[np.intp]) -> Split:
        """The rows at the indices ``which``, of labels."""
        times = [None if x is None else x[which] for x in (self.started, self.at)]
        marks = [None if x is None else x[which] for x in (self.fresh, self.first)]
        columns = {name: values[which] for name, values in self.columns.items()}
        return Split(
            self.arms[which],
            self.share[which],
            columns,
            marks[0],
            times[0],
            times[1],
            marks[1],
            unit=None if self.unit is None else self.unit[which],
        )

    def column(self, *names: str) -> Values | None:
        """(arms, values, share) of the records whose value is known; of several columns, one row of
        values for each record."""
        if names not in self._known:
            self._known[names] = self._of(names, self.columns)
        return self._known[names]

    def ends(self, *names: str, sampled: bool = False) -> Ends | None:
        """The same with the lower and with the upper ends; None if all values are known.
        ``sampled``: without rows that were ``skipped``."""
        if self.low.keys().isdisjoint(names):
            return None
        keep = ~self.skipped if sampled and self.skipped is not None else None
        low = self._of(names, {**self.columns, **self.low}, keep)
        high = self._of(names, {**self.columns, **self.high}, keep)
        return None if low is None or high is None else (low, high)

    def _of(
        self,
        names: tuple[str, ...],
        columns: Mapping[str, Array],
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> Values | None:
        present = [columns[name] for name in names if name in columns]
        if len(present) < len(names):
            return None
        values = _stacked(present)
        there = _there(values, names)
        return _where((self.arms, values, self.share), there if keep is None else there & keep)


@dataclass(frozen=True, slots=True)
class Units:
    """Units of assignment at one age, ``CUTOFFS[cutoff]``: ``columns[name]`` is (sums, counts)."""

    arms: Array
    share: Array
    columns: Mapping[str, tuple[Array, Array]]
    cutoff: int = 0
    low: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    high: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)

    def column(self, *names: str) -> Values | None:
        """(arms, sums, counts, share) of the units that have a known value; of several columns, one
        row of sums for each unit, and the counts of the first. A covariate's sum is its mean times
        these counts."""
        return self._of(names, self.columns)

    def ends(self, *names: str) -> Ends | None:
        """The same with the lower and with the upper ends; None if all values are known."""
        if self.low.keys().isdisjoint(names):
            return None
        low = self._of(names, {**self.columns, **self.low})
        high = self._of(names, {**self.columns, **self.high})
        return None if low is None or high is None else (low, high)

    def _of(
        self, names: tuple[str, ...], columns: Mapping[str, tuple[Array, Array]]
    ) -> Values | None:
        present = [columns[name] for name in names if name in columns]
        if len(present) < len(names):
            return None
        counts = present[0][1]
        needed = [
            counted
            for (_, counted), name in zip(present, names, strict=True)
            if not name.startswith(COVARIATE)
        ]
        there = np.min(needed, axis=0) > 0
        sums = _stacked(
            [
                np.where(counted > 0, total / np.maximum(counted, 1.0) * counts, np.nan)
                if name.startswith(COVARIATE)
                else total
                for (total, counted), name in zip(present, names, strict=True)
            ]
        )
        return _where((self.arms, sums, counts, self.share), there)


def _stacked(columns: list[Array]) -> Array:
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _there(values: Array, names: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Rows with all values. A covariate may lack: its record counts without being adjusted."""
    if values.ndim == 1:
        return ~np.isnan(values)
    needed = [not name.startswith(COVARIATE) for name in names]
    total: Array = values[:, needed].sum(axis=1)
    return ~np.isnan(total)

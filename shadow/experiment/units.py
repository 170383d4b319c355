"""Units of assignment: which ones there are, and what each has shown so far.

A unit (a user, a session, a tenant) is drawn to an arm once, however many requests it makes, so it
is one observation. Its values are its sums over the time since its first request under the current
weights; they are read at fixed ages (:data:`CUTOFFS`), which depend on no outcome. So evidence
comes while an experiment runs, also of units that never leave, and each age holds every unit once.

Units are told apart by a keyed hash for the whole experiment, never closed for being idle. Beyond
``limit`` units, only those whose hash lies below a bound take part, and the bound is halved when
the table is full: a random sample of units, chosen without a look at arm or outcome, so that tests
on it need no correction. The number of all units is then an estimate with a relative error of
1/sqrt(units in the table) (k minimum values: Bar-Yossef et al., "Counting distinct elements in a
data stream", 2002).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.shadow.experiment.batches import Units
from understudy.shadow.experiment.cutoffs import CUTOFFS
from understudy.shadow.state import Config, Converter, Count, Derived, FieldError, Saved, Stateful

MAX_UNITS = 32_768
_HASHES = 2.0**64
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Observed:
    """Units that have reached the age ``CUTOFFS[cutoff]``: their arms, and (sums, counts) by
    column, each of shape (units,)."""

    cutoff: int
    arms: NDArray[np.int16]
    columns: Mapping[str, tuple[Floats, Floats]]

    def units(self, number: int, share: float) -> Units | None:
        """Those of the champion and the challenger ``number``; None without any."""
        mine = (self.arms == 0) | (self.arms == number)
        if not mine.any():
            return None
        arms = (self.arms[mine] > 0).astype(np.float64)
        columns = {name: (sums[mine], n[mine]) for name, (sums, n) in self.columns.items()}
        return Units(arms, np.full(arms.size, share), columns, self.cutoff)


_Reading = tuple[int, Floats, NDArray[np.uint64], NDArray[np.int16], Floats]
"""Age, and of each unit that reached it: when, hash, arm, sums and counts."""


def _pack(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _unpack(name: str, text: Any, now: Any) -> NDArray[Any]:
    """Undo :func:`_pack`, with the type and all but the first axis of ``now``. Raises
    ValueError."""
    found = np.frombuffer(base64.b64decode(text, validate=True), now.dtype)
    return found.reshape((-1, *now.shape[1:])).copy()


PACKED = Converter(_pack, _unpack)


class UnitTable(Stateful):
    """Units of one experiment with the values of ``columns``; ``key`` of its hash, at most 64
    bytes."""

    columns: Config[tuple[str, ...]]
    limit: Config[int]
    _key: Config[bytes]
    _hashes: Saved[Annotated[NDArray[np.uint64], PACKED]]
    _arms: Saved[Annotated[NDArray[np.int16], PACKED]]
    _first: Saved[Annotated[Floats, PACKED]]
    _passed: Saved[Annotated[NDArray[np.int8], PACKED]]
    _sums: Saved[Annotated[Floats, PACKED]]
    _bound: Saved[float]
    conflicts: Saved[Count]
    _rows: Derived[dict[int, int]]

    def __init__(self, columns: Sequence[str], key: bytes = b"", limit: int = MAX_UNITS) -> None:
        self.columns = tuple(columns)
        self.limit = limit
        self._key = key
        self._hashes = np.empty(0, np.uint64)
        self._arms = np.empty(0, np.int16)
        self._first = np.empty(0)
        """Unix time of the first request under the current weights; NaN without one."""
        self._passed = np.empty(0, np.int8)
        """Number of ages at which the unit was read."""
        self._sums = np.empty((0, 2, len(self.columns)))
        """Sums and counts by column."""
        self._bound = _HASHES
        self.conflicts = 0
        """Requests of a unit whose arm is not that of its first request."""
        self._rows = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def distinct(self) -> tuple[int, float]:
        """The number of units seen, and its relative standard error (0: exact)."""
        if self._bound >= _HASHES:
            return len(self), 0.0
        return round(len(self) / (self._bound / _HASHES)), 1.0 / math.sqrt(max(1, len(self)))

    # In -----------------------------------------------------------------------------------------

    def take(
        self,
        units: Sequence[str],
        arms: NDArray[np.int16],
        at: Floats,
        values: Mapping[str, Floats],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[Observed]]:
        """Take requests in order of ``at``, when they were seen (unix time).

        ``values`` are NaN where they are not known. Returns which requests are the first of a unit
        in this experiment, which are its first under the current weights, and the units that
        reached an age meanwhile.
        """
        new = np.zeros(len(units), np.bool_)
        begun = np.zeros(len(units), np.bool_)
        if not len(units):
            return new, begun, []
        rows = self._find(units, arms, new)
        known = rows >= 0
        unseen = np.flatnonzero(known)[np.isnan(self._first[rows[known]])]
        for row in unseen.tolist():
            index = int(rows[row])
            if np.isnan(self._first[index]):
                begun[row] = True
                self._first[index], self._arms[index] = at[row], arms[row]
        other = known.copy()
        other[known] = self._arms[rows[known]] != arms[known]
        self.conflicts += int(other.sum())
        readings: list[_Reading] = []
        taken = np.flatnonzero(known & ~other)
        while taken.size:
            late = at[taken] > self._due(rows[taken])
            self._add(rows[taken[~late]], taken[~late], values)
            taken = taken[late]
            if taken.size:  # these units have reached an age, and go on after it
                readings += self._read(distinct(rows[taken]))
        return new, begun, self._observed(readings + self._reached(at[-1]))

    def advance(self, at: float) -> list[Observed]:
        """The units that have reached an age by ``at``, when nothing came of them."""
        return self._observed(self._reached(at))

    def _reached(self, at: float) -> list[_Reading]:
        readings: list[_Reading] = []
        while (reached := np.flatnonzero(self._due(slice(None)) < at)).size:
            readings += self._read(reached)
        return readings

    def _find(self, units: Sequence[str], arms: NDArray[np.int16], new: NDArray[np.bool_]) -> Ints:
        """The row of each unit, -1 outside the sample; sets ``new``."""
        rows = np.empty(len(units), np.intp)
        local: dict[str, int] = {}
        added: list[int] = []
        size = len(self._rows)
        for place, unit in enumerate(units):
            row = local.get(unit)
            if row is None:
                number = int.from_bytes(
                    blake2b(unit.encode(), digest_size=8, key=self._key).digest(), "little"
                )
                row = self._rows.get(number, -1)
                if row < 0 and number < self._bound:
                    row = self._rows[number] = size + len(added)
                    added.append(number)
                    new[place] = True
                local[unit] = row
            rows[place] = row
        if added:
            self._grow(added)
            if len(self._rows) > self.limit:
                rows = self._shrink()[rows]
        return rows

    def _grow(self, added: Sequence[int]) -> None:
        n = len(added)
        self._hashes = np.concatenate([self._hashes, np.array(added, np.uint64)])
        self._arms = np.concatenate([self._arms, np.zeros(n, np.int16)])
        self._first = np.concatenate([self._first, np.full(n, np.nan)])
        self._passed = np.concatenate([self._passed, np.zeros(n, np.int8)])
        self._sums = np.concatenate([self._sums, np.zeros((n, *self._sums.shape[1:]))])

    def _shrink(self) -> Ints:
        """Halve the bound until there is room; returns the new row of each row, -1 without one;
        its last item is -1 as well, for rows that were -1."""
        keep = self._hashes < self._bound
        while np.count_nonzero(keep) > self.limit:
            self._bound /= 2.0
            keep = self._hashes < self._bound
        moved = np.full(len(keep) + 1, -1, np.intp)
        moved[:-1][keep] = np.arange(np.count_nonzero(keep))
        self._hashes, self._arms = self._hashes[keep], self._arms[keep]
        self._first, self._passed = self._first[keep], self._passed[keep]
        self._sums = self._sums[keep]
        self._index()
        return moved

    def _index(self) -> None:
        self._rows = {number: row for row, number in enumerate(self._hashes.tolist())}

    def _add(self, rows: Ints, records: Ints, values: Mapping[str, Floats]) -> None:
        for column, name in enumerate(self.columns):
            cells = values[name][records]
            there = ~np.isnan(cells)
            np.add.at(self._sums[:, 0, column], rows[there], cells[there])
            np.add.at(self._sums[:, 1, column], rows[there], 1.0)

    # Out ----------------------------------------------------------------------------------------

    def _due(self, rows: Ints | slice) -> Floats:
        """Unix time at which each unit is read next; inf after its last age, NaN before its
        first request."""
        ages = np.array([*CUTOFFS, np.inf])
        return np.asarray(self._first[rows] + ages[self._passed[rows]])

    def close(self) -> list[Observed]:
        """The weights change: read all units at all ages that they have not reached, and start
        again."""
        readings: list[_Reading] = []
        while (open_ := np.flatnonzero(np.isfinite(self._due(slice(None))))).size:
            readings += self._read(open_)
        observed = self._observed(readings)
        self._first[:] = np.nan
        self._passed[:] = 0
        self._sums[:] = 0.0
        return observed

    def _read(self, rows: Ints) -> list[_Reading]:
        """Read ``rows`` at the next age of each."""
        passed, due = self._passed[rows], self._due(rows)
        readings = []
        for cutoff in distinct(passed).tolist():
            here = passed == cutoff
            mine = rows[here]
            reading = (due[here], self._hashes[mine], self._arms[mine], self._sums[mine])
            readings.append((cutoff, *reading))
        self._passed[rows] += 1
        return readings

    def _observed(self, readings: Sequence[_Reading]) -> list[Observed]:
        """Readings by age, each in order of the time at which the age was reached."""
        observed = []
        for cutoff in sorted({reading[0] for reading in readings}):
            mine = [reading for reading in readings if reading[0] == cutoff]
            due, hashes, arms = (np.concatenate([r[i] for r in mine]) for i in (1, 2, 3))
            sums = np.concatenate([r[4] for r in mine])
            order = np.lexsort((hashes, due))
            columns = {
                name: (sums[order, 0, column], sums[order, 1, column])
                for column, name in enumerate(self.columns)
            }
            observed.append(Observed(cutoff, arms[order], columns))
        return observed

    def forget(self) -> None:
        """Forget all units, for evidence that starts from zero."""
        keep = np.zeros(len(self), np.bool_)
        self._hashes, self._arms = self._hashes[keep], self._arms[keep]
        self._first, self._passed = self._first[keep], self._passed[keep]
        self._sums = self._sums[keep]
        self._bound = _HASHES
        self._rows = {}

    def _restored(self) -> None:
        n = len(self._hashes)
        if n > self.limit:
            raise FieldError("hashes", f"must be {self.limit:,} at most")
        if not len(self._arms) == len(self._first) == len(self._passed) == len(self._sums) == n:
            raise FieldError("hashes", "must be as many as there are units")
        if ((self._passed < 0) | (self._passed > len(CUTOFFS))).any():
            raise FieldError("passed", f"must be from 0 to {len(CUTOFFS)}")
        self._index()

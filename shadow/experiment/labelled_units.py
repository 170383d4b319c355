"""Units of assignment by their labels, of one kind of labels of one challenger.

A unit is drawn once, however many labels it gets, so it is one observation: its labels are summed
up and read at the ages of :mod:`understudy.shadow.experiment.cutoffs`, counted from its first
label. Labels come later than requests, so they have separate epochs: the shares of the labels
that count change with the first label of a request that was assigned under other shares, and
earlier requests that get their label after that are left out, of both arms alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from understudy.shadow.experiment.batches import Split, Units
from understudy.shadow.experiment.units import Observed, UnitTable
from understudy.shadow.state import Config, Count, Saved, Stateful

MOST_UNITS = 16_384
_EQUAL = 1e-9


class LabelledUnits(Stateful):
    """Units that have labels with the values of ``columns``.

    Steps are units that have reached an age; rows with the first label of each of their units; and
    None, when the shares change.
    """

    columns: Config[tuple[str, ...]]
    units: Saved[UnitTable]
    left_out: Saved[Count]
    """Labels of requests of earlier shares, or without a unit."""
    _share: Saved[float]
    """The challenger's share of the labels that count; 0 before the first one."""
    _since: Saved[float]
    """Start of the first request under these shares that got a label."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.units = UnitTable(self.columns, limit=MOST_UNITS)
        self.left_out = 0
        self._share = self._since = 0.0

    def take(self, batch: Split) -> Iterator[Units | Split | None]:
        """Take labels in the order in which they count; they need ``started``, ``at`` and
        ``unit``."""
        assert batch.started is not None
        assert batch.at is not None
        unit = batch.unit if batch.unit is not None else np.full(batch.arms.size, np.nan)
        rows = np.flatnonzero(~np.isnan(unit))
        self.left_out += batch.arms.size - rows.size
        while rows.size:
            same = np.abs(batch.share[rows] - self._share) < _EQUAL
            newer = np.flatnonzero(~same & (batch.started[rows] > self._since))
            end = int(newer[0]) if newer.size else rows.size
            mine = rows[:end][same[:end]]
            self.left_out += end - mine.size
            if mine.size:
                yield from self._take(batch.rows(mine))
            if end < rows.size:
                if self._share:
                    yield from self.close()
                    yield None
                first = rows[end]
                self._share = float(batch.share[first])
                self._since = float(batch.started[first])
            rows = rows[end:]

    def _take(self, batch: Split) -> Iterator[Units | Split]:
        assert batch.at is not None
        assert batch.unit is not None
        missing = np.full(batch.arms.size, np.nan)
        values = {name: batch.columns.get(name, missing) for name in self.columns}
        numbers = [format(int(number)) for number in batch.unit.tolist()]
        _, begun, observed = self.units.take(numbers, batch.arms.astype(np.int16), batch.at, values)
        if begun.any():
            yield batch.rows(np.flatnonzero(begun))
        yield from self._units(observed)

    def advance(self, now: float) -> Iterator[Units | None]:
        """The time is ``now``: units that have reached an age."""
        yield from self._units(self.units.advance(now))

    def close(self) -> Iterator[Units]:
        """Read all units at all ages that they have not reached, and start again."""
        yield from self._units(self.units.close())

    def _units(self, observed: Sequence[Observed]) -> Iterator[Units]:
        for one in observed:
            units = one.units(1, self._share)
            if units is not None:
                yield units

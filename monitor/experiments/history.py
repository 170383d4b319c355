"""What units did before any of them was assigned: the covariate `earlier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.shadow.experiment.hypothesis import EARLIER
from understudy.shadow.experiment.units import PACKED
from understudy.shadow.state import Config, FieldError, Saved, Stateful

CELLS = 32_768
Floats = NDArray[np.float64]


class UnitHistory(Stateful):
    """Means of units over their requests while the champion served all of them.

    ``columns`` are the covariates, of which each names the column that it is the earlier mean of;
    ``key`` is that of the hash, at most 64 bytes. Units are kept as sums in a fixed number of
    cells, by a keyed hash: units that share a cell share a mean, which makes the covariate explain
    less and biases nothing, since a cell depends on no arm. Once a unit has been assigned to a
    challenger nothing is added: what an arm has changed must not adjust it.
    """

    columns: Config[tuple[str, ...]]
    _key: Config[bytes]
    _sums: Saved[Annotated[Floats, PACKED]]
    """Sum and count of each cell, of one column after the other."""
    closed: Saved[bool]

    def __init__(self, columns: Sequence[str], key: bytes = b"") -> None:
        self.columns = tuple(c for c in columns if c.startswith(EARLIER))
        self._key = key
        self._sums = np.zeros((CELLS * len(self.columns), 2))
        self.closed = False

    def adjust(
        self, units: Sequence[str], values: Mapping[str, Floats], assigning: bool
    ) -> dict[str, Floats]:
        """The covariates of requests of ``units``: the means of their earlier requests.

        ``values`` are those of the requests, NaN where they are not known; they are added until a
        challenger is ``assigning`` units for the first time. A unit without earlier requests has
        NaN.
        """
        if not self.columns:
            return {}
        self.closed |= assigning
        cells = np.array([self._cell(unit) for unit in units], np.intp)
        found: dict[str, Floats] = {}
        for number, column in enumerate(self.columns):
            rows = cells + number * CELLS
            total, n = self._sums[rows].T
            found[column] = np.where(n > 0.0, total / np.maximum(n, 1.0), np.nan)
            if not self.closed:
                x = values[column.removeprefix(EARLIER)]
                there = ~np.isnan(x)
                np.add.at(
                    self._sums, rows[there], np.stack((x[there], np.ones(there.sum())), axis=1)
                )
        return found

    def _cell(self, unit: str) -> int:
        digest = blake2b(unit.encode(), digest_size=8, key=self._key, person=b"history").digest()
        return int.from_bytes(digest, "little") % CELLS

    def _restored(self) -> None:
        if self._sums.shape != (CELLS * len(self.columns), 2):
            raise FieldError("sums", f"must be {CELLS * len(self.columns)} cells")

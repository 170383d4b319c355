"""Request ids as examples of a problem: the newest few of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.rules import Rule

MOST = 5


class Examples:
    """Request ids, the newest last: ``broken`` by rule and column; ``furthest`` by number of a
    drifted series, of rows that are extreme in the direction of the drift. ``unseen`` are the
    newest values of a column that the baseline does not know."""

    def __init__(self) -> None:
        self.broken: dict[Rule, dict[str, list[str]]] = {}
        self.furthest: dict[int, list[str]] = {}
        self.unseen: dict[str, list[str]] = {}

    def add_broken(
        self, masks: dict[Rule, NDArray[np.bool_]], names: Sequence[str], ids: Sequence[bytes]
    ) -> None:
        """Add the rows that break a rule: masks (n, C) by rule, names of the C columns, n ids."""
        for rule, mask in masks.items():
            of_rule = self.broken.setdefault(rule, {})
            for column in np.flatnonzero(mask.any(0)).tolist():
                newest_ids = of_rule.setdefault(names[column], [])
                add(newest_ids, ids[int(np.flatnonzero(mask[:, column])[-1])])

    def add_unseen(self, values: Mapping[int, Sequence[str]], names: Sequence[str]) -> None:
        """Add values that the baseline does not know, by number of the column."""
        for column, unseen in values.items():
            kept = self.unseen.setdefault(names[column], [])
            kept += [value for value in unseen if value not in kept]
            del kept[:-MOST]

    def add_furthest(
        self,
        scores: NDArray[np.float64],
        alarmed: NDArray[np.bool_],
        direction: NDArray[np.int8],
        ids: Sequence[bytes],
    ) -> None:
        """Add the most extreme row of each series that alarmed: ``scores`` (n, 2 S), ``alarmed``
        and ``direction`` (2 S,), n ids."""
        for index in np.flatnonzero(alarmed).tolist():
            column = scores[:, index] * (1.0 if direction[index] >= 0 else -1.0)
            if np.isfinite(column).any():
                add(self.furthest.setdefault(index, []), ids[int(np.nanargmax(column))])

    def forget(self, recovered: NDArray[np.bool_]) -> None:
        """Delete the examples of recovered series, a mask (2 S,)."""
        for index in [p for p in self.furthest if recovered[p]]:
            del self.furthest[index]


def add(newest_ids: list[str], request_id: bytes) -> None:
    """Append an id to ``newest_ids``, which keeps the newest few."""
    newest = request_id.decode("latin-1")
    if newest not in newest_ids:
        newest_ids.append(newest)
        del newest_ids[:-MOST]

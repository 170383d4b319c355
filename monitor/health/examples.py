"""Request ids that stand for what is wrong: the newest few of each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.rules import Rule

KEPT = 5


class Examples:
    """``broken`` by rule and column; ``furthest`` of a location or spread that has drifted: rows
    that are far out the way it went. The newest comes last."""

    def __init__(self) -> None:
        self.broken: dict[Rule, dict[str, list[str]]] = {}
        self.furthest: dict[int, list[str]] = {}

    def keep_broken(
        self, masks: dict[Rule, NDArray[np.bool_]], names: Sequence[str], ids: Sequence[bytes]
    ) -> None:
        """Of rows with ``ids``, those that break a rule: masks (n, C)."""
        for rule, mask in masks.items():
            of_rule = self.broken.setdefault(rule, {})
            for column in np.flatnonzero(mask.any(0)).tolist():
                kept = of_rule.setdefault(names[column], [])
                add(kept, ids[int(np.flatnonzero(mask[:, column])[-1])])

    def keep_furthest(
        self,
        scores: NDArray[np.float64],
        alarmed: NDArray[np.bool_],
        direction: NDArray[np.int8],
        ids: Sequence[bytes],
    ) -> None:
        """Of rows with ``scores`` (n, 2 S), the one furthest out, of each series that alarmed."""
        for place in np.flatnonzero(alarmed).tolist():
            column = scores[:, place] * (1.0 if direction[place] >= 0 else -1.0)
            if np.isfinite(column).any():
                add(self.furthest.setdefault(place, []), ids[int(np.nanargmax(column))])

    def forget(self, recovered: NDArray[np.bool_]) -> None:
        """Of series that are as they used to be."""
        for place in [p for p in self.furthest if recovered[p]]:
            del self.furthest[place]


def add(kept: list[str], request_id: bytes) -> None:
    """Keep the newest few."""
    newest = request_id.decode("latin-1")
    if newest not in kept:
        kept.append(newest)
        del kept[:-KEPT]

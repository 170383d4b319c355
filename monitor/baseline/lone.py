"""A single row as bucket codes, without arrays: those cost more to make than a row is worth."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.monitor.baseline.encoder import MISSING, PLAIN, Encoder

_MOST_LAYOUTS = 64
_Step = tuple[int, list[float] | None, float, float, Mapping[Any, int]]
"""Place in the row, edges and range of a number, or the codes of categories that were met."""


class RowReader:
    """Reads what is as usual; whatever is not, goes the way of whole batches, which can say why."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._plans: dict[tuple[str, ...], list[_Step] | None] = {}

    def read(
        self, names: tuple[str, ...], values: Sequence[Any]
    ) -> tuple[list[int], list[float]] | None:
        """Codes of the series and numbers of the columns, as :class:`Encoded` has them; None for a
        row with anything unusual."""
        try:
            plan = self._plans[names]
        except KeyError:
            plan = self._plan(names)
        if plan is None:
            return None
        codes: list[int] = []
        raw: list[float] = []
        for place, edges, low, high, memory in plan:
            value = values[place]
            if edges is not None:
                if type(value) is not float:
                    if type(value) is not int or abs(value) > 2**53:
                        return None
                    value = float(value)
                if not low <= value <= high or math.isinf(value):
                    return None
                codes.append(bisect_left(edges, value))
                raw.append(value)
            else:
                try:
                    code = memory[value if type(value) is str else (type(value), value)]
                except (KeyError, TypeError):
                    return None
                if not 0 <= code < MISSING:
                    return None
                codes.append(code)
                raw.append(float(code))
        return codes, raw

    def _plan(self, names: tuple[str, ...]) -> list[_Step] | None:
        """How to read rows of these columns; None where they are not just the baseline's, or are
        more than numbers and categories."""
        encoder = self._encoder
        plan: list[_Step] | None = []
        for number, column in enumerate(encoder.columns):
            if column.kind not in PLAIN or column.name not in names or plan is None:
                plan = None
                break
            series = encoder.first[number]
            edges = encoder.edges[series].tolist() if column.kind == "numeric" else None
            low, high = encoder.bounds(series)
            plan.append((names.index(column.name), edges, low, high, encoder.memory[series]))
        if plan is not None and set(names) - set(encoder.names):
            plan = None
        if len(self._plans) >= _MOST_LAYOUTS:
            self._plans.clear()
        self._plans[names] = plan
        return plan

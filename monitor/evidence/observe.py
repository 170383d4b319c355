"""From a record to the values that experiments compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.monitor.codecs import Table
from understudy.monitor.config.experiment import Cost, Label
from understudy.monitor.records import record as records
from understudy.monitor.records.record import Record

NAN = math.nan
_MOST_CODES = 64
NOT_COUNTED = frozenset((records.CANCELLED, records.REJECTED))
"""Not the doing of the model server."""
ERRORS = frozenset(
    (
        records.SERVER_ERROR,
        records.TIMEOUT,
        records.UPSTREAM_CONNECT,
        records.UPSTREAM_RESET,
        records.OVERLOAD,
        records.GARBAGE,
        records.TOO_LARGE,
    )
)
NO_COPY = frozenset((records.CANCELLED, records.OVERLOAD))
"""Copies that say nothing about the challenger: they were given up, or found no connection."""


def counts(record: Record) -> bool:
    """Whether a record says anything about the arm that served it."""
    if record.role == records.ROLE_MIRROR:
        return record.outcome not in NO_COPY
    return record.outcome not in NOT_COUNTED


@dataclass(slots=True)
class Observation:
    """One exchange. ``answer`` holds the columns of a decoded answer, by name. Values are numbers;
    of an output with texts they are its cells, which :class:`Codes` turns into a number."""

    request_id: bytes
    started: float
    ended: float
    values: dict[str, Any]
    answer: Mapping[str, list[object]] | None
    origin: tuple[int, int] = (0, 0)
    """Where its record is to be found again: offset of its block, place in it."""


class Observer:
    """Turns records into observations; ``fields`` are the outputs that metrics are about."""

    def __init__(self, fields: frozenset[str], cost: Mapping[str, Cost]) -> None:
        self._fields = tuple(sorted(fields))
        self._cost = cost

    def observe(self, record: Record, arm: str, answer: object) -> Observation:
        """``answer`` is the decoded table of the response, or whatever stands in for it."""
        outcome = record.outcome
        seconds = record.duration_ns * 1e-9
        values: dict[str, Any] = {
            "error": 1.0 if outcome in ERRORS else 0.0,
            "timeout": 1.0 if outcome == records.TIMEOUT else 0.0,
            "latency": seconds,
        }
        cost = self._cost.get(arm)
        if cost is not None:
            values["cost"] = cost.per_request + cost.per_second * seconds
        columns: dict[str, list[object]] | None = None
        if outcome == records.OK and isinstance(answer, Table):
            width = len(answer.names)
            columns = {name: answer.values[i::width] for i, name in enumerate(answer.names)}
            for name in self._fields:
                values[f"field:{name}"] = _value(columns.get(name))
        ended = record.started + seconds
        return Observation(record.request_id, record.started, ended, values, columns)


def _value(cells: list[object] | None) -> float | list[object]:
    """A request's value of a field: the mean over its rows, or its cells if there are texts."""
    if not cells:
        return NAN
    total = 0.0
    for cell in cells:
        if isinstance(cell, str):
            return cells
        if isinstance(cell, (int, float)) and math.isfinite(cell):
            total += cell
        else:
            return NAN
    return total / len(cells)


class Codes:
    """Numbers for texts, by output, as they come."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, float]] = {}

    def of(self, name: str, cells: object) -> float:
        """The mean over the cells of a request, of an output with texts."""
        if not isinstance(cells, list) or not cells:
            return NAN
        total = 0.0
        known = self._codes.setdefault(name, {})
        for cell in cells:
            if isinstance(cell, str):
                if cell not in known and len(known) < _MOST_CODES:
                    known[cell] = float(len(known))
                total += known.get(cell, float(_MOST_CODES))
            elif isinstance(cell, (int, float)) and math.isfinite(cell):
                total += cell
            else:
                return NAN
        return total / len(cells)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """As JSON."""
        return self._codes

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Undo :meth:`to_dict`."""
        self._codes = {name: dict(codes) for name, codes in state.items()}


def correct(prediction: Mapping[str, object], label: object, how: Label) -> float:
    """1 when the prediction was right, 0 when it was wrong, NaN when that cannot be said."""
    cell = prediction.get(how.prediction)
    if cell is None or label is None:
        return NAN
    if how.threshold is not None:
        if not isinstance(cell, (int, float)) or not isinstance(label, (int, float)):
            return NAN
        return float((cell > how.threshold) == (label > 0.5))
    if isinstance(cell, (int, float)) and isinstance(label, (int, float)):
        return float(cell == label)
    return float(str(cell) == str(label))

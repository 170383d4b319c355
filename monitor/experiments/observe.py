"""From a record to the values that experiments compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from monitor import record as records
from monitor.codecs import Table
from monitor.config.experiment import Cost, Label
from monitor.record import Record

NAN = math.nan
_NOT_COUNTED = frozenset((records.CANCELLED, records.REJECTED))
"""Not the doing of the model server."""
_ERRORS = frozenset(
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
_NO_COPY = frozenset((records.CANCELLED, records.OVERLOAD))
"""Copies that say nothing about the challenger: they were given up, or found no connection."""


def counts(record: Record) -> bool:
    """Whether a record says anything about the arm that served it."""
    if record.role == records.ROLE_MIRROR:
        return record.outcome not in _NO_COPY
    return record.outcome not in _NOT_COUNTED


@dataclass(slots=True)
class Observation:
    """One exchange. ``answer`` holds the columns of a decoded answer, by name."""

    request_id: bytes
    started: float
    values: dict[str, float]
    answer: Mapping[str, list[object]] | None


class Observer:
    """Turns records into observations; ``fields`` are the outputs that metrics are about."""

    def __init__(self, fields: frozenset[str], cost: Mapping[str, Cost]) -> None:
        self._fields = tuple(sorted(fields))
        self._cost = cost
        self._codes: dict[str, dict[str, float]] = {}

    def observe(self, record: Record, arm: str, answer: object) -> Observation:
        """``answer`` is the decoded table of the response, or whatever stands in for it."""
        outcome = record.outcome
        seconds = record.duration_ns * 1e-9
        values = {
            "error": 1.0 if outcome in _ERRORS else 0.0,
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
                values[f"field:{name}"] = self._value(name, columns.get(name))
        return Observation(record.request_id, record.started, values, columns)

    def _value(self, name: str, cells: list[object] | None) -> float:
        """A request's value of a field: the mean over its rows; texts are numbered as they come."""
        if not cells:
            return NAN
        total = 0.0
        for cell in cells:
            if isinstance(cell, str):
                known = self._codes.setdefault(name, {})
                if cell not in known and len(known) < 64:
                    known[cell] = float(len(known))
                total += known.get(cell, 64.0)
            elif isinstance(cell, (int, float)) and math.isfinite(cell):
                total += cell
            else:
                return NAN
        return total / len(cells)


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

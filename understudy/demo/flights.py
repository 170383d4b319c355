"""The data of the demo, and two models that learn from it: is a flight more than 15 minutes late?

``data/flights.csv`` holds 5,000 of the 336,776 flights that left New York in 2013, drawn at random,
with the weather at their origin; ``data/README.md`` names source and licence. It is divided into
rows to learn from, rows that describe what is usual, and rows that clients send.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "delays"
TEXTS = ("origin", "carrier")
NUMBERS = (
    "hour",
    "distance_miles",
    "dep_delay_min",
    "temp_f",
    "wind_mph",
    "pressure_mb",
)
FEATURES = (*TEXTS, *NUMBERS)
MEASURED = {"temp_f": 0.3, "wind_mph": 0.3, "pressure_mb": 0.3}
"""Standard deviation of a measurement, by feature."""
PREDICTION = "p_late"
LABEL = "late"
_LEARNED, _USUAL = 1_400, 1_800
_RIDGE = 1.0
_STEPS = 12
"""Newton's method converges in about six steps."""

Value = str | float | None
Row = dict[str, Value]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flights:
    """Rows with their labels: what models learn from, what is usual, and what clients send."""

    learned: list[Row]
    usual: list[Row]
    sent: list[Row]


def read() -> Flights:
    """The rows of the file; missing values are None."""
    text = (files("understudy.demo") / "data" / "flights.csv").read_text(encoding="utf-8")
    rows: list[Row] = [
        {
            name: value if name in TEXTS else float(value) if value else None
            for name, value in row.items()
        }
        for row in csv.DictReader(text.splitlines())
    ]
    first, second = _LEARNED, _LEARNED + _USUAL
    return Flights(rows[:first], rows[first:second], rows[second:])


class LateModel:
    """Logistic regression on a flight's features, as plain numbers that JSON can hold.

    ``hours``: it knows the delay at departure in whole hours only. ``strict``: it fails when a
    value is missing, instead of using the mean.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        self.hours = bool(document["hours"])
        self.strict = bool(document["strict"])
        self._texts: Mapping[str, Sequence[str]] = document["texts"]
        self._means: Mapping[str, float] = document["means"]
        self._scales: Mapping[str, float] = document["scales"]
        self._weights = np.asarray(document["weights"], np.float64)

    @classmethod
    def learn(cls, rows: Sequence[Row], *, hours: bool, strict: bool = False) -> LateModel:
        """Fit to ``rows`` by Newton's method with a ridge penalty; a strict model learns from the
        rows without missing values only."""
        if strict:
            rows = [row for row in rows if None not in row.values()]
        texts = {name: sorted({str(row[name]) for row in rows}) for name in TEXTS}
        means, scales = {}, {}
        for name in NUMBERS:
            known = np.asarray([row[name] for row in rows if row[name] is not None], np.float64)
            means[name], scales[name] = float(known.mean()), float(known.std()) or 1.0
        document: dict[str, Any] = {
            "hours": hours,
            "strict": strict,
            "texts": texts,
            "means": means,
            "scales": scales,
            "weights": [],
        }
        model = cls(document)
        design = np.asarray([model._columns(row) for row in rows])
        late = np.asarray([row[LABEL] for row in rows], np.float64)
        weights = np.zeros(design.shape[1])
        penalty = _RIDGE * np.eye(design.shape[1])
        penalty[0, 0] = 0.0
        for _ in range(_STEPS):
            p = _logistic(design @ weights)
            gradient = design.T @ (late - p) - penalty @ weights
            hessian = (design.T * (p * (1.0 - p))) @ design + penalty
            weights = weights + np.linalg.solve(hessian, gradient)
        return cls({**document, "weights": weights.tolist()})

    def _columns(self, row: Mapping[str, Value]) -> list[float]:
        columns = [1.0]
        for name in TEXTS:
            columns += [float(row[name] == text) for text in self._texts[name][1:]]
        for name in NUMBERS:
            value = row.get(name)
            if value is None and self.strict:
                raise ValueError(f"{name} is missing")
            number = self._means[name] if value is None else float(value)
            if name == "dep_delay_min":
                columns += self._delay(number)
            else:
                columns.append((number - self._means[name]) / self._scales[name])
        return columns

    def _delay(self, minutes: float) -> list[float]:
        if self.hours:
            return [min(max(minutes // 60.0, 0.0), 3.0)]
        return [
            min(minutes, 0.0) / 10.0,
            *(min(max(minutes - a, 0.0), 15.0) / 15.0 for a in (0, 15, 30)),
        ]

    def predict(self, row: Mapping[str, Value]) -> float:
        """The probability that the flight will be late. Raises ValueError if it is strict and a
        value is missing."""
        return float(_logistic(np.asarray(self._columns(row)) @ self._weights))

    def accuracy(self, rows: Sequence[Row]) -> float:
        """Share of ``rows`` for which a probability above one half agrees with the label."""
        right = [(self.predict(row) > 0.5) == bool(row[LABEL]) for row in rows]
        return sum(right) / len(right)


def _logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))


def request_body(row: Mapping[str, Value]) -> list[str | tuple[float, float]]:
    """One flight in the Open Inference Protocol (V2), as JSON in parts: the weather is measured
    again for each request, so that flights that are sent several times are not the same rows."""
    parts: list[str | tuple[float, float]] = ['{"inputs": [']
    for place, name in enumerate(FEATURES):
        value, datatype = row[name], "BYTES" if name in TEXTS else "FP64"
        head = f'{{"name": "{name}", "shape": [1], "datatype": "{datatype}", "data": ['
        parts.append(", " * (place > 0) + head)
        if name in MEASURED and isinstance(value, float):
            parts.append((value, MEASURED[name]))
        else:
            parts.append(json.dumps(value))
        parts.append("]}")
    return [*parts, "]}"]

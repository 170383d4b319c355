"""Conversion of joined pairs of predictions and labels to arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.kinds import category, number
from understudy.monitor.health.performance.metrics import LabelledBatch
from understudy.monitor.health.performance.tallies import BinaryTally, ClassTally, Tally
from understudy.monitor.labels.store import Joined

Floats = NDArray[np.float64]
_MOST_CODES = 20
_ENOUGH = 64


def batch_of(pairs: Sequence[Joined], prediction: str, tally: Tally) -> LabelledBatch:
    """A batch of pairs whose outputs contain ``prediction``, as numbers or texts depending on the
    tally. An invalid cell becomes NaN, or an empty text."""
    cells = [pair.outputs.get(prediction) for pair in pairs]
    predicted: Floats | list[str]
    labels: Floats | list[str]
    if isinstance(tally, ClassTally):
        predicted = [category(cell) or "" for cell in cells]
        labels = [category(pair.label) or "" for pair in pairs]
    else:
        read = yes if isinstance(tally, BinaryTally) else number
        predicted = np.array([number(cell) for cell in cells], np.float64)
        labels = np.array([read(pair.label) for pair in pairs], np.float64)
    return LabelledBatch(
        predicted,
        labels,
        np.array([pair.started for pair in pairs], np.float64),
        np.array([pair.delay for pair in pairs], np.float64),
        tuple(pair.request_id for pair in pairs),
    )


def wrong(batch: LabelledBatch, tally: Tally) -> Floats:
    """Which predictions were wrong by the tally's rule: 1 or 0, NaN where it is unknown, and for
    numbers without a tolerance."""
    if isinstance(batch.predicted, list) or isinstance(batch.labels, list):
        pairs = zip(batch.predicted, batch.labels, strict=True)
        return np.array([float(a != b) if a and b else math.nan for a, b in pairs])
    result: Floats
    if isinstance(tally, BinaryTally):
        result = ((batch.predicted > tally.threshold) != (batch.labels > 0.5)).astype(np.float64)
    elif isinstance(tally, ClassTally) or tally.tolerance is None:
        return np.full(len(batch), math.nan)
    else:
        result = (np.abs(batch.predicted - batch.labels) > tally.tolerance).astype(np.float64)
    result[~(np.isfinite(batch.predicted) & np.isfinite(batch.labels))] = np.nan
    return result


def valid(batch: LabelledBatch) -> NDArray[np.bool_]:
    """The rows (n,) with a prediction and a label that can be compared."""
    if isinstance(batch.predicted, list) or isinstance(batch.labels, list):
        pairs = zip(batch.predicted, batch.labels, strict=True)
        return np.array([bool(a and b) for a, b in pairs], np.bool_)
    return np.isfinite(batch.predicted) & np.isfinite(batch.labels)


def kind_of(pairs: Sequence[Joined], prediction: str, decide: bool) -> str:
    """Whether these are predicted ``numbers`` or ``classes``, by their values; "" while it is open.

    Numbers with a fraction are numbers, texts are classes. Whole numbers may be codes: with more
    than twenty of them, among 64 labels, they are numbers; ``decide`` ends the wait for so many.
    """
    seen: set[float] = set()
    for pair in pairs:
        for cell in (pair.outputs.get(prediction), pair.label):
            if isinstance(cell, (str, bool)):
                return "classes"
            value = number(cell)
            if math.isfinite(value):
                if value != math.floor(value):
                    return "numbers"
                seen.add(value)
    if len(seen) > _MOST_CODES:
        return "numbers"
    return "classes" if seen and (decide or len(pairs) >= _ENOUGH) else ""


def known(batch: LabelledBatch, rows: NDArray[np.bool_]) -> LabelledBatch:
    """The rows of the mask (n,)."""

    def part(column: Floats | list[str]) -> Floats | list[str]:
        if isinstance(column, list):
            return [cell for cell, here in zip(column, rows.tolist(), strict=True) if here]
        kept: Floats = column[rows]
        return kept

    ids = tuple(one for one, here in zip(batch.ids, rows.tolist(), strict=False) if here)
    return LabelledBatch(
        part(batch.predicted), part(batch.labels), batch.started[rows], batch.delays[rows], ids
    )


def yes(label: Any) -> float:
    """A label as 1 or 0; NaN for other values."""
    if isinstance(label, str):
        return {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}.get(label.lower(), math.nan)
    return number(label)

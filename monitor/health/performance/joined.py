"""From pairs of the feedback store to arrays."""

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


def batch_of(pairs: Sequence[Joined], prediction: str, tally: Tally) -> LabelledBatch:
    """Of pairs whose outputs hold ``prediction``, as numbers or texts by what the tally counts. A
    cell that is no such thing becomes NaN, or an empty text."""
    cells = [pair.outputs.get(prediction) for pair in pairs]
    said: Floats | list[str]
    labels: Floats | list[str]
    if isinstance(tally, ClassTally):
        said = [category(cell) or "" for cell in cells]
        labels = [category(pair.label) or "" for pair in pairs]
    else:
        read = yes if isinstance(tally, BinaryTally) else number
        said = np.array([number(cell) for cell in cells], np.float64)
        labels = np.array([read(pair.label) for pair in pairs], np.float64)
    return LabelledBatch(
        said,
        labels,
        np.array([pair.started for pair in pairs], np.float64),
        np.array([pair.delay for pair in pairs], np.float64),
        tuple(pair.request_id for pair in pairs),
    )


def wrong(batch: LabelledBatch, tally: Tally) -> Floats:
    """Which predictions were wrong by the tally's rule: 1 or 0, NaN where that cannot be said."""
    if isinstance(batch.said, list) or isinstance(batch.labels, list):
        pairs = zip(batch.said, batch.labels, strict=True)
        return np.array([float(a != b) if a and b else math.nan for a, b in pairs])
    found: Floats
    if isinstance(tally, BinaryTally):
        found = ((batch.said > tally.threshold) != (batch.labels > 0.5)).astype(np.float64)
    else:
        tolerance = 0.0 if isinstance(tally, ClassTally) else tally.tolerance or 0.0
        found = (np.abs(batch.said - batch.labels) > tolerance).astype(np.float64)
    found[~(np.isfinite(batch.said) & np.isfinite(batch.labels))] = np.nan
    return found


def known(batch: LabelledBatch, rows: NDArray[np.bool_]) -> LabelledBatch:
    """The rows of the mask (n,)."""

    def part(column: Floats | list[str]) -> Floats | list[str]:
        if isinstance(column, list):
            return [cell for cell, here in zip(column, rows.tolist(), strict=True) if here]
        kept: Floats = column[rows]
        return kept

    ids = tuple(one for one, here in zip(batch.ids, rows.tolist(), strict=False) if here)
    return LabelledBatch(
        part(batch.said), part(batch.labels), batch.started[rows], batch.delays[rows], ids
    )


def yes(label: Any) -> float:
    """A label as 1 or 0; NaN for what is neither."""
    if isinstance(label, str):
        return {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}.get(label.lower(), math.nan)
    return number(label)

"""Rows that come one at a time: judged at once, noted together.

Whether a row is an alarm cannot wait, and costs little: its charts and its rules. What people look
at afterwards (since when, how large, what the newest values are like) is worked out for some
hundreds of rows together, or when somebody asks.
"""

from __future__ import annotations

import array as arrays
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.lone import RowReader
from understudy.monitor.baseline.repeats import Repeats, key_of
from understudy.monitor.evidence.columns import Cells

Floats = NDArray[np.float64]
FULL = 256
"""Rows that are noted together at the latest."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Rows that were judged: ``codes`` (n, S), ``raw`` (n, C), ``plain`` and ``scores`` (n, 2 S),
    of which the second ones are without the cycle, ``broken`` (n, R), None for all zeros."""

    codes: NDArray[np.int64]
    raw: Floats
    plain: Floats
    scores: Floats
    broken: Floats | None
    times: Floats
    ids: list[bytes]


class RowBuffer:
    """Reads rows as usual as most are, and holds them until they are noted."""

    def __init__(self, encoder: Encoder, rules: int) -> None:
        self._reader = RowReader(encoder)
        self._encoder = encoder
        self._rules = rules
        self._features: list[int] = np.flatnonzero(encoder.is_feature).tolist()
        self._codes: list[list[int]] = []
        self._raw: list[list[float]] = []
        self._plain: list[Floats] = []
        self._scores: list[Floats] = []
        self._broken: list[Floats | None] = []
        self._times: list[float] = []
        self._ids: list[bytes] = []

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, batch: Batch) -> tuple[list[int], list[float]] | None:
        """Codes and numbers of a row; None where it must go the way of batches."""
        values = batch.values
        cells = values.row(0) if isinstance(values, Cells) else values
        return self._reader.read(batch.names, cells)

    def repeated(self, raw: list[float], repeats: Repeats) -> bool:
        """Whether a row like it was there a moment ago, by the features as they are in a batch."""
        features = self._features
        cells = raw if len(features) == len(raw) else [raw[place] for place in features]
        return bool(cells) and repeats.lone(key_of(arrays.array("d", cells).tobytes()))

    def hold(
        self,
        codes: list[int],
        raw: list[float],
        plain: Floats,
        scores: Floats,
        broken: Floats | None,
        at: float,
        request_id: bytes,
    ) -> None:
        """Keep a row that was judged."""
        self._codes.append(codes)
        self._raw.append(raw)
        self._plain.append(plain)
        self._scores.append(scores)
        self._broken.append(broken)
        self._times.append(at)
        self._ids.append(request_id)

    def release(self) -> Noted:
        """What was held; there must be something."""
        broken = None
        for place, row in enumerate(self._broken):
            if row is not None:
                if broken is None:
                    broken = np.zeros((len(self._ids), self._rules))
                broken[place] = row
        found = Noted(
            np.array(self._codes, np.int64),
            np.array(self._raw, np.float64),
            np.array(self._plain),
            np.array(self._scores),
            broken,
            np.array(self._times, np.float64),
            self._ids,
        )
        self._codes, self._raw, self._plain, self._scores = [], [], [], []
        self._broken, self._times, self._ids = [], [], []
        return found

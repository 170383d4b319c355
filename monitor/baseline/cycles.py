"""The daily and weekly cycles of a baseline's series, learned from its rows once it is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.detectors.seasons import Profile, ProfileBuilder

_AT_ONCE = 4096


class Cycles:
    """Takes the rows of the baseline once more, in their order, with their times."""

    def __init__(self, baseline: Baseline) -> None:
        self._encoder = Encoder(baseline)
        self._builder = ProfileBuilder(2 * len(self._encoder.series))

    def add(
        self, names: Sequence[str], columns: Sequence[Sequence[Any]], times: Sequence[float]
    ) -> None:
        """Rows as columns of cells; ``times`` in unix seconds, NaN where that is not known."""
        known = [index for index, name in enumerate(names) if name in self._encoder.names]
        kept = tuple(names[index] for index in known)
        for start in range(0, len(times), _AT_ONCE):
            rows = [
                row
                for row in range(start, min(start + _AT_ONCE, len(times)))
                if math.isfinite(times[row])
            ]
            if not rows:
                continue
            cells = [[columns[index][row] for row in rows] for index in known]
            moments = [times[row] for row in rows]
            result = self._encoder.encode(Batch(kept, cells, [b""] * len(rows), moments))
            self._builder.add(self._encoder.scores(result.codes), np.array(moments))

    def finish(self) -> dict[str, Any] | None:
        """Those series that have a cycle, as JSON; None where none has, or where too little of the
        day was seen twice."""
        if not self._builder.enough():
            return None
        profile = self._builder.finish()
        count = len(self._encoder.series)
        moves = np.ptp(profile.means, axis=0) > 0.0
        indices = np.flatnonzero(moves[:count] | moves[count:])
        if not len(indices):
            return None
        both = np.concatenate([indices, indices + count])
        part = Profile(profile.means[:, both], profile.scale[both], profile.inflation[both])
        return {"series": [self._encoder.series[index] for index in indices], **part.to_dict()}

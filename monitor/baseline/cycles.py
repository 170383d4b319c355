"""The daily and weekly cycles of a baseline's series, learned from its rows once it is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.detectors.dependence import Dependence
from understudy.monitor.detectors.seasons import Profile, ProfileBuilder

_AT_ONCE = 4096

Floats = NDArray[np.float64]
Rows = tuple[Sequence[str], Sequence[Sequence[Any]], Sequence[float]]
"""Names, columns of cells, and unix times, NaN where these are not known."""


def learn_cycles(baseline: Baseline, passes: Callable[[], Iterable[Rows]]) -> dict[str, Any] | None:
    """Those series that have a cycle, as JSON; None where none has, or where too little has come
    twice. ``passes`` gives the rows of the baseline in their order; they are read twice, for the
    hours, and for how rows depend on each other without these."""
    encoder = Encoder(baseline)
    count = len(encoder.series)
    builder = ProfileBuilder(2 * count)
    for x, times in _scores(encoder, passes()):
        builder.add(x, times)
    whole = builder.finish()
    moves = np.ptp(whole.means, axis=0) > 0.0
    indices = np.flatnonzero(moves[:count] | moves[count:])
    if not len(indices):
        return None
    both = np.concatenate([indices, indices + count]).tolist()
    profile = whole.of(both)
    dependence = Dependence(len(both))
    for x, times in _scores(encoder, passes()):
        dependence.update(profile.subtract(x[:, both], times))
    # The means were fitted to these very rows: of others more is left, at the scale of the hours.
    mistaken = min(builder.mistaken, 0.5)
    factor = (1.0 + mistaken) / (1.0 - mistaken)
    measured = [memory.scaled(factor) for memory in dependence.memories()]
    kept = Profile(profile.means, profile.scale, profile.errors, measured)
    return {"series": [encoder.series[index] for index in indices], **kept.to_dict()}


def _scores(encoder: Encoder, rows: Iterable[Rows]) -> Iterator[tuple[Floats, Floats]]:
    """Scores (n, 2 S) of rows with known times, and these."""
    for names, columns, times in rows:
        known = [index for index, name in enumerate(names) if name in encoder.names]
        kept = tuple(names[index] for index in known)
        for start in range(0, len(times), _AT_ONCE):
            chosen = [
                row
                for row in range(start, min(start + _AT_ONCE, len(times)))
                if math.isfinite(times[row])
            ]
            if not chosen:
                continue
            cells = [[columns[index][row] for row in chosen] for index in known]
            moments = np.array([times[row] for row in chosen], np.float64)
            batch = Batch(kept, cells, [b""] * len(chosen), moments)
            yield encoder.scores(encoder.encode(batch).codes), moments

"""Scores with a known accuracy, and a baseline of them."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline


def scores(rng: np.random.Generator, count: int, mean: float = -1.0) -> np.ndarray:
    """Calibrated scores; nearer to the middle they are less sure."""
    return expit(rng.normal(mean, 2.0 if mean != 0.0 else 1.3, count))


def baseline(rng: np.random.Generator, rows: int = 20_000) -> Baseline:
    """Of a model whose scores are calibrated."""
    p = scores(rng, rows)
    y = (rng.random(rows) < p).astype(float)
    builder = Builder(model="m", roles={"p": "prediction", "y": "target"})
    builder.add(("p", "y"), [p.tolist(), y.tolist()])
    return builder.finish()

"""Calibration that knows of the features: the same score is right more often in some regions.

A calibration curve says what a score meant in the reference as a whole. When the mix of the inputs
changes, so does what a score means, unless the model's scores are calibrated within every part of
the data, and few are. So trees correct the log odds of the score by the features, learned from the
labels of the reference. They are grown in parts, each without two parts of the rows: one says how
many trees are enough; what they say of the other, which nothing of them has seen, gives the curve
that the result is read off, the test of whether the features add anything, and the error of it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct, quantiles
from understudy.common.special import logit
from understudy.monitor.baseline.calibration.codes import FeatureCodes
from understudy.monitor.baseline.calibration.curve import Curve, tabulate
from understudy.monitor.baseline.calibration.trees import Growth, Rows, Trees, grow

Floats = NDArray[np.float64]
PARTS = 8
MOST_ROWS = 100_000
"""Of the reference: more are sampled down to it."""
FEWEST_ROWS = 2_000
"""Of the reference: fewer say nothing of regions."""
_CLIP = 1e-4
_SCORE_BUCKETS = 32
_ENOUGH = 4.0
"""Standard errors by which the log loss must be better for the features to be used. Parts share
most of what they were learned from, so that gains by chance stray by more than one."""


class RegionalCalibration:
    """Probabilities of a label by score and features. Use :meth:`fit`; ``gain`` is by how much the
    log loss per row is lower than that of trees of the score alone, on rows not seen, with its
    standard error ``gain_error``."""

    def __init__(
        self,
        codes: FeatureCodes,
        edges: Floats,
        models: Sequence[Trees],
        table: Mapping[str, Any],
        gain: float,
        gain_error: float,
    ) -> None:
        self.codes = codes
        self.edges = edges
        self.models = tuple(models)
        self.table = dict(table)
        self.curve = Curve.of_table(table)
        self.gain = gain
        self.gain_error = gain_error

    @property
    def worthwhile(self) -> bool:
        """Whether the features surely add something to the score."""
        return self.gain > _ENOUGH * self.gain_error

    @classmethod
    def fit(
        cls,
        scores: Floats,
        labels: Floats,
        cells: Mapping[str, Sequence[Any]],
        categorical: frozenset[str] | None = None,
        seed: int = 0,
        how: Growth | None = None,
    ) -> RegionalCalibration:
        """From scores in [0, 1], labels 0 or 1 (n,), and the cells of the features by name.

        A row without score or label is left out. Raises ValueError below :data:`FEWEST_ROWS`, for
        one class only, and for columns of another length.
        """
        if any(len(column) != len(scores) for column in cells.values()) or not cells:
            raise ValueError("features, scores and labels are not of the same rows")
        rng = np.random.default_rng(seed)
        rows = np.flatnonzero(np.isfinite(scores) & np.isfinite(labels))
        if len(rows) > MOST_ROWS:
            rows = np.sort(rng.permutation(rows)[:MOST_ROWS])
        p, y = np.clip(scores[rows], 0.0, 1.0), (labels[rows] > 0.5).astype(np.float64)
        if len(rows) < FEWEST_ROWS:
            raise ValueError(
                f"{len(rows)} labels are too few for regions, {FEWEST_ROWS} are needed"
            )
        if not 0.0 < y.mean() < 1.0:
            raise ValueError("the labels are all of one class")
        kept = {name: [column[row] for row in rows.tolist()] for name, column in cells.items()}
        features = FeatureCodes.learn(kept, categorical)
        edges = distinct(quantiles(p, np.linspace(0.0, 1.0, _SCORE_BUCKETS + 1)[1:-1]))
        codes = _with_score(features.encode(kept, len(rows)), p, edges)
        sizes = np.append(features.sizes, len(edges) + 1)
        ordered = np.append(features.ordered, True)
        offset = logit(np.clip(p, _CLIP, 1.0 - _CLIP))
        part = rng.permutation(len(rows)) % PARTS
        unseen, by_score = offset.copy(), offset.copy()
        models = []
        for number in range(PARTS):
            out, enough = part == number, part == (number + 1) % PARTS
            own = np.random.default_rng((seed, number))
            learned = ~(out | enough)
            trees = grow(Rows(codes, y, offset), sizes, ordered, learned, enough, own, how)
            unseen[out] += trees.log_odds(codes[out])
            models.append(trees)
            # The same of the score alone, so that what is gained is the features' own.
            score = Rows(codes[:, -1:], y, offset)
            alone = grow(score, sizes[-1:], ordered[-1:], learned, enough, own, how)
            by_score[out] += alone.log_odds(codes[out, -1:])
        table = tabulate(unseen, y)
        gain, error = _gain(unseen, by_score, y)
        return cls(features, edges, models, table, gain, error)

    def log_odds(self, scores: Floats, codes: NDArray[np.uint8]) -> Floats:
        """Corrected log odds by each of the models: (models, n). ``codes`` are those of
        ``self.codes.encode``."""
        base = logit(np.clip(scores, _CLIP, 1.0 - _CLIP))
        whole = _with_score(codes, scores, self.edges)
        return np.stack([base + trees.log_odds(whole) for trees in self.models])

    def probability(self, scores: Floats, codes: NDArray[np.uint8]) -> Floats:
        """Probability of a label to be 1: (n,)."""
        return self.curve.probability(self.log_odds(scores, codes).mean(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """As JSON; of the order of 100 kB."""
        table = {k: [float(f"{v:.9g}") for v in values] for k, values in self.table.items()}
        return {
            "features": self.codes.to_dict(),
            "edges": self.edges.tolist(),
            "models": [trees.to_dict() for trees in self.models],
            "table": table,
            "gain": self.gain,
            "gain_error": self.gain_error,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RegionalCalibration:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        codes = FeatureCodes.from_dict(data["features"])
        edges = np.array(data["edges"], np.float64)
        sizes = np.append(codes.sizes, len(edges) + 1)
        models = [Trees.from_dict(trees, sizes) for trees in data["models"]]
        if not models:
            raise ValueError("there are no trees")
        return cls(
            codes, edges, models, data["table"], float(data["gain"]), float(data["gain_error"])
        )


def _with_score(codes: NDArray[np.uint8], scores: Floats, edges: Floats) -> NDArray[np.uint8]:
    return np.column_stack([codes, np.searchsorted(edges, scores).astype(np.uint8)])


def _gain(with_features: Floats, by_score: Floats, y: Floats) -> tuple[float, float]:
    """Mean difference of the log losses, and its standard error, on rows that neither has seen."""
    better = np.logaddexp(0.0, by_score) - np.logaddexp(0.0, with_features)
    better += y * (with_features - by_score)
    return float(better.mean()), float(better.std()) / math.sqrt(len(better))

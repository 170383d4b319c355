"""Small boosted trees over bucketed features: how a probability depends on where in the data it is.

Every level of a tree asks one question of all rows (is the bucket of this feature one of these?),
so a tree is a table that is looked up with the answers as bits (the symmetric trees of
Prokhorenkova et al. 2018). They are grown on the gradient of the log loss, with Newton steps at
the leaves (Friedman 2001; Chen & Guestrin 2016). Buckets of a categorical feature are put in the
order of their gradient first, which makes the best division into two sets one cut (Fisher 1958).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import expit
from understudy.monitor.detectors.packed import pack, unpack

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown. The defaults were chosen by cross-validation on rows of 2015 of the
    census of Massachusetts; twice or half of any of them changes next to nothing there."""

    depth: int = 6
    rate: float = 0.1
    ridge: float = 5.0
    rows: float = 0.7
    features: float = 0.6
    most: int = 300
    patience: int = 30


@dataclass(slots=True)
class Trees:
    """``features`` (T, D), ``masks`` (T, D, K) of the buckets that answer yes, ``values`` (T, 2^D)
    in log odds."""

    features: NDArray[np.intp]
    masks: NDArray[np.bool_]
    values: Floats

    def __len__(self) -> int:
        return len(self.features)

    def log_odds(self, codes: Codes) -> Floats:
        """What the trees add to the log odds of the rows of ``codes`` (n, F): (n,)."""
        columns = np.ascontiguousarray(codes.T)
        result: Floats = np.zeros(len(codes))
        for questions, masks, values in zip(self.features, self.masks, self.values, strict=True):
            result += values[_leaf(columns, questions, masks)]
        return result

    def to_dict(self) -> dict[str, Any]:
        """As JSON: about 400 bytes for each tree."""
        return {
            "features": self.features.tolist(),
            "width": self.masks.shape[2],
            "masks": pack(self.masks.astype(np.float64)),
            "values": pack(self.values),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], sizes: NDArray[np.intp]) -> Trees:
        """Undo :meth:`to_dict`, of features with as many buckets as ``sizes`` (F,) says. Raises
        KeyError, TypeError or ValueError."""
        features = np.array(data["features"], np.intp)
        width = int(data["width"])
        if (features.ndim != 2 and features.size) or width != int(sizes.max(initial=0)):
            raise ValueError("the trees are of another shape")
        count, depth = features.shape if features.size else (0, 0)
        if features.size and (features.min() < 0 or features.max() >= len(sizes)):
            raise ValueError("the trees ask for a feature that is not there")
        masks = unpack(data["masks"], (count, depth, width)) > 0.5
        return cls(
            features.reshape(count, depth), masks, unpack(data["values"], (count, 1 << depth))
        )


def _leaf(
    columns: Codes, questions: NDArray[np.intp], masks: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The leaf of each row; ``columns`` are (F, n)."""
    leaf = np.zeros(columns.shape[1], np.intp)
    for feature, mask in zip(questions, masks, strict=True):
        leaf *= 2
        leaf += mask[columns[feature]]
    return leaf


@dataclass(slots=True)
class _Level:
    """The best question of a level so far."""

    gain: float = -np.inf
    feature: int = 0
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


@dataclass(frozen=True, slots=True)
class Rows:
    """``codes`` (n, F) are buckets of F features; the log odds ``offset`` (n,) of ``labels`` (n,)
    of 0 and 1 are to be corrected."""

    codes: Codes
    labels: Floats
    offset: Floats


def grow(
    rows: Rows,
    sizes: NDArray[np.intp],
    ordered: NDArray[np.bool_],
    learned_from: NDArray[np.bool_],
    stopped_by: NDArray[np.bool_],
    rng: np.random.Generator,
    how: Growth | None = None,
) -> Trees:
    """Trees that correct the log odds of ``rows``.

    Features have ``sizes`` (F,) buckets; ``ordered`` (F,) says whose buckets have an order. Of the
    masks (n,), the first says which rows are learned from, the second which say how many trees are
    enough; there may be none.
    """
    how = how or Growth()
    labels = rows.labels
    columns = np.ascontiguousarray(rows.codes.T)
    fitted = rows.offset.copy()
    learned = np.flatnonzero(learned_from)
    held_out = stopped_by
    asked = min(len(sizes), max(2, round(how.features * len(sizes))))
    width = int(sizes.max())
    grown: list[tuple[NDArray[np.intp], NDArray[np.bool_], Floats]] = []
    best, enough = _loss(fitted[held_out], labels[held_out]), 0
    for _ in range(how.most):
        drawn_rows = learned[rng.random(len(learned)) < how.rows]
        p: Floats = expit(fitted[drawn_rows])
        gradient: Floats = labels[drawn_rows] - p
        curvature: Floats = p * (1.0 - p)
        drawn = rng.permutation(len(sizes))[:asked]
        part = {int(f): columns[f][drawn_rows].astype(np.intp) for f in drawn}
        leaf = np.zeros(len(drawn_rows), np.intp)
        questions = np.zeros(how.depth, np.intp)
        masks = np.zeros((how.depth, width), np.bool_)
        for level in range(how.depth):
            result = _Level()
            for feature, buckets in part.items():
                shape = (1 << level, int(sizes[feature]))
                index, cells = leaf * shape[1] + buckets, shape[0] * shape[1]
                g = np.bincount(index, gradient, cells).astype(np.float64).reshape(shape)
                h = np.bincount(index, curvature, cells).astype(np.float64).reshape(shape)
                _cut(result, feature, g, h, bool(ordered[feature]), how.ridge)
            questions[level] = result.feature
            masks[level, : len(result.mask)] = result.mask
            leaf = leaf * 2 + result.mask[part[result.feature]]
        leaves = 1 << how.depth
        slope = np.bincount(leaf, gradient, leaves)
        values = how.rate * slope / (np.bincount(leaf, curvature, leaves) + how.ridge)
        fitted += values[_leaf(columns, questions, masks)]
        grown.append((questions, masks, values))
        loss = _loss(fitted[held_out], labels[held_out])
        if loss < best:
            best, enough = loss, len(grown)
        elif len(grown) - enough >= how.patience:
            break
    kept = grown[:enough]  # rounded, so that they pack well and are the same when unpacked
    return Trees(
        np.array([q for q, _, _ in kept], np.intp).reshape(enough, how.depth),
        np.array([m for _, m, _ in kept], np.bool_).reshape(enough, how.depth, width),
        np.round(np.array([v for _, _, v in kept], np.float64) * 4096.0).reshape(
            enough, 1 << how.depth
        )
        / 4096.0,
    )


def _cut(result: _Level, feature: int, g: Floats, h: Floats, ordered: bool, ridge: float) -> None:
    """Keep in ``result`` the best cut of a feature; ``g`` and ``h`` are (leaves, buckets)."""
    size = g.shape[1]
    orders = [np.arange(size)]
    if not ordered:
        # Of all rows, and of the leaf in which the buckets differ most.
        orders = [np.argsort(g.sum(0) / (h.sum(0) + 4.0 * ridge), kind="stable")]
        if len(g) > 1:
            spread = (g**2 / (h + 4.0 * ridge)).sum(1) - g.sum(1) ** 2 / (h.sum(1) + 4.0 * ridge)
            one = int(np.argmax(spread))
            orders.append(np.argsort(g[one] / (h[one] + 4.0 * ridge), kind="stable"))
    for order in orders:
        left_g, left_h = np.cumsum(g[:, order], 1), np.cumsum(h[:, order], 1)
        right_g, right_h = left_g[:, -1:] - left_g, left_h[:, -1:] - left_h
        gains = (left_g**2 / (left_h + ridge) + right_g**2 / (right_h + ridge)).sum(0)
        cut = int(np.argmax(gains[:-1])) if size > 1 else 0
        if gains[cut] > result.gain:
            result.gain, result.feature = float(gains[cut]), feature
            result.mask = np.zeros(size, np.bool_)
            result.mask[order[cut + 1 :]] = True


def _loss(log_odds: Floats, labels: Floats) -> float:
    """Mean log loss; 0 of nothing."""
    if not len(labels):
        return 0.0
    return float(np.mean(np.logaddexp(0.0, log_odds) - labels * log_odds))

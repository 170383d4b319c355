"""Rows that do not go together as they used to: the error of a reconstruction.

Each feature may look as usual while their relation has changed: two columns swapped, a join by the
wrong key. Principal components of the baseline's normal scores hold most of the variance in a few
directions; what of a row lies outside of them is small as long as features go together as they did
(Jackson & Mudholkar, Technometrics 21, 1979, who call it Q).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SHARE = 0.8
"""Of the variance, what the components hold."""


class Subspace:
    """``components`` (K, S) are orthonormal directions in the space of S standardised series."""

    def __init__(self, components: Floats) -> None:
        if components.ndim != 2 or not 0 < len(components) < components.shape[1]:
            raise ValueError(f"components have shape (fewer than S, S), not {components.shape}")
        self.components = components

    @classmethod
    def of(cls, correlation: Floats, share: float = SHARE) -> Subspace:
        """The fewest components that hold at least ``share`` of the variance, and one less than
        there are series at the most; of a correlation matrix (S, S), S at least 2."""
        values, vectors = np.linalg.eigh(correlation)
        held = np.cumsum(np.maximum(values[::-1], 0.0)) / max(float(values.clip(0.0).sum()), 1e-12)
        count = min(int(np.searchsorted(held, share)) + 1, len(values) - 1)
        return cls(np.ascontiguousarray(vectors[:, ::-1][:, :count].T))

    def outside(self, x: Floats) -> Floats:
        """What of rows (n, S) the components do not explain, (n, S)."""
        result: Floats = x - (x @ self.components.T) @ self.components
        return result

    def errors(self, x: Floats) -> Floats:
        """Squared length of that, (n,)."""
        outside = self.outside(x)
        result: Floats = np.einsum("ns,ns->n", outside, outside)
        return result

"""How the numeric features of a baseline go together: what two detectors of it need.

Both see standard scores of the rows, so that units and heavy tails do not matter. What is kept: the
principal components with the distribution of the error they leave, and the mean of the rows' random
Fourier features with the spectrum of their covariance. Some ten kilobytes for twenty features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.profiles import NumericProfile, edges_of
from understudy.monitor.baseline.scores import normal_scores
from understudy.monitor.detectors.kernel import FREQUENCIES, FourierFeatures, KernelBlocks
from understudy.monitor.detectors.packed import pack, unpack
from understudy.monitor.detectors.subspace import Subspace

Floats = NDArray[np.float64]
FEWEST = 200
"""Fewest rows for a joint profile of features."""


@dataclass(frozen=True, slots=True)
class JointProfile:
    """Of the numeric ``series``: a ``subspace``, the ``errors`` of rows outside of it, by series
    also their ``shares`` (S,) on average; ``features`` of the ``rows`` rows with their ``mean`` and
    ``spectrum``."""

    series: tuple[str, ...]
    rows: int
    subspace: Subspace
    errors: NumericProfile
    shares: Floats
    features: FourierFeatures
    mean: Floats
    spectrum: Floats

    @classmethod
    def learn(
        cls,
        profiles: Mapping[str, NumericProfile],
        sampled: Mapping[str, Floats],
        correlation: Mapping[str, Any] | None,
    ) -> JointProfile | None:
        """From a sample of rows as columns by series, all of one length; None where that is too
        little, or where fewer than two series vary."""
        if correlation is None:
            return None
        names: Sequence[str] = correlation["series"]
        rows = len(sampled[names[0]])
        if rows < FEWEST:
            return None
        x = np.zeros((rows, len(names)))
        for index, name in enumerate(names):
            x[:, index] = scored(profiles[name], sampled[name])
        if not x.any(axis=0).all():
            return None
        # Directions that were chosen for these very rows leave less of them than of others, by up
        # to two per cent at ten thousand rows: every second row chooses, and the others measure.
        chosen = x[::2]
        scale = np.sqrt(np.maximum((chosen**2).sum(axis=0), 1e-12))
        components = Subspace.of(chosen.T @ chosen / np.outer(scale, scale)).components
        # As they will be when they are read again.
        subspace = Subspace(components.astype(np.float32).astype(np.float64))
        outside = subspace.outside(x[1::2]) ** 2
        result = outside.sum(axis=1)
        edges = edges_of(result)
        counts = np.bincount(edges.searchsorted(result), minlength=len(edges) + 1)
        errors = NumericProfile(
            edges, counts.astype(np.int64), len(result), float(result.mean()),
            float(((result - result.mean()) ** 2).sum()), float(result.min()), float(result.max()),
        )  # fmt: skip
        features = FourierFeatures.draw(len(names))
        mean, spectrum = KernelBlocks.reference(features, x)
        return cls(
            tuple(names), rows, subspace, errors, outside.mean(axis=0), features, mean, spectrum
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "series": list(self.series),
            "rows": self.rows,
            "components": len(self.subspace.components),
            "directions": pack(self.subspace.components),
            "errors": self.errors.to_dict(),
            "shares": [round(v, 6) for v in self.shares.tolist()],
            "frequencies": pack(self.features.frequencies),
            "mean": pack(self.mean),
            "spectrum": [float(f"{v:.6g}") for v in self.spectrum.tolist()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JointProfile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        series = tuple(str(name) for name in data["series"])
        count = len(series)
        rows = int(data["rows"])
        spectrum = np.array(data["spectrum"], np.float64)
        if rows <= 0 or spectrum.shape != (2 * FREQUENCIES,) or not np.isfinite(spectrum).all():
            raise ValueError("the features of all series together have another shape")
        return cls(
            series,
            rows,
            Subspace(unpack(data["directions"], (int(data["components"]), count))),
            NumericProfile.from_dict(data["errors"]),
            np.array(data["shares"], np.float64).reshape(count),
            FourierFeatures(unpack(data["frequencies"], (FREQUENCIES, count))),
            unpack(data["mean"], (2 * FREQUENCIES,)),
            spectrum,
        )


def scored(profile: NumericProfile, values: Floats) -> Floats:
    """Standard scores (n,) of values by their ranks in the profile; 0, the middle, for what is
    missing."""
    total = int(profile.counts.sum())
    result = np.zeros(len(values))
    if total:
        here = np.isfinite(values)
        scores = normal_scores(profile.counts / total)
        result[here] = scores[profile.edges.searchsorted(values[here])]
    return result

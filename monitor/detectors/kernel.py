"""Maximum mean discrepancy: any difference between the distributions of two samples of rows.

The kernel is a Gaussian one, of which random Fourier features are an estimate (Rahimi & Recht,
NeurIPS 2007), so that a sample is the mean of its features and the discrepancy the squared distance
of two means (Gretton et al., JMLR 13, 2012). The stream is cut into blocks of several sizes, each
of which is compared with the baseline: small ones for large differences, large ones for small.

It costs two functions per row and frequency, so it runs where it is asked for.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import log_ndtr
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import Packed
from understudy.shadow.roots import find_root
from understudy.shadow.state import Config, Converter, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
FREQUENCIES = 64
BLOCKS = (256, 1024, 4096)
"""Rows in a block; each a multiple of the one before."""
_SEED = 20071203


class FourierFeatures:
    """``frequencies`` (D, S): rows (n, S) become cosines and sines, (n, 2 D), of which the products
    estimate the kernel."""

    def __init__(self, frequencies: Floats) -> None:
        if frequencies.ndim != 2 or not frequencies.size:
            raise ValueError(f"frequencies have shape (D, S), not {frequencies.shape}")
        self.frequencies = frequencies
        self._scale = 1.0 / math.sqrt(len(frequencies))

    @classmethod
    def draw(cls, series: int, count: int = FREQUENCIES) -> FourierFeatures:
        """Always the same ones. The width is the usual distance of two rows of S independent
        standard normal series, the square root of 2 S (the median rule)."""
        # This generator's stream is frozen, so that a baseline can be built again to the digit.
        drawn = np.random.RandomState(_SEED).standard_normal((count, series))
        return cls(np.asarray(drawn / math.sqrt(2.0 * series), np.float32).astype(np.float64))

    def __call__(self, x: Floats) -> Floats:
        """Features (n, 2 D) of rows (n, S)."""
        angle = x @ self.frequencies.T
        result = np.empty((len(x), 2 * angle.shape[1]))
        np.cos(angle, out=result[:, : angle.shape[1]])
        np.sin(angle, out=result[:, angle.shape[1] :])
        result *= self._scale
        return result


def weighted_chi2_sf(value: float, weights: Floats) -> float:
    """P(sum of w_i X_i > value) for independent chi-squared X_i of one degree of freedom.

    The saddlepoint approximation of Lugannani & Rice for this sum (Kuonen, Biometrika 86, 1999):
    a few per cent off in the far tail, closer elsewhere.
    """
    mean = float(weights.sum())
    if value <= 0.0:
        return 1.0
    if abs(value / mean - 1.0) < 1e-6:
        value = mean * (1.0 + 1e-6)
    largest = float(weights.max())

    def slope(s: float) -> float:
        return float((weights / (1.0 - 2.0 * s * weights)).sum()) - value

    high = (1.0 - 1e-12) / (2.0 * largest)
    low = 0.0 if value > mean else -(len(weights) + 1.0) / (2.0 * value)
    s = find_root(slope, low, high, xtol=1e-14 / largest)
    generating = -0.5 * float(np.log1p(-2.0 * s * weights).sum())
    curvature = 2.0 * float((weights**2 / (1.0 - 2.0 * s * weights) ** 2).sum())
    w = math.copysign(math.sqrt(max(2.0 * (s * value - generating), 0.0)), s)
    v = s * math.sqrt(curvature)
    return math.exp(float(log_ndtr(-(w + math.log(v / w) / w))))


def weighted_chi2_isf(level: float, weights: Floats) -> float:
    """The value that is exceeded with probability ``level``, which lies between 0 and 1."""
    mean = float(weights.sum())
    high = 2.0 * mean
    while weighted_chi2_sf(high, weights) > level:
        high *= 2.0
    return find_root(lambda x: math.log(weighted_chi2_sf(x, weights)) - math.log(level), 1e-9, high)


def _load_rows(name: str, value: Any, _: Any) -> NDArray[np.int64]:
    """Rows of each open block."""
    if len(value) != len(BLOCKS) or not all(0 <= r < b for r, b in zip(value, BLOCKS, strict=True)):
        raise FieldError(name, "must be of open blocks, one of each size")
    return np.array(value, np.int64)


class KernelBlocks(Stateful):
    """The rows' features against their ``mean`` (2 D,) in the baseline.

    ``spectrum`` are the eigenvalues of the features' covariance there, and ``rows`` what both were
    estimated from. ``run_length`` is in rows, of all sizes of blocks together. ``inflation`` is the
    variance of long sums over that of independent rows.
    """

    features: Config[FourierFeatures]
    mean: Config[Floats]
    thresholds: Config[Floats]
    _inflation: Config[float]
    _least: Config[float]
    statistics: Saved[Floats]
    """Of the last full block of each size, over its threshold."""
    _sums: Saved[Packed]
    _rows: Saved[Annotated[NDArray[np.int64], Converter(np.ndarray.tolist, _load_rows)]]

    def __init__(
        self,
        features: FourierFeatures,
        mean: Floats,
        spectrum: Floats,
        rows: float,
        run_length: float,
        inflation: float = 1.0,
    ) -> None:
        if mean.shape != (2 * len(features.frequencies),) or not (spectrum > 0.0).any():
            raise ValueError("the mean of the features has another shape, or nothing varies")
        self.features = features
        self.mean = mean
        self._inflation = self._least = max(inflation, 1.0)
        weights = spectrum[spectrum > 1e-9 * spectrum.max()]
        self.thresholds = np.array(
            [
                weighted_chi2_isf(
                    min(0.5, size / run_length / len(BLOCKS)),
                    weights * self._inflation * (1.0 + size / rows),
                )
                for size in BLOCKS
            ]
        )
        self.statistics = np.zeros(len(BLOCKS))
        self._sums = np.zeros((len(BLOCKS), len(mean)))
        self._rows = np.zeros(len(BLOCKS), np.int64)

    def widen(self, inflation: float) -> None:
        """Raise the thresholds to those of another ``inflation``, or of the one given at first
        where that is larger."""
        wanted = max(inflation, self._least)
        self.thresholds = self.thresholds * (wanted / self._inflation)
        self._inflation = wanted

    @staticmethod
    def reference(features: FourierFeatures, x: Floats) -> tuple[Floats, Floats]:
        """``mean`` and ``spectrum`` of a baseline's rows (n, S)."""
        result = features(x)
        spectrum = np.linalg.eigvalsh(np.cov(result, rowvar=False))[::-1]
        return result.mean(axis=0), np.maximum(spectrum, 0.0)

    def update(self, x: Floats) -> Evidence:
        """Take rows (n, S), NaN-free; the evidence is of one series."""
        crossed = -1
        start = 0
        while start < len(x):
            stop = min(len(x), start + int(BLOCKS[0] - self._rows[0]))
            self._sums[0] += self.features(x[start:stop]).sum(axis=0)
            self._rows[0] += stop - start
            if self._rows[0] == BLOCKS[0] and self._close() and crossed < 0:
                crossed = stop - 1
            start = stop
        statistic = np.array([self.statistics.max()])
        one = np.ones(1)
        return Evidence(statistic, one, np.array([crossed], np.intp), np.zeros(1, np.int8))

    def _close(self) -> bool:
        """A smallest block is full; so may be larger ones. Whether any of them alarms."""
        alarmed = False
        for index, size in enumerate(BLOCKS):
            if self._rows[index] < size:
                break
            if index + 1 < len(BLOCKS):
                self._sums[index + 1] += self._sums[index]
                self._rows[index + 1] += self._rows[index]
            off = self._sums[index] / size - self.mean
            self.statistics[index] = size * float(off @ off) / self.thresholds[index]
            alarmed |= bool(self.statistics[index] >= 1.0)
            self._sums[index], self._rows[index] = 0.0, 0
        return alarmed

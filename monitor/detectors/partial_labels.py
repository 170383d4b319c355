"""Risks of which only some labels are known: a prediction of the loss fills the gaps.

With f the predicted loss, l the loss, and a coin that falls for a label with a known probability p,
x = f + (label known / p) (l - f) has the mean of the loss, however poor the prediction, since the
coin knows nothing of the loss. x lies in [-s, 1 + s] with s = 1/p - 1, so that bets on it stay
below 1 / (mu0 + s); they go to the Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo,
arXiv:2203.03532) and keep its run length. The estimate is that of Robins, Rotnitzky & Zhao (1994).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.edetector import RATIOS, SrDetector
from understudy.monitor.detectors.evidence import Evidence
from understudy.shadow.state import Config, Saved, Stateful

Floats = NDArray[np.float64]
_LARGEST_BET = 0.95


def filled(predicted: Floats, losses: Floats, shares: Floats | float) -> Floats:
    """The loss of every row, without bias, in the shape of ``predicted``.

    ``losses`` are NaN where no label was asked for, ``shares`` the probabilities with which one
    was. NaN where nothing was predicted.
    """
    known = np.isfinite(losses)
    result: Floats = predicted + np.where(known, (losses - predicted) / shares, 0.0)
    return result


class PartialLabelDetector(Stateful):
    """One detector for each of S risks in [0, 1] whose mean is at most ``null`` (S,).

    ``run_length`` in rows, with or without a label; ``share`` is the smallest probability of a
    label. ``residual`` (S,) is the mean squared (loss - predicted) under the null, that of a
    prediction without skill when it is not given; a wrong one costs time, not the guarantee.
    Raises ValueError for nulls outside of (0, 1) and shares outside of (0, 1].
    """

    null: Config[Floats]
    share: Config[float]
    _beyond: Config[float]
    _width: Config[float]
    _inner: Saved[SrDetector]

    def __init__(
        self,
        null: Floats,
        run_length: float | Floats,
        share: float,
        residual: Floats | None = None,
    ) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"the share of labels lies above 0 and at most at 1, not {share}")
        self.null = np.asarray(null, np.float64)
        if self.null.ndim != 1 or ((self.null <= 0.0) | (self.null >= 1.0)).any():
            raise ValueError("null means must lie between 0 and 1")
        self.share = share
        self._beyond = 1.0 / share - 1.0
        self._width = 1.0 + 2.0 * self._beyond
        spread = self.null * (1.0 - self.null)
        missed = spread if residual is None else np.asarray(residual, np.float64)
        variance = spread + self._beyond * missed
        odds = (self.null / (1.0 - self.null))[:, None] * np.array(RATIOS)
        step = odds / (1.0 + odds) - self.null[:, None]
        # The detector sees (x + s) / (1 + 2 s), which lies in [0, 1]: bets grow as values shrink.
        scaled = (self.null + self._beyond) / self._width
        bets = step / (variance[:, None] + step**2) * self._width
        self._inner = SrDetector(
            scaled, run_length, bets=np.minimum(bets, _LARGEST_BET / scaled[:, None])
        )

    def update(
        self, predicted: Floats, losses: Floats, shares: Floats | float | None = None
    ) -> Evidence:
        """Take rows (n, S): predicted losses, and losses or NaN where there is no label.

        ``shares``, a number or (n, S), are the probabilities of a label where they are not all the
        smallest. Raises ValueError for a smaller one and for values outside of [0, 1].
        """
        given = self.share if shares is None else shares
        if (np.asarray(given) < self.share).any() or (np.asarray(given) > 1.0).any():
            raise ValueError(f"shares of labels lie between {self.share} and 1")
        for name, values in (("predicted losses", predicted), ("losses", losses)):
            if ((values < 0.0) | (values > 1.0)).any():
                raise ValueError(f"{name} lie between 0 and 1")
        x = (filled(predicted, losses, given) + self._beyond) / self._width
        return self._inner.update(np.clip(x, 0.0, 1.0))

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,)."""
        self._inner.reset(series)

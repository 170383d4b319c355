"""What every detector answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of S series after a batch. ``statistic >= threshold`` is an alarm.

    ``crossed`` is the first row of the batch (0-based) at which the threshold was reached, or -1;
    ``direction`` is +1 for up, -1 for down, 0 where that is not known.
    """

    statistic: NDArray[np.float64]
    threshold: NDArray[np.float64]
    crossed: NDArray[np.intp]
    direction: NDArray[np.int8]

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """Which series are at or above their threshold, or were within the batch."""
        result: NDArray[np.bool_] = (self.statistic >= self.threshold) | (self.crossed >= 0)
        return result

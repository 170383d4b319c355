"""What experiments are fed: columns of values, vectorised, in the order of arrival.

Columns by name: ``error`` and ``timeout`` (0 or 1), ``latency`` (seconds), ``cost``,
``disagreement`` (pairs only: whether the challenger's answer differs; for the champion, whether its
own answer to the same request did), ``field:NAME`` (a number of the answer), ``correct`` (0 or 1)
and ``reward`` (from feedback). NaN stands for a value that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Requests that both arms answered: ``columns[name]`` is (champion, challenger).

    ``fresh`` is how many are new requests; labels that come late are none.
    """

    columns: Mapping[str, tuple[Array, Array]]
    fresh: int = 0

    def column(self, name: str) -> tuple[Array, Array] | None:
        """Both arms' values where both are there."""
        pair = self.columns.get(name)
        if pair is None:
            return None
        champion, challenger = pair
        there = ~(np.isnan(champion) | np.isnan(challenger))
        return (champion, challenger) if there.all() else (champion[there], challenger[there])


@dataclass(frozen=True, slots=True)
class Split:
    """Requests served by one arm each.

    ``arms`` is 1 for the challenger, 0 for the champion; ``share`` the probability, between 0 and 1
    exclusive, that such a record went to the challenger when it was assigned to one of the two.
    ``fresh`` are the rows that are new requests (None: all); labels that come late are none.
    """

    arms: Array
    share: Array
    columns: Mapping[str, Array]
    fresh: npt.NDArray[np.bool_] | None = None

    def column(self, name: str) -> tuple[Array, Array, Array] | None:
        """(arms, values, share) of the records that have a value."""
        values = self.columns.get(name)
        if values is None:
            return None
        there = ~np.isnan(values)
        if there.all():
            return self.arms, values, self.share
        return self.arms[there], values[there], self.share[there]


@dataclass(frozen=True, slots=True)
class Units:
    """Units of assignment that are complete: ``columns[name]`` is (sums, counts)."""

    arms: Array
    share: Array
    columns: Mapping[str, tuple[Array, Array]]

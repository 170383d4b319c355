"""Records of two arms: what every method for split traffic checks and keeps first."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import Array, SequentialError, binary, reals, same_length


def of_arms(arms: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Array, Array]:
    """Records as ``update`` gets them: 1 for the challenger and 0 for the champion, and a finite
    value for each. Raises SequentialError."""
    arm, x = binary("arms", arms), reals("values", values)
    same_length(("arms", "values"), arm, x)
    return arm, x


def read_arms(values: Any) -> tuple[CentralMoments, CentralMoments]:
    """The moments of champion and challenger from their JSON form."""
    if not isinstance(values, list) or len(values) != 2:
        raise SequentialError("arms", "must be the moments of two arms")
    return CentralMoments.from_list("arms", values[0]), CentralMoments.from_list("arms", values[1])

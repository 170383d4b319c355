"""Records of two arms: what every method for split traffic checks and keeps first."""

from __future__ import annotations

import numpy.typing as npt

from understudy.shadow.sequential.common import Array, binary, reals, same_length


def of_arms(arms: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Array, Array]:
    """Records as ``update`` gets them: 1 for the challenger and 0 for the champion, and a finite
    value for each. Raises SequentialError."""
    arm, x = binary("arms", arms), reals("values", values)
    same_length(("arms", "values"), arm, x)
    return arm, x

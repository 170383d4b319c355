"""The moments of two arms from their JSON form."""

from __future__ import annotations

from typing import Any

from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import SequentialError


def read_arms(values: Any) -> tuple[CentralMoments, CentralMoments]:
    """The moments of champion and challenger from their JSON form."""
    if not isinstance(values, list) or len(values) != 2:
        raise SequentialError("arms", "must be the moments of two arms")
    return CentralMoments.from_list("arms", values[0]), CentralMoments.from_list("arms", values[1])

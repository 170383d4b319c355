"""From weights to the assignment of units."""

from __future__ import annotations

import math
from collections.abc import Mapping

from understudy.shadow.assignment import OUT, Allocation


def allocation(before: Allocation, weights: Mapping[int, float], arms: int) -> Allocation:
    """The assignment for new weights of the challengers, by arm, moving no unit that need not move.

    The champion, arm 0, has what they leave. A first allocation gives all to the champion before
    any is taken away, so that it does not matter when an experiment began to divide requests.
    When one of several challengers was promoted, the weights add up to more than all there is: the
    largest counts then, the others get nothing.
    """
    shares = [0.0] * arms
    most = max(weights.values(), default=0.0)
    crowded = math.fsum(weights.values()) > 1.0 + 1e-9
    promoted = sum(weight == most for weight in weights.values())
    for arm, weight in weights.items():
        if not crowded:
            shares[arm] = weight
        elif weight == most:
            shares[arm] = min(most, 1.0 / promoted)
    shares[0] = max(0.0, 1.0 - math.fsum(shares[1:]))
    if set(before.arms) == {OUT}:
        before = before.reweighed([1.0, *[0.0] * (arms - 1)])
    return before.reweighed(shares)

"""Which arm a unit belongs to: salted, sticky, and never moving a unit that need not move.

A unit (a request id, a user) is hashed with a salt to a point. An :class:`Allocation` divides the
points among the arms; every worker and replica that holds the same allocation decides alike without
talking to another, and different salts give independent points.

When weights change, cutting the range again at cumulative weights would move units between arms
whose weights stayed the same. An allocation therefore remembers its intervals: arms that shrink
release points, arms that grow take them, and everyone else stays (the least movement possible,
since the moved mass is exactly the sum of the increases).

Only the standard library is used here: the workers of the data plane import this module.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

POINTS = 1 << 64
OUT = -1
"""In place of an arm: units that do not take part (they are served by the champion)."""


def threshold(share: float) -> int:
    """The bound that :func:`point` has to stay below for a ``share`` in [0, 1] of all units."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], not {share}")
    return round(share * POINTS)


def point(salt: bytes, unit: bytes) -> int:
    """A uniform integer in [0, POINTS) for ``unit``; ``salt`` is at most 64 bytes long."""
    return int.from_bytes(blake2b(unit, digest_size=8, key=salt).digest(), "little")


@dataclass(frozen=True, slots=True)
class Allocation:
    """A division of the points: ``arms[i]`` holds those from ``starts[i]`` to the next start.

    ``starts`` begins with 0 and ascends; an arm is the index of an arm, or OUT.
    """

    starts: tuple[int, ...] = (0,)
    arms: tuple[int, ...] = (OUT,)

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.arms) or not self.starts or self.starts[0] != 0:
            raise ValueError("an allocation needs an arm for each start, and 0 as the first start")
        pairs = zip(self.starts, (*self.starts[1:], POINTS), strict=True)
        if any(begin >= end for begin, end in pairs):
            raise ValueError("the starts of an allocation must ascend")

    def arm(self, at: int) -> int:
        """The arm of the unit whose :func:`point` is ``at``."""
        return self.arms[bisect_right(self.starts, at) - 1]

    def size(self, arm: int) -> int:
        """How many of the POINTS belong to ``arm``."""
        return sum(end - begin for begin, end, owner in self._intervals() if owner == arm)

    @property
    def splits(self) -> bool:
        """Whether some units belong to an arm other than the first, the champion."""
        return not set(self.arms) <= {OUT, 0}

    def reweighed(self, weights: Sequence[float]) -> Allocation:
        """The allocation with arm ``i`` at ``weights[i]``; what is left of 1 is OUT.

        A unit moves only away from an arm that shrinks. Raises ValueError for weights that are
        negative, not finite, or add up to more than 1.
        """
        targets = _targets(weights)
        kept: list[tuple[int, int, int]] = []
        free: list[tuple[int, int]] = []
        left = dict(targets)
        for begin, end, arm in self._intervals():
            take = min(end - begin, left.get(arm, 0))
            if take:
                left[arm] -= take
                kept.append((begin, begin + take, arm))
            if begin + take < end:
                free.append((begin + take, end))
        for begin, end in free:
            for arm in sorted(left):
                take = min(end - begin, left[arm])
                if take:
                    left[arm] -= take
                    kept.append((begin, begin + take, arm))
                    begin += take
        kept.sort()
        starts: list[int] = []
        arms: list[int] = []
        for begin, _, arm in kept:
            if not arms or arms[-1] != arm:
                starts.append(begin)
                arms.append(arm)
        return Allocation(tuple(starts), tuple(arms))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"starts": list(self.starts), "arms": list(self.arms)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Allocation:
        """The inverse of :meth:`to_dict`. Raises ValueError for an invalid allocation."""
        return cls(tuple(map(int, data["starts"])), tuple(map(int, data["arms"])))

    def _intervals(self) -> list[tuple[int, int, int]]:
        ends = (*self.starts[1:], POINTS)
        return list(zip(self.starts, ends, self.arms, strict=True))


def _targets(weights: Sequence[float]) -> dict[int, int]:
    """Points per arm, OUT included; they add up to POINTS."""
    if any(not 0.0 <= weight <= 1.0 for weight in weights):
        raise ValueError(f"weights must lie in [0, 1], not {list(weights)}")
    if sum(weights) > 1.0 + 1e-9:
        raise ValueError(f"weights must add up to at most 1, not {sum(weights)}")
    targets: dict[int, int] = {}
    left = POINTS
    for arm, weight in enumerate(weights):
        targets[arm] = min(threshold(weight), left)
        left -= targets[arm]
    if sum(weights) > 1.0 - 1e-9:
        # Rounding must not leave points without an arm.
        heaviest = max(targets, key=lambda arm: targets[arm])
        targets[heaviest] += left
        left = 0
    targets[OUT] = left
    return targets

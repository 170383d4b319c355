"""What counts as the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


class ComparisonError(ValueError):
    """A rule that cannot be used; ``argument`` is its name."""

    def __init__(self, argument: str, problem: str) -> None:
        self.argument = argument
        super().__init__(f"{argument} {problem}")


@dataclass(frozen=True, slots=True)
class Rules:
    """Numbers agree when they differ by at most ``absolute``, or by ``relative`` times the larger
    magnitude, or by ``ulp`` units in the last place of a float64. ``ignore`` and ``unordered`` are
    globs over names of outputs; ``top_k`` compares the best k of vectors of scores (0: off)."""

    absolute: float = 0.0
    relative: float = 0.0
    ulp: int = 0
    ignore: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    top_k: int = 0
    _ignored: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("absolute", "relative", "ulp", "top_k"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ComparisonError(name, f"must be at least 0, not {value!r}")

    def ignores(self, name: str) -> bool:
        """Whether an output does not matter."""
        if not self.ignore:
            return False
        known = self._ignored.get(name)
        if known is None:
            known = any(fnmatchcase(name, pattern) for pattern in self.ignore)
            if len(self._ignored) < 4096:
                self._ignored[name] = known
        return known

    def orders(self, name: str) -> bool:
        """Whether the order of an output's items matters."""
        return not any(fnmatchcase(name, pattern) for pattern in self.unordered)

    def close(self, a: float, b: float) -> bool:
        """Whether two numbers agree. Two NaN do."""
        if a == b or (a != a and b != b):
            return True
        gap = abs(a - b)
        if not gap < math.inf:
            return False
        largest = max(abs(a), abs(b))
        return (
            gap <= self.absolute
            or gap <= self.relative * largest
            or (self.ulp > 0 and gap <= self.ulp * math.ulp(largest))
        )

"""The smallest difference that matters, with its unit.

A number without a unit is refused: "0.01" of an error rate may mean one point in a hundred or one
in ten thousand, and the decision hangs on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from understudy.common.units import SECONDS, percent, quantity
from understudy.shadow.experiment.errors import ExperimentError


class Unit(Enum):
    """What a difference is counted in."""

    POINTS = "points"
    """Of a rate: 1 pp is 0.01."""
    SECONDS = "seconds"
    VALUE = "value"
    """The unit of a field of the answer, a reward or a cost."""
    RELATIVE = "relative"
    """A share of the champion's value."""


_UNITS = {
    "pp": (Unit.POINTS, 0.01),
    "point": (Unit.POINTS, 0.01),
    "points": (Unit.POINTS, 0.01),
    **{name: (Unit.SECONDS, factor) for name, factor in SECONDS.items()},
    "unit": (Unit.VALUE, 1.0),
    "units": (Unit.VALUE, 1.0),
    "%": (Unit.RELATIVE, 0.01),
}
_EXAMPLES = {
    Unit.POINTS: "'0.5 pp' (points of the rate)",
    Unit.SECONDS: "'20 ms'",
    Unit.VALUE: "'0.1 units'",
    Unit.RELATIVE: "'5 %' (of the champion's value)",
}


@dataclass(frozen=True, slots=True)
class Margin:
    """``value`` >= 0, in seconds, in the rate's own scale (1 pp is 0.01), in the value's unit, or
    as a share of the champion's value when ``unit`` is relative."""

    value: float = 0.0
    unit: Unit = Unit.RELATIVE

    @property
    def relative(self) -> bool:
        """Whether it scales with the champion's value. A margin of 0 is the same either way."""
        return self.unit is Unit.RELATIVE and self.value > 0.0

    @classmethod
    def parse(cls, text: object, allowed: Unit, path: str = "margin") -> Margin:
        """Read ``"0.5 pp"``, ``"20 ms"``, ``"0.1 units"`` or ``"5 %"``; 0 needs no unit.

        ``allowed`` is the metric's own unit; relative margins are allowed for all. Raises
        ExperimentError naming ``path``.
        """
        wanted = " or ".join(_EXAMPLES[unit] for unit in dict.fromkeys((allowed, Unit.RELATIVE)))
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise ExperimentError(path, f"must be a text such as {wanted}, not {text!r}")
        parsed = quantity(str(text))
        if parsed is None:
            raise ExperimentError(path, f"not a valid margin: {text!r} (write {wanted})")
        number = float(parsed[0])
        if not math.isfinite(number) or number < 0.0:
            raise ExperimentError(path, f"must be at least 0, not {text!r}")
        if not parsed[1]:
            if number == 0.0:
                return cls(0.0, allowed)
            raise ExperimentError(path, f"{text!r} has no unit; write {wanted}")
        if parsed[1] not in _UNITS:
            raise ExperimentError(path, f"not a valid unit: {parsed[1]!r} (write {wanted})")
        unit, factor = _UNITS[parsed[1]]
        if unit not in (allowed, Unit.RELATIVE):
            raise ExperimentError(path, f"{text!r} does not fit this metric; write {wanted}")
        return cls(number * factor, unit)

    def __str__(self) -> str:
        if self.value == 0.0:
            return "0"
        if self.unit is Unit.RELATIVE:
            return percent(self.value)
        if self.unit is Unit.POINTS:
            return f"{self.value * 100:.4g} pp"
        if self.unit is Unit.SECONDS:
            return f"{self.value * 1e3:.4g} ms"
        return f"{self.value:.4g} units"

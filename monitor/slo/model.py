"""The compiler's model of an objective, independent of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.common.units import duration, number
from understudy.monitor.slo.burn import LEAST_BAD, Burn
from understudy.monitor.slo.scope import Scope

WINDOW = "{{.window}}"
"""Placeholder in expressions for the length of a window, as in Sloth."""
SECONDS = "{{.seconds}}"
"""Placeholder for the same as a number of seconds."""


def over(expression: str, seconds: float) -> str:
    """The expression for a window of that length."""
    return expression.replace(WINDOW, duration(seconds)).replace(SECONDS, number(seconds))


@dataclass(frozen=True, slots=True)
class Stream:
    """A counter of a trial: it grows by ``good`` per good event and by ``bad`` per bad event."""

    series: str
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge of a trial: its value without and during the fault."""

    series: str
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Events:
    """An indicator that counts events: bad events over all events.

    ``bad`` and ``total`` are expressions for rates per second that yield one series without labels
    for each identity of the objective's scope, with :data:`WINDOW` for the length of the window.
    """

    bad: str
    total: str
    unit: str
    exactness: str = "exact"
    trial: tuple[Stream, ...] = ()
    good: str = ""
    """Description of a good event."""
    sparse: bool = True
    """Whether the series of bad events may be absent before the first one. If False, a missing
    series makes the ratio unknown instead of 0."""
    late: bool = False
    """Whether the events before the first sample of a series of bad events are counted, too, when
    the series begins later than others of the same process."""


@dataclass(frozen=True, slots=True)
class Slices:
    """An indicator that counts time: bad time over time with data.

    ``bad`` is an expression that is 1 or 0, and absent while there is no data.
    """

    bad: str
    exactness: str = "exact"
    trial: tuple[Level | Stream, ...] = ()
    unit: str = "evaluations"
    lag: float = 0.0
    """Delay of the indicator itself, in seconds."""
    good: str = ""
    """Description of good time."""


@dataclass(frozen=True, slots=True)
class Slo:
    """A service-level objective: the share ``objective`` must be good over ``period`` seconds."""

    service: str
    name: str
    kind: str
    objective: float
    period: float
    sli: Events | Slices
    burns: tuple[Burn, ...]
    description: str = ""
    least_bad: float = LEAST_BAD
    labels: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    """Expected events per second, for explanations."""
    scope: Scope = field(default_factory=Scope)
    """Whose events it counts: there is a budget for each identity."""

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return 1.0 - self.objective

    @property
    def id(self) -> str:
        """The service and the name, as Sloth identifies an objective."""
        return f"{self.service}-{self.name}"

    @property
    def selector(self) -> str:
        """The matchers of its recorded series."""
        return f'sloth_id="{self.id}", sloth_service="{self.service}", sloth_slo="{self.name}"'

    def windows(self) -> list[float]:
        """All window lengths in seconds, ascending."""
        return sorted({w for burn in self.burns for w in (burn.window.short, burn.window.long)})

    def identity(self) -> dict[str, str]:
        """The labels of all its recorded series."""
        return {
            **self.labels,
            "sloth_id": self.id,
            "sloth_service": self.service,
            "sloth_slo": self.name,
        }

    def period_text(self) -> str:
        """The period as Prometheus writes it."""
        return duration(self.period)

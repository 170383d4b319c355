"""An objective as the compiler knows it, whatever format it was written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.common.units import duration
from understudy.monitor.slo.burn import LEAST_BAD, Burn

WINDOW = "{{.window}}"
"""Stands in expressions for the length of a window, as in Sloth."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A series of a trial: per event, how much it grows: ``good`` by a good one, ``bad`` by a bad
    one."""

    series: str
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge of a trial: its value while all is well, and while it is not."""

    series: str
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Events:
    """Bad events over all events; ``bad`` and ``total`` are expressions for rates per second, of
    one series without labels, with :data:`WINDOW` for the length of the window."""

    bad: str
    total: str
    unit: str
    exactness: str = "exact"
    trial: tuple[Stream, ...] = ()
    good: str = ""
    """In words, what a good event is."""
    sparse: bool = True
    """Whether there may be no series of bad events while there is none. Where it is False, a series
    that is missing makes the ratio unknown, and not 0."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Time that is bad over time for which there is an answer; ``bad`` is an expression that is 1
    or 0, and absent while nothing is known."""

    bad: str
    exactness: str = "exact"
    trial: tuple[Level | Stream, ...] = ()
    unit: str = "evaluations"
    lag: float = 0.0
    """Seconds by which the indicator itself is late."""
    good: str = ""
    """In words, which time is good."""


@dataclass(frozen=True, slots=True)
class Slo:
    """``objective`` is the share that must be good over ``period`` seconds."""

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
    """Events per second that are expected, for what is explained."""

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
        """All lengths of windows in seconds, the shortest first."""
        return sorted({w for burn in self.burns for w in (burn.window.short, burn.window.long)})

    def identity(self) -> dict[str, str]:
        """The labels of everything that is recorded about it."""
        return {
            **self.labels,
            "sloth_id": self.id,
            "sloth_service": self.service,
            "sloth_slo": self.name,
        }

    def period_text(self) -> str:
        """The period as Prometheus writes it."""
        return duration(self.period)

"""How many findings may be open and opened."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from understudy.monitor.findings.finding import SEVERITIES, Signal, Size, rank
from understudy.shadow.state import Saved, Stateful

HOUR = 3600.0
CRITICAL = rank("critical")
_MODELS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a ledger; durations are in seconds.

    ``hold``: a finding closes when its source has not reported it for that long. ``grace``: a
    problem that returns within that time reopens its finding. ``max_open`` and ``max_openings`` (in
    an hour, including reopened ones) apply to each model; critical findings have as many openings
    again for themselves. ``update_interval``: shortest time between two updates, except to a worse
    severity. ``history``: number of closed findings that are stored.
    """

    hold: float = 300.0
    grace: float = 3600.0
    max_open: int = 20
    max_openings: int = 30
    update_interval: float = 60.0
    history: int = 1000

    def __post_init__(self) -> None:
        if not (self.hold >= 0.0 and self.grace >= 0.0 and self.update_interval >= 0.0):
            raise ValueError("hold, grace and update_interval must be at least 0 seconds")
        if self.max_open < 1 or self.max_openings < 1 or self.history < 1:
            raise ValueError("max_open, max_openings and history must be at least 1")


class Openings(Stateful):
    """When findings of each model were opened during the last hour."""

    _times: Saved[dict[str, deque[float]]]

    def __init__(self) -> None:
        self._times = {}

    def allow(self, model: str, severity: int, most: int, now: float) -> bool:
        """Whether one more finding of ``model`` may open at ``now``. ``severity`` is a rank;
        ``most`` is the limit in an hour, doubled for critical findings."""
        times = self._times.get(model)
        if times is None:
            return True
        # After the clock was set back, an opening counts for an hour at most.
        while times and not now - HOUR < times[0] <= now:
            times.popleft()
        if not times:
            del self._times[model]
            return True
        return len(times) < (2 * most if severity >= CRITICAL else most)

    def record(self, model: str, now: float) -> None:
        """Record an opening at ``now``, unix seconds."""
        if len(self._times) >= _MODELS:
            self._times.clear()
        self._times.setdefault(model, deque()).append(now)


@dataclass(slots=True)
class HeldBack:
    """Signals of one source and model that have no finding because a limit was reached."""

    count: int = 0
    severity: int = 0
    kinds: set[str] = field(default_factory=set)
    titles: list[str] = field(default_factory=list)

    def add(self, signal: Signal) -> None:
        """Add a signal; the most severe must come first."""
        self.count += 1
        self.severity = max(self.severity, rank(signal.severity))
        self.kinds.add(signal.kind)
        if len(self.titles) < 5:
            self.titles.append(signal.title)

    def merge(self, other: HeldBack) -> HeldBack:
        """The union of both."""
        return HeldBack(
            self.count + other.count,
            max(self.severity, other.severity),
            self.kinds | other.kinds,
            (self.titles + other.titles)[:5],
        )

    def signal(self, model: str) -> Signal:
        """One signal that summarises all of them."""
        of = f" of {model}" if model else ""
        s = "" if self.count == 1 else "s"
        return Signal(
            key=f"more/{model}",
            kind="other",
            model=model,
            version="",
            segment="",
            severity=SEVERITIES[self.severity],
            title=f"and {self.count} more finding{s}{of}",
            # Twice or half as many is worth an update, one more or less is not.
            size=Size("findings held back", "", 0.0, self.count, self.count / 2, self.count * 2),
            rule="more findings at once, or per hour, than are reported individually",
            advice=f"Kinds: {', '.join(sorted(self.kinds))}. Check the reported findings first: "
            "many at once often have a common cause. Others include: " + "; ".join(self.titles),
        )

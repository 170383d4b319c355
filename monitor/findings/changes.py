"""Which changes of a known finding are worth a new notification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.monitor.findings.finding import Finding, Signal, Size, rank


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a finding.

    ``kind`` is opened, updated, reopened, acknowledged or closed. ``finding`` is the finding after
    the change, ``at`` the unix time, ``detail`` a description.
    """

    kind: str
    finding: Finding
    at: float
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with everything that is needed to restore the finding."""
        return {
            "kind": self.kind,
            "at": self.at,
            "detail": self.detail,
            "finding": self.finding.dump(),
        }


def describe_changes(before: Signal, now: Signal) -> list[str]:
    """The changes since the last notification (``before``) that matter, as text; empty if none do.

    These are: another severity; another leading feature; a size where there was none; a size
    outside the last reported interval or, without an interval, at least twice or at most half as
    far from the baseline.
    """
    changes = []
    if before.severity != now.severity:
        changes.append(f"severity changed from {before.severity} to {now.severity}")
    if now.features and (not before.features or before.features[0].name != now.features[0].name):
        changes.append(f"{now.features[0].name} now contributes most")
    if now.size is not None and _moved(before.size, now.size):
        known = f", was {_number(before.size.value)}" if before.size is not None else ""
        unit = f" {now.size.unit}" if now.size.unit else ""
        changes.append(f"{now.size.name} is {_number(now.size.value)}{unit}{known}")
    return changes


def is_worse(before: Signal, now: Signal) -> bool:
    """Whether the severity rose since the last notification: that cannot wait."""
    return rank(now.severity) > rank(before.severity)


def _moved(before: Size | None, now: Size) -> bool:
    if before is None:
        return True
    if before.name != now.name or before.unit != now.unit:
        return False  # Another quantity: the change of the leading feature reports that.
    if before.low is not None or before.high is not None:
        below = before.low is not None and now.value < before.low
        return below or (before.high is not None and now.value > before.high)
    base = before.baseline or 0.0
    was, is_ = abs(before.value - base), abs(now.value - base)
    return is_ >= 2.0 * was > 0.0 or 2.0 * is_ <= was != 0.0 or (was == 0.0 != is_)


def _number(value: float) -> str:
    return f"{value:.3g}"

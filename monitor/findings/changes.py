"""What is worth telling again about a finding that people know already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.monitor.findings.finding import Finding, Signal, Size, rank


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to a finding, which is as it is after that.

    ``kind`` is opened, updated, reopened, acknowledged or closed; ``detail`` says what, in words.
    """

    kind: str
    finding: Finding
    at: float
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with all that the finding needs to go on from there."""
        return {
            "kind": self.kind,
            "at": self.at,
            "detail": self.detail,
            "finding": self.finding.dump(),
        }


def news(before: Signal, now: Signal) -> list[str]:
    """What has changed since people were told of ``before`` and matters, in words; empty if
    nothing.

    That is another severity, another feature in front, a size where there was none, or a size
    outside the interval that was told. Without an interval it is twice as far from the baseline as
    it was, or half.
    """
    found = []
    if before.severity != now.severity:
        found.append(f"severity changed from {before.severity} to {now.severity}")
    if now.features and (not before.features or before.features[0].name != now.features[0].name):
        found.append(f"{now.features[0].name} now contributes most")
    if now.size is not None and _moved(before.size, now.size):
        known = f", was {_number(before.size.value)}" if before.size is not None else ""
        unit = f" {now.size.unit}" if now.size.unit else ""
        found.append(f"{now.size.name} is {_number(now.size.value)}{unit}{known}")
    return found


def urgent(before: Signal, now: Signal) -> bool:
    """Whether it cannot wait: it has become worse than people think."""
    return rank(now.severity) > rank(before.severity)


def _moved(before: Size | None, now: Size) -> bool:
    if before is None:
        return True
    if before.name != now.name or before.unit != now.unit:
        return False  # Another thing is measured: the feature in front tells of that.
    if before.low is not None or before.high is not None:
        below = before.low is not None and now.value < before.low
        return below or (before.high is not None and now.value > before.high)
    base = before.baseline or 0.0
    was, is_ = abs(before.value - base), abs(now.value - base)
    return is_ >= 2.0 * was > 0.0 or 2.0 * is_ <= was != 0.0 or (was == 0.0 != is_)


def _number(value: float) -> str:
    return f"{value:.3g}"

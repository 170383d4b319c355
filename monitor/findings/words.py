"""Findings as text, for messages, pages and terminals."""

from __future__ import annotations

from datetime import UTC, datetime

from understudy.monitor.findings.finding import Finding, Signal, Size

_LATEST = 253402300799.0


def moment(at: float) -> str:
    """RFC 3339 in UTC, to the second."""
    stamp = datetime.fromtimestamp(min(max(at, 0.0), _LATEST), UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """A duration as people say it: ``3 h 20 min``."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def size(found: Size) -> str:
    """``temp: 2 standard deviations (1.5 to 2.5), was 0``."""
    unit = f" {found.unit}" if found.unit else ""
    low = "" if found.low is None else f"{found.low:.4g}"
    high = "" if found.high is None else f"{found.high:.4g}"
    interval = ""
    if low and high:
        interval = f" ({low} to {high})"
    elif low or high:
        interval = f" (at least {low})" if low else f" (at most {high})"
    was = "" if found.baseline is None else f", was {found.baseline:.4g}"
    return f"{found.name}: {found.value:.4g}{unit}{interval}{was}"


def features(signal: Signal, most: int = 5) -> list[str]:
    """One line for each: ``temp (80 %): median 12, was 54``."""
    lines = [
        f"{item.name} ({item.share * 100:.0f} %)" + (f": {item.detail}" if item.detail else "")
        for item in signal.features[:most]
    ]
    more = len(signal.features) - most
    return [*lines, f"and {more} more"] if more > 0 else lines


def subject(signal: Signal) -> str:
    """What it is about: model, version, segment."""
    parts = [signal.model, f"version {signal.version}" if signal.version else "", signal.segment]
    return ", ".join(part for part in parts if part)


def headline(event: str, finding: Finding) -> str:
    """The change, in one line."""
    title = finding.signal.title
    if event == "closed":
        return f"Closed: {title}"
    severity = finding.signal.severity
    told = {
        "opened": severity.capitalize(),
        "reopened": f"Reopened, {severity}",
        "updated": f"Changed, {severity}",
        "acknowledged": f"Acknowledged, {severity}",
        "reminder": f"Still open, {severity}",
    }
    return f"{told.get(event, severity.capitalize())}: {title}"

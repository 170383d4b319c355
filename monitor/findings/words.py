"""Findings as text for messages, pages and terminals."""

from __future__ import annotations

from datetime import UTC, datetime

from understudy.common.units import percent
from understudy.monitor.findings.finding import SEVERITIES, Signal, Size
from understudy.monitor.findings.incident import Incident

_LATEST = 253402300799.0


def moment(at: float) -> str:
    """RFC 3339 in UTC, to the second."""
    stamp = datetime.fromtimestamp(min(max(at, 0.0), _LATEST), UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """A duration in its two largest units: ``3 h 20 min``."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def size(change: Size) -> str:
    """``temp: 2 standard deviations (1.5 to 2.5), was 0``."""
    unit = f" {change.unit}" if change.unit else ""
    low = "" if change.low is None else f"{change.low:.4g}"
    high = "" if change.high is None else f"{change.high:.4g}"
    interval = ""
    if low and high:
        interval = f" ({low} to {high})"
    elif low or high:
        interval = f" (at least {low})" if low else f" (at most {high})"
    was = "" if change.baseline is None else f", was {change.baseline:.4g}"
    return f"{change.name}: {change.value:.4g}{unit}{interval}{was}"


def features(signal: Signal, limit: int = 5) -> list[str]:
    """One line for each: ``temp (80 %): median 12, was 54``."""
    lines = [
        f"{item.name} ({percent(item.share, 2)})" + (f": {item.detail}" if item.detail else "")
        for item in signal.features[:limit]
    ]
    more = len(signal.features) - limit
    return [*lines, f"and {more} more"] if more > 0 else lines


def subject(signal: Signal) -> str:
    """Model, version and segment, as one text."""
    parts = [signal.model, f"version {signal.version}" if signal.version else "", signal.segment]
    return ", ".join(part for part in parts if part)


def headline(event: str, incident: Incident) -> str:
    """The change in one line; ``event`` is a kind of change, or ``reminder``."""
    text = incident.headline
    if event == "closed":
        return f"Closed: {text}"
    severity = SEVERITIES[incident.severity]
    prefixes = {
        "opened": severity.capitalize(),
        "reopened": f"Reopened, {severity}",
        "updated": f"Changed, {severity}",
        "acknowledged": f"Acknowledged, {severity}",
        "reminder": f"Still open, {severity}",
    }
    return f"{prefixes.get(event, severity.capitalize())}: {text}"

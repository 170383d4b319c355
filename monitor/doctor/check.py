"""The result of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found. ``subject`` is what was checked (``champion``, ``disk``), ``fix`` is what to
    do about a warning or fault."""

    subject: str
    status: Status
    text: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ok(subject: str, text: str) -> Check:
    """Nothing to do."""
    return Check(subject, "ok", text)


def fault(subject: str, text: str, fix: str) -> Check:
    """Something does not work."""
    return Check(subject, "fault", text, fix)


def warning(subject: str, text: str, fix: str = "") -> Check:
    """Something works, and may not do so later, or not as it is meant."""
    return Check(subject, "warning", text, fix)


def skipped(subject: str, text: str) -> Check:
    """Something could not be checked, and why."""
    return Check(subject, "skipped", text)

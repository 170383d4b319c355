"""What is declared and not tested, with the reason: shown as loudly as a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REASONS = (
    "no_labels", "reference", "checking", "selective", "coverage", "learning", "baseline",
    "calibration", "detector", "segment", "disabled", "floor", "unreadable", "no_rows",
    "no_predictions", "no_feature", "no_output", "unmatched",
)  # fmt: skip
"""Why something is not tested: a closed list, for metrics."""


@dataclass(frozen=True, slots=True)
class Untested:
    """``check`` is what is not tested (a metric, or ``drift``, ``performance``, …); ``words`` say
    why, and what is missing: ``have`` of ``need``, where that is a number."""

    check: str
    reason: str
    words: str
    have: int | None = None
    need: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "check": self.check,
            "reason": self.reason,
            "words": self.words,
            "have": self.have,
            "need": self.need,
        }

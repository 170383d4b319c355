"""Two answers to the same request: do they agree, and if not, how badly do they differ?"""

from __future__ import annotations

from understudy.shadow.comparison.answers import Comparison, FieldDifference, compare
from understudy.shadow.comparison.noise import NoiseCancelling
from understudy.shadow.comparison.rules import ComparisonError, Rules
from understudy.shadow.comparison.worst import Worst

__all__ = [
    "Comparison",
    "ComparisonError",
    "FieldDifference",
    "NoiseCancelling",
    "Rules",
    "Worst",
    "compare",
]

"""Two answers to the same request: do they agree, and if not, how badly do they differ?"""

from __future__ import annotations

from shadow.comparison.answers import Comparison, FieldDifference, compare
from shadow.comparison.noise import NoiseCancelling
from shadow.comparison.rules import ComparisonError, Rules
from shadow.comparison.worst import Worst

__all__ = [
    "Comparison",
    "ComparisonError",
    "FieldDifference",
    "NoiseCancelling",
    "Rules",
    "Worst",
    "compare",
]

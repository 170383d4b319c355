"""Quality rules: what can be wrong with a single value or row, whatever others look like.

A rule says of each row and feature whether it is broken. What alarms is never a broken value but a
rate that rises above the baseline's; so every rule has a null rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """A closed list: it is a label in metrics."""

    MISSING = "missing"
    """Null, NaN, or a column that should be there and is not."""
    TYPE = "type"
    """A text where a number belongs, or something nested."""
    INFINITE = "infinite"
    RANGE = "range"
    """Outside of what the baseline has seen, widened."""
    UNSEEN = "unseen"
    """A category that the baseline does not know."""
    CONSTANT = "constant"
    """The same value for longer than chance, or the baseline, explains."""
    DUPLICATE = "duplicate"
    """A row that was there a moment ago, with another request id."""
    ADDED = "added"
    """A column that the baseline does not know."""
    UNDECODABLE = "undecodable"
    """A request that could not be read as features."""
    STALE = "stale"
    """No traffic for longer than the gaps so far explain."""


BY_FEATURE = (Rule.MISSING, Rule.TYPE, Rule.INFINITE, Rule.RANGE, Rule.UNSEEN)
"""Rules with a rate of their own for each feature."""
BY_ROW = (Rule.DUPLICATE, Rule.ADDED, Rule.UNDECODABLE)
"""Rules with one rate for all rows."""

WORDS = {
    Rule.MISSING: "is missing",
    Rule.TYPE: "has the wrong type",
    Rule.INFINITE: "is infinite",
    Rule.RANGE: "is out of range",
    Rule.UNSEEN: "has categories that are not in the baseline",
    Rule.CONSTANT: "is stuck at one value",
    Rule.DUPLICATE: "duplicate rows",
    Rule.ADDED: "columns that are not in the baseline",
    Rule.UNDECODABLE: "unreadable requests",
    Rule.STALE: "no traffic",
}
ADVICE = {
    Rule.MISSING: "Check the upstream job or join that fills it: did it fail, or was it renamed?",
    Rule.TYPE: "Check whether the producer's schema or a serialiser changed.",
    Rule.INFINITE: "Check for a division by zero or an overflow where it is computed.",
    Rule.RANGE: "Check for a change of unit, scale or sensor.",
    Rule.UNSEEN: "Check whether categories were renamed or re-encoded, or are real.",
    Rule.CONSTANT: "Check whether its source is stuck, or a default value replaced it.",
    Rule.DUPLICATE: "Check for a retry loop, a replayed queue, or a join that multiplies rows.",
    Rule.ADDED: "Check whether a column was renamed; build a baseline for the new version.",
    Rule.UNDECODABLE: "Check /v1/records for examples; a client or the schema may have changed.",
    Rule.STALE: "Check the clients and the route to this service.",
}


@dataclass(frozen=True, slots=True)
class RateRule:
    """A rule whose rate of violations is tested: ``feature`` is "" for rules about whole rows;
    ``null`` is the largest normal rate."""

    rule: Rule
    feature: str
    null: float

"""The ages at which a unit of assignment is read."""

from __future__ import annotations

CUTOFFS = (60.0, 900.0, 14_400.0, 172_800.0, 1_209_600.0)
"""Seconds since a unit's first request: a minute, a quarter of an hour, four hours, two days, two
weeks. They depend on no outcome, and a unit is read once at each."""


def age_of(cutoff: int) -> str:
    """An age in words."""
    return ("1 minute", "15 minutes", "4 hours", "2 days", "14 days")[cutoff]

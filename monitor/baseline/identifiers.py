"""Columns that look like an identifier, a timestamp or a counter.

Each of their values is new, or will be soon, so a comparison with the values of a baseline finds
nothing but that time has passed. Such a feature is proposed to be left out; until then its values
are checked for being there and for changing, and not compared with the baseline, unless somebody
declares that they should be."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from understudy.monitor.baseline.model import Column
from understudy.monitor.baseline.profiles import CategoryProfile, NumericProfile

Looks = Literal["an identifier", "a timestamp", "a counter"]
MOST_DISTINCT = 1024
"""A column with more categories than these is taken for an identifier."""
FEWEST = 100
"""Fewest rows that say what a column looks like."""
_RARE = 0.5
"""Share of rows with categories that are too rare to be counted by name."""
_NEW = 0.9
_DATE = re.compile(r"\d{1,4}[/.\-]\d{1,2}[/.\-]\d{1,4}([ T].*)?")
_EXACT = 2.0**53
"""Whole numbers above are not exact as floats."""
_EPOCHS = ((1.0e9, 2.2e9), (1.0e12, 2.2e12), (1.0e15, 2.2e15), (1.0e18, 2.2e18))
"""2001 to 2039, in seconds to nanoseconds."""
_STEPS = 20
"""Rises, one after the other, that chance does not bring about."""
_DESCENTS = 0.02
_ASCENTS = 0.5


def looks_like(column: Column, most: int, rose: int, fell: int) -> Looks | None:
    """What a column's values look like; None for a quantity or a category. ``most`` is the largest
    number of categories that are not taken for an identifier; ``rose`` and ``fell`` say how many
    values were above and below the one before."""
    if column.rows < FEWEST:
        return None
    falling = fell <= _DESCENTS * (rose + fell)
    if column.kind == "datetime":
        return "a timestamp" if falling and rose >= _STEPS else None
    profile = column.series.get(column.name)
    if isinstance(profile, CategoryProfile) and profile.count:
        dates = sum(_DATE.fullmatch(name) is not None for name in profile.counts)
        if profile.complete and dates > _NEW * len(profile.counts):
            return "a timestamp"
        rare = profile.other / profile.count > _RARE
        if profile.distinct > _NEW * profile.count or (profile.distinct > most and rare):
            return "an identifier"
    if isinstance(profile, NumericProfile) and profile.whole and profile.count >= FEWEST:
        low, high = profile.minimum, profile.maximum
        if any(first <= low and high <= last for first, last in _EPOCHS) and low < high:
            return "a timestamp"
        if falling and rose >= _ASCENTS * (profile.count - 1):
            return "a counter"
        if low > _EXACT and low < high:
            return "an identifier"
    return None


def ignored(column: Column, declared: Collection[str] = ()) -> bool:
    """Whether a column's values are not compared with the baseline."""
    if column.role != "feature" or column.name in declared or column.extra.get("declared"):
        return False
    return "looks_like" in column.extra

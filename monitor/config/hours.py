"""Hours of the week, as ``mon-fri 07:00-19:00``, in UTC."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

HOUR, DAY, WEEK = 60, 1440, 10080
"""In minutes."""
Interval = tuple[int, int]
"""Begin and end in minutes since Sunday 00:00 UTC."""

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY = "|".join(DAYS)
_PATTERN = (
    rf"^(({_DAY})(-({_DAY}))? )?([01][0-9]|2[0-3]):([0-5][0-9])"
    r"-([01][0-9]|2[0-4]):([0-5][0-9])$"
)
_EXAMPLES = ("mon-fri 07:00-19:00", "sat 22:00-06:00", "08:00-20:00")


def intervals(text: str) -> list[Interval]:
    """The intervals of a text, one for each day; one over midnight belongs to the day on which it
    begins, and on Saturday is two. Raises ValueError."""
    match = re.fullmatch(_PATTERN, " ".join(text.lower().split()))
    if match is None:
        raise ValueError(f"not valid hours: {text!r} (examples: {', '.join(_EXAMPLES)}; in UTC)")
    begin, end = (HOUR * int(match[n]) + int(match[n + 1]) for n in (5, 7))
    if end > DAY:
        raise ValueError(f"not valid hours: {text!r}: a day ends at 24:00")
    if begin == end:
        raise ValueError(f"{text!r} begins when it ends; write 00:00-24:00 for all day")
    length = (end - begin) % DAY or DAY
    if length < HOUR:
        raise ValueError(f"{text!r} is too short: at least an hour")
    first = DAYS.index(match[2]) if match[2] else 0
    last = DAYS.index(match[4] or match[2]) if match[2] else 6
    found: list[Interval] = []
    for number in range((last - first) % 7 + 1):
        start = (first + number) % 7 * DAY + begin
        found.append((start, min(start + length, WEEK)))
        if start + length > WEEK:
            found.append((0, start + length - WEEK))
    return found


def weekly(texts: Iterable[str]) -> tuple[Interval, ...]:
    """The intervals of all texts in order, without overlaps. Raises ValueError."""
    merged: list[Interval] = []
    for begin, end in sorted(one for text in texts for one in intervals(text)):
        if merged and begin <= merged[-1][1]:
            begin, end = merged[-1][0], max(merged.pop()[1], end)
        merged.append((begin, end))
    return tuple(merged)


def _valid(text: str) -> str:
    intervals(text)
    return text


Hours = Annotated[
    str,
    Field(max_length=64),
    AfterValidator(_valid),
    WithJsonSchema({"type": "string", "examples": list(_EXAMPLES)}),
]
"""Hours of a day, of days, or of every day."""

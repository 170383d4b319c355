"""Silences: findings that send no notifications for a time."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import Annotated, Any

from understudy.monitor.errors import FindingError, FindingStateError, UnknownFindingError
from understudy.shadow.state import Converter, Count, Key, Saved, Stateful, dump, load

MAX_SILENCES = 200
LONGEST_SECONDS = 366 * 86400.0
MAX_PATTERN = 512


@dataclass(frozen=True, slots=True)
class Silence:
    """Findings whose key matches ``pattern`` send no notifications before ``until``.

    ``*`` matches any text, ``?`` one character, ``[ab]`` one of these. ``until`` and ``at``, the
    time of its creation, are in unix seconds; ``who`` and ``why`` are free text.
    """

    id: str
    pattern: str
    until: float
    who: str
    why: str
    at: float

    def covers(self, key: str, now: float) -> bool:
        """Whether it silences a finding with that key at ``now``."""
        return now < self.until and fnmatchcase(key, self.pattern)


def _dump_silences(silences: dict[str, Silence]) -> list[Any]:
    return [dump(silence) for silence in silences.values()]


def _load_silences(name: str, value: Any, _: Any) -> dict[str, Silence]:
    silences = [load(Silence, item) for item in value[-MAX_SILENCES:]]
    return {silence.id: silence for silence in silences}


class Silences(Stateful):
    """At most ``MAX_SILENCES``; expired ones are deleted."""

    _by_id: Saved[
        Annotated[dict[str, Silence], Key("list"), Converter(_dump_silences, _load_silences)]
    ]
    _number: Saved[Count]

    def __init__(self) -> None:
        self._by_id = {}
        self._number = 0

    def add(self, pattern: str, until: float, who: str, why: str, now: float) -> Silence:
        """Add a silence. Raises FindingError for an invalid pattern or end, FindingStateError when
        there are too many."""
        self.tidy(now)
        if not pattern or len(pattern) > MAX_PATTERN:
            raise FindingError(f"a pattern must have 1 to {MAX_PATTERN} characters")
        if not isfinite(until) or not now < until <= now + LONGEST_SECONDS:
            raise FindingError("a silence must end in the future, within 366 days")
        if len(self._by_id) >= MAX_SILENCES:
            raise FindingStateError(f"there are {MAX_SILENCES} silences already: end one first")
        self._number += 1
        silence = Silence(f"s{self._number}", pattern, until, who, why, now)
        self._by_id[silence.id] = silence
        return silence

    def end(self, id_: str) -> Silence:
        """Delete a silence, which is returned. Raises UnknownFindingError."""
        if id_ not in self._by_id:
            raise UnknownFindingError(f"there is no silence {id_!r}")
        return self._by_id.pop(id_)

    def until(self, key: str, now: float) -> float | None:
        """When the last silence over ``key`` ends; None when there is none."""
        return max((s.until for s in self._by_id.values() if s.covers(key, now)), default=None)

    def all(self, now: float) -> list[Silence]:
        """The silences in force, the oldest first."""
        self.tidy(now)
        return list(self._by_id.values())

    def tidy(self, now: float) -> None:
        """Delete the silences that have expired at ``now``."""
        self._by_id = {key: s for key, s in self._by_id.items() if now < s.until}

"""What follows a request: the next turn of its session, or its client's leaving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """Only the payloads ``starts`` are sent when the arrivals say so. ``then`` is the payload that
    is due so many seconds after the good end of another one; ``leaves`` are the seconds from the
    sending of a payload after which its client ends the connection. All are indices of payloads."""

    starts: Sequence[int]
    then: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    leaves: Mapping[int, float] = field(default_factory=dict)

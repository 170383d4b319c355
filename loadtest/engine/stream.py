"""Times of a streamed answer of a language model, as columns of finished requests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from math import nan
from typing import Protocol, runtime_checkable

from understudy.loadtest.engine.answer import Check

MOMENTS = ("first_chunk", "first_token", "first_answer", "last_token")
"""Columns that are points in time; the others are not."""


@dataclass(slots=True)
class Stream:
    """What is known of one streamed answer; NaN where it is not known.

    The first four are monotonic nanoseconds: of the first event that is a part of an answer, be it
    empty; of the first and the last event with output; of the first one that is not reasoning.
    ``per_token`` is the time per output token after the first, ``longest_gap`` the longest time
    between two events with output, both in seconds; numbers of tokens are those that the server
    tells. ``cancelled`` is 1 where the client itself ended the stream.
    """

    first_chunk: float = nan
    first_token: float = nan
    first_answer: float = nan
    last_token: float = nan
    per_token: float = nan
    longest_gap: float = nan
    output_tokens: float = nan
    prompt_tokens: float = nan
    cancelled: float = 0.0


STREAM_COLUMNS = tuple(one.name for one in fields(Stream))
"""Names of the columns of a stream, in order."""


@dataclass(frozen=True, slots=True)
class ReadStream:
    """A streamed answer that was read: what is wrong with it, its times, and the seconds between
    its events with output."""

    error: str = ""
    stream: Stream = field(default_factory=Stream)
    gaps: Sequence[float] = ()


@runtime_checkable
class StreamCheck(Check, Protocol):
    """A check that also reads the times of streamed answers, if ``timed``."""

    timed: bool

    def read(
        self,
        payload: int,
        status: int,
        headers: bytes,
        pieces: Sequence[bytes],
        times: Sequence[int],
    ) -> ReadStream:
        """Read a response whose body came in ``pieces``, each at one of ``times`` in monotonic
        nanoseconds."""

    def read_left(self, payload: int, pieces: Sequence[bytes], times: Sequence[int]) -> ReadStream:
        """Read the part of a stream that came before its client left: the server is not blamed
        for the rest."""


class StreamRows:
    """Collects the streams of finished requests."""

    def __init__(self) -> None:
        self.rows = array("d")
        self.gaps = array("d")

    def add(self, found: ReadStream | None) -> None:
        """Add a row; without a stream, its times are NaN."""
        self.rows.extend(astuple(found.stream if found is not None else Stream()))
        if found is not None:
            self.gaps.extend(found.gaps)

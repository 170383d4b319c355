"""When requests are due: Poisson, gamma or even arrivals whose rate may change, or a recorded
trace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CHUNK_SECONDS = 0.5
"""Arrivals are drawn in chunks of this length."""

Times = NDArray[np.float64]
ArrivalKind = Literal["poisson", "gamma", "even"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of ``seconds`` in which the rate goes from ``start`` to ``end``, per second, along
    a straight line."""

    seconds: float
    start: float
    end: float

    @property
    def count(self) -> float:
        """Expected number of requests."""
        return self.seconds * (self.start + self.end) / 2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The rate over time: pieces one after another. Raises ValueError without pieces, and for a
    piece without length or with a negative rate."""

    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        if not self.pieces:
            raise ValueError("a profile needs at least one piece")
        for piece in self.pieces:
            numbers = (piece.seconds, piece.start, piece.end)
            if not all(math.isfinite(n) and n >= 0.0 for n in numbers) or piece.seconds <= 0.0:
                raise ValueError(f"{piece}: seconds must be positive, rates must not be negative")

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return sum(piece.seconds for piece in self.pieces)

    @property
    def count(self) -> float:
        """Expected number of requests."""
        return sum(piece.count for piece in self.pieces)

    @property
    def highest(self) -> float:
        """The highest rate."""
        return max(max(piece.start, piece.end) for piece in self.pieces)

    def rate(self, at: float) -> float:
        """The rate per second at ``at`` seconds from the start; 0 before the start and after the
        end."""
        begun = 0.0
        for piece in self.pieces:
            if begun <= at < begun + piece.seconds:
                return piece.start + (piece.end - piece.start) * (at - begun) / piece.seconds
            begun += piece.seconds
        return 0.0

    def passed(self, at: Times) -> Times:
        """Expected number of requests until each time in ``at``, (n,) seconds: the integral of the
        rate."""
        total = np.zeros_like(at)
        begun = 0.0
        for piece in self.pieces:
            inside = np.clip(at - begun, 0.0, piece.seconds)
            slope = (piece.end - piece.start) / piece.seconds
            total += piece.start * inside + slope * inside**2 / 2.0
            begun += piece.seconds
        return total

    def moments(self, counts: Times) -> Times:
        """The inverse of :meth:`passed`: the times in seconds, (n,), at which ``counts`` requests
        are expected; infinite beyond the end."""
        times = np.full_like(counts, np.inf)
        begun, before = 0.0, 0.0
        for piece in self.pieces:
            here = (counts >= before) & (counts < before + piece.count)
            rest = counts[here] - before
            slope = (piece.end - piece.start) / piece.seconds
            if abs(slope) < 1e-12:
                times[here] = begun + rest / max(piece.start, 1e-300)
            else:
                # The positive root, in the form that keeps its digits for a small slope.
                root = np.sqrt(np.maximum(piece.start**2 + 2.0 * slope * rest, 0.0))
                times[here] = begun + 2.0 * rest / np.maximum(piece.start + root, 1e-300)
            begun += piece.seconds
            before += piece.count
        return times


def arrivals(
    profile: Profile,
    kind: ArrivalKind,
    seed: Sequence[int],
    share: float = 1.0,
    burstiness: float = 1.0,
) -> Iterator[Times]:
    """Arrival times in seconds from the start, ascending, in chunks.

    ``share`` is the part of the profile's rate that this process sends. Poisson arrivals of several
    processes with different seeds add up to a Poisson process of the whole rate; even arrivals of
    several processes interleave by the last number of the seed, and so do gamma arrivals, whose
    gaps have the shape ``burstiness``: 1 is Poisson, less comes in bursts. The method is that of
    time change: unit arrivals, mapped through the inverse of the expected count (Cinlar 1975)."""
    scale = profile.count * share
    if kind == "even":
        offset = (seed[-1] if seed else 0) % max(1, round(1.0 / share)) if share > 0.0 else 0
        position = 0.5 + float(offset)
        step = max(1, round(1.0 / share)) if share > 0.0 else 1
        while position < profile.count:
            block = np.arange(position, min(profile.count, position + 4096 * step), step)
            yield profile.moments(block)
            position = float(block[-1]) + step
        return
    if kind == "gamma":
        yield from _gamma(profile, burstiness, seed, max(1, round(1.0 / share)))
        return
    generator = np.random.default_rng(list(seed))
    at = 0.0
    while at < scale:
        gaps = generator.exponential(size=4096)
        block = at + np.cumsum(gaps)
        at = float(block[-1])
        inside = block[block < scale]
        if len(inside):
            yield profile.moments(inside / share)


def _gamma(
    profile: Profile, burstiness: float, seed: Sequence[int], processes: int
) -> Iterator[Times]:
    """Every process draws all arrivals, and takes its own: several processes with gamma gaps of
    their own would add up to arrivals that are nearer to Poisson's."""
    generator = np.random.default_rng(list(seed[:-1]))
    at, passed = 0.0, 0
    while at < profile.count:
        block = at + np.cumsum(generator.gamma(burstiness, 1.0 / burstiness, 4096))
        own = block[(seed[-1] - passed) % processes :: processes]
        at, passed = float(block[-1]), passed + len(block)
        inside = own[own < profile.count]
        if len(inside):
            yield profile.moments(inside)

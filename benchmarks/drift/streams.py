"""Streams with and without a change, what a baseline makes of them, and the oracles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from understudy.monitor.baseline.scores import normal_scores, spread_scores, tail_factor
from understudy.monitor.detectors.composition import Composition
from understudy.monitor.detectors.cusum import SLACKS, CusumUnion
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.run_length import threshold_known
from understudy.monitor.health.drift.limits import COMPOSITION, run_lengths

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
BUCKETS = 255
BEFORE = 2_000
"""Rows before a change."""
AFTER = 10_000
"""Rows after it; a change that is not found in them is missed."""
CHUNK = 2_000
SHARES = (0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03)
"""Of categories, which are codes in the order of their shares, as in the service."""


def categories(rng: np.random.Generator, shares: tuple[float, ...], shape: Any) -> Array:
    """Codes of categories with these shares."""
    found: Array = np.searchsorted(np.cumsum(shares)[:-1], rng.random(shape)).astype(np.float64)
    return found


class Detector(Protocol):
    def update(self, batch: Array, /) -> Evidence: ...

    def reset(self, series: npt.NDArray[np.bool_], /) -> None: ...


@dataclass(frozen=True)
class Change:
    """``mean`` and ``spread`` (a factor) after the change; ``ramp`` rows to get there; ``degrees``
    of freedom of a t distribution of variance 1 instead of the normal one; 0: normal. ``shares``:
    codes of categories instead, which have these shares afterwards and :data:`SHARES` before."""

    name: str
    mean: float = 0.0
    spread: float = 1.0
    ramp: int = 0
    degrees: int = 0
    shares: tuple[float, ...] = ()

    def apply(self, rng: np.random.Generator, x: Array, first: int) -> Array:
        """Rows of normal noise (n, S), the first of which is the ``first`` after the change."""
        if self.shares:
            return categories(rng, self.shares, x.shape)
        at = np.arange(first, first + len(x), dtype=np.float64)[:, None]
        part = np.clip((at + 1.0) / self.ramp, 0.0, 1.0) if self.ramp else np.ones_like(at)
        if self.degrees:
            variance = self.degrees / (self.degrees - 2.0)
            x = rng.standard_t(self.degrees, x.shape) / math.sqrt(variance)
        changed: Array = x * (1.0 + (self.spread - 1.0) * part) + self.mean * part
        return changed


CHANGES = (
    Change("mean +0.25 σ", 0.25),
    Change("mean +0.5 σ", 0.5),
    Change("mean +1 σ", 1.0),
    Change("σ × 1.2", spread=1.2),
    Change("σ × 1.5", spread=1.5),
    Change("tail: t with 3 degrees, the same variance", degrees=3),
    Change("mean to +0.5 σ within 2,000 rows", 0.5, ramp=2_000),
    Change("category: 10 % to 15 %", shares=(0.28, 0.19, 0.14, 0.15, 0.09, 0.07, 0.05, 0.03)),
    Change("category: 10 % to 20 %", shares=(0.26, 0.18, 0.13, 0.2, 0.08, 0.07, 0.05, 0.03)),
)


def changed(change: Change, streams: int, seed: int) -> Array:
    """Streams (BEFORE + AFTER, streams), standard normal until the change."""
    rng = np.random.default_rng(seed)
    if change.shares:
        x = categories(rng, SHARES, (BEFORE + AFTER, streams))
    else:
        x = rng.standard_normal((BEFORE + AFTER, streams))
    x[BEFORE:] = change.apply(rng, x[BEFORE:], 0)
    return x


def stationary(streams: int, rows: int, seed: int) -> Iterator[Array]:
    """Chunks of standard normal rows."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, CHUNK):
        yield rng.standard_normal((min(CHUNK, rows - start), streams))


class Known:
    """The baseline is the truth."""

    rows = math.inf

    def scores(self, x: Array) -> Array:
        return x


class Estimated:
    """Mean and standard deviation of each stream from that many rows of the stream."""

    def __init__(self, streams: int, rows: int, seed: int) -> None:
        self.rows = float(rows)
        sample = np.random.default_rng(seed).standard_normal((rows, streams))
        self.mean, self.deviation = sample.mean(axis=0), sample.std(axis=0)

    def scores(self, x: Array) -> Array:
        found: Array = (x - self.mean) / self.deviation
        return found


class Ranked:
    """As in the service: buckets of each stream's own rows, and the scores of their ranks.

    ``scores`` are locations, then spreads: (n, 2 S). ``factors`` are those of the thresholds.
    """

    def __init__(self, streams: int, rows: int, seed: int, sample: Array | None = None) -> None:
        self.rows = float(rows)
        if sample is None:
            sample = np.random.default_rng(seed).standard_normal((rows, streams))
        self._edges, self._location, self._spread = [], [], []
        factors: list[list[list[float]]] = [[], []]
        for column in sample.T:
            edges = np.unique(np.quantile(column, np.linspace(0.0, 1.0, BUCKETS + 1)[1:-1]))
            codes = edges.searchsorted(column)
            shares = np.bincount(codes, minlength=len(edges) + 1) / len(column)
            location = normal_scores(shares)
            spread = spread_scores(location, shares)
            self._edges.append(edges)
            self._location.append(location)
            self._spread.append(spread)
            for kind, scores in enumerate((location, spread)):
                factors[kind].append(
                    [
                        max(tail_factor(scores, shares, k), tail_factor(-scores, shares, k))
                        for k in SLACKS
                    ]
                )
        self.factors: Array = np.array(factors[0] + factors[1])

    def scores(self, x: Array) -> Array:
        found = np.empty((len(x), 2 * x.shape[1]))
        for number, edges in enumerate(self._edges):
            codes = edges.searchsorted(x[:, number])
            found[:, number] = self._location[number][codes]
            found[:, x.shape[1] + number] = self._spread[number][codes]
        return found


class Paired:
    """Location and spread of S streams watched together: an alarm of either is one."""

    def __init__(
        self, streams: int, run_length: float, baseline: Ranked, lengths: Array | None = None
    ) -> None:
        self.streams = streams
        if lengths is None:
            # Each stream has a run length of its own here: that of all is so much shorter.
            lengths = run_lengths(streams, run_length / streams)
        self.union = CusumUnion(
            2 * streams, lengths, baseline.rows, factors=baseline.factors, refine=True
        )

    def update(self, scores: Array) -> Evidence:
        found = self.union.update(scores)
        parts = found.crossed.reshape(2, self.streams)
        late = np.where(parts < 0, np.iinfo(np.int64).max, parts).min(axis=0)
        crossed = np.where((parts >= 0).any(axis=0), late, -1)
        statistic = found.statistic.reshape(2, self.streams).max(axis=0)
        ones = np.ones(self.streams)
        return Evidence(statistic, ones, crossed, np.zeros(self.streams, np.int8))

    def reset(self, series: npt.NDArray[np.bool_]) -> None:
        self.union.reset(np.tile(series, 2))


class Categorical:
    """S streams of categories as the service watches them: location and spread of the codes, and
    their composition, each with its share; a baseline of ``rows`` of each stream's own."""

    def __init__(self, streams: int, run_length: float, rows: int, seed: int) -> None:
        sample = categories(np.random.default_rng(seed), SHARES, (rows, streams))
        self.ranked = Ranked(streams, rows, seed, sample)
        lengths = run_lengths(streams, run_length / streams, np.ones(streams, np.bool_))
        self.pair = Paired(streams, run_length, self.ranked, lengths)
        counts = [np.bincount(c, minlength=len(SHARES) + 1) for c in sample.astype(np.intp).T]
        self.composition = Composition(np.array(counts, np.float64), run_length / COMPOSITION)

    def update(self, codes: Array) -> Evidence:
        moved = self.pair.update(self.ranked.scores(codes))
        mixed = self.composition.update(codes.astype(np.int64), np.zeros(len(codes)))
        both = np.stack([moved.crossed, mixed.crossed])
        first = np.where(both < 0, np.iinfo(np.int64).max, both).min(axis=0)
        crossed = np.where((both >= 0).any(axis=0), first, -1)
        return Evidence(moved.statistic, moved.threshold, crossed, moved.direction)

    def reset(self, series: npt.NDArray[np.bool_]) -> None:
        self.pair.reset(series)
        self.composition.reset(series)


class OneSided:
    """The oracle: a one-sided CUSUM that knows baseline, direction and size of the change.

    Increments are log-likelihood ratios over the shift: z - shift / 2 for a mean.
    """

    def __init__(self, streams: int, run_length: float, shift: float) -> None:
        self.slack = shift / 2.0
        self.threshold = threshold_known(self.slack, run_length)
        self.sums = np.zeros(streams)

    def increments(self, x: Array) -> Array:
        return x - self.slack

    def update(self, x: Array) -> Evidence:
        moved = np.cumsum(self.increments(x), axis=0)
        sums = moved - np.minimum(np.minimum.accumulate(moved, axis=0), -self.sums)
        self.sums = sums[-1]
        over = sums >= self.threshold
        crossed = np.where(over.any(axis=0), np.argmax(over, axis=0), -1)
        ones = np.ones(len(crossed), np.int8)
        return Evidence(sums[-1] / self.threshold, ones.astype(np.float64), crossed, ones)

    def reset(self, series: npt.NDArray[np.bool_]) -> None:
        self.sums[series] = 0.0


class SimulatedOracle(OneSided):
    """The same for another change, with log-likelihood ratios as increments; its threshold by
    simulation: run lengths grow as exp(threshold), and are measured where that is quick."""

    def __init__(self, streams: int, run_length: float, change: Change) -> None:
        self.change = change
        self.threshold = 5.0
        self.sums = np.zeros(1000)
        rng = np.random.default_rng(1)
        rows, alarms = 0, 0
        for _ in range(400):
            shape = (50, 1000)
            quiet = categories(rng, SHARES, shape) if change.shares else rng.standard_normal(shape)
            found = self.update(quiet)
            hit = found.crossed >= 0
            # Until its alarm for those that had one, then from the restart.
            rows += int(np.where(hit, found.crossed + 1, 50).sum())
            alarms += int(hit.sum())
            self.reset(hit)
        self.threshold += math.log(run_length * alarms / rows)
        self.sums = np.zeros(streams)

    def increments(self, x: Array) -> Array:
        change = self.change
        if change.shares:
            ratios = np.log(np.array(change.shares) / np.array(SHARES))
            found: Array = ratios[x.astype(np.intp)]
            return found
        if change.degrees:
            scale = math.sqrt(change.degrees / (change.degrees - 2.0))
            tails = student.logpdf(x * scale, change.degrees) + math.log(scale)
            found = tails + x**2 / 2.0 + 0.5 * math.log(2.0 * math.pi)
            return found
        found = x**2 / 2.0 * (1.0 - change.spread**-2.0) - math.log(change.spread)
        return found


def delays(detector: Detector, scores: Array, batch: int = 40) -> tuple[Array, Flags]:
    """Rows from the change to the first alarm of each stream, infinity for a change that is missed,
    and whether it had an alarm before; after which it was begun anew."""
    early = np.zeros(0, np.bool_)
    found = np.zeros(0)
    for start in range(0, len(scores), batch):
        evidence = detector.update(scores[start : start + batch])
        hit = evidence.crossed >= 0
        if not start:
            early, found = np.zeros(len(hit), np.bool_), np.full(len(hit), np.inf)
        if start < BEFORE:
            early |= hit
            if hit.any():
                detector.reset(hit)
            continue
        fresh = hit & np.isinf(found)
        found[fresh] = start + evidence.crossed[fresh] - BEFORE + 1
        if not np.isinf(found).any():
            break
    return found, early


def alarms(detector: Detector, chunks: Iterator[Array], streams: int, batch: int = 500) -> Array:
    """False alarms of each stream; each restarts after an alarm, at the end of its batch."""
    found = np.zeros(streams)
    for chunk in chunks:
        for start in range(0, len(chunk), batch):
            hit = detector.update(chunk[start : start + batch]).crossed >= 0
            if hit.any():
                found += hit
                detector.reset(hit)
    return found


def rate(found: Array, rows: int) -> dict[str, Any]:
    """Alarms per 100,000 rows, with the ends of a one-sided 99 % interval each.

    By streams: the alarms of one come together, since they share a baseline.
    """
    each = found * (100_000.0 / rows)
    mean = float(each.mean())
    half = 2.326 * float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else None
    return {
        "streams": len(each),
        "alarms": int(found.sum()),
        "per 100,000": mean,
        "lower": None if half is None else max(mean - half, 0.0),
        "upper": None if half is None else mean + half,
    }

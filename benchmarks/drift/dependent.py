"""Rows that depend on each other, and rows with a daily cycle: what is left of the run length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.signal import lfilter

from benchmarks.drift.streams import CHUNK, Array, alarms, rate
from understudy.monitor.detectors.autocorrelation import BatchMeans, batch_length, inflation, lag1
from understudy.monitor.detectors.cusum import SLACKS, CusumUnion
from understudy.monitor.detectors.dependence import Dependence
from understudy.monitor.detectors.seasons import ProfileBuilder

BASELINE = 10_000
SECONDS = 60.0
"""Between rows: the baseline is a week."""
BEGIN = 1.7e9
Scores = Callable[[Array, Array], Array]


class Source:
    """AR(1) streams of variance 1, plus a daily cycle of a given height."""

    def __init__(self, streams: int, phi: float, height: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.phi, self.height = phi, height
        self.state = self.rng.standard_normal((1, streams)) * phi
        self.time = BEGIN

    def rows(self, rows: int) -> tuple[Array, Array]:
        """The next rows (n, S) and their unix times."""
        steps = self.rng.standard_normal((rows, self.state.shape[1]))
        steps *= math.sqrt(1.0 - self.phi**2)
        x, last = lfilter([1.0], [1.0, -self.phi], steps, axis=0, zi=self.state)
        self.state = np.asarray(last)
        times = self.time + SECONDS * np.arange(rows)
        self.time += SECONDS * rows
        cycle = self.height * np.sin(2.0 * np.pi * times / 86_400.0)
        return np.asarray(x) + cycle[:, None], np.asarray(times, np.float64)


def batched(found: Array, means: BatchMeans) -> Scores:
    mean, deviation = found.mean(axis=0), found.std(axis=0)

    def scores(x: Array, _: Array) -> Array:
        return means.update((x - mean) / deviation)

    return scores


def methods(x: Array, times: Array, run_length: float) -> Iterator[tuple[str, CusumUnion, Scores]]:
    """Name, charts, and what makes their scores of rows, given a baseline."""
    streams = x.shape[1]
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    found = lag1(x)
    factors = np.array([inflation(value, BASELINE) for value in found])

    def plain(rows: Array, _: Array) -> Array:
        standard: Array = (rows - mean) / deviation
        return standard

    yield "nothing is allowed for", CusumUnion(streams, run_length, BASELINE), plain
    aware = CusumUnion(streams, run_length, BASELINE, inflation=factors)
    yield "thresholds know the lag-1 correlation", aware, plain
    yield "thresholds know blocks and excursions", _aware(plain(x, times), run_length), plain
    # One length for all, so that all have the same charts.
    length = batch_length(float(np.median(found)))
    if length > 1:
        typical = float(np.median(factors))
        scaled = [k * math.sqrt(length / typical) for k in SLACKS]
        union = CusumUnion(streams, run_length / length, BASELINE / length, scaled)
        means = BatchMeans([length] * streams, factors.tolist())
        yield f"means of {length} rows", union, batched(x, means)
    builder = ProfileBuilder(streams)
    builder.add(x, times)
    profile = builder.finish()
    left = profile.subtract(x, times)
    yield (
        "profile of hours, and thresholds that know the rest",
        _aware(left, run_length),
        profile.subtract,
    )


def _aware(x: Array, run_length: float) -> CusumUnion:
    """Charts that know how standard rows of a baseline depend on each other."""
    dependence = Dependence(x.shape[1])
    dependence.update(x)
    memories = dependence.memories()
    inflation = np.array([[memory.inflation(k) for k in SLACKS] for memory in memories])
    wide = np.array([memory.long_run for memory in memories])
    return CusumUnion(x.shape[1], run_length, len(x), inflation=inflation, long_run=wide)


def realised(
    phi: float, height: float, streams: int, rows: int, run_length: float, seed: int
) -> list[dict[str, Any]]:
    """By method: the rate of false alarms, and the realised run length over the stated one."""
    source = Source(streams, phi, height, seed)
    baseline, times = source.rows(BASELINE)
    table = []
    for name, union, scores in methods(baseline, times, run_length):
        stream = Source(streams, phi, height, seed + 1)
        stream.time = BEGIN + BASELINE * SECONDS
        chunks = (scores(*stream.rows(CHUNK)) for _ in range(rows // CHUNK))
        found = rate(alarms(union, chunks, streams), rows)
        expected = streams * rows / run_length
        table.append(
            {"method": name, **found, "realised / stated": expected / max(found["alarms"], 1)}
        )
    return table

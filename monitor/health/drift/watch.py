"""Drift and data quality of one model against its baseline.

The stages: encode → quality rules → drift → signals. Nothing here reads a clock: rows have times,
and the caller passes the present time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.baseline.repeats import Runs
from understudy.monitor.baseline.rules import RateRule
from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.detectors.autocorrelation import assumptions
from understudy.monitor.detectors.change_point import ChangePoint, Estimate
from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.dependence import BlockVariance
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import PackedTimes
from understudy.monitor.detectors.seasons import LiveSeasons, Profile
from understudy.monitor.evidence.batch import ColumnBatch, concatenate
from understudy.monitor.health.corroborate import Corroborator, corroborators_of
from understudy.monitor.health.drift import limits
from understudy.monitor.health.drift.broken import BrokenRows
from understudy.monitor.health.drift.categories import Categories, of_categories
from understudy.monitor.health.drift.segments import Segments
from understudy.monitor.health.drift.silence import Silence
from understudy.monitor.health.drift.together import JointDrift
from understudy.monitor.health.drift.window import Window
from understudy.monitor.health.examples import Examples
from understudy.monitor.health.latches import Latches
from understudy.monitor.health.options import Options
from understudy.shadow.state import SAME, Config, Count, Derived, Saved, Stateful, Transient

_MOST_LAYOUTS = 16
_KNOWN = 1000
_SHARES = {"drift": 0.4, "quality": 0.3, "repeats": 0.1, "together": 0.05, "segments": 0.15}
"""How the false alarms that a model may have are shared out."""

_MORE = 1.0001
"""Times the baseline's variance of long sums from which that of live rows is larger: it starts at
the same, and five digits of it are saved."""
FULL = 256
"""Most rows that are evaluated together."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Evaluated rows: ``codes`` (n, S), ``raw`` (n, C), ``plain`` and ``scores``
    (n, 2 S), where ``scores`` lack the cycle, ``broken`` (n, R), None for all zeros."""

    codes: NDArray[np.int64]
    raw: NDArray[np.float64]
    plain: NDArray[np.float64]
    scores: NDArray[np.float64]
    broken: NDArray[np.float64] | None
    times: NDArray[np.float64]
    ids: list[bytes]


class ModelWatch(Stateful):
    """Compares rows with ``baseline``. All state is bounded, whatever the rows contain."""

    baseline: Config[Baseline]
    options: Config[Options]
    encoder: Config[Encoder]
    cycle: Config[Profile | None]
    """Daily cycle of the series, where the baseline has one."""
    _cyclic: Config[list[int]]
    """Indices of the series with a cycle."""
    errors: Config[list[str]]
    """Why a declared detector does not run."""
    rules: Config[list[RateRule]]
    _long_runs: Config[NDArray[np.float64]]
    """Variance of long sums of each location and spread in the baseline, (2 S,)."""
    _inflated: Config[NDArray[np.float64]]
    """Variance of long sums of each location and spread as each chart sees it, (2 S, slacks)."""
    _widened: Derived[NDArray[np.float64]]
    """That of live rows, (2 S,), to a step; 1 where the baseline's is larger."""
    dependence: Saved[BlockVariance]
    seasons: Saved[LiveSeasons]
    longest: Config[NDArray[np.int64]]
    cusum: Saved[CusumUnion]
    together: Saved[JointDrift | None]
    corroborators: Saved[list[tuple[Annotated[int, SAME], Corroborator]]]
    """Each with the index of its series."""
    rates: Saved[SrDetector]
    history: Saved[ChangePoint]
    began: Saved[dict[int, float]]
    """Unix time at which a series began to drift, once it is known well."""
    rising: Saved[PackedTimes]
    """Unix time since which each rule is broken more often than usual; NaN: it is not."""
    shifts: Saved[Latches]
    broken: Saved[Latches]
    runs: Saved[Runs]
    violations: Saved[NDArray[np.int64]]
    """Number of rows that have broken each rule."""
    window: Saved[Window]
    categories: Saved[Categories]
    segments: Saved[Segments]
    rows: Saved[Count]
    silence: Saved[Silence]
    quality: Saved[BrokenRows]
    examples: Transient[Examples]
    _rows: Transient[dict[tuple[tuple[str, ...], bool], list[ColumnBatch]]]

    def __init__(self, baseline: Baseline, options: Options) -> None:
        self.baseline = baseline
        self.options = options
        encoder = self.encoder = Encoder(baseline, {*options.declared, *options.segments})
        series, columns = len(encoder.series), len(encoder.columns)
        length = options.run_length / _SHARES["drift"]
        drift = limits.run_lengths(series, length, of_categories(encoder))
        slacks = options.slacks
        self.cycle, self._cyclic = limits.cycle_of(encoder, baseline)
        memories = limits.memories(encoder, self.cycle, self._cyclic)
        self._long_runs = np.array([memory.long_run for memory in memories])
        self._inflated = limits.inflations(memories, slacks)
        self._widened = np.ones(2 * series)
        self.cusum = CusumUnion(
            2 * series,
            drift,
            limits.baseline_rows(encoder),
            slacks,
            limits.tail_factors(encoder, slacks),
            self._inflated,
            self._long_runs,
            refine=True,
        )
        self.dependence = BlockVariance(2 * series, memories)
        self.seasons = LiveSeasons(limits.errors_of(series, self.cycle, self._cyclic))
        widest = self._inflated.max(axis=1, initial=1.0)
        self.together = self._many_at_once(widest)
        rows = limits.baseline_rows(encoder)
        self.corroborators, self.errors = corroborators_of(options.detectors, encoder.series, rows)
        self.rules = limits.rate_rules(baseline, encoder, options.smallest_rate)
        nulls = np.array([rule.null for rule in self.rules])
        quality = options.run_length / _SHARES["quality"] * max(1, len(self.rules))
        self.rates = SrDetector(nulls, np.full(len(nulls), quality))
        self.history = ChangePoint(2 * series)
        self.began = {}
        self.rising = np.full(len(self.rules), np.nan)
        self.shifts = Latches(2 * series)
        self.broken = Latches(len(self.rules))
        self.runs = Runs(columns)
        repeats = options.run_length / _SHARES["repeats"] * max(1, columns)
        self.longest = np.array(
            [limits.longest_run(encoder, number, repeats) for number in range(columns)], np.int64
        )
        self.violations = np.zeros(len(self.rules), np.int64)
        self.window = Window(encoder, options.window)
        each = np.full(series, length * max(series, 1) / limits.COMPOSITION)
        self.categories = Categories(encoder, self.window, each, widest[:series])
        self.segments = Segments(
            encoder, options, options.run_length / _SHARES["segments"], self._inflated
        )
        self.rows = 0
        self.silence = Silence()
        self.examples = Examples()
        self._rows = {}
        self.quality = BrokenRows(encoder, self.rules)

    def _many_at_once(self, inflated: NDArray[np.float64]) -> JointDrift | None:
        if self.baseline.together is None:
            return None
        known = JointProfile.from_dict(self.baseline.together)
        if not set(known.series) <= set(self.encoder.series):
            return None
        indices = [self.encoder.series.index(name) for name in known.series]
        length = self.options.run_length / _SHARES["together"]
        wide = float(inflated[indices].max(initial=1.0))
        return JointDrift(known, indices, length, self.options.slacks, self.options.kernel, wide)

    # Rows ---------------------------------------------------------------------------------------

    def take_rows(self, batch: ColumnBatch, names: tuple[str, ...], answered: bool) -> None:
        """Buffer rows. ``names`` are the columns of the batch from the second one on; the first one
        is the start of the request, in unix seconds. ``answered``: there are predictions."""
        if (names, answered) not in self._rows and len(self._rows) >= _MOST_LAYOUTS:
            self.flush()
        waiting = self._rows.setdefault((names, answered), [])
        waiting.append(batch)
        if sum(map(len, waiting)) >= FULL:
            self._evaluate_rows(names, answered, least=FULL)

    def _evaluate_rows(self, names: tuple[str, ...], answered: bool, least: int) -> None:
        """Evaluate the buffered rows in batches of at least ``least`` rows."""
        whole = concatenate(self._rows.pop((names, answered)))
        rows, done = len(whole), 0
        while done < rows and rows - done >= least:
            part = whole if rows <= FULL else whole.rows(slice(done, done + FULL))
            started = part.columns[0]
            assert isinstance(started, np.ndarray)
            times = started.astype(np.float64, copy=False)
            columns = part.columns[1 : 1 + len(names)]
            self.evaluate(Batch(names, columns, part.ids, times, answered))
            done += FULL
        if done < rows:
            self._rows[names, answered] = [whole.rows(slice(done, None))]

    def requests(self, codes: NDArray[np.float64], at: NDArray[np.float64]) -> None:
        """Record requests and their times: ``codes`` are 0 for one that was decoded, NaN for one
        that needs not be, and above 0 for one that could not be."""
        there = ~np.isnan(codes)
        broken = codes[there] > 0.0
        if broken.any():
            # They have no rows, and yet there is traffic.
            self.silence.arrived(at[there][broken])
        self.quality.add_requests(broken.astype(np.float64).tolist())

    def flush(self) -> None:
        """Evaluate all buffered rows."""
        for names, answered in sorted(self._rows):
            self._evaluate_rows(names, answered, least=1)

    def evaluate(self, batch: Batch) -> None:
        """Evaluate a batch, in the order of its rows."""
        encoder = self.encoder
        encoded = encoder.encode(batch)
        plain = encoder.scores(encoded.codes)
        times = np.array(batch.times, np.float64)
        self.silence.arrived(times)
        scores = self._without_cycle(plain, times)
        broken = self.quality.find(encoded, batch)
        self.examples.add_broken(encoded.broken, encoder.names, batch.ids)
        self.examples.add_unseen(encoded.unseen, encoder.names)
        if self.dependence.update(scores):
            self._widen()
        rows = _Rows(encoded.codes, encoded.raw, plain, scores, broken, times, batch.ids)
        if broken is None:
            self.rates.skip(encoded.rows)
        failing = self.rates.evidence() if broken is None else self.rates.update(broken)
        self._update(rows, self.cusum.update(scores), failing)

    def flush_joint(self) -> None:
        """Evaluate the rows that the joint detectors have buffered."""
        if self.together is not None:
            self.together.flush()
            self.together.recover(self.options.smallest_shift / 2.0)

    def _update(self, rows: _Rows, shifted: Evidence, failing: Evidence) -> None:
        """Update all detectors, windows and examples with evaluated rows."""
        if self.together is not None:
            self.together.update(rows.plain)
        for index, detector in self.corroborators:
            detector.update(rows.scores[:, index], rows.times)
        if rows.broken is not None:
            self.violations += np.nansum(rows.broken, axis=0).astype(np.int64)
        self.history.update(rows.scores, rows.times)
        self.shifts.update(shifted, rows.scores, self.rows)
        if rows.broken is None:
            self.broken.fade(failing, len(rows.ids), self.rows)
        else:
            self.broken.update(failing, rows.broken, self.rows)
        self._rise(rows.broken, rows.times)
        if self.shifts.alarmed.any():
            alarmed, direction = self.shifts.alarmed, self.shifts.direction
            self.examples.add_furthest(rows.scores, alarmed, direction, rows.ids)
        self.categories.update(rows.codes, rows.times, rows.ids)
        self.window.add(rows.codes)
        self.segments.update(rows.codes, rows.scores, rows.times, rows.ids)
        self.runs.update(rows.raw)
        self.rows += len(rows.ids)
        self._recover()

    def _without_cycle(
        self, plain: NDArray[np.float64], times: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        scores = plain
        if self.cycle is not None:
            scores = plain.copy()
            scores[:, self._cyclic] = self.cycle.subtract(plain[:, self._cyclic], times)
        located = scores[:, : len(self.encoder.series)]
        moved = self.seasons.update(located, times)
        if moved is located:
            return scores
        return np.concatenate([moved, scores[:, len(self.encoder.series) :]], axis=1)

    def _restored(self) -> None:
        self._widen()

    def _widen(self) -> None:
        """Raise thresholds where live rows depend on each other more than the baseline's."""
        inflation = self.dependence.long_run()
        more = inflation.estimate > _MORE * self._long_runs
        widened = np.ones(len(more))
        if more.any():
            # In steps, so that thresholds change seldom.
            widened[more] = 2.0 ** (np.ceil(2.0 * np.log2(inflation.upper[more])) / 2.0)
        if np.array_equal(widened, self._widened):
            return
        self._widened = widened
        self.cusum.widen(widened)
        inflated = self.inflation
        self.categories.widen(inflated[: len(self.encoder.series)])
        self.segments.widen(widened)
        if self.together is not None:
            self.together.widen(float(inflated[self.together.indices].max(initial=1.0)))

    @property
    def inflation(self) -> NDArray[np.float64]:
        """Variance of long sums of each location and spread over that of independent rows, (2 S,),
        as the slowest chart sees it. A change is found later by this factor."""
        result: NDArray[np.float64] = np.maximum(
            self._inflated.max(axis=1, initial=1.0), self._widened
        )
        return result

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumptions of the run length, as texts."""
        series = len(self.encoder.series)
        factors = self.inflation.reshape(2, series).max(axis=0)
        learned = [
            n for n, one in zip(self.encoder.series, self.seasons.learned, strict=True) if one
        ]
        return assumptions(
            dict(zip(self.encoder.series, factors.tolist(), strict=True)),
            seasonal=self.cycle is not None,
            learned=learned,
            unwatched=self.unwatched,
        )

    @property
    def unwatched(self) -> dict[str, str]:
        """What features look like that are not compared with the baseline, by name."""
        pairs = zip(self.encoder.columns, self.encoder.unwatched, strict=True)
        return {c.name: c.extra["looks_like"] for c, unwatched in pairs if unwatched}

    def _rise(self, broken: NDArray[np.float64] | None, times: NDArray[np.float64]) -> None:
        """Record when rates rose above their usual level."""
        above = self.broken.recent > self.rates.null
        self.rising[~above] = np.nan
        if broken is None:
            return
        for index in np.flatnonzero(above & np.isnan(self.rising)):
            self.rising[index] = times[int(np.argmax(np.nan_to_num(broken[:, index]) > 0.0))]

    def _recover(self) -> None:
        """Reset the detectors of series and rules that have recovered."""
        half = self.options.smallest_shift / 2.0
        recovered = self.shifts.recovered(np.zeros(1), half)
        if recovered.any():
            self.cusum.reset(recovered)
            self.history.reset(recovered)
            self.examples.forget(recovered)
            for index in [p for p in self.began if recovered[p]]:
                del self.began[index]
        nulls = self.rates.null
        again = self.broken.recovered(nulls, np.zeros(len(nulls)))
        if again.any():
            self.rates.reset(again)

    def change(self, index: int) -> Estimate:
        """Since when, and by how much, the location or spread ``index`` (among 2 S) has changed.

        The time is fixed at the first call after some rows, since the history gets coarser with
        age.
        """
        estimate = self.history.estimate(index)
        began = self.began.get(index)
        if began is not None:
            return replace(estimate, time=began)
        if self.rows - self.shifts.at[index] >= FULL and estimate.time is not None:
            self.began[index] = estimate.time
        return estimate

    def drifted(self) -> NDArray[np.bool_]:
        """Which series have changed in location, spread or composition: (S,)."""
        drifted: NDArray[np.bool_] = np.any(self.shifts.alarmed.reshape(2, -1), axis=0)
        drifted[self.categories.indices] |= self.categories.alarmed
        return drifted

    def stuck(self) -> NDArray[np.bool_]:
        """Columns that are stuck at one value: (C,)."""
        stuck: NDArray[np.bool_] = self.runs.length > self.longest
        return stuck

    @property
    def newest(self) -> float:
        """Unix time of the newest request; 0 before the first one."""
        return self.silence.newest

    def silent_for(self, now: float) -> float | None:
        """Seconds without traffic, when that is longer than usual or than the configured limit;
        else None."""
        silent = now - self.newest
        limit = self.options.stale
        if limit is not None:
            return silent if self.rows and silent > limit else None
        known = self.rows >= _KNOWN
        return silent if known and self.silence.longer_than_usual(now) else None

    def _before_dump(self) -> None:
        """Evaluate all buffered rows first."""
        self.flush()
        self.flush_joint()

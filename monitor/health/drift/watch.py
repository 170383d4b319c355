"""One model against its baseline: rows in, what is wrong out.

The order of the rooms: encode → quality rules → drift → signals. Nothing here reads a clock; rows
bring their times, and the caller says what time it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.baseline.repeats import Runs
from understudy.monitor.baseline.rules import RateRule
from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.detectors.change_point import ChangePoint, Estimate
from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import Times
from understudy.monitor.detectors.seasons import Profile
from understudy.monitor.evidence.batch import ColumnBatch, concatenate
from understudy.monitor.health.corroborate import Corroborator, corroborators_of
from understudy.monitor.health.drift import limits
from understudy.monitor.health.drift.broken import BrokenRows
from understudy.monitor.health.drift.categories import Categories, of_categories
from understudy.monitor.health.drift.segments import Segments
from understudy.monitor.health.drift.together import JointDrift
from understudy.monitor.health.drift.window import Window
from understudy.monitor.health.examples import Examples
from understudy.monitor.health.latches import Latches
from understudy.monitor.health.options import Options
from understudy.shadow.state import SAME, Config, Count, Saved, Stateful, Transient

_MOST_LAYOUTS = 16
_LONGEST_GAP = 86400.0
_GAPS = 5.0
_AT_LEAST = 300.0
_KNOWN = 1000
_SHARES = {"drift": 0.4, "quality": 0.3, "repeats": 0.1, "together": 0.05, "segments": 0.15}
"""Of the false alarms that a model may have."""


FULL = 256
"""Rows that are evaluated together at the most."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows as they were evaluated: ``codes`` (n, S), ``raw`` (n, C), ``plain`` and ``scores``
    (n, 2 S), the second ones without the cycle, ``broken`` (n, R), None for all zeros."""

    codes: NDArray[np.int64]
    raw: NDArray[np.float64]
    plain: NDArray[np.float64]
    scores: NDArray[np.float64]
    broken: NDArray[np.float64] | None
    times: NDArray[np.float64]
    ids: list[bytes]


class ModelWatch(Stateful):
    """``baseline`` says what is usual. Everything is bounded, whatever comes."""

    baseline: Config[Baseline]
    options: Config[Options]
    encoder: Config[Encoder]
    cycle: Config[Profile | None]
    """Of the series' hours, where the baseline has them."""
    _cyclic: Config[list[int]]
    """The places of these series."""
    errors: Config[list[str]]
    """Why a declared detector does not run."""
    rules: Config[list[RateRule]]
    assumptions: Config[tuple[str, ...]]
    longest: Config[NDArray[np.int64]]
    cusum: Saved[CusumUnion]
    together: Saved[JointDrift | None]
    corroborators: Saved[list[tuple[Annotated[int, SAME], Corroborator]]]
    """With the place of its series each."""
    rates: Saved[SrDetector]
    history: Saved[ChangePoint]
    began: Saved[dict[int, float]]
    """Since when (unix time) a series has drifted, as soon as that is known well."""
    rising: Saved[Times]
    """Since when (unix time) each rule is broken more often than usual; NaN: it is not."""
    shifts: Saved[Latches]
    broken: Saved[Latches]
    runs: Saved[Runs]
    violations: Saved[NDArray[np.int64]]
    """How many rows have broken each rule."""
    window: Saved[Window]
    categories: Saved[Categories]
    segments: Saved[Segments]
    rows: Saved[Count]
    newest: Saved[float]
    """Time of the newest row."""
    longest_gap: Saved[float]
    """Longest stretch without rows so far, in seconds."""
    quality: Saved[BrokenRows]
    examples: Transient[Examples]
    _rows: Transient[dict[tuple[tuple[str, ...], bool], list[ColumnBatch]]]

    def __init__(self, baseline: Baseline, options: Options) -> None:
        self.baseline = baseline
        self.options = options
        encoder = self.encoder = Encoder(baseline)
        series, columns = len(encoder.series), len(encoder.columns)
        length = options.run_length / _SHARES["drift"]
        drift = limits.run_lengths(series, length, of_categories(encoder))
        slacks = options.slacks
        self.cycle, self._cyclic = limits.cycle_of(encoder, baseline)
        inflated = limits.inflations(encoder, self.cycle, self._cyclic)
        self.cusum = CusumUnion(
            2 * series,
            drift,
            limits.baseline_rows(encoder),
            slacks,
            limits.tail_factors(encoder, slacks),
            inflated,
            refine=True,
        )
        self.together = self._many_at_once(inflated)
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
        self.assumptions = limits.assumptions_of(encoder, self.cycle)
        self.runs = Runs(columns)
        repeats = options.run_length / _SHARES["repeats"] * max(1, columns)
        self.longest = np.array(
            [limits.longest_run(encoder, number, repeats) for number in range(columns)], np.int64
        )
        self.violations = np.zeros(len(self.rules), np.int64)
        self.window = Window(encoder, options.window)
        each = np.full(series, length * max(series, 1) / limits.COMPOSITION)
        self.categories = Categories(encoder, self.window, each, inflated[:series])
        self.segments = Segments(
            encoder, options, options.run_length / _SHARES["segments"], inflated
        )
        self.rows = 0
        self.newest = 0.0
        self.longest_gap = 0.0
        self.examples = Examples()
        self._rows = {}
        self.quality = BrokenRows(encoder, self.rules)

    def _many_at_once(self, inflated: NDArray[np.float64]) -> JointDrift | None:
        if self.baseline.together is None:
            return None
        known = JointProfile.from_dict(self.baseline.together)
        if not set(known.series) <= set(self.encoder.series):
            return None
        places = [self.encoder.series.index(name) for name in known.series]
        length = self.options.run_length / _SHARES["together"]
        wide = float(inflated[places].max(initial=1.0))
        return JointDrift(known, places, length, self.options.slacks, self.options.kernel, wide)

    # Rows ---------------------------------------------------------------------------------------

    def take_rows(self, batch: ColumnBatch, names: tuple[str, ...], answered: bool) -> None:
        """Take rows of the columns ``names``, which are those of the batch from the second one on;
        the first one is the time at which a request began."""
        if (names, answered) not in self._rows and len(self._rows) >= _MOST_LAYOUTS:
            self.flush()
        waiting = self._rows.setdefault((names, answered), [])
        waiting.append(batch)
        if sum(map(len, waiting)) >= FULL:
            self._evaluate_rows(names, answered, least=FULL)

    def _evaluate_rows(self, names: tuple[str, ...], answered: bool, least: int) -> None:
        """Evaluate the waiting rows in batches, as long as there are ``least`` of them."""
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

    def requests(self, broken: Sequence[float]) -> None:
        """Say of requests whether they could be read: 1 for one that could not."""
        self.quality.unread += broken

    def flush(self) -> None:
        """Evaluate what has come so far."""
        for names, answered in sorted(self._rows):
            self._evaluate_rows(names, answered, least=1)

    def evaluate(self, batch: Batch) -> None:
        """Evaluate a batch, in the order of its rows."""
        encoder = self.encoder
        found = encoder.encode(batch)
        plain = encoder.scores(found.codes)
        times = np.array(batch.times, np.float64)
        self._arrived(float(times.max()))
        scores = self._without_cycle(plain, times)
        broken = self.quality.find(found, batch)
        self.examples.keep_broken(found.broken, encoder.names, batch.ids)
        noted = _Rows(found.codes, found.raw, plain, scores, broken, times, batch.ids)
        if broken is None:
            self.rates.skip(found.rows)
        failing = self.rates.evidence() if broken is None else self.rates.update(broken)
        self._note(noted, self.cusum.update(scores), failing)

    def settle(self) -> None:
        """Evaluate what is done for many rows together."""
        if self.together is not None:
            self.together.flush()
            self.together.recover(self.options.smallest_shift / 2.0)

    def _note(self, rows: _Rows, shifted: Evidence, failing: Evidence) -> None:
        """Everything about rows but whether they are an alarm."""
        if self.together is not None:
            self.together.update(rows.plain)
        for place, detector in self.corroborators:
            detector.update(rows.scores[:, place], rows.times)
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
            self.examples.keep_furthest(rows.scores, alarmed, direction, rows.ids)
        self.categories.update(rows.codes, rows.times, rows.ids)
        self.window.add(self.encoder.counted(rows.codes), len(rows.ids))
        self.segments.update(rows.codes, rows.scores, rows.times, rows.ids)
        self.runs.update(rows.raw)
        self.rows += len(rows.ids)
        self._recover()

    def _arrived(self, latest: float) -> None:
        if self.newest:
            self.longest_gap = min(max(self.longest_gap, latest - self.newest), _LONGEST_GAP)
        self.newest = max(self.newest, latest)

    def _without_cycle(
        self, plain: NDArray[np.float64], times: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self.cycle is None:
            return plain
        scores = plain.copy()
        scores[:, self._cyclic] = self.cycle.subtract(plain[:, self._cyclic], times)
        return scores

    def _rise(self, broken: NDArray[np.float64] | None, times: NDArray[np.float64]) -> None:
        """Remember when the rates that are above usual began to be."""
        above = self.broken.recent > self.rates.null
        self.rising[~above] = np.nan
        if broken is None:
            return
        for place in np.flatnonzero(above & np.isnan(self.rising)):
            self.rising[place] = times[int(np.argmax(np.nan_to_num(broken[:, place]) > 0.0))]

    def _recover(self) -> None:
        """Let go of what is as it used to be."""
        half = self.options.smallest_shift / 2.0
        recovered = self.shifts.recovered(np.zeros(1), half)
        if recovered.any():
            self.cusum.reset(recovered)
            self.history.reset(recovered)
            self.examples.forget(recovered)
            for place in [p for p in self.began if recovered[p]]:
                del self.began[place]
        nulls = self.rates.null
        again = self.broken.recovered(nulls, np.zeros(len(nulls)))
        if again.any():
            self.rates.reset(again)

    def change(self, place: int) -> Estimate:
        """Since when, and by how much, a location or spread has changed.

        The moment is that of the first look after some rows: a history gets coarser with age.
        """
        found = self.history.estimate(place)
        began = self.began.get(place)
        if began is not None:
            return replace(found, time=began)
        if self.rows - self.shifts.at[place] >= FULL and found.time is not None:
            self.began[place] = found.time
        return found

    def drifted(self) -> NDArray[np.bool_]:
        """Which series have changed in location, spread or composition: (S,)."""
        found: NDArray[np.bool_] = np.any(self.shifts.alarmed.reshape(2, -1), axis=0)
        found[self.categories.places] |= self.categories.alarmed
        return found

    def stuck(self) -> NDArray[np.bool_]:
        """Columns that have had the same value for too long: (C,)."""
        stuck: NDArray[np.bool_] = self.runs.length > self.longest
        return stuck

    def silent_for(self, now: float) -> float | None:
        """Seconds without traffic, when that is longer than the gaps so far explain; else None."""
        silent = now - self.newest
        limit = self.options.stale
        if limit is None:
            if self.rows < _KNOWN:
                return None
            limit = max(_AT_LEAST, _GAPS * self.longest_gap)
        return silent if self.rows and silent > limit else None

    def _before_dump(self) -> None:
        """What waits to be evaluated is evaluated first."""
        self.flush()
        self.settle()

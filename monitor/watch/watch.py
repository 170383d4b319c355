"""One model against its baseline: rows in, what is wrong out.

The order of the rooms: encode → quality rules → drift → signals. Nothing here reads a clock; rows
bring their times, and the caller says what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import adler32, crc32

import numpy as np
from numpy.typing import NDArray

from monitor.baseline.encoder import Batch, Encoded, Encoder
from monitor.baseline.model import Baseline
from monitor.baseline.together import Together
from monitor.config.detectors import Detector
from monitor.drift import packed
from monitor.drift.change_point import ChangePoint, Estimate
from monitor.drift.cusum import CusumUnion
from monitor.drift.edetector import SrDetector
from monitor.drift.seasons import Profile
from monitor.errors import MissingExtraError
from monitor.evaluation.columns import Cells
from monitor.evaluation.sheets import Sheet, concatenated
from monitor.quality.repeats import Repeats, Runs
from monitor.quality.rules import Rule
from monitor.watch import limits
from monitor.watch.corroborate import Corroborator
from monitor.watch.latches import Latches
from monitor.watch.segments import Segments
from monitor.watch.together import ManyAtOnce
from monitor.watch.window import Window

FULL = 256
"""Rows that are evaluated at once, unless the clock says that it is time."""
_MOST_LAYOUTS = 16
_LONGEST_GAP = 86400.0
_GAPS = 5.0
_AT_LEAST = 300.0
_KNOWN = 1000
_SHARES = {"drift": 0.4, "quality": 0.3, "repeats": 0.1, "together": 0.05, "segments": 0.15}
"""Of the false alarms that a model may have."""


@dataclass(frozen=True, slots=True)
class Options:
    """``run_length`` in rows, of everything together; ``smallest_shift`` in standard deviations of
    the ranks; ``window`` in rows; ``segments`` are names of features."""

    run_length: float = 1_000_000.0
    smallest_shift: float = 0.25
    smallest_rate: float = 0.005
    window: int = 1000
    segments: tuple[str, ...] = ()
    max_segments: int = 20
    stale: float | None = None
    kernel: bool = False
    detectors: tuple[Detector, ...] = ()

    @property
    def slacks(self) -> tuple[float, ...]:
        """Of the CUSUMs: half, all and twice of the smallest shift."""
        return tuple(self.smallest_shift * factor for factor in (0.5, 1.0, 2.0))


class ModelWatch:
    """``baseline`` says what is usual. Everything is bounded, whatever comes."""

    def __init__(self, baseline: Baseline, options: Options) -> None:
        self.baseline = baseline
        self.options = options
        encoder = self.encoder = Encoder(baseline)
        series, columns = len(encoder.series), len(encoder.columns)
        drift = options.run_length / _SHARES["drift"] * max(1, 2 * series)
        slacks = options.slacks
        self.cycle: Profile | None = None
        """Of the series' hours, where the baseline has them."""
        self._cyclic: list[int] = []
        if baseline.seasons is not None:
            self._follow(baseline.seasons)
        inflated = limits.inflations(encoder, self.cycle, self._cyclic)
        self.cusum = CusumUnion(
            2 * series,
            drift,
            limits.baseline_rows(encoder),
            slacks,
            limits.tail_factors(encoder, slacks),
            inflated,
        )
        self.together = self._many_at_once(inflated)
        self.corroborators: list[tuple[int, Corroborator]] = []
        self.errors: list[str] = []
        """Why a declared detector does not run."""
        for declared in options.detectors:
            self._corroborate(declared)
        self.rules = limits.rate_rules(baseline, encoder, options.smallest_rate)
        nulls = np.array([rule.null for rule in self.rules])
        quality = options.run_length / _SHARES["quality"] * max(1, len(self.rules))
        self.rates = SrDetector(nulls, np.full(len(nulls), quality))
        self.history = ChangePoint(2 * series)
        self.began: dict[int, float] = {}
        """Since when (unix time) a series has drifted, as soon as that is known well."""
        self.rising: NDArray[np.float64] = np.full(len(self.rules), np.nan)
        """Since when (unix time) each rule is broken more often than usual; NaN: it is not."""
        self.shifts = Latches(2 * series)
        self.broken = Latches(len(self.rules))
        self.assumptions = limits.assumptions_of(encoder, self.cycle)
        self.runs = Runs(columns)
        repeats = options.run_length / _SHARES["repeats"] * max(1, columns)
        self.longest = np.array(
            [limits.longest_run(encoder, number, repeats) for number in range(columns)], np.int64
        )
        self.violations: NDArray[np.int64] = np.zeros(len(self.rules), np.int64)
        """How many rows have broken each rule."""
        self.repeats = Repeats()
        self.window = Window(encoder, options.window)
        self.segments = Segments(
            encoder, options, options.run_length / _SHARES["segments"], inflated
        )
        self.rows = 0
        self.newest = 0.0
        """Time of the newest row."""
        self.longest_gap = 0.0
        """Longest stretch without rows so far, in seconds."""
        self.added: dict[str, int] = {}
        """Columns that the baseline does not know, and how many rows had them."""
        self.examples: dict[Rule, dict[str, list[str]]] = {}
        self.furthest: dict[int, list[str]] = {}
        """Of a location or spread that has drifted: rows that are far out the way it went."""
        self._places = {(rule.rule, rule.feature): n for n, rule in enumerate(self.rules)}
        self._of_answers = [
            n
            for n, rule in enumerate(self.rules)
            if rule.feature and not encoder.is_feature[encoder.names.index(rule.feature)]
        ]
        self._pending: dict[tuple[str, ...], Batch] = {}
        self._rows: dict[tuple[tuple[str, ...], bool], list[Sheet]] = {}
        self._undecodable: list[float] = []

    def _follow(self, seasons: Mapping[str, Any]) -> None:
        """Subtract what the hour explains, of the series that are there."""
        places = {name: place for place, name in enumerate(self.encoder.series)}
        names: list[str] = seasons["series"]
        known = [number for number, name in enumerate(names) if name in places]
        if not known:
            return
        whole = Profile.from_dict(seasons)
        kept = [*known, *(number + len(names) for number in known)]
        self.cycle = Profile(whole.means[:, kept], whole.scale[kept], whole.inflation[kept])
        located = [places[names[number]] for number in known]
        self._cyclic = [*located, *(place + len(places) for place in located)]

    def _many_at_once(self, inflated: NDArray[np.float64]) -> ManyAtOnce | None:
        if self.baseline.together is None:
            return None
        known = Together.from_dict(self.baseline.together)
        if not set(known.series) <= set(self.encoder.series):
            return None
        places = [self.encoder.series.index(name) for name in known.series]
        length = self.options.run_length / _SHARES["together"]
        wide = float(inflated[places].max(initial=1.0))
        return ManyAtOnce(known, places, length, self.options.slacks, self.options.kernel, wide)

    def _corroborate(self, declared: Detector) -> None:
        if declared.series not in self.encoder.series:
            self.errors.append(f"{declared.kind}: the baseline has no series {declared.series!r}")
            return
        place = self.encoder.series.index(declared.series)
        rows = float(limits.baseline_rows(self.encoder)[place])
        try:
            self.corroborators.append((place, Corroborator(declared, declared.series, rows)))
        except (ValueError, MissingExtraError) as error:
            self.errors.append(str(error))

    # Rows ---------------------------------------------------------------------------------------

    def take(
        self,
        features: tuple[str, ...],
        values: Sequence[Any],
        predictions: tuple[str, ...],
        answers: Sequence[Any],
        request_id: bytes,
        started: float,
        rows: int,
    ) -> None:
        """Take the rows of a request: row-major cells of its features and of its answer."""
        answered = bool(predictions) and len(answers) == rows * len(predictions)
        names = (*features, *predictions) if answered else features
        batch = self._pending.get(names)
        if batch is None:
            if len(self._pending) >= _MOST_LAYOUTS:
                self.flush()
            batch = self._pending[names] = Batch(names, [], [], [], answered)
        if rows == 1 or not answered:
            batch.values += values
            if answered:
                batch.values += answers
        else:
            wide, more = len(features), len(predictions)
            for row in range(rows):
                batch.values += values[row * wide : (row + 1) * wide]
                batch.values += answers[row * more : (row + 1) * more]
        if rows == 1:
            batch.ids.append(request_id)
            batch.times.append(started)
        else:
            batch.ids += [request_id] * rows
            batch.times += [started] * rows
        if len(batch.ids) >= FULL:
            del self._pending[names]
            self.evaluate(batch)

    def take_rows(self, sheet: Sheet, names: tuple[str, ...], answered: bool) -> None:
        """Take rows of the columns ``names``, which are those of the sheet from the second one on;
        the first one is the time at which a request began."""
        if (names, answered) not in self._rows and len(self._rows) >= _MOST_LAYOUTS:
            self.flush()
        waiting = self._rows.setdefault((names, answered), [])
        waiting.append(sheet)
        if sum(map(len, waiting)) >= FULL:
            self._evaluate_rows(names, answered, least=FULL)

    def _evaluate_rows(self, names: tuple[str, ...], answered: bool, least: int) -> None:
        """Evaluate the waiting rows in batches, as long as there are ``least`` of them."""
        waiting = self._rows.pop((names, answered))
        whole = concatenated(waiting)
        done = 0
        while len(whole) - done >= least:
            part = whole.rows(slice(done, done + FULL))
            done += len(part)
            cells = Cells(part.columns[1 : 1 + len(names)], len(part))
            started = part.columns[0]
            assert isinstance(started, np.ndarray)
            self.evaluate(Batch(names, cells, part.ids, started.astype(np.float64), answered))
            if not len(part):
                break
        if done < len(whole):
            self._rows[names, answered] = [whole.rows(slice(done, None))]

    def undecodable(self, broken: bool) -> None:
        """Say of a request whether it could be read."""
        self._undecodable.append(float(broken))

    def requests(self, broken: Sequence[float]) -> None:
        """The same of many requests: 1 for one that could not be read."""
        self._undecodable += broken

    def flush(self) -> None:
        """Evaluate what has come so far."""
        for names, answered in sorted(self._rows):
            self._evaluate_rows(names, answered, least=1)
        pending, self._pending = self._pending, {}
        for batch in pending.values():
            self.evaluate(batch)
        if self.together is not None:
            self.together.flush()
            self.together.recover(self.options.smallest_shift / 2.0)

    def evaluate(self, batch: Batch) -> None:
        """Evaluate a batch, in the order of its rows."""
        encoder = self.encoder
        found = encoder.encode(batch)
        scores = encoder.scores(found.codes)
        times = np.array(batch.times, np.float64)
        latest = float(times.max())
        if self.newest:
            self.longest_gap = min(max(self.longest_gap, latest - self.newest), _LONGEST_GAP)
        self.newest = max(self.newest, latest)
        if self.together is not None:
            self.together.update(scores)
        if self.cycle is not None:
            scores = scores.copy()
            scores[:, self._cyclic] = self.cycle.subtract(scores[:, self._cyclic], times)
        for place, detector in self.corroborators:
            detector.update(scores[:, place], times)
        shifted = self.cusum.update(scores)
        broken = self._broken(found, batch)
        failing = self.rates.update(broken)
        self.violations += np.nansum(broken, axis=0).astype(np.int64)
        self.history.update(scores, times)
        self.shifts.update(shifted, scores, self.rows)
        self.broken.update(failing, broken, self.rows)
        self._rise(broken, times)
        self._keep_examples(found, batch)
        if self.shifts.alarmed.any():
            self._keep_furthest(scores, batch)
        self.window.add(encoder.counted(found.codes), found.rows)
        self.segments.update(found.codes, scores)
        self.runs.update(found.raw)
        self.rows += found.rows
        self._recover()

    def _broken(self, found: Encoded, batch: Batch) -> NDArray[np.float64]:
        """Which rules each row breaks: (n, R); NaN where a rule says nothing."""
        broken = np.zeros((found.rows, len(self.rules)))
        for rule, mask in found.broken.items():
            for column in np.flatnonzero(mask.any(0)):
                of_column = self._places.get((rule, self.encoder.names[column]))
                if of_column is not None:
                    broken[:, of_column] = mask[:, column]
        if not batch.answered:
            broken[:, self._of_answers] = np.nan
        duplicate = self._places.get((Rule.DUPLICATE, ""))
        if duplicate is not None:
            width = len(batch.names)
            cells = np.ascontiguousarray(found.raw[:, self.encoder.is_feature])
            data, size = cells.tobytes(), cells.shape[1] * 8
            if size and width:
                # The same in every process, since it is part of the state.
                keys = [
                    crc32(data[n : n + size]) << 32 | adler32(data[n : n + size])
                    for n in range(0, len(data), size)
                ]
                broken[:, duplicate] = self.repeats.update(keys)
        if found.added:
            broken[:, self._places[Rule.ADDED, ""]] = 1.0
            for name in found.added[:20]:
                if name in self.added or len(self.added) < 100:
                    self.added[name] = self.added.get(name, 0) + found.rows
        if self._undecodable:
            place = self._places[Rule.UNDECODABLE, ""]
            broken[:, place] = np.nan
            # Requests, not rows: they take the places of rows while there are any.
            some = self._undecodable[: found.rows]
            broken[: len(some), place] = some
            del self._undecodable[: len(some)]
        return broken

    def _keep_examples(self, found: Encoded, batch: Batch) -> None:
        for rule, mask in found.broken.items():
            of_rule = self.examples.setdefault(rule, {})
            for column in np.flatnonzero(mask.any(0)):
                ids = of_rule.setdefault(self.encoder.names[column], [])
                newest = batch.ids[int(np.flatnonzero(mask[:, column])[-1])].decode("latin-1")
                if newest not in ids:
                    ids.append(newest)
                    del ids[:-5]

    def _keep_furthest(self, scores: NDArray[np.float64], batch: Batch) -> None:
        for place in np.flatnonzero(self.shifts.alarmed).tolist():
            column = scores[:, place] * (1.0 if self.shifts.direction[place] >= 0 else -1.0)
            if np.isfinite(column).any():
                ids = self.furthest.setdefault(place, [])
                newest = batch.ids[int(np.nanargmax(column))].decode("latin-1")
                if newest not in ids:
                    ids.append(newest)
                    del ids[:-5]

    def _rise(self, broken: NDArray[np.float64], times: NDArray[np.float64]) -> None:
        """Remember when the rates that are above usual began to be."""
        above = self.broken.recent > self.rates.null
        self.rising[~above] = np.nan
        for place in np.flatnonzero(above & np.isnan(self.rising)):
            self.rising[place] = times[int(np.argmax(np.nan_to_num(broken[:, place]) > 0.0))]

    def _recover(self) -> None:
        """Let go of what is as it used to be."""
        half = self.options.smallest_shift / 2.0
        recovered = self.shifts.recovered(np.zeros(1), half)
        if recovered.any():
            self.cusum.reset(recovered)
            self.history.reset(recovered)
            for kept in (self.began, self.furthest):
                for place in [p for p in kept if recovered[p]]:
                    del kept[place]
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

    # State --------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what waits to be evaluated is evaluated first."""
        self.flush()
        return {
            "rows": self.rows,
            "newest": self.newest,
            "longest_gap": self.longest_gap,
            "cusum": self.cusum.to_dict(),
            "rates": self.rates.to_dict(),
            "history": self.history.to_dict(),
            "shifts": self.shifts.to_dict(),
            "broken": self.broken.to_dict(),
            "runs": self.runs.to_dict(),
            "window": self.window.to_dict(),
            "together": self.together.to_dict() if self.together is not None else None,
            "detectors": [detector.to_dict() for _, detector in self.corroborators],
            "segments": self.segments.to_dict(),
            "repeats": self.repeats.to_dict() if packed.exact() else None,
            "undecodable": self._undecodable,
            "examples": {
                str(rule): {name: list(ids) for name, ids in of.items()}
                for rule, of in self.examples.items()
            }
            if packed.exact()
            else None,
            "furthest": [[place, ids] for place, ids in self.furthest.items()],
            "began": [[place, at] for place, at in self.began.items()],
            "added": self.added,
            "violations": self.violations.tolist(),
            "rising": [None if np.isnan(t) else round(t, 3) for t in self.rising.tolist()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state of the same baseline and options.

        Raises KeyError, TypeError or ValueError for another shape.
        """
        self.cusum.restore(state["cusum"])
        self.rates.restore(state["rates"])
        self.history.restore(state["history"])
        rising = [np.nan if t is None else t for t in state["rising"]]
        self.rising = np.array(rising, np.float64).reshape(len(self.rules))
        self.shifts.restore(state["shifts"])
        self.broken.restore(state["broken"])
        self.runs.restore(state["runs"])
        self.window.restore(state["window"])
        self.segments.restore(state["segments"])
        if self.together is not None:
            self.together.restore(state["together"])
        for (_, detector), data in zip(self.corroborators, state["detectors"], strict=True):
            detector.restore(data)
        if state.get("repeats") is not None:
            self.repeats.restore(state["repeats"])
        self._undecodable = [float(one) for one in state.get("undecodable", ())]
        for rule, of in (state.get("examples") or {}).items():
            self.examples[Rule(rule)] = {str(name): list(ids) for name, ids in of.items()}
        self.furthest = {int(place): list(ids) for place, ids in state.get("furthest", ())}
        self.violations = np.array(state["violations"], np.int64).reshape(len(self.rules))
        self.began = {int(place): float(at) for place, at in state["began"]}
        self.rows = int(state["rows"])
        self.newest = float(state["newest"])
        self.longest_gap = float(state["longest_gap"])
        self.added = {str(name): int(count) for name, count in state["added"].items()}

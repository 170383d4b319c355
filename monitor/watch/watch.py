"""One model against its baseline: rows in, what is wrong out.

The order of the rooms: encode → quality rules → drift → signals. Nothing here reads a clock; rows
bring their times, and the caller says what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.baseline.model import Baseline
from monitor.baseline.scores import tail_factor
from monitor.drift.change_point import ChangePoint, Estimate
from monitor.drift.cusum import CusumUnion
from monitor.drift.edetector import SrDetector, null_rate
from monitor.quality.repeats import Repeats, Runs, longest_by_chance
from monitor.quality.rules import BY_FEATURE, BY_ROW, RateRule, Rule
from monitor.watch.encoder import MISSING, Batch, Encoded, Encoder
from monitor.watch.latches import Latches
from monitor.watch.segments import Segments
from monitor.watch.window import Window

FULL = 256
"""Rows that are evaluated at once, unless the clock says that it is time."""
_MOST_LAYOUTS = 16
_LONGEST_GAP = 86400.0
_GAPS = 5.0
_AT_LEAST = 300.0
_KNOWN = 1000
_SHARES = {"drift": 0.4, "quality": 0.3, "repeats": 0.1, "segments": 0.2}
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


class ModelWatch:
    """``baseline`` says what is usual. Everything is bounded, whatever comes."""

    def __init__(self, baseline: Baseline, options: Options) -> None:
        self.baseline = baseline
        self.options = options
        encoder = self.encoder = Encoder(baseline)
        series, columns = len(encoder.series), len(encoder.columns)
        drift = options.run_length / _SHARES["drift"] * max(1, 2 * series)
        slacks = tuple(options.smallest_shift * f for f in (0.5, 1.0, 2.0))
        rows = np.array([_count(encoder, s) for s in range(series)] * 2, np.float64)
        factors = np.array(
            [
                [
                    max(tail_factor(table[s], shares, k), tail_factor(-table[s], shares, k))
                    for k in slacks
                ]
                for table in (encoder.location[:, :MISSING], encoder.spread[:, :MISSING])
                for s in range(series)
                for shares in (_shares(encoder.counts[s]),)
            ]
        ).reshape(2 * series, len(slacks))
        self.cusum = CusumUnion(
            2 * series, drift, baseline_rows=rows, slacks=slacks, factors=factors
        )
        self.rules = _rate_rules(baseline, encoder, options.smallest_rate)
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
        self.assumptions = _assumptions(encoder)
        self.runs = Runs(columns)
        repeats = options.run_length / _SHARES["repeats"] * max(1, columns)
        self.longest = np.array(
            [_longest(encoder, number, repeats) for number in range(columns)], np.int64
        )
        self.violations: NDArray[np.int64] = np.zeros(len(self.rules), np.int64)
        """How many rows have broken each rule."""
        self.repeats = Repeats()
        self.window = Window(encoder, options.window)
        self.segments = Segments(encoder, options, options.run_length / _SHARES["segments"])
        self.rows = 0
        self.newest = 0.0
        """Time of the newest row."""
        self.longest_gap = 0.0
        """Longest stretch without rows so far, in seconds."""
        self.added: dict[str, int] = {}
        """Columns that the baseline does not know, and how many rows had them."""
        self.examples: dict[Rule, dict[str, list[str]]] = {}
        self._places = {(rule.rule, rule.feature): n for n, rule in enumerate(self.rules)}
        self._of_answers = [
            n
            for n, rule in enumerate(self.rules)
            if rule.feature and not encoder.is_feature[encoder.names.index(rule.feature)]
        ]
        self._pending: dict[tuple[str, ...], Batch] = {}
        self._undecodable: list[float] = []

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

    def undecodable(self, broken: bool) -> None:
        """Say of a request whether it could be read."""
        self._undecodable.append(float(broken))

    def flush(self) -> None:
        """Evaluate what has come so far."""
        pending, self._pending = self._pending, {}
        for batch in pending.values():
            self.evaluate(batch)

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
        shifted = self.cusum.update(scores)
        broken = self._broken(found, batch)
        failing = self.rates.update(broken)
        self.violations += np.nansum(broken, axis=0).astype(np.int64)
        self.history.update(scores, times)
        self.shifts.update(shifted, scores, self.rows)
        self.broken.update(failing, broken, self.rows)
        self._rise(broken, times)
        self._keep_examples(found, batch)
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
                keys = [hash(data[n : n + size]) for n in range(0, len(data), size)]
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
            self.began = {place: at for place, at in self.began.items() if not recovered[place]}
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
            "segments": self.segments.to_dict(),
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
        self.violations = np.array(state["violations"], np.int64).reshape(len(self.rules))
        self.began = {int(place): float(at) for place, at in state["began"]}
        self.rows = int(state["rows"])
        self.newest = float(state["newest"])
        self.longest_gap = float(state["longest_gap"])
        self.added = {str(name): int(count) for name, count in state["added"].items()}


def _assumptions(encoder: Encoder) -> tuple[str, ...]:
    """What the guarantee rests on, where the baseline does not bear it out."""
    correlated = [
        f"{name} ({profile.lag1:.2g})"
        for name, profile in zip(encoder.series, encoder.profiles, strict=True)
        if profile.lag1 is not None and abs(profile.lag1) > 0.2
    ]
    if not correlated:
        return ()
    more = f" and {len(correlated) - 5} more" if len(correlated) > 5 else ""
    return (
        "rows follow each other without a memory; in the baseline these depend on the row before: "
        f"{', '.join(correlated[:5])}{more}, so that false alarms may be more frequent",
    )


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum()
    if total <= 0.0:
        uniform = np.zeros_like(counts)
        uniform[0] = 1.0
        return uniform
    shares: NDArray[np.float64] = counts / total
    return shares


def _count(encoder: Encoder, series: int) -> float:
    return max(float(encoder.counts[series].sum()), 1.0)


def _rate_rules(baseline: Baseline, encoder: Encoder, smallest: float) -> list[RateRule]:
    rules: list[RateRule] = []
    for column in encoder.columns:
        seen = {
            Rule.MISSING: column.missing + column.nan,
            Rule.TYPE: column.mistyped,
            Rule.INFINITE: column.infinite,
            Rule.RANGE: 0,
            Rule.UNSEEN: 0,
        }
        for rule in BY_FEATURE:
            if (rule is Rule.UNSEEN) == (column.kind in ("boolean", "categorical")) or rule in (
                Rule.MISSING,
                Rule.TYPE,
            ):
                rules.append(
                    RateRule(rule, column.name, null_rate(seen[rule], column.rows, smallest))
                )
    duplicates = baseline.duplicates
    for rule in BY_ROW:
        if rule is Rule.DUPLICATE and duplicates is None:
            continue
        count = round((duplicates or 0.0) * baseline.rows) if rule is Rule.DUPLICATE else 0
        rules.append(RateRule(rule, "", null_rate(count, baseline.rows, smallest)))
    return rules


def _longest(encoder: Encoder, number: int, rows: float) -> int:
    """Longest run of a column that is no news."""
    column = encoder.columns[number]
    first = encoder.first[number]
    shares = _shares(encoder.counts[first])
    if np.count_nonzero(shares) <= 1:
        return 2**62  # it never changed
    chance = longest_by_chance(float(shares @ shares), rows)
    return max(chance, 3 * int(column.extra.get("longest_run", 0)))

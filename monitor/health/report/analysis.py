"""The drift report as plain data.

Each column has one verdict, from the tests of :mod:`.verdicts`. The rows also go through the same
watch as live traffic, so the findings and their times are those of the service.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import erfc
from understudy.monitor.baseline.encoder import WIDTH, Batch
from understudy.monitor.baseline.files import Table
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.baseline.rules import WORDS
from understudy.monitor.detectors.distances import benjamini_hochberg, from_counts, psi_by_chance
from understudy.monitor.errors import BaselineError
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.drift.window import GROUPS
from understudy.monitor.health.options import Options
from understudy.monitor.health.report.current import Current
from understudy.monitor.health.report.histograms import histogram_of
from understudy.monitor.health.report.verdicts import (
    DISTANCE_GROUPS,
    SMALLEST_RATE,
    ColumnChecks,
    adjusted,
    checks_of,
    discounted,
    verdict_of,
)

Floats = NDArray[np.float64]
LEVEL = 0.01
"""Adjusted p-value from which a difference is more than chance."""
SMALLEST = 0.02
"""PSI beyond chance from which it is large enough to matter."""
_MOST_WINDOWS = 120
_DRAWN_WINDOWS = 60
_ROWS = 256
_BY_CHANCE = 0.05
"""Share of columns of which any window passes the line of chance, when nothing has changed."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """``time`` and ``ignore`` name columns; ``window`` is in rows, 0 for at most sixty windows
    of 256 rows or more.

    ``smallest`` is the PSI beyond chance that matters; ``segments`` are features whose values are
    tested separately; ``declared`` are features that are compared although they look like an
    identifier, a timestamp or a counter.

    >>> ReportOptions(ignore=frozenset({"id"})).smallest
    0.02
    """

    time: str | None = None
    ignore: frozenset[str] = frozenset()
    window: int = 0
    smallest: float = SMALLEST
    segments: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()


class Analysis:
    """Takes tables of the current rows, in order; :meth:`report` is the result.

    ``baseline`` is what the rows are compared with, ``options`` how. Raises BaselineError when none
    of the columns is in the baseline.

    >>> import numpy as np
    >>> from understudy import BaselineBuilder, ReportOptions
    >>> from understudy.monitor.baseline.files import Table
    >>> rng = np.random.default_rng(0)
    >>> builder = BaselineBuilder()
    >>> builder.add(["distance"], [rng.normal(0.0, 1.0, 2_000).tolist()])
    >>> analysis = Analysis(builder.finish(), ReportOptions())
    >>> analysis.take(Table({"distance": rng.normal(1.0, 1.0, 2_000).tolist()}))
    >>> analysis.report()["drifted"]
    ['distance']
    """

    def __init__(self, baseline: Baseline, options: ReportOptions) -> None:
        for name in options.declared:
            if name not in baseline.columns:
                raise BaselineError(f"the reference has no column {name!r} (--declare)")
        self._out = options.ignore | ({options.time} if options.time is not None else set())
        self.baseline = baseline = _without(baseline, self._out)
        self.options = options
        self.watch = ModelWatch(
            baseline, Options(segments=options.segments, declared=options.declared)
        )
        self.rows = 0
        self._current = Current(baseline)
        self._coarse = _coarse(self.watch)
        self._windows: list[tuple[float | None, int, NDArray[np.int64]]] = []
        self._findings: dict[str, tuple[int, dict[str, Any]]] = {}
        self._targets = {c.name for c in baseline.columns.values() if c.role == "target"}
        self._known = {c.name for c in baseline.columns.values()}
        self._predictions = [c.name for c in baseline.columns.values() if c.role == "prediction"]

    def take(self, table: Table) -> None:
        """Rows as columns."""
        cells = {n: column for n, column in table.columns.items() if n not in self._out}
        if not set(cells) & self._known:
            known = ", ".join(sorted(self._known))
            raise BaselineError(f"none of the columns is in the baseline, which has {known}")
        if not table.rows:
            return
        times = self._times(table)
        self._current.add(cells, times if self.options.time is not None else None)
        names = tuple(name for name in cells if name not in self._targets)
        columns = [cells[name] for name in names]
        answered = any(name in cells for name in self._predictions)
        for start in range(0, table.rows, _ROWS):
            parts = [column[start : start + _ROWS] for column in columns]
            rows = min(_ROWS, table.rows - start)
            ids = [b"row %d" % (self.rows + n + 1) for n in range(rows)]
            batch = Batch(names, parts, ids, times[start : start + rows], answered)
            self._add_windows(times[start : start + rows], self.watch.encoder.encode(batch).codes)
            self.watch.evaluate(batch)
            self.rows += rows
            for signal in signals_of(self.watch, "", "", times[start]):
                first = self._findings.get(signal.key, (self.rows, {}))[0]
                self._findings[signal.key] = (first, signal.to_dict())

    def _times(self, table: Table) -> list[float]:
        if self.options.time is None:
            return [float(self.rows + n) for n in range(table.rows)]
        cells = table.columns.get(self.options.time)
        if cells is None:
            raise BaselineError(f"no column {self.options.time!r} (--time)")
        result = []
        last = 0.0
        for cell in cells:
            moment = instant(cell)
            last = moment if moment is not None else last
            result.append(last)
        return result

    def _add_windows(self, times: list[float], codes: NDArray[np.int64]) -> None:
        """Count the codes (rows, S) of rows in the windows to which they belong."""
        size = self.options.window or _ROWS
        start = 0
        while start < len(times):
            if not self._windows or self._windows[-1][1] >= size:
                at = times[start] if self.options.time is not None else None
                empty = np.zeros((len(self._coarse), DISTANCE_GROUPS), np.int64)
                self._windows.append((at, 0, empty))
            first, have, counts = self._windows[-1]
            rows = min(size - have, len(times) - start)
            counted = self.watch.encoder.counted(codes[start : start + rows])
            coarse = np.zeros_like(counts)
            for number, groups in enumerate(self._coarse):
                weights = counted[number].astype(np.float64)
                coarse[number] = np.bincount(groups, weights, DISTANCE_GROUPS + 1)[:-1]
            self._windows[-1] = (first, have + rows, counts + coarse)
            start += rows
            if len(self._windows) > 2 * _MOST_WINDOWS:
                self._windows = _halved(self._windows)

    def report(self) -> dict[str, Any]:
        """As JSON. Raises BaselineError when there was no row."""
        if not self.rows:
            raise BaselineError("there is no row to compare")
        if not self.options.window:
            while len(self._windows) > _DRAWN_WINDOWS:
                self._windows = _halved(self._windows)
        self._current.finish()
        smallest, declared = self.options.smallest, self.options.declared
        checked = [
            checks_of(column, self._current, smallest, declared)
            for column in self.baseline.columns.values()
        ]
        adjusted(checked, benjamini_hochberg)
        timelines = self._timelines()
        columns, series = [], []
        for checks in checked:
            column = checks.before
            verdict = verdict_of(checks, LEVEL)
            columns.append(
                {
                    "column": column.name,
                    "role": column.role,
                    "kind": column.kind,
                    **verdict,
                    "looks_like": checks.looks_like or None,
                    "tests": [
                        {
                            "aspect": check.aspect,
                            "reason": check.reason,
                            "p_value": _number(check.p_value),
                            "adjusted_p_value": _number(check.adjusted),
                            "matters": check.matters,
                        }
                        for check in checks.checks
                    ],
                }
            )
            for one in checks.series:
                limit = psi_by_chance(one.p + one.q, float(one.p.sum()), float(one.q.sum()))
                series.append(
                    {
                        "series": one.name,
                        "column": column.name,
                        "psi": _number(one.psi),
                        "psi_by_chance": _number(limit),
                        "js": _number(one.js),
                        "hellinger": _number(one.hellinger),
                        "histogram": histogram_of(one),
                        "timeline": timelines.get(one.name),
                    }
                )
        columns.sort(key=lambda one: (not one["drifted"], _or_one(one["adjusted_p"])))
        performance = self._performance()
        drifted = [one["column"] for one in columns if one["drifted"]]
        joint = self._joint(drifted)
        return {
            "rows": self.rows,
            "baseline": {
                "rows": self.baseline.rows,
                "source": self.baseline.source,
                "created": self.baseline.created,
            },
            "drifted": drifted,
            "changed": bool(drifted or joint or any(p["changed"] for p in performance)),
            "columns": columns,
            "added": list(self._current.added),
            "notes": _notes(checked),
            "joint": joint,
            "performance": performance,
            "series": series,
            "quality": self._quality(),
            "findings": [
                {**signal, "after_rows": rows} for rows, signal in self._findings.values()
            ],
            "windows": [{"at": at, "rows": rows} for at, rows, _ in self._windows],
            "assumptions": list(self.watch.assumptions),
            "level": LEVEL,
            "tests": sum(len(checks.checks) for checks in checked),
            "smallest_psi": smallest,
            "smallest_share": SMALLEST_RATE,
        }

    def _timelines(self) -> dict[str, dict[str, Any]]:
        """By series: PSI of each window, and what chance alone reaches there."""
        encoder = self.watch.encoder
        if len(self._windows) < 2:
            return {}
        p = np.zeros((len(self._coarse), DISTANCE_GROUPS))
        for number, groups in enumerate(self._coarse):
            counts = np.append(encoder.counts[number], 0.0)
            p[number] = np.bincount(groups, counts, DISTANCE_GROUPS + 1)[:-1]
        windows = [counts.astype(np.float64) for _, _, counts in self._windows]
        values = np.stack([from_counts(p, counts)[0] for counts in windows])
        rows = np.stack([counts.sum(axis=1) for counts in windows])
        level = _BY_CHANCE / len(self._windows)
        result = {}
        for number, name in enumerate(encoder.series):
            known = rows[:, number] > 0.0
            if not known.any() or not p[number].sum():
                continue
            usual = float(np.median(rows[known, number]))
            n = float(p[number].sum())
            limit = psi_by_chance(p[number], n, usual, level)
            scale = (1.0 / n + 1.0 / np.maximum(rows[:, number], 1.0)) / (1.0 / n + 1.0 / usual)
            result[name] = {
                "psi": [_number(v) for v in np.where(known, values[:, number], np.nan)],
                "by_chance": [_number(limit * factor) for factor in scale],
            }
        return result

    def _performance(self) -> list[dict[str, Any]]:
        """Metrics of the labels of both, where both have labels: a z-test of each mean."""
        before, now = self.baseline.performance or {}, self._current.performance() or {}
        rows = []
        for metric in (name for name in before if name in now):
            a, b = before[metric], now[metric]
            error = math.hypot(
                a["deviation"] / math.sqrt(max(a["rows"], 1)),
                b["deviation"] / math.sqrt(max(b["rows"], 1)),
            )
            off = b["value"] - a["value"]
            # A metric without any spread on both sides (all right, all wrong) has one row's worth.
            error = max(error, abs(off) / math.sqrt(max(min(a["rows"], b["rows"]), 1)))
            p_value = float(erfc(abs(off) / max(error, 1e-300) / math.sqrt(2.0))) if off else 1.0
            rows.append((metric, a, b, p_value))
        if not rows:
            return []
        adjusted_p = benjamini_hochberg(np.array([row[3] for row in rows]))
        return [
            {
                "metric": metric,
                "reference": _number(a["value"]),
                "current": _number(b["value"]),
                "rows": [a["rows"], b["rows"]],
                "adjusted_p_value": _number(p),
                "changed": bool(p < LEVEL) and _matters(metric, a["value"], b["value"]),
            }
            for (metric, a, b, _), p in zip(rows, adjusted_p, strict=True)
        ]

    def _joint(self, drifted: list[str]) -> dict[str, Any] | None:
        """The alarm of the joint detectors, when no single column explains it."""
        if drifted or self.watch.together is None:
            return None
        alarms = self.watch.together.alarms()
        if not alarms:
            return None
        weights = sorted(alarms[0].weights.items(), key=lambda item: -item[1])[:5]
        names = [name for name, weight in weights if weight > 0.1]
        return {"columns": names, "reason": "values no longer go together as in the reference"}

    def _quality(self) -> list[dict[str, Any]]:
        rates = [
            {
                "feature": rule.feature,
                "rule": str(rule.rule),
                "words": WORDS[rule.rule],
                "rows": int(self.watch.violations[number]),
                "share": _number(self.watch.violations[number] / self.rows),
                "usual": _number(rule.null),
            }
            for number, rule in enumerate(self.watch.rules)
            if self.watch.violations[number]
        ]
        return sorted(rates, key=lambda one: -(one["share"] or 0.0))


def _notes(columns: Sequence[ColumnChecks]) -> list[str]:
    """What a person should know of columns, beside their verdicts."""
    tests = sum(len(checks.checks) for checks in columns)
    texts = (
        text for checks in columns for text in (checks.proposal, discounted(checks, LEVEL, tests))
    )
    return [text for text in texts if text]


def _without(baseline: Baseline, names: Collection[str]) -> Baseline:
    """The baseline without some columns. It then does not say how many rows repeat another."""
    columns = {n: column for n, column in baseline.columns.items() if n not in names}
    if len(columns) == len(baseline.columns):
        return baseline
    return replace(baseline, columns=columns, duplicates=None)


def _coarse(watch: ModelWatch) -> list[NDArray[np.int64]]:
    """For each series, the group of each code; missing values are in the one after the last."""
    result = []
    for number in range(len(watch.encoder.series)):
        fine = watch.window.groups[number]
        have = int(fine[fine < GROUPS].max(initial=0)) + 1
        if watch.window.uppers[number]:
            fine = fine * DISTANCE_GROUPS // max(have, DISTANCE_GROUPS)
        coarse = np.minimum(fine, DISTANCE_GROUPS - 1)
        coarse[watch.window.groups[number] >= GROUPS] = DISTANCE_GROUPS
        assert len(coarse) == WIDTH
        result.append(coarse)
    return result


def _halved(
    windows: list[tuple[float | None, int, NDArray[np.int64]]],
) -> list[tuple[float | None, int, NDArray[np.int64]]]:
    """Pairs of windows merged; one that is left over stays."""
    merged = []
    for first in range(0, len(windows) - 1, 2):
        a, b = windows[first], windows[first + 1]
        merged.append((a[0], a[1] + b[1], a[2] + b[2]))
    return merged + (windows[-1:] if len(windows) % 2 else [])


def _matters(metric: str, before: float, now: float) -> bool:
    """A change of a hundredth, of a share or relative to the value."""
    return abs(now - before) >= 0.01 * max(abs(before), 1.0 if 0.0 <= before <= 1.0 else 0.0)


def _or_one(value: float | None) -> float:
    return 1.0 if value is None else value


def _number(value: Any) -> float | None:
    result = float(value)
    return float(f"{result:.6g}") if np.isfinite(result) else None

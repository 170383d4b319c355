"""The drift report as plain data.

The rows go through the same watch as live traffic, so the findings and their times are those of the
service. The report adds distances, each with the value expected by chance at this number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import WIDTH, Batch
from understudy.monitor.baseline.files import Table
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.baseline.rules import WORDS
from understudy.monitor.detectors.distances import (
    benjamini_hochberg,
    chi_squared,
    from_counts,
    thresholds,
)
from understudy.monitor.errors import BaselineError
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.drift.window import GROUPS
from understudy.monitor.health.options import Options

Floats = NDArray[np.float64]
LEVEL = 0.01
"""Adjusted p-value from which a difference is more than chance."""
SMALLEST = 0.02
"""PSI from which it is large enough to matter."""
_MOST_WINDOWS = 120


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """``time`` and ``ignore`` name columns; ``window`` is in rows, 0 for about forty windows.

    ``smallest`` is the PSI that matters; ``segments`` are features whose values are tested
    separately.

    >>> ReportOptions(ignore=frozenset({"id"})).smallest
    0.02
    """

    time: str | None = None
    ignore: frozenset[str] = frozenset()
    window: int = 0
    smallest: float = SMALLEST
    segments: tuple[str, ...] = ()


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
        self.baseline = baseline
        self.options = options
        self.watch = ModelWatch(baseline, Options(segments=options.segments))
        self.rows = 0
        encoder = self.watch.encoder
        self._counts: NDArray[np.int64] = np.zeros((len(encoder.series), WIDTH), np.int64)
        self._windows: list[tuple[float | None, int, NDArray[np.int64]]] = []
        self._findings: dict[str, tuple[int, dict[str, Any]]] = {}
        known = {c.name for c in baseline.columns.values()}
        self._targets = {c.name for c in baseline.columns.values() if c.role == "target"}
        self._known = known

    def take(self, table: Table) -> None:
        """Rows as columns."""
        out = self.options.ignore | self._targets | ({self.options.time} - {None})
        names = tuple(n for n in table.columns if n not in out)
        if not set(names) & self._known:
            known = ", ".join(sorted(self._known))
            raise BaselineError(f"none of the columns is in the baseline, which has {known}")
        times = self._times(table)
        columns = [table.columns[name] for name in names]
        step = 256
        for start in range(0, table.rows, step):
            parts = [cells[start : start + step] for cells in columns]
            rows = len(parts[0])
            ids = [b"row %d" % (self.rows + n + 1) for n in range(rows)]
            answered = any(n in table.columns for n in self._predictions())
            batch = Batch(names, parts, ids, times[start : start + rows], answered)
            counted = self.watch.encoder.counted(self.watch.encoder.encode(batch).codes)
            self._counts += counted
            self._add_window(times[start] if self.options.time else None, rows, counted)
            self.watch.evaluate(batch)
            self.rows += rows
            for signal in signals_of(self.watch, "", "", times[start]):
                self._findings.setdefault(signal.key, (self.rows, {}))
                self._findings[signal.key] = (self._findings[signal.key][0], signal.to_dict())

    def _predictions(self) -> list[str]:
        return [c.name for c in self.baseline.columns.values() if c.role == "prediction"]

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

    def _add_window(self, at: float | None, rows: int, counted: NDArray[np.int64]) -> None:
        size = self.options.window or 256
        if not self._windows or self._windows[-1][1] >= size:
            self._windows.append((at, 0, np.zeros_like(self._counts)))
        start, have, counts = self._windows[-1]
        self._windows[-1] = (start, have + rows, counts + counted)
        if len(self._windows) > 2 * _MOST_WINDOWS:
            # Merge pairs, to bound their number.
            merged = []
            for a, b in zip(self._windows[::2], self._windows[1::2], strict=False):
                merged.append((a[0], a[1] + b[1], a[2] + b[2]))
            self._windows = merged

    def report(self) -> dict[str, Any]:
        """As JSON. Raises BaselineError when there was no row."""
        if not self.rows:
            raise BaselineError("there is no row to compare")
        window, encoder = self.watch.window, self.watch.encoder
        p, q = window.baseline, _grouped(self.watch, self._counts)
        psi, js, hellinger = from_counts(p, q)
        statistic, p_values, cramer = chi_squared(p, q)
        adjusted = benjamini_hochberg(p_values)
        steps = [_grouped(self.watch, counts) for _, _, counts in self._windows]
        timeline = [from_counts(p, step)[0] for step in steps]
        series: list[dict[str, Any]] = []
        for number, name in enumerate(encoder.series):
            column = encoder.columns[encoder.column_of[number]]
            n, m = float(p[number].sum()), float(q[number].sum())
            groups = int(np.count_nonzero(p[number] + q[number]))
            chance = thresholds(groups, max(n, 1.0), max(m, 1.0))["psi"]
            significant = bool(adjusted[number] < LEVEL and m > 0.0)
            matters = bool(psi[number] >= self.options.smallest)
            series.append(
                {
                    "series": name,
                    "column": column.name,
                    "role": column.role,
                    "kind": column.kind,
                    "psi": _number(psi[number]),
                    "psi_by_chance": _number(chance),
                    "js": _number(js[number]),
                    "hellinger": _number(hellinger[number]),
                    "cramers_v": _number(cramer[number]),
                    "chi_squared": _number(statistic[number]),
                    "p_value": _number(p_values[number]),
                    "adjusted_p_value": _number(adjusted[number]),
                    "drifted": significant and matters,
                    "verdict": _verdict(significant, matters, m),
                    "groups": _groups(self.watch, number, p[number], q[number]),
                    "timeline": [_number(values[number]) for values in timeline],
                }
            )
        series.sort(key=lambda one: (not one["drifted"], -(one["psi"] or 0.0)))
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
        return {
            "rows": self.rows,
            "baseline": {
                "rows": self.baseline.rows,
                "source": self.baseline.source,
                "created": self.baseline.created,
            },
            "drifted": [one["series"] for one in series if one["drifted"]],
            "series": series,
            "quality": sorted(rates, key=lambda one: -(one["share"] or 0.0)),
            "findings": [
                {**signal, "after_rows": rows} for rows, signal in self._findings.values()
            ],
            "windows": [{"at": at, "rows": rows} for at, rows, _ in self._windows],
            "assumptions": list(self.watch.assumptions),
            "level": LEVEL,
            "smallest_psi": self.options.smallest,
        }


def _grouped(watch: ModelWatch, counts: NDArray[np.int64]) -> Floats:
    """Counts by group of counts by code."""
    result = np.zeros((len(counts), GROUPS + 1))
    for number in range(len(counts)):
        result[number] = np.bincount(
            watch.window.groups[number], weights=counts[number], minlength=GROUPS + 1
        )
    return result[:, :GROUPS]


def _groups(watch: ModelWatch, number: int, p: Floats, q: Floats) -> list[dict[str, Any]]:
    labels = watch.window.labels[number]
    uppers = watch.window.uppers[number]
    p_total, q_total = max(float(p.sum()), 1.0), max(float(q.sum()), 1.0)
    result = []
    for group in np.flatnonzero(p + q):
        if uppers:
            label = f"≤ {uppers[min(int(group), len(uppers) - 1)]:.4g}"
        else:
            label = labels[int(group)] if group < len(labels) else "other"
        result.append(
            {
                "label": label,
                "reference": round(float(p[group]) / p_total, 6),
                "current": round(float(q[group]) / q_total, 6),
            }
        )
    return result


def _verdict(significant: bool, matters: bool, rows: float) -> str:
    if not rows:
        return "no values"
    if significant and matters:
        return "has drifted"
    if significant:
        return "differs, but by less than matters"
    return "differs, but within chance" if matters else "as usual"


def _number(value: Any) -> float | None:
    result = float(value)
    return float(f"{result:.6g}") if np.isfinite(result) else None

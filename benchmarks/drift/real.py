"""Every finding on real data: data sets that ship inside packages, as they come, nothing injected.

The first part of each is the baseline, the rest is watched row by row with the default settings; of
data sets with scores and labels the performance as well. docs/real-data.md explains each finding:
true, or a false alarm. For the short series of river with annotated change points the alarms stand
beside the annotations of people.

    python -m benchmarks drift-real [--quick]
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drift.data import MissingError, archive, flights, shuttle
from benchmarks.harness import Result, environment
from tests.support.sheets import take
from understudy.monitor.baseline.build import BuildOptions, build
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.files import Reader
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import Performance
from understudy.monitor.findings.finding import Signal
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined

STEP = 250
"""Rows between two looks."""
NANNYML = "nannyml/datasets/data/"


@dataclass(slots=True)
class Stream:
    """``rows`` hold cells in the order of ``names``; ``score`` and ``labels`` where there are some;
    ``places`` says in words where a row is, for people."""

    names: tuple[str, ...]
    rows: list[list[Any]]
    times: list[float]
    score: str = ""
    labels: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding: the row of the watched part after which it was there, and what it says."""

    data: str
    row: int
    total: int
    since: int | None
    signal: Signal

    def cells(self) -> list[Any]:
        return [self.data, self.row, self.total, self.since, self.signal.kind, self.signal.title]


def watched(
    data: str, baseline: Baseline, stream: Stream, options: Options, step: int = STEP
) -> Iterator[Seen]:
    """Every finding when it first names its leading feature, in the order of the rows. Times are
    numbers of rows."""
    watch = ModelWatch(baseline, options)
    performance = None
    if stream.score and baseline.performance is not None:
        settings = Performance(prediction=stream.score, threshold=0.5)
        performance = PerformanceWatch(settings, baseline, options.run_length)
    total = len(stream.rows)
    known: set[str] = set()
    # Features first, as they come on a sheet.
    names = tuple(sorted(stream.names, key=lambda name: name == stream.score))
    order = [stream.names.index(name) for name in names]
    moments = stream.times if baseline.seasons is not None else list(range(total))
    for start in range(0, total, step):
        numbers = range(start, min(start + step, total))
        rows = [[stream.rows[number][p] for p in order] for number in numbers]
        times = [float(moments[number]) for number in numbers]
        ids = [b"%d" % number for number in numbers]
        take(watch, names, rows, times, ids, answered=bool(stream.score))
        if performance is not None:
            for number, row, at in zip(numbers, rows, times, strict=True):
                performance.take([row[-1]], [at])
                if stream.labels is not None:
                    performance.take_label(
                        Joined(number, str(number), "a", False, "m", 0.0, at,
                               {stream.score: row[-1]}, 0, stream.labels[number], None,
                               float(number), 1.0)
                    )  # fmt: skip
        signals = signals_of(watch, "m", "", watch.newest)
        if performance is not None:
            performance.flush()
            signals += performance_signals(performance, "m", "")
        for signal in signals:
            leading = signal.features[0].name if signal.features else ""
            key = f"{signal.key} {leading}"
            if key not in known:
                known.add(key)
                since = (
                    None if signal.since is None else int(np.searchsorted(moments, signal.since))
                )
                yield Seen(data, numbers.stop, total, since, signal)


def _csv(member: str, folder: Path) -> Path:
    with zipfile.ZipFile(archive("nannyml")) as whole:
        path = folder / member
        path.write_bytes(whole.read(NANNYML + member))
    return path


def _columns(path: Path) -> dict[str, list[Any]]:
    whole: dict[str, list[Any]] = {}
    for table in Reader(path, False).tables():
        for name, cells in table.columns.items():
            whole.setdefault(name, []).extend(cells)
    return whole


def nannyml(
    name: str, reference: str, later: str, wanted: BuildOptions, labels: tuple[str, str] | None
) -> tuple[Baseline, Stream]:
    """A baseline of one file, and the rows of the other. ``labels`` are a file and its column."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        baseline, _ = build([_csv(reference, folder)], wanted)
        cells = _columns(_csv(later, folder))
        truth = None
        if labels is not None:
            found = _columns(_csv(labels[0], folder))
            if labels[1] in found:
                truth = [float(v) for v in found[labels[1]]]
    times = [instant(c) or float("nan") for c in cells[wanted.time or ""]]
    names = tuple(n for n in cells if n not in wanted.ignore and n != wanted.time)
    rows = [list(row) for row in zip(*(cells[n] for n in names), strict=True)]
    score = wanted.predictions[0] if wanted.predictions else ""
    return baseline, Stream(names, rows, times, score, truth)


def of_first(
    names: Sequence[str], rows: list[list[Any]], first: int, categorical: frozenset[str]
) -> tuple[Baseline, Stream]:
    """A baseline of the first rows, and the others."""
    builder = Builder(model="m", categorical=categorical, sample=first)
    builder.add(names, [list(c) for c in zip(*rows[:first], strict=True)])
    rest = rows[first:]
    return builder.finish(), Stream(tuple(names), rest, [float(n) for n in range(len(rest))])


def sets() -> Iterator[tuple[str, Baseline, Stream]]:
    ignored = frozenset(("id", "y_pred"))
    score = ("y_pred_proba",)
    yield "california housing", *nannyml(
        "california", "california_housing_reference.csv", "california_housing_analysis.csv",
        BuildOptions("m", "", "clf_target", score, "timestamp", ignored),
        ("california_housing_analysis_gt.csv", "clf_target"),
    )  # fmt: skip
    yield "work from home (synthetic)", *nannyml(
        "work", "synthetic_sample_reference.csv", "synthetic_sample_analysis.csv",
        BuildOptions("m", "", "work_home_actual", score, "timestamp", ignored | {"period"}),
        ("synthetic_sample_analysis_gt.csv", "work_home_actual"),
    )  # fmt: skip
    yield "car loans, data quality (synthetic)", *nannyml(
        "loans", "synthetic_car_loan_dq_reference.csv", "synthetic_car_loan_dq_analysis.csv",
        BuildOptions("m", "", "repaid", score, "timestamp", ignored), None,
    )  # fmt: skip
    numbers = BuildOptions("m", "", "y_true", ("y_pred",), "timestamp", frozenset(("id",)))
    yield "prices of used cars (synthetic)", *nannyml(
        "cars", "regression_synthetic_reference.csv", "regression_synthetic_analysis.csv",
        numbers, None,
    )  # fmt: skip
    air = flights()
    month = air.names.index("month")
    names = tuple(n for n in air.names if n != "month")
    months: dict[int, list[list[Any]]] = {}
    for row in air.rows:
        months.setdefault(int(row[month]), []).append(row[:month] + row[month + 1 :])
    january = months.pop(1)
    for number, rows in sorted(months.items()):
        yield (
            f"flights of 2013, month {number} against January",
            *of_first(names, january + rows, len(january), air.categorical),
        )
    sensors = shuttle()
    yield "shuttle, first 10,000 rows", *of_first(sensors.names, sensors.rows, 10_000, frozenset())


ANNOTATED = {
    "occupancy": (("V1", "V2", "V3", "V4"), (53, 91, 142, 181, 235, 264, 341, 416, 451, 506)),
    "run_log": (("Pace",), (60, 96, 114, 174, 204, 240, 258, 317)),
    "bitcoin": (("price",), (502, 580, 702, 747)),
}
FIRST = 50


def annotated() -> list[list[Any]]:
    """Short series under EWMA-like quick CUSUMs: what fifty rows of a baseline allow."""
    rows = []
    with zipfile.ZipFile(archive("river")) as whole:
        for name, (columns, marks) in ANNOTATED.items():
            text = whole.read(f"river/drift/datasets/{name}.csv").decode()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{name}.csv"
                path.write_text(text)
                cells = _columns(path)
            body = [list(map(float, row)) for row in zip(*(cells[c] for c in columns), strict=True)]
            baseline, stream = of_first(columns, body, FIRST, frozenset())
            options = Options(run_length=10_000.0, smallest_shift=1.0)
            lag = max(
                (
                    p.location.lag1 or 0.0
                    for c in baseline.columns.values()
                    for p in c.series.values()
                ),
                default=0.0,
            )
            found = [s.row + FIRST for s in watched(name, baseline, stream, options, 1)]
            rows.append([name, len(body), round(lag, 2), str(found), str(list(marks))])
    return rows


def run(quick: bool = False) -> Result:
    result = Result("drift-real", environment(quick=quick, **{"rows between looks": STEP}))
    table: list[list[Any]] = []
    try:
        for name, baseline, stream in sets():
            if quick:
                stream.rows = stream.rows[:20_000]
            count = 0
            for seen in watched(name, baseline, stream, Options()):
                table.append(seen.cells())
                count += 1
            if not count:
                table.append([name, None, len(stream.rows), None, "nothing", ""])
            print(f"  {name}: {count}", file=sys.stderr, flush=True)
        titles = ["series", "rows", "lag-1", "alarms at row", "annotated by people"]
        result.tables.append(("River's change-point series", titles, annotated()))
    except MissingError as error:
        result.measurements["missing"] = str(error)
    header = ["data", "found at row", "of", "since row", "kind", "finding"]
    result.tables.insert(0, ("Findings, as they first speak", header, table))
    result.measurements["findings"] = table
    return result

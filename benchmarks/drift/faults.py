"""Twelve faults put into real data: how many are caught, how soon, and is the feature named?

Three data sets that ship inside packages. Of each, a random half of the reference is the baseline;
the other half, in random order (so that what changes over the years is not taken for a false
alarm), is the stream. A fault begins after 2,000 clean rows; it is caught when there is a signal
within 200 rows, and named when a feature that was tampered with ranks first in it. The rate of
false alarms is that of 200,000 clean rows in all. Everything runs as in the service: batches of
256 rows, cut where the fault begins as a worker's batches would be.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.drift.data import Data, MissingError, employment, flights, shuttle
from benchmarks.harness import Claim, Result, environment
from tests.support.sheets import take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

CLEAN = 2_000
WITHIN = 200
STEP = 20
BASELINE = 10_000
RUN_LENGTH = 1_000_000.0

Rows = list[list[Any]]
Fault = Callable[[Rows, Data, int, random.Random], "tuple[tuple[str, ...], Rows, frozenset[str]]"]
"""Rows, the data, the column to tamper with → names, rows, the names of what was tampered with."""


def _cells(change: Callable[[Any, random.Random], Any], share: float = 1.0) -> Fault:
    def fault(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
        for row in rows:
            if chance.random() < share:
                row[column] = change(row[column], chance)
        return data.names, rows, frozenset((data.names[column],))

    return fault


def _times_100(cell: Any, _: random.Random) -> Any:
    return cell * 100.0 if isinstance(cell, (int, float)) else cell


def _flipped(cell: Any, _: random.Random) -> Any:
    return f"value {cell}" if isinstance(cell, (int, float)) else {"value": cell}


def _unseen(cell: Any, _: random.Random) -> Any:
    return "something new" if isinstance(cell, str) else cell


def _swap(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
    others = [
        n
        for n, name in enumerate(data.names)
        if n != column and (name in data.categorical) == (data.names[column] in data.categorical)
    ]
    other = chance.choice(others or [n for n in range(len(data.names)) if n != column])
    for row in rows:
        row[column], row[other] = row[other], row[column]
    return data.names, rows, frozenset((data.names[column], data.names[other]))


def _drop(rows: Rows, data: Data, column: int, _: random.Random) -> Any:
    names = data.names[:column] + data.names[column + 1 :]
    return (
        names,
        [row[:column] + row[column + 1 :] for row in rows],
        frozenset((data.names[column],)),
    )


def _add(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
    return (
        (*data.names, "new_column"),
        [[*row, chance.random()] for row in rows],
        frozenset(("added",)),
    )


def _range(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
    numbers = [row[column] for row in data.rows if isinstance(row[column], (int, float))]
    beyond = max(numbers) + 0.5 * (max(numbers) - min(numbers)) + 1.0
    for row in rows:
        if chance.random() < 0.2:
            row[column] = beyond
    return data.names, rows, frozenset((data.names[column],))


def _constant(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
    value = rows[0][column]
    for row in rows:
        row[column] = value
    return data.names, rows, frozenset((data.names[column],))


def _stale(rows: Rows, data: Data, column: int, chance: random.Random) -> Any:
    """The source is read once in fifty rows."""
    for number, row in enumerate(rows):
        row[column] = rows[number - number % 50][column]
    return data.names, rows, frozenset((data.names[column],))


def _duplicate(rows: Rows, data: Data, column: int, _: random.Random) -> Any:
    return (
        data.names,
        [row for number, row in enumerate(rows) for row in (row, list(row)) if number % 2 == 0],
        frozenset(("duplicate",)),
    )


FAULTS: dict[str, Fault] = {
    "missing": _cells(lambda cell, _: None, 0.5),
    "NaN": _cells(lambda cell, _: float("nan"), 0.5),
    "x100 units": _cells(_times_100),
    "type flip": _cells(_flipped),
    "column swap": _swap,
    "drop": _drop,
    "add": _add,
    "unseen category": _cells(_unseen, 0.2),
    "range": _range,
    "constant": _constant,
    "stale": _stale,
    "duplicate": _duplicate,
}
_NUMBERS = ("x100 units", "range")
_CATEGORIES = ("unseen category",)


def baseline_of(data: Data, rows: Rows) -> Baseline:
    """A baseline as ``understudy baseline build`` makes it."""
    builder = Builder(model="bench", categorical=data.categorical)
    builder.add(data.names, [list(column) for column in zip(*rows, strict=True)])
    return builder.finish()


def _feed(watch: ModelWatch, names: tuple[str, ...], rows: Rows, start: int) -> None:
    times = range(start, start + len(rows))
    take(watch, names, rows, times, [b"%d" % time for time in times])


def _usable(data: Data, fault: str) -> list[int]:
    """Columns in which a fault is one. A category that nearly always has one value is no feature
    that could be stuck, and so is one that hardly ever changes."""
    columns = []
    for column, name in enumerate(data.names):
        if fault in _NUMBERS and name in data.categorical:
            continue
        if fault in _CATEGORIES and name not in data.categorical:
            continue
        values = [row[column] for row in data.rows[:5000] if row[column] is not None]
        if not values:
            continue
        commonest = max(values.count(v) for v in set(values[:200])) / len(values)
        if fault in ("constant", "stale", "column swap", "x100 units") and commonest > 0.6:
            continue
        columns.append(column)
    return columns


def _trial(
    data: Data, baseline: Baseline, stream: Rows, fault: str, column: int, seed: int
) -> dict[str, Any]:
    chance = random.Random(seed)
    watch = ModelWatch(baseline, Options(run_length=RUN_LENGTH))
    begin = chance.randrange(len(stream) - CLEAN - WITHIN - 1)
    clean = stream[begin : begin + CLEAN]
    _feed(watch, data.names, clean, 0)
    if signals_of(watch, "bench", "", float(CLEAN)):
        return {"clean": False}
    later = copy.deepcopy(stream[begin + CLEAN : begin + CLEAN + WITHIN])
    names, rows, tampered = FAULTS[fault](later, data, column, chance)
    for start in range(0, len(rows), STEP):
        _feed(watch, names, rows[start : start + STEP], CLEAN + start)
        found = signals_of(watch, "bench", "", float(CLEAN + start + STEP))
        if found:
            first = [s.features[0].name for s in found if s.features]
            return {
                "clean": True,
                "caught": True,
                "rows": start + STEP,
                "named": bool(first) and first[0] in tampered,
                "first": first[:2],
            }
    return {"clean": True, "caught": False, "rows": None, "named": False, "first": []}


def run(quick: bool = False) -> Result:
    result = Result("drift-faults", environment())
    sets: dict[str, tuple[Data, Data]] = {}
    sources: dict[str, Callable[[], Data]] = {
        "employment_MA": lambda: employment()[0],
        "Shuttle": shuttle,
        "flights": flights,
    }
    for name, load in sources.items():
        try:
            data = load()
        except MissingError as error:
            result.measurements[f"{name}: skipped"] = str(error)
            continue
        rows = list(data.rows)
        random.Random(3).shuffle(rows)
        sets[name] = (
            Data(data.names, rows[:BASELINE], data.categorical),
            Data(data.names, rows[BASELINE:], data.categorical),
        )
    repeats = 4 if quick else 20
    clean_rows = 20_000 if quick else 100_000
    table = []
    caught_kinds, named, caught = 0, 0, 0
    alarms, watched = 0, 0
    by_fault: dict[str, list[dict[str, Any]]] = {fault: [] for fault in FAULTS}
    for name, (reference, later) in sets.items():
        baseline = baseline_of(reference, reference.rows)
        for fault in FAULTS:
            columns = _usable(reference, fault)
            trials = []
            for seed in range(repeats if columns else 0):
                column = columns[seed % len(columns)]
                one = _trial(reference, baseline, later.rows, fault, column, seed)
                if one["clean"]:
                    trials.append({**one, "column": reference.names[column], "data": name})
            by_fault[fault] += trials
        alarms += _false_alarms(reference, baseline, later.rows, clean_rows)
        watched += clean_rows
    for fault, trials in by_fault.items():
        good = [t for t in trials if t["caught"]]
        right = [t for t in good if t["named"]]
        share = len(good) / max(1, len(trials))
        caught_kinds += share >= 0.9
        caught += len(good)
        named += len(right)
        delays = [t["rows"] for t in good]
        missed = sorted({f"{t['data']} {t['column']}" for t in trials if not t["caught"]})
        table.append(
            [
                fault,
                len(trials),
                share,
                len(right) / max(1, len(good)),
                float(np.median(delays)) if delays else None,
                ", ".join(missed[:4]) or "–",
            ]
        )
        result.measurements[fault] = {
            "trials": len(trials),
            "caught": share,
            "named": len(right) / max(1, len(good)),
            "median_rows": float(np.median(delays)) if delays else None,
            "missed": missed,
            "misnamed": sorted(
                {f"{t['data']} {t['column']}: {t['first']}" for t in good if not t["named"]}
            ),
        }
    rate = alarms / max(1, watched) * 100_000
    result.measurements["clean rows"] = watched
    result.measurements["false alarms"] = alarms
    header = ["fault", "trials", "caught", "named first", f"median rows (by {STEP})", "missed in"]
    result.tables.append(("Faults", header, table))
    result.claims = [
        Claim("kinds of faults caught in >= 90 % of trials", float(caught_kinds), 11.0, ">="),
        Claim("the right feature ranked first", named / max(1, caught), 0.95, ">="),
        Claim("false alarms per 100,000 clean rows", rate, 1.0, "<="),
    ]
    return result


def _false_alarms(data: Data, baseline: Baseline, stream: Rows, rows: int) -> int:
    """Alarms over clean rows; each ends with a fresh watch.

    Passes over the stream, each in another order: rows that were drawn with replacement would come
    twice by the drawing, which is a fault that we look for.
    """
    chance = random.Random(11)
    order: list[int] = []
    watch = ModelWatch(baseline, Options(run_length=RUN_LENGTH))
    alarms = 0
    for start in range(0, rows, 500):
        if len(order) < 500:
            order = chance.sample(range(len(stream)), len(stream))
        drawn = [stream[order.pop()] for _ in range(500)]
        _feed(watch, data.names, drawn, start)
        if signals_of(watch, "bench", "", float(start + 500)):
            alarms += 1
            watch = ModelWatch(baseline, Options(run_length=RUN_LENGTH))
    return alarms


if __name__ == "__main__":
    print(run(True).markdown())

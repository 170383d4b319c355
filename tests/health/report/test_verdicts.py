"""One verdict for each column: cases from the field, small, each with its right value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy import stats

from understudy.monitor.cli.main import main

Rows = dict[str, Any]
N = 2_000
CARRIERS = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "WN", "VX", "FL"]


def flights(seed: int, rows: int = N) -> Rows:
    """Columns as in a table of flights: long tails, whole numbers, related ones, categories."""
    rng = np.random.default_rng(seed)
    distance = rng.choice([94, 200, 502, 733, 1_089, 1_598, 2_475], rows)
    shares = 1.0 / np.arange(1, 11)
    return {
        "delay": np.round(rng.exponential(20.0, rows) - 8.0),
        "distance": distance,
        "air_time": np.round(distance / 8.0 + rng.normal(25.0, 5.0, rows)),
        "carrier": rng.choice(CARRIERS, rows, p=shares / shares.sum()).astype(object),
        "origin": rng.choice(["EWR", "JFK", "LGA"], rows).astype(object),
    }


def save(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.table({k: pa.array(v, from_pandas=True) for k, v in rows.items()}), path)
    return path


def report(tmp_path: Path, before: Rows, now: Rows, *more: str) -> dict[str, Any]:
    files = save(tmp_path / "before.parquet", before), save(tmp_path / "now.parquet", now)
    page = tmp_path / "page.html"
    arguments = ["drift", "report", *map(str, files), "--html", str(page), *more]
    shown = CliRunner().invoke(main, [*arguments, "--json", "--exit-code"])
    assert shown.exit_code in (0, 1), shown.output
    assert "</html>" in page.read_text()
    found: dict[str, Any] = json.loads(shown.output)
    assert shown.exit_code == int(found["changed"])
    return found


def verdicts(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["column"]: (one["verdict"], one["reason"]) for one in found["columns"]}


def changed(found: dict[str, Any]) -> dict[str, str]:
    return {
        name: verdict for name, (verdict, _) in verdicts(found).items() if verdict != "as usual"
    }


def zeros(rows: Rows, share: float, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    wet = np.where(rng.random(N) < share, rng.lognormal(0.0, 2.0, N), 0.0)
    return {**rows, "rain": wet, "revenue": rng.pareto(1.1, N), "r": np.round(rng.normal(size=N))}


def some(values: Any, share: float, other: Any) -> Any:
    values = np.array(values, dtype=object if other is None or isinstance(other, str) else float)
    values[np.random.default_rng(7).random(len(values)) < share] = other
    return values


def lower(values: Any) -> Any:
    mixed = np.array(values, dtype=object)
    chosen = np.random.default_rng(8).random(len(mixed)) < 0.2
    mixed[chosen] = [f"{v.lower()} " for v in mixed[chosen]]
    return mixed


Change = Callable[[Rows, Rows], tuple[Rows, Rows]]
CASES: dict[str, tuple[Change, dict[str, tuple[str, str]]]] = {
    "the same": (lambda a, b: (a, b), {}),
    "empty in both": (
        lambda a, b: ({**a, "x": [math.nan] * N}, {**b, "x": [math.nan] * N}),
        {},
    ),
    "empty now": (
        lambda a, b: (a, {**b, "air_time": [math.nan] * N}),
        {"air_time": ("missing", "no values, had some in 100 % of the rows")},
    ),
    "empty in the reference": (
        lambda a, b: ({**a, "air_time": [math.nan] * N}, b),
        {"air_time": ("missing", "has values, the reference had none")},
    ),
    "a constant changes": (
        lambda a, b: ({**a, "k": [7] * N}, {**b, "k": [8] * N}),
        {"k": ("constancy", "always 8, was always 7")},
    ),
    "a constant starts to vary": (
        lambda a, b: ({**a, "k": [7] * N}, {**b, "k": [7, 7, 7, 9] * (N // 4)}),
        {"k": ("constancy", "25 % of the values differ, was always 7")},
    ),
    "a constant category changes": (
        lambda a, b: ({**a, "k": ["v1"] * N}, {**b, "k": ["v2"] * N}),
        {"k": ("constancy", "always 'v2', was always 'v1'")},
    ),
    "stuck at one value": (
        lambda a, b: (a, {**b, "air_time": [131.0] * N}),
        {"air_time": ("constancy", "always 131, had different values")},
    ),
    "infinite": (
        lambda a, b: (a, {**b, "delay": some(b["delay"], 0.02, math.inf)}),
        {"delay": ("range", "% of the values are infinite, was 0 %")},
    ),
    "new nulls in categories": (
        lambda a, b: (a, {**b, "carrier": some(b["carrier"], 0.3, None)}),
        {"carrier": ("missing", "% of the rows, was 0 %")},
    ),
    "a unit": (
        lambda a, b: (a, {**b, "air_time": b["air_time"] * 60.0}),
        {"air_time": ("range", "median 7")},
    ),
    "a sentinel": (
        lambda a, b: (a, {**b, "air_time": some(b["air_time"], 0.02, -999.0)}),
        {"air_time": ("range", "% of the values lie outside")},
    ),
    "numbers become texts": (
        lambda a, b: (a, {**b, "distance": [f"{v} mi" for v in b["distance"]]}),
        {"distance": ("type", "now a categorical column, was a numeric one")},
    ),
    "categories become numbers": (
        lambda a, b: (a, {**b, "carrier": [CARRIERS.index(v) for v in b["carrier"]]}),
        {"carrier": ("type", "now a numeric column, was a categorical one")},
    ),
    "a column is renamed": (
        lambda a, b: (a, {("late" if k == "delay" else k): v for k, v in b.items()}),
        {"delay": ("missing", "no values")},
    ),
    "columns in another order": (lambda a, b: (a, dict(reversed(b.items()))), {}),
    "half precision": (
        lambda a, b: ({**a, "d": np.float16(a["distance"])}, {**b, "d": np.float16(b["distance"])}),
        {},
    ),
    "zeros, long tails and few values": (
        lambda a, b: (zeros(a, 0.03, 1), zeros(b, 0.03, 2)),
        {},
    ),
    "the share of zeros halves its rest": (
        lambda a, b: (zeros(a, 0.03, 1), zeros(b, 0.08, 2)),
        {"rain": ("distribution", "of the values are at most")},
    ),
    "whole numbers beyond 2 ** 53": (
        lambda a, b: (
            {**a, "id": [2**53 + n % 997 for n in range(N)]},
            {**b, "id": [2**53 + 5_000 + n % 997 for n in range(N)]},
        ),
        {"id": ("range", "was 9,007,199,254,74")},
    ),
    "cases of letters": (
        lambda a, b: (a, {**b, "origin": lower(b["origin"])}),
        {"origin": ("range", "are not in the reference: '")},
    ),
    "shares of categories": (
        lambda a, b: (a, {**b, "origin": some(b["origin"], 0.3, "JFK")}),
        {"origin": ("distribution", "share of 'JFK' is 5")},
    ),
    "three times as many of a rare class is within chance": (
        lambda a, b: (
            {**a, "risk": frauds(3)},
            {**b, "risk": frauds(9)},
        ),
        {},
    ),
    "fifteen times as many is not": (
        lambda a, b: (
            {**a, "risk": frauds(3)},
            {**b, "risk": frauds(45)},
        ),
        {"risk": ("distribution", "share of 'fraud' is 2.25 %, was 0.15 %")},
    ),
    "eight rows": (lambda a, b: (a, {k: v[:8] for k, v in b.items()}), {}),
    "one row": (lambda a, b: (a, {k: v[:1] for k, v in b.items()}), {}),
    "one row in the reference": (lambda a, b: ({k: v[:1] for k, v in a.items()}, b), {}),
    "many categories": (
        lambda a, b: (
            {**a, "zip": [f"z{n}" for n in zipf(1)]},
            {**b, "zip": [f"z{n}" for n in zipf(2)]},
        ),
        {},
    ),
    "flags become texts": (
        lambda a, b: (
            {**a, "late": a["delay"] > 0},
            {**b, "late": [str(v > 0) for v in b["delay"]]},
        ),
        {"late": ("range", "not in the reference: '")},
    ),
    "another time zone": (
        lambda a, b: ({**a, "at": hours(1, 0)}, {**b, "at": hours(2, 5)}),
        {"at": ("distribution", "hour: share of '")},
    ),
}  # fmt: skip


def frauds(count: int) -> Any:
    """Rare ones among all rows: many in a row would be one event, and weigh less."""
    return np.random.default_rng(count).permutation(["fraud"] * count + ["ok"] * (N - count))


def zipf(seed: int) -> list[int]:
    shares = 1.0 / np.arange(1, 301) ** 0.7
    drawn = np.random.default_rng(seed).choice(300, N, p=shares / shares.sum())
    return [int(v) for v in drawn]


def hours(seed: int, later: int) -> list[str]:
    drawn = np.random.default_rng(seed).integers(6, 18, N) + later
    return [f"2026-01-{1 + n % 28:02d}T{hour:02d}:00:00Z" for n, hour in enumerate(drawn)]


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_verdict(tmp_path: Path, name: str) -> None:
    change, expected = CASES[name]
    before, now = change(flights(1), flights(2))
    found = report(tmp_path, before, now)
    known = verdicts(found)
    assert changed(found) == {column: verdict for column, (verdict, _) in expected.items()}, known
    for column, (_, words) in expected.items():
        assert words in known[column][1]
    assert found["drifted"] == list(changed(found))
    assert found["added"] == (["late"] if "renamed" in name else [])
    assert found["joint"] is None


def test_columns_that_no_longer_go_together(tmp_path: Path) -> None:
    before, now = flights(1), flights(2)
    now["air_time"] = np.random.default_rng(3).permutation(now["air_time"])
    found = report(tmp_path, before, now)
    assert changed(found) == {}
    assert found["changed"]
    assert set(found["joint"]["columns"]) == {"air_time", "distance"}


def test_labels_of_both_files_are_compared(tmp_path: Path) -> None:
    before, now = flights(1), flights(2)
    for rows, seed in ((before, 5), (now, 6)):
        odds = rows["delay"] / 10.0
        rows["p"] = 1.0 / (1.0 + np.exp(-odds))
        rows["late"] = (np.random.default_rng(seed).random(N) < rows["p"]).astype(int)
    same = report(tmp_path, before, now, "--target", "late", "--prediction", "p")
    assert changed(same) == {}
    assert [one["metric"] for one in same["performance"] if one["changed"]] == []
    assert "accuracy" in [one["metric"] for one in same["performance"]]
    now["late"] = 1 - now["late"]
    flipped = report(tmp_path, before, now, "--target", "late", "--prediction", "p")
    assert verdicts(flipped)["late"][0] == "distribution"
    assert "share of " in verdicts(flipped)["late"][1]
    worse = {one["metric"]: one for one in flipped["performance"] if one["changed"]}
    assert worse["accuracy"]["current"] < 0.4 < 0.6 < worse["accuracy"]["reference"]
    # Labels that are there in as many rows as before, but say the opposite: only they can tell.
    balanced = np.random.default_rng(9).random(N) < 0.5
    before["late"] = balanced.astype(int)
    before["p"] = np.where(balanced, 0.9, 0.1)
    now["p"], now["late"] = before["p"], 1 - before["late"]
    opposite = report(tmp_path, before, now, "--target", "late", "--prediction", "p")
    assert changed(opposite) == {}
    assert opposite["changed"]


@pytest.mark.parametrize("rows", [20, 50, 100, 300])
def test_few_rows_of_one_population_are_as_usual(tmp_path: Path, rows: int) -> None:
    drifted, turns = 0, 6
    for seed in range(turns):
        before, now = flights(100 + seed, rows), flights(200 + seed, N)
        if seed % 2:
            before, now = now, before
        drifted += bool(changed(report(tmp_path, before, now)))
    # More with probability below 1e-6, when each happens with the stated 0.01.
    assert drifted <= stats.binom.isf(1e-7, turns, 0.01)


def test_few_rows_of_another_population_are_found(tmp_path: Path) -> None:
    now = flights(2, 30)
    now["delay"] = now["delay"] + 60.0
    found = report(tmp_path, flights(1), now)
    assert changed(found).keys() == {"delay"}
    assert "median" in verdicts(found)["delay"][1]


def test_shuffled_rows_stay_within_chance_in_the_timeline(tmp_path: Path) -> None:
    both = flights(1, 24_000)
    before = {k: v[:12_000] for k, v in both.items()}
    now = {k: v[12_000:] for k, v in both.items()}
    found = report(tmp_path, before, now)
    beyond = windows = 0
    for one in found["series"]:
        line = one["timeline"]
        assert len(line["psi"]) == len(found["windows"]) == 47
        windows += len(line["psi"])
        beyond += sum(v > c for v, c in zip(line["psi"], line["by_chance"], strict=True))
    # One column of twenty has any window beyond the line.
    assert beyond <= stats.binom.isf(1e-7, windows, 0.05 / 47)
    assert sum(w["rows"] for w in found["windows"]) == 12_000
    now["delay"] = np.where(np.arange(12_000) < 6_000, now["delay"], now["delay"] + 15.0)
    line = next(s for s in report(tmp_path, before, now)["series"] if s["series"] == "delay")
    late = [
        v > c for v, c in zip(line["timeline"]["psi"], line["timeline"]["by_chance"], strict=True)
    ]
    assert not any(late[:23])
    assert all(late[24:])


def test_long_files_have_few_windows_and_all_rows(tmp_path: Path) -> None:
    found = report(tmp_path, flights(1), flights(2, 70_000))
    assert 20 <= len(found["windows"]) <= 60
    assert sum(w["rows"] for w in found["windows"]) == 70_000


def test_a_sorted_file_says_what_its_order_costs(tmp_path: Path) -> None:
    """Shares of 26 % and 48 % in 500 rows: certain, unless the rows are sorted by the column."""
    before: Rows = {"q": ["bad"] * 370 + ["good"] * 130}
    now: Rows = {"q": ["bad"] * 260 + ["good"] * 240}
    found = report(tmp_path, before, now)
    assert changed(found) == {}
    (note,) = found["notes"]
    assert note.startswith("q: share of 'good' is 48 %, was 26 %, which is not certain: rows")
    assert "1,000 count as about" in note
    rng = np.random.default_rng(4)
    shuffled = [{"q": rng.permutation(rows["q"]).tolist()} for rows in (before, now)]
    found = report(tmp_path, *shuffled)
    assert changed(found) == {"q": "distribution"}
    assert found["notes"] == []
    # Sorted, and no difference: nothing to say.
    assert report(tmp_path, before, before)["notes"] == []


@pytest.mark.parametrize("order", [("p", "said"), ("said", "p")])
def test_several_predictions_are_judged_by_the_same_one(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    """A class and its probability: a log loss of one is not compared with that of the other."""

    def rows(seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        p = rng.random(N)
        late = (rng.random(N) < p).astype(int)
        return {"late": late, "said": (p > 0.5).astype(int), "p": p}

    given = [part for name in order for part in ("--prediction", name)]
    found = report(tmp_path, rows(1), rows(2), "--target", "late", *given)
    assert not found["changed"], found["performance"]
    assert {one["metric"] for one in found["performance"]} >= {"accuracy", "log_loss"}


def test_labels_are_compared_at_the_threshold_of_the_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)

    def rows(name: str) -> Path:
        p = rng.random(N)
        late = (rng.random(N) < p).astype(int)
        return save(tmp_path / f"{name}.parquet", {"late": late, "p": p})

    before, now = rows("before"), rows("now")
    run = CliRunner().invoke
    built = str(tmp_path / "b.json")
    wanted = ["--target", "late", "--prediction", "p", "--threshold", "0.9", "-o", built]
    made = run(main, ["baseline", "build", str(before), *wanted])
    assert made.exit_code == 0, made.output
    found = json.loads(run(main, ["drift", "report", built, str(now), "--json"]).output)
    figures = {one["metric"]: one for one in found["performance"]}
    assert figures["recall"]["reference"] < 0.3
    assert not found["changed"], figures


@pytest.mark.parametrize(("window", "wanted"), [(9, 111), (111, 9), (997, 1), (5_000, 1)])
def test_windows_have_the_rows_that_were_asked_for(
    tmp_path: Path, window: int, wanted: int
) -> None:
    rng = np.random.default_rng(5)
    before, now = ({"x": rng.normal(size=rows)} for rows in (1_000, 997))
    found = report(tmp_path, before, now, "--window", str(window))
    rows = [one["rows"] for one in found["windows"]]
    assert (len(rows), sum(rows)) == (wanted, 997)
    assert set(rows[:-1]) <= {window}


def test_a_column_that_is_gone_is_not_also_a_relation_that_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = {"x": rng.normal(size=N), "f": rng.normal(size=N)}
    now = {"x": rng.normal(size=N), "f": [None] * N}
    found = report(tmp_path, before, now)
    assert changed(found) == {"f": "missing"}
    assert [one["title"].partition(" in ")[0] for one in found["findings"]] == [
        "Data quality: f is missing"
    ]

"""Building: what is counted is exact, whatever the batches; files, kinds and what is wrong with them."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.kinds import infer
from understudy.monitor.baseline.model import Baseline, CategoryProfile, NumericProfile
from understudy.monitor.errors import BaselineError

NUMBERS = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0]),
)
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "ü"]))
ROWS = st.lists(st.tuples(NUMBERS, WORDS), min_size=1, max_size=60)


def build(rows: list[tuple[Any, Any]], cut: int) -> Baseline:
    builder = Builder(model="m", sample=10**9)
    for start in range(0, len(rows), cut):
        builder.add(("x", "c"), list(zip(*rows[start : start + cut], strict=True)))
    return builder.finish()


def plain(baseline: Baseline) -> dict[str, Any]:
    data = baseline.to_dict()
    data.pop("created")
    return json.loads(json.dumps(data))


@settings(max_examples=80)
@given(ROWS, st.integers(1, 20))
def test_batches_of_any_size_give_the_same(rows: list[tuple[Any, Any]], cut: int) -> None:
    whole, parts = build(rows, len(rows)), build(rows, cut)
    for name in ("x", "c"):
        a, b = whole.columns[name], parts.columns[name]
        for field in ("kind", "rows", "missing", "nan", "infinite", "mistyped"):
            assert getattr(a, field) == getattr(b, field), field
    a, b = whole.columns["x"].series["x"], parts.columns["x"].series["x"]
    if isinstance(a, NumericProfile):
        assert isinstance(b, NumericProfile)
        finite = [x for x, _ in rows if x is not None and math.isfinite(x)]
        assert a.count == b.count == len(finite) == int(a.counts.sum())
        assert a.counts.tolist() == b.counts.tolist()
        if finite:
            assert a.mean == pytest.approx(np.mean(finite), rel=1e-9, abs=1e-6)
            assert a.deviation == pytest.approx(
                np.std(finite, ddof=1) if len(finite) > 1 else 0.0, rel=1e-6, abs=1e-6
            )
            assert (a.minimum, a.maximum) == (min(finite), max(finite))
    words = whole.columns["c"].series["c"]
    assert isinstance(words, CategoryProfile)
    assert words.counts == {
        w: sum(1 for _, c in rows if c == w) for w in {c for _, c in rows if c is not None}
    }
    again = Baseline.from_dict(plain(whole) | {"created": ""})
    assert plain(again) == plain(whole)


@settings(max_examples=60)
@given(ROWS, ROWS)
def test_a_merge_counts_the_rows_of_both(
    first: list[tuple[Any, Any]], second: list[tuple[Any, Any]]
) -> None:
    a, b = build(first, 100), build(second, 100)
    if a.columns["x"].kind != b.columns["x"].kind:
        with pytest.raises(BaselineError, match="column 'x'"):
            a.merge(b)
        return
    both, whole = a.merge(b), build(first + second, 100)
    assert both.rows == whole.rows
    for name in ("x", "c"):
        for field in ("rows", "missing", "nan", "infinite"):
            assert getattr(both.columns[name], field) == getattr(whole.columns[name], field)
    mine, theirs = both.columns["c"].series["c"], whole.columns["c"].series["c"]
    assert isinstance(mine, CategoryProfile)
    assert isinstance(theirs, CategoryProfile)
    assert mine.counts == theirs.counts
    x, y = both.columns["x"].series["x"], whole.columns["x"].series["x"]
    if isinstance(x, NumericProfile) and isinstance(y, NumericProfile):
        assert x.count == y.count == int(x.counts.sum())
        assert x.mean == pytest.approx(y.mean, rel=1e-9, abs=1e-6)
        assert x.squares == pytest.approx(y.squares, rel=1e-6, abs=1e-3)


def test_merged_histograms_keep_their_shape() -> None:
    rng = np.random.default_rng(1)
    parts = []
    for shift in (0.0, 1.0):
        builder = Builder()
        builder.add(("x",), [(rng.normal(size=20_000) + shift).tolist()])
        parts.append(builder.finish())
    both = parts[0].merge(parts[1]).columns["x"].series["x"]
    assert isinstance(both, NumericProfile)
    assert len(both.edges) <= 255
    below = np.cumsum(both.counts)[:-1] / both.count
    from scipy.special import ndtr

    wanted = (ndtr(both.edges) + ndtr(both.edges - 1.0)) / 2.0
    # Two samples of 20,000: a distance of 0.02 has a probability below 1e-6.
    assert np.abs(below - wanted).max() < 0.02


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1.0, 2, None, math.nan], "numeric"),
        ([True, False, None], "boolean"),
        (["a", "b", None, "a"], "categorical"),
        (["2026-01-02T03:04:05Z", "2026-01-02"], "datetime"),
        ([[1.0, 2.0], [3.0, 4.0]], "vector"),
        ([f"a long text about thing {n}" for n in range(50)], "text"),
        ([None, None], "categorical"),
        ([math.nan], "numeric"),
    ],
)
def test_kinds_are_inferred_from_cells(cells: list[Any], kind: str) -> None:
    assert infer(cells) == kind


def test_every_kind_has_its_series_and_invalid_cells_are_counted() -> None:
    rng = np.random.default_rng(2)
    rows = 300
    when = [f"2026-03-{1 + n % 28:02d}T{n % 24:02d}:00:00" for n in range(rows)]
    columns: dict[str, list[Any]] = {
        "amount": [*rng.lognormal(size=rows - 3).tolist(), "oops", math.nan, math.inf],
        "flag": [bool(n % 3) for n in range(rows)],
        "sent": when,
        "note": [f"the parcel number {n} was left with {n % 7} people" for n in range(rows)],
        "face": [rng.normal(size=16).tolist() for _ in range(rows - 1)] + [[1.0]],
        "code": [n % 5 for n in range(rows)],
    }
    builder = Builder(categorical=("code",))
    builder.add(list(columns), list(columns.values()), [1.8e9] * rows)
    found = builder.finish().columns
    assert {name: column.kind for name, column in found.items()} == {
        "amount": "numeric",
        "flag": "boolean",
        "sent": "datetime",
        "note": "text",
        "face": "vector",
        "code": "categorical",
    }
    amount = found["amount"]
    assert (amount.mistyped, amount.nan, amount.infinite) == (1, 1, 1)
    assert set(found["sent"].series) == {"sent.hour", "sent.weekday", "sent.age"}
    assert {"note.length", "note.unseen"} < set(found["note"].series)
    unseen = found["note"].series["note.unseen"]
    assert isinstance(unseen, NumericProfile)
    assert unseen.maximum == 0.0, "every token of the baseline itself is known"
    assert len(found["face"].series) == 9
    assert found["face"].extra["length"] == 16


def test_high_cardinality_stays_bounded_and_keeps_the_heavy_ones() -> None:
    rng = np.random.default_rng(3)
    cells = [f"id{n}" for n in range(30_000)] + ["heavy"] * 5_000
    rng.shuffle(cells)
    builder = Builder(sample=1000)
    for start in range(0, len(cells), 1000):
        builder.add(("id",), [cells[start : start + 1000]])
    profile = builder.finish().columns["id"].series["id"]
    assert isinstance(profile, CategoryProfile)
    assert len(profile.counts) <= 256
    assert profile.count == len(cells)
    assert 4_900 <= profile.counts["heavy"] <= 5_000


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    for text, said in (
        ("{", "not valid JSON"),
        ("[]", "not a baseline"),
        ('{"format": "understudy-baseline", "version": 9}', "version 9"),
        ('{"format": "understudy-baseline", "version": 1}', "is damaged: columns is missing"),
    ):
        path.write_text(text)
        with pytest.raises(BaselineError, match=said):
            Baseline.load(path)
    with pytest.raises(BaselineError, match="cannot be read"):
        Baseline.load(tmp_path / "none.json")
    good = build([(1.0, "a"), (2.0, "b")], 2)
    with pytest.raises(BaselineError, match="cannot be written"):
        good.save(tmp_path / "no" / "folder.json")
    good.save(path)
    damaged = json.loads(path.read_text())
    damaged["columns"]["x"]["series"]["x"]["counts"] = [1]
    path.write_text(json.dumps(damaged))
    with pytest.raises(BaselineError, match="column 'x' is damaged: x: counts"):
        Baseline.load(path)
    good.model = "m"
    good.check("m", "3")
    with pytest.raises(BaselineError, match="not of 'other'"):
        good.check("other", "3")
    good.model_version = "2"
    with pytest.raises(BaselineError, match="version '2'"):
        good.check("m", "3")


def test_invalid_parts_are_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    score = rng.random(2000)
    columns = {
        "a": rng.normal(size=2000).tolist(),
        "b": rng.normal(size=2000).tolist(),
        "note": [f"a parcel with the number {n}" for n in range(2000)],
        "score": score.tolist(),
        "label": (rng.random(2000) < score).astype(int).tolist(),
    }
    builder = Builder(roles={"score": "prediction", "label": "target"})
    builder.add(list(columns), list(columns.values()))
    path = tmp_path / "b.json"
    builder.finish().save(path)
    good = path.read_text()
    assert plain(Baseline.load(path)) == plain(Baseline.from_dict(json.loads(good)))

    def damage(*keys: Any, to: Any) -> None:
        data = json.loads(good)
        place = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        path.write_text(json.dumps(data))

    for keys, to, said in (
        (("correlation", "matrix"), [[1.0]], "must be a square"),
        (("correlation", "matrix", 0, 1), None, "numbers from -1 to 1"),
        (("calibration", "counts"), [1, 2], "one bucket more"),
        (("calibration", "positives", 0), 10**6, "more positives"),
        (("calibration", "edges", 3), -1.0, "must rise"),
        (("performance", "accuracy", "value"), None, "'accuracy' must hold numbers"),
        (("columns", "note", "extra", "tokens"), "AAAA", "4096 bytes"),
        (("columns", "a", "series", "a", "count"), 1, "add up"),
    ):
        damage(*keys, to=to)
        with pytest.raises(BaselineError, match=said) as caught:
            Baseline.load(path)
        assert caught.value.exit_code == 2
        assert str(path) in str(caught.value)


def test_numbers_near_the_largest_and_half_surrogates_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    builder = Builder()
    note = [f"half a pair \ud800 of {n}" for n in range(300)]
    cells = [[1.7e308, -1.7e308, 5e-324] * 100, ["a\ud800", "ü", "b"] * 100, note]
    builder.add(("x", "c", "note"), cells)
    found = builder.finish()
    found.merge(found).save(path)
    again = Baseline.load(path)
    assert again.rows == 600
    x, c = again.columns["x"].series["x"], again.columns["c"].series["c"]
    assert isinstance(x, NumericProfile)
    assert isinstance(c, CategoryProfile)
    assert (x.count, x.minimum, x.maximum) == (600, -1.7e308, 1.7e308)
    assert c.counts == {"a?": 200, "ü": 200, "b": 200}


def test_vectors_of_different_lengths_do_not_merge() -> None:
    parts = []
    for length in (2, 3):
        builder = Builder()
        builder.add(("v",), [[[float(n)] * length for n in range(9)]])
        parts.append(builder.finish())
    with pytest.raises(BaselineError, match="vectors of 2 numbers in one baseline and of 3"):
        parts[0].merge(parts[1])


def test_memory_and_file_do_not_grow_with_the_rows() -> None:
    def feed(batches: range) -> None:
        for number in batches:
            numbers = [float(number * 4096 + n) for n in range(4096)]
            unique = [f"u{number}-{n}" for n in range(4096)]
            builder.add(("x", "u"), [numbers, unique])

    builder = Builder(sample=4096)
    tracemalloc.start()
    try:
        feed(range(10))
        before = tracemalloc.get_traced_memory()[0]
        feed(range(10, 40))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # Kept, the 122,880 numbers and texts of the second part would be some ten megabytes.
    assert after - before < 300_000
    found = builder.finish()
    assert found.rows == 40 * 4096
    assert len(json.dumps(found.to_dict())) < 40_000

"""Columns that are not worth comparing are recognised, and categories are counted alike."""

from __future__ import annotations

import html
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.encoder import Batch, Encoder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.baseline.profiles import HASHED, CategoryProfile
from understudy.monitor.baseline.show import notes
from understudy.monitor.cli.main import main
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

ROWS = 4_000
BEGIN = datetime(2026, 7, 6, tzinfo=UTC)


def built(columns: dict[str, list[Any]], **options: Any) -> Baseline:
    builder = Builder(model="m", **options)
    builder.add(list(columns), list(columns.values()))
    return Baseline.from_dict(json.loads(json.dumps(builder.finish().to_dict())))


def watched(baseline: Baseline, columns: dict[str, list[Any]], **options: Any) -> ModelWatch:
    watch = ModelWatch(baseline, Options(**options))
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, 200):
        parts = [column[start : start + 200] for column in columns.values()]
        ids = [b"r%d" % (start + n) for n in range(len(parts[0]))]
        times = [float(start + n) for n in range(len(parts[0]))]
        watch.evaluate(Batch(tuple(columns), parts, ids, times, False))
    return watch


def titles(watch: ModelWatch) -> list[str]:
    return [signal.title for signal in signals_of(watch, "m", "", watch.newest)]


def planes(rng: np.random.Generator, rows: int) -> list[str]:
    return [f"N{number}" for number in rng.integers(0, 5_000, rows)]


LOOKS = {
    "request": "an identifier",
    "plane": "an identifier",
    "big": "an identifier",
    "at": "a timestamp",
    "epoch": "a timestamp",
    "day": "a timestamp",
    "number": "a counter",
    "zip": None,
    "amount": None,
    "year": None,
    "born": None,
}


def columns(rng: np.random.Generator, first: int, rows: int = ROWS) -> dict[str, list[Any]]:
    times = [BEGIN + timedelta(minutes=first + n) for n in range(rows)]
    shares = 1.0 / np.arange(1.0, 301.0)
    return {
        "request": [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(rows)],
        "plane": planes(rng, rows),
        "big": [int(n) for n in rng.integers(2**60, 2**62, rows)],
        "at": [(t + timedelta(minutes=int(rng.integers(-9, 9)))).isoformat() for t in times],
        "epoch": [t.timestamp() for t in times],
        "day": [t.strftime("%d/%m/%Y") for t in times],
        "number": [float(first + n) for n in range(rows)],
        "zip": [f"z{n}" for n in rng.choice(300, rows, p=shares / shares.sum())],
        "amount": [float(n) for n in rng.integers(0, 100_000, rows)],
        "year": [float(n) for n in rng.integers(1990, 2026, rows)],
        "born": [(BEGIN - timedelta(days=int(n))).isoformat() for n in rng.integers(1, 9999, rows)],
    }


def test_identifiers_timestamps_and_counters_are_recognised_and_not_compared() -> None:
    rng = np.random.default_rng(1)
    baseline = built(columns(rng, 0))
    found = {name: column.extra.get("looks_like") for name, column in baseline.columns.items()}
    assert found == LOOKS
    texts = "\n".join(notes(baseline))
    assert "plane looks like an identifier" in texts
    assert "--ignore plane" in texts
    watch = watched(baseline, columns(rng, ROWS))
    assert titles(watch) == []
    assert watch.unwatched.keys() == {name for name, looks in LOOKS.items() if looks}
    assert any("not tested for drift: request" in text for text in watch.assumptions)
    # That they are there, and of their type, is still looked at.
    gone = columns(rng, 2 * ROWS, 1_000)
    gone["plane"] = [None] * 1_000
    assert any("plane is missing" in title for title in titles(watched(baseline, gone)))


def test_a_declared_category_of_thousands_is_compared_and_does_not_alarm() -> None:
    rng = np.random.default_rng(2)
    known = planes(rng, 20_000)
    baseline = built({"plane": known}, declared=["plane"])
    profile = baseline.columns["plane"].series["plane"]
    assert isinstance(profile, CategoryProfile)
    assert profile.count == 20_000
    assert len(profile.groups) == HASHED
    assert profile.distinct == pytest.approx(4_900, rel=0.15)
    same = watched(baseline, {"plane": planes(rng, 10_000)})
    assert titles(same) == []
    many = ["N12996" if n % 4 == 0 else name for n, name in enumerate(planes(rng, 4_000))]
    (title,) = titles(watched(baseline, {"plane": many}))
    assert title.startswith("Inputs have changed: plane, share of other categories is ")
    # The same by configuration, for a baseline that was learned live.
    learned = built({"plane": known})
    assert titles(watched(learned, {"plane": many})) == []
    assert titles(watched(learned, {"plane": many}, declared=("plane",))) == [title]


def test_counts_are_those_of_live_rows_however_many_categories_there_are() -> None:
    rng = np.random.default_rng(3)
    shares = 1.0 / np.arange(1.0, 2_001.0)
    cells = [f"c{n}" for n in rng.choice(2_000, 30_000, p=shares / shares.sum())]
    builder = Builder(declared=["c"])
    builder.begin(["c"], [cells[::3]])
    for start in range(0, len(cells), 999):
        builder.add(["c"], [cells[start : start + 999]])
    baseline = builder.finish()
    encoder = Encoder(baseline)
    batch = Batch(("c",), [cells], [b""] * len(cells), np.zeros(len(cells)))
    live = encoder.counted(encoder.encode(batch).codes)[0]
    assert live[: len(encoder.counts[0])].tolist() == encoder.counts[0].tolist()


def test_two_halves_merge_to_the_counts_of_the_whole() -> None:
    rng = np.random.default_rng(4)
    shares = 1.0 / np.arange(1.0, 601.0)
    cells = [f"c{n}" for n in rng.choice(600, 20_000, p=shares / shares.sum())]
    halves = [built({"c": part}, declared=["c"]) for part in (cells[:9_000], cells[9_000:])]
    merged = halves[0].merge(halves[1]).columns["c"].series["c"]
    assert isinstance(merged, CategoryProfile)
    assert merged.count == 20_000
    for name, count in merged.counts.items():
        assert count == cells.count(name)


def test_unseen_values_are_named_as_unseen() -> None:
    rng = np.random.default_rng(5)
    known, later = ["de", "fr", "it"], ["de", "fr", "it", "xx"]
    country = [known[n] for n in rng.choice(3, ROWS, p=[0.6, 0.3, 0.1])]
    baseline = built({"country": country})
    cells = [later[n] for n in rng.choice(4, 2_000, p=[0.45, 0.2, 0.08, 0.27])]
    watch = watched(baseline, {"country": cells})
    signals = {one.kind: one for one in signals_of(watch, "m", "", watch.newest)}
    (drift,) = signals["drift"].features
    assert drift.detail.startswith("share of categories that are not in the baseline is 2")
    assert "'it'" not in drift.detail
    assert "'xx'" in signals["quality"].title
    hidden = signals_of(watch, "m", "", watch.newest, lambda name: True)
    assert not any("xx" in json.dumps(one.to_dict()) for one in hidden)


def test_unseen_values_that_differ_are_not_stuck() -> None:
    rng = np.random.default_rng(6)
    names = ["a", "b", "c", "d"]
    baseline = built({"c": [names[n] for n in rng.integers(0, 4, ROWS)]})
    different = watched(baseline, {"c": [f"new{n}" for n in range(400)]})
    assert not different.stuck().any()
    same = watched(baseline, {"c": ["new"] * 400})
    assert same.stuck().all()


def test_the_command_proposes_and_a_declaration_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = "\n".join(f"{name},{rng.normal():.3f}" for name in planes(rng, 6_000))
    file = tmp_path / "rows.csv"
    file.write_text(f"plane,x\n{rows}\n")
    output = str(tmp_path / "b.json")
    run = CliRunner().invoke
    plain = run(main, ["baseline", "build", str(file), "-o", output])
    assert plain.exit_code == 0, plain.output
    assert "plane looks like an identifier" in " ".join(plain.output.split())
    declared = run(main, ["baseline", "build", str(file), "--declare", "plane", "-o", output])
    assert declared.exit_code == 0, declared.output
    assert "looks like" not in declared.output
    assert Baseline.load(tmp_path / "b.json").columns["plane"].extra["declared"] is True


@pytest.mark.parametrize("reference", ["before.csv", "before.json"])
def test_the_drift_report_names_what_looks_like_an_identifier(
    tmp_path: Path, reference: str
) -> None:
    rng = np.random.default_rng(8)
    run = CliRunner().invoke
    for part, first in (("before", 0), ("after", 3_000)):
        rows = [f"o-{first + n},{first + n},{rng.normal():.3f}" for n in range(3_000)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["order id,row,x", *rows]) + "\n")
    before, after = tmp_path / "before.csv", str(tmp_path / "after.csv")
    built_ = run(main, ["baseline", "build", str(before), "-o", str(tmp_path / "before.json")])
    assert built_.exit_code == 0, built_.output
    page = tmp_path / "drift.html"
    report = ["drift", "report", str(tmp_path / reference), after]
    plain = run(main, [*report, "--html", str(page)])
    assert plain.exit_code == 0, plain.output
    advice = (
        "order id looks like an identifier, so its values are not compared: leave it out "
        "(--ignore 'order id'), or compare it (--declare 'order id')"
    )
    assert advice in " ".join(plain.output.split())
    assert html.escape(advice) in " ".join(page.read_text().replace("&#39;", "&#x27;").split())
    found = json.loads(run(main, [*report, "--json"]).output)
    looks = {one["column"]: (one["looks_like"], one["verdict"]) for one in found["columns"]}
    assert looks == {
        "order id": ("an identifier", "not compared"),
        "row": ("a counter", "not compared"),
        "x": (None, "as usual"),
    }
    # The options that it proposes, as it writes them.
    ignored = json.loads(run(main, [*report, "--ignore", "order id", "--json"]).output)
    assert {one["column"] for one in ignored["columns"]} == {"x", "row"}
    assert not ignored["changed"]
    assert ignored["findings"] == []
    assert len(ignored["notes"]) == 1
    declared = json.loads(run(main, [*report, "--declare", "row", "--json"]).output)
    verdicts = {one["column"]: one["verdict"] for one in declared["columns"]}
    assert verdicts["row"] == "range"
    unknown = run(main, [*report, "--declare", "rwo"])
    assert unknown.exit_code != 0
    assert "--declare" in unknown.output

"""Replay and plan: the same numbers as live, and clear errors for bad files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from understudy.monitor.cli.main import main
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.shadow.experiment import Experiment, Hypothesis, Pairs, Split
from understudy.shadow.experiment.planning import Traffic, plan
from understudy.shadow.experiment.rules import BUILT_IN

METRICS = [
    {"metric": "error_rate", "margin": "2 pp"},
    {"metric": "accuracy", "role": "success", "base_rate": 0.6},
    {"metric": "latency_mean", "margin": "10 %"},
]


def declared(folder: Path, **changes: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(json.dumps({"name": "x", "metrics": METRICS, **changes}))
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["experiment", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def pairs(rng: np.random.Generator, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    correct = rng.random(n)
    latency = rng.lognormal(-3, 0.3, n)
    label = np.where(rng.random(n) < 0.2, np.nan, 1.0)  # not every label has come
    return {
        "error": ((rng.random(n) < 0.02) * 1.0, (rng.random(n) < 0.02) * 1.0),
        "correct": ((correct < 0.6) * label, (correct < 0.7) * label),
        "latency": (latency, latency * rng.lognormal(0, 0.1, n)),
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_pairs_give_the_same_numbers_as_live(tmp_path: Path, kind: str) -> None:
    columns = pairs(np.random.default_rng(1), 9000)
    rows = [
        {
            f"{arm}.{name}": None if np.isnan(v) else float(v)
            for name, both in columns.items()
            for arm, v in (("champion", both[0][i]), ("challenger", both[1][i]))
        }
        for i in range(9000)
    ]
    file = declared(tmp_path)
    live = Experiment(
        "x",
        ["challenger"],
        rules_of(Declared(name="x", challengers=["challenger"], metrics=METRICS)),
    )  # type: ignore[arg-type]
    for start in range(0, 9000, 250):  # batches of another size than the file's
        part = slice(start, start + 250)
        batch = {name: (a[part], b[part]) for name, (a, b) in columns.items()}
        live.contests["challenger"].update_pairs(Pairs(batch, 250))
    wanted = live.decide("shadow", 0.0)["challenger"].to_dict()
    code, output = run(
        "replay", write(tmp_path / f"log.{kind}", rows), "--experiment", file, "--json"
    )
    found = json.loads(output)
    assert (found["rows"], found["mode"], found["decision"]) == (9000, "shadow", "promote")
    assert code == 0
    for mine, theirs in zip(found["metrics"], wanted["metrics"], strict=True):
        assert mine["records"] == theirs["records"]
        for key in ("champion", "challenger", "log_e", "log_e_harm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-9, abs=1e-9)
        assert mine["difference"] == pytest.approx(theirs["difference"], rel=1e-6)


def test_records_of_split_traffic(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    n = 6000
    arms = (rng.random(n) < 0.3).astype(float)
    error = (rng.random(n) < np.where(arms == 1, 0.2, 0.02)).astype(float)
    rows = [
        {"arm": ("champion", "challenger")[int(a)], "share": 0.3, "error": e}
        for a, e in zip(arms, error, strict=True)
    ]
    file = declared(tmp_path, mode="split", metrics=METRICS[:1])
    code, output = run("replay", write(tmp_path / "log.csv", rows), "--experiment", file, "--json")
    found = json.loads(output)
    assert (code, found["decision"]) == (11, "rollback")
    live = Experiment(
        "x",
        ["challenger"],
        rules_of(Declared(name="x", challengers=["challenger"], metrics=METRICS[:1])),
    )  # type: ignore[arg-type]
    live.contests["challenger"].update_split(Split(arms, np.full(n, 0.3), {"error": error}))
    wanted = live.decide("split", 0.0)["challenger"].to_dict()["metrics"][0]
    assert found["metrics"][0]["log_e_harm"] == pytest.approx(wanted["log_e_harm"], abs=1e-9)


def split_rows(seed: int, n: int, drawn: float, share: float, rates: tuple[float, float]) -> Any:
    rng = np.random.default_rng(seed)
    arms = rng.random(n) < drawn
    errors = rng.random(n) < np.where(arms, rates[1], rates[0])
    return [
        {"arm": int(a), "share": share, "error": int(e)}
        for a, e in zip(arms.tolist(), errors.tolist(), strict=True)
    ]


def test_a_file_with_a_broken_split_is_invalid(tmp_path: Path) -> None:
    """30 of 100 rows where 50 were configured: it was promoted once."""
    rows = split_rows(3, 4000, 0.3, 0.5, (0.02, 0.02))
    log = write(tmp_path / "log.csv", rows)
    file = declared(tmp_path, mode="split", metrics=METRICS[:1])
    code, output = run("replay", log, "--experiment", file, "--json")
    found = json.loads(output)
    assert (code, found["decision"], found["cause"]) == (12, "invalid", "split")
    assert "sample ratio mismatch: requests assigned" in found["why"][0]
    assert "+0.00 pp" not in output
    honest = write(tmp_path / "log.csv", split_rows(3, 4000, 0.3, 0.3, (0.02, 0.02)))
    assert run("replay", honest, "--experiment", file, "--json")[0] == 0


def test_shares_that_change_are_epochs(tmp_path: Path) -> None:
    rows = [
        *split_rows(1, 2000, 0.1, 0.1, (0.02, 0.02)),
        *split_rows(2, 2000, 0.5, 0.5, (0.02, 0.02)),
    ]
    file = declared(tmp_path, mode="split", metrics=METRICS[:1])
    code, output = run("replay", write(tmp_path / "a.csv", rows), "--experiment", file, "--json")
    assert json.loads(output)["decision"] in ("promote", "continue")
    mixed = [row for pair in zip(rows[:2000], rows[2000:], strict=True) for row in pair]
    code, output = run("replay", write(tmp_path / "b.csv", mixed), "--experiment", file)
    assert code == 2
    assert "share: changes more than 1,000 times" in output


def test_every_look_counts_as_live(tmp_path: Path) -> None:
    """Harm at the start that later rows dilute: live rolled it back."""
    rows = [
        *split_rows(4, 1500, 0.5, 0.5, (0.02, 0.3)),
        *split_rows(5, 30_000, 0.5, 0.5, (0.3, 0.02)),
    ]
    file = declared(tmp_path, mode="split", metrics=METRICS[:1])
    code, output = run("replay", write(tmp_path / "a.csv", rows), "--experiment", file, "--json")
    found = json.loads(output)
    assert (code, found["decision"]) == (11, "rollback")
    assert found["decided_after"] <= 1536


def clustered(seed: int, users: int, n: int, **more: Any) -> list[dict[str, Any]]:
    """A/A of users with an error rate and an activity of their own."""
    rng = np.random.default_rng(seed)
    arms = (rng.random(users) < 0.5).astype(int)
    rates = rng.beta(0.3, 5.0, users)
    weight = rng.gamma(0.5, 1.0, users)
    who = rng.choice(users, n, p=weight / weight.sum())
    return [
        {"arm": int(arms[u]), "share": 0.5, "error": int(e), "unit": f"u{u}", **more}
        for u, e in zip(who.tolist(), (rng.random(n) < rates[who]).tolist(), strict=True)
    ]


def test_files_of_the_same_users_are_neither_promoted_nor_rolled_back(tmp_path: Path) -> None:
    """Row by row, 20 of 30 such files got a verdict. By unit, each of the two errors has a
    probability of at most 0.05 (so 3 of 30 in the mean, if both were exhausted)."""
    unit = {"by": "header", "name": "x-user"}
    metrics = [{"metric": "error_rate", "role": "success"}]
    file = declared(tmp_path, mode="split", metrics=metrics, unit=unit)
    wrong = 0
    for seed in range(30):
        log = write(tmp_path / "log.csv", clustered(seed, 400, 4000))
        code, output = run("replay", log, "--experiment", file, "--json")
        assert json.loads(output)["decision"] != "invalid"
        wrong += code != 10
    assert wrong <= 4


def test_units_are_needed_where_units_are_assigned(tmp_path: Path) -> None:
    unit = {"by": "header", "name": "x-user"}
    file = declared(tmp_path, mode="split", metrics=METRICS[:1], unit=unit)
    rows = split_rows(1, 10, 0.5, 0.5, (0.0, 0.0))
    code, output = run("replay", write(tmp_path / "log.csv", rows), "--experiment", file)
    assert code == 2
    assert "the column unit is missing: the experiment assigns units (unit.by: header)" in output
    rows = [{**row, "unit": "u" if i else ""} for i, row in enumerate(rows)]
    code, output = run("replay", write(tmp_path / "log.csv", rows), "--experiment", file)
    assert code == 2
    assert "line 2: unit: is missing" in output


def test_times_of_rows_are_the_clock(tmp_path: Path) -> None:
    """A minimum duration is kept by the rows' own time."""
    rows = split_rows(6, 3000, 0.5, 0.5, (0.02, 0.02))
    timed = [{"time": 1.7e9 + i * 0.01, **row} for i, row in enumerate(rows)]
    changes = {"mode": "split", "metrics": METRICS[:1], "minimum_duration": "1m"}
    file = declared(tmp_path, **changes)
    assert run("replay", write(tmp_path / "a.csv", rows), "--experiment", file)[0] == 0
    code, output = run("replay", write(tmp_path / "b.csv", timed), "--experiment", file)
    assert code == 10
    assert "of at least 60 s" in output
    later = [{**row, "time": f"2026-05-01T12:{i // 60:02d}:00Z"} for i, row in enumerate(rows)]
    assert run("replay", write(tmp_path / "c.csv", later), "--experiment", file)[0] == 0
    odd = write(tmp_path / "d.csv", [{**timed[0], "time": "noon"}])
    code, output = run("replay", odd, "--experiment", file)
    assert code == 2
    assert "line 2: time: 'noon' is not a time" in output


BAD = {
    "a text": ("champion.error,challenger.error\n0,yes\n", "line 2: challenger.error: 'yes' is no"),
    "no binary": ("champion.error,challenger.error\n0,0\n0,2\n", "line 3: challenger.error: must"),
    "no column": (
        "a,b\n1,2\n",
        "needs one of the columns champion.accuracy".replace("accuracy", ""),
    ),
    "empty": ("champion.error,challenger.error\n", "contains no rows"),
    "cells": ("champion.error,challenger.error\n0\n", "line 2: has 1 cells instead of 2"),
    "arm": ("arm,share,error\nboth,0.5,0\n", "line 2: arm: must be champion or challenger"),
    "share": ("arm,share,error\n1,1.5,0\n", "line 2: share: must lie between 0 and 1"),
    "no share": ("arm,error\n1,0\n", "the column share is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_faults_in_a_log_name_the_line(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    log = tmp_path / "log.csv"
    log.write_text(text)
    code, output = run("replay", log, "--experiment", declared(tmp_path))
    assert code == 2
    assert message in output
    assert str(log) in output


def test_missing_files_and_files_of_another_kind(tmp_path: Path) -> None:
    file = declared(tmp_path)
    code, output = run("replay", tmp_path / "none.csv", "--experiment", file)
    assert (code, "cannot be read" in output) == (2, True)
    odd = tmp_path / "log.xlsx"
    odd.write_text("")
    code, output = run("replay", odd, "--experiment", file)
    assert (code, "must end in .csv, .jsonl or .parquet" in output) == (2, True)
    broken = tmp_path / "log.parquet"
    broken.write_text("no parquet")
    code, output = run("replay", broken, "--experiment", file)
    assert (code, "not a Parquet file" in output) == (2, True)
    bad = declared(tmp_path, metrics=[{"metric": "error_rate", "margin": 0.01}])
    code, output = run("plan", bad)
    assert code == 2
    assert "metrics[0].margin: 0.01 has no unit" in output


def test_a_plan_agrees_with_another_simulation() -> None:
    """Median and 80th percentile of 300 simulated experiments, twice with different seeds.

    Each is estimated with a standard error of about 6 %; 40 % apart is beyond six of them.
    """
    spec = {"metric": "accuracy", "role": "success", "effect": "4 pp", "base_rate": 0.8}
    hypothesis = Hypothesis.parse(spec, "m", 0.05)
    first, second = (plan(hypothesis, Traffic(), streams=300, seed=s) for s in (1, 2))
    assert first.reached == second.reached == 1.0
    for mine, theirs in ((first.median, second.median), (first.p80, second.p80)):
        assert mine == pytest.approx(theirs, rel=0.4)
    assert 0.5 * first.fixed < first.median < 1.5 * first.fixed


BY_EXACT = [
    ({"metric": "accuracy", "role": "success", "effect": "5 pp", "base_rate": 0.8}, Traffic(0.5)),
    ({"metric": "accuracy", "role": "success", "effect": "4 pp", "base_rate": 0.8}, Traffic()),
    ({"metric": "error_rate", "margin": "50 %", "base_rate": 0.1}, Traffic(0.5)),
    ({"metric": "error_rate", "margin": "50 %", "base_rate": 0.1}, Traffic()),
    ({"metric": "error_rate", "margin": "2 pp"}, Traffic()),
    ({"metric": "latency_mean", "margin": "15 %"}, Traffic(0.5)),
    ({"metric": "latency_p90", "margin": "30 %"}, Traffic(0.5)),
    ({"metric": "brier", "margin": "0.05 units"}, Traffic(assumed=frozenset({"values"}))),
]


@pytest.mark.simulation
@pytest.mark.parametrize(("spec", "traffic"), BY_EXACT, ids=lambda one: str(one)[:40])
def test_a_plan_agrees_with_every_record_fed_to_the_measure(
    spec: dict[str, Any], traffic: Traffic
) -> None:
    """Medians of 60 exact streams have a standard error of up to 15 %: six of them are a factor of
    2.4, and the seeds are fixed."""
    hypothesis = Hypothesis.parse(spec, "m", 0.05)
    fast = plan(hypothesis, traffic, streams=1000)
    exact = plan(hypothesis, traffic, streams=60, seed=2, exact=True)
    assert fast.reached == exact.reached == 1.0
    assert 1 / 2.4 < fast.median / exact.median < 2.4
    assert 1 / 2.4 < fast.p80 / exact.p80 < 2.4


def test_a_plan_of_tails_at_fifty_requests_a_second(tmp_path: Path) -> None:
    """It printed nothing in six minutes; now 1,000 experiments of each metric take seconds."""
    metrics = [{"metric": f"latency_{p}", "margin": "10 %"} for p in ("p50", "p95", "p99", "p99.9")]
    file = declared(tmp_path, mode="canary", metrics=metrics)
    code, output = run("plan", file, "--rate", "50", "--limit", "2000000", "--json")
    assert code == 0
    found = json.loads(output)
    assert found["share"] == 0.5, "the largest stage of a canary below all of the traffic"
    rows = {row["metric"]: row["median"] for row in found["metrics"]}
    assert rows["latency_p50"] < rows["latency_p95"] < rows["latency_p99"] < rows["latency_p99.9"]


def test_a_plan_of_the_sidecars_own_file(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "docs" / "understudy.yaml"
    config = yaml.safe_load(example.read_text())
    first = {"name": "first", "challengers": [config["challengers"][0]["name"]], "mode": "shadow"}
    first |= {"model": config["models"][0]["name"], "label": {"prediction": "p"}}
    first["metrics"] = [METRICS[1] | {"effect": "5 pp"}, METRICS[2]]
    config["experiments"] = [first]
    path = tmp_path / "understudy.yaml"
    path.write_text(yaml.safe_dump(config))
    code, output = run("plan", path)
    assert code == 0, output
    assert "first: requests of the challenger" in output
    assert "latency_mean: mirrored requests do not decide on latency; plan split" in output
    second = {**first, "name": "second", "challengers": [config["challengers"][-1]["name"]]}
    config["experiments"].append(second)
    path.write_text(yaml.safe_dump(config))
    code, output = run("plan", path)
    assert code == 2
    assert "experiments: choose one with --name: first, second" in output
    assert run("plan", path, "--name", "second", "--json")[0] == 0
    code, output = run("plan", path, "--name", "third")
    assert (code, "none is named 'third'; there are: first, second" in output) == (2, True)


def test_a_plan_names_what_cannot_be_planned(tmp_path: Path) -> None:
    file = declared(tmp_path, metrics=[{"metric": "accuracy", "role": "success"}])
    code, output = run("plan", file)
    assert code == 2
    assert "needs an effect" in output


def test_a_plan_as_json(tmp_path: Path) -> None:
    file = declared(tmp_path, metrics=[{"metric": "error_rate", "margin": "5 pp"}])
    code, output = run("plan", file, "--share", "0.2", "--streams", "20", "--rate", "5", "--json")
    found = json.loads(output)
    assert code == 0
    assert found["mode"] == "split"
    row = found["metrics"][0]
    assert row["median"] > 0
    assert row["days_median"] == pytest.approx(row["median"] / 1.0 / 86400)


REWARD = {"metric": "reward", "role": "success", "effect": "5 units"}


def planned(folder: Path, metric: dict[str, Any], *options: object) -> dict[str, Any]:
    file = declared(folder, mode="split", metrics=[metric])
    common = ("--share", "0.5", "--streams", "20", "--json")
    code, output = run("plan", file, *common, *options)
    assert code == 0, output
    found: dict[str, Any] = json.loads(output)["metrics"][0]
    return found


def test_a_plan_says_what_it_assumes(tmp_path: Path) -> None:
    found = planned(tmp_path, REWARD)
    assert "assumes normal values: mean 1, deviation 1, no heavy tails" in found["warnings"][0]
    assert "pass it with --values" in found["warnings"][0]
    assert planned(tmp_path, REWARD, "--deviation", "8")["warnings"] == []
    code, output = run("plan", declared(tmp_path, metrics=[REWARD]), "--streams", "20")
    assert code == 0
    assert "reward: assumes normal values" in output


def test_a_plan_takes_measured_values_and_warns_of_heavy_tails(tmp_path: Path) -> None:
    """Lognormal values with sd 2 of the logarithm: mean 7.4, deviation 54."""
    rng = np.random.default_rng(8)
    values = tmp_path / "values.csv"
    rewards = np.exp(2.0 * rng.standard_normal(20_000))
    values.write_text("reward\n" + "\n".join(f"{v:.6g}" for v in rewards) + "\n")
    heavy = planned(tmp_path, REWARD, "--values", values)
    assert "heavy tails: 1 % of the values make" in heavy["warnings"][0]
    assert f"the 99th percentile is {np.quantile(rewards, 0.99):.3g}" in heavy["warnings"][0]
    naive = planned(tmp_path, REWARD, "--deviation", "1")
    assert heavy["median"] > 100 * naive["median"], "deviation 1 was a promise without ground"
    capped = planned(tmp_path, {**REWARD, "cap": "50 units"}, "--values", values)
    assert capped["warnings"] == []
    assert capped["median"] < 0.2 * heavy["median"]


def test_a_declared_skew_is_heavy_as_well(tmp_path: Path) -> None:
    found = planned(tmp_path, REWARD, "--deviation", "10", "--skew", "8")
    assert "heavy tails" in found["warnings"][0]
    plain = planned(tmp_path, REWARD, "--deviation", "10")
    assert found["median"] > plain["median"]


def test_values_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = declared(tmp_path, metrics=[REWARD])
    values = tmp_path / "values.csv"
    values.write_text("amount\n1\n")
    code, output = run("plan", file, "--values", values)
    assert code == 2
    assert "needs a column of reward; has amount" in output
    values.write_text("reward\n1\nmuch\n")
    code, output = run("plan", file, "--values", values)
    assert code == 2
    assert "line 3: reward: 'much' is not a number" in output
    # A rate is planned from its base rate, whatever was measured.
    values.write_text("error\n1\n0\n")
    rate = {"metric": "error_rate", "margin": "1 pp"}
    code, output = run("plan", declared(tmp_path, metrics=[rate]), "--values", values)
    assert code == 2
    assert "all metrics are rates, which are planned from their `base_rate`" in output


def test_what_is_not_simulated_is_named(tmp_path: Path) -> None:
    metrics = [{"metric": "auc", "margin": "1 pp"}, {"metric": "recall", "margin": "5 pp"}]
    code, output = run("plan", declared(tmp_path, metrics=metrics), "--streams", "20", "--json")
    assert code == 0
    found = json.loads(output)
    assert found["not_simulated"] == ["auc"]
    assert [row["metric"] for row in found["metrics"]] == ["recall", BUILT_IN]

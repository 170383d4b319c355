"""Metrics of labels, capped, adjusted and ratio metrics: from the configuration to the decision."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from understudy.common.codecs import Table
from understudy.monitor.cli.main import main
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.experiment import Label
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.blocks import Builder
from understudy.monitor.evidence.collector import EvidenceCollector
from understudy.monitor.evidence.observe import of_label
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.text import scale_of
from understudy.monitor.labels.store import Joined
from understudy.monitor.records import record as records
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record
from understudy.shadow.experiment.rules import BUILT_IN

DOCS = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"
NOW = 1_000_000.0


def replay(folder: Path, experiment: dict[str, Any], rows: list[dict[str, float]]) -> Any:
    names = list(rows[0])
    log = folder / "log.csv"
    lines = [",".join(names)]
    lines += [",".join("" if math.isnan(r[n]) else f"{r[n]:.9g}" for n in names) for r in rows]
    log.write_text("\n".join(lines) + "\n")
    file = folder / "x.yaml"
    file.write_text(json.dumps({"name": "x", **experiment}))
    done = CliRunner().invoke(
        main, ["experiment", "replay", str(log), "--experiment", str(file), "--json"]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert done.exit_code in (0, 10, 11), done.output
    return json.loads(done.output)


@pytest.mark.parametrize(
    ("label", "how", "wanted"),
    [
        (1, {}, {"correct": 1, "recalled": 1, "true_positive": 1, "predicted_positive": 1,
                 "score": 0.8, "positive": 1, "brier": 0.04, "log_loss": -math.log(0.8)}),
        (0, {}, {"correct": 0, "rejected": 0, "true_positive": 0, "predicted_positive": 1,
                 "score": 0.8, "positive": 0, "brier": 0.64, "log_loss": -math.log(0.2)}),
    ],
)  # fmt: skip
def test_what_follows_from_a_score_and_its_label(
    label: object, how: dict[str, Any], wanted: dict[str, float]
) -> None:
    found = of_label({"p": 0.8}, label, Label(prediction="p", threshold=0.5, **how))
    found.pop("absolute_error")
    assert found == pytest.approx(wanted)


def test_what_follows_from_a_class_and_its_label() -> None:
    how = Label(prediction="kind", positive="fraud", score="p")
    found = of_label({"kind": "fine", "p": 0.1}, "fraud", how)
    assert found == pytest.approx(
        {"correct": 0, "recalled": 0, "true_positive": 0, "predicted_positive": 0,
         "score": 0.1, "positive": 1, "brier": 0.81, "log_loss": -math.log(0.1)}
    )  # fmt: skip
    assert of_label({"kind": "a"}, "b", Label(prediction="kind")) == {"correct": 0.0}
    assert of_label({"y": 3.5}, 5, Label(prediction="y")) == {"correct": 0.0, "absolute_error": 1.5}


def joined(number: int, arm: str, score: float, label: float, mirrored: bool) -> Joined:
    return Joined(
        number, f"r{number}", arm, mirrored, "m", 0.0 if mirrored else 0.5, NOW, {"p": score}, 0,
        label, None, NOW + 1, 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("score", [5.0, -0.1, None, "high"])
def test_a_score_that_is_not_a_probability_stays_in_the_evidence(score: object) -> None:
    """The bounds of Brier score and log loss exclude the value, and so it counts as unknown."""
    how = Label(prediction="kind", positive="fraud", score="p")
    found = of_label({"kind": "fine", "p": score}, "fraud", how)
    assert found["brier"] == found["log_loss"] == -1.0
    assert found["correct"] == 0.0


def test_labels_reach_every_metric_in_the_shadow_and_in_a_split() -> None:
    metrics = [
        {"metric": "recall", "margin": "5 pp"},
        {"metric": "specificity", "margin": "5 pp"},
        {"metric": "precision", "margin": "5 pp"},
        {"metric": "auc", "margin": "5 pp"},
        {"metric": "brier", "margin": "0.05 units"},
        {"metric": "log_loss", "margin": "10 %"},
        {"metric": "calibration_error", "margin": "5 pp"},
        {"metric": "absolute_error", "margin": "10 %", "cap": "0.5 units"},
    ]
    declared = Declared.model_validate(
        {
            "name": "x",
            "challengers": ["candidate"],
            "metrics": metrics,
            "label": {"prediction": "p", "threshold": 0.5},
        }
    )
    arms = Arms("champion", "", {"candidate": 1.0}, b"salt")
    collector = EvidenceCollector(declared, arms, dict)
    live = LiveExperiment(declared, arms, NOW)
    rng = np.random.default_rng(1)
    for number in range(1200):
        label = float(rng.random() < 0.5)
        noise = rng.random(2)
        given = [0.5 * label + 0.5 * float(x) for x in noise]
        mirrored = [
            joined(number, "champion", given[0], label, False),
            joined(number, "candidate", given[1], label, True),
        ]
        collector.take_labels(mirrored)
    live.feed(collector.drain())
    for mode in ("shadow", "split"):
        evidence = live.experiment.contests["candidate"].evidence(mode, 0.05)
        found = {item.name: item for item in evidence}
        assert len(found) == len(metrics) + 1
        assert found[BUILT_IN].records == (0, 0), "labels are not requests"
        for name in ("recall", "precision", "specificity"):
            assert min(found[name].records) > 200 if mode == "shadow" else True
        assert found["auc"].records[0] > 30
        assert found["calibration_error"].records[0] >= 4
        capped = found["absolute_error(capped at 0.5 units)"]
        assert capped.estimates[0] is not None
        assert capped.estimates[0] < 0.5
        assert found["precision"].estimates[0] == pytest.approx(1.0, abs=0.01)


def test_a_cap_is_applied_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = [
        {"arm": float(a), "share": 0.5, "latency": float(x)}
        for a, x in zip(
            rng.random(6000) < 0.5, np.exp(2.5 * rng.standard_normal(6000)), strict=True
        )
    ]
    metrics = [
        {"metric": "latency_mean", "margin": "10 %", "cap": "5 s"},
        {"metric": "latency_mean", "margin": "10 %"},
    ]
    found = replay(tmp_path, {"mode": "split", "metrics": metrics}, rows)["metrics"]
    assert [item["metric"] for item in found] == [
        "latency_mean(capped at 5000 ms)",
        "latency_mean",
        BUILT_IN,
    ]
    capped = np.minimum([r["latency"] for r in rows if not r["arm"]], 5.0).mean()
    assert found[0]["champion"] == pytest.approx(capped, rel=1e-6)
    assert found[0]["champion"] < 0.5 * found[1]["champion"]
    assert "capped at 5000 ms" in found[0]["claim"]
    assert None not in found[0]["difference"], "with a cap there is an interval"
    assert scale_of(found[0]["metric"]) == (1e3, " ms")


def test_a_covariate_and_a_ratio_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(6000):
        x, arm, views = rng.standard_normal(), float(rng.random() < 0.5), 1.0 + rng.poisson(3)
        rows.append(
            {
                "arm": arm,
                "share": 0.5,
                "reward": 2.0 * x + rng.standard_normal() + 0.2 * arm,
                "input:before": x if rng.random() < 0.9 else math.nan,
                "field:clicks": float(rng.binomial(int(views), 0.2 + 0.1 * arm)),
                "field:views": views,
            }
        )
    metrics = [
        {"metric": "reward", "role": "success", "covariate": "before"},
        {"metric": "ratio", "role": "success", "field": "clicks", "per": "views"},
    ]
    found = replay(tmp_path, {"mode": "split", "metrics": metrics}, rows)
    reward, ratio, usable = found["metrics"]
    assert reward["status"] == ratio["status"] == "passed"
    assert usable["metric"] == BUILT_IN
    assert sum(usable["records"].values()) == 6000, "a request without an error has an answer"
    assert "explains 7" in reward["note"] or "explains 8" in reward["note"]
    assert ratio["metric"] == "ratio(clicks / views)"
    assert ratio["champion"] == pytest.approx(0.2, abs=0.02)
    assert ratio["challenger"] == pytest.approx(0.3, abs=0.02)


BAD = [
    ([{"metric": "auc", "margin": "1 pp"}], {}, "label: is required by auc"),
    ([{"metric": "auc", "margin": "1 pp"}], {"label": {"prediction": "p"}}, "label.score"),
    ([{"metric": "total_per_unit", "field": "a", "margin": "1 %"}], {}, "unit: is required by"),
    ([{"metric": "ratio", "field": "a", "margin": "1 %"}], {}, "needs the output that it is"),
    ([{"metric": "prediction", "field": "a", "per": "b", "margin": "1 %"}], {}, "not a ratio"),
    ([{"metric": "error_rate", "margin": "1 pp", "cap": "1 pp"}], {}, "nothing is capped"),
    ([{"metric": "reward", "margin": "1 %", "cap": "5 %"}], {}, "must be a value, not a share"),
    ([{"metric": "reward", "margin": "1 %", "cap": ["5 units", "1 units"]}], {}, "must be below"),
    ([{"metric": "error_rate", "margin": "1 pp", "covariate": "x"}], {}, "only means are"),
    (
        [{"metric": "reward", "margin": "1 %", "cap": "5 units", "bounds": [0, 1]}],
        {},
        "bounded values need no cap",
    ),
]


@pytest.mark.parametrize(("metrics", "more", "message"), BAD, ids=[m for *_, m in BAD])
def test_errors_name_what_is_missing(
    tmp_path: Path, metrics: list[dict[str, Any]], more: dict[str, Any], message: str
) -> None:
    document = {
        "version": 1,
        "listen": "127.0.0.1:1",
        "models": [{"name": "m"}],
        "champion": {"name": "champion", "url": "http://127.0.0.1:2"},
        "challengers": [{"name": "candidate", "url": "http://127.0.0.1:3"}],
        "experiments": [{"name": "x", "challengers": ["candidate"], "metrics": metrics, **more}],
    }
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(document), "x.yaml", tmp_path)
    assert message in str(caught.value)


def test_the_examples_of_the_page_are_valid_and_decide(tmp_path: Path) -> None:
    """The second YAML example of docs/experiments.md, run over records with all its columns."""
    text = DOCS.read_text(encoding="utf-8")
    example = next(
        block
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if "total_per_unit" in block
    )
    experiment = yaml.safe_load(example)["experiments"][0]
    metrics = [m for m in experiment["metrics"] if m["metric"] != "total_per_unit"]
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(2000):
        score = rng.random()
        label = float(rng.random() < score)
        rows.append(
            {
                "arm": float(rng.random() < 0.5), "share": 0.5, "latency": 0.1, "error": 0.0,
                "reward": rng.random(), "input:basket_value": rng.random(), "field:clicks": 1.0,
                "field:views": 2.0, "score": score, "positive": label,
                "recalled": float(score > 0.5) if label else math.nan,
                "true_positive": float(label and score > 0.5),
                "predicted_positive": float(score > 0.5), "brier": (score - label) ** 2,
                "field:revenue": 1.0,
            }
        )  # fmt: skip
    given = {**experiment, "metrics": metrics, "unit": {"by": "request"}}
    found = replay(tmp_path, given, rows)
    assert len(found["metrics"]) == len(metrics) + 1
    assert found["metrics"][-1]["metric"] == BUILT_IN
    for item in found["metrics"]:
        assert min(item["records"].values()) > 0, item["metric"]


def test_a_covariate_waits_for_the_label_with_its_prediction() -> None:
    """A reward comes later than its request: the field of the request is kept until then."""
    metrics = [{"metric": "reward", "role": "success", "covariate": "before"}]
    declared = Declared.model_validate(
        {
            "name": "x",
            "challengers": ["candidate"],
            "mode": "split",
            "weights": {"candidate": 0.5},
            "metrics": metrics,
        }
    )
    arms = Arms("champion", "", {}, b"salt")
    collector = EvidenceCollector(declared, arms, dict)
    live = LiveExperiment(declared, arms, NOW)
    rng = np.random.default_rng(6)
    names = Names(1, (("m", "1", "auto"),), ("champion", "candidate"))
    for number in range(3000):
        builder = Builder("", "", 1)
        x, arm = float(rng.standard_normal()), int(rng.random() < 0.5)
        one = a_record(number, arm)
        builder.add(names, one, Table(("before",), 1, [x]), Table(("p",), 1, [0.5]), NOW)
        (block,) = builder.flush(NOW, everything=True)
        columns = BlockColumns(block, 0, "champion")
        (given,) = collector.covariates_of(columns, np.array([0]))
        assert given == {"input:before": [x]}
        reward = 2.0 * x + float(rng.standard_normal()) + 0.2 * arm
        outputs: dict[str, object] = {"p": 0.5, "input:before": x}
        name = ("champion", "candidate")[arm]
        collector.take_labels(
            [Joined(number, f"r{number}", name, False, "m", 0.5, NOW, outputs, 0, None, reward,
                    NOW + 1, 1.0, "x")]
        )  # fmt: skip
    live.feed(collector.drain())
    evidence, usable = live.experiment.contests["candidate"].evidence("split", 0.05)
    assert (usable.name, usable.records) == (BUILT_IN, (0, 0)), "labels are not requests"
    assert sum(evidence.records) == 3000
    assert "adjusted for before, which explains 8" in evidence.note or "explains 7" in evidence.note
    assert evidence.difference.lower > 0.0


def a_record(number: int, arm: int) -> Record:
    one = Record()
    one.proxy_id = 0
    one.sampled = False
    one.span = one.events = b""
    one.request_id = b"r%d" % number
    one.role, one.outcome, one.assigned = records.ROLE_PRIMARY, records.OK, 0
    one.unit, one.arm = b"", arm
    one.started, one.duration_ns = NOW + 10, 10_000_000
    one.model, one.status, one.trace_id, one.target = 0, 200, b"", b""
    one.first_byte_ns = one.queue_ns = one.request_size = one.response_size = 0
    one.request_headers = one.response_headers = b""
    one.request_body = one.response_body = None
    return one

"""Shares of an error budget add up to the budget, in the objects that a configuration builds.

A probability that is spent twice is no probability any more. Of experiments the shares are those
of the hypotheses that are really tested; of models the run lengths that really reach the detectors,
as rates of false alarms: one over the run length of each series.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import understudy.monitor.detectors
from tests.support.evaluation import config_of
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.config.load import parse
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.evidence.pending import PREFIX
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.health.drift import limits
from understudy.monitor.health.performance.declared import DeclaredSegments
from understudy.monitor.health.performance.segments import MOST, REFERENCE
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.health.watches import Watches
from understudy.monitor.labels.store import Joined
from understudy.shadow.experiment.margin import Margin, Unit

RUN_LENGTH = 250_000.0

# Experiments --------------------------------------------------------------------------------------

YAML = """
version: 1
listen: 127.0.0.1:0
state_dir: {folder}
models: [{{name: delays}}]
champion: {{name: champion, url: 'http://127.0.0.1:1'}}
challengers:
- {{name: candidate, url: 'http://127.0.0.1:2'}}
- {{name: other, url: 'http://127.0.0.1:3'}}
experiments:
- name: x
  alpha: 0.04
  challengers: [candidate, other]
  label: {{prediction: p, threshold: 0.5}}
"""
DEFAULT = ""
EVEN = """
  metrics:
  - {metric: error_rate, margin: 1 pp}
  - {metric: latency_p99, margin: 20 %}
  - {metric: accuracy, role: success}
"""
PARTLY_GIVEN = """
  promote: any
  metrics:
  - {metric: error_rate, margin: 1 pp, alpha: 0.01}
  - {metric: latency_mean, margin: 20 ms, bounds: [0, 1]}
  - {metric: accuracy, role: success, alpha: 0.02}
  - {metric: reward, role: success, bounds: [0, 1]}
  - {metric: latency_tail}
"""
ALL_GIVEN = """
  metrics:
  - {metric: error_rate, margin: 1 pp, alpha: 0.03}
  - {metric: latency_p95, margin: 20 %, alpha: 0.01}
"""


def declared(folder: Path, metrics: str) -> Config:
    return parse(YAML.format(folder=folder) + metrics, "understudy.yaml", folder)


@pytest.mark.parametrize("metrics", [DEFAULT, EVEN, PARTLY_GIVEN, ALL_GIVEN])
def test_hypotheses_share_the_alpha_of_their_experiment(tmp_path: Path, metrics: str) -> None:
    runner = ExperimentRunner(declared(tmp_path, metrics))
    experiment = runner.live["x"].experiment
    assert experiment.rules.alpha == 0.04
    for contest in experiment.contests.values():
        for mode in ("shadow", "split"):
            tested = [one.hypothesis for one in contest.evidence(mode, experiment.rules.alpha)]
            assert len(tested) == len(experiment.rules.hypotheses)
            assert sum(one.alpha for one in tested) == pytest.approx(0.04, abs=1e-9)
            assert all(one.alpha > 0.0 for one in tested)


@pytest.mark.parametrize(
    "metrics",
    [
        # More than there is.
        ALL_GIVEN.replace("0.01", "0.0101"),
        # All of it, and another one wants some.
        ALL_GIVEN + "  - {metric: timeout_rate, margin: 1 pp}\n",
    ],
)
def test_a_budget_of_alpha_that_is_overdrawn_is_refused(tmp_path: Path, metrics: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics: the shares of alpha add up to"):
        declared(tmp_path, metrics)


# Models -------------------------------------------------------------------------------------------


class Rates:
    """False alarms per row that detectors were made with, by what asked for them."""

    def __init__(self) -> None:
        self.by_class: dict[str, float] = {}
        self._depth = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take note of the run length of whatever detector is made: of all classes of the package
        that take one. A detector inside of a detector has the run length of the outer one."""
        package = understudy.monitor.detectors
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for _, found in inspect.getmembers(importlib.import_module(module.name)):
                if inspect.isclass(found) and found.__module__ == module.name:
                    self._wrap(monkeypatch, found)
        real = limits.longest_run

        def longest_run(encoder: Any, number: int, rows: float) -> int:
            self._add("longest_run", rows, 1)
            return real(encoder, number, rows)

        monkeypatch.setattr(limits, "longest_run", longest_run)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
        real = found.__init__
        signature = inspect.signature(real)
        if "run_length" not in signature.parameters:
            return

        @functools.wraps(real)
        def init(this: Any, *args: Any, **kwargs: Any) -> None:
            self._depth += 1
            try:
                real(this, *args, **kwargs)
            finally:
                self._depth -= 1
            if not self._depth:
                given = signature.bind(this, *args, **kwargs).arguments["run_length"]
                self._add(found.__name__, given, getattr(this, "series", 1))

        monkeypatch.setattr(found, "__init__", init)

    def _add(self, name: str, run_length: Any, series: int) -> None:
        each = np.broadcast_to(np.asarray(run_length, np.float64), (series,))
        self.by_class[name] = self.by_class.get(name, 0.0) + float((1.0 / each).sum())

    @property
    def total(self) -> float:
        return sum(self.by_class.values())


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rates]:
    found = Rates()
    found.watch(monkeypatch)
    return found


def saved(folder: Path, categorical: bool = True, numeric: bool = True) -> str:
    chance = random.Random(3)
    rows = 3000
    columns: dict[str, list[Any]] = {}
    if numeric:
        columns["amount"] = [chance.lognormvariate(3.0, 1.0) for _ in range(rows)]
        columns["age"] = [float(chance.randint(18, 90)) for _ in range(rows)]
    if categorical:
        columns["country"] = [chance.choice(("de", "fr", "it", "es")) for _ in range(rows)]
        columns["flag"] = [chance.choice(("yes", "no")) for _ in range(rows)]
    p = [chance.betavariate(2.0, 5.0) for _ in range(rows)]
    columns |= {"p": p, "y": [float(chance.random() < one) for one in p]}
    builder = Builder(model="delays", roles={"p": "prediction", "y": "target"}, source="test")
    builder.add(tuple(columns), list(columns.values()))
    path = folder / "baseline.json"
    builder.finish().save(path)
    return str(path)


def watched(folder: Path, baseline: str, **monitoring: Any) -> Config:
    model = {"name": "delays", "version": "1", "baseline": baseline}
    monitoring = {"run_length": RUN_LENGTH, **monitoring}
    return config_of(folder, models=[model], experiments=[], monitoring=monitoring)


@pytest.mark.parametrize("kernel", [False, True])
def test_what_watches_the_rows_of_a_model_shares_its_false_alarms(
    tmp_path: Path, rates: Rates, kernel: bool
) -> None:
    monitoring = {"segments": ["country", "flag"], "kernel": kernel}
    watches = Watches(watched(tmp_path, saved(tmp_path), **monitoring))
    assert watches.errors == {}
    (watch,) = watches.watches.values()
    wanted = {"CusumUnion", "SrDetector", "Composition", "longest_run"}
    assert rates.by_class.keys() == wanted | ({"KernelBlocks"} if kernel else set())
    assert len(watch.segments.names) == 6
    assert rates.total * RUN_LENGTH == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("of_baseline", "segments"),
    [
        ({}, []),
        ({"categorical": False}, ["country"]),
        ({"numeric": False}, []),
        ({"numeric": False}, ["country", "nowhere"]),
    ],
)
def test_what_a_model_does_not_have_is_not_spent_by_something_else(
    tmp_path: Path, rates: Rates, of_baseline: dict[str, bool], segments: list[str]
) -> None:
    Watches(watched(tmp_path, saved(tmp_path, **of_baseline), segments=segments))
    assert 0.5 < rates.total * RUN_LENGTH < 1.0


def label(watch: PerformanceWatch, number: int, feature: str, value: str) -> None:
    outputs = {"p": 0.3, PREFIX + feature: value}
    watch.take_label(
        Joined(number, f"r-{number}", "champion", False, "delays", 0.0, float(number), outputs, 0,
               0.0, None, float(number), 1.0)
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"label_share": 0.1, "label_wait": "10s"}])
@pytest.mark.parametrize("segments", [[], ["country"], ["country", "flag"]])
def test_what_watches_the_performance_of_a_model_shares_its_false_alarms(
    tmp_path: Path, rates: Rates, segments: list[str], settings: dict[str, Any]
) -> None:
    config = watched(tmp_path, saved(tmp_path), segments=segments)
    judged = {"prediction": "p", "threshold": 0.5, **settings}
    document = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["models"][0]["performance"] = judged
    watches = Watches(Config.model_validate(document))
    (watch,) = watches.performance.values()
    assert watch.expected is not None
    assert watch.calibration is not None
    assert watch.realised.tested
    rates.by_class.clear()
    watch = PerformanceWatch(
        watch.settings, watches.watches["delays", "1"].baseline, RUN_LENGTH, segments
    )
    # The detector of a segment is made when it has its reference: of all there can be.
    number = 0
    for feature in segments:
        for place in range(MOST + 1):
            for _ in range(REFERENCE + 1):
                number += 1
                label(watch, number, feature, f"value-{place}")
    watch.flush()
    assert rates.total * RUN_LENGTH == pytest.approx(1.0, abs=1e-9)


def test_gaps_of_several_features_share_their_alpha() -> None:
    chance = np.random.default_rng(5)
    count = 2000
    rows = [
        {PREFIX + "a": str(chance.choice(["x", "y"])), PREFIX + "b": str(chance.choice(["u", "v"]))}
        for _ in range(count)
    ]
    wrong = (chance.random(count) < 0.2).astype(float)
    unknown = np.full(count, np.nan)

    def width(features: tuple[str, ...]) -> float:
        segments = DeclaredSegments(features, 1e6, Margin(0.05, Unit.VALUE))
        segments.add(rows, wrong, unknown, unknown)
        gap = next(one for one in segments.gaps("a") if one.metric == "error_rate")
        return gap.high - gap.value

    assert width(("a", "b")) > width(("a",))

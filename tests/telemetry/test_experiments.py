"""Metrics of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.evaluation import SPLIT, config_of
from tests.support.live_experiment import NOW, assigned, division, live
from tests.support.live_experiment import SPLIT as DIVIDED
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.experiments.summary import document
from understudy.monitor.records.record import OPEN
from understudy.monitor.telemetry.experiments import experiment_families


class View:
    """What the families need of the parts of a process."""

    def __init__(self, folder: Path) -> None:
        self.experiments = ExperimentRunner(config_of(folder, experiments=[SPLIT]))


def test_requests_without_an_answer_are_counted_by_arm(tmp_path: Path) -> None:
    one = live(**DIVIDED)
    for number, arm, age in ((1, 0, 16.0), (2, 1, 16.0), (3, 1, 16.0), (4, 1, 3.0)):
        record, name = assigned(number, arm, outcome=OPEN, seconds=age, started=NOW + 26 - age)
        one.take(record, name, division(), None, None)
    one.flush()
    view: Any = View(tmp_path)
    view.experiments.live.clear()
    view.experiments.live["x"] = one
    (family,) = (
        f
        for f in experiment_families(view.experiments)
        if f.name == "understudy_experiment_unanswered"
    )
    found = {
        (s.labels["experiment"], s.labels["arm"], s.labels["state"]): s.value
        for s in family.samples
    }
    assert found == {
        ("x", "champion", "overdue"): 1.0,
        ("x", "candidate", "overdue"): 2.0,
        ("x", "champion", "lost"): 0.0,
        ("x", "candidate", "lost"): 0.0,
    }
    assert document(one, NOW + 30)["unanswered"]["overdue"] == [1, 2]

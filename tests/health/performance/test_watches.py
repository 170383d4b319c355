"""Labels of a model with a baseline that is learned, with a file, and without either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.performance import joined, scores
from tests.support.sheets import sheet_of
from understudy.monitor.config.model import Config
from understudy.monitor.health.watches import Watches

KEY = ("m", "1")


def config(folder: Path, **changes: Any) -> Config:
    document: dict[str, Any] = {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "champion": {"url": "http://127.0.0.1:9"},
        "models": [
            {
                "name": "m",
                "version": "1",
                "performance": {"prediction": "p", "threshold": 0.5, "reference_labels": 300},
            }
        ],
        **changes,
    }
    return Config.model_validate(document)


class Feed:
    """Rows of a feature and a score, and their labels."""

    def __init__(self, watches: Watches, seed: int = 1) -> None:
        self.watches = watches
        self.rng = np.random.default_rng(seed)
        self.number = 0

    def send(self, count: int, labels: bool = True, flipped: bool = False) -> None:
        p = scores(self.rng, count).round(4)
        y = (self.rng.random(count) < p) != flipped
        numbers = range(self.number, self.number + count)
        rows = [[float(x), float(s)] for x, s in zip(self.rng.normal(size=count), p, strict=True)]
        sheet = sheet_of(("x", "p"), rows, map(float, numbers), [b"r-%d" % n for n in numbers])
        kind = (*sheet.kind[:-1], "1")  # one feature; the rest is the answer
        sheet.kind = kind
        self.watches.feed((sheet,))
        if labels:
            for number, score, label in zip(numbers, p.tolist(), y.tolist(), strict=True):
                self.watches.take_label(joined(number, score, int(label), float(number)))
        self.watches.flush()
        self.number += count

    def titles(self) -> list[str]:
        return [signal.title for signal in self.watches.signals(float(self.number))]

    def reasons(self) -> dict[str, str]:
        return {one["check"]: one["reason"] for one in self.watches.untested()}


@pytest.mark.parametrize("learn", [0, 1000, 100_000])
def test_labels_are_judged_while_a_baseline_is_learned_and_without_one(
    tmp_path: Path, learn: int
) -> None:
    feed = Feed(Watches(config(tmp_path, monitoring={"learn": learn})))
    feed.send(600)
    reasons = feed.reasons()
    assert reasons.get("drift") == ("learning" if learn else None)
    assert "error_rate" not in reasons
    feed.send(600)
    assert feed.titles() == []
    assert (KEY in feed.watches.watches) is (learn == 1000)
    performance = feed.watches.performance[KEY]
    assert performance.labels == 1200, "learning the baseline has not restarted it"
    assert feed.watches.summary()[0]["performance"]["labels"] == 1200
    feed.send(300, flipped=True)
    assert any(title.startswith("Accuracy fell to") for title in feed.titles())


def test_another_evaluator_takes_over_the_reference(tmp_path: Path) -> None:
    feed = Feed(Watches(config(tmp_path / "a", monitoring={"learn": 100_000})))
    feed.send(600)
    state = json.loads(json.dumps(feed.watches.dump_state()))
    other = Watches(config(tmp_path / "b", monitoring={"learn": 100_000}))
    other.load_state(state)
    assert other.performance[KEY].reference == feed.watches.performance[KEY].reference
    taken = Feed(other, 2)
    taken.number = feed.number
    taken.send(300, flipped=True)
    assert any(title.startswith("Accuracy fell to") for title in taken.titles())


def test_settings_that_change_restart_the_labels_and_nothing_else(tmp_path: Path) -> None:
    feed = Feed(Watches(config(tmp_path, monitoring={"learn": 500})))
    feed.send(1500)
    rows = feed.watches.watches[KEY].rows
    assert rows == 1000
    feed.watches.configure(config(tmp_path, monitoring={"learn": 500}))
    assert feed.watches.performance[KEY].labels == 1500
    changed = config(tmp_path, monitoring={"learn": 500})
    model = changed.models[0].model_dump(exclude_unset=True)
    model["performance"]["threshold"] = 0.4
    feed.watches.configure(config(tmp_path, monitoring={"learn": 500}, models=[model]))
    assert feed.watches.performance[KEY].labels == 0
    assert feed.watches.watches[KEY].rows == rows


def test_the_new_normal_of_performance_is_a_new_reference(tmp_path: Path) -> None:
    feed = Feed(Watches(config(tmp_path, monitoring={"learn": 500})))
    feed.send(1500)
    feed.send(300, flipped=True)
    assert feed.titles() != []
    assert feed.watches.relearn(KEY, performance=True)
    assert feed.watches.watches[KEY].rows == 1300, "the baseline of the inputs stays"
    assert feed.reasons() == {"performance": "no_labels"}
    feed.send(900, flipped=True)
    assert feed.titles() == []
    assert feed.watches.performance[KEY].reference is not None


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"feedback": {"enabled": False}}, "disabled", "feedback.enabled is false"),
        ({"monitoring": {"enabled": False}}, "disabled", "monitoring.enabled is false"),
        ({}, "no_labels", "POST /v1/feedback"),
    ],
)
def test_labels_that_cannot_come_are_named(
    tmp_path: Path, changes: dict[str, Any], reason: str, words: str
) -> None:
    (found,) = Watches(config(tmp_path, **changes)).untested()
    assert (found["model"], found["check"], found["reason"]) == ("m", "performance", reason)
    assert words in found["words"]


def test_a_baseline_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    model = {"name": "m", "version": "1", "baseline": str(tmp_path / "missing.json")}
    (found,) = Watches(config(tmp_path, models=[model])).untested()
    assert (found["check"], found["reason"]) == ("all", "baseline")
    assert "missing.json" in found["words"]

"""Any history of predictions, labels, purges and crashes, against a model in plain dictionaries."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction

HORIZON = 100.0
REMEMBERED = 125.0
ids = st.sampled_from(("a", "b", "c"))
arms = st.sampled_from(("champion", "second"))
rows = st.integers(0, 1)
values = st.none() | st.sampled_from((0, 1, "x"))
rewards = st.none() | st.sampled_from((0.0, 2.5))


class Model:
    """What a label becomes, and what is joined."""

    def __init__(self) -> None:
        self.predictions: dict[tuple[str, str], float] = {}
        self.labels: dict[tuple[str, int], list[Any]] = {}
        """label, reward, received, whether it was joined"""
        self.pairs: Counter[tuple[Any, ...]] = Counter()

    def of(self, request_id: str) -> dict[str, float]:
        return {arm: at for (one, arm), at in self.predictions.items() if one == request_id}

    def predict(self, request_id: str, arm: str, now: float) -> None:
        self.predictions[request_id, arm] = now
        for (one, row), entry in self.labels.items():
            if one == request_id:
                self.pairs[request_id, arm, row, entry[0], entry[1]] += 1
                entry[3] = True

    def label(self, request_id: str, row: int, label: Any, reward: Any, now: float) -> str:
        known = self.labels.get((request_id, row))
        if known is not None:
            if None not in (label, known[0]) and label != known[0]:
                return "conflict"
            if None not in (reward, known[1]) and reward != known[1]:
                return "conflict"
            label = label if known[0] is None else None
            reward = reward if known[1] is None else None
            if label is None and reward is None:
                return "duplicate"
        there = self.of(request_id)
        fresh = [arm for arm, started in there.items() if started >= now - HORIZON]
        if there and not fresh:
            return "late"
        if known is None:
            known = self.labels[request_id, row] = [None, None, now, bool(fresh)]
        known[0] = label if known[0] is None else known[0]
        known[1] = reward if known[1] is None else known[1]
        if not known[3]:
            return "orphan"
        for arm in fresh:
            self.pairs[request_id, arm, row, label, reward] += 1
        return "joined"

    def purge(self, now: float) -> None:
        old = [key for key, at in self.predictions.items() if at < now - REMEMBERED]
        for key in old:
            del self.predictions[key]
        gone = {request_id for request_id, _ in old if not self.of(request_id)}
        self.labels = {
            key: entry
            for key, entry in self.labels.items()
            if not (key[0] in gone if entry[3] else entry[2] < now - HORIZON)
        }


class Histories(RuleBasedStateMachine):
    """The store with an evaluation that saves now and then, and loses what it has not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = FeedbackStore(Path(self.folder.name), HORIZON, 1 << 28)
        self.model = Model()
        self.now = 1000.0
        self.evaluated: Counter[tuple[Any, ...]] = Counter()
        self.seq = 0
        self.saved = (self.evaluated.copy(), 0)
        self.outcomes: Counter[str] = Counter()

    def teardown(self) -> None:
        self.take()
        assert self.evaluated == self.model.pairs
        self.store.close()
        self.folder.cleanup()

    @rule(seconds=st.sampled_from((1.0, 40.0, 90.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(request_id=ids, arm=arms)
    def predict(self, request_id: str, arm: str) -> None:
        known = self.model.predictions.get((request_id, arm))
        if known is None:
            # An orphan beyond the horizon would have been purged long before, as every two seconds.
            self.purge()
            self.model.predict(request_id, arm, self.now)
        started = self.now if known is None else known
        self.store.add_predictions([Prediction(request_id, arm, False, "m", 0.5, started, {})])

    @rule(request_id=ids, row=rows, label=values, reward=rewards)
    def post(self, request_id: str, row: int, label: Any, reward: Any) -> None:
        if label is None and reward is None:
            return
        expected = self.model.label(request_id, row, label, reward, self.now)
        assert self.store.add_labels([Label(request_id, row, label, reward)], self.now) == [
            expected
        ]
        self.outcomes[expected] += 1

    @rule()
    def purge(self) -> None:
        self.model.purge(self.now)
        self.store.purge(self.now)

    @rule()
    def take(self) -> None:
        for joined in self.store.take(self.seq):
            key = (joined.request_id, joined.arm, joined.row, joined.label, joined.reward)
            self.evaluated[key] += 1
            self.seq = joined.seq

    @rule()
    def save(self) -> None:
        self.saved = (self.evaluated.copy(), self.seq)
        self.store.release(self.seq)

    @precondition(lambda self: self.seq)
    @rule()
    def crash(self) -> None:
        killed = self.store
        self.evaluated, self.seq = self.saved[0].copy(), self.saved[1]
        self.store = FeedbackStore(killed.path.parent, HORIZON, 1 << 28, after=self.seq)
        self.store.open()
        killed.close()

    @invariant()
    def sums_are_those_of_the_tables(self) -> None:
        found = self.store.figures()
        assert found["waiting"] == {
            "predictions": len(self.model.predictions),
            "labels": len(self.model.labels),
            "orphans": sum(not entry[3] for entry in self.model.labels.values()),
        }
        assert {name: n for name, n in found["labels"].items() if n} == dict(self.outcomes)
        assert sum(item["count"] for item in found["delays"].values()) == self.model.pairs.total()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)

"""A stream of predictions and labels with its evaluation, in one process that is to be killed.

``python stream.py FOLDER FIRST LAST SEED`` does the steps FIRST to LAST, prints the number of each
when it is acknowledged, and goes on until all of it is evaluated. What the evaluation knows is in
``evaluated.json``, which is replaced now and then, as the service's state is.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction

STEPS = 240
IDS = 4
"""In each step."""
ARMS = ("champion", "second")
ROWS = 2


class Evaluation:
    """How often each pair was counted, and the number of the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.seq = 0
        if path.exists():
            saved: dict[str, Any] = json.loads(path.read_text())
            self.counts, self.seq = Counter(saved["counts"]), saved["seq"]

    def take(self, store: FeedbackStore, limit: int) -> bool:
        found = store.take(self.seq, limit)
        for joined in found:
            self.counts[f"{joined.request_id}/{joined.arm}/{joined.row}"] += 1
            self.seq = joined.seq
        return bool(found)

    def save(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"counts": self.counts, "seq": self.seq}))
        os.replace(temporary, self.path)


def everything() -> set[str]:
    """The pairs that there must be in the end."""
    return {
        f"{step}.{i}/{arm}/{row}"
        for step in range(STEPS)
        for i in range(IDS)
        for arm in ARMS
        for row in range(ROWS)
    }


def do(store: FeedbackStore, step: int) -> None:
    """One step, the same whenever it is done: parts of three ids' exchanges and feedback."""
    now = 1e6 + step
    ids = [f"{step}.{i}" for i in range(IDS)]
    predictions = [
        Prediction(i, arm, arm != ARMS[0], "m", 0.5, now, {"p": [0.1, 0.2]})
        for i in ids
        for arm in ARMS
    ]
    labels = [Label(i, row, row) for i in ids for row in range(ROWS)]
    order = random.Random(step).randrange(3)
    if order == 0:  # labels first
        store.add_labels(labels, now)
        store.add_predictions(predictions)
    elif order == 1:  # predictions first
        store.add_predictions(predictions)
        store.add_labels(labels, now + 0.5)
    else:  # one arm, some labels, the other arm, and all labels once more
        store.add_predictions(predictions[::2])
        store.add_labels(labels[:3], now + 0.1)
        store.add_predictions(predictions[1::2])
        store.add_labels(labels, now + 0.5)


def main(folder: Path, first: int, last: int, seed: int) -> None:
    chance = random.Random(seed)
    evaluation = Evaluation(folder / "evaluated.json")
    store = FeedbackStore(folder, 1e9, 1 << 28, after=evaluation.seq)
    for step in range(first, last):
        do(store, step)
        print(step, flush=True)
        evaluation.take(store, chance.choice((1, 7, 1000)))
        if chance.random() < 0.3:
            evaluation.save()
            store.release(evaluation.seq)
            store.purge(1e6 + step)
    while evaluation.take(store, 1000):
        pass
    evaluation.save()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

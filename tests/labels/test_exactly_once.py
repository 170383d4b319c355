"""kill -9 in the middle of a stream, over and over: every label counts, and counts once."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.support import label_stream
from tests.support.patience import patient
from understudy.monitor.labels.store import FeedbackStore

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, first: int, seed: int, kill_after: int | None) -> tuple[int, bool]:
    """The number of the next step to do, and whether the process came to its end."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.label_stream", str(folder)),
            *(str(first), str(label_stream.STEPS), str(seed)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    following = first
    with process:
        for count, line in enumerate(process.stdout, start=1):
            if line.strip() == "done":
                return following, process.wait(patient(60)) == 0
            following = int(line) + 1
            if count == kill_after:
                process.kill()
    return following, False


def test_every_pair_is_evaluated_exactly_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    step, kills, ended = 0, 0, False
    while not ended:
        # An acknowledgement may not have arrived: what is told last is told again.
        kill_after = chance.randrange(1, 30) if kills < 20 else None
        step, ended = run(tmp_path, max(0, step - 1), kills, kill_after)
        kills += not ended
    assert kills >= 10, "it was killed over and over"
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())["counts"]
    assert set(evaluated) == label_stream.everything(), "none is missing"
    assert set(evaluated.values()) == {1}, "none counts twice"

    store = FeedbackStore(tmp_path, 1e9, 1 << 28)
    store.open()
    found = store.figures()
    labels = label_stream.STEPS * label_stream.IDS * label_stream.ROWS
    assert found["labels"]["joined"] + found["labels"]["orphan"] == labels
    assert found["labels"]["duplicate"] > 0, "some came again"
    assert (found["labels"]["conflict"], found["labels"]["late"]) == (0, 0)
    assert found["joined_later"] == found["labels"]["orphan"] > 0
    assert found["waiting"] == {
        **{"predictions": label_stream.STEPS * label_stream.IDS * 2, "labels": labels, "orphans": 0}
    }
    for arm in label_stream.ARMS:
        assert found["delays"][arm]["count"] == labels
        assert found["coverage"][arm]["labelled"] == label_stream.STEPS * label_stream.IDS
    store.close()

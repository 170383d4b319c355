"""The file in which predictions and labels wait for each other."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import disk
from tests.support.patience import patient
from understudy.monitor.errors import StateError
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FILE_NAME, FeedbackStore, Joined, Prediction

HORIZON = 1000.0
NOW = 1_000_000.0
ROOMY = 256 * 1024 * 1024


def prediction(request_id: str = "r", arm: str = "champion", **given: Any) -> Prediction:
    values: dict[str, Any] = {
        "mirrored": arm != "champion",
        "model": "delays",
        "share": 0.5,
        "started": NOW - 10.0,
        "outputs": {"p": [0.25, 0.75]},
    }
    return Prediction(request_id, arm, **{**values, **given})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with contextlib.closing(FeedbackStore(tmp_path, HORIZON, ROOMY)) as store:
        yield store


def all_of(store: FeedbackStore) -> list[Joined]:
    return store.take(0)


def reopened(store: FeedbackStore, **given: Any) -> FeedbackStore:
    store.close()
    values: dict[str, Any] = {"horizon": HORIZON, "max_bytes": ROOMY, **given}
    return FeedbackStore(store.path.parent, **values)


def test_a_label_after_its_prediction(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    assert store.add_labels([Label("r", 1, "late", 2.5)], NOW) == ["joined"]
    (joined,) = all_of(store)
    assert joined == Joined(
        seq=1,
        request_id="r",
        arm="champion",
        mirrored=False,
        model="delays",
        share=0.5,
        started=NOW - 10.0,
        outputs={"p": 0.75},
        row=1,
        label="late",
        reward=2.5,
        received=NOW,
        delay=10.0,
    )


def test_a_label_before_its_prediction_waits(store: FeedbackStore) -> None:
    assert store.add_labels([Label("r", 0, True)], NOW) == ["orphan"]
    assert store.figures()["waiting"] == {"predictions": 0, "labels": 1, "orphans": 1}
    store.add_predictions([prediction()])
    (joined,) = all_of(store)
    assert (joined.label, joined.outputs) == (True, {"p": 0.25})
    figures = store.figures()
    assert figures["waiting"] == {"predictions": 1, "labels": 1, "orphans": 0}
    assert (figures["labels"]["orphan"], figures["joined_later"]) == (1, 1)
    assert store.add_labels([Label("r", 0, True)], NOW) == ["duplicate"]
    assert len(all_of(store)) == 1


def test_one_label_joins_every_arm_once_and_in_any_order(store: FeedbackStore) -> None:
    store.add_predictions([prediction(arm="champion"), prediction(arm="second")])
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["joined"], "one outcome for each label"
    # The third arm's copy was slow; and all records come once more after a crash.
    store.add_predictions([prediction(arm=arm) for arm in ("champion", "second", "third")])
    assert [joined.arm for joined in all_of(store)] == ["champion", "second", "third"]
    assert [joined.seq for joined in all_of(store)] == [1, 2, 3]


def test_the_first_value_stays(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    labels = [Label("r", 0, 1), Label("r", 0, 1.0), Label("r", 0, 0), Label("r", 0, "1")]
    labels += [Label("r", 0, True), Label("r", 1, 0)]
    outcomes = store.add_labels(labels, NOW)
    assert outcomes == ["joined", "duplicate", "conflict", "conflict", "conflict", "joined"]
    assert [(joined.row, joined.label) for joined in all_of(store)] == [(0, 1), (1, 0)]


def test_a_reward_may_follow_a_label_and_counts_once(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    posted = [Label("r", 0, 1), Label("r", 0, None, 2.0), Label("r", 0, 1, 2.0), Label("r", 0, 0)]
    assert store.add_labels(posted, NOW) == ["joined", "joined", "duplicate", "conflict"]
    assert [(joined.label, joined.reward) for joined in all_of(store)] == [(1, None), (None, 2.0)]
    waiting = [Label("o", 0, None, 2.0), Label("o", 0, 1), Label("o", 0, 1), Label("o", 0, 1, 3.0)]
    assert store.add_labels(waiting, NOW) == ["orphan", "orphan", "duplicate", "conflict"]
    store.add_predictions([prediction("o")])
    assert (all_of(store)[-1].label, all_of(store)[-1].reward) == (1, 2.0)
    assert store.figures()["waiting"]["orphans"] == 0


def test_the_same_key_is_the_same_event(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    posted = [Label("r", 0, 1, key="k"), Label("r", 0, 0, key="k"), Label("r", 0, 0, key="other")]
    assert store.add_labels(posted, NOW) == ["joined", "duplicate", "conflict"]


def test_predictions_do_not_fill_the_disk_of_the_state(tmp_path: Path) -> None:
    """At a thousand requests per second, predictions that wait for labels filled a small disk, and
    the state of the experiments could not be saved any more."""
    with disk(tmp_path / "disk", 24) as small:
        store = FeedbackStore(small.path, HORIZON, ROOMY)
        with contextlib.closing(store):
            for batch in range(60):
                rows = [prediction(f"r-{batch}-{n}", started=NOW + batch) for n in range(5_000)]
                store.add_predictions(rows)
                store.purge(NOW + batch)
            figures = store.figures()
            assert figures["purged"]["disk"] > 0
            assert figures["waiting"]["predictions"] > 10_000
            assert store.add_labels([Label("r-59-7", 0, 1)], NOW + 60) == ["joined"]
            (small.path / "state").write_bytes(bytes(1 << 20))


def test_predictions_that_come_fast_give_way_before_the_next_purge(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 48) as small:
        store = FeedbackStore(small.path, HORIZON, ROOMY)
        with contextlib.closing(store):
            for batch in range(12):
                rows = [
                    prediction(f"{batch:04d}-{n:05d}-".ljust(100, "x"), started=NOW + batch)
                    for n in range(20_000)
                ]
                store.add_predictions(rows)
                found = os.statvfs(small.path)
                assert found.f_bavail * found.f_frsize > 5 << 20
            assert store.figures()["purged"]["disk"] > 0
            last = rows[-1].request_id
            assert store.add_labels([Label(last, 0, 1)], NOW + 60) == ["joined"]


def test_beyond_the_horizon_a_label_is_late_and_later_unknown(store: FeedbackStore) -> None:
    store.add_predictions([prediction(started=NOW), prediction("again", started=NOW)])
    after = NOW + HORIZON + 1.0
    store.purge(after)
    assert store.add_labels([Label("r", 0, 1)], after) == ["late"]
    assert store.add_labels([Label("r", 0, 1)], after) == ["late"]
    assert all_of(store) == []
    assert store.figures()["waiting"] == {"predictions": 2, "labels": 0, "orphans": 0}
    forgotten = NOW + 2 * HORIZON
    store.purge(forgotten)
    assert store.add_labels([Label("r", 0, 1)], forgotten) == ["orphan"]
    assert store.figures()["purged"] == {"horizon": 2}


def test_orphans_are_kept_until_the_horizon(store: FeedbackStore) -> None:
    store.add_labels([Label("early", 0, 1)], NOW)
    store.add_labels([Label("later", 0, 1)], NOW + 500.0)
    store.purge(NOW + HORIZON + 1.0)
    figures = store.figures()
    assert figures["waiting"] == {"predictions": 0, "labels": 1, "orphans": 1}
    assert figures["purged"] == {"orphan_horizon": 1}
    store.add_predictions([prediction("early"), prediction("later")])
    assert [joined.request_id for joined in all_of(store)] == ["later"]


def test_labels_are_deleted_with_their_predictions(store: FeedbackStore) -> None:
    """Or a label that comes again would be joined again to what is left."""
    many = [prediction(str(i), started=NOW + i) for i in range(200)]
    store.add_predictions(many)
    labels = [Label(str(i), 0, 1) for i in range(0, 200, 2)]
    assert set(store.add_labels(labels, NOW + 300.0)) == {"joined"}
    store.max_rows = 150
    store.purge(NOW + 300.0)
    waiting = store.figures()["waiting"]
    assert waiting["predictions"] + waiting["labels"] <= 150
    assert waiting["predictions"] >= 75, "no more goes than must"
    outcomes = store.add_labels(labels, NOW + 300.0)
    assert set(outcomes) == {"orphan", "duplicate"}
    assert outcomes == sorted(outcomes, reverse=True), "the oldest went first"
    assert len(all_of(store)) == 100
    purged = store.figures()["purged"]
    assert purged == {"size": 200 - waiting["predictions"]}


def test_labels_for_unknown_ids_do_not_displace_predictions(store: FeedbackStore) -> None:
    store.max_rows = 100
    store.add_predictions([prediction(str(i)) for i in range(40)])
    store.add_labels([Label(f"unknown {i}", 0, 1) for i in range(500)], NOW)
    store.purge(NOW)
    assert store.figures()["waiting"] == {"predictions": 40, "labels": 60, "orphans": 60}
    assert store.figures()["purged"] == {"orphan_size": 440}


def test_the_file_is_bounded_and_free_pages_are_released(store: FeedbackStore) -> None:
    wide = {"p": ["x" * 1000]}
    for part in range(0, 30_000, 5_000):
        ids = range(part, part + 5_000)
        store.add_predictions([prediction(str(i), started=NOW + i, outputs=wide) for i in ids])
    before = store.path.stat().st_size
    store.max_bytes = 8 * 1024 * 1024
    for _ in range(20):
        store.purge(NOW)
    kept = store.figures()["waiting"]["predictions"]
    assert 0 < kept < 8 * 1024 * 1024 / 1000
    store.close()
    assert store.path.stat().st_size < before / 2
    assert store.add_labels([Label("29999", 0, 1)], NOW) == ["joined"], "the newest is still there"


def test_large_outputs_are_not_kept(store: FeedbackStore) -> None:
    store.add_predictions([prediction(outputs={"p": ["x" * 5000]})])
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["orphan"]
    assert store.figures()["purged"] == {"too_large": 1}


def test_predictions_of_one_record_are_merged(store: FeedbackStore) -> None:
    split = prediction(outputs={"p": [0.9]}, share=0.5)
    watched = prediction(outputs={"p": [0.9], "region": ["north"]}, share=0.0)
    store.add_predictions([split, watched])
    store.add_labels([Label("r", label=1)], NOW + 10)
    (joined,) = all_of(store)
    assert (joined.share, joined.outputs) == (0.5, {"p": 0.9, "region": "north"})
    # Too large together: what an experiment needs is kept.
    wide = prediction("w", outputs={"p": [0.9], "text": ["x" * 5000]}, share=0.0)
    store.add_predictions([prediction("w", outputs={"p": [0.9]}, share=0.5), wide])
    store.add_labels([Label("w", label=1)], NOW + 10)
    assert [j.outputs for j in all_of(store) if j.request_id == "w"] == [{"p": 0.9}]


def test_a_row_that_the_prediction_does_not_have(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    assert store.add_labels([Label("r", 7, 1)], NOW) == ["joined"]
    assert all_of(store)[0].outputs == {}


def test_numbers_always_increase_and_releases_are_final(store: FeedbackStore) -> None:
    store.add_predictions([prediction(str(i)) for i in range(4)])
    store.add_labels([Label("0", 0, 1), Label("1", 0, 1)], NOW)
    assert [joined.seq for joined in store.take(0, limit=1)] == [1]
    assert [joined.seq for joined in store.take(1)] == [2]
    store.release(2)
    store = reopened(store)
    store.add_labels([Label("2", 0, 1)], NOW)
    assert [joined.seq for joined in store.take(0)] == [3]
    assert store.add_labels([Label("0", 0, 1)], NOW) == ["duplicate"], "also what was released"
    store.close()


def test_a_new_file_continues_the_numbers(store: FeedbackStore) -> None:
    """Or the evaluation, which has seen numbers up to 41, would pass over its pairs."""
    store = reopened(store, after=41)
    store.add_predictions([prediction()])
    store.add_labels([Label("r", 0, 1)], NOW)
    assert [joined.seq for joined in store.take(41)] == [42]
    store.close()


def test_delays_and_coverage_are_by_arm_and_survive(store: FeedbackStore) -> None:
    hundred = [str(i) for i in range(100)]
    store.add_predictions([prediction(i, started=NOW) for i in hundred])
    store.add_predictions([prediction(i, "second", started=NOW - 50.0) for i in hundred[:50]])
    labels = [Label(i, 0, 1, at=NOW + int(i) if int(i) % 2 else None) for i in hundred[:80]]
    store.add_labels(labels, NOW + 79.0)
    store = reopened(store)
    store.open()
    found = store.figures()
    champion, second = found["delays"]["champion"], found["delays"]["second"]
    # Even ones are as old as their arrival; of the odd ones it is known when.
    expected = sorted([79.0] * 40 + [float(i) for i in range(1, 80, 2)])
    assert champion["count"] == 80
    assert champion["sum_seconds"] == pytest.approx(sum(expected))
    assert champion["mean_seconds"] == pytest.approx(sum(expected) / 80)
    assert champion["quantiles"]["0.5"] == pytest.approx(expected[39], rel=0.03)
    assert champion["quantiles"]["0.9"] == pytest.approx(79.0, rel=0.03)
    assert (second["count"], second["quantiles"]["0.99"]) == (50, pytest.approx(129.0, rel=0.03))
    assert found["coverage"]["champion"] == {
        **{"predictions": 100, "labelled": 80, "settled": 0, "settled_labelled": 0, "share": None},
    }
    store.purge(NOW + 2 * HORIZON)
    coverage = store.figures()["coverage"]
    assert coverage["champion"]["share"] == 0.8
    assert coverage["second"]["share"] == 1.0
    assert store.figures()["waiting"] == {"predictions": 0, "labels": 0, "orphans": 0}
    store.close()


def test_counts_are_loaded_and_gauges_are_counted_again(
    store: FeedbackStore, tmp_path: Path
) -> None:
    store.add_predictions([prediction(str(i), started=NOW) for i in range(4)])
    store.add_labels([Label(str(i), 0, 1) for i in range(3)], NOW + 5.0)
    (tmp_path / "other").mkdir()
    other = FeedbackStore(tmp_path / "other", HORIZON, 2**28)
    # It reads a part of the first store again, and has its own counts.
    other.add_predictions([prediction(str(i), started=NOW) for i in range(2, 4)])
    other.add_labels([Label("2", 0, 1), Label("nobody's", 0, 1)], NOW + 60.0)
    other.load_counts(store.counts())
    other = reopened(other)
    other.open()
    before, after = store.figures(), other.figures()
    assert after["labels"] == before["labels"]
    assert after["delays"] == before["delays"]
    assert after["waiting"] == {"predictions": 2, "labels": 2, "orphans": 1}
    assert after["coverage"]["champion"]["labelled"] == 1
    other.close()


def test_a_time_ahead_of_ours_does_not_make_a_label_later(store: FeedbackStore) -> None:
    store.add_predictions([prediction()])
    store.add_labels([Label("r", 0, 1, at=NOW + 5000.0), Label("r", 1, 1, at=0.0)], NOW)
    assert [joined.delay for joined in all_of(store)] == [10.0, 0.0]


# What can be wrong with the disk ----------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"not a database" * 100, b"", b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(garbage)
    store = FeedbackStore(tmp_path, HORIZON, ROOMY, after=7)
    store.add_predictions([prediction()])
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["joined"]
    assert [joined.seq for joined in all_of(store)] == [8]
    aside = tmp_path / (FILE_NAME + ".damaged")
    assert aside.read_bytes() == garbage if garbage else not aside.exists()
    store.close()


def test_a_file_damaged_while_open_is_set_aside(store: FeedbackStore) -> None:
    store.add_predictions([prediction(str(i)) for i in range(5000)])
    store.add_labels([Label(str(i), 0, 1) for i in range(10)], NOW)
    assert len(store.take(0)) == 10
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with store.path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * (store.path.stat().st_size - 8192))
        other.execute("PRAGMA user_version=3")  # a change by another lets go of cached pages
        with pytest.raises(StateError, match="malformed"):
            store.add_labels([Label(str(i), 0, 1) for i in range(5000)], NOW)
    assert store.path.with_name(FILE_NAME + ".damaged").exists()
    assert store.failures == 1
    store.add_predictions([prediction()])
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["joined"]
    assert all_of(store)[0].seq > 10, "the evaluation has had the first ten"


def test_a_file_of_the_previous_version_is_taken_over(store: FeedbackStore) -> None:
    """Its labels are joined as before; their predictions are of no experiment in particular."""
    store.add_predictions([prediction("old")])
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("ALTER TABLE predictions DROP COLUMN experiment")
        db.execute("ALTER TABLE joined DROP COLUMN experiment")
        db.execute("ALTER TABLE labels DROP COLUMN source")
        db.execute("ALTER TABLE labels DROP COLUMN earlier")
        db.execute("PRAGMA user_version=2")
    store.add_predictions([replace(prediction("new"), experiment="x")])
    assert store.add_labels([Label("old", 0, 1), Label("new", 0, 1)], NOW) == ["joined"] * 2
    assert [(one.request_id, one.experiment) for one in all_of(store)] == [
        ("old", ""),
        ("new", "x"),
    ]


def test_another_version_is_set_aside(store: FeedbackStore) -> None:
    store.add_labels([Label("r", 0, 1)], NOW)
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA user_version=99")
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["orphan"]
    assert store.path.with_name(FILE_NAME + ".damaged").exists()


def test_an_unusable_folder_is_an_error_until_it_is_usable(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    store = FeedbackStore(tmp_path / "state", HORIZON, ROOMY)
    for call in (store.open, lambda: store.take(0), lambda: store.add_labels([], NOW)):
        with pytest.raises(StateError, match="cannot be opened"):
            call()
    assert store.failures == 3
    (tmp_path / "state").unlink()
    assert store.add_labels([Label("r", 0, 1)], NOW) == ["orphan"]
    store.close()


FULL = """
import resource, sys
from pathlib import Path
from understudy.monitor.errors import StateError
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction

store = FeedbackStore(Path(sys.argv[1]), 1000.0, 1 << 28)
store.open()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
taken = 0
try:
    while True:
        store.add_labels([Label(str(i), 0, "x" * 100) for i in range(taken, taken + 100)], 0.0)
        taken += 100
except StateError as error:
    print(taken, error, flush=True)
assert store.failures == 1
assert store.figures()["labels"]["orphan"] == taken
assert len(store.take(0)) == 0, "what is there can still be read"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
labels = [Label(str(i), 0, "x" * 100) for i in range(taken + 100)]
outcomes = store.add_labels(labels, 0.0)
assert outcomes == ["duplicate"] * taken + ["orphan"] * 100, outcomes[taken - 1 : taken + 2]
assert store.figures()["waiting"]["orphans"] == taken + 100
store.add_predictions([Prediction(str(taken), "a", False, "m", 0.0, 0.0, {})])
assert [joined.seq for joined in store.take(0)] == [1]
"""


def test_a_full_disk_stores_nothing_partially_and_recovers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 0, "there was room for some"


def test_a_correction_of_the_same_source_replaces(store: FeedbackStore) -> None:
    store.add_predictions([prediction(), prediction("s")])
    posted = [
        Label("r", 0, 1, source="desk"),
        Label("r", 0, 0, source="desk"),
        Label("r", 0, 1, source="audit"),
        Label("r", 0, 1),
        Label("r", 0, 0, source="desk"),
    ]
    outcomes = store.add_labels(posted, NOW)
    assert outcomes == ["joined", "corrected", "conflict", "conflict", "duplicate"]
    assert [joined.label for joined in all_of(store)] == [0]
    figures = store.figures()
    assert figures["corrections"] == {"in_time": 1, "after_use": 0}
    assert figures["labels"]["conflict"] == 2
    rewards = [Label("s", 0, None, 2.0, source="till"), Label("s", 0, None, 3.0, source="till")]
    assert store.add_labels(rewards, NOW) == ["joined", "corrected"]
    assert all_of(store)[-1].reward == 3.0


def test_a_repeated_or_older_post_is_no_correction(store: FeedbackStore) -> None:
    store.add_predictions([prediction(), prediction("s")])
    first, second = Label("r", 0, 1, source="desk"), Label("r", 0, 0, source="desk")
    assert store.add_labels([first, second, first], NOW) == ["joined", "corrected", "duplicate"]
    assert [joined.label for joined in all_of(store)] == [0]
    late = [
        Label("s", 0, 0, at=NOW - 10, source="desk"),
        Label("s", 0, 1, at=NOW - 20, source="desk"),
        Label("s", 0, 1, at=NOW - 5, source="desk"),
        Label("s", 0, 0, at=NOW - 1, source="desk"),
    ]
    outcomes = store.add_labels(late, NOW)
    assert outcomes == ["joined", "duplicate", "corrected", "corrected"]
    assert all_of(store)[-1].label == 0


def test_a_label_that_waits_for_its_prediction_can_be_corrected(store: FeedbackStore) -> None:
    posted = [Label("o", 0, 1, source="desk"), Label("o", 0, 0, source="desk")]
    assert store.add_labels(posted, NOW) == ["orphan", "corrected"]
    store.add_predictions([prediction("o")])
    assert [joined.label for joined in all_of(store)] == [0]


def test_labels_settle_before_they_count(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, HORIZON, 1 << 24, settle=60.0)
    store.add_predictions([prediction(), prediction("s")])
    store.add_labels([Label("r", 0, 1, source="desk")], NOW)
    assert store.take(0, NOW + 59.0) == []
    store.add_labels([Label("r", 0, 0, source="desk"), Label("s", 0, 1, source="desk")], NOW + 30.0)
    taken = store.take(0, NOW + 61.0)
    assert [(joined.request_id, joined.label) for joined in taken] == [("r", 0)]
    again = Label("r", 0, 1, at=NOW + 62.0, source="desk")
    after = store.add_labels([again], NOW + 62.0)
    assert after == ["corrected"]
    assert store.figures()["corrections"] == {"in_time": 1, "after_use": 1}
    taken = store.take(taken[-1].seq, NOW + 100.0)
    assert [joined.request_id for joined in taken] == ["s"], "what counted is not counted again"
    store.close()


def test_files_of_earlier_versions_are_extended(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, HORIZON, 1 << 24)
    store.add_predictions([prediction()])
    store.add_labels([Label("r", 0, 1)], NOW)
    store.close()
    with sqlite3.connect(tmp_path / "feedback.sqlite") as db:
        db.execute("ALTER TABLE labels DROP COLUMN source")
        db.execute("ALTER TABLE labels DROP COLUMN earlier")
        db.execute("PRAGMA user_version=3")
    db.close()
    again = FeedbackStore(tmp_path, HORIZON, 1 << 24)
    assert again.add_labels([Label("r", 0, 0), Label("r", 0, 1)], NOW) == ["conflict", "duplicate"]
    again.close()

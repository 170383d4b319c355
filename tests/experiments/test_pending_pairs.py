"""Mirrored requests that hang hold back a promotion before their time limit makes pairs of them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.evaluation import SHADOW, config_of
from tests.support.live_experiment import NOW, Fed, answer, live, record
from understudy.monitor.evidence.batch import ColumnBatch, batch_of
from understudy.monitor.evidence.joiner import Deadlines, PairJoiner
from understudy.monitor.evidence.layout import PAIRS
from understudy.monitor.experiments.pending_pairs import PendingPairs
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.experiments.summary import document, explanation
from understudy.monitor.records import record as records
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record
from understudy.monitor.telemetry.experiments import experiment_families
from understudy.shadow.experiment import OpenPairs
from understudy.shadow.experiment.fates import ANSWERED, FAILED, PENDING

MIRROR = records.ROLE_MIRROR
SETTINGS: dict[str, Any] = {
    "metrics": [{"metric": "error_rate", "margin": "2 pp"}],
    "minimum_duration": 0,
}
LIMIT = 30.0
RATE = 50


def hangs(number: int) -> bool:
    return number % 20 == 7


def exchanges(
    requests: int, slow: float = 0.01, limit: float = LIMIT
) -> Iterator[tuple[float, Record, str]]:
    """Records in order of their ends: the champion answers all in 10 ms, and the challenger hangs
    on one in twenty until the time limit."""
    due: list[tuple[float, int, Record, str]] = []
    for number in range(requests):
        at = NOW + number / RATE
        while due and due[0][0] <= at:
            end, _, one, arm = heapq.heappop(due)
            yield end, one, arm
        ours = record(number, started=at)
        seconds = limit if hangs(number) else slow
        outcome = records.TIMEOUT if hangs(number) else records.OK
        theirs = record(number, MIRROR, outcome, started=at, seconds=seconds)
        heapq.heappush(due, (at + 0.01, 2 * number, ours, "champion"))
        heapq.heappush(due, (at + seconds, 2 * number + 1, theirs, "candidate"))
    for end, _, one, arm in sorted(due, key=lambda one: one[:2]):
        yield end, one, arm


def run(one: Fed, records_: Iterator[tuple[float, Record, str]], until: float) -> float:
    """Take records up to ``until``, with a look each second; returns the time of the last look."""
    due = NOW + 1.0
    for end, each, arm in records_:
        while end >= due and due <= until:
            one.tick(due)
            due += 1.0
        if end > until:
            break
        table = answer(1) if each.outcome == records.OK else None
        one.take(each, arm, None, answer(1), table)
    one.tick(until)
    return until


def test_what_hangs_holds_back_a_promotion_until_it_is_evidence() -> None:
    one = live(**SETTINGS)
    now = run(one, exchanges(2000), NOW + 25.0)
    candidate = one.contestants["candidate"]
    assert candidate.decision.verdict == "continue"
    (missing,) = [reason for reason in candidate.decision.reasons if "no answer yet" in reason]
    reported = sum(hangs(n) and n / RATE + 10.0 < 25.0 - 0.03 for n in range(2000))
    assert abs(one.overdue()[1] - reported) <= 1
    assert missing == (
        f"requests that have no answer yet after 10 s: {one.overdue()[1]} of candidate; "
        "no promotion before they have finished or failed"
    )
    assert missing in explanation(one, candidate, now).why
    error_rate = {item.name: item for item in candidate.decision.evidence}["error_rate"]
    assert error_rate.status == "passed", "but for the requests that hang"
    assert document(one, now)["unanswered"]["overdue"] == one.overdue()


def test_what_hung_is_evidence_at_its_time_limit() -> None:
    one = live(**SETTINGS)
    run(one, exchanges(2000), NOW + 100.0)
    assert one.overdue() == [0, 0]
    candidate = one.contestants["candidate"]
    assert candidate.decision.verdict != "promote"
    error_rate = {item.name: item for item in candidate.decision.evidence}["error_rate"]
    assert error_rate.estimates == (0.0, 0.05)
    assert error_rate.status != "passed"


def test_the_same_challenger_that_does_not_hang_is_promoted() -> None:
    one = live(**SETTINGS)
    quick = ((at, each, arm) for at, each, arm in exchanges(2000) if not hangs(_number(each)))
    run(one, quick, NOW + 25.0)
    assert one.contestants["candidate"].decision.verdict == "promote"


def _number(one: Record) -> int:
    return int(one.request_id[1:])


def test_pairs_count_as_if_nothing_had_been_reported() -> None:
    """One looks every second, the other at the end, when all have finished: same evidence."""
    early, late = live(**SETTINGS), live(**SETTINGS)
    run(early, exchanges(1500, limit=15.0), NOW + 60.0)
    for _, each, arm in exchanges(1500, limit=15.0):
        table = answer(1) if each.outcome == records.OK else None
        late.take(each, arm, None, answer(1), table)
    late.flush()
    for one in (early, late):
        contest = one.experiment.contests["candidate"]
        assert contest.pairs == 1500
        assert not contest.left_out["shadow"]
        assert one.overdue() == [0, 0]


def test_a_few_and_a_small_share_do_not_count() -> None:
    assert not OpenPairs((3,), (100,), 10.0).differs(1)
    assert OpenPairs((4,), (100,), 10.0).differs(1)
    assert OpenPairs((37,), (30_000,), 10.0).differs(1)
    assert not OpenPairs((37,), (40_000,), 10.0).differs(1), "a share that falls"
    both = OpenPairs((0, 1037), (500, 500), 10.0)
    assert (both.differs(1), both.differs(2)) == (False, True)
    assert both.describe(("the champion", "a", "b")).endswith("10 s: 0 of a, 1,037 of b")


def test_slow_models_are_given_four_times_what_the_champion_took() -> None:
    one = live(**SETTINGS)
    for number in range(8):
        one.take(record(number, started=NOW, seconds=5.0), "champion", None, None, answer(1))
    for number, at, missing in ((98, 19.9, 0), (99, 20.1, 8)):
        one.take(record(number, started=NOW + at), "champion", None, None, answer(1))
        one.flush()
        assert one.overdue() == [0, missing]


def test_requests_of_a_worker_without_the_challenger_wait_for_nothing() -> None:
    one = live(**SETTINGS)
    names = Names(2, (("m", "1", "auto"),), ("champion",))
    for number in range(10):
        one.take(record(number, started=NOW), "champion", None, None, answer(1), names)
    one.take(record(99, started=NOW + 1000.0), "champion", None, None, answer(1))
    one.flush()
    assert one.overdue() == [0, 0]
    assert not one.experiment.contests["candidate"].left_out["shadow"]


def test_metrics_show_what_hangs(tmp_path: Path) -> None:
    one = live(**SETTINGS)
    run(one, exchanges(2000), NOW + 25.0)

    class View:
        experiments = ExperimentRunner(config_of(tmp_path, experiments=[SHADOW]))

    view: Any = View()
    view.experiments.live.clear()
    view.experiments.live["x"] = one
    (family,) = (
        f
        for f in experiment_families(view.experiments)
        if f.name == "understudy_experiment_unanswered"
    )
    found = {(s.labels["arm"], s.labels["state"]): s.value for s in family.samples}
    assert found["candidate", "overdue"] == one.overdue()[1] > 10
    assert found["champion", "overdue"] == found["candidate", "lost"] == 0.0


def test_the_state_keeps_what_hangs() -> None:
    one, two = live(**SETTINGS), live(**SETTINGS)
    run(one, exchanges(2000), NOW + 25.0)
    two.load_state(json.loads(json.dumps(one.dump_state(), allow_nan=False)))
    two.recall(NOW + 25.0)
    assert two.overdue() == one.overdue()
    for each in (one, two):
        reasons = each.contestants["candidate"].decision.reasons
        assert any("no answer yet after 10 s" in reason for reason in reasons)
    one.restart(NOW + 26.0)
    assert one.overdue() == [0, 0], "other model servers answered these"


def rows(*given: tuple[float, bytes, int]) -> tuple[ColumnBatch, np.ndarray]:
    """A batch of time, request id and fate of the challenger's answer."""
    at, ids, fates = zip(*given, strict=True)
    names = ("fresh", "a.fate", "b.fate")
    columns: list[Any] = [np.ones(len(ids)), np.zeros(len(ids)), np.array(fates, np.float64)]
    batch = batch_of((PAIRS, "x", "candidate"), names, at, ids, np.zeros(len(ids)), columns)
    return batch, batch.floats("b.fate") == PENDING


def test_a_pair_ends_its_report_in_any_order() -> None:
    pending = PendingPairs(300.0)
    pending.take(*rows((10.0, b"a", PENDING), (10.1, b"b", PENDING)))
    pending.take(*rows((12.0, b"a", ANSWERED), (12.1, b"c", ANSWERED)))
    assert (len(pending), pending.missing(1.0), pending.missing(3.5)) == (1, 1, 0)
    # The record of "d" was late: its pair has an earlier time than its report.
    pending.take(*rows((19.0, b"d", FAILED), (20.0, b"d", PENDING), (20.0, b"b", FAILED)))
    assert len(pending) == 0


def test_what_is_remembered_is_bounded() -> None:
    pending = PendingPairs(300.0, limit=5)
    pending.take(*rows(*((float(n), b"%d" % n, PENDING) for n in range(8))))
    assert len(pending) == 5
    pending.take(*rows((302.5, b"z", ANSWERED)))
    assert len(pending) == 2, "those without a pair after so long were lost"
    small = PendingPairs(300.0, limit=1)
    with pytest.raises(ValueError, match="1 requests at most"):
        small.load_state(pending.dump_state())


def test_deadlines_are_bounded_by_what_waits() -> None:
    joiner: PairJoiner[int] = PairJoiner(10)
    deadlines = Deadlines(joiner)
    for number in range(1000):
        key = b"%d" % number
        joiner.add(key, 0, number, 2)
        deadlines.add(float(number), key)
        assert len(deadlines) <= 20
        if number % 3:
            joiner.add(key, 1, number, 2)
    assert [due for due, _ in deadlines.passed(990.0)] == [972.0 + 3 * n for n in range(6)]
    assert [key for _, key in deadlines.passed(2000.0)] == [b"990", b"993", b"996", b"999"]
    assert not list(deadlines.passed(2000.0)), "each once"

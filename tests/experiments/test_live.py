"""An experiment fed with records, without processes: pairing, noise, units, epochs, labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.live_experiment import (
    ARMS,
    NOW,
    SPLIT,
    answer,
    assigned,
    declared,
    division,
    joined,
    later,
    live,
    pair,
    record,
    served,
    status,
)
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.joiner import PairJoiner
from understudy.monitor.evidence.observe import correct
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.plot import sequence
from understudy.monitor.experiments.summary import explanation
from understudy.monitor.experiments.timeline import MOST, Timeline
from understudy.monitor.records import record as records
from understudy.shadow import rollout


def test_pairs_are_joined_in_any_order_and_compared() -> None:
    def redact(columns: Any) -> dict[str, object]:
        return {k: "[redacted]" if k == "ssn" else v[0] for k, v in columns.items()}

    one = live(redact, metrics=[{"metric": "disagreement", "margin": "10 pp"}])
    for i in range(50):
        pair(one, i, 0.5, 0.5 if i % 5 else 0.9)
    copy_first = record(99, records.ROLE_MIRROR)
    one.take(copy_first, "candidate", None, None, answer(0.5))
    one.take(record(99), "champion", None, answer(1), answer(0.5))
    found = status(one)["disagreement"]
    assert found.records == (51, 51)
    assert found.estimates == (0.0, 10 / 51)
    worst = one.contestants["candidate"].worst.entries
    assert len(worst) == 10
    assert worst[0]["inputs"] == {"age": 0, "ssn": "[redacted]"}
    assert "p: 0.5 against 0.9" in worst[0]["explanation"]


def test_the_champions_own_noise_does_not_count_against_the_challenger() -> None:
    """Both answer at random, alike: the share of differences is large, and nothing is harmed."""
    metrics = [{"metric": "disagreement", "margin": "5 pp"}]
    one = live(noise=True, compare={"noise": 1.0}, metrics=metrics)
    rng = np.random.default_rng(4)
    for i in range(1500):
        first, again, other = rng.integers(0, 2, 3).tolist()
        one.take(record(i), "champion", None, None, answer(first))
        copy = record(i, records.ROLE_MIRROR)
        one.take(copy, "champion-again", None, None, answer(again))
        one.take(record(i, records.ROLE_MIRROR), "candidate", None, None, answer(other))
    found = status(one)["disagreement"]
    assert found.records == (1500, 1500)
    assert min(x for x in found.estimates if x is not None) > 0.4
    assert found.log_harm < 3.0
    assert one.contestants["candidate"].noise.compared == 1500


def test_outcomes_without_evidence_are_excluded() -> None:
    one = live(metrics=[{"metric": "error_rate", "margin": "5 pp"}])
    for i, outcome in enumerate((records.CANCELLED, records.REJECTED)):
        one.take(record(i, outcome=outcome), "champion", None, None, None)
        one.take(record(i, records.ROLE_MIRROR), "candidate", None, None, answer(1))
    for i, outcome in enumerate((records.CANCELLED, records.OVERLOAD), start=10):
        one.take(record(i), "champion", None, None, answer(1))
        copy = record(i, records.ROLE_MIRROR, outcome)
        one.take(copy, "candidate", None, None, None)
    one.take(record(20), "champion", None, None, answer(1))
    failed = record(20, records.ROLE_MIRROR, records.TIMEOUT)
    one.take(failed, "candidate", None, None, None)
    found = status(one)["error_rate"]
    assert found.records == (1, 1)
    assert found.estimates == (0.0, 1.0)


def test_requests_started_before_a_change_of_weights_are_excluded() -> None:
    one = live(**SPLIT, settle="5s")
    for i in range(20):
        one.take(*assigned(i, i % 2), division(), None, answer(1))
    assert served(one) == [10, 10]
    new = division(0.5, NOW + 100)
    late = record(50, assigned=1, started=NOW + 50)
    one.take(late, "champion", new, None, answer(1))  # began before
    settling = record(51, assigned=1, started=NOW + 103)
    one.take(settling, "champion", new, None, answer(1))
    other_worker = record(52, assigned=1, started=NOW + 110)
    one.take(other_worker, "champion", division(), None, answer(1))  # still the old weights
    assert (served(one), one.carried_over) == ([10, 10], 3)
    restarted = SplitShares(ARMS, (0.5, 0.5), NOW + 104, NOW + 100)
    before = record(54, assigned=1, started=NOW + 103.9)
    one.take(before, "champion", restarted, None, answer(1))  # by its predecessor's weights
    assert (served(one), one.carried_over) == ([10, 10], 4)
    fine = record(53, assigned=2, started=NOW + 106)
    one.take(fine, "candidate", new, None, answer(1))
    assert served(one) == [10, 11]


def test_testers_and_diverted_requests_are_excluded() -> None:
    one = live(**SPLIT)
    one.take(record(1, assigned=0), "candidate", division(), None, answer(1))
    diverted = record(2, assigned=2)
    one.take(diverted, "champion", division(), None, answer(1))
    later(one)
    one.tick(NOW + 100.0)
    assert served(one) == [1, 0]
    assert one.contestants["candidate"].diverted == 1
    split = one.experiment.split
    assert split is not None
    assert split.counts == (0, 1), "but whose unit it is counts for the check of the split"


def test_a_sample_ratio_mismatch_is_noticed() -> None:
    one = live(**SPLIT)
    for i in range(2000):
        one.take(*assigned(i, 0), division(), None, answer(1))
    assert status(one, "split")
    later(one)
    one.tick(NOW + 100.0)
    found = one.contestants["candidate"].decision
    assert found.verdict == "invalid"
    assert "champion 2,000 (expected 1,200), candidate 0 (expected 800)" in found.reasons[0]
    assert "requests assigned" in found.reasons[0]
    following = explanation(one, one.contestants["candidate"], NOW + 100.0).next
    assert "restart the evidence of split traffic: understudy experiment resume x" in following[-1]


def test_a_split_is_judged_again_when_its_reason_is_gone() -> None:
    one = live(**SPLIT)
    for i in range(100):
        one.take(*assigned(i, 0), division(), None, answer(1))
    later(one)
    one.tick(NOW + 100.0)
    assert one.contestants["candidate"].decision.verdict == "invalid"
    assert one.contestants["candidate"].rollout.phase == "paused"
    rng = np.random.default_rng(2)
    for i in range(1000, 9000):
        at = NOW + 100.0 + i * 0.001
        one.take(*assigned(i, int(rng.random() < 0.4), started=at), division(), None, answer(1))
    one.tick(NOW + 200.0)
    found = one.contestants["candidate"]
    assert found.decision.verdict != "invalid"
    assert found.rollout.phase == "paused", "a person resumes"
    assert "understudy experiment resume x" in " ".join(explanation(one, found, NOW + 200).next)


@pytest.mark.parametrize("unit", [{}, {"by": "header", "name": "x-user"}])
def test_a_resumed_rollout_restarts_the_evidence_of_a_broken_split(unit: dict[str, str]) -> None:
    one = live(**SPLIT, **({"unit": unit} if unit else {}))
    candidate = one.contestants["candidate"]

    def fed(first: int, n: int, share: float, at: float) -> None:
        rng = np.random.default_rng(first)
        for i in range(first, first + n):
            arm = int(rng.random() < share)
            made = assigned(i, arm, started=at + i * 0.01, unit=b"u%d" % i)
            one.take(*made, division(), None, answer(1))

    fed(0, 600, 0.1, NOW + 10)
    one.tick(NOW + 100.0)
    assert (candidate.decision.verdict, candidate.rollout.phase) == ("invalid", "paused")
    one.prepare_resume(candidate, NOW + 101)
    fed(700, 100, 0.0, NOW + 80)  # they started before
    assert one.experiment.split is None
    assert served(one) == [0, 0]
    candidate.rollout, _ = rollout.resume(candidate.rollout, NOW + 101, "ada", "fixed", 0)
    fed(1000, 600, 0.4, NOW + 110)
    one.tick(NOW + 200.0)
    assert candidate.decision.verdict != "invalid"
    assert candidate.rollout.phase != "paused"
    assert sum(served(one)) == 600


def test_requests_that_hang_count_as_assigned_and_block_a_promotion() -> None:
    """The champion stops answering: the split is as configured, and its answers are missing."""
    one = live(**SPLIT, metrics=[{"metric": "error_rate", "margin": "20 pp"}])
    rng = np.random.default_rng(5)
    for i in range(3000):
        arm = int(rng.random() < 0.4)
        at = NOW + 10 + i * 0.02
        hangs = not arm and at >= NOW + 40
        if not hangs:
            one.take(*assigned(i, arm, started=at), division(), None, answer(1))
            continue
        for age in (1.0, 2.0, 4.0, 8.0, 16.0):
            if at + age < NOW + 70:
                report = record(i, outcome=records.OPEN, assigned=1, started=at, seconds=age)
                one.take(report, "champion", division(), None, None)
    one.tick(NOW + 71)
    found = one.contestants["candidate"].decision
    assert one.experiment.split_honoured
    assert one.experiment.split is not None
    assert sum(one.experiment.split.counts) > 2800
    assert found.verdict == "continue"
    (missing,) = [reason for reason in found.reasons if "no answer yet" in reason]
    assert " of the champion, 0 of candidate; no promotion before" in missing
    grounds = explanation(one, one.contestants["candidate"], NOW + 71).why
    assert "requests that have no answer yet after 5 s" in grounds[-1]
    assert found.evidence[0].status == "passed", "but for the answers that are missing"


def test_units_are_one_observation_each() -> None:
    metrics = [
        {"metric": "error_rate", "margin": "5 pp"},
        {"metric": "latency_p95", "margin": "9 %"},
    ]
    one = live(**SPLIT, unit={"by": "header", "name": "x-user"}, metrics=metrics)
    for user in range(30):
        for i in range(7):
            number = user * 10 + i
            one.take(
                *assigned(number, user % 2, unit=b"u%d" % user, started=NOW + 10 + i),
                division(),
                None,
                answer(1),
            )
    assert served(one) == [15, 15], "units, as soon as they are assigned"
    found = status(one, "split")["error_rate"]
    assert found.records == (0, 0)
    assert found.note == "a unit counts from 1 minute after its first request"
    one.take(*assigned(9999, 0, unit=b"last", started=NOW + 100), division(), None, answer(1))
    one.flush()
    assert status(one, "split")["error_rate"].records == (15, 15)
    split = one.experiment.split
    assert split is not None
    assert split.counts == (15, 15)


def test_units_of_the_shadow_stage_do_not_count_under_the_next_weights() -> None:
    one = live(**SPLIT, unit={"by": "header", "name": "x-user"})
    alone = SplitShares(ARMS, (1.0, 0.0), NOW, NOW)
    for user in range(500):
        one.take(*assigned(user, 0, unit=b"u%d" % user), alone, None, answer(1))
    following = SplitShares(ARMS, (0.5, 0.5), NOW + 100, NOW + 100)
    for user in range(500):
        one.take(
            *assigned(1000 + user, user % 2, unit=b"v%d" % user, started=NOW + 200),
            following,
            None,
            answer(1),
        )
    one.tick(NOW + 10_000)
    assert one.experiment.decide("split", 1.0)["candidate"].verdict != "invalid"


def test_labels_of_pairs_and_of_split_traffic() -> None:
    changes = {"label": {"prediction": "p", "threshold": 0.5}}
    metrics = [{"metric": "accuracy", "margin": "5 pp"}]
    one = live(**changes, metrics=metrics)
    for i in range(20):
        one.take_label(joined(i, "champion", 0.2, 1))
        one.take_label(joined(i, "candidate", 0.8, 1))
    found = status(one)["accuracy"]
    assert (found.records, found.estimates) == ((20, 20), (0.0, 1.0))
    assert one.experiment.contests["candidate"].pairs == 0, "labels do not count as requests"
    other = live(**SPLIT, **changes, metrics=metrics)
    for i in range(20):
        arm = ("champion", "candidate")[i % 2]
        other.take_label(joined(i, arm, 0.8, i % 4 < 2, 0.4))
    found = status(other, "split")["accuracy"]
    assert found.records == (10, 10)


def test_labels_that_one_arm_lacks_are_not_judged() -> None:
    """From records and labels to the reason: the challenger's errors are never labelled."""
    changes = {"label": {"prediction": "p", "threshold": 0.5}}
    one = live(**SPLIT, **changes, metrics=[{"metric": "accuracy", "role": "success"}])
    for i in range(1_200):
        arm, wrong = i % 2, i % 10 < 2
        one.take(*assigned(i, arm, started=NOW + 10 + i), division(), None, answer(0.8))
        if not (arm and wrong):
            label = replace(joined(i, ARMS[arm], 0.8, 0 if wrong else 1, 0.4), started=NOW + 10 + i)
            one.take_label(replace(label, received=NOW + 11 + i))
        if i % 100 == 99:
            one.flush()
    failed = record(5_000, outcome=records.TIMEOUT, assigned=2)
    one.take(failed, "candidate", division(), None, None)
    found = status(one, "split")["accuracy"]
    cohorts = one.experiment.contests["candidate"].labels["label"]
    assert cohorts.held
    assert cohorts._counts[:, :2].sum() < 1_200, "only requests since then, and answered ones"
    assert found.note.startswith("not judged: labels come for")
    assert found.log_pass <= 0.0


@pytest.mark.parametrize(
    ("cell", "label", "threshold", "wanted"),
    [
        (0.7, 1, 0.5, 1.0),
        (0.7, True, 0.5, 1.0),
        (0.7, 0, 0.5, 0.0),
        ("cat", "cat", None, 1.0),
        ("cat", "dog", None, 0.0),
        (1, 1.0, None, 1.0),
        (1, "1", None, 1.0),
        ("cat", 1, 0.5, None),
        (None, 1, None, None),
        (1, None, None, None),
    ],
)
def test_when_a_prediction_was_right(
    cell: object, label: object, threshold: float | None, wanted: float | None
) -> None:
    how = {"prediction": "p", **({"threshold": threshold} if threshold is not None else {})}
    found = correct({"p": cell}, label, declared(label=how).label)  # type: ignore[arg-type]
    assert found == wanted or (wanted is None and found != found)


def test_promoting_one_of_several_challengers_ends_the_others() -> None:
    names = ("good", "other")
    arms = Arms("champion", "", dict.fromkeys(names, 0.0), b"salt")
    base = {"name": "x", "challengers": list(names), "mode": "split"}
    weights = {"good": 0.2, "other": 0.3}
    one = LiveExperiment(Declared.model_validate({**base, "weights": weights}), arms, NOW)
    assert one.weights() == pytest.approx((0.5, 0.2, 0.3))
    good = one.contestants["good"]
    good.rollout, _ = rollout.promote(good.rollout, NOW, "ada", "it has to be", 0, force=True)
    events = one.tick(NOW + 1)
    assert [(e.challenger, e.kind, e.why) for e in events] == [
        ("other", "aborted", "good was promoted")
    ]
    assert one.reallocate(NOW)
    assert one.weights() == (0.0, 1.0, 0.0)


def test_the_state_survives_json_and_continues() -> None:
    unit = {"by": "cookie", "name": "uid"}
    one = live(**SPLIT, unit=unit, metrics=[{"metric": "error_rate", "margin": "5 pp"}])
    for i in range(40):
        one.take(*assigned(i, i % 2, unit=b"u%d" % i), division(), None, answer(1))
    pair(one, 100, 1, 2)
    state = json.loads(json.dumps(one.dump_state(), allow_nan=False))
    two = live(**SPLIT, unit=unit, metrics=[{"metric": "error_rate", "margin": "5 pp"}])
    two.load_state(state)
    for each in (one, two):
        each.take(*assigned(50, 1, unit=b"u50"), division(), None, answer(1))
        each.tick(NOW + 10_000)
    assert served(one) == served(two) == [20, 21]
    assert two.contestants["candidate"].worst.entries == one.contestants["candidate"].worst.entries


def test_waiting_halves_are_bounded() -> None:
    dropped: list[tuple[bytes, dict[int, int]]] = []
    pairing: PairJoiner[int] = PairJoiner(3, lambda key, halves: dropped.append((key, halves)))
    for i in range(5):
        assert pairing.add(b"%d" % i, 0, i, 2) is None
    assert (len(pairing), dropped) == (3, [(b"0", {0: 0}), (b"1", {0: 1})])
    dropped.clear()
    assert pairing.add(b"4", 0, 7, 2) is None
    assert dropped == [(b"4", {0: 4})], "an id that is used twice"
    dropped.clear()
    assert pairing.add(b"0", 1, 9, 2) is None, "its half was given up"
    assert dropped == [(b"2", {0: 2})]
    assert pairing.add(b"4", 1, 9, 2) == {0: 7, 1: 9}


def numbers() -> Iterator[int]:
    yield from range(10 * MOST)


def test_a_timeline_keeps_first_and_last_and_stays_small() -> None:
    line = Timeline()
    for i in numbers():
        line.add({"at": i})
        assert len(line.points) <= MOST
    found = [p["at"] for p in line.points]
    assert found[0] == 0
    assert found[-1] == 10 * MOST - 1
    assert found == sorted(set(found))


def test_a_plot_with_infinite_ends_is_drawn() -> None:
    xs = [10, 20, 30, 40]
    ends = [[None, None], [None, 0.5], [-0.2, 0.2], [-0.1, 0.1]]
    drawn = sequence(xs, [None, 0.1, 0.0, 0.0], ends, 0.05, label="<a>", factor=100, unit=" pp")
    assert drawn.startswith("<svg")
    assert "&lt;a&gt;" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert 'class="margin"' in drawn

"""Labels that come later, or more rarely, for one arm are judged by the age of their requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from understudy.shadow.experiment import Decision, Experiment, Rules, Split
from understudy.shadow.experiment import label_cohorts as cohorts_of
from understudy.shadow.experiment.label_cohorts import LabelCohorts

Array = np.ndarray[Any, Any]
ACCURACY = {"metric": "accuracy", "role": "success", "base_rate": 0.9, "effect": "1 pp"}
Delay = Callable[[np.random.Generator, Array, Array], Array]
LATE = 2_000.0


def errors_of_challenger(rng: np.random.Generator, arm: Array, right: Array) -> Array:
    """Field case: errors of the challenger are known 2,000 requests later than all else."""
    return np.where((arm == 1.0) & (right == 0.0), LATE, 0.0)


def errors_of_both(rng: np.random.Generator, arm: Array, right: Array) -> Array:
    """Errors are known late, whichever arm made them."""
    return np.where(right == 0.0, LATE, 0.0)


def none(rng: np.random.Generator, arm: Array, right: Array) -> Array:
    return np.zeros(arm.size)


def alike(rng: np.random.Generator, arm: Array, right: Array) -> Array:
    return np.asarray(rng.exponential(500.0, arm.size))


def run(
    seed: int,
    delay: Delay,
    accuracy: tuple[float, float] = (0.9, 0.9),
    *,
    labelled: Callable[[Array, Array], Array] | None = None,
    n: int = 12_000,
    restart: bool = False,
    metric: dict[str, Any] | None = None,
) -> tuple[Decision, Experiment, float]:
    """One request per second, half of them to each arm; a look every 500."""
    rng = np.random.default_rng([19, seed])
    arm = (rng.random(n) < 0.5).astype(float)
    right = (rng.random(n) < np.where(arm == 1.0, accuracy[1], accuracy[0])).astype(float)
    started = np.arange(n, dtype=float)
    due = started + delay(rng, arm, right)
    order = np.argsort(due, kind="stable")
    if labelled is not None:
        order = order[labelled(arm, right)[order]]
    rules = Rules.parse([metric or ACCURACY])
    experiment = Experiment("aa", ["c"], rules)
    decision, t = Decision("continue", ()), 0.0
    for t in range(500, n + int(LATE) + 500, 500):
        contest = experiment.contests["c"]
        new = (started >= t - 500) & (started < t)
        if new.any():
            contest.expect_labels(arm[new], started[new])
            unknown = {"correct": np.full(int(new.sum()), np.nan)}
            contest.update_split(Split(arm[new], np.full(int(new.sum()), 0.5), unknown))
        come = order[(due[order] >= t - 500) & (due[order] < t)]
        if come.size:
            contest.update_labels(
                Split(
                    arm[come],
                    np.full(come.size, 0.5),
                    {"correct": right[come]},
                    np.zeros(come.size, bool),
                    started[come],
                    due[come],
                )
            )
        if restart:
            state = json.loads(json.dumps(experiment.dump_state(), allow_nan=False))
            experiment = Experiment("aa", ["c"], rules)
            experiment.load_state(state)
        decision = experiment.decide("split", 0.0)["c"]
        if decision.verdict != "continue":
            break
    return decision, experiment, float(t)


def test_errors_of_one_arm_that_are_known_later_promote_nothing() -> None:
    """40 of 40 were promoted. At alpha 0.05, 4 of 8 have probability below 5e-4 by chance; the
    seeds are fixed."""
    ends = [run(seed, errors_of_challenger) for seed in range(8)]
    assert sum(decision.verdict == "promote" for decision, _, _ in ends) == 0
    assert sum(decision.verdict == "rollback" for decision, _, _ in ends) <= 1
    for decision, experiment, _ in ends:
        assert experiment.contests["c"].labels["label"].held
        note = decision.evidence[0].note
        assert "labels come later for one arm: judged by requests at least" in note


def test_a_better_challenger_is_not_ended_while_the_errors_of_both_are_unknown() -> None:
    """All of the first labels are of successes, and the arms hardly differ."""
    for seed in range(8):
        decision, _, _ = run(seed, errors_of_both, (0.9, 0.95), n=20_000)
        assert decision.verdict == "promote", decision.reasons


def test_a_worse_challenger_is_not_promoted_while_the_errors_of_both_are_unknown() -> None:
    """Every label so far is of a success; the worse arm only has fewer of them. At the margin at most
    alpha are ever promoted; the seeds are fixed."""
    guard = {"metric": "accuracy", "margin": "3 pp", "base_rate": 0.9}
    for seed in range(6):
        decision, _, _ = run(seed, errors_of_both, (0.9, 0.85), metric=guard, n=8_000)
        assert decision.verdict != "promote", decision.reasons
    edge = [run(seed, errors_of_both, (0.9, 0.87), metric=guard, n=8_000) for seed in range(8)]
    assert sum(decision.verdict == "promote" for decision, _, _ in edge) <= 1
    good = [run(seed, errors_of_both, (0.9, 0.9), metric=guard, n=12_000) for seed in range(3)]
    assert all(decision.verdict == "promote" for decision, _, _ in good)


def test_a_growing_share_of_the_traffic_is_no_difference_of_labels() -> None:
    """The challenger's requests are younger then, and fewer of them have their label."""
    rng = np.random.default_rng(8)
    cohorts = LabelCohorts(["correct"])
    started = np.arange(8_000, dtype=float)
    arm = (rng.random(8_000) < np.linspace(0.02, 0.8, 8_000)).astype(float)
    due = started + rng.exponential(2_000.0, 8_000)
    come = np.flatnonzero(due < 8_000)
    cohorts.expect(arm, started)
    columns = {"correct": np.ones(come.size)}
    cohorts.take(Split(arm[come], np.full(come.size, 0.5), columns, None, started[come], due[come]))
    shares = cohorts.unlabelled
    assert shares[1] > shares[0] + 0.1
    lack, error = cohorts.lack()
    assert abs(lack) < 4.0 * error < 0.1


def test_a_target_that_is_ruled_out_whatever_labels_come_ends_the_experiment() -> None:
    metric = {**ACCURACY, "effect": "5 pp"}
    decision, _, at = run(1, errors_of_both, (0.9, 0.9), metric=metric, n=60_000)
    assert (decision.verdict, decision.cause) == ("rollback", "no_improvement")
    assert at > LATE
    few, _, _ = run(
        1, none, (0.9, 0.9), metric=metric, labelled=lambda arm, _: np.arange(arm.size) % 2 == 0
    )
    assert few.verdict == "continue", "the other half of the labels may still come"


def test_what_is_really_better_or_worse_is_found_in_old_cohorts() -> None:
    better, _, at = run(1, errors_of_challenger, (0.86, 0.93))
    assert better.verdict == "promote"
    assert at > LATE, "not before its late errors were known"
    worse, _, _ = run(2, errors_of_challenger, (0.93, 0.86))
    assert worse.verdict == "rollback"


def test_labels_that_come_alike_count_as_they_come() -> None:
    for delay in (none, alike):
        decision, experiment, _ = run(3, delay, (0.86, 0.93))
        assert decision.verdict == "promote"
        contest = experiment.contests["c"]
        assert not contest.labels["label"].held
        measure = contest.measures["split"][0]
        assert measure is not None
        if delay is none:
            assert decision.evidence[0].log_pass == pytest.approx(measure.log_pass)
        else:
            assert decision.evidence[0].log_pass <= measure.log_pass


def test_errors_that_are_never_labelled_in_one_arm_leave_the_metric_not_judged() -> None:
    decision, _, _ = run(
        4, none, labelled=lambda arm, right: ~((arm == 1.0) & (right == 0.0)), n=4_000
    )
    assert decision.verdict == "continue"
    item = next(
        i for i in decision.evidence if i.hypothesis.metric.name in ("accuracy", "error_rate")
    )
    assert item.log_pass <= 0.0
    assert item.log_harm <= 0.0
    assert item.difference.to_list() == [None, None]
    assert item.note.startswith("not judged: labels come for ")
    assert "of the challenger's and 100 % of the champion's requests" in item.note
    assert any("accuracy" in reason and "not judged" in reason for reason in decision.reasons)


def test_half_of_all_labels_is_enough_when_both_arms_have_them() -> None:
    rng = np.random.default_rng(5)
    has = rng.random(12_000) < 0.5
    decision, _, _ = run(5, none, (0.84, 0.93), labelled=lambda arm, right: has)
    assert decision.verdict == "promote"


def test_cohorts_come_back_from_json() -> None:
    plain, _, at = run(1, errors_of_challenger, (0.86, 0.93))
    again, _, later = run(1, errors_of_challenger, (0.86, 0.93), restart=True)
    assert (plain.verdict, at) == (again.verdict, later)
    assert plain.evidence[0].log_pass == pytest.approx(again.evidence[0].log_pass, abs=1e-9)


def test_a_reward_is_followed_apart_from_labels() -> None:
    metrics = [ACCURACY, {"metric": "reward", "margin": "0.1 units"}]
    contest = Experiment("aa", ["c"], Rules.parse(metrics)).contests["c"]
    assert {kind: c.columns for kind, c in contest.labels.items()} == {
        "label": ("correct",),
        "reward": ("reward",),
    }


def held() -> LabelCohorts:
    """Cohorts in which the challenger's labels never come: by age."""
    found = LabelCohorts(["correct"])
    arms = np.tile((0.0, 1.0), 200)
    started = np.arange(400.0)
    found.expect(arms, started)
    found.take(labels(arms[::2], started[::2], started[::2]))
    assert found.trip()
    return found


def labels(arms: Array, started: Array, at: Array) -> Split:
    share, right = np.full(arms.size, 0.5), np.ones(arms.size)
    return Split(arms, share, {"correct": right}, np.zeros(arms.size, bool), started, at)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts_of, "MOST_WAITING", 1_000)
    found = held()
    for begin in range(400, 20_400, 200):
        started = np.arange(begin, begin + 200.0)
        arms = np.tile((0.0, 1.0), 100)
        found.expect(arms, started)
        found.take(labels(arms[::2], started[::2], started[::2]))
        assert found.release() is None
    assert len(found._waiting["arms"]) <= 1_000
    assert len(found._starts) <= cohorts_of.MOST_COHORTS
    assert found.left_out > 8_000
    reason = found.judge(("the champion", "the challenger")).reason
    assert "0 % of the challenger's and 100 % of the champion's requests" in reason


def test_merged_cohorts_hold_the_counts_of_both() -> None:
    parts = [held(), held()]
    for part in parts:
        started = np.arange(400.0, 600.0)
        arms = np.tile((0.0, 1.0), 100)
        part.expect(arms, started)
        part.take(labels(arms, started, started))
    both = parts[0].merge(parts[1])
    assert both._counts.sum(axis=0).tolist() == [200.0] * 4
    assert len(both._waiting["arms"]) == 400

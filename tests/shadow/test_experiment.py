"""Experiments: what may be declared, what the measures gather, and what is decided from it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from understudy.shadow.experiment import (
    DEFAULT_METRICS,
    Experiment,
    ExperimentError,
    Hypothesis,
    Margin,
    Pairs,
    Rules,
    Split,
    Unit,
)
from understudy.shadow.experiment.measures import measure_for
from understudy.shadow.experiment.measures.base import log_calibrated
from understudy.shadow.experiment.measures.quantile import PER_DOUBLING
from understudy.shadow.sequential import QuantileComparison, edges_around, quantile_ab_p_value

BAD: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"metric": "error_rate", "margin": 0.01}], "metrics[0].margin", "has no unit"),
    ([{"metric": "error_rate", "margin": "1 ms"}], "metrics[0].margin", "does not fit"),
    ([{"metric": "error_rate", "margin": "-1 pp"}], "metrics[0].margin", "at least 0"),
    ([{"metric": "error_rate", "margin": "1 apple"}], "metrics[0].margin", "not a valid unit"),
    ([{"metric": "error_rate", "margin": "much"}], "metrics[0].margin", "not a valid margin"),
    ([{"metric": "error_rate", "margin": True}], "metrics[0].margin", "must be a text"),
    ([{"metric": "error_rate"}], "metrics[0].margin", "is required"),
    ([{"metric": "error_rate", "margin": 0}], "metrics[0].margin", "must be above 0"),
    ([{"metric": "eror_rate", "margin": "1 pp"}], "metrics[0].metric", "does not exist"),
    ([{"metric": "prediction", "margin": "1 units"}], "metrics[0].field", "needs the name"),
    ([{"metric": "error_rate", "margin": "1 pp", "field": "x"}], "metrics[0].field", "not about"),
    ([{"metric": "error_rate", "margin": "1 pp", "odd": 1}], "metrics[0].odd", "is not known"),
    ([{"metric": "error_rate", "margin": "1 pp", "role": "hope"}], "metrics[0].role", "must be"),
    ([{"metric": "latency_tail", "role": "success"}], "metrics[0].role", "only be a guardrail"),
    ([{"metric": "latency_tail"}], "metrics", "only detect"),
    ([], "metrics", "at least one"),
    (
        [{"metric": "accuracy", "role": "success", "effect": "120 pp"}],
        "metrics[0].effect",
        "outside the bounds",
    ),
    (
        [{"metric": "reward", "margin": "1 units", "bounds": [1, 0]}],
        "metrics[0].bounds",
        "lower must be below",
    ),
    (
        [{"metric": "error_rate", "margin": "1 pp", "bounds": [0, 1]}],
        "metrics[0].bounds",
        "none to declare",
    ),
    (
        [
            {"metric": "error_rate", "margin": "1 pp", "alpha": 0.04},
            {"metric": "timeout_rate", "margin": "1 pp", "alpha": 0.02},
        ],
        "metrics",
        "budget is 0.05",
    ),
    (
        [
            {"metric": "error_rate", "margin": "1 pp", "alpha": 0.05},
            {"metric": "timeout_rate", "margin": "1 pp"},
        ],
        "metrics",
        "none left",
    ),
    ([{"metric": "error_rate", "margin": "1 pp"}] * 2, "metrics[1].metric", "already metrics[0]"),
]


@pytest.mark.parametrize(("metrics", "path", "message"), BAD, ids=[f"{p} {m}" for _, p, m in BAD])
def test_errors_name_the_path(metrics: list[dict[str, Any]], path: str, message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        Rules.parse(metrics)
    assert caught.value.path == path
    assert message in caught.value.problem


def test_margins_have_units() -> None:
    assert Margin.parse("0.5 pp", Unit.POINTS) == Margin(0.005, Unit.POINTS)
    assert Margin.parse("20ms", Unit.SECONDS) == Margin(0.02, Unit.SECONDS)
    assert Margin.parse("5 %", Unit.SECONDS).relative
    assert not Margin.parse("0 %", Unit.SECONDS).relative
    assert str(Margin.parse("20 ms", Unit.SECONDS)) == "20 ms"


def test_shares_of_alpha_divide_what_is_left() -> None:
    rules = Rules.parse(
        [
            {"metric": "error_rate", "margin": "1 pp", "alpha": 0.03},
            {"metric": "timeout_rate", "margin": "1 pp"},
            {"metric": "latency_p99", "margin": "10 %"},
        ]
    )
    assert rules.hypotheses[-1].name == "unusable_rate", "is built in, for a small share"
    shares = [0.98 * 0.03, 0.98 * 0.01, 0.98 * 0.01, 0.02 * 0.05]
    assert [h.alpha for h in rules.hypotheses] == pytest.approx(shares)


RATE = {"metric": "error_rate", "margin": "1 pp"}
KINDS: list[tuple[dict[str, Any], bool]] = [
    (RATE, True),
    (RATE, False),
    ({"metric": "error_rate", "margin": "50 %"}, True),
    ({"metric": "error_rate", "margin": "50 %"}, False),
    ({"metric": "accuracy", "role": "success"}, True),
    ({"metric": "latency_mean", "margin": "10 %"}, True),
    ({"metric": "latency_mean", "margin": "5 ms"}, False),
    ({"metric": "reward", "margin": "0.1 units", "bounds": [0, 1]}, True),
    ({"metric": "reward", "margin": "0.1 units", "bounds": [0, 1]}, False),
    ({"metric": "latency_p99", "margin": "20 %"}, True),
    ({"metric": "latency_p95", "margin": "10 ms"}, False),
    ({"metric": "latency_tail", "margin": "20 %"}, True),
    ({"metric": "latency_tail"}, False),
    ({"metric": "prediction_distribution", "field": "p", "margin": "5 pp"}, True),
    ({"metric": "prediction_distribution", "field": "p"}, False),
    ({"metric": "reward", "margin": "0.1 units", "cap": "0.8 units"}, True),
    ({"metric": "reward", "margin": "0.1 units", "covariate": "x"}, True),
    ({"metric": "reward", "margin": "0.1 units", "covariate": "x"}, False),
    ({"metric": "ratio", "field": "a", "per": "b", "margin": "10 %"}, True),
    ({"metric": "ratio", "field": "a", "per": "b", "margin": "0.1 units"}, False),
    ({"metric": "precision", "margin": "2 pp"}, True),
    ({"metric": "precision", "margin": "2 pp"}, False),
    ({"metric": "recall", "margin": "2 pp"}, True),
    ({"metric": "brier", "margin": "0.01 units"}, True),
    ({"metric": "auc", "margin": "2 pp"}, True),
    ({"metric": "auc", "margin": "2 pp"}, False),
    ({"metric": "calibration_error", "margin": "2 pp"}, True),
    ({"metric": "calibration_error", "margin": "2 pp"}, False),
]


def values(hypothesis: Hypothesis, rng: np.random.Generator, n: int) -> np.ndarray:
    first = values_of_one(hypothesis, rng, n)
    if len(hypothesis.columns) == 1:
        return first
    if hypothesis.metric.beside == "positive":
        return np.stack((first, rng.random(n) < first), axis=1)
    return np.stack((first, rng.random(n) + 0.5), axis=1)


def values_of_one(hypothesis: Hypothesis, rng: np.random.Generator, n: int) -> np.ndarray:
    if hypothesis.metric.statistic.value == "rate" or hypothesis.metric.name == "precision":
        return (rng.random(n) < 0.1).astype(float)
    if hypothesis.column == "latency":
        return rng.lognormal(-3.0, 0.5, n)
    return rng.random(n)


@pytest.mark.parametrize(("spec", "paired"), KINDS)
def test_batches_restarts_and_size_of_a_measure(spec: dict[str, Any], paired: bool) -> None:
    """One batch or many, with a trip through JSON in between: the same evidence, in 4 KB."""
    hypothesis = Hypothesis.parse(spec, "m", 0.05)
    rng = np.random.default_rng(7)
    n = 6000
    x, y, arms = values(hypothesis, rng, n), values(hypothesis, rng, n), rng.random(n) < 0.3
    # What waits for its thresholds is kept in single precision.
    x, y = (v.astype(np.float32).astype(float) for v in (x, y))

    def feed(measure: Any, part: slice) -> None:
        if paired:
            measure.update_pairs(x[part], y[part])
        else:
            share = np.full(len(x[part]), 0.3)
            measure.update_split(arms[part].astype(float), x[part], share)

    whole = measure_for(hypothesis, paired=paired)
    for start in range(0, n, 500):
        feed(whole, slice(start, start + 500))
    cut = measure_for(hypothesis, paired=paired)
    largest = 0
    for start in range(0, n, 100):
        feed(cut, slice(start, start + 100))
        state = json.loads(json.dumps(cut.dump_state(), allow_nan=False))
        largest = max(largest, len(json.dumps(state)))
        cut = measure_for(hypothesis, paired=paired)
        cut.load_state(state)
    assert cut.n == whole.n
    assert cut.estimates() == pytest.approx(whole.estimates())
    assert cut.log_pass == pytest.approx(whole.log_pass, abs=1e-9)
    assert cut.log_harm == pytest.approx(whole.log_harm, abs=1e-9)
    assert largest <= 4096
    whole.begin_epoch()
    assert whole.log_pass == pytest.approx(whole.log_pass)


@pytest.mark.parametrize(("spec", "paired"), KINDS)
def test_two_replicas_merge(spec: dict[str, Any], paired: bool) -> None:
    hypothesis = Hypothesis.parse(spec, "m", 0.05)
    rng = np.random.default_rng(11)
    parts = []
    for _ in range(2):
        measure = measure_for(hypothesis, paired=paired)
        x, y = values(hypothesis, rng, 2000), values(hypothesis, rng, 2000)
        if paired:
            measure.update_pairs(x, y)
        else:
            arms = (rng.random(2000) < 0.5).astype(float)
            measure.update_split(arms, x, np.full(2000, 0.5))
        parts.append(measure)
    if hypothesis.metric.statistic.value in ("tail", "quantile", "distribution"):
        return  # thresholds and edges are each replica's own: evidence is merged as e-values
    both = parts[0].merge(parts[1])
    assert both.n == [a + b for a, b in zip(parts[0].n, parts[1].n, strict=True)]
    assert np.isfinite(both.log_pass)


def test_an_epoch_keeps_evidence_as_a_product() -> None:
    hypothesis = Hypothesis.parse({"metric": "latency_mean", "margin": "10 %"}, "m", 0.05)
    rng = np.random.default_rng(3)
    measure = measure_for(hypothesis, paired=False)
    total = 0.0
    for share in (0.1, 0.5):
        arms = (rng.random(3000) < share).astype(float)
        fresh = measure_for(hypothesis, paired=False)
        for one in (measure, fresh):
            one.update_split(arms, rng.lognormal(-3, 0.4, 3000), np.full(3000, share))
        total = measure.log_pass
        measure.begin_epoch()
        assert measure.log_pass == pytest.approx(total)
    assert measure.estimates() == (None, None)


P50 = {"metric": "latency_p50", "margin": "20 %"}


def split(rng: np.random.Generator, n: int, share: float, error: tuple[float, float]) -> Split:
    arms = (rng.random(n) < share).astype(float)
    rates = np.where(arms == 1.0, error[1], error[0])
    return Split(arms, np.full(n, share), {"error": (rng.random(n) < rates).astype(float)})


def experiment(metrics: list[dict[str, Any]], challengers: int = 1, **rules: Any) -> Experiment:
    names = [f"c{i}" for i in range(challengers)]
    return Experiment("x", names, Rules.parse(metrics, **rules))


@pytest.mark.simulation
def test_ten_times_the_errors_are_rolled_back_within_200_requests() -> None:
    """Champion 1 %, challenger 10 %, at a share of 5 %; 60 streams.

    Each stays longer than 200 of the challenger's own requests with probability below 0.02 (found
    by simulating 2,000), so that more than 12 of 60 do has probability below 1e-9.
    """
    late = 0
    for seed in range(60):
        one = experiment([RATE])
        rng = np.random.default_rng(seed)
        contest = one.contests["c0"]
        while contest.served[1] < 200:
            contest.update_split(split(rng, 100, 0.05, (0.01, 0.10)))
            if one.decide("split", 1.0)["c0"].verdict == "rollback":
                break
        else:
            late += 1
    assert late <= 12


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("streams", "most"), [(100, 18), pytest.param(200, 30, marks=pytest.mark.slow)]
)
def test_a_challenger_at_the_margin_is_rarely_promoted(streams: int, most: int) -> None:
    """Exactly at the margin, with a look after every batch: at most alpha are ever promoted.

    Of ``streams`` with probability at most 0.05 each, more than ``most`` is a matter of 1e-6.
    """
    promoted = 0
    for seed in range(streams):
        one = experiment([RATE], minimum=0)
        rng = np.random.default_rng(1000 + seed)
        for _ in range(40):
            one.contests["c0"].update_split(split(rng, 250, 0.3, (0.05, 0.06)))
            if one.decide("split", 1.0)["c0"].verdict == "promote":
                promoted += 1
                break
    assert stats.binom.sf(most, streams, 0.05) < 1e-6
    assert promoted <= most


def test_without_traffic_nothing_is_decided() -> None:
    one = experiment(list(DEFAULT_METRICS), max_seconds=10.0)
    for mode in ("shadow", "split"):
        decision = one.decide(mode, 1e9)["c0"]
        assert (decision.verdict, decision.reasons) == ("continue", ("no traffic yet",))


def test_a_wrong_split_is_invalid_while_the_counts_say_so() -> None:
    one = experiment([RATE])
    rng = np.random.default_rng(5)
    one.contests["c0"].update_split(split(rng, 20_000, 0.5, (0.01, 0.01)))
    one.assigned([2400, 1600], [0.5, 0.5])
    decision = one.decide("split", 1.0)["c0"]
    assert decision.verdict == "invalid"
    assert "sample ratio mismatch" in decision.reasons[0]
    copy = experiment([RATE])
    copy.load_state(json.loads(json.dumps(one.dump_state(), allow_nan=False)))
    assert copy.decide("split", 1.0)["c0"].verdict == "invalid"
    copy.assigned([1000, 1800], [0.5, 0.5])
    assert copy.decide("split", 1.0)["c0"].verdict != "invalid", "the counts are even again"


def test_a_correct_split_over_several_weights_is_valid() -> None:
    one = experiment([RATE])
    rng = np.random.default_rng(6)
    for share in (0.01, 0.05, 0.25, 0.5):
        challenger = int(rng.binomial(20_000, share))
        one.assigned([20_000 - challenger, challenger], [1.0 - share, share])
    assert one.split_honoured


def test_harm_wins_over_benefit_and_stays() -> None:
    metrics = [RATE, {"metric": "accuracy", "role": "success", "base_rate": 0.5}]
    one = experiment(metrics)
    rng = np.random.default_rng(8)
    n = 20_000
    arms = (rng.random(n) < 0.5).astype(float)
    error = (rng.random(n) < np.where(arms == 1, 0.2, 0.01)).astype(float)
    correct = (rng.random(n) < np.where(arms == 1, 0.9, 0.5)).astype(float)
    contest = one.contests["c0"]
    contest.update_split(Split(arms, np.full(n, 0.5), {"error": error, "correct": correct}))
    decision = one.decide("split", 1.0)["c0"]
    assert decision.verdict == "rollback"
    assert "error_rate is worse by more than 1 pp" in decision.reasons[0]
    status = {item.name: item.status for item in decision.evidence}
    assert status == {"error_rate": "harmed", "accuracy": "passed", "unusable_rate": "harmed"}
    arms = (rng.random(n) < 0.5).astype(float)
    contest.update_split(Split(arms, np.full(n, 0.5), {"error": np.zeros(n)}))
    assert one.decide("split", 1.0)["c0"].verdict == "rollback"


def test_futility_and_the_end_of_time() -> None:
    success = {"metric": "accuracy", "role": "success", "effect": "10 pp", "base_rate": 0.5}
    one = experiment([success])
    rng = np.random.default_rng(9)
    y = (rng.random(30_000) < 0.5).astype(float)
    one.contests["c0"].update_pairs(Pairs({"correct": (y, y)}, y.size))
    decision = one.decide("shadow", 1.0)["c0"]
    assert decision.verdict == "rollback"
    assert "the target improvement of 10 pp has been ruled out" in decision.reasons[0]
    for at_end, verdict in (("rollback", "rollback"), ("continue", "continue")):
        one = experiment([success], max_seconds=60.0, at_end=at_end)
        one.contests["c0"].update_pairs(Pairs({"correct": (y[:50], y[:50])}, 50))
        assert one.decide("shadow", 59.0)["c0"].verdict == "continue"
        decision = one.decide("shadow", 60.0)["c0"]
        assert decision.verdict == verdict
        assert "the time limit was reached" in decision.reasons[0]


def test_latency_of_mirrored_requests_is_shown_only() -> None:
    one = experiment(list(DEFAULT_METRICS))
    rng = np.random.default_rng(10)
    x = rng.lognormal(-3, 0.3, 20_000)
    zero = np.zeros(x.size)
    columns = {"error": (zero, zero), "timeout": (zero, zero), "latency": (x, 3 * x)}
    one.contests["c0"].update_pairs(Pairs(columns, x.size))
    decision = one.decide("shadow", 1.0)["c0"]
    assert decision.verdict == "promote"
    by_name = {item.name: item for item in decision.evidence}
    assert by_name["latency_p99"].status == "shown"
    assert by_name["latency_p99"].log_harm > 5.0
    assert "share their load" in by_name["latency_p99"].note


def test_a_shadow_experiment_is_not_promoted_while_latency_looks_worse() -> None:
    """Where no split traffic follows, a metric that only that could decide must not look worse."""
    rng = np.random.default_rng(10)
    x = rng.lognormal(-3, 0.3, 20_000)
    zero = np.zeros(x.size)
    for factor, verdict in ((3, "continue"), (1, "promote")):
        one = Experiment("e", ["c0"], Rules.parse(None, shadow_only=True))
        columns = {"error": (zero, zero), "timeout": (zero, zero), "latency": (x, factor * x)}
        one.contests["c0"].update_pairs(Pairs(columns, x.size))
        decision = one.decide("shadow", 1.0)["c0"]
        assert decision.verdict == verdict
        assert ("let split traffic decide" in decision.reasons[0]) == (verdict == "continue")


def test_a_promotion_waits_for_the_minimum_duration() -> None:
    one = Experiment("e", ["c0"], Rules.parse([RATE], min_seconds=300.0))
    zero = np.zeros(20_000)
    one.contests["c0"].update_pairs(Pairs({"error": (zero, zero)}, zero.size))
    early = one.decide("shadow", 299.0)["c0"]
    assert early.verdict == "continue"
    assert "for 299 s of at least 300 s" in early.reasons[0]
    assert one.decide("shadow", 300.0)["c0"].verdict == "promote"


def test_a_pause_in_the_traffic_is_no_time_of_an_experiment() -> None:
    """A burst of requests and a silent hour: nothing of that hour was seen (a canary that advances
    while it gets no traffic)."""
    one = Experiment("e", ["c0"], Rules.parse([RATE], min_seconds=300.0))
    zero = np.zeros(20_000)
    one.contests["c0"].update_pairs(Pairs({"error": (zero, zero)}, zero.size))
    found = one.decide("shadow", 3600.0, lasted={"c0": 20.0})["c0"]
    assert found.verdict == "continue"
    assert "traffic for 20 s of at least 300 s" in found.reasons[0]
    assert one.decide("shadow", 3600.0, lasted={"c0": 300.0})["c0"].verdict == "promote"


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_two_arms_that_answer_nothing_are_alike_and_not_promoted(mode: str) -> None:
    """A wrong path, or a dependency of both that is down: every measurement is a failure."""
    one = experiment([RATE])
    ones, contest = np.ones(4000), one.contests["c0"]
    if mode == "shadow":
        contest.update_pairs(Pairs({"error": (ones, ones)}, ones.size))
    else:
        arms = (np.random.default_rng(1).random(4000) < 0.5).astype(float)
        contest.update_split(Split(arms, np.full(4000, 0.5), {"error": ones}))
    found = one.decide(mode, 1e6)["c0"]
    assert found.verdict == "continue"
    assert any("has answered 0 of" in reason for reason in found.reasons)


@pytest.mark.parametrize("failing", [0.6, 1.0])
def test_a_champion_that_fails_at_once_does_not_make_the_challenger_slow(failing: float) -> None:
    """Failures take 1 ms, answers 30 ms; a challenger that answers is no harm for that."""
    rng = np.random.default_rng(3)
    arms = (rng.random(6000) < 0.5).astype(float)
    failed = (arms == 0.0) & (rng.random(6000) < failing)
    latency = np.where(failed, 0.001, 0.03) * rng.lognormal(0.0, 0.2, 6000)
    for error, verdict in ((failed.astype(float), "continue"), (np.zeros(6000), "rollback")):
        one = experiment([RATE, {"metric": "latency_p95", "margin": "20 %"}, P50])
        columns = {"error": error, "latency": latency}
        one.contests["c0"].update_split(Split(arms, np.full(6000, 0.5), columns))
        found = one.decide("split", 1e6)["c0"]
        assert found.verdict == verdict, found.reasons
        if verdict == "continue":
            assert any("no harm is concluded from latency" in line for line in found.reasons)


def test_an_improvement_is_not_ruled_out_before_the_minimum_duration() -> None:
    success = {**RATE, "role": "success", "margin": 0, "effect": "2 pp"}
    one = experiment([success], min_seconds=300.0)
    zero = np.zeros(20_000)
    one.contests["c0"].update_pairs(Pairs({"error": (zero, zero)}, zero.size))
    assert one.decide("shadow", 299.0)["c0"].verdict == "continue"
    later = one.decide("shadow", 300.0)["c0"]
    assert (later.verdict, later.cause) == ("rollback", "no_improvement")


def test_of_several_challengers_at_most_one_is_promoted() -> None:
    one = experiment([{"metric": "accuracy", "role": "success", "base_rate": 0.5}], 3)
    rng = np.random.default_rng(12)
    champion = (rng.random(5000) < 0.5).astype(float)
    for name, rate in (("c0", 0.6), ("c1", 0.7), ("c2", 0.5)):
        challenger = (rng.random(5000) < rate).astype(float)
        one.contests[name].update_pairs(Pairs({"correct": (champion, challenger)}, 5000))
    verdicts = {name: d.verdict for name, d in one.decide("shadow", 1.0).items()}
    assert verdicts == {"c0": "continue", "c1": "promote", "c2": "continue"}


def test_values_out_of_bounds_are_counted_and_left_out() -> None:
    one = experiment([{"metric": "reward", "margin": "0.1 units", "bounds": [0, 1]}])
    rewards = np.array([0.5, 1.5, 0.2, -0.1])
    one.contests["c0"].update_pairs(Pairs({"reward": (rewards, np.full(4, 0.5))}, 4))
    evidence = one.decide("shadow", 1.0)["c0"].evidence[0]
    assert (evidence.outside, evidence.records) == (2, (2, 2))


def test_evidence_for_another_margin_is_not_used() -> None:
    one = experiment([RATE])
    one.contests["c0"].update_split(split(np.random.default_rng(2), 1000, 0.5, (0.1, 0.1)))
    other = experiment([{"metric": "error_rate", "margin": "2 pp"}])
    other.load_state(one.dump_state())
    assert other.decide("split", 1.0)["c0"].evidence[0].records == (0, 0)


def test_the_calibrator_is_an_e_value_under_the_null() -> None:
    """Its integral over p in (0, 1) is 1; it grows as p falls."""
    p = (np.arange(200_000) + 0.5) / 200_000
    e = np.exp([log_calibrated(float(x)) for x in p])
    assert np.mean(e) < 1.0
    assert np.all(np.diff(e) < 1e-3)


def test_evidence_on_contents_of_mirrored_requests_counts_for_split_traffic() -> None:
    metrics = [{"metric": "accuracy", "role": "success", "base_rate": 0.5}, RATE]
    one = experiment(metrics, minimum=0)
    rng = np.random.default_rng(21)
    n = 3000
    champion, challenger = (rng.random(n) < 0.5) * 1.0, (rng.random(n) < 0.6) * 1.0
    zero = np.zeros(n)
    columns = {"correct": (champion, challenger), "error": (zero, zero)}
    contest = one.contests["c0"]
    contest.update_pairs(Pairs(columns, n))
    shadow = {e.name: e for e in one.decide("shadow", 1.0)["c0"].evidence}
    contest.update_split(split(rng, 1000, 0.5, (0.01, 0.01)))
    found = {e.name: e for e in one.decide("split", 1.0)["c0"].evidence}
    assert found["accuracy"].log_pass == pytest.approx(shadow["accuracy"].log_pass)
    assert "shadow stage" in found["accuracy"].note
    assert sum(found["error_rate"].records) == 1000, "errors of copies are not those of clients"


def test_bets_on_fewer_events_are_wide_at_a_small_share() -> None:
    spec = {"metric": "error_rate", "role": "success", "effect": "2 pp", "base_rate": 0.1}
    hypothesis = Hypothesis.parse(spec, "m", 0.05)
    found: list[Any] = []
    for share in (0.05, 0.5):
        rng = np.random.default_rng(3)
        measure = measure_for(hypothesis, paired=False)
        arms = (rng.random(8_000) < share).astype(float)
        errors = (rng.random(8_000) < np.where(arms == 1.0, 0.06, 0.1)).astype(float)
        measure.update_split(arms, errors, np.full(8_000, share))
        found.append(measure)
    small, even = found
    assert [test.centre for test in small._tests] == [1.6, 1.1]
    assert [test.centre for test in even._tests] == [1.1, 1.1]
    both = small.merge(even)
    assert both._log_es()[0] + both._carried[0] == pytest.approx(
        small._log_es()[0] + even._log_es()[0]
    )
    back = measure_for(hypothesis, paired=False)
    back.load_state(json.loads(json.dumps(small.dump_state(), allow_nan=False)))
    assert back.log_pass == pytest.approx(small.log_pass)
    empty = measure_for(hypothesis, paired=False)
    assert empty.merge(small).log_pass == pytest.approx(small.log_pass)


def test_latency_buckets_lose_nothing_against_the_values_themselves() -> None:
    """Evidence at one moment, with the buckets of experiments and with coarse ones."""
    rng = np.random.default_rng(11)
    arms = np.tile((0.0, 1.0), 6_000)
    x = 0.02 * rng.lognormal(0.0, 0.5, arms.size) * np.where(arms == 1.0, 1.1, 1.0)
    exact = -np.log(quantile_ab_p_value(x[arms == 0.0], x[arms == 1.0], 0.5, planned=5_000))
    found = []
    for per_doubling in (PER_DOUBLING, 48):
        edges = edges_around(0.02, per_doubling=per_doubling)
        test = QuantileComparison(edges, 0.5, planned=5_000)
        test.update(arms, x)
        found.append(test.log_e)
    assert exact > 8.0
    assert found[0] >= 0.95 * exact
    assert found[1] < 0.8 * exact

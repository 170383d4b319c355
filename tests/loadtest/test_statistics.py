"""Verdicts and intervals: against published tables, LoadGen itself, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support.outcomes import outcome_of
from understudy.loadtest.capacity.breakpoint import Capacity, StepVerdict, estimate, search
from understudy.loadtest.capacity.queue import (
    Service,
    highest_rate,
    in_service,
    observed,
    predict,
    sojourns,
)
from understudy.loadtest.capacity.sizing import per_prediction, replicas
from understudy.loadtest.capacity.usl import fit
from understudy.loadtest.chaos.recovery import budget_burned, recovery
from understudy.loadtest.errors import PlanError
from understudy.loadtest.statistics.compare import compare
from understudy.loadtest.statistics.intervals import mean, needed, quantile, rate
from understudy.loadtest.statistics.percentile import Percentile, queries_needed


@pytest.mark.parametrize(
    ("p", "table"),
    [
        (0.90, {0: 44, 1: 64, 2: 81, 10: 197}),
        (0.95, {0: 90, 1: 130, 2: 165, 10: 398}),
        (0.99, {0: 459, 1: 662, 2: 838, 10: 2010}),
        (0.999, {0: 4603, 1: 6636, 2: 8403, 10: 20140}),
    ],
)
def test_early_stopping_needs_what_loadgen_needs(p: float, table: dict[int, int]) -> None:
    assert {over: queries_needed(p, over) for over in table} == table


def test_a_verdict_that_is_looked_at_always_is_seldom_wrong() -> None:
    rng = np.random.default_rng(1)
    p, rows, streams = 0.95, 4000, 1500
    objective = Percentile(p)
    # The most that may be over the limit at each look, and the fewest that must not be.
    looks = np.unique(np.geomspace(objective.fewest, rows, 250).astype(int))
    passes, fails = [], []
    most, least = -1, 0
    for n in looks.tolist():
        while objective.verdict(n, most + 1) == "met":
            most += 1
        least = max(least, most + 1)
        while objective.verdict(n, least) != "missed":
            least += 1
        passes.append(most)
        fails.append(least)
    over = np.cumsum(rng.random((streams, rows)) < 0.05, axis=1)[:, looks - 1]
    wrong_pass = int((over <= np.array(passes)).any(axis=1).sum())
    wrong_fail = int((over >= np.array(fails)).any(axis=1).sum())
    # 1 % of 1,500 each at the most; 40 have a probability below 1e-7.
    assert wrong_pass < 40
    assert wrong_fail < 40
    easy = np.cumsum(rng.random((200, rows)) < 0.0125, axis=1)[:, looks - 1]
    first = looks[(easy <= np.array(passes)).argmax(axis=1)]
    assert np.median(first) <= 2.5 * queries_needed(p, round(0.0125 * float(np.median(first))))


def test_too_few_requests_say_nothing() -> None:
    objective = Percentile(0.99)
    assert objective.verdict(0, 0) == "open"
    assert objective.verdict(objective.fewest - 1, 0) == "open"
    assert objective.verdict(objective.fewest, 0) == "met"
    assert objective.verdict(100, 100) == "missed"
    with pytest.raises(ValueError, match="cannot be over"):
        objective.verdict(5, 6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Percentile(1.0)
    with pytest.raises(ValueError, match="between"):
        queries_needed(1.5, 0)


def test_intervals_cover() -> None:
    rng = np.random.default_rng(2)
    inside, trials = 0, 400
    for _ in range(trials):
        found = quantile(rng.exponential(size=700), 0.99)
        assert found is not None
        assert found.low <= found.value <= found.high
        inside += found.low <= -math.log(0.01) <= found.high
    # 95 % of 400; 350 or fewer has a probability below 1e-8.
    assert inside > 350
    assert quantile(rng.exponential(size=100), 0.99) is None
    assert quantile(np.zeros(0), 0.5) is None
    assert quantile(rng.exponential(size=needed(0.99)), 0.99) is not None
    one = rate(0, 300)
    assert one is not None
    assert (one.low, one.high) == (0.0, pytest.approx(0.0122, abs=1e-3))
    assert rate(0, 0) is None
    assert mean([1.0]) is None


def test_comparisons_know_what_matters() -> None:
    rng = np.random.default_rng(3)
    drift = np.exp(np.cumsum(rng.normal(0.0, 0.1, 8)))  # the machine itself gets slower and faster
    a = drift * np.exp(rng.normal(0.0, 0.01, 8))
    assert compare("p99", a, 1.3 * drift, 0.05).verdict == "worse"
    assert compare("p99", a, 0.7 * drift, 0.05).verdict == "better"
    same = compare("p99", a, drift * np.exp(rng.normal(0.0, 0.01, 8)), 0.05)
    assert same.verdict == "no difference that matters"
    assert compare("p99", a[:2], a[:2], 0.05).verdict == "not enough repeats"
    noisy = compare("p99", a, drift * np.exp(rng.normal(0.05, 0.3, 8)), 0.05)
    assert noisy.verdict == "not enough repeats"
    with pytest.raises(ValueError, match="repeats"):
        compare("p99", a, a[:3], 0.05)
    with pytest.raises(ValueError, match="positive"):
        compare("p99", [0.0, 1.0, 1.0], [1.0, 1.0, 1.0], 0.05)


@pytest.mark.parametrize("servers", [1, 4])
def test_queues_are_those_of_theory(servers: int) -> None:
    """M/M/1 and M/M/c have answers in closed form."""
    rng = np.random.default_rng(4)
    service = rng.exponential(0.01, 5000)
    load = 0.7
    measured = Service(service)
    found = predict(measured, load * servers / float(service.mean()), 0.99, servers, runs=6)
    assert found.value is not None
    assert found.load == pytest.approx(load)
    if servers == 1:
        exact = -math.log(0.01) * float(service.mean()) / (1.0 - load)
        assert found.value.value == pytest.approx(exact, rel=0.12)
    else:
        assert -math.log(0.01) * 0.01 < found.value.value < -math.log(0.01) * 0.01 / (1.0 - load)
    best = highest_rate(measured, 0.2, 0.99, servers)
    assert best is not None
    assert 0.5 < best * float(service.mean()) / servers < 0.95


def test_one_server_by_both_recursions() -> None:
    rng = np.random.default_rng(5)
    gaps, service = rng.exponential(1.0, 3000), rng.exponential(0.7, 3000)
    waited, expected = 0.0, []
    for number in range(3000):
        if number:
            waited = max(0.0, waited + service[number - 1] - gaps[number])
        expected.append(waited + service[number])
    assert sojourns(gaps, service, 1) == pytest.approx(np.array(expected))
    two = sojourns(gaps, service, 2)
    assert (two <= np.array(expected) + 1e-9).all()


@pytest.mark.parametrize("servers", [1, 3])
def test_times_in_service_follow_from_when_requests_came_and_went(servers: int) -> None:
    rng = np.random.default_rng(9)
    gaps, service = rng.exponential(1.0 / servers, 4000), rng.lognormal(-0.5, 0.6, 4000)
    arrived = np.cumsum(gaps)
    departed = arrived + sojourns(gaps, service, servers)
    assert in_service(arrived, departed, servers) == pytest.approx(service)
    late = in_service(arrived, departed + rng.normal(0.0, 0.001, 4000), servers)
    assert np.median(late) == pytest.approx(np.median(service), rel=0.01)


def test_the_way_to_the_server_is_no_time_in_service() -> None:
    rng = np.random.default_rng(12)
    way, count = 0.1, 60_000
    gaps, service = rng.exponential(1.0, count), rng.lognormal(-0.6, 0.3, count)
    arrived = np.cumsum(gaps)
    departed = arrived + sojourns(gaps, service, 1) + way
    plain, found = in_service(arrived, departed, 1), observed(arrived, departed, 1)
    assert plain.mean() > 1.05 * service.mean(), "as seen by a client"
    assert found.way == pytest.approx(way, rel=0.2)
    assert found.times.mean() == pytest.approx(service.mean(), rel=0.01)
    for faster in (0.5, 1.2):
        exact = np.quantile(sojourns(gaps / faster, service, 1), 0.99) + way
        told = predict(found, faster).value
        assert told is not None
        assert told.value == pytest.approx(exact, rel=0.06)
    # Nothing is taken out where nothing is known of it, or where those that waited took longer.
    assert observed(arrived[:300], departed[:300], 1).way == 0.0
    slower = np.where(rng.random(count) < 0.5, 2.0, 1.0)
    assert observed(arrived, arrived + slower, count).way == 0.0


def test_all_probes_tell_where_the_limit_is_reached() -> None:
    """p99 of M/M/1 is ln 100 / (mu - rate): 0.5 s at mu - 9.21 per second."""
    rng = np.random.default_rng(10)

    def probe(rate: float) -> StepVerdict:
        gaps, service = rng.exponential(1.0 / rate, 8000), rng.exponential(0.01, 8000)
        outcome = outcome_of(np.cumsum(gaps), sojourns(gaps, service, 1), np.ones(8000, np.bool_))
        return StepVerdict(rate, (outcome.quantile(0.99) or 0.0) <= 0.5, "", outcome)

    found = search(probe, 30.0, 200.0, precision=0.04)
    guess = estimate(found, 0.99, 0.5)
    assert guess is not None
    assert guess.value == pytest.approx(100.0 - 9.21, rel=0.06)
    assert guess.low < guess.value < guess.high
    assert estimate(Capacity(None, 1.0, ()), 0.99, 0.5) is None
    assert estimate(Capacity(1.0, 1.02, found.probes[:2]), 0.99, 0.5) is None


def test_what_cannot_be_predicted_is_refused() -> None:
    assert predict(Service(np.ones(10)), 1.0).value is None
    assert "no prediction above" in predict(Service(np.full(500, 0.01)), 99.0).why_not
    assert highest_rate(Service(np.full(500, 1.0)), 0.5) is None
    assert highest_rate(Service(np.full(500, 0.4), way=0.2), 0.5) is None


def usl(n: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return 100.0 * n / (1.0 + alpha * (n - 1.0) + beta * n * (n - 1.0))


def test_scalability_says_nothing_beyond_what_was_measured() -> None:
    rng = np.random.default_rng(6)
    alpha, beta = 0.02, 0.98 / 40.0**2  # the knee is at 40
    near = np.repeat([1.0, 2, 4, 6, 8, 10], 3)
    short = fit(near, usl(near, alpha, beta) * np.exp(rng.normal(0.0, 0.03, len(near))))
    assert short.knee is None
    assert "measure higher concurrencies" in short.why_not
    far = np.repeat([1.0, 2, 4, 8, 16, 32, 48, 64], 3)
    whole = fit(far, usl(far, alpha, beta) * np.exp(rng.normal(0.0, 0.03, len(far))))
    assert whole.knee is not None
    assert whole.knee.low <= 40.0 <= whole.knee.high
    assert whole.knee.high / whole.knee.low < 1.6
    with pytest.raises(ValueError, match="too few"):
        fit([1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="positive"):
        fit([1, 2], [1, 0])


def test_replicas_and_costs_say_where_they_come_from() -> None:
    assert replicas(1000.0, 100.0, 0.5, 1) == 21
    assert replicas(0.0, 100.0, 0.5, 2) == 2
    with pytest.raises(PlanError):
        replicas(10.0, 0.0)
    found = per_prediction(100.0, 3.0, 60.0, 1000.0, {"price_per_hour": 3.6})
    assert found["cost"].value == pytest.approx(1e-5)
    assert found["cost"].source == "computed"
    assert found["cpu_seconds"].value == pytest.approx(0.003)


def test_recovery_is_exact_to_the_distance_of_requests() -> None:
    due = np.arange(0.0, 30.0, 0.01)
    latency = np.full(len(due), 0.005)
    ok = np.ones(len(due), np.bool_)
    stalled = (due >= 9.998) & (due < 12.0)
    latency[stalled] = 12.2 - due[stalled]  # everything waits until 12.2
    ok[(due >= 10.5) & (due < 10.6)] = False
    ok[250] = False  # long before the fault, and none of its business
    found = recovery(outcome_of(due, latency, ok), 10.0, 12.0, 0.05)
    assert found.detected_after == pytest.approx(0.05, abs=0.011)
    assert found.recovered_after == pytest.approx(-0.01, abs=0.011)
    assert (found.lost, found.over) == (10, True)
    assert found.slow == 190
    assert found.depth == 1.0
    assert found.normal_p99 == pytest.approx(0.005)
    assert budget_burned(found, 0.999, 100.0, 86400.0) == pytest.approx(200 / (0.001 * 8_640_000))
    never = recovery(
        outcome_of(due, np.full(len(due), 0.005), np.ones(len(due), np.bool_)), 10.0, 12.0, 0.05
    )
    assert (never.detected_after, never.lost, never.over) == (None, 0, True)
    latency[due >= 12.0] = 1.0
    still = recovery(outcome_of(due, latency, ok), 10.0, 12.0, 0.05)
    assert (still.recovered_after, still.over) == (None, False)

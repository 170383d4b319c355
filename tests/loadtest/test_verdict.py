"""Verdicts of known outcomes: a late generator gives none, unless the target is slow itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.outcomes import outcome_of
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.verdict import (
    Criterion,
    evaluate,
    generator_late,
    overall_verdict,
    unless_late,
)

DUE = np.arange(0.0, 20.0, 0.01)
OK = np.ones(len(DUE), np.bool_)


def late(lag: float, service: float, share: float = 1.0) -> Outcome:
    """A load of which a ``share`` of the requests was sent ``lag`` seconds late."""
    lags = np.where(np.arange(len(DUE)) % 100 < 100 * share, lag, 0.0)
    return outcome_of(DUE, lags + service, OK, lags)


def verdicts(objectives: Objectives, outcome: Outcome) -> list[str]:
    return [one.verdict for one in evaluate(objectives, outcome)]


def test_a_late_generator_fails_no_target() -> None:
    """Latencies count from when requests were due, so that all of them miss the limit."""
    for rule in ("anytime", "loadgen"):
        objectives = Objectives(p90="5ms", p99="5ms", rule=rule)
        assert verdicts(objectives, late(0.05, 0.001)) == ["invalid"] * 3
        assert verdicts(objectives, late(0.05, 0.001, 0.3)) == ["invalid"] * 3
    (lag, p90) = evaluate(Objectives(p90="5ms"), late(0.05, 0.001))
    assert (lag.name, lag.limit) == ("send lag p99", 0.05 * 0.005)
    assert "took longer than 5 ms: 2,000 of 2,000, 200 are allowed" in p90.why
    assert "but not by the time of service alone, allowing for 10" in p90.why


def test_a_late_generator_passes_no_target() -> None:
    assert verdicts(Objectives(p90="5ms"), late(0.001, 0.001)) == ["invalid", "passed"]
    assert overall_verdict(evaluate(Objectives(p90="5ms"), late(0.001, 0.001))) == "invalid"


def test_a_target_that_is_slow_itself_fails_with_a_late_generator() -> None:
    """The limit, and twice the lag on top: a queue is as late as its arrivals, and a response is
    read as late."""
    for rule in ("anytime", "loadgen"):
        objectives = Objectives(p90="5ms", rule=rule)
        assert verdicts(objectives, late(0.05, 0.120)) == ["invalid", "failed"]
        assert verdicts(objectives, late(0.05, 0.100)) == ["invalid", "invalid"]
    assert "also by the time of service alone" in evaluate(objectives, late(0.05, 0.12))[1].why
    assert overall_verdict(evaluate(objectives, late(0.05, 0.12))) == "failed"


def test_as_many_as_the_generator_may_have_delayed_more_are_not_counted() -> None:
    """1 % of the requests may have been later than the lag by which it is judged: of a p99, 1 %
    over the limit are allowed and 1 % are not known."""
    slow = np.where(np.arange(len(DUE)) % 100 < 2, 10.0, 0.001)
    two = outcome_of(DUE, slow + 0.05, OK, np.full(len(DUE), 0.05))
    assert verdicts(Objectives(p99="5ms"), two) == ["invalid", "invalid"]
    slow = np.where(np.arange(len(DUE)) % 100 < 4, 10.0, 0.001)
    four = outcome_of(DUE, slow + 0.05, OK, np.full(len(DUE), 0.05))
    assert verdicts(Objectives(p99="5ms"), four) == ["invalid", "failed"]


def test_responses_that_are_errors_fail_whatever_the_generator_does() -> None:
    found = outcome_of(DUE, np.full(len(DUE), 0.051), ~OK, np.full(len(DUE), 0.05))
    found.errors["TLS"] = len(DUE)
    (lag, p50, errors) = evaluate(Objectives(p50="50ms", errors="1 %"), found)
    assert (lag.verdict, p50.verdict, errors.verdict) == ("invalid", "failed", "failed")
    assert p50.why.startswith(
        "failed or took longer than 50 ms: 2,000 of 2,000 (status 503: 2,000, TLS: 2,000)"
    )


def test_the_first_byte_counts_as_the_whole_response_does() -> None:
    def begun(outcome: Outcome) -> Outcome:
        outcome.first_byte = outcome.latency.copy()
        return outcome

    objectives = Objectives(first_byte_p95="5ms")
    assert verdicts(objectives, begun(late(0.05, 0.001))) == ["invalid", "invalid"]
    assert verdicts(objectives, begun(late(0.05, 0.12))) == ["invalid", "failed"]
    assert verdicts(objectives, begun(late(0.0, 0.12))) == ["failed"]
    assert verdicts(objectives, begun(late(0.0, 0.001))) == ["passed"]


def test_a_growing_queue_of_a_late_generator_is_not_the_target_s() -> None:
    due = np.arange(0.0, 600.0, 0.01)
    lag = np.where(due > 595.8, 0.2, 0.0)  # 0.7 % of all, 1.4 % of the later half
    grown = outcome_of(due, 0.01 + lag, np.ones(len(due), np.bool_), lag)
    (one,) = evaluate(Objectives(p99="50ms"), grown)
    assert (one.verdict, "latency grows" in one.why) == ("failed", True), "its lag p99 is small"
    lag = np.where(due > 590.0, 0.2, 0.0)  # 1.7 %
    grown = outcome_of(due, 0.01 + lag, np.ones(len(due), np.bool_), lag)
    assert verdicts(Objectives(p99="50ms"), grown) == ["invalid", "invalid"]


def test_the_lag_is_looked_at_as_far_in_the_tail_as_the_objective() -> None:
    due = np.arange(0.0, 200.0, 0.01)
    lag = np.where(np.arange(len(due)) % 1000 < 5, 0.2, 0.0)  # 0.5 % of the requests
    outcome = outcome_of(due, 0.001 + lag, np.ones(len(due), np.bool_), lag)
    assert verdicts(Objectives(p99="50ms"), outcome) == ["passed"]
    found = evaluate(Objectives(p99="50ms", p999="50ms"), outcome)
    assert [(one.name, one.verdict) for one in found] == [
        ("send lag p99.9", "invalid"), ("p99", "passed"), ("p99.9", "invalid"),
    ]  # fmt: skip


def test_more_requests_than_are_kept_are_judged_by_histograms() -> None:
    fast, slow = late(0.05, 0.001), late(0.05, 0.2)
    fast.single = slow.single = False
    assert verdicts(Objectives(p90="5ms"), fast) == ["invalid", "invalid"]
    assert verdicts(Objectives(p90="5ms"), slow) == ["invalid", "failed"]


def test_the_boundary_of_what_is_late() -> None:
    """5 % of 100 ms, to the width of a bucket."""
    assert generator_late(late(0.0049, 0.0), {0.9: 0.1}) is None
    found = generator_late(late(0.0051, 0.0), {0.9: 0.1, 0.5: 10.0})
    assert found is not None
    assert found.criterion.limit == pytest.approx(0.005)
    assert found.slack == pytest.approx(0.0102, rel=0.02)
    assert found.beyond == pytest.approx(0.01)
    assert generator_late(late(0.0051, 0.0), {0.9: 0.2}) is None
    assert generator_late(Outcome(), {0.9: 0.1}) is None
    assert found.sure(1000, 10) == 0
    assert found.sure(1000, 30) in (19, 20)


def test_only_failed_becomes_invalid() -> None:
    found = generator_late(late(0.05, 0.0), {0.9: 0.005})
    assert found is not None
    for verdict in ("passed", "invalid"):
        one = Criterion("p90", 0.005, 0.001, verdict)
        assert unless_late(one, Criterion("p90", 0.005, 0.001, "failed"), found) is one


def test_an_undecided_load_continues_with_its_counts() -> None:
    """A p99 of 1,000 requests with five over is open; so is that of the next 1,000, and together
    with ten times as many it is decided."""

    def some(count: int, slow: int) -> Outcome:
        due = np.arange(count) * 0.01
        latency = np.where(np.arange(count) % (count // slow) == 0, 0.2, 0.01)
        return outcome_of(due, latency, np.ones(count, np.bool_))

    objectives = Objectives(p99="50ms", errors="1 %")
    few, more = some(1000, 6), some(1500, 9)
    assert verdicts(objectives, few) == ["invalid", "passed"]
    assert verdicts(objectives, more) == ["invalid", "passed"]
    many = some(9000, 54)
    alone = [one.why for one in evaluate(objectives, more)]
    (p99, errors) = evaluate(objectives, more, many)
    assert (p99.verdict, errors.verdict) == ("passed", "passed"), alone
    bad = some(9000, 200)
    (p99, _) = evaluate(objectives, more, bad)
    assert p99.verdict == "failed"
    assert "took longer than 50 ms: 210 of 10,500" in p99.why


def test_verdicts_of_known_outcomes() -> None:
    due = np.arange(0.0, 20.0, 0.01)
    ok = np.ones(len(due), np.bool_)
    fast = outcome_of(due, np.full(len(due), 0.01), ok)
    found = evaluate(Objectives(p99="50ms", errors="1 %", rate="90/s"), fast)
    assert overall_verdict(found) == "passed"
    assert evaluate(Objectives(p99="50ms", rule="loadgen"), fast)[0].verdict == "passed"
    long = np.arange(0.0, 600.0, 0.01)
    slow = np.where(long > 595.8, 0.2, 0.01)  # 0.7 % of all, 1.4 % of the later half
    growing = outcome_of(long, slow, np.ones(len(long), np.bool_))
    assert "latency grows" in evaluate(Objectives(p99="50ms"), growing)[0].why
    late = outcome_of(due, np.full(len(due), 0.01), ok)
    late.lags.add(np.full(len(due), 0.02))
    assert overall_verdict(evaluate(Objectives(p99="50ms"), late)) == "invalid"
    ok[:300] = False
    failing = outcome_of(due, np.full(len(due), 0.01), ok)
    failing.errors["reset"] = 300
    found = evaluate(Objectives(errors="1 %"), failing)
    assert (found[0].verdict, "reset: 300" in found[0].why) == ("failed", True)
    assert overall_verdict(evaluate(Objectives(p99="50ms", errors="0 %"), Outcome())) == "invalid"
    assert Objectives(preset="real-time").percentiles() == {0.95: 0.05}
    assert Objectives(preset="real-time").most_errors() == 0.001
    assert Objectives(preset="interactive").percentiles() == {0.95: 0.1, 0.99: 0.5}

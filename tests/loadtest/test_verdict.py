"""Verdicts of known outcomes: a late generator gives none, unless the target is slow itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.outcomes import outcome_of
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.verdict import (
    LAG_SHARE,
    Criterion,
    CriterionVerdict,
    evaluate,
    generator_late,
    latency_limits,
    missed_already,
    needed,
    nothing_good,
    overall_verdict,
    pass_or_fail,
    reasons,
    unless_late,
)
from understudy.loadtest.payloads.checks import UNEXPECTED
from understudy.loadtest.statistics.percentile import Percentile, queries_needed

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
    assert verdicts(objectives, begun(late(0.05, 0.1))) == ["invalid", "invalid"]
    assert verdicts(objectives, begun(late(0.05, 0.12))) == ["invalid", "failed"]
    assert verdicts(objectives, begun(late(0.0, 0.12))) == ["failed"]
    assert verdicts(objectives, begun(late(0.0, 0.001))) == ["passed"]


def test_a_growing_queue_of_a_late_generator_is_not_the_target_s() -> None:
    due = np.arange(0.0, 600.0, 0.01)
    lag = np.where(due > 595.8, 0.2, 0.0)  # 0.7 % of all, 1.4 % of the later half
    grown = outcome_of(due, 0.01 + lag, np.ones(len(due), np.bool_), lag)
    (one,) = evaluate(Objectives(p99="50ms"), grown)
    assert (one.verdict, "latency grows" in one.why) == ("failed", True), "its lag p99 is small"
    for start in (300.0, 595.8):  # wherever in that half
        slow = np.where((due >= start) & (due < start + 4.2), 0.2, 0.01)
        (one,) = evaluate(
            Objectives(p99="50ms"), outcome_of(due, slow, np.ones(len(due), np.bool_))
        )
        assert one.verdict == "failed"
    early = np.where((due >= 290.0) & (due < 294.2), 0.2, 0.01)
    assert verdicts(
        Objectives(p99="50ms"), outcome_of(due, early, np.ones(len(due), np.bool_))
    ) == ["passed"]
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
    assert Objectives(p50="10ms", p99="1s").tightest == 0.01, "what a chaos stage counts as slow"
    assert Objectives(errors="1 %").tightest is None
    assert Objectives(preset="real-time").percentiles() == {0.95: 0.05}
    assert Objectives(preset="real-time").most_errors() == 0.001
    assert Objectives(preset="interactive").percentiles() == {0.95: 0.1, 0.99: 0.5}


def test_the_boundary_of_a_lag_is_not_late() -> None:
    outcome = Outcome()
    outcome.lags.add(np.full(100, LAG_SHARE * 0.1))
    assert generator_late(outcome, {0.9: 0.1}) is None
    assert generator_late(outcome, {0.9: 0.0999}) is not None


def test_the_lag_that_is_worst_for_its_limit_counts() -> None:
    for limits in ({0.5: 0.01, 0.999: 0.1}, {0.999: 0.1, 0.5: 0.01}):
        found = generator_late(late(0.02, 0.0), limits)
        assert found is not None
        assert found.criterion.limit == pytest.approx(0.0005)
        assert found.criterion.name == "send lag p99"
    # Also where the ratios are near each other.
    for limits in ({0.5: 0.02, 0.6: 0.019}, {0.5: 0.019, 0.6: 0.02}):
        found = generator_late(late(0.02, 0.0), limits)
        assert found is not None
        assert found.criterion.limit == pytest.approx(0.05 * 0.019)
    objectives = Objectives(p95="1s", first_byte_p95="10ms")
    assert latency_limits(objectives) == {0.95: 0.01}
    assert latency_limits(Objectives(p95="10ms", first_byte_p95="1s")) == {0.95: 0.01}
    assert latency_limits(Objectives(p99="1s", first_byte_p95="1ms")) == {0.99: 1.0, 0.95: 0.001}


def test_a_late_generator_says_what_its_processes_did() -> None:
    outcome = late(0.05, 0.001)
    outcome.seconds, outcome.processes = 0.5, 2
    outcome.waited_seconds, outcome.cpu_seconds = 0.1, 0.25
    (lag, _) = evaluate(Objectives(p90="5ms"), outcome)
    assert "its processes waited for a CPU for 10 % of the time, and used one for 25 %" in lag.why
    outcome.seconds = 0.0
    assert "waited" not in evaluate(Objectives(p90="5ms"), outcome)[0].why
    outcome.seconds, outcome.waited_seconds = 1.0, None
    assert "waited" not in evaluate(Objectives(p90="5ms"), outcome)[0].why


def test_how_many_requests_are_needed() -> None:
    one, two = Percentile(0.99).fewest, Percentile(0.5).fewest
    assert needed(Objectives(p99="1s")) == needed(Objectives(p99="1s", p50="1s")) == one
    assert needed(Objectives(p50="1s")) == two < one
    assert needed(Objectives(p50="1s", rule="loadgen")) == queries_needed(0.5, 0)
    both = Objectives(p99="1s", p50="1s", rule="loadgen")
    assert needed(both) == queries_needed(0.99, 0)
    assert needed(Objectives(errors="1 %")) == one
    assert needed(Objectives(errors="1 %", p50="1s")) == one
    assert needed(Objectives(errors="50 %", p99="1s")) == one
    assert needed(Objectives(errors="0 %")) == needed(Objectives(rate="1/s")) == 0
    assert needed(Objectives(errors="0 %", rule="loadgen")) == 0


def test_a_running_load_has_missed_only_what_is_complete() -> None:
    """Fast requests end first, so that of those that are due later the slow ones are missing."""
    due = np.arange(2048) / 64.0  # exact in binary
    slow = np.where(due >= 16.0, 0.25, 0.0625)
    running = outcome_of(due, slow, np.ones(len(due), np.bool_))
    missed = Objectives(p90="62.5ms", p50="10s")
    running.complete = 16.0
    assert not missed_already(missed, running)
    running.complete = 32.0
    assert missed_already(missed, running)
    assert not missed_already(Objectives(p90="250ms"), running)
    assert missed_already(Objectives(p90="249ms"), running)
    running.complete = 0.0
    assert not missed_already(missed, running)
    running.single = False  # by histograms, of all
    assert missed_already(missed, running)


def test_good_responses_per_second() -> None:
    due = np.arange(0.0, 20.0, 0.01)
    ok = np.arange(len(due)) >= 1000
    outcome = outcome_of(due, np.full(len(due), 0.001), ok)
    outcome.seconds = 20.0
    for rate, verdict in (("50/s", "passed"), ("50.1/s", "failed"), ("49.9/s", "passed")):
        (one,) = evaluate(Objectives(rate=rate), outcome)
        assert (one.verdict, one.value) == (verdict, 50.0)
    outcome.seconds = 0.0
    assert verdicts(Objectives(rate="1/s"), outcome) == ["failed"]


def test_verdicts_of_stages() -> None:
    def of(*given: CriterionVerdict) -> str:
        return overall_verdict([Criterion("x", 1.0, 2.0, one) for one in given])

    assert of() == "not measured"
    assert of("passed", "passed") == "passed"
    assert of("passed", "invalid") == of("invalid") == "invalid"
    assert of("failed", "invalid", "passed") == "failed"
    assert (pass_or_fail(True), pass_or_fail(False)) == ("passed", "failed")
    assert reasons([Criterion("x", 1.0, 2.0, "failed", unit="seconds"), Criterion("y", 1, 1, "passed")]) == [
        "x: 2 s against a limit of 1 s"
    ]  # fmt: skip
    assert reasons([Criterion("x", 0.01, None, "invalid", unit="share")]) == [
        "x: nothing against a limit of 1 %"
    ]


def test_nothing_good_is_nothing_measured() -> None:
    ok = np.ones(100, np.bool_)
    good = outcome_of(np.arange(100.0), np.full(100, 0.1), ok)
    assert nothing_good(good) == ""
    ok = np.arange(100) == 0
    assert nothing_good(outcome_of(np.arange(100.0), np.full(100, 0.1), ok)) == ""
    bad = outcome_of(np.arange(100.0), np.full(100, 0.1), ~np.ones(100, np.bool_))
    bad.errors["TLS"] = 7
    assert nothing_good(bad) == "none of 100 answers was good: status 503: 100, TLS: 7"
    bad.errors[UNEXPECTED] = 1
    assert nothing_good(bad) == ""
    assert nothing_good(Outcome()) == "no request was sent"


def test_shares_of_errors() -> None:
    due = np.arange(0.0, 20.0, 0.01)

    def some(failed: int, count: int = 2000) -> Outcome:
        ok = np.arange(count) >= failed
        return outcome_of(due[:count], np.full(count, 0.001), ok)

    for failed, count, verdict, why in (
        (0, 2000, "passed", ""),
        (2, 2000, "passed", ""),
        (20, 2000, "invalid", "not enough requests: 20 of 2,000 failed (status 503: 20)"),
        (60, 2000, "failed", "60 of 2,000 failed (status 503: 60)"),
        (0, 100, "invalid", "at least 649 are required even if none fails"),
        (40, 100, "failed", "40 of 100 failed"),
    ):  # fmt: skip
        (one,) = evaluate(Objectives(errors="1 %"), some(failed, count))
        assert (one.verdict, why in one.why) == (verdict, True), one
        assert one.value == failed / count
        assert one.low is not None
        assert one.high is not None
        assert one.low <= failed / count <= one.high
    assert verdicts(Objectives(errors="0 %"), some(0)) == ["passed"]
    assert verdicts(Objectives(errors="0 %"), some(1)) == ["failed"]
    (one,) = evaluate(Objectives(errors="1 %"), some(5, 1000), some(5, 1000))
    assert one.value == 0.005
    (one,) = evaluate(Objectives(errors="1 %"), Outcome())
    assert (one.verdict, one.why, one.value) == ("invalid", "no requests", None)


def test_values_of_percentiles_need_requests_beyond_them() -> None:
    due = np.arange(2000) / 64.0

    def of(count: int, p: str, slow: int = 0) -> Criterion:
        latency = np.where(np.arange(count) % 100 < slow, 1.0, 0.25)
        outcome = outcome_of(due[:count], latency, np.ones(count, np.bool_))
        (one,) = evaluate(Objectives(**{p: "500ms"}), outcome)
        return one

    assert of(99, "p99").value is None
    assert of(101, "p99").value == 0.25
    assert of(2, "p50").value == 0.25
    assert of(2000, "p99").verdict == "passed"
    assert (of(2000, "p99").low, of(2000, "p99").high) == (0.25, 0.25)
    assert "p99: not enough requests: 99, at least 649 are required" in reasons([of(99, "p99")])[0]
    assert [of(n, "p99").verdict for n in (648, 649)] == ["invalid", "passed"]
    undecided = of(2000, "p99", 1)
    assert undecided.verdict == "invalid"
    assert undecided.why == (
        "not enough requests: took longer than 500 ms: 20 of 2,000, 20 are allowed; run longer"
    )
    assert of(2000, "p99", 3).why == "took longer than 500 ms: 60 of 2,000, 20 are allowed"
    assert of(2000, "p99", 3).verdict == "failed"


def test_the_rule_of_loadgen() -> None:
    due = np.arange(2000) / 64.0

    def of(count: int, over: int) -> Criterion:
        latency = np.where(np.arange(count) < over, 1.0, 0.25)
        outcome = outcome_of(due[:count], latency, np.ones(count, np.bool_))
        (one,) = evaluate(Objectives(p99="500ms", rule="loadgen"), outcome)
        return one

    few = queries_needed(0.99, 0)
    assert (of(few, 0).verdict, of(few - 1, 0).verdict) == ("passed", "invalid")
    assert of(few - 1, 0).why.startswith("not enough requests: took longer than 500 ms: 0 of")
    assert of(1000, 10).verdict == "invalid", "as many as are allowed, but not proven"
    assert of(1000, 11).verdict == "failed"
    assert "queries" not in of(1000, 11).why
    outcome = outcome_of(due[:10], np.where(np.arange(10) < 5, 1.0, 0.25), np.ones(10, np.bool_))
    assert verdicts(Objectives(p50="500ms", rule="loadgen"), outcome) == ["invalid"]


def test_first_bytes() -> None:
    due = np.arange(2000) / 64.0

    def of(count: int, slow: int, none: int = 0, bad: int = 0) -> Criterion:
        index = np.arange(count)
        outcome = outcome_of(due[:count], np.full(count, 1.0), index >= bad)
        outcome.first_byte = np.where(index < slow, 0.5, 0.25)
        outcome.first_byte[index >= count - none] = np.nan
        (one,) = evaluate(Objectives(first_byte_p95="250ms"), outcome)
        return one

    assert (of(1000, 0).verdict, of(1000, 0).why, of(1000, 0).value) == ("passed", "", 0.25)
    for slow in ({"slow": 100}, {"slow": 0, "none": 100}, {"slow": 0, "bad": 100}):
        assert of(1000, **slow).verdict == "failed"
        assert of(1000, **slow).why == "100 of 1,000 responses started later"
    assert of(1000, 50).verdict == "invalid"
    assert of(10, 0).verdict == "invalid"
    assert of(19, 0).value is None
    assert of(20, 0).value == 0.25
    outcome = outcome_of(due[:1000], np.full(1000, 1.0), np.ones(1000, np.bool_))
    outcome.first_byte = np.full(1000, 0.25)
    more = outcome_of(due[:1000], np.full(1000, 1.0), np.ones(1000, np.bool_))
    more.first_byte = np.full(1000, 0.5)
    (one,) = evaluate(Objectives(first_byte_p95="250ms"), outcome, more)
    assert one.why == "1,000 of 2,000 responses started later"

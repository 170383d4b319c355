"""A load generator that is late gives no verdict on the target, unless the target is slow itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.gates import gate, plan
from tests.support.load_server import Server
from tests.support.outcomes import outcome_of
from tests.support.stalling import Stalled
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


TIGHT = """
    objectives: {p90: %s}
    payloads: {template: {inputs: [{name: x, shape: [1, 2], datatype: FP64, data: {$vector: 2}}]},
               path: /v1/models/m:predict}
    engine: {processes: 1}
    stages:
      - {name: tight, load: {rate: 100, seconds: 3}}
    """


def run(folder: Path, limit: str, server: Server) -> tuple[Any, dict[str, Any]]:
    data, junit, html = folder / "r.json", folder / "r.xml", folder / "r.html"
    file = plan(folder, TIGHT % limit)
    found = gate("--target", server.url, "--plan", file, "--json-file", data, "--junit", junit,
                 "--html", html)  # fmt: skip
    (stage,) = json.loads(data.read_text())["stages"]
    assert found.output.count("repeated once") == ("earlier" in stage)
    assert html.read_text().count("<h2>tight") == 1 + ("earlier" in stage)
    assert junit.read_text().count("requests, ") == 1 + ("earlier" in stage)
    return found, stage


def test_a_gate_whose_generator_is_stalled_says_so(tmp_path: Path) -> None:
    """Both attempts are stopped for 0.2 s of every 0.5 s."""
    with Server() as server, Stalled(0.2, 0.5):
        found, stage = run(tmp_path, "5ms", server)
    assert found.exit_code == 2, found.output
    assert "INCONCLUSIVE" in found.output
    assert "the load generator was late" in " ".join(found.output.split())
    assert (stage["verdict"], stage["earlier"]["verdict"]) == ("invalid", "invalid")
    assert stage["late"] is stage["earlier"]["late"] is True


def test_a_slow_target_fails_also_with_a_stalled_generator(tmp_path: Path) -> None:
    with Server(slots=512, seconds=2.0) as server, Stalled(0.2, 0.5):
        found, stage = run(tmp_path, "5ms", server)
    assert found.exit_code == 1, found.output
    assert "also by the time of service alone" in " ".join(found.output.split())
    assert stage["verdict"] == "failed"


def test_a_stage_is_repeated_once_and_longer(tmp_path: Path) -> None:
    """Only the first attempt is stopped."""
    with Server() as server, Stalled(0.4, 0.9, first=True):
        found, stage = run(tmp_path, "2s", server)
    assert found.exit_code == 0, found.output
    assert (stage["verdict"], stage["earlier"]["verdict"]) == ("passed", "invalid")
    assert stage["repeated"] == "seconds: 6 instead of 3"
    assert stage["load"]["seconds"] == 6.0
    # Never at a lower rate: six standard deviations of a Poisson number.
    assert stage["load"]["requests"] > 600 - 6 * 600**0.5


def test_a_stage_without_enough_requests_is_repeated_with_its_counts(tmp_path: Path) -> None:
    """Two seconds are too few for this p95, eight are enough."""
    text = """
        objectives: {p95: 20s}
        stages:
          - {name: short, load: {rate: 40, seconds: 2}}
          - {name: hopeless, load: {rate: 40, seconds: 1}, objectives: {p999: 20s}}
          - {name: warm up, load: {rate: 10, seconds: 1}, judged: false}
        """
    data = tmp_path / "r.json"
    with Server() as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data)
    assert found.exit_code == 2, found.output
    short, hopeless, warm = json.loads(data.read_text())["stages"]
    assert (short["verdict"], short["earlier"]["verdict"]) == ("passed", "invalid")
    assert short["earlier"]["late"] is False
    assert 2.0 < short["load"]["seconds"] <= 8.0
    assert (hopeless["verdict"], "earlier" in hopeless) == ("invalid", False)
    assert (warm["verdict"], "earlier" in warm) == ("shown", False)

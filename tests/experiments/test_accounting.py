"""Nothing that an arm causes leaves the evidence; nothing that is ours is charged to an arm.

Each case is a stream of records of two model servers, as the workers report them. A challenger that
is worse in any one way is never promoted; identical servers are never rolled back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from tests.support.live_experiment import (
    NAMES,
    NOW,
    SPLIT,
    Fed,
    answer,
    assigned,
    declared,
    division,
    live,
    record,
)
from understudy.common.codecs import Reason, Table
from understudy.monitor.evidence.arms import Arms, TimeLimits
from understudy.monitor.experiments.summary import document
from understudy.monitor.records import record as records
from understudy.monitor.records.record import Record
from understudy.shadow.experiment import Decision

MIRROR = records.ROLE_MIRROR
GUARDS = [{"metric": "error_rate", "margin": "1 pp"}, {"metric": "timeout_rate", "margin": "1 pp"}]
Reply = tuple[int, Table | None]
_DRAWN = np.random.default_rng(9).random(10_000)


def drawn(i: int, share: float) -> bool:
    """Whether request ``i`` is one of a random ``share``, the same in every run."""
    return bool(_DRAWN[i] < share)


def number(n: int, share: float) -> int:
    return sum(drawn(i, share) for i in range(n))


def decided(one: Fed, mode: str) -> Decision:
    one.flush()
    return one.experiment.decide(mode, 3600.0)["candidate"]


def shadowed(one: Fed, challenger: Callable[[int], Reply], n: int = 3000) -> Decision:
    """The champion answers every request, the challenger what ``challenger`` says."""
    for i in range(n):
        one.take(record(i), "champion", None, answer(1), answer(0.5))
        outcome, table = challenger(i)
        one.take(record(i, MIRROR, outcome), "candidate", None, None, table)
    return decided(one, "shadow")


def fine(i: int) -> Reply:
    return records.OK, answer(0.5)


def test_a_challenger_like_the_champion_is_promoted() -> None:
    found = shadowed(live(metrics=GUARDS), fine)
    assert found.verdict == "promote", found.reasons


@pytest.mark.parametrize(
    ("outcome", "reason", "advice"),
    [
        (records.BODY_TOO_LARGE, "body_too_large", "capture.max_body"),
        (records.BREAKER_OPEN, "breaker_open", "find out why the challenger failed"),
        (records.QUEUE_FULL, "queue_full", "mirror.connections"),
        (records.OVERLOAD, "overload", "mirror.connections"),
        (records.CANCELLED, "cancelled", "restarts"),
        (records.FELL_BEHIND, "queue_full", "mirror.queue"),
        (records.NOT_REWRITTEN, "not_rewritten", "capture.max_body"),
        (records.OK, "unreadable", "models[].protocol"),
    ],
)
@pytest.mark.parametrize("metrics", [None, GUARDS])
def test_what_was_chosen_and_not_evaluated_counts_against_promotion_and_not_as_harm(
    outcome: int, reason: str, advice: str, metrics: Any
) -> None:
    """A fifth of the requests never reached the challenger, or its answer could not be read."""
    one = live(metrics=metrics)
    found = shadowed(one, lambda i: (outcome, None) if drawn(i, 0.2) else fine(i))
    assert found.verdict == "continue", found.reasons
    missing = number(3000, 0.2)
    assert any(advice in line and f"{missing} of 3,000" in line for line in found.reasons)
    whole = document(one, NOW)
    assert whole["left_out"][reason] == whole["challengers"][0]["left_out"][reason] == missing
    json.dumps(whole, allow_nan=False)
    status = {item.name: item for item in found.evidence}["unusable_rate"]
    assert status.log_harm < 1.0
    assert status.difference.upper >= missing / 3000, "all of them may have failed"
    assert status.difference.lower <= 0.0, "and all may have been answered"


@pytest.mark.parametrize(("read", "status"), [(True, "no data"), (False, "blind")])
def test_a_metric_of_labels_whose_predictions_cannot_be_read_is_blind(
    read: bool, status: str
) -> None:
    label = {"prediction": "p", "threshold": 0.5}
    metrics = [*GUARDS, {"metric": "accuracy", "margin": "1 pp"}]
    one = live(metrics=metrics, label=label)
    for i in range(3000):
        one.take(record(i), "champion", None, answer(1), answer(0.5) if read else None)
        one.take(record(i, MIRROR), "candidate", None, None, answer(0.5) if read else None)
    found = decided(one, "shadow")
    by_name = {item.name: item for item in found.evidence}
    assert by_name["accuracy"].status == status
    assert by_name["unusable_rate"].status == ("passed" if read else "blind")
    (why,) = (line for line in found.reasons if line.startswith("accuracy"))
    blind = "accuracy: blind: 100 % of the answers cannot be read"
    assert why.startswith("accuracy: no data yet" if read else blind)
    assert found.verdict == "continue"


@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_that_says_that_there_was_an_error_is_one_whatever_its_status(
    status: int,
) -> None:
    """``{"error": …}`` in a 200 is the model's error; a redirection is an answer not to be read."""
    one = live(metrics=GUARDS)
    for i in range(3000):
        one.take(record(i), "champion", None, answer(1), answer(0.5))
        other = record(i, MIRROR)
        if drawn(i, 0.2):
            other.status = status
            one.take(other, "candidate", None, None, None, unread=Reason.ERROR_RESPONSE)
        else:
            one.take(other, "candidate", None, None, answer(0.5))
    found = decided(one, "shadow")
    if status == 200:
        assert found.verdict == "rollback", found.reasons
        assert "error_rate is worse" in " ".join(found.reasons)
    else:
        assert found.verdict == "continue", found.reasons
        assert document(one, NOW)["left_out"]["unreadable"] == number(3000, 0.2)


@pytest.mark.parametrize(
    ("outcome", "left_out"),
    [
        (records.INCOMPLETE, None),
        (records.REJECTED, None),
        (records.CLIENT_STALLED, "client_stalled"),
        (records.SHUTDOWN, "cancelled"),
        (records.OVERLOAD, "overload"),
    ],
)
def test_what_clients_or_our_limits_cause_on_split_traffic_is_charged_to_no_arm(
    outcome: int, left_out: str | None
) -> None:
    """A fifth of the challenger's requests end in this way: no harm follows, and what may have been
    the model's holds back the promotion."""
    one = live(metrics=GUARDS, **SPLIT)
    for i in range(6000):
        arm = int(drawn(i + 3000, 0.4))
        bad = arm == 1 and drawn(i, 0.2)
        made, name = assigned(i, arm, outcome=outcome if bad else records.OK)
        one.take(made, name, division(), answer(1), None if bad else answer(0.5))
    found = decided(one, "split")
    assert found.verdict == ("promote" if left_out is None else "continue"), found.reasons
    for item in found.evidence:
        assert item.log_harm < 1.0, item
    counts = document(one, NOW)["left_out"]
    assert (counts.get(left_out, 0) > 200) if left_out is not None else not any(counts.values())


@pytest.mark.parametrize("outcome", [records.GARBAGE, records.MODEL_OVERLOAD])
def test_what_the_model_causes_is_charged_to_its_arm(outcome: int) -> None:
    found = shadowed(live(metrics=GUARDS), lambda i: (outcome, None) if drawn(i, 0.2) else fine(i))
    assert found.verdict == "rollback"
    assert "error_rate is worse" in " ".join(found.reasons)


def test_a_small_share_that_was_not_evaluated_hardly_costs() -> None:
    found = shadowed(
        live(metrics=GUARDS), lambda i: (records.QUEUE_FULL, None) if drawn(i, 0.0007) else fine(i)
    )
    assert found.verdict == "promote", found.reasons


@pytest.mark.parametrize("bad", [records.TIMEOUT, records.SERVER_ERROR, records.CLIENT_ERROR])
def test_a_challenger_that_fails_on_large_bodies_which_are_mirrored_is_rolled_back(
    bad: int,
) -> None:
    """A refusal (4xx) where the champion answers is a failure like others."""
    metrics = [{"metric": "disagreement", "margin": "1 pp"}]
    found = shadowed(live(metrics=metrics), lambda i: (bad, None) if drawn(i, 0.2) else fine(i))
    assert found.verdict == "rollback"
    assert "unusable_rate is worse" in found.reasons[0]


def test_without_any_readable_answer_nothing_is_promoted() -> None:
    """The case of binary tensors: both arms answer every request, and no answer can be read."""
    one = live()
    for i in range(2500):
        one.take(record(i), "champion", None, None, None)
        one.take(record(i, MIRROR), "candidate", None, None, None)
    found = decided(one, "shadow")
    assert found.verdict == "continue"
    assert "2,500 of 2,500 requests got an answer that cannot be read" in found.reasons[0]
    assert "models[].protocol" in found.reasons[0]
    status = {item.name: item.status for item in found.evidence}
    assert status["unusable_rate"] == "blind"
    assert status["error_rate"] == "passed"


@pytest.mark.parametrize("mode", ["shadow", "split", "units"])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_answers_that_never_can_be_read_count_by_whether_they_came(mode: str, share: float) -> None:
    """With ``opaque_answers``: alike arms are promoted, and one that fails is rolled back."""
    unit = {"unit": {"by": "header", "name": "x-user"}} if mode == "units" else {}
    options = {**SPLIT, **unit} if mode != "shadow" else {}
    one = live(**options, metrics=GUARDS, opaque_answers=True)

    def outcome(i: int) -> int:
        return records.SERVER_ERROR if drawn(i, share) else records.OK

    rng = np.random.default_rng(5)
    for i in range(3000):
        if mode == "shadow":
            one.take(record(i), "champion", None, None, None)
            one.take(record(i, MIRROR, outcome(i)), "candidate", None, None, None)
            continue
        side = int(rng.random() < 0.4)
        one_record, arm = assigned(i, side, started=NOW + 10.0 + i)
        one_record.outcome = outcome(i) if side else records.OK
        one_record.unit = b"u%d" % i
        one.take(one_record, arm, division(), None, None)
    if mode == "units":
        one.flush()
        one.finish()
    found = decided(one, "shadow" if mode == "shadow" else "split")
    assert found.verdict == ("rollback" if share else "promote"), found.reasons
    assert not any("cannot be read" in line for line in found.reasons)
    assert "unreadable" not in document(one, NOW)["left_out"]
    status = {item.name: item for item in found.evidence}["unusable_rate"]
    assert status.unknown == (0, 0)
    assert status.status == ("harmed" if share else "passed")


@pytest.mark.parametrize(
    "metric",
    [
        {"metric": "disagreement", "margin": "2 pp"},
        {"metric": "prediction", "field": "p", "margin": "0.1 units"},
        {"metric": "accuracy", "margin": "1 pp"},
    ],
)
def test_metrics_of_answers_are_rejected_where_these_never_can_be_read(
    metric: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"metrics\[1\]\.metric: .* needs answers"):
        declared(metrics=[GUARDS[0], metric], opaque_answers=True)
    kept = {"metric": "reward", "margin": "0.1 units"}
    assert declared(metrics=[GUARDS[0], kept], opaque_answers=True).opaque_answers


@pytest.mark.parametrize(
    "metric",
    [
        {"metric": "disagreement", "margin": "2 pp"},
        {"metric": "prediction", "field": "p", "margin": "0.1 units"},
        {"metric": "prediction", "field": "p", "margin": "0.1 units", "bounds": [0, 1]},
        {"metric": "prediction_distribution", "field": "p", "margin": "5 pp"},
    ],
)
def test_a_metric_of_answers_is_blind_when_they_cannot_be_read(metric: dict[str, Any]) -> None:
    name = metric["metric"] + ("(p)" if "field" in metric else "")
    one = live(metrics=[metric, *GUARDS])
    found = shadowed(one, lambda i: fine(i) if drawn(i, 0.25) else (records.OK, None), 1500)
    assert found.verdict == "continue"
    item = {item.name: item for item in found.evidence}[name]
    assert item.status == "blind"
    assert item.log_harm < 1.0
    assert item.unknown[1] == 1500 - number(1500, 0.25)


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e308, -1e31])
@pytest.mark.parametrize(
    "metric",
    [
        {"metric": "prediction", "field": "p", "margin": "0.1 units"},
        {"metric": "prediction_distribution", "field": "p", "margin": "5 pp"},
    ],
)
def test_a_number_that_cannot_be_compared_is_not_known(metric: dict[str, Any], bad: float) -> None:
    """One answer in twenty is no number, or so large that its square could not be added up."""
    one = live(metrics=[metric, *GUARDS])
    found = shadowed(one, lambda i: (records.OK, answer(bad if i % 20 == 0 else 0.5)), 1500)
    assert found.verdict == "continue"
    item = {item.name: item for item in found.evidence}[f"{metric['metric']}(p)"]
    assert item.status == "blind"
    assert item.unknown[1] == 75
    json.dumps(document(one, NOW), allow_nan=False)
    again = live(metrics=[metric, *GUARDS])
    again.load_state(orjson.loads(orjson.dumps(one.dump_state())))
    assert decided(again, "shadow").reasons == found.reasons


def test_an_output_that_the_answers_lack_is_blind() -> None:
    """Every answer can be read; the declared output is in none of the challenger's."""
    metric = {"metric": "prediction", "field": "p", "margin": "0.1 units"}
    one = live(metrics=[metric, *GUARDS])
    found = shadowed(one, lambda i: (records.OK, Table(("q",), 1, [0.5])), 1500)
    assert found.verdict == "continue"
    assert {i.name: i.status for i in found.evidence}["prediction(p)"] == "blind"


def limited(first_byte: float, total: float, **changes: Any) -> Fed:
    limits = TimeLimits(first_byte, total)
    arms = Arms("champion", "", {"candidate": 1.0}, b"salt", {"candidate": limits}, limits)
    return Fed(declared(**changes), arms, dict)


def slow(one: Record, seconds: float, queued: float = 0.0) -> Record:
    one.duration_ns = int(seconds * 1e9)
    one.first_byte_ns = int((seconds - 0.001) * 1e9)
    one.queue_ns = int(queued * 1e9)
    return one


def test_identical_slow_servers_are_never_rolled_back_for_a_shorter_limit_of_copies() -> None:
    """Both answer in 6 s; mirrored requests have 5 s, those of clients more."""
    one = limited(5.0, 5.0, metrics=[*GUARDS, {"metric": "latency_p95", "margin": "20 %"}])
    for i in range(2000):
        one.take(slow(record(i), 6.0), "champion", None, answer(1), answer(0.5))
        late = slow(record(i, MIRROR, records.TIMEOUT), 5.02)
        one.take(late, "candidate", None, None, None)
    found = decided(one, "shadow")
    assert found.verdict != "rollback", found.reasons
    rates = {item.name: item.estimates for item in found.evidence}
    assert rates["timeout_rate"] == (1.0, 1.0), "both arms are censored at the same limit"


def test_a_champion_beyond_the_limit_does_not_flatter_a_challenger_within() -> None:
    """Its client may have been the slow one, so that this proves nothing."""
    metric = {"metric": "error_rate", "role": "success"}
    one = limited(5.0, 5.0, metrics=[metric])
    for i in range(2000):
        one.take(slow(record(i), 6.0), "champion", None, answer(1), answer(0.5))
        one.take(slow(record(i, MIRROR), 1.0), "candidate", None, None, answer(0.5))
    assert decided(one, "shadow").verdict == "continue"


def test_waiting_in_our_queue_is_charged_to_no_arm() -> None:
    """Two seconds of work each; mirrored requests waited up to 20 s for one of our connections."""
    metrics = [*GUARDS, {"metric": "latency_mean", "margin": "5 %"}]
    one = live(**SPLIT, metrics=metrics)
    rng = np.random.default_rng(3)
    for i in range(4000):
        side = int(rng.random() < 0.4)
        queued = 20.0 * rng.random() if side else 0.0
        one_record, arm = assigned(i, side, started=NOW + 10.0 + i)
        slow(one_record, 2.0 + 0.1 * rng.random() + queued, queued)
        one.take(one_record, arm, division(), answer(1), answer(0.5))
    found = decided(one, "split")
    assert found.verdict != "rollback", found.reasons
    item = {item.name: item for item in found.evidence}["latency_mean"]
    assert item.estimates[1] == pytest.approx(2.05, abs=0.02)


def split(one: Fed, challenger: Callable[[int], Record], n: int = 4000) -> Decision:
    rng = np.random.default_rng(4)
    for i in range(n):
        side = int(rng.random() < 0.4)
        made, arm = assigned(i, side)
        if side:
            made = challenger(i)
        made.started = NOW + 10.0 + i
        if side:
            made.assigned = 2
            arm = "champion" if made.arm == 0 else "candidate"
        table = answer(0.5) if made.outcome == records.OK else None
        one.take(made, arm, division(), answer(1), table)
    return decided(one, "split")


def of_candidate(i: int, outcome: int = records.OK, seconds: float = 0.01, arm: int = 1) -> Record:
    made = record(i, outcome=outcome, seconds=seconds)
    made.arm = arm
    return made


def test_a_challenger_that_hangs_until_clients_leave_is_rolled_back() -> None:
    def hangs(i: int) -> Record:
        return of_candidate(i, records.CANCELLED, 9.0) if drawn(i, 0.05) else of_candidate(i)

    one = live(**SPLIT)
    found = split(one, hangs)
    assert found.verdict == "rollback"
    assert any("error_rate is worse" in line for line in found.reasons)


def test_clients_that_leave_both_arms_alike_are_no_harm() -> None:
    """Two of a hundred leave, whoever serves them."""
    one = live(**SPLIT, metrics=GUARDS)
    rng = np.random.default_rng(5)
    for i in range(8000):
        made, arm = assigned(i, int(rng.random() < 0.4), started=NOW + 10.0 + i)
        if rng.random() < 0.02:
            made.outcome = records.CANCELLED
        left = made.outcome == records.CANCELLED
        one.take(made, arm, division(), answer(1), None if left else answer(0.5))
    found = decided(one, "split")
    assert found.verdict != "rollback", found.reasons
    champion, challenger = {i.name: i.estimates for i in found.evidence}["error_rate"]
    assert champion == pytest.approx(0.02, abs=0.01)
    assert challenger == pytest.approx(0.02, abs=0.01)


def test_units_that_the_champion_served_while_the_breaker_was_open_count_against_promotion() -> (
    None
):
    one = live(**SPLIT, metrics=GUARDS)
    found = split(one, lambda i: of_candidate(i, arm=int(drawn(i, 0.7))))
    assert found.verdict == "continue"
    assert any("circuit breaker was open" in line for line in found.reasons)
    assert one.contestants["candidate"].diverted > 400


def test_our_overload_is_no_failure_of_the_arm_and_blocks_promotion() -> None:
    one = live(**SPLIT, metrics=GUARDS)
    found = split(one, lambda i: of_candidate(i, records.OVERLOAD if drawn(i, 0.3) else records.OK))
    assert found.verdict == "continue"
    assert {i.name: i.estimates for i in found.evidence}["error_rate"] == (0.0, 0.0)
    assert any("one of our connections" in line for line in found.reasons)


def test_abandoned_latency_is_at_least_the_time_waited() -> None:
    """One in ten is abandoned after 50 ms: the 95 % quantile may be anything above, and the claim
    that it is not slower is never proven."""
    metrics = [{"metric": "latency_p95", "margin": "20 %"}, GUARDS[0] | {"margin": "50 pp"}]
    one = live(**SPLIT, metrics=metrics)
    found = split(
        one,
        lambda i: of_candidate(i, records.CANCELLED, 0.05) if drawn(i, 0.1) else of_candidate(i),
    )
    item = {item.name: item for item in found.evidence}["latency_p95"]
    assert found.verdict != "promote"
    assert item.log_pass < 0.0
    assert item.log_harm > 3.0, "beyond what the champion ever takes"


def test_the_account_survives_a_restart_and_adds_up_over_replicas() -> None:
    def missing(i: int) -> Reply:
        return (records.QUEUE_FULL, None) if drawn(i, 0.2) else fine(i)

    first = live(metrics=GUARDS)
    shadowed(first, missing, 1000)
    again = live(metrics=GUARDS)
    again.load_state(json.loads(json.dumps(first.dump_state(), allow_nan=False)))
    for i in range(1000, 1500):
        for one in (first, again):
            one.take(record(i), "champion", None, answer(1), answer(0.5))
            outcome, table = missing(i)
            one.take(record(i, MIRROR, outcome), "candidate", None, None, table)
    a, b = (decided(one, "shadow") for one in (first, again))
    assert [i.to_dict() for i in a.evidence] == [i.to_dict() for i in b.evidence]
    assert a.reasons == b.reasons
    both = first.experiment.contests["candidate"].merge(again.experiment.contests["candidate"])
    missing = number(1500, 0.2)
    assert both.left_out["shadow"]["queue_full"] == 2 * missing
    assert both.evaluated["shadow"] == 2 * (1500 - missing)


def test_a_request_that_never_arrived_is_no_request() -> None:
    """The client left before its request was complete: nothing could be mirrored."""
    one = live(metrics=GUARDS)
    for i in range(50):
        left = record(i, outcome=records.CANCELLED if i % 2 else records.REJECTED)
        one.take(left, "champion", None, None, None)
        one.take(record(i, MIRROR, records.CANCELLED), "candidate", None, None, None)
    decided(one, "shadow")
    contest = one.experiment.contests["candidate"]
    assert (contest.pairs, contest.left_out["shadow"]) == (0, {})


def test_requests_are_not_mirrored_to_a_challenger_that_serves() -> None:
    """They wait for no counterpart then, and are not missing."""
    from dataclasses import replace

    from understudy.monitor.records.handoff import SplitNames

    one = live(**SPLIT, metrics=GUARDS)
    names = replace(NAMES, splits=(SplitNames("x", 0, (0.6, 0.4, 0.0), NOW, NOW),))
    for i in range(20):
        one.take(record(i, assigned=1), "champion", division(), None, answer(1), names=names)
    assert len(one.collector.mirrored.waiting["candidate"]) == 0

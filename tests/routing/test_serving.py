"""Who serves, and how well: from a plan and what the workers counted."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.monitor.proxy import breaker
from understudy.monitor.routing.plan import Challenger, Model, Plan, Split, Upstream
from understudy.monitor.routing.serving import BREAKER_STATES, Counts, Observed, Service, service_of
from understudy.shadow.assignment import POINTS, Allocation

NAMES = ("champion", "first", "second")


def plan(
    *splits: tuple[tuple[float, ...], tuple[float, float]], rates: tuple[float, ...] = (1.0, 1.0)
) -> Plan:
    """Of one model; each split is weights by arm, and its slice."""
    found = []
    for number, (weights, (low, high)) in enumerate(splits):
        allocation = Allocation().reweighed(weights)
        units = (round(low * POINTS), round(high * POINTS))
        part = Split(f"e{number}", 0, "salt", slice=units, arms=allocation.arms,
                     starts=allocation.starts)  # fmt: skip
        found.append(part)
    upstreams = [Upstream(name, "127.0.0.1", 1) for name in NAMES]
    challengers = tuple(
        Challenger(one, rate, serving=one) for one, rate in zip(upstreams[1:], rates, strict=True)
    )
    models = (Model("m", "1", "auto", ("/x",)),)
    return Plan(1, upstreams[0], models, challengers, tuple(found))


def requests(**outcomes: dict[str, int]) -> Counts:
    """Clients' requests of the last minute, by arm and outcome."""
    return {
        tuple(sorted({"model": "m", "version": "1", "protocol": "auto", "role": "primary",
                      "arm": arm, "outcome": outcome}.items())): count
        for arm, of_arm in outcomes.items()
        for outcome, count in of_arm.items()
    }  # fmt: skip


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def shown(service: Service) -> dict[str, tuple[str, str, float, float | None]]:
    return {
        one.arm: (one.role, one.state, one.planned, one.shares[0].served) for one in service.arms
    }


PROMOTED = plan(((0.0, 1.0, 0.0), (0.0, 1.0)), rates=(0.0, 1.0))


def test_after_a_promotion_the_promoted_arm_serves_and_the_champion_stands_by() -> None:
    found = service_of(PROMOTED, Observed(requests(first={"ok": 90, "timeout": 2})))
    assert shown(found)["champion"] == ("standby", "no_traffic", 0.0, 0.0)
    assert shown(found)["first"] == ("serving", "ok", 1.0, 1.0)
    assert found.arm("second").describe() == "gets mirrored requests"
    assert (found.problems, found.warnings) == ((), ())


def test_a_champion_that_served_before_the_promotion_stands_in_for_nothing() -> None:
    """The page said "stands in for 71 %" for a minute after each promotion."""
    found = service_of(PROMOTED, Observed(requests(champion={"ok": 71}, first={"ok": 29})))
    assert shown(found)["champion"] == ("standby", "ok", 0.0, pytest.approx(0.71))
    assert found.arm("champion").describe() == "on standby"


def test_a_promoted_arm_that_is_dead_is_down_and_its_requests_are_counted() -> None:
    """The page said "promoted 100 %", and was green."""
    seen = Observed(
        requests(champion={"ok": 480}, first={"upstream_connect": 4}),
        diverted={labelled(experiment="e0", arm="first"): 480},
        serving_breakers={"first": [breaker.OPEN, breaker.HALF_OPEN]},
        unreachable=frozenset(["first"]),
    )
    found = service_of(PROMOTED, seen, {("e0", "first"): "promoted"})
    assert shown(found)["first"] == ("serving", "down", 1.0, pytest.approx(4 / 484))
    assert found.arm("first").diverted == 480
    assert found.arm("first").serving_breaker == {"open": 1, "half_open": 1}
    assert shown(found)["champion"][::3] == ("standby", pytest.approx(480 / 484))
    assert found.arm("champion").describe() == "stands in for 99.17 %"
    assert found.problems == (), "clients are served"
    (warning,) = found.warnings
    for text in (
        "'first' should serve 100 % of 'm' (experiment 'e0', promoted), but is down",
        "its circuit breaker is open on 2 of 2 workers",
        "'champion' served 480 of its requests in the last minute",
    ):
        assert text in warning


def test_when_its_stand_in_is_dead_too_the_service_is_not_ready() -> None:
    seen = Observed(
        requests(champion={"upstream_connect": 9}),
        serving_breakers={"first": [breaker.OPEN]},
        unreachable=frozenset(["champion", "first"]),
    )
    assert service_of(PROMOTED, seen).problems == (
        "nothing serves 'm': 'first' and 'champion' are down",
    )
    alone = Observed(requests(first={"ok": 9}), unreachable=frozenset(["champion"]))
    found = service_of(PROMOTED, alone)
    assert found.problems == ()
    assert "cannot take over" in found.warnings[0]


def test_shares_of_slices_add_up_and_the_champion_serves_the_rest() -> None:
    both = plan(((0.8, 0.2, 0.0), (0.0, 0.5)), ((0.5, 0.0, 0.5), (0.5, 0.75)), rates=(0.0, 0.0))
    found = service_of(both, Observed())
    planned = {arm: row[2] for arm, row in shown(found).items()}
    assert planned == {
        "champion": pytest.approx(0.775),
        "first": pytest.approx(0.1),
        "second": pytest.approx(0.125),
    }
    assert found.arm("first").shares[0].experiments == ("e0",)


@pytest.mark.parametrize(
    ("outcomes", "states", "state"),
    [
        ({}, [], "no_traffic"),
        ({"ok": 1}, [breaker.CLOSED], "ok"),
        ({"ok": 10, "server_error": 9}, [], "ok"),
        ({"ok": 9, "server_error": 10}, [], "failing"),
        ({"cancelled": 90, "rejected": 9}, [], "ok"),
        ({"ok": 5}, [breaker.OPEN, breaker.CLOSED], "partly_down"),
        ({"timeout": 5}, [breaker.OPEN, breaker.CLOSED], "down"),
        ({"ok": 5}, [breaker.OPEN, breaker.OPEN], "down"),
        ({"queue_full": 99}, [breaker.CLOSED], "no_traffic"),
    ],
)
def test_the_state_of_an_arm_in_the_shadow(
    outcomes: dict[str, int], states: list[int], state: str
) -> None:
    mirror = {labelled(arm="first", outcome=outcome): n for outcome, n in outcomes.items()}
    found = service_of(plan(), Observed(mirror=mirror, mirror_breakers={"first": states}))
    assert (found.arm("first").role, found.arm("first").state) == ("mirrored", state)
    assert bool(found.warnings) == (state in ("failing", "down", "partly_down"))
    assert found.problems == ()


def test_both_challengers_dead_is_not_simply_ready() -> None:
    broken = {"first": [breaker.OPEN], "second": [breaker.OPEN]}
    found = service_of(plan(), Observed(mirror_breakers=broken))
    assert len(found.warnings) == 2
    assert (
        "challenger 'second' is down, its circuit breaker is open on 1 of 1 worker"
        in (found.warnings[1])
    )


def test_a_champion_that_fails_is_a_warning_and_one_that_is_away_a_problem() -> None:
    failing = service_of(plan(), Observed(requests(champion={"server_error": 50, "ok": 1})))
    assert failing.warnings == ("champion 'champion' fails most of its requests",)
    away = service_of(plan(), Observed(unreachable=frozenset(["champion"])))
    assert away.problems == ("champion 'champion' cannot be reached",)


def test_the_words_for_breakers_are_in_the_order_of_their_numbers() -> None:
    known: dict[int, Any] = {breaker.CLOSED: "closed", breaker.OPEN: "open"}
    known[breaker.HALF_OPEN] = "half_open"
    assert [known[number] for number in range(3)] == list(BREAKER_STATES)


def test_a_challenger_that_refuses_requests_without_credentials_is_a_warning() -> None:
    def warned(refused: int, ok: int, removed: int) -> tuple[str, ...]:
        mirror = {
            labelled(arm="first", outcome="client_error"): refused,
            labelled(arm="first", outcome="ok"): ok,
        }
        gone = {labelled(arm="first"): removed, labelled(arm="second"): 1}
        seen = Observed(mirror=mirror, credentials_removed=gone)
        return service_of(plan(), seen).warnings

    (warning,) = warned(refused=10, ok=10, removed=12)
    assert warning.startswith("'first' answers most requests with a client error (4xx), and cre")
    assert "12 of them" in warning
    assert "`credentials: forward`" in warning
    assert warned(refused=9, ok=0, removed=9) == (), "too few"
    assert warned(refused=10, ok=11, removed=10) == ()
    assert warned(refused=20, ok=0, removed=0) == (), "clients had no credentials"

"""Counters are there, at zero, before their first event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.patience import eventually
from tests.support.world import Load, Model, World
from understudy.monitor.proxy.routes import protocols_of
from understudy.monitor.records.record import ENDS
from understudy.monitor.routing.plan import Challenger, Plan, Upstream
from understudy.monitor.routing.plan import Model as Route
from understudy.monitor.slo import sli
from understudy.monitor.telemetry.predictions import INVALID
from understudy.monitor.telemetry.zeros import ENDS_OF, MOST_ROWS, rows_of, with_zeros

REQUESTS = re.compile(r"^understudy_requests_total\{(.*)\} (\S+)$", re.MULTILINE)


def plan_of(*models: Route, challengers: int = 1) -> Plan:
    return Plan(
        1,
        Upstream("champion", "127.0.0.1", 1),
        models,
        tuple(Challenger(Upstream(f"c{n}", "127.0.0.1", 2)) for n in range(challengers)),
    )


AUTO = Route("m", "1", "auto", ("/v2/models/m/infer", "/v1/models/m:predict", "/invocations"))


def test_every_row_has_every_outcome_and_counts_stay() -> None:
    row = ("m", "1", "champion", "primary", "mlflow")
    found = with_zeros(plan_of(AUTO), {(*row, "timeout"): 3, ("gone", "", "x", "y", "z", "ok"): 1})
    assert found.pop((*row, "timeout")) == 3
    assert found.pop(("gone", "", "x", "y", "z", "ok")) == 1
    assert set(found.values()) == {0}
    assert {key[4] for key in found if key[0] == "m"} == {
        "open-inference-v2",
        "kserve-v1",
        "mlflow",
    }
    assert {key[2:4] for key in found if key[0] == "m"} == {
        ("champion", "primary"), ("c0", "primary"), ("c0", "mirror")}  # fmt: skip
    assert {*ENDS_OF["primary"], *ENDS_OF["mirror"]} >= set(ENDS) - {
        "queue_full", "breaker_open", "body_too_large"}  # fmt: skip
    assert set(sli.ERRORS) <= set(ENDS_OF["primary"])


def test_patterns_have_the_protocols_that_they_can_match() -> None:
    assert protocols_of(Route("m", "", "auto", ("/v2/models/*/infer",))) == ["open-inference-v2"]
    assert protocols_of(Route("m", "", "auto", ("/predict",))) == ["auto"]
    assert protocols_of(Route("m", "", "json", ("/a", "/b"))) == ["json"]


def test_zeros_are_bounded() -> None:
    models = [Route(f"m{n}", "1", "auto", AUTO.paths) for n in range(500)]
    plan = plan_of(*models, challengers=2)
    assert len(list(rows_of(plan))) > MOST_ROWS
    assert len(with_zeros(plan, {})) <= MOST_ROWS * len(ENDS)


def test_invalid_answers_are_those_of_the_objective() -> None:
    assert tuple(str(reason) for reason in INVALID) == sli.INVALID


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, Model()) as made:
        yield made


def requests(world: World) -> dict[frozenset[str], float]:
    text = httpx.get(world.service.control + "/metrics").text
    return {frozenset(labels.split(",")): float(value) for labels, value in REQUESTS.findall(text)}


@pytest.mark.integration
def test_a_service_without_a_request_exports_every_outcome(world: World) -> None:
    before = requests(world)
    assert set(before.values()) == {0.0}
    errors = {one for key in before if 'role="primary"' in key for one in key if "outcome" in one}
    assert {f'outcome="{name}"' for name in sli.ERRORS} <= errors
    world.champion.kill()
    load = Load(world.service.url)
    eventually(lambda: any(
        value and 'outcome="upstream_connect"' in key for key, value in requests(world).items()))  # fmt: skip
    load.stop()
    after = requests(world)
    assert after.keys() == before.keys(), "no series begins with an event"

"""Counters are there, at zero, before their first event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.patience import eventually
from tests.support.world import Load, Model, World
from understudy.monitor.proxy.routes import protocols_of
from understudy.monitor.records.record import ENDS
from understudy.monitor.routing.plan import Challenger, Plan, Upstream
from understudy.monitor.routing.plan import Model as Route
from understudy.monitor.slo import sli
from understudy.monitor.stats.shared import SKETCH_WORDS
from understudy.monitor.telemetry.families import SERIES_LABELS, sketches
from understudy.monitor.telemetry.predictions import INVALID
from understudy.monitor.telemetry.zeros import (
    ENDS_OF,
    MOST_HISTOGRAMS,
    MOST_ROWS,
    histograms_of,
    rows_of,
    with_zeros,
)

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
        "queue_full", "breaker_open", "body_too_large", "not_rewritten"}  # fmt: skip
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


def test_histograms_without_a_value_are_those_of_latency_objectives() -> None:
    plan = plan_of(AUTO)
    found = histograms_of(plan)
    assert ("m", "1", "champion", "primary", "mlflow", "ok") in found
    assert ("m", "1", "c0", "primary", "mlflow", "ok") in found
    assert {labels[3:] for labels in found} == {
        ("primary", protocol, "ok") for protocol in ("open-inference-v2", "kserve-v1", "mlflow")
    }  # fmt: skip
    many = plan_of(*(Route(f"m{n}", "1", "auto", AUTO.paths) for n in range(500)))
    assert len(histograms_of(many)) == MOST_HISTOGRAMS


def test_a_value_replaces_the_zeros_of_its_series() -> None:
    """Each series is there once, with its edges in order, whether or not it has a value."""
    words = np.zeros(SKETCH_WORDS, np.uint64)
    one, other = ("m", "1", "a", "primary", "p", "ok"), ("m", "1", "b", "primary", "p", "ok")
    labels = tuple(zip(SERIES_LABELS, one, strict=True))
    empty = sketches("x_seconds", "", {labels: words}, None, (0.07,), [one, other])
    sums = [s for s in empty.samples if s.name.endswith("_count")]
    assert [(s.labels["arm"], s.value) for s in sums] == [("a", 0.0), ("b", 0.0)]
    edges = [
        s.labels["le"] for s in empty.samples if s.labels.get("arm") == "a" and "le" in s.labels
    ]
    assert "0.07" in edges
    assert edges[-1] == "+Inf"
    assert [float(edge) for edge in edges] == sorted(float(edge) for edge in edges)
    assert [series.labels for series in empty.native] == [one, other]


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
    text = httpx.get(world.service.control + "/metrics").text
    count = re.findall(r"^understudy_request_duration_seconds_count\{(.*)\} (\S+)$", text, re.M)
    assert count, "a latency objective cannot see with what a histogram begins"
    assert all(float(value) == 0.0 and 'outcome="ok"' in labels for labels, value in count)
    world.champion.kill()
    load = Load(world.service.url)
    eventually(lambda: any(
        value and 'outcome="upstream_connect"' in key for key, value in requests(world).items()))  # fmt: skip
    load.stop()
    after = requests(world)
    assert after.keys() == before.keys(), "no series begins with an event"

"""Every query of every dashboard, asked of a real Prometheus that scrapes a real service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.browser import visit
from tests.support.dashboards_world import Prometheus as Scraping
from tests.support.dashboards_world import World
from tests.support.patience import eventually, patient
from tools.dashboards.board import GATE_TAG
from tools.dashboards.generate import FOLDER, documents
from tools.dashboards.preview.page import WIDTH, Annotations, page
from tools.dashboards.prometheus import (
    Prometheus,
    Span,
    answers,
    choices,
    filled,
    panels,
    values_of,
)
from tools.dashboards.words import STATES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
DASHBOARDS = documents()
RULES = sorted((FOLDER.parents[1] / "prometheus").glob("*.rules.yml"))
_EMBEDDED = "the evaluation is embedded, so there are no families of Kafka, nor of evaluators"
EMPTY: dict[tuple[str, str, str], str] = {
    ("understudy-internals", panel, query): _EMBEDDED
    for panel, queries in (
        ("Replicas", "B"),
        ("Connection", "A"),
        ("Published", "ABC"),
        ("Waiting", "A"),
        ("Spool", "AB"),
        ("Drops and errors", "AB"),
        ("Time since the last acknowledgement", "A"),
        ("Volume", "A"),
        ("Routes", "A"),
        ("Taken over, and refused", "AB"),
        ("Evaluated", "ABCD"),
        ("Consumer lag", "A"),
        ("Restarts and unreadable messages", "ABCDE"),
        ("Commits", "A"),
        ("CPU of evaluators", "A"),
        ("Memory of evaluators", "A"),
    )
    for query in queries
}
EMPTY["understudy-experiments", "No answer yet", "A"] = "every assigned request was answered"
for query, why in (("D", "model servers are at IP addresses"), ("E", "there is no TLS")):
    EMPTY["understudy-internals", "Connecting to model servers", query] = why
for query in "ABC":
    EMPTY["understudy-internals", "OpenTelemetry", query] = "no collector is named"
EMPTY["understudy-overview", "Failures by outcome", "B"] = "no call is over gRPC"
EMPTY["understudy-predictions", "Labels", "B"] = "no request id comes twice"
EMPTY["understudy-internals", "Refused requests and responses", "B"] = "every response is valid"
EMPTY["understudy-latency", "Length of the last cold start", "A"] = "no model server comes back"
for panel, queries in (
    ("Time to the first token", "AB"),
    ("Time to the first answer", "AB"),
    ("Time per output token", "AB"),
    ("Whole answers", "AB"),
    ("Tokens per second", "A"),
    ("Answers by finish reason", "A"),
    ("Goodput", "A"),
    ("Good answers", "A"),
    ("Cost of tokens", "A"),
    ("Cost of an answer", "A"),
    ("Tokens of an answer", "A"),
    ("Source of token counts", "A"),
):
    for query in queries:
        EMPTY["understudy-predictions", panel, query] = (
            "no model speaks a protocol of language models"
        )
for panel, queries in (
    ("p99 of the first event", "A"),
    ("p99 of the longest gap", "A"),
    ("Events and stalls", "AB"),
):
    for query in queries:
        EMPTY["understudy-latency", panel, query] = "no response is a stream"
"""Queries without an answer here, by dashboard, panel and query, and why that is right."""
UNSHOWN = {
    "kafka_heartbeats": "one a second and partition, as long as the sender lives",
    "kafka_published_messages": "the bytes and the records say as much",
    "kafka_routes_epoch": "a number for who reads the logs of a take-over",
}
"""Families on no dashboard, and why."""


def shown(text: str) -> bool:
    """Whether a dashboard asks for a family, by its name without ``understudy_``."""
    name = rf"understudy_{text}(_total|_bucket|_sum|_count)?\{{"
    return any(
        re.search(name, target["expr"])
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """A Prometheus, and since when there is something to see; ``control`` is the service's."""

    prometheus: Prometheus
    began: float
    control: str

    def span(self) -> Span:
        return Span(self.began, time.time(), 1.0, World.scrape)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("world")
    with World(folder, RULES) as world:
        world.drift()
        yield Seen(Prometheus(world.prometheus.url), world.began, world.service.control)


def test_every_query_has_an_answer(seen: Seen) -> None:
    answered = set()
    every = set()

    def ask() -> bool:
        for dashboard in DASHBOARDS.values():
            values = choices(dashboard, seen.span())
            for panel in panels(dashboard):
                for target, series in answers(seen.prometheus, panel, values, seen.span()):
                    key = (dashboard["uid"], panel["title"], target["refId"])
                    every.add(key)
                    if series:
                        answered.add(key)
        return every - answered <= set(EMPTY)

    until = time.monotonic() + patient(120)
    while not ask() and time.monotonic() < until:
        time.sleep(1)
    assert sorted(every - answered) == sorted(EMPTY)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_offers_something(seen: Seen, name: str) -> None:
    dashboard = DASHBOARDS[name]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            offered = values_of(seen.prometheus, dashboard, variable["name"], seen.span())
            assert offered, variable["name"]


def _patiently(
    dashboard: Mapping[str, Any], seen: Seen, annotations: Annotations
) -> tuple[str, list[str]]:
    """A scrape that took too long leaves a moment without an answer to instant queries."""
    until = time.monotonic() + patient(60)
    while True:
        text, empty = page(dashboard, seen.prometheus, seen.span(), annotations)
        if set(empty) <= {panel for _, panel, _ in EMPTY} or time.monotonic() > until:
            return text, empty
        time.sleep(0.5)


def test_previews_show_what_there_is(seen: Seen, tmp_path: Path, browser: Browser) -> None:
    now = time.time()
    posted = {"time": (now - 8) * 1000, "timeEnd": (now - 4) * 1000, "tags": [GATE_TAG, "load"]}
    annotations = Annotations(({**posted, "text": "steady: passed"},))
    for name, dashboard in DASHBOARDS.items():
        text, empty = _patiently(dashboard, seen, annotations)
        assert set(empty) <= {panel for _, panel, _ in EMPTY}, name
        assert "steady: passed" in text
        file = tmp_path / f"{name}.html"
        file.write_text(text)
        with visit(browser, file.as_uri(), width=WIDTH) as opened:
            opened.fine(svgs=8)


def test_families_of_kafka_are_those_that_there_are() -> None:
    """Those queries have no answer here; what they name has to exist all the same."""
    source = (FOLDER.parents[2] / "monitor" / "telemetry" / "kafka.py").read_text()
    known = set(re.findall(r'"(kafka_\w+|published_\w+|taken|recovered|heartbeats)"', source))
    asked = set()
    for panel in panels(DASHBOARDS["internals.json"]):
        for target in panel["targets"]:
            asked |= set(re.findall(r"understudy_kafka_(\w+?)(?:_total)?\{", target["expr"]))
    assert len(asked) >= 8
    assert {name for name in asked if name not in known and f"kafka_{name}" not in known} == set()
    every = {f"kafka_{name.removeprefix('kafka_')}" for name in known - {"kafka_families"}}
    assert {name for name in every if not shown(name)} == set(UNSHOWN)
    assert f"_STATES = {STATES!r}".replace("'", '"') in source


def test_families_of_evaluators_are_those_that_there_are() -> None:
    source = (FOLDER.parents[2] / "monitor" / "service" / "evaluator_api.py").read_text()
    known = set(re.findall(r'"evaluator_(\w+)"', source))
    known |= {f"{name}_rows" for name in ("judged", "late") if f'"{name}"' in source}
    known |= {f"blocks_{name}" for name in ("missing", "duplicates") if f'"{name}"' in source}
    asked = set()
    for panel in panels(DASHBOARDS["internals.json"]):
        for target in panel["targets"]:
            asked |= set(re.findall(r"understudy_evaluator_(\w+?)(?:_total)?\{", target["expr"]))
    assert len(asked) >= 9
    assert asked == known


def test_every_family_is_on_a_dashboard(seen: Seen) -> None:
    text = httpx.get(seen.control + "/metrics", timeout=patient(60)).text
    told = re.findall(r"^# TYPE understudy_(\w+) (\w+)$", text, re.MULTILINE)
    assert len(told) > 60
    for name, kind in told:
        assert shown(name.removesuffix("_total") if kind == "counter" else name), name


def test_native_histograms_do_as_well(seen: Seen, tmp_path: Path) -> None:
    """With native histograms, classic ones are no longer scraped."""
    native = Scraping(tmp_path / "native", seen.control, [], "--enable-feature=native-histograms")
    asked = {
        (panel["title"], target["refId"]): target["expr"]
        for panel in panels(DASHBOARDS["latency.json"])
        for target in panel["targets"]
        if re.search(r"understudy_\w+_bucket|histogram_count", target["expr"])
        and 'role="mirror"' not in target["expr"]  # who gets the copies has died
        and ("understudy-latency", panel["title"], target["refId"]) not in EMPTY
    }
    assert len(asked) > 8
    try:
        eventually(lambda: native.asked("understudy_request_duration_seconds"))
        assert native.asked("understudy_request_duration_seconds_bucket") == []
        values = {**choices(DASHBOARDS["latency.json"], seen.span()), "__rate_interval": "1m"}

        def answered() -> bool:
            found = [native.asked(filled(expr, values)) for expr in asked.values()]
            return all(found)

        eventually(answered)
        heat = asked["Client requests by duration", "A"]
        (one,) = native.asked(filled(heat, values))
        assert one["metric"] == {}
        assert len(one["histogram"][1]["buckets"]) > 3
    finally:
        native.stop()


def test_every_mark_can_be_asked_for(seen: Seen) -> None:
    found = {}
    for mark in DASHBOARDS["overview.json"]["annotations"]["list"][1:]:
        values = choices(DASHBOARDS["overview.json"], seen.span())
        found[mark["name"]] = seen.prometheus.over(filled(mark["expr"], values), seen.span())
    assert found["Finding opened"]
    assert not found["Process restarted"]

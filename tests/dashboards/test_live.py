"""Every query of every dashboard, asked of a real Prometheus that scrapes a real service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.dashboards.board import GATE_TAG
from deploy.dashboards.generate import FOLDER, documents
from deploy.dashboards.preview.page import WIDTH, Annotations, page
from deploy.dashboards.prometheus import (
    Prometheus,
    Span,
    answers,
    choices,
    filled,
    panels,
    values_of,
)
from deploy.dashboards.words import STATES
from tests.browser import visit
from tests.dashboards.world import World

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
DASHBOARDS = documents()
RULES = sorted((FOLDER.parents[1] / "prometheus").glob("*.rules.yml"))
_EMBEDDED = "the evaluation is embedded, so there are no families of Kafka, nor of evaluators"
EMPTY: dict[tuple[str, str, str], str] = {
    ("understudy-internals", panel, query): _EMBEDDED
    for panel, queries in (
        ("Connection", "A"),
        ("Published", "ABC"),
        ("Waiting", "A"),
        ("Spool", "AB"),
        ("Let go of, and errors", "AB"),
        ("Since the last answer", "A"),
        ("Evaluated", "ABCD"),
        ("Messages that wait", "A"),
        ("Begun anew, and not read", "ABC"),
    )
    for query in queries
}
"""Queries without an answer here, by dashboard, panel and query, and why that is right."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A Prometheus, and since when there is something to see."""

    prometheus: Prometheus
    began: float

    def span(self) -> Span:
        return Span(self.began, time.time(), 1.0, World.scrape)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("world")
    with World(folder, RULES) as world:
        world.drift()
        yield Seen(Prometheus(world.prometheus.url), world.began)


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

    until = time.monotonic() + 120
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
    until = time.monotonic() + 60
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
    source = (FOLDER.parents[2] / "monitor" / "metrics" / "kafka.py").read_text()
    known = set(re.findall(r'"(kafka_\w+|published_\w+|taken)"', source))
    asked = set()
    for panel in panels(DASHBOARDS["internals.json"]):
        for target in panel["targets"]:
            asked |= set(re.findall(r"understudy_kafka_(\w+?)(?:_total)?\{", target["expr"]))
    assert len(asked) >= 8
    assert {name for name in asked if name not in known and f"kafka_{name}" not in known} == set()
    assert f"_STATES = {STATES!r}".replace("'", '"') in source


def test_families_of_evaluators_are_those_that_there_are() -> None:
    source = (FOLDER.parents[2] / "monitor" / "evaluator" / "api.py").read_text()
    known = set(re.findall(r'"evaluator_(\w+)"', source))
    known |= {f"{name}_rows" for name in ("judged", "late") if f'"{name}"' in source}
    known |= {f"blocks_{name}" for name in ("missing",) if f'"{name}"' in source}
    asked = set()
    for panel in panels(DASHBOARDS["internals.json"]):
        for target in panel["targets"]:
            asked |= set(re.findall(r"understudy_evaluator_(\w+?)(?:_total)?\{", target["expr"]))
    assert len(asked) >= 7
    assert asked <= known


def test_every_mark_can_be_asked_for(seen: Seen) -> None:
    found = {}
    for mark in DASHBOARDS["overview.json"]["annotations"]["list"][1:]:
        values = choices(DASHBOARDS["overview.json"], seen.span())
        found[mark["name"]] = seen.prometheus.over(filled(mark["expr"], values), seen.span())
    assert found["Finding opened"]
    assert not found["Process restarted"]

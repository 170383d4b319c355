"""No route of the control API changes or shows something without its check.

The routes are those of the application itself: a new one without a check, that is not listed here
as open to everybody, fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.control_api import (
    TOKEN,
    VARIABLE,
    Line,
    config,
    evaluator_api,
    evidence_consumer,
    filled,
    routes,
    settings_of,
)
from tests.support.ports import free_port
from understudy.monitor.api.app import build
from understudy.monitor.api.server import ApiServer
from understudy.monitor.service.evaluation import make_plane

GOOD = {"authorization": f"Bearer {TOKEN}"}
OPEN = {
    # Nothing of a single request, and nothing that changes.
    ("GET", "/"),
    ("GET", "/static/{file}"),  # what the page of the console loads
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/status"),
    ("GET", "/v1/models"),
    ("GET", "/v1/evaluator"),
    ("GET", "/v1/experiments"),
    ("GET", "/v1/experiments/{name}"),
    ("GET", "/v1/experiments/{name}/timeline"),
    ("GET", "/v1/experiments/{name}/audit"),
    ("GET", "/v1/experiments/{name}/report"),
    ("GET", "/v1/argo/{name}"),
    ("POST", "/v1/flagger/{name}/{hook}"),  # asks for a verdict
    ("GET", "/v1/feedback"),
    ("GET", "/v1/baseline"),
    ("GET", "/v1/drift"),
    ("GET", "/v1/validation"),
    ("GET", "/v1/objectives"),
    ("GET", "/v1/findings"),
    ("GET", "/v1/findings/{id}"),
    ("GET", "/v1/findings/{rest:path}"),  # says where findings are
    ("GET", "/v1/findings/history"),
    ("GET", "/v1/incidents"),
    ("GET", "/v1/incidents/{id}"),
    ("GET", "/v1/incidents/{rest:path}"),  # says where incidents are
    ("GET", "/v1/silences"),
}
SHOW_RECORDS = {
    ("GET", "/v1/records"),
    ("GET", "/v1/experiments/{name}/disagreements"),
    ("GET", "/v1/findings/{id}/records"),
}


def sidecar(folder: Path, **changes: Any) -> FastAPI:
    (folder / "run").mkdir()
    line: Any = Line()
    return build(make_plane(settings_of(config(folder, **changes)), folder / "run", "run-1"), line)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)


def ask(app: Any, wanted: Iterable[tuple[str, str]], headers: dict[str, str]) -> dict[Any, int]:
    """The status that each route answers."""

    async def run() -> dict[Any, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service:9090") as client:
            return {
                (method, path): (
                    await client.request(method, filled(path), headers=headers)
                ).status_code
                for method, path in wanted
            }

    return asyncio.run(run())


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("kind", ["embedded", "kafka", "evaluator"])
def test_every_route_is_open_on_purpose_or_needs_the_token(tmp_path: Path, kind: str) -> None:
    if kind == "evaluator":
        pytest.importorskip("kafka", reason="kafka-python is an extra")
        api = evaluator_api(tmp_path)
        member: Any = api._evaluator.member
        app = api._app_of(member, 0, evidence_consumer(tmp_path))
    elif kind == "kafka":
        pytest.importorskip("kafka", reason="kafka-python is an extra")
        app = sidecar(tmp_path, evaluation="kafka", kafka={"bootstrap": ["127.0.0.1:1"]})
    else:
        app = sidecar(tmp_path)
    found = set(routes(app))
    closed = found - OPEN
    assert {route for route in closed if route[0] != "GET"} >= (
        {("POST", "/v1/experiments"), ("POST", "/v1/experiments/{name}/{command}")}
    )
    assert {route for route in closed if route[0] == "GET"} <= SHOW_RECORDS
    for headers, status in (
        ({}, 401),
        ({"authorization": "Basic Y29ycmVjdDpob3JzZQ=="}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer wrong horse"}, 403),
    ):
        assert ask(app, closed, headers) == dict.fromkeys(closed, status)
    assert not {401, 403} & set(ask(app, sorted(closed), GOOD).values())
    assert 401 not in ask(app, found & OPEN, {}).values()


@pytest.mark.usefixtures("token")
def test_the_routes_of_the_evaluator_itself_are_open_on_purpose(tmp_path: Path) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    assert set(routes(evaluator_api(tmp_path)._own_app)) <= OPEN


def test_without_a_token_an_open_address_refuses_what_changes_and_what_shows(
    tmp_path: Path,
) -> None:
    app = sidecar(tmp_path)
    closed = set(routes(app)) - OPEN
    assert closed >= SHOW_RECORDS
    assert ask(app, closed, {}) == dict.fromkeys(closed, 403)


# Evaluators ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("token")
def test_who_forwards_lets_the_judge_check_the_token(tmp_path: Path) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    port = free_port()

    async def run() -> list[int]:
        server = ApiServer(sidecar(tmp_path), "127.0.0.1", port)
        serving = asyncio.create_task(server.serve())
        api: Any = evaluator_api(tmp_path, f"http://127.0.0.1:{port}")
        found = []
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(api), base_url="http://service:9090"
        ) as client:
            for headers in (None, {"authorization": "Bearer no"}, GOOD):
                for _ in range(200):
                    answer = await client.get(
                        "/v1/experiments/shadowed/disagreements", headers=headers
                    )
                    if answer.status_code != 503:  # not listening yet
                        break
                    await asyncio.sleep(0.05)
                found.append(answer.status_code)
            order = {"who": "ada"}
            pause = "/v1/experiments/shadowed/pause"
            for headers in (None, GOOD):
                found.append((await client.post(pause, json=order, headers=headers)).status_code)
            # A forwarded request is not forwarded again.
            forwarded = {**GOOD, "x-understudy-forwarded": "1"}
            found.append((await client.post(pause, json=order, headers=forwarded)).status_code)
        server.stop()
        await serving
        return found

    assert asyncio.run(run()) == [401, 403, 200, 401, 200, 503]


@pytest.mark.usefixtures("token")
def test_an_evaluator_that_judges_checks_the_token_itself(tmp_path: Path) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    api = evaluator_api(tmp_path)
    member: Any = api._evaluator.member
    member.consumers[0] = member.consumers[1] = evidence_consumer(tmp_path)
    member.mark_changed = lambda _: None
    shows = SHOW_RECORDS - {("GET", "/v1/records")}
    wanted = [*shows, ("DELETE", "/v1/experiments/{name}"), ("DELETE", "/v1/silences/{id}")]
    assert ask(api, wanted, {}) == dict.fromkeys(wanted, 401)
    assert not {401, 403} & set(ask(api, shows, GOOD).values())


@pytest.mark.usefixtures("token")
def test_a_report_shows_single_records_to_who_may_see_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    plane = make_plane(settings_of(config(tmp_path)), tmp_path / "run", "run-1")
    assert plane.experiments is not None
    contestant = plane.experiments.live["shadowed"].contestants["candidate"]
    contestant.worst.offer(1.0, 0.0, "r-1", "p: 0.1 against 0.9", {"age": 77}, {}, {})
    line: Any = Line()
    app = build(plane, line)

    async def page(headers: dict[str, str]) -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service:9090") as client:
            found = await client.get("/v1/experiments/shadowed/report", headers=headers)
            assert found.status_code == 200
            return found.text

    assert "Worst disagreements" not in asyncio.run(page({}))
    assert "Worst disagreements" in asyncio.run(page(GOOD))

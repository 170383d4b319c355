"""No route of the control API changes or shows something without its check.

The routes are those of the applications themselves: a new one, that is not classified in the table
of the guard and here, fails.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

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
from understudy.monitor.api.access import ROUTES, Access, find
from understudy.monitor.api.app import build
from understudy.monitor.api.guard import Guard
from understudy.monitor.api.security import (
    CSRF_HEADER,
    SESSION_SECONDS,
    csrf_token,
    refuse,
    session_cookie,
)
from understudy.monitor.api.server import ApiServer
from understudy.monitor.service.evaluation import make_plane

GOOD = {"authorization": f"Bearer {TOKEN}"}
PUBLIC = {
    # Nothing of a single request, and nothing that changes.
    ("GET", "/"),
    ("GET", "/static/{file}"),  # what the page of the console loads
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/argo/{name}"),
    ("POST", "/v1/flagger/{name}/{hook}"),  # asks for a verdict
}
READ = {
    ("GET", "/v1/status"),
    ("GET", "/v1/arms"),
    ("GET", "/v1/history"),
    ("GET", "/v1/events"),
    ("GET", "/v1/stream"),
    ("GET", "/v1/distributions"),
    ("GET", "/v1/session"),
    ("GET", "/v1/models"),
    ("GET", "/v1/records"),
    ("GET", "/v1/evaluator"),
    ("GET", "/v1/experiments"),
    ("GET", "/v1/experiments/{name}"),
    ("GET", "/v1/experiments/{name}/timeline"),
    ("GET", "/v1/experiments/{name}/disagreements"),
    ("GET", "/v1/experiments/{name}/audit"),
    ("GET", "/v1/experiments/{name}/report"),
    ("GET", "/v1/feedback"),
    ("GET", "/v1/baseline"),
    ("GET", "/v1/drift"),
    ("GET", "/v1/validation"),
    ("GET", "/v1/objectives"),
    ("GET", "/v1/findings"),
    ("GET", "/v1/findings/{id}"),
    ("GET", "/v1/findings/{id}/records"),
    ("GET", "/v1/findings/{id}/timeline"),
    ("GET", "/v1/findings/{rest:path}"),  # says where findings are
    ("GET", "/v1/findings/history"),
    ("GET", "/v1/incidents"),
    ("GET", "/v1/incidents/{id}"),
    ("GET", "/v1/incidents/{rest:path}"),  # says where incidents are
    ("GET", "/v1/silences"),
}
CHANGE = {
    ("POST", "/v1/session"),
    ("POST", "/v1/config/reload"),
    ("POST", "/v1/records"),
    ("POST", "/v1/cloudevents"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/experiments"),
    ("DELETE", "/v1/experiments/{name}"),
    ("POST", "/v1/experiments/{name}/{command}"),
    ("POST", "/v1/findings/{id}/acknowledge"),
    ("POST", "/v1/findings/{id}/close"),
    ("POST", "/v1/incidents/{id}/acknowledge"),
    ("POST", "/v1/silences"),
    ("DELETE", "/v1/silences/{id}"),
}
CLASSES = {Access.PUBLIC: PUBLIC, Access.READ: READ, Access.CHANGE: CHANGE}


def sidecar(folder: Path, **changes: Any) -> Guard:
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


def every_application(folder: Path) -> dict[str, Any]:
    """The applications that are served, without the guard."""
    applications: dict[str, Any] = {}
    for kind in ("embedded", "kafka"):
        (folder / kind).mkdir()
    applications["embedded"] = sidecar(folder / "embedded").app
    if importlib.util.find_spec("kafka") is not None:
        kafka = {"bootstrap": ["127.0.0.1:1"]}
        changes: dict[str, Any] = {"evaluation": "kafka", "kafka": kafka}
        applications["kafka"] = sidecar(folder / "kafka", **changes).app
        api: Any = evaluator_api(folder).app
        applications["evaluator"] = api._own_app
        member: Any = api._evaluator.member
        applications["partition"] = api._app_of(member, 0, evidence_consumer(folder))
        api._evaluator.member = None  # the status of a real one only
    return applications


def test_every_route_has_a_class_and_every_class_is_the_one_that_was_meant(
    tmp_path: Path,
) -> None:
    """A route that an application registers and the table does not know fails here; and without a
    line in the table it does not answer."""
    registered = {
        route for app in every_application(tmp_path).values() for route in set(routes(app))
    }
    listed = {(route.method, route.path): route.access for route in ROUTES}
    assert registered <= listed.keys()
    if importlib.util.find_spec("kafka") is not None:
        assert registered == listed.keys(), "the table lists no route that does not exist"
    assert {kind: {r for r in listed if listed[r] is kind} for kind in Access} == CLASSES
    for method, path in registered:
        found = find(method, filled(path))
        assert found is not None
        assert found.access is listed[method, path], "another route hides this one"


def test_a_route_without_a_class_does_not_answer(tmp_path: Path) -> None:
    guard = sidecar(tmp_path)
    app: Any = guard.app
    app.get("/v1/new")(lambda: "shown")
    app.get("/v1/status/{name}")(lambda name: "shown")
    wanted = [("GET", "/v1/new"), ("GET", "/v1/status/x"), ("HEAD", "/v1/new")]
    assert ask(guard, wanted, GOOD) == dict.fromkeys(wanted, 404)
    assert ask(app, wanted[:2], GOOD) == dict.fromkeys(wanted[:2], 200)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("kind", ["embedded", "kafka", "partition", "evaluator"])
def test_every_route_is_open_on_purpose_or_needs_the_token(tmp_path: Path, kind: str) -> None:
    applications = every_application(tmp_path)
    if kind not in applications:
        pytest.skip("kafka-python is an extra")
    app = Guard(applications[kind], settings_of(config(tmp_path)))
    found = set(routes(app))
    closed = found - PUBLIC
    assert closed
    for headers, status in (
        ({}, 401),
        ({"authorization": "Basic Y29ycmVjdDpob3JzZQ=="}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer wrong horse"}, 403),
        ({"cookie": "understudy-9090=9999999999.00"}, 401),
    ):
        assert ask(app, closed, headers) == dict.fromkeys(closed, status)
    assert not {401, 403} & set(ask(app, sorted(closed), GOOD).values())
    assert 401 not in ask(app, found & PUBLIC, {}).values()


@pytest.mark.usefixtures("token")
def test_a_page_that_has_signed_in_reads_and_changes_nothing(tmp_path: Path) -> None:
    app = sidecar(tmp_path)

    async def cookies() -> httpx.Cookies:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service:9090") as client:
            assert (await client.post("/v1/session")).status_code == 401
            answer = await client.post("/v1/session", headers=GOOD)
            assert answer.status_code == 200
            assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
            assert TOKEN not in answer.headers["set-cookie"]
            return client.cookies

    ((name, value),) = asyncio.run(cookies()).items()
    session = {"cookie": f"theme=dark; {name}={value}"}
    reads = sorted(set(routes(app)) & READ)
    changes = sorted(set(routes(app)) & CHANGE)
    assert not {401, 403} & set(ask(app, reads, session).values())
    assert ask(app, changes, session) == dict.fromkeys(changes, 401)
    until, _, signature = value.partition(".")
    for wrong in (f"{int(until) + 1}.{signature}", f"{until}.{signature[:-1]}", until, ""):
        assert ask(app, reads[:1], {"cookie": f"{name}={wrong}"}) == {reads[0]: 401}


@pytest.mark.usefixtures("token")
def test_a_page_that_has_signed_in_changes_with_its_header_alone(tmp_path: Path) -> None:
    """A page of another origin can send the cookie; it can neither read nor send the header."""
    app = sidecar(tmp_path)
    settings = settings_of(config(tmp_path))
    cookie = session_cookie(settings, time.time())
    assert cookie is not None
    session = {"cookie": cookie.partition(";")[0]}
    csrf = csrf_token(settings, session, time.time())
    assert csrf is not None
    changes = sorted(set(routes(app)) & CHANGE)
    for headers, status in (
        ({CSRF_HEADER: csrf}, 401),  # without the cookie
        ({**session, CSRF_HEADER: ""}, 401),
        ({**session, CSRF_HEADER: csrf[:-1] + ("0" if csrf[-1] != "0" else "1")}, 401),
        ({**session, CSRF_HEADER: session["cookie"].partition(".")[2]}, 401),
        ({**session, CSRF_HEADER: csrf, "authorization": "Bearer wrong horse"}, 403),
    ):
        assert ask(app, changes, headers) == dict.fromkeys(changes, status)
    good = {**session, CSRF_HEADER: csrf}
    assert not {401, 403} & set(ask(app, changes, good).values())
    assert csrf_token(settings, session, time.time() + SESSION_SECONDS + 1) is None


@pytest.mark.usefixtures("token")
def test_the_console_shows_nothing_to_those_who_may_not_read(tmp_path: Path) -> None:
    app = sidecar(tmp_path)

    async def pages(headers: dict[str, str]) -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service:9090") as client:
            return [
                (await client.get(f"/{view}", headers=headers)).text
                for view in ("", "?view=system", "?view=requests", "?experiment=shadowed")
            ]

    for page in asyncio.run(pages({})):
        assert "Token of the control API" in page
        assert "champion" not in page
        assert "shadowed" not in page
    for page in asyncio.run(pages(GOOD)):
        assert "not signed in" not in page
    assert "shadowed" in asyncio.run(pages(GOOD))[3]


@pytest.mark.usefixtures("token")
def test_a_session_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(config(tmp_path))
    cookie = session_cookie(settings, 1000.0)
    assert cookie is not None
    headers = {"cookie": cookie.partition(";")[0]}
    assert refuse(settings, Access.READ, headers, 999.0 + SESSION_SECONDS) is None
    assert refuse(settings, Access.READ, headers, 1001.0 + SESSION_SECONDS) is not None
    monkeypatch.setenv(VARIABLE, "another token")
    assert refuse(settings, Access.READ, headers, 1001.0) is not None


def test_without_a_token_an_open_address_refuses_what_changes_and_what_shows(
    tmp_path: Path,
) -> None:
    app = sidecar(tmp_path)
    closed = set(routes(app)) - PUBLIC
    assert closed >= {("GET", "/v1/records"), ("GET", "/v1/baseline"), ("GET", "/v1/drift")}
    assert ask(app, closed, {}) == dict.fromkeys(closed, 403)


def test_the_openapi_document_says_which_calls_need_the_token(tmp_path: Path) -> None:
    app: Any = sidecar(tmp_path).app
    paths = app.openapi()["paths"]
    needs = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation.get("security") == [{"token": []}]
    }
    documented = {(m.upper(), path) for path, operations in paths.items() for m in operations}
    assert needs == documented - PUBLIC
    assert needs >= {("GET", "/v1/drift"), ("POST", "/v1/records")}


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
    application: Any = api.app
    member = application._evaluator.member
    member.consumers[0] = member.consumers[1] = evidence_consumer(tmp_path)
    member.mark_changed = lambda _: None
    shows = {
        ("GET", "/v1/experiments/{name}/disagreements"),
        ("GET", "/v1/findings/{id}/records"),
        ("GET", "/v1/drift"),
    }
    wanted = [*shows, ("DELETE", "/v1/experiments/{name}"), ("DELETE", "/v1/silences/{id}")]
    assert ask(api, wanted, {}) == dict.fromkeys(wanted, 401)
    assert not {401, 403} & set(ask(api, shows, GOOD).values())

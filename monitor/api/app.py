"""The FastAPI application on the control address."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from understudy import __version__
from understudy.common.problems import problem
from understudy.monitor.api import access, documents, status
from understudy.monitor.api.answers import CODES, Refused, answer, refusal
from understudy.monitor.api.baseline import add_baseline
from understudy.monitor.api.experiments import add_experiments
from understudy.monitor.api.feedback import add_feedback
from understudy.monitor.api.findings import add_findings
from understudy.monitor.api.guard import Guard
from understudy.monitor.api.ingest import add_ingest
from understudy.monitor.api.measured import add_measured
from understudy.monitor.api.objectives import add_objectives
from understudy.monitor.api.pages import add_pages
from understudy.monitor.api.records import Wanted, recent
from understudy.monitor.api.stream import add_stream
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.supervisor.control_line import ControlLine
from understudy.monitor.telemetry.collector import PlaneCollector
from understudy.monitor.telemetry.exposition import encode

_DESCRIPTION = """
Health, status and metrics of an Understudy service. Calls that change state need
`Authorization: Bearer <token>` with the token from the environment variable named by
`control.token_env`; without a token they are allowed only while the API listens on a loopback
address. When it listens on another address, everything below `/v1` that reads needs the token too,
except the verdicts for Argo Rollouts and Flagger. Requests for host names that are not the
service's own are refused (`control.hosts`).

Durations are in seconds, sizes in bytes, and no number is ever NaN or infinite.
"""


def _documented(model: type, *codes: int, text: str = "Success.") -> dict[int | str, Any]:
    described: dict[int | str, Any] = {200: {"model": model, "description": text}}
    for code in codes:
        described[code] = {"model": documents.Error, "description": CODES[code].replace("_", " ")}
    return described


def build(plane: EvaluationPlane, line: ControlLine) -> Guard:
    """The guarded application: it shows ``plane`` and requests reloads over ``line``."""
    app = FastAPI(
        title="Understudy control API",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    prepare(app)
    _health(app, plane)
    add_pages(app, "service", plane.settings)
    _show(app, plane)
    add_measured(app, plane)
    add_stream(app, plane)
    _change(app, line)
    add_experiments(app, plane, line)
    add_feedback(app, plane)
    add_baseline(app, plane)
    add_objectives(app, plane)
    add_ingest(app, plane.ingest)
    if plane.pipeline.findings_loop is not None:
        add_findings(app, plane, plane.pipeline.findings_loop.service)
    elif plane.mode.evaluator_hint():
        _add_evaluator_hint(app, plane)
    return Guard(app, plane.settings)


def _add_evaluator_hint(app: FastAPI, plane: EvaluationPlane) -> None:
    @app.get("/v1/findings", tags=["findings"])
    @app.get("/v1/findings/{rest:path}", include_in_schema=False)
    @app.get("/v1/incidents", include_in_schema=False)
    @app.get("/v1/incidents/{rest:path}", include_in_schema=False)
    async def findings() -> Response:
        """The evaluators have the findings; the message names their address."""
        return refusal(404, plane.mode.evaluator_hint())


_FASTAPI_NOT_READ = "There was an error parsing the body"
_NOT_READ = "the body is not valid JSON: it is not UTF-8"


def prepare(app: FastAPI) -> None:
    """Respond to all errors in one format, and say in the OpenAPI document which calls need the
    token."""
    generate = app.openapi
    app.openapi = cache(lambda: access.describe(generate()))  # type: ignore[method-assign]

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return refusal(error.code, error.message, error.headers)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        message = _NOT_READ if error.detail == _FASTAPI_NOT_READ else str(error.detail)
        return refusal(error.status_code, message, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [_fault(fault) for fault in error.errors()]
        _release(error)
        return refusal(422, "; ".join(faults))


def _fault(fault: Any) -> str:
    """One entry of ``RequestValidationError.errors()``: place, value, and what it must be."""
    if fault["type"] == "json_invalid":
        place = fault["loc"][-1]
        return f"the body is not valid JSON: {fault['ctx']['error']} (character {place + 1})"
    if fault["loc"] == ("body",) and isinstance(fault.get("input"), bytes):
        return "the body must be JSON: send it with content-type: application/json"
    return f"{'.'.join(str(part) for part in fault['loc'])}: {problem(fault, None)[1]}"


def _release(error: BaseException) -> None:
    """Let go of the frames of an error that was handled. FastAPI's frames refer to the error and to
    the body of the request: a cycle, which would keep the body until the collector runs."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__context__


def _health(app: FastAPI, plane: EvaluationPlane) -> None:
    @app.get(
        "/healthz",
        tags=["health"],
        responses={
            **_documented(documents.Health),
            503: {"model": documents.Health, "description": "A restart is needed."},
        },
    )
    async def healthz() -> Response:
        """Liveness of the evaluation plane, and of the supervisor, which replaces processes that
        end or hang. For the workers see `/readyz`."""
        if plane.supervisor.hangs:
            return answer({"status": plane.supervisor.silence}, 503)
        return answer({"status": "ok"})

    @app.get(
        "/readyz",
        tags=["health"],
        responses={
            **_documented(documents.Readiness, text="Ready for traffic."),
            503: {"model": documents.Readiness, "description": "Not ready; `problems` says why."},
        },
    )
    async def readyz() -> Response:
        """Readiness: all workers are ready, and clients are served. `warnings` are faults that
        clients do not notice, such as a challenger that is down while the champion serves, or
        payloads that cannot be read."""
        snapshot = await plane.fresh_snapshot()
        problems = plane.problems(snapshot)
        document = {
            "ready": not problems,
            "problems": problems,
            "warnings": plane.warnings(plane.service(snapshot), snapshot),
        }
        return answer(document, 503 if problems else 200)

    @app.get(
        "/metrics",
        tags=["metrics"],
        responses={
            200: {
                "description": "Prometheus text; OpenMetrics (with exemplars) or protobuf (with"
                " native histograms) when the `Accept` header asks for it.",
                "content": {
                    "text/plain": {
                        "example": 'understudy_requests_total{model="delays",version="1",'
                        'arm="champion",role="primary",protocol="open-inference-v2",'
                        'outcome="ok"} 12034.0\n'
                    }
                },
            }
        },
    )
    async def metrics(request: Request) -> Response:
        """All metrics, for a Prometheus scrape."""
        families = await PlaneCollector(plane).gather()
        accept = ",".join(request.headers.getlist("accept"))
        # Formatting takes milliseconds; the loop receives batches meanwhile.
        kind, body = await asyncio.to_thread(encode, families, accept)
        return Response(body, headers={"content-type": kind})


def _show(app: FastAPI, plane: EvaluationPlane) -> None:
    @app.get("/v1/status", tags=["status"], responses=_documented(documents.Status))
    async def show_status() -> Response:
        """Per arm: rates, errors and latency quantiles over 10 s, 1 m, 5 m and since the start;
        mirror health, drops, workers, configuration and predictions."""
        return answer(await status.status(plane))

    @app.get("/v1/models", tags=["status"], responses=_documented(documents.Models))
    async def models() -> Response:
        """The declared models with statistics of their features and predictions."""
        plane.pipeline.flush()
        return answer({"models": _models(plane)})

    @app.get(
        "/v1/records",
        tags=["status"],
        responses=_documented(documents.Records, 401, 403, 422),
    )
    async def records(
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number.")] = 20,
        raw: Annotated[bool, Query(description="Include payloads, redacted.")] = False,
        model: Annotated[str | None, Query(max_length=256, description="Only of this.")] = None,
        arm: Annotated[str | None, Query(max_length=256, description="Only of this.")] = None,
        role: Annotated[
            Literal["primary", "mirror"] | None, Query(description="Only in this role.")
        ] = None,
        outcome: Annotated[
            str | None, Query(max_length=64, description="Only with this one; `error` for all.")
        ] = None,
        longer: Annotated[
            float | None, Query(ge=0, description="Only those that took so many seconds or more.")
        ] = None,
        shorter: Annotated[float | None, Query(ge=0, description="Or so many or fewer.")] = None,
        request_id: Annotated[str | None, Query(max_length=256, description="Only this.")] = None,
        before: Annotated[int | None, Query(ge=0, description="`next` of the page before.")] = None,
        pairs: Annotated[
            bool, Query(description="Include the other arms' answers to the same request.")
        ] = False,
    ) -> Response:
        """The last records, newest first, with decoded features and predictions. `next` begins the
        next page; it is null on the last one.

        Fields that match a rule of `records.redact` are replaced by `[redacted]`. Payloads (`raw`)
        are withheld as a whole where a hidden field has no name of its own in them.
        """
        ids = frozenset(() if request_id is None else (request_id,))
        wanted = Wanted(model, arm, role, outcome, longer, shorter, ids)
        found, following = recent(plane, limit, raw, wanted, before, pairs)
        return answer({"records": found, "next": following})


def _models(plane: EvaluationPlane) -> list[dict[str, Any]]:
    pipeline = plane.pipeline
    predictions = status.predictions(plane)
    missed = status.undecodable(plane)
    result = []
    models = list(plane.settings.models)
    match = plane.settings.match
    if match is not None:
        listed = {(model.name, model.version) for model in models}
        found = {*pipeline.features, *(key[:2] for key in pipeline.predictions)} - listed
        models += [replace(match, name=name, version=version) for name, version in sorted(found)]
    for model in models:
        stats = pipeline.features.get((model.name, model.version))

        def mine(item: dict[str, Any], key: tuple[str, str] = (model.name, model.version)) -> bool:
            return (item["model"], item["version"]) == key

        result.append(
            {
                "name": model.name,
                "version": model.version,
                "protocol": model.protocol,
                "rows": stats.rows if stats is not None else 0,
                "features": [
                    status.seen(plane.redaction, one["name"], one)
                    for one in (stats.summary() if stats is not None else ())
                ],
                "predictions": [item for item in predictions if mine(item)],
                "undecodable": [item for item in missed if mine(item)],
            }
        )
    return result


def _change(app: FastAPI, line: ControlLine) -> None:
    @app.post(
        "/v1/config/reload",
        tags=["configuration"],
        responses=_documented(documents.Reload, 401, 403, 409),
    )
    async def reload() -> Response:
        """Read the configuration file again. An invalid one is rejected with 409, naming
        the key; the running configuration stays active."""
        result = await line.reload()
        if not result.ok:
            return refusal(409, result.error or "the configuration was rejected")
        return answer({"ok": True, "generation": result.generation})

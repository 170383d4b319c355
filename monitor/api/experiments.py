"""Experiments over the API: show, start, decide, end."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.api.controllers import add_controllers
from understudy.monitor.errors import ConfigError, ExperimentStateError, UnknownExperimentError
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.report import html, parts_of
from understudy.monitor.experiments.runner import Command, ExperimentRunner
from understudy.monitor.experiments.summary import document, summary
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.supervisor.control_line import ControlLine

_EXAMPLE = {
    "name": "candidate-canary",
    "challengers": ["candidate"],
    "mode": "canary",
    "metrics": [
        {"metric": "error_rate", "margin": "1 pp"},
        {"metric": "latency_p99", "margin": "20 %"},
    ],
}


class Order(BaseModel):
    """Who gives the order, and why; recorded in the audit log."""

    model_config = ConfigDict(extra="forbid")

    who: str = Field(min_length=1, max_length=256, examples=["ada@example.org"])
    why: str = Field(default="", max_length=2000, examples=["the release notes were approved"])
    challenger: str | None = Field(default=None, description="Required if there are several.")
    force: bool = Field(default=False, description="promote: without evidence, to all traffic.")
    gradual: bool = Field(default=False, description="abort: stage by stage.")


_Ended = Annotated[
    bool, Query(alias="ended", description="Experiments that were removed, not those that run.")
]


def add_experiments(app: FastAPI, plane: EvaluationPlane, line: ControlLine) -> None:
    """Add the routes below /v1/experiments, and those for other controllers."""
    router = APIRouter(prefix="/v1/experiments", tags=["experiments"])
    _show(router, plane)
    _change(router, plane, line)
    app.include_router(router)
    add_controllers(app, plane)

    @app.exception_handler(UnknownExperimentError)
    async def unknown(_: Request, error: UnknownExperimentError) -> Response:
        return refusal(404, str(error))

    @app.exception_handler(ExperimentStateError)
    async def impossible(_: Request, error: ExperimentStateError) -> Response:
        return refusal(409, str(error))


def experiments_of(plane: EvaluationPlane) -> ExperimentRunner:
    """The experiments of the service. Raises UnknownExperimentError if it runs none."""
    experiments = plane.experiments
    if experiments is None:
        raise UnknownExperimentError(
            plane.mode.evaluator_hint() or "this service runs no experiments"
        )
    return experiments


def _show(router: APIRouter, plane: EvaluationPlane) -> None:
    def find(name: str) -> LiveExperiment:
        return experiments_of(plane).find(name)

    def ended(name: str, wanted: bool) -> dict[str, Any] | None:
        """The last report of an experiment that was removed, if none of the name runs or it is
        ``wanted``. Raises UnknownExperimentError."""
        experiments = experiments_of(plane)
        report = experiments.ended.find(name) if wanted or name not in experiments.live else None
        if wanted and report is None:
            raise UnknownExperimentError(f"no report is kept of a removed experiment {name!r}")
        return report

    @router.get("")
    async def list_(removed: _Ended = False) -> Response:
        """Summaries of all experiments; or of those that were removed, the latest first."""
        if removed:
            return answer({"experiments": experiments_of(plane).ended.summaries()})
        now = time.time()
        live = experiments_of(plane).live.values()
        return answer({"experiments": [summary(one, now) for one in live]})

    @router.get("/{name}")
    async def show(name: str, removed: _Ended = False) -> Response:
        """Evidence per metric, the decision with its reasons, and the state of the rollout. Of an
        experiment that was removed: its last report, and who removed it, when and why."""
        report = ended(name, removed)
        if report is not None:
            return answer({**report["document"], "ended": report["ended"]})
        return answer(document(find(name), time.time()))

    @router.get("/{name}/timeline")
    async def timeline(name: str, removed: _Ended = False) -> Response:
        """The evidence over time: at most a few hundred points per challenger."""
        report = ended(name, removed)
        if report is not None:
            return answer(report["timelines"])
        live = find(name)
        return answer({n: c.timeline.points for n, c in live.contestants.items()})

    @router.get("/{name}/disagreements")
    async def disagreements(name: str) -> Response:
        """The worst disagreements of each challenger with their inputs, redacted."""
        live = find(name)
        return answer(_worst(live, plane.redaction))

    @router.get("/{name}/audit")
    async def audit(
        name: str, limit: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100
    ) -> Response:
        """Who changed the rollout, when and why; and whether the audit log is intact."""
        log = experiments_of(plane).audit
        return answer({"entries": log.read(name, limit), "first_damaged_line": log.verify()})

    @router.get("/{name}/report")
    async def report(name: str, removed: _Ended = False) -> Response:
        """A self-contained page with the confidence sequences over time, and with the worst
        disagreements."""
        now = time.time()
        log = experiments_of(plane).audit.read(name)
        last = ended(name, removed)
        if last is not None:
            parts = last["document"], last["timelines"], last["plots"]
            log = [e for e in log if last["document"]["started"] <= e["at"] <= last["ended"]["at"]]
            page = html(parts, log, now, {}, last["ended"])
        else:
            live = find(name)
            page = html(parts_of(live, now), log, now, _worst(live, plane.redaction))
        return Response(page, media_type="text/html")


def _worst(live: LiveExperiment, redaction: Redaction) -> dict[str, list[dict[str, Any]]]:
    """The worst disagreements by challenger, without those stored under earlier rules that the
    current rules would redact further."""
    parts = ("inputs", "champion", "challenger")
    return {
        name: [
            entry
            for entry in contestant.worst.entries
            if not any(redaction.touches(entry[part]) for part in parts)
        ]
        for name, contestant in live.contestants.items()
    }


def _change(router: APIRouter, plane: EvaluationPlane, line: ControlLine) -> None:
    async def settle(experiments: ExperimentRunner) -> None:
        """Save the change and activate it at the workers before the response."""
        if experiments.save_changes():
            reloaded = await line.routes()
            if not reloaded.ok:
                raise ExperimentStateError(
                    f"the workers did not apply the change: {reloaded.error}"
                )
        if experiments.error is not None:
            raise ExperimentStateError(f"the change could not be saved: {experiments.error}")

    @router.post("", status_code=201)
    async def declare(
        data: Annotated[dict[str, Any], Body(examples=[_EXAMPLE])],
        who: Annotated[str, Query(max_length=256, description="For the audit log.")] = "api",
    ) -> Response:
        """Start an experiment. It is declared as in the configuration file; an error is rejected
        with 422, naming the key."""
        experiments = experiments_of(plane)
        try:
            live = experiments.declare(data, who)
        except ConfigError as error:
            faults = [f"{path}: {text}" if path else text for path, text in error.problems]
            return refusal(422, "; ".join(faults))
        await settle(experiments)
        return answer(document(live, time.time()), 201)

    @router.delete("/{name}")
    async def remove(
        name: str,
        who: Annotated[str, Query(max_length=256, description="For the audit log.")] = "api",
        why: Annotated[str, Query(max_length=2000, description="For the audit log.")] = "",
    ) -> Response:
        """Remove an experiment that was started over the API; its requests go to the champion, and
        its last report is kept."""
        experiments = experiments_of(plane)
        experiments.remove(name, who, why)
        await settle(experiments)
        return answer({"removed": name})

    @router.post("/{name}/{command}")
    async def command(
        name: str, command: Literal["promote", "pause", "resume", "abort"], order: Order
    ) -> Response:
        """Change a rollout. A command that is not possible now is rejected with 409, naming those
        that are."""
        experiments = experiments_of(plane)
        wanted = Command(command, order.who, order.why, order.force, order.gradual)
        experiments.command(name, order.challenger, wanted)
        await settle(experiments)
        return answer(document(experiments.find(name), time.time()))

"""The control API of an evaluator: itself, and what it judges at present.

Findings and drift are with one judge, experiments with another; who does not own that judge asks
who does. What a person changes is answered when it is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client.core import Metric
from starlette.types import Message, Receive, Scope, Send

from understudy import __version__
from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.api.app import handle_errors
from understudy.monitor.api.baseline import add_baseline
from understudy.monitor.api.experiments import add_experiments
from understudy.monitor.api.findings import add_findings
from understudy.monitor.api.pages import add_pages
from understudy.monitor.errors import BlockError, LostError
from understudy.monitor.evidence.redaction import redaction_of_settings
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.evaluator import Evaluator, status
from understudy.monitor.kafka.member import Member
from understudy.monitor.kafka.partitions import place_of
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.service.forwarding import forward, was_forwarded
from understudy.monitor.stats.reader import Snapshot
from understudy.monitor.supervisor.control_line import Reloaded
from understudy.monitor.telemetry.drift import drift_families
from understudy.monitor.telemetry.experiments import experiment_families
from understudy.monitor.telemetry.exposition import encode
from understudy.monitor.telemetry.families import counter, gauge
from understudy.monitor.telemetry.findings import finding_families
from understudy.monitor.telemetry.labels import feedback_families
from understudy.monitor.telemetry.predictions import decoded_families
from understudy.monitor.telemetry.processes import process_families, use_of

_OF_EXPERIMENTS = ("/v1/experiments", "/v1/argo", "/v1/flagger")
_OF_WATCHES = ("/v1/findings", "/v1/silences", "/v1/drift", "/v1/baseline", "/v1/validation")


@dataclass(frozen=True, slots=True)
class EvaluatorView:
    """What the parts of the API need of a plane, of one judge."""

    judge: EvidenceConsumer
    settings: Settings
    redaction: Redaction

    @property
    def pipeline(self) -> Pipeline:
        """Everything that is judged."""
        return self.judge.pipeline

    @property
    def experiments(self) -> ExperimentRunner:
        """Those that are judged here."""
        return self.judge.experiments


class CommitLine:
    """Takes the place of the line to a supervisor: what has changed is in force when committed."""

    def __init__(self, member: Member, place: int) -> None:
        self._member = member
        self._place = place

    async def routes(self) -> Reloaded:
        """Commit, in the consumer's thread, in which a command runs."""
        member = self._member
        member.judges[self._place].moved = True
        member.touch(self._place)
        if member.commit_now():
            return Reloaded(True, None, None)
        text = "it could not be committed; look again whether it is in force"
        return Reloaded(False, None, text)


class Api:
    """The application, as ASGI. ``settings`` are those of the configuration file."""

    def __init__(self, evaluator: Evaluator, settings: Settings) -> None:
        self._evaluator = evaluator
        self._settings = settings
        self._redaction = redaction_of_settings(settings)
        self._own = self._build()
        self._judged: dict[int, tuple[EvidenceConsumer, FastAPI]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith((*_OF_EXPERIMENTS, *_OF_WATCHES)):
            await self._own(scope, receive, send)
            return
        member = self._evaluator.member
        if member is None:
            await _elsewhere()(scope, receive, send)
            return
        if scope["method"] == "POST" and path.rstrip("/") == "/v1/experiments":
            text = (
                "with Kafka, experiments are declared in the configuration file of all evaluators"
            )
            await refusal(409, text)(scope, receive, send)
            return
        body = await _body(receive)
        place = place_of(path.startswith(_OF_EXPERIMENTS), member.evidence)
        if place not in member.judges:
            url = member.owner(place)
            if url is None or was_forwarded(scope):
                await _elsewhere()(scope, receive, send)
            else:
                await (await forward(url, scope, body))(scope, receive, send)
            return
        command = member.commands.submit(
            lambda: self._answered(member, place, scope, body), reads=scope["method"] == "GET"
        )
        try:
            answered = await asyncio.wrap_future(command)
        except LostError:
            await _elsewhere()(scope, receive, send)
            return
        for message in answered:
            await send(message)

    def _answered(self, member: Member, place: int, scope: Scope, body: bytes) -> list[Message]:
        """What the API of a judge answers; in the consumer's thread. What a client sends slowly is
        here before that, and what it gets slowly is sent after."""
        judge = member.judges.get(place)
        app = _elsewhere() if judge is None else self._of(member, place, judge)
        received: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        answered: list[Message] = []

        async def receive() -> Message:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            answered.append(message)

        asyncio.run(app(scope, receive, send))
        if scope["method"] != "GET" and judge is not None:
            member.touch(place)
        return answered

    def _of(self, member: Member, place: int, judge: EvidenceConsumer) -> FastAPI:
        known = self._judged.get(place)
        if known is not None and known[0] is judge:
            return known[1]
        view: Any = EvaluatorView(judge, self._settings, self._redaction)
        app = FastAPI(title="Understudy evaluator", docs_url=None, redoc_url=None)
        handle_errors(app)
        line: Any = CommitLine(member, place)
        add_experiments(app, view, line)
        add_baseline(app, view)
        add_findings(app, view, judge.watcher.service)
        self._judged[place] = judge, app
        return app

    def _build(self) -> FastAPI:
        app = FastAPI(
            title="Understudy evaluator", version=__version__, docs_url=None, redoc_url=None
        )
        handle_errors(app)
        evaluator = self._evaluator

        add_pages(app, "evaluator")

        @app.get("/healthz")
        async def healthz() -> Response:
            """Is the process alive?"""
            return answer({"status": "ok"})

        @app.get("/readyz")
        async def readyz() -> Response:
            """Is it a member of the group, without trouble?"""
            keepers = (evaluator, evaluator.importing)
            problems = [keeper.error for keeper in keepers if keeper and keeper.error]
            if evaluator.member is None:
                problems.append("not a member of the group yet")
            return answer({"ready": not problems, "problems": problems}, 503 if problems else 200)

        @app.get("/v1/evaluator")
        async def show() -> Response:
            """What this evaluator owns, how far it is, and its lag in messages by partition."""
            return answer(await asyncio.to_thread(status, evaluator))

        @app.get("/metrics")
        async def metrics(request: Request) -> Response:
            """All metrics, for a Prometheus scrape."""
            families = await asyncio.to_thread(lambda: list(self._families()))
            kind, body = encode(families, ",".join(request.headers.getlist("accept")))
            return Response(body, headers={"content-type": kind})

        return app

    def _families(self) -> Iterator[Metric]:
        now = status(self._evaluator)
        imported = now["imported"] or {"failures": 0, "lag": {}}
        yield counter(
            "evaluator_records", "Records and labels taken in.", (), [((), now["records"])]
        )
        yield counter(
            "evaluator_imported",
            "What was brought in from the topics of others.",
            ("what",),
            [((what,), imported[what]) for what in ("records", "labels") if what in imported],
        )
        yield counter(
            "evaluator_failures",
            "Times that it began anew from what is committed.",
            (),
            [((), now["failures"] + imported["failures"])],
        )
        yield counter(
            "evaluator_commits", "Transactions committed.", (), [((), now.get("commits", 0))]
        )
        yield gauge(
            "evaluator_lag",
            "Messages that wait, by topic and partition.",
            ("partition",),
            [((name,), lag) for name, lag in {**now.get("lag", {}), **imported["lag"]}.items()],
        )
        yield counter(
            "evaluator_dead",
            "Messages that could not be read, by reason.",
            ("reason",),
            # All of them: an alert sees a count grow only if it was there before.
            [
                ((reason,), count)
                for reason, count in {
                    **dict.fromkeys((*BlockError.REASONS, "evidence"), 0),
                    **now.get("dead", {}),
                    "source": imported.get("dead", 0),
                }.items()
            ],
        )
        yield counter(
            "evaluator_snapshots_set_aside",
            "Snapshots that were damaged or of another version; their partitions started without.",
            (),
            [((), now.get("snapshots_set_aside", 0) + imported.get("snapshots_set_aside", 0))],
        )
        for name, text in (("duplicates", "Blocks that came again."), ("missing", "Blocks lost.")):
            of_partitions = [((str(p["partition"]),), p[name]) for p in now["partitions"]]
            yield counter(f"evaluator_blocks_{name}", text, ("partition",), of_partitions)
        for name, key, text in (
            ("judged", "rows", "Rows of evidence judged, by what they are about."),
            ("late", "late", "Of these, rows that came after their slot had been judged."),
        ):
            of_judges = [((j["of"],), j[key]) for j in now["judges"]]
            yield counter(f"evaluator_{name}_rows", text, ("of",), of_judges)
        use = use_of(os.getpid())
        yield from process_families([("evaluator", os.getpid(), use)] if use is not None else [])
        member = self._evaluator.member
        if member is None:
            return
        with contextlib.suppress(LostError):
            yield from member.commands.submit(lambda: self._of_member(member), reads=True).result()

    def _of_member(self, member: Member) -> list[Metric]:
        """In the consumer's thread."""
        stores = {
            (str(number),): figures
            for number, partition in member.inputs.items()
            if (figures := partition.feedback()) is not None
        }
        found = list(feedback_families(stores, ("partition",)))
        steering = member.judges.get(place_of(True, member.evidence))
        if steering is not None:
            view: Any = EvaluatorView(steering, self._settings, self._redaction)
            found += experiment_families(view, Snapshot(0.0))
        watching = member.judges.get(place_of(False, member.evidence))
        if watching is not None:
            found += decoded_families(watching.pipeline, self._redaction)
            found += drift_families(watching.watcher)
            found += finding_families(watching.watcher.service)
        return found


async def _body(receive: Receive) -> bytes:
    """All that a client sends."""
    found: bytes = b""
    while True:
        message = await receive()
        found += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return found


def _elsewhere() -> Any:
    return refusal(503, "the group is being divided anew: nobody is known who judges; try again")

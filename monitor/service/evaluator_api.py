"""The control API of an evaluator: its own status, and what its group evaluates.

One partition of the evidence carries findings and drift, another carries experiments. An evaluator
that does not own the partition forwards the request to the owner. A change is answered once it is
committed.
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
from understudy.monitor.api.app import prepare
from understudy.monitor.api.baseline import add_baseline
from understudy.monitor.api.experiments import add_experiments
from understudy.monitor.api.findings import add_findings
from understudy.monitor.api.guard import Guard
from understudy.monitor.api.pages import add_pages
from understudy.monitor.errors import BlockError, LostError
from understudy.monitor.evidence.redaction import redaction_of_settings
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.evaluator import Evaluator, status
from understudy.monitor.kafka.member import Member
from understudy.monitor.kafka.partitions import evidence_partition
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.service.forwarding import forward, was_forwarded
from understudy.monitor.supervisor.control_line import Reloaded
from understudy.monitor.supervisor.process_use import use_of
from understudy.monitor.telemetry.drift import drift_families
from understudy.monitor.telemetry.experiments import experiment_families
from understudy.monitor.telemetry.exposition import encode
from understudy.monitor.telemetry.families import counter, gauge
from understudy.monitor.telemetry.findings import finding_families
from understudy.monitor.telemetry.labels import feedback_families
from understudy.monitor.telemetry.llm import llm_families
from understudy.monitor.telemetry.predictions import prediction_families
from understudy.monitor.telemetry.processes import process_families

_EXPERIMENT_PATHS = ("/v1/experiments", "/v1/argo", "/v1/flagger")
_HEALTH_PATHS = (
    *("/v1/findings", "/v1/incidents", "/v1/silences"),
    *("/v1/drift", "/v1/baseline", "/v1/validation"),
)


@dataclass(frozen=True, slots=True)
class EvaluatorView:
    """One partition of the evidence, with those attributes of an EvaluationPlane that the routes of
    the API use."""

    consumer: EvidenceConsumer
    settings: Settings
    redaction: Redaction

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of this partition."""
        return self.consumer.pipeline

    @property
    def experiments(self) -> ExperimentRunner:
        """The experiments of this partition."""
        return self.consumer.experiments


class CommitLine:
    """Takes the place of the control line to a supervisor: a change is active once committed."""

    def __init__(self, member: Member, partition: int) -> None:
        self._member = member
        self._partition = partition

    async def routes(self) -> Reloaded:
        """Commit; runs as part of a command, on the consumer's thread."""
        member = self._member
        member.consumers[self._partition].routes_changed = True
        member.mark_changed(self._partition)
        if member.commit_now():
            return Reloaded(True, None, None)
        text = "the change could not be committed; check whether it is active, then repeat it"
        return Reloaded(False, None, text)


class Api:
    """The ASGI application, to be served behind a Guard, which limits the body that it reads.
    ``settings`` are those of the configuration file."""

    def __init__(self, evaluator: Evaluator, settings: Settings) -> None:
        self._evaluator = evaluator
        self._settings = settings
        self._redaction = redaction_of_settings(settings)
        self._own_app = self._build()
        self._apps: dict[int, tuple[EvidenceConsumer, FastAPI]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith((*_EXPERIMENT_PATHS, *_HEALTH_PATHS)):
            # The console reads of this application, which forwards to the others.
            await self._own_app({**scope, "understudy.api": self}, receive, send)
            return
        member = self._evaluator.member
        if member is None:
            await _unavailable()(scope, receive, send)
            return
        if scope["method"] == "POST" and path.rstrip("/") == "/v1/experiments":
            text = (
                "with Kafka, experiments are declared in the configuration file of all evaluators"
            )
            await refusal(409, text)(scope, receive, send)
            return
        body = await _body(receive)
        is_experiment = path.startswith(_EXPERIMENT_PATHS)
        partition = evidence_partition(is_experiment, member.evidence_partitions)
        if partition not in member.consumers:
            url = member.owner(partition)
            if url is None or was_forwarded(scope):
                await _unavailable()(scope, receive, send)
            else:
                await (await forward(url, scope, body))(scope, receive, send)
            return
        command = member.commands.submit(
            lambda: self._run_app(member, partition, scope, body), reads=scope["method"] == "GET"
        )
        try:
            messages = await asyncio.wrap_future(command)
        except LostError:
            await _unavailable()(scope, receive, send)
            return
        for message in messages:
            await send(message)

    def _run_app(self, member: Member, partition: int, scope: Scope, body: bytes) -> list[Message]:
        """The response of a partition's routes; runs on the consumer's thread. The body was read
        before and the response is sent after, so a slow client does not hold the thread."""
        consumer = member.consumers.get(partition)
        app = _unavailable() if consumer is None else self._app_of(member, partition, consumer)
        received: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        messages: list[Message] = []

        async def receive() -> Message:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.append(message)

        asyncio.run(app(scope, receive, send))
        if scope["method"] != "GET" and consumer is not None:
            member.mark_changed(partition)
        return messages

    def _app_of(self, member: Member, partition: int, consumer: EvidenceConsumer) -> FastAPI:
        known = self._apps.get(partition)
        if known is not None and known[0] is consumer:
            return known[1]
        view: Any = EvaluatorView(consumer, self._settings, self._redaction)
        app = FastAPI(title="Understudy evaluator", docs_url=None, redoc_url=None)
        prepare(app)
        line: Any = CommitLine(member, partition)
        add_experiments(app, view, line)
        add_baseline(app, view)
        add_findings(app, view, consumer.findings_loop.service)
        self._apps[partition] = consumer, app
        return app

    def _build(self) -> FastAPI:
        app = FastAPI(
            title="Understudy evaluator", version=__version__, docs_url=None, redoc_url=None
        )
        prepare(app)
        evaluator = self._evaluator

        add_pages(app, "evaluator", self._settings)

        @app.get("/healthz")
        async def healthz() -> Response:
            """Liveness: the process responds."""
            return answer({"status": "ok"})

        @app.get("/readyz")
        async def readyz() -> Response:
            """Readiness: it is a member of its group, without errors."""
            consumers = (evaluator, evaluator.importing)
            problems = [consumer.error for consumer in consumers if consumer and consumer.error]
            if evaluator.member is None:
                problems.append("not a member of the group yet")
            return answer({"ready": not problems, "problems": problems}, 503 if problems else 200)

        @app.get("/v1/evaluator")
        async def show() -> Response:
            """What this evaluator owns, its progress, and its lag in messages by partition."""
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
            "Records and labels imported from the configured sources.",
            ("what",),
            [((what,), imported[what]) for what in ("records", "labels") if what in imported],
        )
        yield counter(
            "evaluator_failures",
            "Restarts from the last commit after an error.",
            (),
            [((), now["failures"] + imported["failures"])],
        )
        yield counter(
            "evaluator_commits", "Transactions committed.", (), [((), now.get("commits", 0))]
        )
        yield gauge(
            "evaluator_lag",
            "Unread messages, by topic and partition.",
            ("partition",),
            [((name,), lag) for name, lag in {**now.get("lag", {}), **imported["lag"]}.items()],
        )
        yield counter(
            "evaluator_dead",
            "Messages that could not be read, by reason.",
            ("reason",),
            # Every reason, also at 0: an alert sees a count grow only if the series existed before.
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
        for name, text in (("duplicates", "Duplicate blocks."), ("missing", "Blocks lost.")):
            by_partition = [((str(p["partition"]),), p[name]) for p in now["partitions"]]
            yield counter(f"evaluator_blocks_{name}", text, ("partition",), by_partition)
        for name, key, text in (
            ("judged", "rows", "Rows of evidence evaluated, by scope."),
            ("late", "late", "Of these, rows that arrived after their slot had been evaluated."),
        ):
            by_scope = [((j["of"],), j[key]) for j in now["judges"]]
            yield counter(f"evaluator_{name}_rows", text, ("of",), by_scope)
        yield gauge(
            "config_last_reload_successful",
            "1 unless the last configuration was refused.",
            (),
            [((), 0.0 if now["config_error"] else 1.0)],
        )
        use = use_of(os.getpid())
        yield from process_families([("evaluator", use)] if use is not None else [])
        for families in self._evaluator.families:
            yield from families()
        member = self._evaluator.member
        if member is None:
            return
        with contextlib.suppress(LostError):
            yield from member.commands.submit(
                lambda: self._member_families(member), reads=True
            ).result()

    def _member_families(self, member: Member) -> list[Metric]:
        """Runs on the consumer's thread."""
        stores = {
            (str(number),): figures
            for number, partition in member.inputs.items()
            if (figures := partition.feedback()) is not None
        }
        result = list(feedback_families(stores, ("partition",)))
        experiments = member.consumers.get(evidence_partition(True, member.evidence_partitions))
        if experiments is not None:
            result += experiment_families(experiments.experiments)
        health = member.consumers.get(evidence_partition(False, member.evidence_partitions))
        if health is not None:
            result += prediction_families(health.pipeline, self._redaction)
            result += llm_families(health.pipeline)
            result += drift_families(health.findings_loop)
            result += finding_families(
                health.findings_loop.service,
                dict.fromkeys(m.name for m in health.experiments.config.models),
            )
        return result


def guarded_api(evaluator: Evaluator, settings: Settings) -> Guard:
    """The application that an evaluator serves."""
    return Guard(Api(evaluator, settings), settings)


async def _body(receive: Receive) -> bytes:
    """The whole body of a request."""
    result: bytes = b""
    while True:
        message = await receive()
        result += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return result


def _unavailable() -> Any:
    return refusal(
        503, "the group is rebalancing: the evaluator that owns this is not known yet; try again"
    )

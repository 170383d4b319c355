"""Sends what OpenTelemetry is to get from this sidecar; owned by the evaluation plane."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from understudy.common.durable import replace_file
from understudy.monitor.config.model import Config
from understudy.monitor.config.otel import (
    SIGNALS,
    Export,
    OpenTelemetry,
    Signal,
    open_telemetry,
)
from understudy.monitor.errors import RecordError
from understudy.monitor.evidence.mirrored import Compared
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.findings.changes import Change
from understudy.monitor.labels.store import Joined
from understudy.monitor.pipeline.served import VersionChange
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record
from understudy.monitor.stats.totals import FILE_NAME
from understudy.monitor.telemetry.families import counter, gauge
from understudy.monitor.telemetry.otlp.counts import OFFERED, OUTCOMES, counts_in
from understudy.monitor.telemetry.otlp.events import (
    BreakerWatch,
    Event,
    LabelScores,
    comparison_event,
    experiment_events,
    finding_events,
    version_event,
)
from understudy.monitor.telemetry.otlp.queue import ExportQueue
from understudy.monitor.telemetry.otlp.spans import Finished, Span, SpanMaker, SpanSource

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long sending what waits may take when the service stops, or is configured differently."""
_MOST_POINTS = 10_000_000
_WAITING_EXPORTS = 2
"""Exports of metrics that may wait: a later one has what an earlier one had."""


class Emitter:
    """The queues of ``signals``, as they result from the configuration and the environment.

    ``counts`` is a file for the counts, which the next process goes on with if this is killed."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str] | None = None,
        signals: Collection[Signal] = SIGNALS,
        counts: Path | None = None,
    ) -> None:
        self._signals = frozenset(signals)
        self._environment = os.environ if environment is None else environment
        self.queues: dict[Signal, ExportQueue[Any]] = {}
        self._stopped: list[ExportQueue[Any]] = []
        """Those of earlier configurations that may still be sending."""
        self._counts = counts_in(counts)
        self._source: SpanSource | None = None
        self._breakers = BreakerWatch()
        self._scores = LabelScores(config)
        self._evaluations: frozenset[str] = frozenset()
        self.settings: OpenTelemetry = OpenTelemetry("")
        self._key: tuple[object, ...] | None = None
        """What the queues depend on."""
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use another configuration; the queues of the one before end in the background."""
        settings = open_telemetry(config, self._environment)
        servers = (config.listen.tls is None, config.champion, config.challengers)
        evaluations = config.telemetry.events.evaluations
        about_labels = [(one.model, one.label) for one in config.experiments]
        key = (
            *(settings, servers, config.models, config.credentials, config.state_dir),
            *(evaluations, about_labels),
        )
        if key == self._key:
            return
        self._key = key
        self._stop()
        self.settings = settings
        if settings.exports:
            for line in settings.lines().items():
                log.info("%s: %s", *line)
        traces = settings.traces
        maker = SpanMaker.of(config, settings.attribute_length, traces.gen_ai)
        about = settings.resource, config.state_dir
        self._scores = LabelScores(config)
        self._evaluations = frozenset(evaluations)
        for signal, export in settings.exports.items():
            if signal not in self._signals:
                continue
            if signal == "traces":
                self.queues[signal] = ExportQueue(
                    signal,
                    self._counts[signal],
                    partial(_span_export, maker, export, *about),
                    traces.queue,
                    traces.queue_bytes,
                    traces.batch,
                    traces.interval,
                )
                self._source = SpanSource(traces.keep, traces.slow, traces.gen_ai)
            elif signal == "metrics":
                self.queues[signal] = ExportQueue(
                    signal,
                    self._counts[signal],
                    partial(_metric_export, maker, settings, *about, began(Path(config.state_dir))),
                    _MOST_POINTS,
                    _WAITING_EXPORTS,
                    1,
                    0.0,
                )
            else:
                self.queues[signal] = ExportQueue(
                    signal,
                    self._counts[signal],
                    partial(_event_export, export, *about),
                    *(2048, 4 * 1024 * 1024, 512, 1.0),
                )

    @property
    def metric_interval(self) -> float | None:
        """Seconds between two exports of metrics; None if there are none."""
        return self.settings.metric_interval if "metrics" in self.queues else None

    def metrics(self, families: Sequence[Metric]) -> None:
        """Take what a scraper would get now. Never waits."""
        queue = self.queues.get("metrics")
        if queue is not None:
            points = sum(len(family.samples) for family in families)
            queue.offer((families, time.time_ns()), points, 1)

    def findings(self, changes: Sequence[Change]) -> None:
        """Take changes of findings. Never waits."""
        self._events(finding_events(changes))

    def experiments(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Take what experiments did, as the audit log has it. Never waits."""
        self._events(experiment_events(events))

    def version_changed(self, change: VersionChange) -> None:
        """Take a change of a model's version. Never waits."""
        self._events((version_event(change),))

    def breakers(self, gauges: Callable[[str], Any]) -> None:
        """Take the states of circuit breakers: see :class:`BreakerWatch`. Never waits."""
        if "logs" in self.queues:
            self._events(self._breakers.events(gauges))

    def listen(self, stage_one: StageOne) -> None:
        """Take what is compared, and the labels, of which something is sent."""
        wanted = self._source is not None and self._source.keep_disagreeing
        events = self._evaluations if "logs" in self.queues else frozenset()
        stage_one.pass_equal = "comparisons" in events
        stage_one.compared = self._compared if wanted or stage_one.pass_equal else None
        stage_one.labelled = self._labelled if "labels" in events else None

    def _compared(self, compared: Compared) -> None:
        try:
            self._take_compared(compared)
        except RecordError as error:
            log.error("%s", error)

    def _take_compared(self, compared: Compared) -> None:
        source = self._source
        if source is not None and source.keep_disagreeing and not compared.agree:
            self._spans(source.disagreeing((compared.champion, compared.challenger)))
        if "comparisons" in self._evaluations:
            self._events((comparison_event(compared),))

    def _labelled(self, joined: Sequence[Joined]) -> None:
        for one in joined:
            self._events(self._scores.events(one))

    def _events(self, events: Iterable[Event]) -> None:
        queue = self.queues.get("logs")
        for event in events if queue is not None else ():
            assert queue is not None
            queue.offer(event, 1, event.size)

    def records(self, names: Names, records: Sequence[Record]) -> None:
        """Take the records of a batch. Never waits, never raises."""
        if self._source is None:
            return
        self._spans(self._source.choose(names, records))

    def _spans(self, found: Iterable[Finished]) -> None:
        queue = self.queues["traces"]
        for one in found:
            queue.offer(one, one.spans, one.size)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits for up to ``seconds``; the rest is dropped and counted."""
        self._stop(seconds)
        until = time.monotonic() + seconds
        for queue in self._stopped:
            queue.join(max(0.0, until - time.monotonic()))

    def _stop(self, seconds: float = CLOSE_SECONDS) -> None:
        self._source = None
        for queue in self.queues.values():
            queue.stop(seconds)
            self._stopped.append(queue)
        self.queues = {}
        self._stopped = [queue for queue in self._stopped if not queue.ended]

    def count(self, signal: Signal, which: int) -> int:
        """OFFERED, SENT, FAILED, DROPPED or LOST, since the service started."""
        return self._counts[signal][which]

    def waiting(self, signal: Signal) -> int:
        """Those that wait, or are being sent."""
        # Below zero if a process that was taken for dead goes on sending.
        return max(0, self._counts[signal].open)

    def families(self) -> Iterator[Metric]:
        """Names begin with ``understudy_otlp_``; none if nothing is sent by OTLP."""
        signals: list[Signal] = [
            signal for signal in SIGNALS if signal in self.queues or self.count(signal, OFFERED)
        ]
        if not signals:
            return
        yield counter(
            "otlp_offered",
            "Spans, metrics and log records that should be sent by OTLP.",
            ("signal",),
            [([signal], self.count(signal, OFFERED)) for signal in signals],
        )
        yield counter(
            "otlp_exported",
            "Spans, metrics and log records by outcome: sent, failed (the collector was away or "
            "refused them), dropped (the queue was full), lost (they waited in a process that was "
            "killed; those of records that are sent again are sent all the same).",
            ("signal", "outcome"),
            [
                ([signal, outcome], self.count(signal, which))
                for signal in signals
                for outcome, which in OUTCOMES.items()
            ],
        )
        yield gauge(
            "otlp_waiting",
            "Spans, metrics and log records that wait, or are being sent.",
            ("signal",),
            [([signal], self.waiting(signal)) for signal in signals],
        )

    @property
    def error(self) -> str | None:
        """Why something cannot be sent; None if everything can."""
        for signal, queue in self.queues.items():
            if queue.error is not None:
                return f"OpenTelemetry: {signal} cannot be sent: {queue.error}"
        return None


def _span_export(
    maker: SpanMaker, export: Export, resource: dict[str, str], place: str
) -> Callable[[Sequence[Finished]], str | None]:
    from understudy.monitor.telemetry.otlp.sdk import span_export

    send = span_export(export, resource, place)

    def export_all(items: Sequence[Finished]) -> str | None:
        spans: list[Span] = []
        for item in items:
            try:
                spans += maker.spans(item)
            except RecordError as error:
                log.error("%s", error)
        return send(spans)

    return export_all


def _event_export(
    export: Export, resource: dict[str, str], place: str
) -> Callable[[Sequence[Event]], str | None]:
    from understudy.monitor.telemetry.otlp.sdk import event_export

    return event_export(export, resource, place)


def _metric_export(
    maker: SpanMaker, settings: OpenTelemetry, resource: dict[str, str], place: str, start: int
) -> Callable[[Sequence[tuple[Sequence[Metric], int]]], str | None]:
    from understudy.monitor.telemetry.otlp.metrics import Converter
    from understudy.monitor.telemetry.otlp.sdk import exporter_of, failure, resource_of

    converter = Converter(
        resource_of(resource, place),
        maker.scheme,
        maker.places,
        start,
        settings.temporality != "cumulative",
        settings.exponential,
        settings.exemplars,
    )
    exporter = exporter_of("metrics", settings.exports["metrics"])

    def export_all(items: Sequence[tuple[Sequence[Metric], int]]) -> str | None:
        for families, now in items:
            error = failure(exporter.export(converter.convert(families, now)))
            if error is not None:
                return error
            converter.sent()
        return None

    return export_all


def began(state_dir: Path) -> int:
    """Unix nanoseconds since when the totals in that folder are counted; now if there are none."""
    path = state_dir / "otlp-start"
    now = time.time_ns()
    if (state_dir / FILE_NAME).exists():
        try:
            found = int(path.read_text())
            if 0 < found <= now:
                return found
        except (OSError, ValueError):
            pass
    try:
        replace_file(path, b"%d\n" % now)
    except OSError as error:
        log.warning("%s: cannot be written: %s", path, error.strerror)
    return now

"""All metric families of the service, built for each scrape.

Names and labels are a contract (``docs`` and dashboards rely on them); label values come from the
configuration or from closed lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from understudy.monitor.config.objective import latency_limits
from understudy.monitor.pipeline.exemplars import Exemplar, ExemplarKey
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.routing.serving import BREAKER_STATES, NOT_SENT
from understudy.monitor.stats.distribution import QUANTILES, Distribution
from understudy.monitor.stats.reader import Snapshot
from understudy.monitor.stats.windows import WINDOW_NAMES, WINDOWS, Windows, group, since_start
from understudy.monitor.telemetry.drift import drift_families
from understudy.monitor.telemetry.experiments import assignment_families, experiment_families
from understudy.monitor.telemetry.families import (
    SERIES_LABELS,
    QuantileFamily,
    counter,
    gauge,
    pick,
    sketches,
)
from understudy.monitor.telemetry.findings import finding_families
from understudy.monitor.telemetry.llm import llm_families
from understudy.monitor.telemetry.objectives import objective_families
from understudy.monitor.telemetry.predictions import prediction_families, undecoded_families
from understudy.monitor.telemetry.processes import process_families, uses
from understudy.monitor.telemetry.service import service_families
from understudy.monitor.telemetry.zeros import histograms_of, with_zeros

_QUANTILE_BY = ("model", "version", "arm", "role", "outcome")

_COUNTED = (
    ("request_bytes", "request_bytes", "Payload bytes of requests.", SERIES_LABELS),
    ("response_bytes", "response_bytes", "Payload bytes of responses.", SERIES_LABELS),
    ("mirror", "mirror", "Mirrored requests by outcome, also those not sent.", ("arm", "outcome")),
    (
        "grpc_calls",
        "grpc_calls",
        "Calls of gRPC that have ended, by the status that they ended with.",
        ("model", "version", "arm", "role", "protocol", "grpc_status"),
    ),
    ("rejected", "rejected_requests", "Requests refused before a model server.", ("reason",)),
    (
        "responses_refused",
        "refused_responses",
        "Responses of model servers that broke a rule of HTTP or a limit, by reason.",
        ("arm", "reason"),
    ),
    ("connections_accepted", "connections_accepted", "Client connections accepted.", ()),
    (
        "connections_reclaimed",
        "connections_reclaimed",
        "Idle client connections closed in favour of new ones.",
        (),
    ),
    (
        "descriptors_exhausted",
        "descriptors_exhausted",
        "Times that there was no file descriptor to accept a client or connect to a model server.",
        ("where",),
    ),
    ("records_eligible", "records_eligible", "Exchanges that should be evaluated.", ()),
    ("records_sent", "records_sent", "Records that the evaluation plane received.", ()),
    ("records_lost", "records_lost", "Records received, then lost in a crash.", ()),
    ("upstream_connects", "upstream_connects", "Connections made to model servers.", ("arm",)),
    (
        "upstream_connect_failures",
        "upstream_connect_failures",
        "Attempts to connect to model servers that failed, by reason.",
        ("arm", "reason"),
    ),
    (
        "upstream_lookups",
        "upstream_lookups",
        "Look-ups of model servers' names.",
        ("arm", "outcome"),
    ),
    (
        "certificate_changes",
        "certificate_changes",
        "TLS files that have changed, of a model server or (without arm) of the listener.",
        ("arm", "outcome"),
    ),
    (
        "retries",
        "retries",
        "Requests retried on another connection, by reason.",
        ("arm", "reason"),
    ),
    (
        "credentials_removed",
        "credentials_removed",
        "Requests to a model server from which credentials of the client were removed.",
        ("arm",),
    ),
    (
        "statistics_overflowed",
        "statistics_overflowed",
        "Times that a series found no room and was counted as other.",
        (),
    ),
    (
        "statistics_reclaimed",
        "statistics_reclaimed",
        "Series of removed arms and models whose counts were moved to other.",
        (),
    ),
    (
        "models_unlisted",
        "models_unlisted_requests",
        "Requests for models beyond `match.most`, which count under the name of that entry.",
        (),
    ),
    (
        "stream_events",
        "stream_events",
        "Events of streamed responses: server-sent events, or lines of JSON.",
        SERIES_LABELS,
    ),
    (
        "stream_stalls",
        "stream_stalls",
        "Gaps of more than a second between two events of a stream while the client read.",
        SERIES_LABELS,
    ),
    ("cold_starts", "cold_starts", "Starts and restarts of a model server.", ("arm",)),
)
"""(name in the shared statistics, name of the metric, help, labels)"""


class PlaneCollector(Collector):
    """Families of one :class:`EvaluationPlane`; to be collected in the event loop's thread."""

    def __init__(self, plane: EvaluationPlane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        """Every family, with its current values."""
        snapshot = self._plane.snapshot()
        exemplars = self._plane.pipeline.exemplars.by_series()
        yield from self._latencies(snapshot, self._plane.windows, exemplars)
        yield from self._others(snapshot)

    async def gather(self) -> list[Metric]:
        """The same without holding up the event loop: the histograms, which may be thousands, are
        built in another thread, and others get their turn between two families."""
        snapshot = await self._plane.fresh_snapshot()
        windows = self._plane.windows.copy()
        exemplars = self._plane.pipeline.exemplars.by_series()
        families: list[Metric] = await asyncio.to_thread(
            lambda: list(self._latencies(snapshot, windows, exemplars))
        )
        for family in self._others(snapshot):
            families.append(family)
            await asyncio.sleep(0)
        return families

    def _others(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield from self._workers(snapshot)
        yield from self._gauges(snapshot)
        yield from service_families(self._plane.service(snapshot))
        yield from prediction_families(self._plane.pipeline, self._plane.redaction)
        yield from llm_families(self._plane.pipeline)
        yield from undecoded_families(self._plane.pipeline, self._plane.plan())
        yield from self._service(snapshot)
        yield from experiment_families(self._plane.experiments)
        yield from assignment_families(self._plane.plan(), snapshot)
        if self._plane.pipeline.findings_loop is not None:
            yield from drift_families(self._plane.pipeline.findings_loop)
            models = dict.fromkeys(model.name for model in self._plane.plan().models)
            yield from finding_families(self._plane.pipeline.findings_loop.service, models)
        yield from objective_families(self._plane)
        halves = self._plane.ingest.pairs.outcomes
        outcomes = {
            **self._plane.ingest.outcomes,
            # Events whose other half never came, and those that made room for others.
            **{("cloudevents", name): halves[name] for name in ("expired", "overflow")},
        }
        yield counter(
            "ingested",
            "Posted records and events, by outcome.",
            ("source", "outcome"),
            [((source, outcome), count) for (source, outcome), count in outcomes.items()],
        )
        for of_mode in self._plane.families:
            yield from of_mode()

    def _workers(self, snapshot: Snapshot) -> Iterator[Metric]:
        plan = self._plane.plan()
        requests = {
            tuple(pick(have, SERIES_LABELS)): value
            for have, value in snapshot.counters_named("requests").items()
        }
        yield counter(
            "requests",
            "Exchanges with a model server, by outcome.",
            SERIES_LABELS,
            list(with_zeros(plan, requests).items()),
        )
        for source, name, text, labels in _COUNTED:
            values = [
                (pick(have, labels), value)
                for have, value in snapshot.counters_named(source).items()
            ]
            if not values and not labels:
                values = [([], 0)]
            yield counter(name, text, labels, values)
        dropped = [
            (["handoff", *pick(have, ("reason",))], value)
            for have, value in snapshot.counters_named("records_dropped").items()
        ]
        mirror = dict.fromkeys(sorted(NOT_SENT) if plan.challengers else (), 0)
        for have, value in snapshot.counters_named("mirror").items():
            outcome = dict(have).get("outcome", "")
            if outcome in NOT_SENT:
                mirror[outcome] = mirror.get(outcome, 0) + value
        dropped += [
            (["payload", "memory"], value)
            for value in snapshot.counters_named("payloads_dropped").values()
        ]
        dropped += [(["mirror", reason], value) for reason, value in mirror.items()]
        yield counter(
            "dropped",
            "Records, payloads of records and mirrored requests dropped, by reason.",
            ("stage", "reason"),
            dropped,
        )

    def _latencies(
        self,
        snapshot: Snapshot,
        windows: Windows,
        exemplars: Mapping[ExemplarKey, Mapping[int, Exemplar]],
    ) -> Iterator[Metric]:
        yield sketches(
            "request_duration_seconds",
            "Time from the request's arrival to the end of its response.",
            snapshot.total_sketches("duration"),
            exemplars,
            latency_limits(self._plane.settings.document.get("objectives") or {}),
            histograms_of(self._plane.plan()),
        )
        yield sketches(
            "time_to_first_byte_seconds",
            "Time from the request's arrival to the first byte of its response.",
            snapshot.total_sketches("first_byte"),
        )
        yield sketches(
            "queue_seconds",
            "Time spent waiting because all connections to the model server were in use.",
            snapshot.total_sketches("queue"),
        )
        yield sketches(
            "stream_first_event_seconds",
            "Time from the request's arrival to the first event of a streamed response.",
            snapshot.total_sketches("first_event"),
        )
        yield sketches(
            "stream_longest_gap_seconds",
            "Longest gap between two events of a stream while the client read.",
            snapshot.total_sketches("longest_gap"),
        )
        family = QuantileFamily(
            "request_duration_quantile_seconds",
            "Quantiles of the request duration over a window, within 1 %; 1 is the maximum.",
            (*_QUANTILE_BY, "window"),
        )
        for window, seconds in zip(WINDOW_NAMES, WINDOWS, strict=True):
            by_outcome = group(windows.sketches("duration", seconds), _QUANTILE_BY)
            _add_quantiles(family, by_outcome, window)
        _add_quantiles(family, group(since_start(snapshot, "duration"), _QUANTILE_BY), "start")
        yield family

    def _gauges(self, snapshot: Snapshot) -> Iterator[Metric]:
        def summed(name: str, labels: tuple[str, ...]) -> list[tuple[list[str], float]]:
            totals: dict[tuple[str, ...], int] = {}
            for have, by_slot in snapshot.gauges_named(name).items():
                key = tuple(pick(have, labels))
                totals[key] = totals.get(key, 0) + sum(by_slot.values())
            return [(list(key), value) for key, value in totals.items()]

        yield gauge(
            "in_flight_requests",
            "Requests in flight.",
            ("arm", "role"),
            summed("in_flight", ("arm", "role")),
        )
        yield gauge(
            "connections_open",
            "Client connections that are open, with those in a TLS handshake.",
            (),
            [([], snapshot.gauge("connections_open"))],
        )
        yield gauge(
            "connections_limit",
            "Most client connections: limits.connections, or what the descriptors leave room for.",
            (),
            [([], snapshot.gauge("connections_limit"))],
        )
        for name, text in (
            (
                "connection_memory",
                "Bodies, responses and copies kept for connections.",
            ),
            ("connection_memory_limit", "limits.memory of all workers."),
        ):
            yield gauge(f"{name}_bytes", text, (), [([], snapshot.gauge(name))])
        yield gauge(
            "mirror_queue_requests",
            "Mirrored requests for a challenger, waiting or in flight.",
            ("arm",),
            summed("mirror_queue", ("arm",)),
        )
        yield gauge(
            "pool_connections",
            "Connections to model servers, and requests waiting for one.",
            ("arm", "state"),
            [
                ([*labels, state], value)
                for state in ("idle", "busy", "waiting")
                for labels, value in summed(f"pool_{state}", ("arm",))
            ],
        )
        yield gauge(
            "upstream_addresses",
            "Addresses of model servers in use, or set aside after failed connections: the most of "
            "any worker.",
            ("arm", "state"),
            [
                ([arm, state], value)
                for state, name in (("ready", "addresses_ready"), ("aside", "addresses_aside"))
                for arm, value in _most(snapshot, name).items()
            ],
        )
        yield gauge(
            "breaker_workers",
            "Workers whose circuit breaker for a challenger is in a state.",
            ("arm", "state"),
            [
                ([*pick(have, ("arm",)), state], list(by_slot.values()).count(number))
                for have, by_slot in snapshot.gauges_named("breaker").items()
                for number, state in enumerate(BREAKER_STATES)
            ],
        )
        yield gauge(
            "serving_breaker_workers",
            "Workers whose circuit breaker for a challenger that serves clients is in a state.",
            ("arm", "state"),
            [
                ([*pick(have, ("arm",)), state], list(by_slot.values()).count(number))
                for have, by_slot in snapshot.gauges_named("serving_breaker").items()
                for number, state in enumerate(BREAKER_STATES)
            ],
        )
        yield gauge(
            "cold_start_seconds",
            "Length of the last cold start: from unreachable to the first successful inference.",
            ("arm",),
            [
                (pick(have, ("arm",)), max(by_slot.values()) / 1e6)
                for have, by_slot in snapshot.gauges_named("cold_start_us").items()
                if any(by_slot.values())
            ],
        )

    def _service(self, snapshot: Snapshot) -> Iterator[Metric]:
        plane = self._plane
        supervisor = plane.supervisor
        yield gauge("workers", "Worker processes.", (), [([], len(snapshot.slots))])
        yield counter(
            "worker_restarts",
            "Restarts of workers.",
            ("slot",),
            [
                ([str(worker["slot"])], float(worker.get("restarts", 0)))
                for worker in supervisor.workers
            ],
        )
        yield counter(
            "evaluation_restarts",
            "Restarts of the evaluation plane.",
            (),
            [([], supervisor.evaluation_restarts)],
        )
        killed = {f"worker-{w['slot']}": w.get("killed") or {} for w in supervisor.workers}
        killed["evaluation"] = supervisor.evaluation_killed
        yield counter(
            "process_kills",
            "Processes that the supervisor killed and replaced, by reason: hung, memory.",
            ("process", "reason"),
            [
                ([process, reason], count)
                for process, by_reason in killed.items()
                for reason, count in by_reason.items()
            ],
        )
        yield gauge(
            "config_generation",
            "Number of the active configuration.",
            (),
            [([], supervisor.generation)],
        )
        yield gauge(
            "config_last_reload_successful",
            "1 unless the last configuration was refused.",
            (),
            [([], 0.0 if supervisor.config_error else 1.0)],
        )
        yield gauge(
            "handoff_connections",
            "Workers connected to the evaluation plane.",
            (),
            [([], plane.server.connections)],
        )
        yield counter(
            "handoff_errors",
            "Connections of workers closed for a protocol error.",
            (),
            [([], plane.server.protocol_errors)],
        )
        yield counter(
            "state_write_failures",
            "Attempts to save the evaluation state that failed.",
            (),
            [([], plane.saver.failures)],
        )
        yield from process_families(uses(snapshot.slots, supervisor))


def _add_quantiles(
    family: QuantileFamily, by_outcome: dict[tuple[str, ...], Distribution], window: str
) -> None:
    """Series per outcome, and with the outcome ``all`` for the outcomes together."""
    together: dict[tuple[str, ...], Distribution] = {}
    for key, distribution in by_outcome.items():
        whole = (*key[:-1], "all")
        together[whole] = together.get(whole, Distribution()).merge(distribution)
    for key, distribution in (*by_outcome.items(), *together.items()):
        values = distribution.quantiles()
        if values is None or distribution.maximum is None:
            continue
        quantiles = [*zip(QUANTILES, values, strict=True), (1.0, distribution.maximum)]
        family.add((*key, window), quantiles, distribution.count, distribution.sum_ns / 1e9)


def _most(snapshot: Snapshot, name: str) -> dict[str, float]:
    """By arm, the highest value of a gauge in any worker and role."""
    found: dict[str, float] = {}
    for have, by_slot in snapshot.gauges_named(name).items():
        (arm,) = pick(have, ("arm",))
        found[arm] = max([found.get(arm, 0.0), *by_slot.values()])
    return found

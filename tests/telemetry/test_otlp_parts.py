"""Spans, metrics and events from what the service knows, as the official types receive them."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.core import Metric

from tests.support.otlp import attributes_of
from tests.support.patience import eventually
from understudy.monitor.config.load import parse
from understudy.monitor.findings.finding import Signal
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.pipeline.exemplars import Exemplar
from understudy.monitor.records.record import (
    CANCELLED,
    CLIENT_ERROR,
    CLIENT_STALLED,
    FELL_BEHIND,
    GARBAGE,
    INCOMPLETE,
    MODEL_OVERLOAD,
    OK,
    OUTCOMES,
    OVERLOAD,
    REJECTED,
    ROLE_MIRROR,
    ROLE_PRIMARY,
    SERVER_ERROR,
    SHUTDOWN,
    TIMEOUT,
    TOO_LARGE,
    UPSTREAM_CONNECT,
    UPSTREAM_RESET,
)
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import SKETCH_WORDS, observe
from understudy.monitor.telemetry.families import counter, gauge, sketches
from understudy.monitor.telemetry.otlp.emitter import began
from understudy.monitor.telemetry.otlp.events import Event, experiment_events, finding_events
from understudy.monitor.telemetry.otlp.queue import ExportQueue
from understudy.monitor.telemetry.otlp.spans import Finished, SpanMaker

pytest.importorskip("opentelemetry.sdk", reason="NOT TESTED: needs the extra otel")

CONFIG = """
version: 1
listen: 127.0.0.1:8080
models:
  - {name: m, version: "3"}
  - {name: scores, paths: [/score/*, /exact]}
champion: {url: "https://models.example/base"}
challengers:
  - name: candidate
    url: "unix:/run/model.sock"
    rewrite_path: {/v2/models/m/: /v2/models/n/}
"""
TRACE, PARENT, SPAN, CALL = "0af7651916cd43dd8448eb211c80319c", "1" * 16, "2" * 16, "3" * 16


def maker(length: int = 4096) -> SpanMaker:
    return SpanMaker.of(parse(CONFIG, "test", Path("/")), length)


def finished(outcome: int = OK, status: int = 200, **changes: Any) -> Finished:
    text = f"{PARENT} {SPAN} {CALL} 03 POST 1 0 ".encode()
    of = Finished(
        "m", "3", "champion", "", ROLE_PRIMARY, status, outcome, 1000.5, 30_000_000, 20_000_000,
        5_000_000, b"r1", b"/v2/models/m/infer", b"", TRACE.encode(), text, "",
    )  # fmt: skip
    return replace(of, **changes)


UNSET, FAILED = None, "outcome"


@pytest.mark.parametrize(
    ("outcome", "status", "answered", "server", "client"),
    [
        (OK, 200, True, UNSET, UNSET),
        (CLIENT_ERROR, 404, True, UNSET, "404"),
        (SERVER_ERROR, 500, True, "500", "500"),
        (MODEL_OVERLOAD, 429, True, UNSET, "429"),
        (MODEL_OVERLOAD, 503, True, "503", "503"),
        (TIMEOUT, 504, False, FAILED, FAILED),
        (UPSTREAM_CONNECT, 502, False, FAILED, FAILED),
        (UPSTREAM_RESET, 502, False, FAILED, FAILED),
        (UPSTREAM_RESET, 200, True, FAILED, FAILED),
        (GARBAGE, 502, False, FAILED, FAILED),
        (OVERLOAD, 503, False, FAILED, FAILED),
        (SHUTDOWN, 503, False, FAILED, FAILED),
        (CANCELLED, 499, False, UNSET, UNSET),
        (CANCELLED, 499, True, UNSET, UNSET),
        (INCOMPLETE, 499, False, UNSET, UNSET),
        (REJECTED, 408, False, UNSET, UNSET),
        (CLIENT_STALLED, 503, False, FAILED, UNSET),
    ],
)
def test_status_and_error_type_by_outcome(
    outcome: int, status: int, answered: bool, server: str | None, client: str | None
) -> None:
    of = finished(outcome, status, first_byte_ns=20_000_000 if answered else 0)
    spans = maker().spans(of)
    for span, wanted in zip(spans, (server, client), strict=True):
        kind = OUTCOMES[outcome] if wanted == FAILED else wanted
        assert span.failed == (wanted is not None)
        assert span.attributes.get("error.type") == kind
    code = "http.response.status_code"
    assert spans[0].attributes.get(code) == (None if status == 499 else status)
    # What the proxy answers itself is no response of the model server.
    assert spans[1].attributes.get(code) == (status if answered else None)


@pytest.mark.parametrize("outcome", [TOO_LARGE, FELL_BEHIND, TIMEOUT])
def test_a_mirrored_request_that_fails(outcome: int) -> None:
    text = f"{'0' * 16} {'0' * 16} {CALL} 03 POST 1 1 {TRACE}-{SPAN}".encode()
    (span,) = maker().spans(
        finished(outcome, 0, role=ROLE_MIRROR, arm="candidate", span=text, first_byte_ns=0)
    )
    assert (span.failed, span.attributes["error.type"]) == (True, OUTCOMES[outcome])
    assert (span.parent, span.link) == (0, (int(TRACE, 16), int(SPAN, 16)))
    assert span.attributes["http.request.resend_count"] == 1
    assert span.attributes["server.address"] == "/run/model.sock"
    assert "server.port" not in span.attributes
    assert span.attributes["url.full"] == "http://localhost/v2/models/n/infer"


def test_times_names_and_redaction() -> None:
    target = b"/v2/models/m/versions/3/infer?q=1&api_key=a&Signature=b&x[token]=c&sig"
    server, client = maker().spans(
        finished(target=target, headers=b"Content-Type: a/b\r\nUser-Agent: curl/8")
    )
    assert server.name == "POST /v2/models/m/versions/{version}/infer"
    assert server.attributes["user_agent.original"] == "curl/8"
    query = "q=1&api_key=REDACTED&Signature=REDACTED&x[token]=REDACTED&sig"
    assert server.attributes["url.query"] == query
    assert client.attributes["url.full"] == (
        f"https://models.example/base/v2/models/m/versions/3/infer?{query}"
    )
    assert client.attributes["server.port"] == 443
    assert client.attributes["understudy.version"] == "3"
    assert (server.start, server.end) == (1_000_500_000_000, 1_000_530_000_000)
    assert (client.start, client.end) == (1_000_505_000_000, 1_000_530_000_000)


@pytest.mark.parametrize(
    ("target", "route"),
    [
        (b"/score/a", "/score/*"),
        (b"/exact?x", "/exact"),
        (b"//exact", "/exact"),
        (b"/%65xact", "/exact"),
        (b"/gone", ""),
    ],
)
def test_the_route_is_the_pattern(target: bytes, route: str) -> None:
    server, _ = maker().spans(finished(model="scores", target=target))
    assert server.attributes.get("http.route", "") == route
    assert server.name == f"POST {route}".strip()


def test_long_and_odd_values() -> None:
    of = finished(target=b"/v2/models/m/infer?" + b"a" * 500)
    text = f"{PARENT} {SPAN} {CALL} 03 FROB 0 0 ".encode()
    server, client = maker(100).spans(replace(of, span=text))
    assert server.attributes["http.request.method"] == "_OTHER"
    assert server.attributes["http.request.method_original"] == "FROB"
    assert server.attributes["network.protocol.version"] == "1.0"
    assert server.name.startswith("HTTP ")
    for span in (server, client):
        assert max(len(v) for v in span.attributes.values() if isinstance(v, str)) <= 100


# Metrics -----------------------------------------------------------------------------------------

LABELS = (("arm", "champion"), ("model", "m"), ("outcome", "ok"), ("protocol", "v2"),
          ("role", "primary"), ("version", "3"))  # fmt: skip


def words_of(values: Sequence[float]) -> Words:
    words = np.zeros(SKETCH_WORDS, np.uint64)
    for value in values:
        observe(words.data.cast("B").cast("Q"), 0, int(value * 1e9))
    return words


def families(values: Sequence[float], failed: Sequence[float] = ()) -> list[Metric]:
    broken = tuple((k, "timeout" if k == "outcome" else v) for k, v in LABELS)
    example = Exemplar(TRACE, 0.02, 500.0, SPAN)
    return [
        sketches("request_duration_seconds", "Text.", {LABELS: words_of(values), broken: words_of(failed)},
                 {("m", "3", "champion", "primary", "ok"): {2: example}}, (0.03,)),
        sketches("queue_seconds", "Text.", {LABELS: words_of(values)}),
        counter("retries", "Text.", ("arm",), [(["champion"], float(len(values)))]),
        gauge("workers", "Text.", (), [([], 2.0)]),
        gauge("in_flight_requests", "Text.", ("arm", "role"),
              [(["champion", "primary"], 3.0), (["candidate", "mirror"], 1.0)]),
    ]  # fmt: skip


def converter(delta: bool = False, exponential: bool = False, exemplars: bool = True) -> Any:
    from understudy.monitor.telemetry.otlp.metrics import Converter
    from understudy.monitor.telemetry.otlp.sdk import resource_of

    resource = resource_of({"service.name": "x"}, "here")
    of = maker()
    return Converter(resource, of.scheme, of.places, 100, delta, exponential, exemplars)


def encoded(data: Any) -> dict[str, Any]:
    """By name, as a receiver decodes it."""
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

    wire = encode_metrics(data).SerializeToString()
    ((scope,),) = (
        one.scope_metrics for one in ExportMetricsServiceRequest.FromString(wire).resource_metrics
    )
    return {metric.name: metric for metric in scope.metrics}


VALUES = (0.004, 0.02, 0.021, 0.028, 0.04, 0.3, 42.0)


def test_histograms_equal_those_of_the_exposition_bucket_by_bucket() -> None:
    of = families(VALUES, [1.0, 2.0])
    found = encoded(converter().convert(of, 900_000_000_000))
    for name in ("http.server.request.duration", "http.client.request.duration"):
        metric = found[name]
        assert metric.unit == "s"
        assert metric.histogram.aggregation_temporality == 2
        ok, failed = sorted(metric.histogram.data_points, key=lambda point: -point.count)
        assert attributes_of(ok.attributes).get("error.type") is None
        assert attributes_of(failed.attributes)["error.type"] == "timeout"
        for point, outcome in ((ok, "ok"), (failed, "timeout")):
            cumulative = {
                sample.labels["le"]: sample.value
                for sample in of[0].samples
                if sample.name.endswith("_bucket") and sample.labels["outcome"] == outcome
            }
            edges = [*map(str, point.explicit_bounds), "+Inf"]
            assert [float(one) for one in cumulative] == [float(one) for one in edges]
            assert list(np.cumsum(point.bucket_counts)) == list(cumulative.values())
            assert point.count == cumulative["+Inf"]
        assert (ok.start_time_unix_nano, ok.time_unix_nano) == (100, 900_000_000_000)
        assert ok.sum == pytest.approx(sum(VALUES))
        (example,) = ok.exemplars
        assert (example.trace_id.hex(), example.span_id.hex()) == (TRACE, SPAN)
        assert example.as_double == 0.02
    server = attributes_of(
        found["http.server.request.duration"].histogram.data_points[0].attributes
    )
    assert server["http.request.method"] == "POST"
    assert server["url.scheme"] == "http"
    client = attributes_of(
        found["http.client.request.duration"].histogram.data_points[0].attributes
    )
    assert (client["server.address"], client["server.port"]) == ("models.example", 443)
    assert found["understudy.queue_seconds"].histogram.data_points[0].count == len(VALUES)
    retries = found["understudy.retries"].sum
    assert (retries.is_monotonic, retries.data_points[0].as_double) == (True, len(VALUES))
    assert found["understudy.workers"].gauge.data_points[0].as_double == 2.0
    (active,) = found["http.server.active_requests"].sum.data_points
    assert (active.as_double, attributes_of(active.attributes)["understudy.arm"]) == (
        3.0,
        "champion",
    )


def expected_at_scale(values: Sequence[float], scale: int) -> Mapping[int, int]:
    """OTLP: bucket i holds (base^i, base^(i+1)], base 2^(2^-scale)."""
    found: dict[int, int] = {}
    for value in values:
        index = math.ceil(math.log2(value) * 2**scale) - 1
        found[index] = found.get(index, 0) + 1
    return found


def test_exponential_histograms_have_their_values_where_otlp_says() -> None:
    found = encoded(converter(exponential=True).convert(families(VALUES), 200))
    for name in ("http.server.request.duration", "understudy.queue_seconds"):
        (point,) = found[name].exponential_histogram.data_points
        assert (point.scale, point.count, point.zero_count) == (3, len(VALUES), 0)
        counts = {
            point.positive.offset + number: count
            for number, count in enumerate(point.positive.bucket_counts)
            if count
        }
        assert counts == expected_at_scale(VALUES, 3)


@pytest.mark.parametrize("exponential", [False, True])
def test_delta_is_what_was_added_since_the_last_success(exponential: bool) -> None:
    of = converter(delta=True, exponential=exponential)

    assert encoded(of.convert(families(VALUES[:1]), 100)) == {}

    def counts(values: Sequence[float], now: int) -> tuple[int, float, int, int, list[int]]:
        found = encoded(of.convert(families(values), now))
        metric = found["http.server.request.duration"]
        data = metric.exponential_histogram if exponential else metric.histogram
        assert data.aggregation_temporality == 1
        (point,) = data.data_points
        buckets = point.positive.bucket_counts if exponential else point.bucket_counts
        added = found["understudy.retries"].sum.data_points[0].as_double
        assert sum(buckets) == point.count
        return point.count, added, point.start_time_unix_nano, point.time_unix_nano, list(buckets)

    assert counts(VALUES[:3], 200)[:4] == (2, 2.0, 100, 200)
    # That export has failed: the next one has its counts, too.
    assert counts(VALUES[:5], 300)[:4] == (4, 4.0, 100, 300)
    of.sent()
    assert counts(VALUES, 400)[:4] == (2, 2.0, 300, 400)
    of.sent()
    # Counts that began again are new.
    assert counts(VALUES[:2], 500)[:4] == (2, 2.0, 400, 500)


def test_without_exemplars() -> None:
    found = encoded(converter(exemplars=False).convert(families(VALUES), 200))
    assert not found["http.server.request.duration"].histogram.data_points[0].exemplars


def test_the_start_of_the_counts_survives_a_restart(tmp_path: Path) -> None:
    first = began(tmp_path)
    assert began(tmp_path) > first  # nothing has been counted on disk
    last = began(tmp_path)
    from understudy.monitor.stats.totals import FILE_NAME

    (tmp_path / FILE_NAME).write_text("{}")
    assert began(tmp_path) == last
    (tmp_path / "otlp-start").write_text("garbage")
    assert began(tmp_path) > last


# Events ------------------------------------------------------------------------------------------


def logged(events: Sequence[Event]) -> list[Any]:
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    from understudy.monitor.telemetry.otlp.sdk import log_records, resource_of

    wire = encode_logs(log_records(events, resource_of({}, "here")))
    return [r for one in wire.resource_logs for s in one.scope_logs for r in s.log_records]


def test_findings_are_events() -> None:
    service = FindingsService(None)
    service.load_state(None)
    seen: list[Event] = []
    service.listeners.append(lambda changes: seen.extend(finding_events(changes)))
    signal = Signal("drift:m:age", "drift", "m", "3", "", "critical", "age drifts")
    service.ledger.report("drift", [signal], 1000.0)
    finding = service.ledger.open()[0]
    service.acknowledge(finding.id, "me", "known")
    service.close(finding.id, "me", "fixed")
    opened, changed, closed = logged(seen)
    names = [one.event_name for one in (opened, changed, closed)]
    assert names == [f"understudy.finding.{kind}" for kind in ("opened", "changed", "closed")]
    assert (opened.severity_text, opened.severity_number) == ("CRITICAL", 17)
    assert closed.severity_text == "INFO"
    assert opened.time_unix_nano == 1_000_000_000_000
    attributes = attributes_of(opened.attributes)
    assert attributes["understudy.finding.id"] == finding.id
    assert attributes["understudy.model"] == "m"
    assert opened.body.string_value.startswith("age drifts")


def test_steps_and_decisions_of_experiments_are_events() -> None:
    event = {"at": 5.0, "experiment": "e", "challenger": "candidate", "kind": "advance", "who": "me",
             "why": "because", "stage": "10%", "weight": 0.1, "phase": "running",
             "reasons": ["better", "safe"]}  # fmt: skip
    from understudy.shadow.rollout.state import TERMINAL

    step, decision = logged(
        [*experiment_events([event, {**event, "kind": "promote", "phase": sorted(TERMINAL)[0]}])]
    )
    assert step.event_name == "understudy.experiment.step"
    assert decision.event_name == "understudy.experiment.decision"
    assert attributes_of(step.attributes) == {
        "understudy.experiment": "e",
        "understudy.arm": "candidate",
        "understudy.experiment.event": "advance",
        "understudy.experiment.stage": "10%",
        "understudy.experiment.phase": "running",
        "understudy.experiment.weight": 0.1,
        "understudy.experiment.reasons": "better; safe",
    }


# The queue ---------------------------------------------------------------------------------------


def test_every_item_is_counted_once() -> None:
    gate, results = threading.Event(), iter([None, "refused", None, None])
    batches: list[list[int]] = []

    def export(items: Sequence[int]) -> str | None:
        gate.wait(30)
        batches.append(list(items))
        return next(results)

    queue: ExportQueue[int] = ExportQueue("traces", lambda: export, 6, 1000, 2, 60.0)
    queue.offer(0, 2, 10)  # a full batch at once
    eventually(lambda: queue.waiting == 0)
    for number in range(1, 4):
        queue.offer(number, 2, 10)
    queue.offer(4, 1, 10)
    queue.offer(5, 1, 2000)
    assert (queue.offered, queue.dropped, queue.waiting) == (10, 2, 6)
    gate.set()
    eventually(lambda: queue.sent + queue.failed == 8)
    assert (queue.sent, queue.failed, queue.error) == (6, 2, None)
    queue.stop(30.0)
    queue.offer(6, 1, 10)
    queue.join(30.0)
    assert queue.ended
    assert batches == [[0], [1], [2], [3]]
    assert (queue.offered, queue.dropped) == (11, 3)

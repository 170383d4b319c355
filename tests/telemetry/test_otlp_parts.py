"""Spans, metrics and events from what the service knows, as the official types receive them."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric

from tests.support.otlp import attributes_of
from tests.support.patience import eventually
from tests.support.spans import CALL, CONFIG, PARENT, SPAN, TRACE, finished
from understudy.monitor.config.load import parse
from understudy.monitor.findings.finding import Signal
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.pipeline.exemplars import Exemplar
from understudy.monitor.pipeline.served import VersionChange
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
    SERVER_ERROR,
    SHUTDOWN,
    TIMEOUT,
    TOO_LARGE,
    UPSTREAM_CONNECT,
    UPSTREAM_RESET,
)
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import SKETCH_WORDS
from understudy.monitor.stats.sketch import observe
from understudy.monitor.telemetry.families import counter, gauge, sketches
from understudy.monitor.telemetry.otlp.counts import (
    DROPPED,
    FAILED,
    LOST,
    OFFERED,
    SENT,
    Counts,
    counts_in,
)
from understudy.monitor.telemetry.otlp.emitter import began
from understudy.monitor.telemetry.otlp.events import (
    Event,
    experiment_events,
    finding_events,
    version_event,
)
from understudy.monitor.telemetry.otlp.queue import ExportQueue
from understudy.monitor.telemetry.otlp.spans import SpanMaker

pytest.importorskip("opentelemetry.sdk", reason="NOT TESTED: needs the extra otel")


def maker(length: int = 4096) -> SpanMaker:
    return SpanMaker.of(parse(CONFIG, "test", Path("/")), length)


UNSET, OURS = None, "outcome"


@pytest.mark.parametrize(
    ("outcome", "status", "answered", "server", "client"),
    [
        (OK, 200, True, UNSET, UNSET),
        (CLIENT_ERROR, 404, True, UNSET, "404"),
        (SERVER_ERROR, 500, True, "500", "500"),
        (MODEL_OVERLOAD, 429, True, UNSET, "429"),
        (MODEL_OVERLOAD, 503, True, "503", "503"),
        (TIMEOUT, 504, False, OURS, OURS),
        (UPSTREAM_CONNECT, 502, False, OURS, OURS),
        (UPSTREAM_RESET, 502, False, OURS, OURS),
        (UPSTREAM_RESET, 200, True, OURS, OURS),
        (GARBAGE, 502, False, OURS, OURS),
        (OVERLOAD, 503, False, OURS, OURS),
        (SHUTDOWN, 503, False, OURS, OURS),
        (CANCELLED, 499, False, UNSET, UNSET),
        (CANCELLED, 499, True, UNSET, UNSET),
        (INCOMPLETE, 499, False, UNSET, UNSET),
        (REJECTED, 408, False, UNSET, UNSET),
        (CLIENT_STALLED, 503, False, OURS, UNSET),
    ],
)
def test_status_and_error_type_by_outcome(
    outcome: int, status: int, answered: bool, server: str | None, client: str | None
) -> None:
    of = finished(outcome, status, first_byte_ns=20_000_000 if answered else 0)
    spans = maker().spans(of)
    for span, wanted in zip(spans, (server, client), strict=True):
        kind = OUTCOMES[outcome] if wanted == OURS else wanted
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


def test_each_attempt_has_a_client_span() -> None:
    again = b"4" * 16 + b"-12000000"
    text = f"{PARENT} {SPAN} {CALL} 03 POST 1 {again.decode()} ".encode()
    of = finished(span=text)
    server, lost, last = maker().spans(of)
    assert of.spans == 3
    assert (server.span, lost.span, last.span) == (int(SPAN, 16), int("4" * 16, 16), int(CALL, 16))
    assert lost.parent == last.parent == server.span
    assert (lost.start, lost.end) == (1_000_505_000_000, 1_000_512_000_000)
    assert (last.start, last.end) == (1_000_512_000_000, 1_000_530_000_000)
    assert (lost.failed, lost.attributes["error.type"]) == (True, "upstream_reset")
    assert not {"http.response.status_code", "http.request.resend_count"} & lost.attributes.keys()
    assert (last.failed, last.attributes["http.request.resend_count"]) == (False, 1)
    assert last.attributes["http.response.status_code"] == 200
    # A record of an earlier version knows of the repetition only.
    of = finished(span=f"{PARENT} {SPAN} {CALL} 03 POST 1 1 ".encode())
    assert of.spans == len(maker().spans(of)) == 2


NS = st.integers(0, 2 * 10**9)


@given(NS, NS, NS, st.lists(NS, max_size=3).map(sorted), st.floats(1.7e9, 1.9e9))
def test_no_span_ends_before_it_starts_or_leaves_its_parent(
    duration: int, queue: int, first: int, lost: list[int], started: float
) -> None:
    """Backends take a negative duration for one of half a million years, or fail."""
    earlier = ",".join(f"{'4' * 15}{n}-{at}" for n, at in enumerate(lost)) or "0"
    text = f"{PARENT} {SPAN} {CALL} 03 POST 1 {earlier} ".encode()
    server, *clients = maker().spans(
        finished(
            started=started, duration_ns=duration, queue_ns=queue, first_byte_ns=first, span=text
        )
    )
    assert len(clients) == len(lost) + 1
    counts = [client.attributes.get("http.request.resend_count", 0) for client in clients]
    assert counts == list(range(len(clients)))
    assert server.start <= clients[0].start
    assert clients[-1].end == server.end
    for span in (server, *clients):
        assert span.start <= span.end
    for one, other in pairwise(clients):
        assert one.end <= other.start


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


def test_a_change_of_version_is_an_event() -> None:
    change = VersionChange(5.0, "m", "1", "champion", "2", "3", "r-7")
    (found,) = logged([version_event(change)])
    assert found.event_name == "understudy.model.version_changed"
    assert found.time_unix_nano == 5_000_000_000
    assert found.body.string_value == (
        "model 'm' of 'champion' answers as version '3', and was '2' before"
    )
    assert attributes_of(found.attributes) == {
        "understudy.model": "m",
        "understudy.version": "1",
        "understudy.arm": "champion",
        "understudy.request_id": "r-7",
        "understudy.model.version.before": "2",
        "understudy.model.version.after": "3",
    }


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

    counts = Counts()
    queue: ExportQueue[int] = ExportQueue("traces", counts, lambda: export, 6, 1000, 2, 60.0)
    queue.offer(0, 2, 10)  # a full batch at once
    eventually(lambda: queue.waiting == 0)
    for number in range(1, 4):
        queue.offer(number, 2, 10)
    queue.offer(4, 1, 10)
    queue.offer(5, 1, 2000)
    assert (counts[OFFERED], counts[DROPPED], queue.waiting, counts.open) == (10, 2, 6, 8)
    gate.set()
    eventually(lambda: counts.open == 0)
    assert (counts[SENT], counts[FAILED], queue.error) == (6, 2, None)
    queue.stop(30.0)
    queue.offer(6, 1, 10)
    queue.join(30.0)
    assert queue.ended
    assert batches == [[0], [1], [2], [3]]
    assert (counts[OFFERED], counts[DROPPED]) == (11, 3)


def test_what_waited_in_a_killed_process_is_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    code = (
        "import os, sys; from pathlib import Path;"
        "from understudy.monitor.telemetry.otlp.counts import *;"
        "counts = counts_in(Path(sys.argv[1]))['traces'];"
        "counts.add(OFFERED, 10); counts.add(SENT, 4); counts.add(DROPPED, 1);"
        "os.kill(os.getpid(), 9)"
    )
    for times in (1, 2):
        assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
        counts = counts_in(path)["traces"]
        assert [counts[which] for which in (OFFERED, SENT, FAILED, DROPPED, LOST)] == [
            10 * times, 4 * times, 0, times, 5 * times
        ]  # fmt: skip
        assert counts.open == 0
    assert counts_in(path)["logs"][OFFERED] == 0
    assert counts_in(tmp_path / "missing" / "counts")["traces"][OFFERED] == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 400)), max_size=60))
def test_a_queue_whose_collector_hangs_is_bounded(items: list[tuple[int, int]]) -> None:
    """By number and by bytes; an offer returns at once, and everything is accounted for."""
    gate = threading.Event()

    def export(_: Sequence[int]) -> str | None:
        gate.wait(60)
        return None

    counts = Counts()
    queue: ExportQueue[int] = ExportQueue("traces", counts, lambda: export, 20, 1000, 4, 0.0)
    try:
        held = largest = 0
        for number, (weight, size) in enumerate(items):
            queue.offer(number, weight, size)
            assert queue.waiting <= 20
            largest = max(largest, weight)
            held = counts[OFFERED] - counts[DROPPED]
            # What waits, and the batch that is being sent.
            assert held <= 20 + max(4, largest)
        assert counts[OFFERED] == sum(weight for weight, _ in items)
        assert counts.open == held
    finally:
        gate.set()
        queue.stop(60.0)
        queue.join(60.0)
    assert counts.open == 0
    assert counts[SENT] == held

"""The SDK's types and exporters. This module imports the SDK: only threads that export import it.

Exporters get every setting as an argument, since the SDK reads some variables differently than the
specification says (time limits in seconds).
"""

from __future__ import annotations

import logging
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from understudy import __version__
from understudy.monitor.config.otel import Export, Signal
from understudy.monitor.telemetry.otlp.encoder import SpanEncoder
from understudy.monitor.telemetry.otlp.events import Event
from understudy.monitor.telemetry.otlp.spans import SERVER_KIND, Span

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = InstrumentationScope("understudy", __version__, SCHEMA)
_KINDS = {True: SpanKind.SERVER, False: SpanKind.CLIENT}
_ERROR, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)
_LOGGER = logging.getLogger("opentelemetry")


class _LastMessage(logging.Handler):
    """Keeps the last message of the exporters, which log each failed attempt."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()[:500]


_messages = _LastMessage(logging.WARNING)


def resource_of(attributes: dict[str, str], place: str) -> Resource:
    """The resource: ``attributes`` and the usual ones. ``place`` tells this sidecar from others on
    the same host, also after a restart."""
    host = socket.gethostname()
    stable = uuid.uuid5(uuid.NAMESPACE_URL, f"understudy:{host}:{place}")
    usual = {
        "service.name": "understudy",
        "service.version": __version__,
        "service.instance.id": attributes.get("k8s.pod.uid", str(stable)),
        "host.name": host,
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource(usual | attributes, SCHEMA)


def exporter_of(signal: Signal, export: Export) -> Any:
    """The SDK's exporter of a signal."""
    if export.exporter == "console":
        return _console(signal)
    _LOGGER.propagate = False
    if _messages not in _LOGGER.handlers:
        _LOGGER.addHandler(_messages)
    common: dict[str, Any] = {
        "endpoint": export.endpoint,
        "headers": dict(export.headers),
        "timeout": export.timeout,
    }
    if export.protocol == "grpc":
        return _grpc(signal, export, common)
    from opentelemetry.exporter.otlp.proto.http import Compression

    common["compression"] = Compression.Gzip if export.gzip else Compression.NoCompression
    common["certificate_file"] = export.ca
    common["client_key_file"] = export.key
    common["client_certificate_file"] = export.certificate
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(**common)
    if signal == "metrics":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter(**common)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    return OTLPLogExporter(**common)


def _grpc(signal: Signal, export: Export, common: dict[str, Any]) -> Any:
    import grpc

    common["headers"] = tuple(export.headers.items())
    common["compression"] = grpc.Compression.Gzip if export.gzip else grpc.Compression.NoCompression
    common["insecure"] = export.insecure
    if not export.insecure:
        common["credentials"] = grpc.ssl_channel_credentials(
            *map(_content, (export.ca, export.key, export.certificate))
        )
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(**common)
    if signal == "metrics":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter(**common)
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    return OTLPLogExporter(**common)


def _content(name: str | None) -> bytes | None:
    if name is None:
        return None
    with open(name, "rb") as file:
        return file.read()


def _console(signal: Signal) -> Any:
    # The standard output of the service is its log's.
    if signal == "traces":
        return ConsoleSpanExporter(out=sys.stderr)
    if signal == "metrics":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return ConsoleMetricExporter(out=sys.stderr)
    from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter

    return ConsoleLogRecordExporter(out=sys.stderr)


def failure(result: Any) -> str | None:
    """None for the success of an export; else why it failed."""
    if getattr(result, "name", "") == SpanExportResult.SUCCESS.name:
        return None
    return _messages.text or "the export failed"


def readable(spans: Iterable[Span], resource: Resource) -> list[ReadableSpan]:
    """Spans as the SDK has them. Its documentation advises against making them directly, but no
    other way sets all ids: the range of its versions is pinned, and a test holds it."""
    return [_readable(span, resource) for span in spans]


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    flags = TraceFlags(span.flags)
    parent = None
    if span.parent:
        parent = SpanContext(span.trace, span.parent, span.remote, flags)
    links: Sequence[Link] = ()
    if span.link is not None:
        links = (Link(SpanContext(*span.link, False, flags)),)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(span.trace, span.span, False, flags),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        links=links,
        kind=_KINDS[span.kind == SERVER_KIND],
        status=_ERROR if span.failed else _UNSET,
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=SCOPE,
    )


def log_records(events: Iterable[Event], resource: Resource) -> list[Any]:
    """Events as log records."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord

    numbers = {
        "info": SeverityNumber.INFO,
        "warning": SeverityNumber.WARN,
        "critical": SeverityNumber.ERROR,
    }
    return [
        ReadableLogRecord(
            LogRecord(
                timestamp=int(event.at * 1e9),
                observed_timestamp=int(event.at * 1e9),
                severity_text=event.severity.upper(),
                severity_number=numbers[event.severity],
                body=event.body,
                attributes=event.attributes,
                event_name=event.name,
                trace_id=event.trace,
                span_id=event.span,
                trace_flags=TraceFlags(event.sampled),
            ),
            resource,
            SCOPE,
        )
        for event in events
    ]


def event_export(
    export: Export, attributes: dict[str, str], place: str
) -> Callable[[Sequence[Event]], str | None]:
    """Sends events; None, or why it failed."""
    resource = resource_of(attributes, place)
    exporter = exporter_of("logs", export)
    return lambda events: failure(exporter.export(log_records(events, resource)))


def span_export(
    export: Export, attributes: dict[str, str], place: str
) -> Callable[[list[Span]], str | None]:
    """Sends spans; None, or why it failed."""
    resource = resource_of(attributes, place)
    exporter = exporter_of("traces", export)
    client = getattr(exporter, "_client", None)
    if export.exporter != "otlp" or export.protocol == "grpc" or client is None:
        return lambda spans: failure(exporter.export(readable(spans, resource)))
    # The exporter's transport with our encoder, whose bytes the exporter would have made as well.
    encoder = encoder_of(resource)

    def send(spans: list[Span]) -> str | None:
        result = client.export(encoder.encode(spans))
        return None if result.success else _messages.text or "the export failed"

    return send


def encoder_of(resource: Resource) -> SpanEncoder:
    """Encodes spans of this resource as the exporter does."""
    return SpanEncoder(
        dict(resource.attributes), resource.schema_url, (SCOPE.name, SCOPE.version), SCHEMA
    )

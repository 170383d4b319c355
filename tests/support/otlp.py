"""Receivers of OTLP: one in this process, and the real collector; and a model server with the SDK.

The receiver speaks OTLP over HTTP and decodes with the official types of ``opentelemetry-proto``.
"""

from __future__ import annotations

import gzip
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually
from tests.support.ports import free_port
from tools.parts import jaeger, otel_collector

SERVER, CLIENT = 2, 3
UNSET, ERROR = 0, 2


@dataclass
class Seen:
    """A span that has arrived."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    status: int
    links: list[tuple[str, str]]
    flags: int
    resource: dict[str, Any]
    scope: tuple[str, str]
    schema: str


@dataclass
class Signals:
    """What has arrived. ``metrics`` and ``logs`` are messages of the official types."""

    spans: list[Seen] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    logs: list[Any] = field(default_factory=list)

    def of(self, service: str) -> list[Seen]:
        return [span for span in self.spans if span.resource.get("service.name") == service]


def value_of(value: Any) -> Any:
    """A value of an attribute, from the official type."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes_of(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in pairs}


def spans_of(resource_spans: Iterable[Any]) -> Iterator[Seen]:
    for resource in resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name, span.kind, span.trace_id.hex(), span.span_id.hex(),
                    span.parent_span_id.hex(), span.start_time_unix_nano, span.end_time_unix_nano,
                    attributes_of(span.attributes), span.status.code,
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links], span.flags,
                    attributes_of(resource.resource.attributes),
                    (scope.scope.name, scope.scope.version), scope.schema_url,
                )  # fmt: skip


class Receiver:
    """OTLP over HTTP. ``status`` is what it answers with, ``headers`` are those of the last
    request, ``pause`` is a time in seconds before each answer."""

    def __init__(self, port: int = 0) -> None:
        pytest.importorskip("opentelemetry.proto", reason="NOT TESTED: needs the extra otel")
        self.seen = Signals()
        self.status = 200
        self.pause = 0.0
        self.headers: dict[str, str] = {}
        self.requests: list[str] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.headers = {k.lower(): v for k, v in self.headers.items()}
                if outer.pause:
                    time.sleep(outer.pause)
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if outer.status == 200:
                    outer.take(self.path, body)
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
        )
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        with self._lock:
            self.requests.append(path)
            if path.endswith("/v1/traces"):
                spans = ExportTraceServiceRequest.FromString(body)
                self.seen.spans += spans_of(spans.resource_spans)
            elif path.endswith("/v1/metrics"):
                self.seen.metrics.append(ExportMetricsServiceRequest.FromString(body))
            else:
                self.seen.logs.append(ExportLogsServiceRequest.FromString(body))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Collector:
    """The real collector as a process; skips where it is not built. Both protocols."""

    def __init__(self, folder: Path) -> None:
        program = otel_collector.need()
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._file = folder / "received.jsonl"
        config = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "http": {"endpoint": f"127.0.0.1:{self.port}"},
                        "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
                    }
                }
            },
            "exporters": {"file": {"path": str(self._file), "flush_interval": "100ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    name: {"receivers": ["otlp"], "exporters": ["file"]}
                    for name in ("traces", "metrics", "logs")
                },
            },
        }
        path = folder / "collector.json"
        path.write_text(json.dumps(config))
        self._log = (folder / "collector.log").open("wb")
        self.process = subprocess.Popen(
            [str(program), "--config", str(path)], stdout=self._log, stderr=self._log
        )
        eventually(self._ready)

    def _ready(self) -> bool:
        import socket

        for port in (self.port, self.grpc_port):
            socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    @property
    def seen(self) -> Signals:
        """What has been written so far."""
        found = Signals()
        if not self._file.exists():
            return found
        for line in self._file.read_text().splitlines():
            data = json.loads(line)
            found.metrics += data.get("resourceMetrics", [])
            found.logs += data.get("resourceLogs", [])
            for resource in data.get("resourceSpans", []):
                of = _attributes(resource.get("resource", {}))
                for scope in resource["scopeSpans"]:
                    named = scope.get("scope", {})
                    for span in scope["spans"]:
                        found.spans.append(
                            Seen(
                                span["name"], span["kind"], span["traceId"], span["spanId"],
                                span.get("parentSpanId", ""), int(span["startTimeUnixNano"]),
                                int(span["endTimeUnixNano"]), _attributes(span),
                                span.get("status", {}).get("code", 0),
                                [(one["traceId"], one["spanId"]) for one in span.get("links", [])],
                                span.get("flags", 0), of,
                                (named.get("name", ""), named.get("version", "")),
                                scope.get("schemaUrl", ""),
                            )
                        )  # fmt: skip
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._log.close()


class Jaeger:
    """The real Jaeger as a process, which keeps traces in memory; skips where it is not built."""

    def __init__(self, folder: Path) -> None:
        program = jaeger.need()
        self.port, self.grpc_port, query = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._query = f"http://127.0.0.1:{query}"
        config = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "http": {"endpoint": f"127.0.0.1:{self.port}"},
                        "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
                    }
                }
            },
            "extensions": {
                "jaeger_storage": {"backends": {"here": {"memory": {"max_traces": 10000}}}},
                "jaeger_query": {
                    "storage": {"traces": "here"},
                    "http": {"endpoint": f"127.0.0.1:{query}"},
                    "grpc": {"endpoint": f"127.0.0.1:{free_port()}"},
                },
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "here"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
            },
        }
        path = folder / "jaeger.json"
        path.write_text(json.dumps(config))
        self.log = folder / "jaeger.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(program), "--config", str(path)], stdout=log, stderr=log
            )
        eventually(lambda: self.services() is not None)

    def services(self) -> list[str]:
        """The names of the services that it has spans of."""
        found = httpx.get(f"{self._query}/api/services").raise_for_status().json()["data"]
        return found or []

    def trace(self, trace: str) -> list[dict[str, Any]]:
        """The spans of a trace as its API has them, by start; ``service`` is added to each."""
        answer = httpx.get(f"{self._query}/api/traces/{trace}").raise_for_status().json()
        (data,) = answer["data"]
        for span in data["spans"]:
            span["service"] = data["processes"][span["processID"]]["serviceName"]
        return sorted(data["spans"], key=lambda span: span["startTime"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for pair in of.get("attributes", []):
        ((kind, value),) = pair["value"].items()
        found[pair["key"]] = int(value) if kind == "intValue" else value
    return found


class TracedModel:
    """A model server with the SDK and its default sampler, which obeys the parent's flag.

    ``status`` decides about the status of each request, by its path; ``score`` is the answer."""

    def __init__(
        self, endpoint: str, service: str = "model", score: float = 0.5, port: int = 0
    ) -> None:
        pytest.importorskip("opentelemetry.sdk", reason="NOT TESTED: needs the extra otel")
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        provider = TracerProvider(resource=Resource({"service.name": service}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
        tracer = provider.get_tracer("model")
        propagator = TraceContextTextMapPropagator()
        self.provider = provider
        self.status: Callable[[str], int] = lambda path: 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                context = propagator.extract({k.lower(): v for k, v in self.headers.items()})
                with tracer.start_as_current_span("predict", context, SpanKind.SERVER):
                    self.rfile.read(int(self.headers["content-length"]))
                    output = {"name": "y", "shape": [1], "datatype": "FP64", "data": [score]}
                    body = json.dumps({"model_name": "m", "outputs": [output]}).encode()
                    status = outer.status(self.path)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.provider.shutdown()

"""OpenTelemetry in the configuration file; what the environment adds is in :mod:`.otel`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from understudy.common.fields import Bytes, Ratio, Seconds
from understudy.monitor.config.fields import File, Url
from understudy.monitor.config.headers import Header
from understudy.monitor.config.section import Section

Exporter: TypeAlias = Literal["otlp", "console", "none"]
Protocol: TypeAlias = Literal["http/protobuf", "grpc"]
Sampler: TypeAlias = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]
Copies: TypeAlias = Literal["link", "child", "none"]
Temporality: TypeAlias = Literal["cumulative", "delta", "lowmemory"]
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,254}")


def _attribute(value: str) -> str:
    if not _ATTRIBUTE.fullmatch(value):
        raise ValueError(f"not a valid attribute: {value!r} (example: deployment.environment.name)")
    return value


def _header(value: str) -> str:
    # Names of metadata of gRPC are in lower case; those of HTTP do not differ by case.
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", value):
        raise ValueError(f"not a valid header name: {value!r}")
    return value.lower()


class Traces(Section):
    """Spans of inference requests. Each has a server span, and a client span for the request to
    the model server; a mirrored one has a client span."""

    exporter: Exporter | None = None
    """Default: OTEL_TRACES_EXPORTER, or otlp. none: requests are not traced, and trace contexts are
    forwarded unchanged."""
    endpoint: Url | None = None
    """URL for spans, as it is. Default: `telemetry.endpoint` with /v1/traces."""
    sampler: Sampler | None = None
    """Which requests are sampled. parentbased: as the trace context of the client says, and those
    without one by the rest of the name. Default: OTEL_TRACES_SAMPLER, or parentbased_traceidratio
    with a `ratio`, or parentbased_always_on."""
    ratio: Ratio | None = None
    """Share that a sampler with traceidratio selects. Default: OTEL_TRACES_SAMPLER_ARG, or 1."""
    copies: Copies = "link"
    """What mirrored requests belong to. link: separate traces, linked to that of the request, and
    sampled if it is. child: the same trace, which then lasts until the challenger has answered.
    none: traces that are not sampled."""
    keep: list[Literal["errors", "slow", "disagreeing"]] = []
    """Requests whose spans are sent although they were not sampled. errors: the status of one of
    their spans is Error. slow: they took longer than `slow`. disagreeing: an experiment finds that
    the answer of a mirrored request differs, by its `compare`. Only the spans of Understudy are
    kept, with the attribute understudy.kept: model servers have decided already."""
    slow: Seconds = 1.0
    """The limit for `keep: [slow]`."""
    gen_ai: bool | None = None
    """Describe requests to language models by the conventions of generative AI, with models,
    parameters, tokens and reasons of the end, as far as they are captured; no messages. Default:
    whether OTEL_SEMCONV_STABILITY_OPT_IN has gen_ai_latest_experimental."""
    queue: int | None = Field(default=None, ge=1, le=1_000_000)
    """Maximum number of spans that wait to be sent; further ones are dropped and counted. Default:
    OTEL_BSP_MAX_QUEUE_SIZE, or 8192."""
    queue_bytes: Bytes = Field(default=16 * 1024 * 1024, ge=64 * 1024)
    """Maximum size of the spans that wait."""
    batch: int | None = Field(default=None, ge=1, le=100_000)
    """Maximum number of spans that are sent at a time. Default: OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or
    512."""
    interval: Seconds | None = None
    """Longest time that a span waits for others. Default: OTEL_BSP_SCHEDULE_DELAY, or 5s."""

    @model_validator(mode="after")
    def _ratio(self) -> Traces:
        if self.ratio is not None and self.sampler is not None and "ratio" not in self.sampler:
            raise ValueError(f"ratio has no effect with sampler {self.sampler}")
        return self


class Metrics(Section):
    """Metrics by OTLP, beside /metrics and from the same counts."""

    exporter: Exporter | None = None
    """Default: OTEL_METRICS_EXPORTER, or otlp."""
    endpoint: Url | None = None
    """URL for metrics, as it is. Default: `telemetry.endpoint` with /v1/metrics."""
    interval: Seconds | None = None
    """Time between two exports. Default: OTEL_METRIC_EXPORT_INTERVAL, or 60s."""
    temporality: Temporality | None = None
    """Default: OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, or cumulative. lowmemory is delta
    here, where every count can be delta."""
    histograms: Literal["explicit", "exponential"] | None = None
    """Kind of histograms. Default: OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION, or
    explicit."""


class Events(Section):
    """Findings, decisions of experiments and circuit breakers, as log records."""

    exporter: Exporter | None = None
    """Default: OTEL_LOGS_EXPORTER, or otlp."""
    endpoint: Url | None = None
    """URL for log records, as it is. Default: `telemetry.endpoint` with /v1/logs."""
    evaluations: list[Literal["comparisons", "labels"]] = []
    """Single answers for which a gen_ai.evaluation.result is sent, with their trace. comparisons:
    each answer of a mirrored request that an experiment compares, with what differs. labels: each
    label or reward that was joined to its prediction."""


class Telemetry(Section):
    """OpenTelemetry: traces, metrics and events by OTLP. `telemetry:` also accepts a plain value of
    `enabled`. Standard OTEL_* variables of the environment hold where this file says nothing."""

    enabled: Literal["auto"] | bool = "auto"
    """auto: on if an endpoint is set, here or by OTEL_EXPORTER_OTLP_ENDPOINT. true: on; the
    default endpoint is http://localhost:4318, or port 4317 for grpc."""
    endpoint: Url | None = None
    """Base URL of the collector. Default: OTEL_EXPORTER_OTLP_ENDPOINT."""
    protocol: Protocol | None = None
    """Default: OTEL_EXPORTER_OTLP_PROTOCOL, or http/protobuf."""
    headers: dict[Annotated[str, AfterValidator(_header)], Header] = Field(
        default={}, examples=[{"x-api-key": {"env": "OTLP_KEY"}}]
    )
    """Headers of each export, besides those of OTEL_EXPORTER_OTLP_HEADERS. A value is text, or
    `{env: NAME}` or `{file: PATH}` for a secret."""
    timeout: Seconds | None = None
    """For an export with its repetitions. Default: OTEL_EXPORTER_OTLP_TIMEOUT, or 10s."""
    compression: Literal["gzip", "none"] | None = None
    """Default: OTEL_EXPORTER_OTLP_COMPRESSION, or none."""
    ca: File | None = None
    """PEM file with trusted CAs. Default: OTEL_EXPORTER_OTLP_CERTIFICATE, or the system's."""
    certificate: File | None = None
    """PEM file of a client certificate. Default: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE."""
    key: File | None = None
    """PEM file with its private key. Default: OTEL_EXPORTER_OTLP_CLIENT_KEY."""
    resource: dict[Annotated[str, AfterValidator(_attribute)], str] = Field(
        default={}, examples=[{"deployment.environment.name": "production"}]
    )
    """Attributes of the resource, besides those of OTEL_RESOURCE_ATTRIBUTES. `service.name` is
    understudy by default."""
    traces: Traces = Traces()
    """Spans."""
    metrics: Metrics = Metrics()
    """Metrics."""
    events: Events = Events()
    """Log records."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"enabled": data} if isinstance(data, str | bool) else data

    @model_validator(mode="after")
    def _pair(self) -> Telemetry:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        return self

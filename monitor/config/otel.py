"""OpenTelemetry as it results from the configuration and the environment.

The standard variables hold where the file says nothing:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. An empty variable
counts as not set, and one that cannot be used is a warning.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar, get_args
from urllib.parse import unquote, urlsplit

from understudy.common.problems import Problem
from understudy.monitor.config.header_values import MissingValueError, read
from understudy.monitor.config.model import Config
from understudy.monitor.config.telemetry import (
    Events,
    Exporter,
    Metrics,
    Sampler,
    Temporality,
    Traces,
)
from understudy.monitor.config.telemetry import Protocol as OtlpProtocol
from understudy.monitor.routing.plan import Tracing

T = TypeVar("T")
Signal: TypeAlias = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)
ATTRIBUTE_LENGTH = 4096
"""Most characters of an attribute, unless OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT says otherwise."""
_EXPORTERS: dict[str, Exporter] = {"otlp": "otlp", "none": "none", "console": "console"}
_SAMPLERS: dict[str, Sampler] = {name: name for name in get_args(Sampler)}
_TEMPORALITIES: dict[str, Temporality] = {name: name for name in get_args(Temporality)}
_PROTOCOLS: dict[str, OtlpProtocol] = {name: name for name in get_args(OtlpProtocol)}
_PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


@dataclass(frozen=True, slots=True)
class Export:
    """Where one signal is sent. ``timeout`` in seconds; file names are of PEM files; ``insecure``
    is for gRPC: without TLS. ``headers`` may be secret."""

    exporter: Literal["otlp", "console"]
    endpoint: str = ""
    protocol: OtlpProtocol = "http/protobuf"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    gzip: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    def __str__(self) -> str:
        if self.exporter == "console":
            return "console"
        return f"{self.protocol} to {self.endpoint}"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How requests are sampled, and how spans are batched: ``queue`` and ``batch`` are spans,
    ``interval`` and ``slow`` seconds."""

    sampler: Sampler = "parentbased_always_on"
    ratio: float = 1.0
    copies: Literal["link", "child", "none"] = "link"
    keep: frozenset[str] = frozenset()
    slow: float = 1.0
    gen_ai: bool = False
    queue: int = 8192
    queue_bytes: int = 16 * 1024 * 1024
    batch: int = 512
    interval: float = 5.0

    def plan(self) -> Tracing:
        """What the workers need of it."""
        by_parent = self.sampler.startswith("parentbased_")
        kind = self.sampler.removeprefix("parentbased_")
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind, self.ratio)
        return Tracing(by_parent, round((1.0 - ratio) * (1 << 56)), self.copies, bool(self.keep))


@dataclass(frozen=True, slots=True)
class OpenTelemetry:
    """What results. Signals that are not sent are missing in ``exports``; ``why`` is what switched
    it on or off."""

    why: str
    exports: dict[Signal, Export] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)
    traces: TraceSettings = TraceSettings()
    metric_interval: float = 60.0
    temporality: Temporality = "cumulative"
    exponential: bool = False
    exemplars: bool = True
    attribute_length: int = ATTRIBUTE_LENGTH
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()

    def tracing(self) -> Tracing | None:
        """For the plan of the workers; None if requests are not traced."""
        return self.traces.plan() if "traces" in self.exports else None

    def lines(self) -> dict[str, str]:
        """What results, by key, for `understudy config check`."""
        if not self.exports:
            return {"telemetry": f"off ({self.why})"}
        found = {"telemetry": f"on ({self.why})"}
        for signal in SIGNALS:
            key = f"telemetry.{'events' if signal == 'logs' else signal}"
            export = self.exports.get(signal)
            if export is None:
                found[key] = "off"
                continue
            text = str(export)
            if signal == "traces":
                ratio = f" {self.traces.ratio:g}" if "ratio" in self.traces.sampler else ""
                text += f", sampler {self.traces.sampler}{ratio}, copies: {self.traces.copies}"
                if self.traces.keep:
                    text += f", keep: {', '.join(sorted(self.traces.keep))}"
            if signal == "metrics":
                kind = "exponential" if self.exponential else "explicit"
                text += f" every {self.metric_interval:g} s, {self.temporality}, {kind} histograms"
            found[key] = text
        return found


class _Variables:
    """The environment, with a warning for each variable that cannot be used."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.warnings: list[Problem] = []

    def text(self, name: str) -> str | None:
        """None if it is empty or not set."""
        return self._environment.get(name, "").strip() or None

    def read(self, name: str, parse: Callable[[str], T], what: str) -> T | None:
        """The value as ``parse`` reads it, which raises KeyError or ValueError."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return parse(text)
        except (KeyError, ValueError):
            self.warnings.append((name, f"not used: it must be {what}"))
            return None

    def choice(self, name: str, choices: Mapping[str, T]) -> T | None:
        return self.read(name, lambda text: choices[text.lower()], " or ".join(choices))

    def number(self, name: str, low: int, high: int) -> int | None:
        return self.read(
            name, lambda text: _within(int(text), low, high), f"a number from {low} to {high:,}"
        )

    def flag(self, name: str) -> bool | None:
        return self.choice(name, {"true": True, "false": False})

    def pairs(self, name: str) -> dict[str, str]:
        """``key=value`` with commas, percent-encoded."""
        return self.read(name, _pairs, "key=value, separated by commas (it is not shown)") or {}

    def of_signal(self, signal: Signal, name: str) -> str:
        """The name of the variable that holds: that of the signal, if it is set."""
        own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
        return own if self.text(own) is not None else f"OTEL_EXPORTER_OTLP_{name}"


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError
    return value


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            raise ValueError
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _url(text: str) -> str:
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    _ = parts.port
    return text if "://" in text else f"//{text}"


def _installed(protocol: OtlpProtocol) -> bool:
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk", _PACKAGES[protocol])
        )
    except ModuleNotFoundError:
        return False


def open_telemetry(config: Config, environment: Mapping[str, str]) -> OpenTelemetry:
    """What results from the file and the environment.

    ``problems`` are what makes the configuration invalid here; with ``auto`` there are none, since
    a variable that someone else sets must not keep the service from starting.
    """
    telemetry = config.telemetry
    variables = _Variables(environment)
    if telemetry.enabled is False:
        return OpenTelemetry("telemetry.enabled is false")
    if telemetry.enabled == "auto" and variables.flag("OTEL_SDK_DISABLED"):
        return OpenTelemetry("OTEL_SDK_DISABLED is true")
    sections: dict[Signal, Traces | Metrics | Events] = {
        "traces": telemetry.traces,
        "metrics": telemetry.metrics,
        "logs": telemetry.events,
    }
    why = _reason(config, sections.values(), variables)
    if why is None:
        return OpenTelemetry("no endpoint is set", warnings=tuple(variables.warnings))
    problems: list[Problem] = []
    exports: dict[Signal, Export] = {}
    for signal, section in sections.items():
        name = f"OTEL_{signal.upper()}_EXPORTER"
        exporter = section.exporter or variables.choice(name, _EXPORTERS) or "otlp"
        if exporter == "console":
            exports[signal] = Export("console")
        elif exporter == "otlp":
            export = _otlp(config, signal, section.endpoint, variables, environment, problems)
            exports[signal] = export
    missing = dict.fromkeys(e.protocol for e in exports.values() if not _installed(e.protocol))
    if missing:
        extra = "otel-grpc" if list(missing) == ["grpc"] else "otel"
        text = f"OpenTelemetry is not installed: pip install 'understudy-serving[{extra}]'"
        if telemetry.enabled is True:
            problems.append(("telemetry.enabled", text))
        else:
            variables.warnings.append(("telemetry", text))
        return OpenTelemetry(text, warnings=tuple(variables.warnings), problems=tuple(problems))
    _propagators(variables)
    if "disagreeing" in telemetry.traces.keep and not config.experiments:
        text = "disagreeing has no effect: no experiment compares answers"
        variables.warnings.append(("telemetry.traces.keep", text))
    metrics = telemetry.metrics
    interval = variables.number("OTEL_METRIC_EXPORT_INTERVAL", 1, 86_400_000)
    aggregation = metrics.histograms or variables.choice(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        {
            "explicit_bucket_histogram": "explicit",
            "base2_exponential_bucket_histogram": "exponential",
        },
    )
    exemplars = variables.choice(
        "OTEL_METRICS_EXEMPLAR_FILTER",
        {"trace_based": True, "always_on": True, "always_off": False},
    )
    length = variables.number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", 1, 1_000_000)
    if length is None:
        length = variables.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", 1, 1_000_000)
    return OpenTelemetry(
        why,
        exports,
        _resource(config, variables),
        _traces(telemetry.traces, variables),
        metrics.interval or (60.0 if interval is None else interval / 1e3),
        metrics.temporality
        or variables.choice("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", _TEMPORALITIES)
        or "cumulative",
        aggregation == "exponential",
        exemplars is not False,
        length or ATTRIBUTE_LENGTH,
        tuple(dict.fromkeys(variables.warnings)),
        tuple(dict.fromkeys(problems)),
    )


def _reason(
    config: Config, sections: Iterable[Traces | Metrics | Events], variables: _Variables
) -> str | None:
    """What switches it on; None if nothing does."""
    if config.telemetry.enabled is True:
        return "telemetry.enabled is true"
    if config.telemetry.endpoint or any(section.endpoint for section in sections):
        return "an endpoint is set in the file"
    names = [f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT" for signal in SIGNALS]
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", *names):
        if variables.text(name) is not None:
            return f"{name} is set"
    return None


def _otlp(
    config: Config,
    signal: Signal,
    endpoint: str | None,
    variables: _Variables,
    environment: Mapping[str, str],
    problems: list[Problem],
) -> Export:
    telemetry = config.telemetry
    of = variables.of_signal
    name = of(signal, "PROTOCOL")
    if variables.text(name) == "http/json":
        variables.warnings.append((name, "http/json is not supported: http/protobuf is used"))
        protocol = telemetry.protocol or "http/protobuf"
    else:
        protocol = telemetry.protocol or variables.choice(name, _PROTOCOLS) or "http/protobuf"
    grpc = protocol == "grpc"
    own = variables.read(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", _url, "a URL")
    if endpoint is None and telemetry.endpoint is None and own is not None:
        endpoint = own
    elif endpoint is None:
        base = telemetry.endpoint or variables.read("OTEL_EXPORTER_OTLP_ENDPOINT", _url, "a URL")
        base = base or ("http://localhost:4317" if grpc else "http://localhost:4318")
        endpoint = base if grpc else f"{base.rstrip('/')}/v1/{signal}"
    insecure = endpoint.startswith("http://")
    if endpoint.startswith("//"):
        # gRPC allows host:port, and then says by another variable whether it is without TLS.
        plain = not grpc or variables.flag(of(signal, "INSECURE"))
        endpoint, insecure = f"{'http' if plain else 'https'}:{endpoint}", bool(plain)
    headers = {k.lower(): v for k, v in variables.pairs(of(signal, "HEADERS")).items()}
    for header, value in telemetry.headers.items():
        try:
            headers[header] = read(value, environment)
        except MissingValueError as error:
            problems.append((f"telemetry.headers.{header}", str(error)))
    timeout = variables.number(of(signal, "TIMEOUT"), 1, 3_600_000)
    compression = telemetry.compression or variables.choice(
        of(signal, "COMPRESSION"), {"gzip": "gzip", "none": "none"}
    )
    return Export(
        "otlp",
        endpoint,
        protocol,
        headers,
        telemetry.timeout or (10.0 if timeout is None else timeout / 1e3),
        compression == "gzip",
        telemetry.ca or variables.text(of(signal, "CERTIFICATE")),
        telemetry.certificate or variables.text(of(signal, "CLIENT_CERTIFICATE")),
        telemetry.key or variables.text(of(signal, "CLIENT_KEY")),
        insecure,
    )


def _traces(traces: Traces, variables: _Variables) -> TraceSettings:
    sampler = traces.sampler
    ratio = traces.ratio
    if sampler is None and ratio is not None:
        sampler = "parentbased_traceidratio"
    if sampler is None:
        sampler = variables.choice("OTEL_TRACES_SAMPLER", _SAMPLERS) or "parentbased_always_on"
    if ratio is None and "ratio" in sampler:
        ratio = variables.read("OTEL_TRACES_SAMPLER_ARG", _share, "a share from 0 to 1")
    queue = traces.queue or variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 1, 1_000_000) or 8192
    batch = traces.batch or variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, 100_000) or 512
    delay = variables.number("OTEL_BSP_SCHEDULE_DELAY", 1, 3_600_000)
    names = (variables.text("OTEL_SEMCONV_STABILITY_OPT_IN") or "").split(",")
    opted = "gen_ai_latest_experimental" in map(str.strip, names)
    return TraceSettings(
        sampler,
        1.0 if ratio is None else ratio,
        traces.copies,
        frozenset(traces.keep),
        traces.slow,
        opted if traces.gen_ai is None else traces.gen_ai,
        queue,
        traces.queue_bytes,
        min(batch, queue),
        traces.interval or (5.0 if delay is None else delay / 1e3),
    )


def _propagators(variables: _Variables) -> None:
    """Warn of propagators that are not known; baggage is passed on in any case."""
    names = [one.strip() for one in (variables.text("OTEL_PROPAGATORS") or "").split(",")]
    for name in names:
        if name not in ("", "tracecontext", "baggage"):
            variables.warnings.append(
                ("OTEL_PROPAGATORS", f"{name} is not supported: tracecontext and baggage are used")
            )


def _resource(config: Config, variables: _Variables) -> dict[str, str]:
    found = variables.pairs("OTEL_RESOURCE_ATTRIBUTES") | config.telemetry.resource
    name = variables.text("OTEL_SERVICE_NAME")
    if name is not None and "service.name" not in config.telemetry.resource:
        found["service.name"] = name
    return found

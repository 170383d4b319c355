"""OpenTelemetry as it results from the file and the standard variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import ROOT
from understudy.monitor.config.compile import compile_plan, plan_json
from understudy.monitor.config.load import parse
from understudy.monitor.config.otel import OpenTelemetry, open_telemetry
from understudy.monitor.errors import ConfigError
from understudy.monitor.routing.plan import Plan, Tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
AT = {ENDPOINT: "http://collector:4318"}

pytest.importorskip("opentelemetry.sdk", reason="NOT TESTED: needs the extra otel")


def config(telemetry: Any = None) -> Any:
    document = {
        "version": 1,
        "listen": "127.0.0.1:8080",
        "models": [{"name": "m"}],
        "champion": {"url": "http://127.0.0.1:9000"},
        **({"telemetry": telemetry} if telemetry is not None else {}),
    }
    return parse(json.dumps(document), "test", Path("/etc/understudy"))


def result(telemetry: Any = None, **environment: str) -> OpenTelemetry:
    return open_telemetry(config(telemetry), environment)


@pytest.mark.parametrize(
    ("telemetry", "environment", "on"),
    [
        (None, {}, False),
        (None, AT, True),
        (None, {ENDPOINT: ""}, False),
        (None, {ENDPOINT: "  "}, False),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/x"}, True),
        (None, {**AT, "OTEL_SDK_DISABLED": "true"}, False),
        (None, {**AT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        (None, {**AT, "OTEL_SDK_DISABLED": "1"}, True),
        ("auto", AT, True),
        (False, AT, False),
        (True, {}, True),
        (True, {"OTEL_SDK_DISABLED": "true"}, True),
        ({"endpoint": "http://c:4318"}, {}, True),
        ({"traces": {"endpoint": "http://c:4318/x"}}, {}, True),
        ({"enabled": False, "endpoint": "http://c:4318"}, AT, False),
    ],
)
def test_when_it_is_on(telemetry: Any, environment: dict[str, str], on: bool) -> None:
    found = result(telemetry, **environment)
    assert bool(found.exports) == on
    assert (found.tracing() is not None) == on
    assert found.problems == ()


@pytest.mark.parametrize(
    ("telemetry", "environment", "traces", "metrics"),
    [
        (None, AT, "http://collector:4318/v1/traces", "http://collector:4318/v1/metrics"),
        (None, {ENDPOINT: "https://c/base/"}, "https://c/base/v1/traces", "https://c/base/v1/metrics"),
        (None, {**AT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/mine"}, "http://t/mine",
         "http://collector:4318/v1/metrics"),
        ({"endpoint": "http://file:1"}, {**AT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"},
         "http://file:1/v1/traces", "http://file:1/v1/metrics"),
        ({"traces": {"endpoint": "http://own/"}}, AT, "http://own/",
         "http://collector:4318/v1/metrics"),
        (True, {}, "http://localhost:4318/v1/traces", "http://localhost:4318/v1/metrics"),
        ({"enabled": True, "protocol": "grpc"}, {}, "http://localhost:4317", "http://localhost:4317"),
        ({"protocol": "grpc"}, AT, "http://collector:4318", "http://collector:4318"),
    ],
)  # fmt: skip
def test_where_signals_are_sent(
    telemetry: Any, environment: dict[str, str], traces: str, metrics: str
) -> None:
    found = result(telemetry, **environment).exports
    assert found["traces"].endpoint == traces
    assert found["metrics"].endpoint == metrics


@pytest.mark.parametrize(
    ("endpoint", "more", "then", "insecure"),
    [
        ("collector:4317", {}, "https:/" "/collector:4317", False),
        ("collector:4317", {"OTEL_EXPORTER_OTLP_INSECURE": "true"}, "http://collector:4317", True),
        ("http://collector:4317", {}, "http://collector:4317", True),
        ("https://collector:4317", {"OTEL_EXPORTER_OTLP_INSECURE": "true"}, "https://collector:4317",
         False),
    ],
)  # fmt: skip
def test_grpc_with_and_without_tls(
    endpoint: str, more: dict[str, str], then: str, insecure: bool
) -> None:
    of = {ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **more}
    found = result(**of).exports["traces"]
    assert (found.protocol, found.endpoint, found.insecure) == ("grpc", then, insecure)


@pytest.mark.parametrize(
    ("telemetry", "environment", "tracing"),
    [
        (None, {}, Tracing()),
        (None, {"OTEL_TRACES_SAMPLER": "always_on"}, Tracing(False)),
        (None, {"OTEL_TRACES_SAMPLER": "always_off"}, Tracing(False, 1 << 56)),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Tracing(True, 1 << 56)),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
         Tracing(False, 3 << 54)),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
         Tracing(True, 1 << 55)),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio"}, Tracing(False)),
        ({"traces": {"ratio": 0.5}}, {"OTEL_TRACES_SAMPLER": "always_off"}, Tracing(True, 1 << 55)),
        ({"traces": {"ratio": "25%"}}, {}, Tracing(True, 3 << 54)),
        ({"traces": {"sampler": "always_off"}}, {"OTEL_TRACES_SAMPLER": "always_on"},
         Tracing(False, 1 << 56)),
        ({"traces": {"copies": "none", "keep": ["slow"]}}, {}, Tracing(copies="none", keep=True)),
        ({"traces": {"exporter": "none"}}, {}, None),
        (None, {"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)  # fmt: skip
def test_what_the_workers_get(
    telemetry: Any, environment: dict[str, str], tracing: Tracing | None
) -> None:
    found = result(telemetry, **AT, **environment)
    assert found.tracing() == tracing
    plan = compile_plan(config(telemetry), 3, tracing=found.tracing())
    assert plan.tracing == tracing
    assert Plan.from_json(json.loads(json.dumps(plan_json(plan)))) == plan


def test_everything_else_of_the_environment() -> None:
    found = result(
        **AT,
        OTEL_EXPORTER_OTLP_HEADERS="Api-Key=a%20b,tenant=1",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="other=2",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_CERTIFICATE="/ca.pem",
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="/cert.pem",
        OTEL_EXPORTER_OTLP_CLIENT_KEY="/key.pem",
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_LOGS_EXPORTER="none",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod,service.name=a",
        OTEL_SERVICE_NAME="b",
        OTEL_BSP_SCHEDULE_DELAY="200",
        OTEL_BSP_MAX_QUEUE_SIZE="100",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="500",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="100",
        OTEL_METRIC_EXPORT_INTERVAL="5000",
        OTEL_METRICS_EXEMPLAR_FILTER="always_off",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="Delta",
        OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram",
    )
    traces, metrics = found.exports["traces"], found.exports["metrics"]
    assert set(found.exports) == {"traces", "metrics"}
    assert traces.headers == {"api-key": "a b", "tenant": "1"}
    assert metrics.headers == {"other": "2"}
    assert (traces.timeout, traces.gzip) == (2.5, True)
    assert (traces.ca, traces.certificate, traces.key) == ("/ca.pem", "/cert.pem", "/key.pem")
    assert found.resource == {"deployment.environment.name": "prod", "service.name": "b"}
    assert (found.traces.queue, found.traces.batch, found.traces.interval) == (100, 100, 0.2)
    assert found.attribute_length == 100
    assert (found.metric_interval, found.temporality, found.exponential, found.exemplars) == (
        *(5.0, "delta"), True, False,
    )  # fmt: skip
    assert found.warnings == ()
    assert "a b" not in repr(found)


def test_the_file_wins() -> None:
    telemetry = {
        "endpoint": "https://file",
        "headers": {"api-key": "file", "Secret": {"env": "KEY", "prefix": "Bearer "}},
        "timeout": "3s",
        "compression": "none",
        "ca": "ca.pem",
        "resource": {"service.name": "file"},
        "traces": {"queue": 7, "batch": 3, "interval": "1s"},
        "metrics": {"interval": "10s", "temporality": "cumulative", "histograms": "explicit"},
        "events": {"exporter": "console"},
    }
    found = result(
        telemetry,
        KEY="s3cret",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=env,more=1",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_CERTIFICATE="/env.pem",
        OTEL_SERVICE_NAME="env",
        OTEL_BSP_MAX_QUEUE_SIZE="9",
        OTEL_METRIC_EXPORT_INTERVAL="1",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        OTEL_LOGS_EXPORTER="none",
    )
    traces = found.exports["traces"]
    assert traces.headers == {"api-key": "file", "more": "1", "secret": "Bearer s3cret"}
    assert (traces.timeout, traces.gzip, traces.ca) == (3.0, False, "/etc/understudy/ca.pem")
    assert found.resource == {"service.name": "file"}
    assert (found.traces.queue, found.traces.batch, found.traces.interval) == (7, 3, 1.0)
    assert (found.metric_interval, found.temporality) == (10.0, "cumulative")
    assert found.exports["logs"].exporter == "console"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "novalue-s3cret"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "minute"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no value"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_SDK_DISABLED", "yes"),
    ],
)
def test_what_cannot_be_used_is_a_warning(name: str, value: str) -> None:
    found = result(**{**AT, name: value})
    ((path, text),) = found.warnings
    assert path == name
    assert "s3cret" not in text
    assert found.exports["traces"].protocol == "http/protobuf"
    assert found.problems == ()


def test_a_ratio_out_of_range_is_a_warning() -> None:
    found = result(**AT, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="25")
    assert found.warnings == (
        ("OTEL_TRACES_SAMPLER_ARG", "not used: it must be a share from 0 to 1"),
    )
    assert found.tracing() == Tracing(False)


def test_a_secret_that_is_missing_is_a_problem() -> None:
    found = result({"endpoint": "http://c", "headers": {"k": {"env": "NOT_SET"}}})
    assert found.problems == (
        ("telemetry.headers.k", "the environment variable NOT_SET is not set"),
    )


@pytest.mark.parametrize(
    ("telemetry", "path"),
    [
        ({"traces": {"sampler": "always_on", "ratio": 0.5}}, "telemetry.traces"),
        ({"traces": {"sampler": "everything"}}, "telemetry.traces.sampler"),
        ({"traces": {"keep": ["all"]}}, "telemetry.traces.keep[0]"),
        ({"certificate": "a.pem"}, "telemetry"),
        ({"endpoint": "collector:4318"}, "telemetry.endpoint"),
        ({"metrics": {"interval": 60}}, "telemetry.metrics.interval"),
        ("sometimes", "telemetry"),
    ],
)
def test_mistakes_in_the_file_are_named(telemetry: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(telemetry)
    assert caught.value.problems[0][0].startswith(path)


def test_without_the_sdk_auto_is_off_and_true_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = result(**AT)
    assert found.exports == {}
    assert found.tracing() is None
    ((_, text),) = found.warnings
    assert "pip install 'understudy-serving[otel]'" in text
    ((path, text),) = result(True).problems
    assert path == "telemetry.enabled"
    assert "understudy-serving[otel]" in text


def check(folder: Path, telemetry: Any, *more: str, **environment: str) -> str:
    file = folder / "understudy.yaml"
    document = {
        "version": 1, "listen": "127.0.0.1:8080", "models": [{"name": "m"}],
        "champion": {"url": "http://127.0.0.1:9000"}, "telemetry": telemetry,
    }  # fmt: skip
    file.write_text(json.dumps(document))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "config", "check", str(file), *more],
        env={**kept, **environment}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_config_check_says_what_results(tmp_path: Path) -> None:
    assert "telemetry" not in check(tmp_path, "auto").replace(str(tmp_path), "")
    ratio = {"traces": {"ratio": "10%"}}
    assert "telemetry: off (no endpoint is set)" in check(tmp_path, ratio)
    text = check(tmp_path, {"traces": {"ratio": "10%"}}, **AT, OTEL_PROPAGATORS="b3")
    assert f"telemetry: on ({ENDPOINT} is set)" in text
    assert (
        "telemetry.traces: http/protobuf to http://collector:4318/v1/traces, sampler "
        "parentbased_traceidratio 0.1, copies: link" in text
    )
    assert "OTEL_PROPAGATORS: warning: b3 is not supported" in text
    found = json.loads(check(tmp_path, "auto", "--json", **AT))["telemetry"]
    assert found["telemetry.metrics"] == (
        "http/protobuf to http://collector:4318/v1/metrics every 60 s, cumulative, explicit histograms"
    )

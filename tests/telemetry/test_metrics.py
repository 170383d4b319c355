"""The exposition of a real process, read by parsers that are not ours."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_fd_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.patience import eventually, patient
from tests.support.plane_process import LABELS, PlaneProcess, WorkerEnd, encoded
from tests.support.traffic import TRACE, count_traffic
from tools.parts.debian import environment, need
from understudy.monitor.records import frames
from understudy.monitor.telemetry.exposition import encode

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def parse_openmetrics(text: str) -> Iterable[Metric]:
    parse: Any = text_fd_to_metric_families
    families: Iterable[Metric] = parse(StringIO(text))
    return families


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    count_traffic(stats)
    with plane:
        plane.report(0, config_error="bad", evaluation_restarts=2)
        worker = WorkerEnd(plane)
        records = [
            encoded({"a": [None]}, {"p": [-0.5], "label": ["x"]}, trace_id=TRACE, duration=0.02),
            encoded({"a": [2.0]}, {"p": [0.75], "label": ["y"]}),
            encoded(b"{", b"{"),
        ]
        worker.batch(1, records)
        worker.wait_for(frames.ACK, 1)
        eventually(lambda: plane.metric("understudy_config_last_reload_successful") == 0)
        yield plane


def samples(families: Iterable[Metric]) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_every_promised_name_is_there_with_its_value(plane: PlaneProcess) -> None:
    found = samples(parse_text(plane.get("/metrics").text))

    def value(name: str, **labels: str) -> float:
        values = [v for have, v in found["understudy_" + name] if labels.items() <= have.items()]
        assert len(values) == 1, (name, labels, values)
        return values[0]

    assert value("requests_total", model="delays", arm="champion", outcome="ok") == 10
    assert set(found["understudy_requests_total"][0][0]) == set(LABELS)
    assert value("request_bytes_total", arm="candidate") == 1000
    assert value("response_bytes_total", arm="candidate") == 500
    for name in ("request_duration", "time_to_first_byte", "queue"):
        histogram = {"arm": "champion", "outcome": "ok"}
        assert value(f"{name}_seconds_count", **histogram) == 10
        assert value(f"{name}_seconds_sum", **histogram) == pytest.approx(0.55)
        assert value(f"{name}_seconds_bucket", **histogram, le="0.025") == 2
        assert value(f"{name}_seconds_bucket", **histogram, le="+Inf") == 10
    quantile = {"window": "start", "arm": "champion", "role": "primary", "outcome": "all"}
    name = "request_duration_quantile_seconds"
    assert value(name + "_count", **quantile) == 20
    assert value(name, **quantile, quantile="0.5") == pytest.approx(0.05, rel=0.01)
    assert value(name, **quantile, quantile="1.0") == pytest.approx(0.1)
    assert value("in_flight_requests", arm="champion", role="primary") == 3
    assert value("mirror_total", arm="candidate", outcome="ok") == 8
    assert value("dropped_total", stage="mirror", reason="queue_full") == 2
    assert value("dropped_total", stage="mirror", reason="breaker_open") == 5
    assert value("dropped_total", stage="handoff", reason="queue_full") == 3
    assert value("breaker_workers", arm="candidate", state="half_open") == 1
    assert value("breaker_workers", arm="candidate", state="closed") == 0
    assert value("rejected_requests_total", reason="header_too_large") == 4
    assert value("records_eligible_total") == 20
    assert value("records_sent_total") == 17
    assert value("records_lost_total") == 1
    assert value("records_evaluated_total") == 3
    assert value("cold_start_seconds", arm="champion") == 2.5
    assert value("cold_starts_total", arm="champion") == 1
    assert value("prediction_value_bucket", prediction="p", le="0.0") == 1
    assert value("prediction_value_bucket", prediction="p", le="+Inf") == 2
    assert value("prediction_values_total", prediction="p") == 2
    assert value("prediction_mean", prediction="p") == pytest.approx(0.125)
    assert value("prediction_class_total", prediction="label", **{"class": "y"}) == 1
    assert value("feature_missing_total", feature="a", model="delays") == 1
    assert value("feature_rows_total", model="delays") == 2
    assert value("undecodable_total", part="request", reason="not_json") == 1
    assert value("workers") == 1
    assert value("evaluation_restarts_total") == 2
    assert value("config_generation") == 1
    assert value("config_last_reload_successful") == 0
    assert value("state_write_failures_total") == 0
    assert value("process_resident_memory_bytes", process="evaluation") > 1e7
    assert value("process_cpu_seconds_total", process="worker-0") > 0
    assert value("build_info") == 1
    assert all(name.startswith("understudy_") for name in found)
    for series in found.values():
        for labels, number in series:
            assert not math.isnan(number)
            assert not math.isinf(number)
            assert "nan" not in labels.values()


def test_openmetrics_is_strict_and_carries_the_trace(plane: PlaneProcess) -> None:
    answer = plane.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    exemplars = [
        (sample.labels["le"], sample.labels["arm"], sample.exemplar)
        for family in parse_openmetrics(answer.text)
        for sample in family.samples
        if sample.exemplar
    ]
    ((edge, arm, exemplar),) = exemplars
    assert (edge, arm) == ("0.025", "champion")
    assert exemplar.labels == {"trace_id": TRACE}
    assert exemplar.value == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/html", "text/plain"),
        ("application/json;q=0.9, nonsense;q=x, ;", "text/plain"),
        (OPENMETRICS, "application/openmetrics-text"),
        (OPENMETRICS + ";q=0.5,text/plain;version=0.0.4;q=0.9", "text/plain"),
        (
            OPENMETRICS + ",application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
            "encoding=delimited," + OPENMETRICS + ";q=0.8,text/plain;q=0.5",
            "application/vnd.google.protobuf",
        ),
        ("application/vnd.google.protobuf;encoding=text", "text/plain"),
    ],
)
def test_the_format_is_the_one_asked_for(accept: str, kind: str) -> None:
    assert encode([], accept)[0].startswith(kind)


def test_promtool_finds_nothing_to_complain_about(plane: PlaneProcess) -> None:
    checked = subprocess.run(
        [need("promtool"), "check", "metrics"],
        input=plane.get("/metrics").content,
        capture_output=True,
        env=environment(),
        timeout=patient(60),
        check=False,
    )
    assert checked.stderr == b""
    assert checked.stdout == b""
    assert checked.returncode == 0


def test_odd_label_values_are_escaped(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    odd = 'a"b\\c\nd é'
    with plane.start():
        worker = WorkerEnd(plane)
        worker.batch(1, [encoded({odd: [None]}, {odd: [odd]})])
        worker.wait_for(frames.ACK, 1)
        for accept in ("text/plain", OPENMETRICS):
            text = plane.get("/metrics", headers={"accept": accept}).text
            parse = parse_openmetrics if "openmetrics" in accept else parse_text
            found = samples(parse(text))
            ((labels, _),) = found["understudy_prediction_class_total"]
            assert labels["prediction"] == labels["class"] == odd

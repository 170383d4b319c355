"""A real Prometheus scrapes the real process: protobuf, native histograms, exemplars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.plane_process import PlaneProcess, WorkerEnd, encoded
from tests.support.prometheus import NATIVE, Prometheus
from tests.support.promtool import NEEDS
from tests.support.traffic import TRACE, count_traffic
from understudy.monitor.records import frames

pytestmark = pytest.mark.integration

FEATURES = {"native": f"{NATIVE},exemplar-storage", "text": "exemplar-storage"}


@pytest.fixture(params=NEEDS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=sorted(FEATURES))
def prometheus(
    tmp_path: Path, request: pytest.FixtureRequest, version: str
) -> Iterator[Prometheus]:
    NEEDS[version]("prometheus")
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    count_traffic(stats)
    (tmp_path / "prometheus").mkdir()
    server = Prometheus(tmp_path / "prometheus", plane.port, FEATURES[request.param], version)
    try:
        with plane:
            worker = WorkerEnd(plane)
            worker.batch(1, [encoded({"a": [None]}, {"p": [-0.5]}, trace_id=TRACE, duration=0.02)])
            worker.wait_for(frames.ACK, 1)
            yield server
    finally:
        server.stop()


OK = 'arm="champion",outcome="ok"'


@pytest.mark.parametrize("prometheus", ["native"], indirect=True)
def test_native_histograms_are_stored_with_exact_counts(prometheus: Prometheus) -> None:
    name = f"understudy_request_duration_seconds{{{OK}}}"
    # A scrape on a busy machine may time out, and the next one tells.
    eventually(lambda: prometheus.value("up") == 1)
    assert prometheus.value(f"histogram_count({name})") == 10
    assert prometheus.value(f"histogram_sum({name})") == pytest.approx(0.55)
    # Linear interpolation in a bucket that is 9 % wide.
    # Half of ten values are at most anything between the fifth and the sixth, to the width of a bucket.
    assert 0.05 / 1.1 <= prometheus.value(f"histogram_quantile(0.5, {name})") <= 0.06 * 1.1
    assert prometheus.value(f"histogram_quantile(1, {name})") == pytest.approx(0.1, rel=0.1)
    assert prometheus.value(f"histogram_fraction(0, 1000, {name})") == pytest.approx(1)


@pytest.mark.parametrize("prometheus", ["text"], indirect=True)
def test_classic_histograms(prometheus: Prometheus) -> None:
    name = "understudy_request_duration_seconds"
    assert prometheus.value(f"{name}_count{{{OK}}}") == 10
    assert prometheus.value(f'{name}_bucket{{{OK},le="0.05"}}') == 5
    assert prometheus.value(f"histogram_quantile(0.5, {name}_bucket{{{OK}}})") == pytest.approx(
        0.05, rel=0.1
    )


def test_plain_metrics_and_exemplars_in_both_formats(prometheus: Prometheus) -> None:
    # The wire formats that were not seen are there, too, with zeros.
    assert prometheus.value(f"sum(understudy_requests_total{{{OK}}})") == 10
    assert prometheus.value('understudy_mirror_total{outcome="queue_full"}') == 2
    assert prometheus.value('understudy_in_flight_requests{arm="champion"}') == 3
    assert prometheus.value('understudy_prediction_value_bucket{le="0.0"}') == 1
    assert prometheus.value('understudy_prediction_value_bucket{le="-1.0"}') == 0
    assert prometheus.value("understudy_prediction_mean") == -0.5
    quantiles = "understudy_request_duration_quantile_seconds"
    series = '{window="start",arm="candidate",outcome="all"'
    assert prometheus.value(f'{quantiles}{series},quantile="1.0"}}') == pytest.approx(0.1)
    assert prometheus.value(f"{quantiles}_count{series}}}") == 10
    assert prometheus.value("understudy_build_info") == 1
    gauge, histogram = "understudy_in_flight_requests", "understudy_request_duration_seconds"
    told = httpx.get(prometheus.url + "/api/v1/metadata", timeout=patient(10)).json()["data"]
    assert told[gauge][0]["type"] == "gauge"
    assert told[histogram][0]["type"] == "histogram"
    assert told[histogram][0]["help"]

    def exemplars() -> list[dict[str, Any]]:
        answer = httpx.get(
            prometheus.url + "/api/v1/query_exemplars",
            params={
                "query": '{__name__=~"understudy_request_duration_seconds.*"}',
                "start": 0,
                "end": 4e9,
            },
            timeout=patient(10),
        )
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    found = eventually(exemplars)
    assert {e["labels"]["trace_id"] for series in found for e in series["exemplars"]} == {TRACE}

"""A real Prometheus scrapes the whole service under load; every metric is found by query."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.promtool import NEEDS
from tests.support.world import Load, Model, World

pytestmark = pytest.mark.integration


@pytest.fixture(params=NEEDS)
def prometheus(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[World, str]]:
    program = NEEDS[request.param]("prometheus")
    world = World(tmp_path, Model(), Model("drop"))
    with world:
        port = free_port()
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: understudy\n"
            f"    static_configs: [{{targets: ['{world.service.control.removeprefix('http://')}']}}]\n"
        )
        process = subprocess.Popen(
            [str(program), f"--config.file={tmp_path / 'prometheus.yml'}",
             f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield world, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(patient(20))


def query(url: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx.get(url + "/api/v1/query", params={"query": expression})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return found


def test_every_metric_is_found_by_query(prometheus: tuple[World, str]) -> None:
    world, url = prometheus
    load = Load(world.service.url)
    load.answered(200)
    httpx.post(world.service.url + "/v2/models/m/infer", content=b"no json")
    text = httpx.get(world.service.control + "/metrics").text
    names = set(re.findall(r"^(understudy_\w+?)(?:\{| )", text, re.MULTILINE))
    assert len(names) > 40
    eventually(lambda: query(url, 'understudy_mirror_total{outcome="upstream_reset"} > 0'))
    eventually(lambda: query(url, "rate(understudy_requests_total[10s]) > 0"))
    # A slow machine misses a scrape now and then, and what began last is there with the next one.
    eventually(lambda: not [name for name in sorted(names) if not query(url, name)])
    expression = (
        "histogram_quantile(0.99, sum by (le, arm)"
        " (rate(understudy_request_duration_seconds_bucket[1m])))"
    )
    eventually(
        lambda: {"champion", "other0"} <= {r["metric"]["arm"] for r in query(url, expression)}
    )
    name = 'understudy_request_duration_quantile_seconds{arm="champion"}'
    eventually(
        lambda: {r["metric"]["quantile"] for r in query(url, name)} >= {"0.5", "0.99", "0.999"}
    )
    seen = load.stop()
    assert set(seen) == {"200"}
    world.settled()
    total = 'sum(understudy_requests_total{role="primary",model="m"})'
    eventually(lambda: query(url, total)[0]["value"][1] == str(seen["200"] + 1))

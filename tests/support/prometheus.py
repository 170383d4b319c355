"""A real Prometheus that scrapes a service."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.promtool import NEEDS
from tools.parts.debian import environment

NATIVE = "native-histograms"
"""The feature of Prometheus 2, which is a setting of a scrape in Prometheus 3."""


class Prometheus:
    """``version`` is one of :data:`tests.support.promtool.NEEDS`; ``features`` are those of
    Prometheus 2."""

    def __init__(self, folder: Path, target: int, features: str, version: str) -> None:
        native = version == "prometheus-3" and NATIVE in features
        self.url = f"http://127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        config.write_text(
            "scrape_configs:\n- job_name: understudy\n  scrape_interval: 1s\n"
            f"  scrape_timeout: 1s\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
            + "  scrape_native_histograms: true\n"
            * native
        )
        self.process = subprocess.Popen(
            [
                NEEDS[version]("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                f"--enable-feature={features}",
                "--log.level=error",
            ],
            env=environment(),
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(
            self.url + "/api/v1/query", params={"query": expression}, timeout=patient(10)
        )
        result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        (sample,) = eventually(lambda: self.query(expression))
        return float(sample["value"][1])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

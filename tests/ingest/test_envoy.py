"""A real Envoy, with the configuration of docs/envoy.md, tells the processor what passes it."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException

from tests.support.documented import ROOT, blocks_of
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.service import REAL, Service
from tests.support.v2_server import v2_server
from tools.parts.servers import need_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = ROOT / "docs" / "envoy.md"
WAYS = ("direct", "json", "binary", "raw", "typed", "gzip", "stream")
"""A model for each way to send the same rows; ``direct`` goes through the sidecar."""
ROWS = np.random.default_rng(21).normal(size=(40, 3)).astype(np.float32).round(3)


def documented(title: str) -> Any:
    (text,) = [block.text for block in blocks_of(PAGE) if block.title == title]
    return yaml.safe_load(text)


def the_filter(listener: Any) -> Any:
    return listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]


def rounded(value: Any) -> Any:
    """Sums differ in their last digits, since rows come in other batches."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@dataclass
class World:
    """Envoy in front of a model server, and beside it the processor and the service."""

    folder: Path
    envoy: int
    service: Service
    processor: subprocess.Popen[str]
    log: Path

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.envoy}"

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(
            self.service.control + "/v1/records?limit=400"
        ).json()["records"]
        return found

    def ended(self) -> dict[str, int]:
        """What the processor says when it ends."""
        self.processor.send_signal(signal.SIGTERM)
        out, _ = self.processor.communicate(timeout=patient(20))
        assert self.processor.returncode == 0, self.log.read_text()
        result: dict[str, int] = json.loads(out)
        return result


@contextlib.contextmanager
def world(folder: Path, **changes: Any) -> Iterator[World]:
    program = need_server("envoy") / "envoy"
    envoy, processor_port = free_port(), free_port()
    with v2_server() as server, contextlib.ExitStack() as stack:
        service = Service(
            folder,
            REAL,
            champion={"url": f"http://127.0.0.1:{server.http}"},
            models=[{"name": name} for name in (*WAYS, "broken")],
            records={"keep": 400},
        )
        stack.enter_context(service.start())
        log = folder / "processor.log"
        processor = subprocess.Popen(
            [
                *(sys.executable, "-m", "understudy", "ingest", "ext-proc", "--json"),
                *("--config", str(service.file), "--url", service.control),
                *("--listen", f"127.0.0.1:{processor_port}"),
            ],
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(log.open("w")),
            text=True,
        )
        stack.callback(processor.kill)
        config = documented("envoy.yaml")
        the_filter(config["static_resources"]["listeners"][0])["typed_config"] |= changes
        text = json.dumps(config)
        for old, new in ((8080, envoy), (8000, server.http), (8001, server.grpc),
                         (9191, processor_port)):  # fmt: skip
            assert text.count(f'"port_value": {old}') == 1
            text = text.replace(f'"port_value": {old}', f'"port_value": {new}')
        (folder / "envoy.json").write_text(text)
        with (folder / "envoy.log").open("w") as output:
            running = subprocess.Popen(
                [str(program), "-c", str(folder / "envoy.json"), "--concurrency", "1",
                 "-l", "warning", "--use-dynamic-base-id"],
                stdout=output, stderr=output,
            )  # fmt: skip
        stack.callback(running.wait)
        stack.callback(running.terminate)
        eventually(lambda: "external processor at" in log.read_text())

        def ready() -> bool:
            assert running.poll() is None, (folder / "envoy.log").read_text()[-2000:]
            try:
                client = triton_grpc.InferenceServerClient(f"127.0.0.1:{envoy}")
                return bool(client.is_server_ready(client_timeout=5))
            except InferenceServerException:
                return False

        eventually(ready)
        yield World(folder, envoy, service, processor, log)


def tensor(kind: Any, row: Any, **more: Any) -> Any:
    one = kind("x", [1, 3], "FP32")
    one.set_data_from_numpy(row.reshape(1, 3), **more)
    return one


def send_all(world: World) -> None:
    """The same rows in every way."""
    body = [
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3],
                     "data": [float(cell) for cell in row]}]}
        for row in ROWS
    ]  # fmt: skip
    with httpx.Client(timeout=patient(20)) as client:
        for one in body:
            for host, model in ((world.service.url, "direct"), ("http://" + world.http, "json")):
                answer = client.post(f"{host}/v2/models/{model}/infer", json=one)
                assert answer.status_code == 200, answer.text
    http = triton_http.InferenceServerClient(world.http)
    rpc = triton_grpc.InferenceServerClient(world.http)
    stub = rpc._client_stub
    results: queue.Queue[Any] = queue.Queue()
    rpc.start_stream(lambda result, error: results.put((result, error)))
    for number, row in enumerate(ROWS):
        http.infer("binary", [tensor(triton_http.InferInput, row, binary_data=True)])
        sent = [tensor(triton_grpc.InferInput, row)]
        assert rpc.infer("raw", sent).as_numpy("sum") == pytest.approx([row.sum()], abs=1e-5)
        rpc.infer("gzip", sent, compression_algorithm="gzip")
        typed = triton_grpc.service_pb2.ModelInferRequest(model_name="typed")
        described = typed.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        described.contents.fp32_contents.extend(row.tolist())
        stub.ModelInfer(typed)
        rpc.async_stream_infer("stream", sent, request_id=f"s{number}")
    for _ in ROWS:
        assert results.get(timeout=patient(20))[1] is None
    rpc.stop_stream()
    rpc.close()
    http.close()


def test_all_ways_through_envoy_have_the_columns_of_the_direct_one(tmp_path: Path) -> None:
    with world(tmp_path) as running:
        send_all(running)

        def models() -> Any:
            found = httpx.get(running.service.control + "/v1/models").json()["models"]
            by_name = {model["name"]: model["features"] for model in found}
            counts = {n: [f["present"] for f in by_name.get(n, ())] for n in WAYS}
            assert counts == dict.fromkeys(WAYS, [len(ROWS)] * 3)
            return by_name

        by_name = eventually(models)
        status = httpx.get(running.service.control + "/v1/status").json()
        predicted = {one["model"]: one for one in status["predictions"]}
        for way in WAYS[1:]:
            assert rounded(by_name[way]) == rounded(by_name["direct"]), way
            found, wanted = predicted[way], predicted["direct"]
            assert (found["prediction"], found["count"]) == (wanted["prediction"], len(ROWS))
            assert found["mean"] == pytest.approx(wanted["mean"], rel=1e-6)
        assert status["undecodable"] == []
        records = running.records()
        assert {record["outcome"] for record in records} == {"ok"}
        streamed = [record for record in records if record["model"] == "stream"]
        assert len({record["request_id"] for record in streamed}) == len(ROWS)
        assert all("/s" in record["request_id"] for record in streamed)
        assert all(0 < record["duration_seconds"] < patient(20) for record in records)
        metrics = httpx.get(running.service.control + "/metrics").text
        assert 'understudy_ingested_total{outcome="taken",source="ext-proc"} 240.0' in metrics
        found = running.ended()
        assert (found["records"], found["sent"], found["dropped"]) == (240, 240, 0)


def test_errors_and_ids(tmp_path: Path) -> None:
    with world(tmp_path) as running:
        rpc = triton_grpc.InferenceServerClient(running.http)
        sent = [tensor(triton_grpc.InferInput, ROWS[0])]
        with pytest.raises(InferenceServerException, match="no such model"):
            rpc.infer("broken", sent)
        results: queue.Queue[Any] = queue.Queue()
        rpc.start_stream(lambda result, error: results.put((result, error)))
        rpc.async_stream_infer("stream", [tensor(triton_grpc.InferInput, ROWS[0] - 1000)],
                               request_id="bad")  # fmt: skip
        assert results.get(timeout=patient(20))[1] is not None
        rpc.stop_stream()
        rpc.infer("raw", sent, headers={"x-request-id": "label-me", "traceparent":
                  "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})  # fmt: skip
        # Not inference, and not a model that is declared.
        assert rpc.is_server_ready()
        rpc.infer("unknown", sent)
        large = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 90000],
                             "data": [0.5] * 90000}]}  # fmt: skip
        path = f"http://{running.http}/v2/models/json/infer"
        assert httpx.post(path, json=large, timeout=patient(20)).status_code == 200

        def records() -> Any:
            found = {record["model"]: record for record in running.records()}
            assert set(found) == {"broken", "stream", "raw", "json"}
            return found

        found = eventually(records)
        assert (found["broken"]["outcome"], found["broken"]["status"]) == ("client_error", 200)
        assert found["stream"]["outcome"] == "server_error"
        assert found["stream"]["request_id"].endswith("/bad")
        assert found["raw"]["request_id"] == "label-me"
        assert found["raw"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert found["json"]["undecodable"]["request"] == "not_captured"
        assert found["json"]["request_bytes"] > 256 * 1024
        ended = running.ended()
        assert (ended["records"], ended["refused"], ended["dropped"]) == (5, 1, 0)


def test_nothing_waits_for_the_processor(tmp_path: Path) -> None:
    path = "/v2/models/json/infer"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
    with world(tmp_path) as running:
        url = f"http://{running.http}{path}"
        running.processor.send_signal(signal.SIGSTOP)
        for _ in range(5):
            assert httpx.post(url, json=body, timeout=patient(10)).status_code == 200
        running.processor.send_signal(signal.SIGCONT)
        eventually(lambda: len(running.records()) == 5)
        running.processor.kill()
        running.processor.wait()
        for _ in range(5):
            assert httpx.post(url, json=body, timeout=patient(10)).status_code == 200


def test_a_filter_that_waits_for_answers_is_refused_and_requests_go_on(tmp_path: Path) -> None:
    with world(tmp_path, observability_mode=False) as running:
        url = f"http://{running.http}/v2/models/json/infer"
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
        for _ in range(3):
            assert httpx.post(url, json=body, timeout=patient(10)).status_code == 200
        found = running.ended()
        assert found["waiting_for_us"] >= 3
        assert found["records"] == 0
        assert "observability_mode" in running.log.read_text()

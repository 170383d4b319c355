"""The gate over gRPC: the same open loop, outcomes from the status of calls, answers looked at."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from tests.support.certificates import self_signed
from tests.support.gates import gate, plan
from tests.support.grpc_calls import floats, request_message
from tests.support.grpc_world import INFER, SERVICE, grpc_server
from tests.support.load_server import written
from tests.support.served import mlserver
from tests.support.service import REAL, Service
from tests.support.v2_server import v2_server
from understudy.common.grpc_messages import framed
from understudy.loadtest.engine.pool import Loop, Open, Target, drive
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.scenarios.shapes import steady
from understudy.monitor.cli.main import main

STAGES = """
objectives: {errors: 10 %}
engine: {processes: 1}
stages: [{name: s, load: {rate: 60/s, seconds: 2s}}]
"""
ROWS = "a,b\n1,2\n3,4\n5,-9\n"
MATRIX = "rows: r.csv, format: open-inference-v2-matrix, datatypes: {a: FP32, b: FP32}"


def run(folder: Path, url: str, text: str, stages: str = STAGES) -> tuple[int, str, dict[str, Any]]:
    written(folder, "r.csv", ROWS)
    file = folder / "r.json"
    found = gate("--target", url, "--plan", plan(folder, stages + text), "--json-file", file)
    result = json.loads(file.read_text()) if file.exists() else {}
    return found.exit_code, " ".join(found.output.split()), result


@pytest.mark.parametrize("contents", ["raw", "typed"])
@pytest.mark.parametrize("named", ["model: m", "path: /v2/models/m/versions/3/infer"])
def test_rows_are_sent_as_calls_and_answers_are_read(
    tmp_path: Path, contents: str, named: str
) -> None:
    with v2_server() as server:
        code, output, result = run(
            tmp_path,
            f"grpc://127.0.0.1:{server.grpc}",
            f"payloads: {{{MATRIX}, rows_per_request: 3, contents: {contents}, {named}}}",
        )
    assert code == 0, output
    (stage,) = result["stages"]
    assert stage["load"]["statuses"] == {"OK": stage["load"]["requests"]}
    assert stage["load"]["failed"] == 0
    assert "looked at" not in output


def test_a_call_with_an_unexpected_answer_fails(tmp_path: Path) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    lines = [
        {"body": body, "expect": {"/outputs/0/data/0": expected, "/outputs/0/name": "sum"}}
        for expected in (3.0, 4.0)
    ]
    written(tmp_path, "b.jsonl", "\n".join(map(json.dumps, lines)))
    with v2_server() as server:
        code, _, result = run(
            tmp_path, f"grpc://127.0.0.1:{server.grpc}", "payloads: {bodies: b.jsonl, model: m}"
        )
    assert code == 1
    load = result["stages"][0]["load"]
    assert load["errors"] == {"unexpected prediction": load["failed"]}
    assert abs(load["failed"] - load["requests"] / 2) <= 1


def test_a_call_that_never_ends_well_is_not_measured(tmp_path: Path) -> None:
    with v2_server() as server:
        url = f"grpc://127.0.0.1:{server.grpc}"
        code, output, _ = run(tmp_path, url, f"payloads: {{{MATRIX}, model: broken}}")
        assert code == 2
        assert "ModelInfer: status NOT_FOUND: no such model (set payloads.model)" in output
        _, output, _ = run(tmp_path, url, f"payloads: {{{MATRIX}}}")
        assert "payloads.model: name the model" in output
        _, output, _ = run(tmp_path, url, f"payloads: {{{MATRIX}, path: /invocations}}")
        assert "only calls of ModelInfer are made of JSON" in output
        _, output, _ = run(tmp_path, f"grpc://127.0.0.1:{server.http}",
                           f"payloads: {{{MATRIX}, model: m}}")  # fmt: skip
        assert "write grpcs://, or HTTP/1.1: write http://" in output
        _, output, _ = run(tmp_path, f"http://127.0.0.1:{server.grpc}",
                           f"payloads: {{{MATRIX}, path: /v2/models/m/infer}}")  # fmt: skip
        assert "or gRPC: write grpc://" in output


def test_messages_of_any_service_are_sent_as_they_are(tmp_path: Path) -> None:
    texts = [b"UNAVAILABLE", b"NOT_FOUND", b"UNAVAILABLE"]
    (tmp_path / "m.bin").write_bytes(b"".join(map(framed, texts)))
    with grpc_server() as server:
        url = f"grpc://127.0.0.1:{server.port}"
        headers = "headers: {x-user: a, grpc-timeout: 5S}"
        text = f"payloads: {{messages: m.bin, path: {SERVICE}ModelInfer, {headers}}}\nchecks: {{format: none}}"
        code, output, _ = run(tmp_path, url, text)
        assert code == 0, output
        assert {data for _, _, data in server.seen} == set(texts)
        assert all(("x-user", "a") in about for _, about, _ in server.seen)
        assert all(left is not None and left <= 5.0 for left in server.left)
        assert "answers were not looked at" in output
        # What fails is counted by its status: only where some are good is it measured.
        target = Target("127.0.0.1", server.port, http2=True)
        payloads = [call_of(one, SERVICE + "Fail") for one in texts] + [call_of(b"x")]
        found = drive(target, payloads, Open(steady(100.0, 2.0), kind="even"))
    assert found.count == 200
    assert found.statuses == {"UNAVAILABLE": 100, "NOT_FOUND": 50, "OK": 50}
    assert found.errors == {"status UNAVAILABLE": 100, "status NOT_FOUND": 50}


def call_of(message: bytes, path: str = INFER) -> bytes:
    return Payload(
        framed(message), path=path, headers={"content-type": "application/grpc"}
    ).to_bytes("test")


def test_recorded_calls_are_sent_again(tmp_path: Path) -> None:
    """From a client through the sidecar into its records, exported, to the gate."""
    with v2_server() as server:
        service = Service(
            tmp_path, REAL, champion={"url": f"grpc://127.0.0.1:{server.grpc}"},
            models=[{"name": "m"}], records={"log": {"path": str(tmp_path / "log")}},
        )  # fmt: skip
        with service.start():
            through = service.url.rpartition(":")[2]
            with grpc.insecure_channel(f"127.0.0.1:{through}") as channel:
                for number in range(20):
                    body = request_message(("x", "FP32", floats(number, 1).reshape(1, 2)))
                    channel.unary_unary(INFER)(body.SerializeToString(), timeout=20)
            # And the gate through the sidecar.
            code, output, result = run(
                tmp_path, f"grpc://127.0.0.1:{through}", f"payloads: {{{MATRIX}, model: m}}"
            )
            assert code == 0, output
        exported = tmp_path / "recorded.jsonl"
        done = CliRunner().invoke(
            main, ["records", "export", str(tmp_path / "log"), "-o", str(exported)]
        )
        assert done.exit_code == 0, done.output
        code, output, result = run(
            tmp_path, f"grpc://127.0.0.1:{server.grpc}", "payloads: {records: recorded.jsonl}"
        )
        assert code == 0, output
        assert result["stages"][0]["load"]["failed"] == 0
        _, output, _ = run(
            tmp_path, f"http://127.0.0.1:{server.http}", "payloads: {records: recorded.jsonl}"
        )
        assert "gRPC calls need a target over gRPC" in output


def test_http_and_grpc_of_one_server_are_compared(tmp_path: Path) -> None:
    stages = """
    objectives: {errors: 10 %}
    engine: {processes: 1}
    stages:
    - name: protocols
      compare: {other: OTHER, load: {rate: 30/s, seconds: 1s}, repeats: 3, margin: 90 %}
    """
    with v2_server() as server:
        other = stages.replace("OTHER", f"http://127.0.0.1:{server.http}")
        _, output, result = run(
            tmp_path,
            f"grpc://127.0.0.1:{server.grpc}",
            f"payloads: {{{MATRIX}, path: /v2/models/m/infer}}",
            other.replace("\n    ", "\n"),
        )
    # Short repeats may differ too much for a verdict; both protocols were loaded.
    assert result["broken"] == "", output
    comparison = result["stages"][0]["comparison"]
    assert len(comparison["this"]) == len(comparison["other"]) == 3


def test_a_server_that_sends_clients_away_loses_no_call() -> None:
    """GOAWAY: calls in flight end over the old connection, others go over a new one."""
    with grpc_server(**{"grpc.max_connection_age_ms": 300}) as server:
        target = Target("127.0.0.1", server.port, http2=True)
        found = drive(target, [call_of(b"x" * 100)], Open(steady(200.0, 3.0), seed=2))
    assert found.failed == 0, found.errors
    assert found.statuses == {"OK": found.count}


def test_the_limit_of_the_server_is_kept_and_calls_are_more_connections() -> None:
    with grpc_server(**{"grpc.max_concurrent_streams": 2}) as server:
        target = Target("127.0.0.1", server.port, http2=True, connections=50)
        found = drive(target, [call_of(b"x")], Open(steady(300.0, 2.0), seed=2))
        assert found.failed == 0, found.errors
        found = drive(target, [call_of(b"x")], Loop(8, seconds=1.0))
        assert found.count > 8
        assert found.failed == 0, found.errors
        found = drive(target, [call_of(b"x")], Loop(1, 4, queries=10, seconds=30.0))
    assert (found.count, found.failed) == (40, 0)


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    with grpc_server() as server:
        target = Target("127.0.0.1", server.port, timeout=0.5, http2=True)
        payloads = [call_of(b"x", SERVICE + "Slow")]
        found = drive(target, payloads, Open(steady(1.0, 1.0), kind="even"))
        assert found.errors == {"timeout": 1}
        assert server.cancelled.wait(30), "the server must see it"


def test_large_answers_are_read_whole() -> None:
    """Flow control of the connection and of each stream is given back."""
    with grpc_server() as server:
        target = Target("127.0.0.1", server.port, http2=True)
        payloads = [call_of(b"%d" % (4 << 20), SERVICE + "Large")]
        found = drive(target, payloads, Open(steady(5.0, 4.0), kind="even"))
    assert (found.count, found.errors) == (20, {})


def test_calls_in_flight_of_a_server_that_ends_are_failures() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    begun = threading.Event()

    class Service(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            begun.set()
            return grpc.unary_unary_rpc_method_handler(lambda data, _: data)

    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def end() -> None:
        begun.wait(30)
        server.stop(0)

    thread = threading.Thread(target=end)
    thread.start()
    found = drive(Target("127.0.0.1", port, http2=True), [call_of(b"x")], Open(steady(100.0, 3.0)))
    thread.join()
    assert 0 < found.failed <= found.count
    assert found.count > 200, "an open loop goes on"
    assert set(found.errors) <= {"refused", "reset", "closed early", "status UNAVAILABLE",
                                 "status CANCELLED", "reset by the server (code 8)",
                                 "reset by the server (code 7)"}  # fmt: skip


@contextmanager
def _over_tls(folder: Path) -> Any:
    certificate, key = self_signed(folder, "server", "localhost")
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "inference.GRPCInferenceService",
                {"ModelInfer": grpc.unary_unary_rpc_method_handler(lambda data, _: data)},
            ),
        )
    )
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        yield port, certificate
    finally:
        server.stop(0)


def test_calls_over_tls(tmp_path: Path) -> None:
    with _over_tls(tmp_path) as (port, certificate):
        target = Target("localhost", port, True, ca_file=str(certificate), http2=True)
        found = drive(target, [call_of(b"x" * 100_000)], Open(steady(50.0, 1.0), kind="even"))
    assert (found.count, found.errors) == (50, {})


@pytest.mark.integration
@pytest.mark.slow
def test_mlserver_is_loaded_over_grpc(tmp_path: Path) -> None:
    with mlserver(tmp_path / "server"):
        port = json.loads((tmp_path / "server" / "settings.json").read_text())["grpc_port"]
        text = """
        payloads:
          template: {inputs: [{name: x, datatype: FP64, shape: [2, 4], data: {$vector: 8}}]}
          path: /v2/models/delays/infer
        """
        code, output, result = run(
            tmp_path, f"grpc://127.0.0.1:{port}", text.replace("\n        ", "\n")
        )
    assert code == 0, output
    assert result["stages"][0]["load"]["failed"] == 0
    assert "looked at" not in output

"""Records without the proxy, against the real process of the evaluation plane."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.support.grpc_calls import body_of, floats, request_message
from tests.support.patience import eventually, patient
from tests.support.plane_process import MODEL, PlaneProcess
from tests.support.ports import free_port
from understudy.common.grpc_messages import INFER
from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.asgi import UnderstudyMiddleware
from understudy.monitor.ingest.cloudevents import REQUEST, RESPONSE

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    mapped = {"features": {"age": "/age"}, "predictions": {"p": "/p"}}
    models = [
        MODEL,
        {"name": "plain", "version": "", "protocol": "json", "paths": ["/p"], "json": mapped},
        {"name": "v1", "version": "", "protocol": "kserve-v1"},
        {"name": "any", "version": "", "protocol": "auto"},
    ]
    running = PlaneProcess(tmp_path, models=models)
    running.start(UNDERSTUDY_TEST_TOKEN="secret")
    with running:
        yield running


def post(plane: PlaneProcess, data: Any, path: str = "/v1/records", **headers: str) -> Any:
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    return httpx.post(
        plane.url + path, content=content, headers={**TOKEN, **headers}, timeout=patient(20)
    )


def features(plane: PlaneProcess, model: str) -> dict[str, Any]:
    found = next(m for m in plane.get("/v1/models").json()["models"] if m["name"] == model)
    return {f["name"]: f for f in found["features"]}


@pytest.mark.parametrize("model", ["delays", "v1", "any"])
def test_features_and_predictions_by_name(plane: PlaneProcess, model: str) -> None:
    rows = [{"a": 1.0, "b": "x"}, {"a": 3.0, "b": None}]
    item = {
        "model": model, "request_id": "r-1", "time": time.time(), "duration_seconds": 0.25,
        "features": rows, "predictions": {"p": [0.25, 0.75]},
    }  # fmt: skip
    one = {"model": model, "features": {"a": 5.0, "b": "y"}, "predictions": {"p": 0.5}}
    answer = post(plane, [item, one]).json()
    assert (answer["taken"], answer["refused"]) == (2, [])
    again = post(plane, [item]).json()
    assert (again["taken"], again["duplicates"]) == (0, 1)
    found = features(plane, model)
    assert (found["a"]["present"], found["a"]["mean"]) == (3, 3.0)
    assert (found["b"]["text"], found["b"]["missing"]) == (2, 1)
    predicted = next(p for p in plane.status()["predictions"] if p["model"] == model)
    assert (predicted["prediction"], predicted["count"], predicted["mean"]) == ("p", 3, 0.5)
    assert plane.metric("understudy_ingested_total", source="records", outcome="taken") == 2.0


def test_bad_items_are_named_and_cost_the_good_ones_nothing(plane: PlaneProcess) -> None:
    good = {"model": "delays", "features": {"a": 1.0}, "predictions": {"p": 0.5}}
    bad = {
        "must be an object": 5,
        "frobnicate: is not known": {**good, "frobnicate": 1},
        "no model 'none'": {**good, "model": "none"},
        "which model?": {"features": {"a": 1.0}},
        "arm: 'x'": {**good, "arm": "x"},
        "time: is too far in the future": {**good, "time": time.time() + 9999},
        "time: not a valid time: 'soon'": {**good, "time": "soon"},
        "duration_seconds: must be a number": {**good, "duration_seconds": "1"},
        "status: must lie between": {**good, "status": 7},
        "outcome: 'odd'": {**good, "outcome": "odd"},
        "give either features or": {"model": "delays"},
        "path: is required": {"model": "delays", "request": "{}"},
        "predictions: 2 rows for 1": {**good, "predictions": {"p": [1, 2]}},
        "uses plain JSON": {**good, "model": "plain"},
    }
    answer = post(plane, [good, *bad.values()]).json()
    assert answer["taken"] == 1
    for (text, _), refused in zip(bad.items(), answer["refused"], strict=True):
        first, _, second = text.partition(": ")
        assert first in refused["error"], refused
        assert second in refused["error"], refused
    assert post(plane, [5]).status_code == 422
    assert post(plane, b"{").status_code == 422
    assert post(plane, []).status_code == 422
    ndjson = (json.dumps(good) + "\n").encode() * 2
    kind = {"content-type": "application/x-ndjson"}
    assert post(plane, ndjson, **kind).json()["taken"] == 2
    assert httpx.post(plane.url + "/v1/records", json=good).status_code == 401
    assert post(plane, b"[" + b" " * 9_000_000 + b"]").status_code == 413


def test_payloads_as_they_were_sent(plane: PlaneProcess) -> None:
    item = {"model": "plain", "path": "/p", "request": {"age": 41}, "response": {"p": 0.5}}
    assert post(plane, item).json()["taken"] == 1
    assert features(plane, "plain")["age"]["mean"] == 41.0


def test_bodies_of_any_kind_with_their_headers(plane: PlaneProcess) -> None:
    def coded(body: bytes) -> str:
        return base64.b64encode(body).decode()

    head = json.dumps(
        {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1],
                     "parameters": {"binary_data_size": 4}}]}
    ).encode()  # fmt: skip
    binary = {
        "path": "/v2/models/delays/versions/1/infer",
        "request_base64": coded(head + struct.pack("<f", 2.5)),
        "request_headers": {"Inference-Header-Content-Length": str(len(head)), "cookie": "no"},
        "response_base64": coded(gzip.compress(b'{"outputs": [{"name": "p", "datatype": "FP64",'
                                               b' "shape": [1], "data": [0.5]}]}')),
        "response_headers": {"content-encoding": "gzip"},
        "first_byte_seconds": 0.25, "request_id": "one",
    }  # fmt: skip
    message = request_message(("a", "FP32", floats(4.5)), model="any")
    rpc = {
        "path": INFER, "request_base64": coded(body_of(message)),
        "request_headers": {"content-type": "application/grpc"},
        "response_base64": "", "response_bytes": 5, "response_headers": {"grpc-status": "5"}, "outcome": "client_error",
    }  # fmt: skip
    gone = {"path": "/p", "request_bytes": 10, "outcome": "cancelled", "role": "mirror",
            "arm": "candidate"}  # fmt: skip
    answer = post(plane, [binary, rpc, gone], "/v1/records?source=ext-proc&dropped=3").json()
    assert (answer["taken"], answer["refused"]) == (3, [])
    assert features(plane, "delays")["a"]["mean"] == 2.5
    assert features(plane, "any")["a"]["mean"] == 4.5
    shown = {one["model"]: one for one in plane.get("/v1/records").json()["records"]}
    assert shown["delays"]["first_byte_seconds"] == 0.25
    assert shown["delays"]["predictions"]["values"] == [[0.5]]
    assert (shown["any"]["undecodable"], shown["any"]["response_bytes"]) == (
        {"response": "error_response"}, 5,
    )  # fmt: skip
    assert (shown["plain"]["role"], shown["plain"]["status"]) == ("mirror", None)
    for outcome, count in (("taken", 3.0), ("dropped", 3.0)):
        assert (
            plane.metric("understudy_ingested_total", source="ext-proc", outcome=outcome) == count
        )
    bad = [
        {**binary, "request_base64": "&"}, {**binary, "request": "{}"}, {**rpc, "role": "both"},
        {**binary, "request_headers": {"content-type": "a\r\nb"}}, {**binary, "status": 0},
        {**rpc, "request_base64": coded(body_of(request_message(model="none")))},
        {**binary, "path": "/v2/models/none/infer"}, {**binary, "path": "/v2/models/delays"},
    ]  # fmt: skip
    refused = post(plane, [binary | {"request_id": "two"}, *bad]).json()["refused"]
    assert [one["item"] for one in refused] == list(range(1, len(bad) + 1))
    for query in ("source=other", "dropped=-1", "dropped=x"):
        assert post(plane, binary, f"/v1/records?{query}").status_code == 422


def kserve(kind: str, id_: str) -> dict[str, str]:
    """The headers of KServe's agent in binary mode."""
    return {
        "ce-specversion": "1.0",
        "ce-id": id_,
        "ce-type": kind,
        "ce-source": "http://localhost:9081/",
        "ce-time": "2026-01-31T12:00:00.5Z",
        "ce-inferenceservicename": "any",
        "ce-namespace": "default",
        "ce-component": "predictor",
        "ce-endpoint": "",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("order", [(REQUEST, RESPONSE), (RESPONSE, REQUEST)])
def test_kserves_events_in_any_order(plane: PlaneProcess, order: tuple[str, str]) -> None:
    bodies = {
        REQUEST: {"instances": [{"a": 1.0}, {"a": 3.0}]},
        RESPONSE: {"predictions": [{"p": 0.25}, {"p": 0.75}]},
    }
    answers = [
        post(plane, bodies[kind], "/v1/cloudevents", **kserve(kind, "one")).json() for kind in order
    ]
    assert [a["waiting"] for a in answers] == [1, 0]
    assert [a["taken"] for a in answers] == [0, 1]
    assert features(plane, "any")["a"]["mean"] == 2.0
    structured = [
        {"specversion": "1.0", "id": "two", "type": kind, "inferenceservicename": "any",
         "data": bodies[kind]}
        for kind in order
    ]  # fmt: skip
    kind = {"content-type": "application/cloudevents-batch+json"}
    assert post(plane, structured, "/v1/cloudevents", **kind).json()["taken"] == 1
    assert features(plane, "any")["a"]["present"] == 4
    wrong = {**kserve(REQUEST, "x"), "ce-type": "something.else"}
    assert post(plane, {}, "/v1/cloudevents", **wrong).status_code == 422


def test_the_middleware_of_a_python_model_server(plane: PlaneProcess) -> None:
    async def predict(request: Request) -> JSONResponse:
        rows = (await request.json())["instances"]
        return JSONResponse({"predictions": [{"p": row["a"] / 10} for row in rows]})

    async def stream(_: Request) -> StreamingResponse:
        async def parts() -> Any:
            for _ in range(5):
                yield b"x" * 100_000

        return StreamingResponse(parts())

    path = "/v1/models/v1:predict"
    app = Starlette(routes=[
        Route(path, predict, methods=["POST"]), Route("/big", stream, methods=["POST"])
    ])  # fmt: skip
    wrapped = UnderstudyMiddleware(app, plane.url, "v1", token="secret")
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(wrapped, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        for number in range(5):
            answer = httpx.post(
                f"http://127.0.0.1:{port}{path}", json={"instances": [{"a": number}]}
            )
            assert answer.json() == {"predictions": [{"p": number / 10}]}
        assert len(httpx.post(f"http://127.0.0.1:{port}/big").content) == 500_000
        eventually(lambda: wrapped.sent == 5)
        assert features(plane, "v1")["a"]["mean"] == 2.0
    finally:
        server.should_exit = True
        thread.join()
        wrapped.close()
    assert wrapped.dropped == 0


def test_the_middleware_outlives_answers_that_are_not_http() -> None:
    with pytest.raises(IngestError, match="not an address"):
        UnderstudyMiddleware(Starlette(), "127.0.0.1:9090", "v1")
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request", "body": b"{}"}

    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"this is not HTTP\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        wrapped = UnderstudyMiddleware(app, url, "v1")
        for number in (1, 2):
            asyncio.run(wrapped(scope, nothing, nothing))
            eventually(lambda number=number: wrapped.dropped == number)
        wrapped.close()
        thread.join()

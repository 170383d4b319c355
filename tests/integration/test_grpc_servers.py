"""tritonclient over gRPC through the sidecar, as a user starts it, to servers that people use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.grpc_calls import request_message
from tests.support.grpc_world import channel
from tests.support.patience import eventually
from tests.support.served import mlserver
from tests.support.service import REAL, Service
from understudy.common.grpc_messages import STREAM_INFER

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = np.array([[0.5, -1.0, 2.0, 0.1], [1.0, 1.0, 1.0, 1.0]], np.float64)


def asked(port: int, **options: Any) -> dict[str, Any]:
    """What a client sees of a server: answers, metadata, errors."""
    with closing(triton.InferenceServerClient(f"127.0.0.1:{port}")) as client:
        found: dict[str, Any] = {
            "live": client.is_server_live(),
            "ready": client.is_model_ready("delays"),
            "metadata": client.get_model_metadata("delays", as_json=True),
        }
        for size in (2, 2000):
            rows = np.resize(ROWS, (size, 4))
            given = triton.InferInput("x", list(rows.shape), "FP64")
            given.set_data_from_numpy(rows)
            answer = client.infer("delays", [given], request_id="one", **options)
            found[f"answer {size}"] = answer.as_numpy("p_late").tolist()
            found["id"] = answer.get_response().id
        try:
            client.infer("other", [given])
        except InferenceServerException as error:
            found["error"] = (error.status(), error.message())
    return found


def streamed(port: int) -> list[bytes]:
    """Answers of a stream, as they are: MLServer's are not those that tritonclient reads."""

    def requests() -> Iterator[bytes]:
        for number in range(3):
            body = request_message(("x", "FP64", ROWS * number), model="delays", id_=str(number))
            yield body.SerializeToString()

    with channel(port) as found:
        return list(found.stream_stream(STREAM_INFER)(requests(), timeout=20))


def test_mlserver_answers_as_it_does_directly_and_its_answers_are_read(tmp_path: Path) -> None:
    with mlserver(tmp_path / "server"):
        settings = json.loads((tmp_path / "server" / "settings.json").read_text())
        port = settings["grpc_port"]
        (tmp_path / "sidecar").mkdir()
        service = Service(
            tmp_path / "sidecar",
            REAL,
            champion={"url": f"grpc://127.0.0.1:{port}"},
            models=[{"name": "delays"}],
        )
        with service.start():
            through = int(service.url.rpartition(":")[2])
            for options in ({}, {"compression_algorithm": "gzip"}, {"headers": {"x-a": "b"}}):
                direct = asked(port, **options)
                assert asked(through, **options) == direct
            assert direct["error"][0] == "StatusCode.NOT_FOUND"

            def read() -> Any:
                found = httpx.get(service.control + "/v1/status").json()
                assert found["undecodable"] == [], found["undecodable"]
                return next((p for p in found["predictions"] if p["count"] >= 6_000), None)

            assert eventually(read)["prediction"] == "p_late"
            text = httpx.get(service.control + "/metrics").text
            line = next(
                one
                for one in text.splitlines()
                if one.startswith("understudy_grpc_calls_total{") and 'NOT_FOUND"' in one
            )
            assert line.endswith(" 3.0")
            assert streamed(through) == streamed(port) != []

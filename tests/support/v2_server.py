"""A model server of the Open Inference Protocol over HTTP and gRPC: real protocols, a small model.

The model adds the elements of a row of its only input. Over gRPC, the model ``broken`` fails, and
in a stream a sum below -1,000 gives an error message.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.support.grpc_calls import response_message


@dataclass
class Served:
    http: int
    grpc: int
    paths: list[str] = field(default_factory=list)


def _sums(array: Any) -> Any:
    return array.reshape(array.shape[0], -1).sum(axis=1, dtype=np.float32)


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        length = int(self.headers.get("Inference-Header-Content-Length") or len(body))
        tensor = json.loads(body[:length])["inputs"][0]
        if "data" in tensor:
            array = np.array(tensor["data"], np.float32)
        else:
            array = np.frombuffer(body[length:], "<f4")
        found = _sums(array.reshape(tensor["shape"]))
        output = {"name": "sum", "datatype": "FP32", "shape": list(found.shape)}
        head, tail = {"model_name": "m", "outputs": [output]}, b""
        if "data" in tensor:
            output["data"] = found.tolist()
        else:
            output["parameters"] = {"binary_data_size": found.nbytes}
            tail = found.tobytes()
        answer = json.dumps(head).encode()
        self.send_response(200)
        if tail:
            self.send_header("Inference-Header-Content-Length", str(len(answer)))
            self.send_header("Content-Type", "application/octet-stream")
        else:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer + tail)))
        self.end_headers()
        self.wfile.write(answer + tail)

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: Any) -> None:
        pass


def _answer(request: Any) -> Any:
    tensor = request.inputs[0]
    if request.raw_input_contents:
        array = np.frombuffer(request.raw_input_contents[0], "<f4")
    else:
        array = np.array(tensor.contents.fp32_contents, np.float32)
    found = _sums(array.reshape(tuple(tensor.shape)))
    return response_message(("sum", "FP32", found), id_=request.id)


class _Grpc(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def ServerLive(self, *_: Any) -> Any:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    def ServerMetadata(self, *_: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(name="triton", version="2.0")

    def ModelReady(self, request: Any, _: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name != "loading")

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name not in ("m", "loading"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        answer = pb.ModelMetadataResponse(name=request.name)
        answer.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
        answer.outputs.add(name="sum", datatype="FP32", shape=[-1])
        return answer

    def RepositoryIndex(self, *_: Any) -> Any:  # noqa: N802
        answer = pb.RepositoryIndexResponse()
        answer.models.add(name="m", state="READY")
        return answer

    def ServerReady(self, *_: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.model_name == "broken":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return _answer(request)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        for request in requests:
            answer = _answer(request)
            if np.frombuffer(answer.raw_output_contents[0], "<f4")[0] < -1000:
                yield pb.ModelStreamInferResponse(
                    error_message="boom", infer_response=pb.ModelInferResponse(id=request.id)
                )
                continue
            answer.parameters["triton_final_response"].bool_param = True
            yield pb.ModelStreamInferResponse(infer_response=answer)


@contextmanager
def v2_server() -> Iterator[Served]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Http)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Grpc(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Served(http.server_address[1], port)
    finally:
        server.stop(0)
        http.shutdown()
        http.server_close()

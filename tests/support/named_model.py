"""A model server that answers with its own name, and questions to a service in front of it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.support.patience import patient
from tests.support.service import Service

PREDICT = "/v2/models/m/infer"
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}]}
).encode()


class ModelServer:
    """Answers with its own name; ``hold`` keeps answers back."""

    def __init__(self, name: str) -> None:
        self.arrived = threading.Semaphore(0)
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                outer.arrived.release()
                outer.hold.wait(patient(30))
                body = json.dumps({"model_name": name, "outputs": []}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


def predict(service: Service) -> dict[str, Any]:
    answer = httpx.post(service.url + PREDICT, content=BODY, timeout=patient(30)).raise_for_status()
    result: dict[str, Any] = answer.json()
    return result


def status(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(service.control + "/v1/status").raise_for_status().json()
    return document

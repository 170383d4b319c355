"""Headers of the running service: values of the environment and of files, and who gets credentials.

With real workers, from the user's command line.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.service import REAL, Service

PREDICT = "/v2/models/m/infer"
BODY = b'{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}]}'
CLIENT = {"authorization": "Bearer of-client", "cookie": "session=of-client", "x-user": "u"}


class Recorder:
    """A model server that keeps the headers and targets that it gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                found = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.path, found))
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def servers() -> Iterator[tuple[Recorder, Recorder]]:
    both = Recorder(), Recorder()
    yield both
    for one in both:
        one.close()


def asked(service: Service, *servers: Recorder) -> list[tuple[str, dict[str, str]]]:
    """What each server got of one request."""
    before = [len(one.seen) for one in servers]
    target = PREDICT + "?api_key=of-client&trial=1"
    answer = httpx.post(service.url + target, content=BODY, headers=CLIENT, timeout=patient(30))
    assert answer.status_code == 200
    eventually(lambda: all(len(o.seen) > n for o, n in zip(servers, before, strict=True)))
    return [one.seen[-1] for one in servers]


def everything_shown(service: Service) -> str:
    paths = ("/v1/status", "/readyz", "/metrics", "/v1/records", "/", "/v1/models")
    texts = [httpx.get(service.control + path, timeout=patient(30)).text for path in paths]
    return "\n".join([*texts, service.log, *service.output])


def test_values_of_headers_and_credentials(
    tmp_path: Path, servers: tuple[Recorder, Recorder]
) -> None:
    champion, other = servers
    key = tmp_path / "key"
    key.write_text("first-secret\n")
    service = Service(
        tmp_path,
        REAL,
        workers=1,
        champion={"url": champion.url, "headers": {"x-key": {"env": "HEADER_KEY"}}},
        challengers=[
            {
                "name": "new",
                "url": other.url,
                "headers": {"Authorization": {"file": "key", "prefix": "Bearer "}},
                "remove_headers": ["x-user"],
            }
        ],
    )
    with service.start(HEADER_KEY="env-secret"):
        (target, at_champion), (mirrored, at_challenger) = asked(service, champion, other)
        assert target == PREDICT + "?api_key=of-client&trial=1"
        assert mirrored == PREDICT + "?trial=1"
        assert CLIENT.items() <= at_champion.items()
        assert at_champion["x-key"] == "env-secret"
        assert at_challenger["authorization"] == "Bearer first-secret"
        assert not {"cookie", "x-user", "x-key"} & at_challenger.keys()
        metric = 'understudy_credentials_removed_total{arm="new"} '
        eventually(lambda: metric + "1" in httpx.get(service.control + "/metrics").text)

        # Read again at a reload.
        key.write_text("second-secret\n")
        service.signal(signal.SIGHUP)
        eventually(lambda: asked(service, other)[0][1]["authorization"] == "Bearer second-secret")

        # A value that is gone keeps the running configuration, and the status says why.
        key.unlink()
        answer = httpx.post(service.control + "/v1/config/reload", timeout=patient(60))
        assert answer.is_error
        assert "challengers[0].headers.authorization" in answer.text
        assert asked(service, other)[0][1]["authorization"] == "Bearer second-secret"
        shown = everything_shown(service)
        assert "challengers[0].headers.authorization: the file" in shown
        for secret in ("env-secret", "first-secret", "second-secret"):
            assert secret not in shown
        written = (service.state / "run" / "config.json").read_text()
        assert "env-secret" not in written
        assert json.loads(written)["champion"]["headers"]["x-key"]["env"] == "HEADER_KEY"


def test_the_start_without_a_value_is_refused(tmp_path: Path) -> None:
    headers = {"headers": {"x-key": {"env": "HEADER_KEY_THAT_IS_NOT_SET"}}}
    service = Service(tmp_path, REAL, champion={"url": "http://127.0.0.1:9", **headers})
    service.start(wait=False)
    assert service.wait() == 2
    assert "champion.headers.x-key: the environment variable" in service.log


def test_a_challenger_that_refuses_requests_without_credentials_is_reported(
    tmp_path: Path, servers: tuple[Recorder, Recorder]
) -> None:
    champion, other = servers
    other.status = 401
    settings: dict[str, Any] = {"champion": {"url": champion.url}}
    service = Service(
        tmp_path, REAL, workers=1, challengers=[{"name": "new", "url": other.url}], **settings
    )
    with service.start():
        for _ in range(12):
            asked(service, champion, other)

        def warned() -> bool:
            status = httpx.get(service.control + "/v1/status", timeout=patient(30)).json()
            return any("set `credentials: forward`" in text for text in status["warnings"])

        eventually(warned)

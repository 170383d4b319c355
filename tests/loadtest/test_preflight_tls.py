"""What is wrong with TLS is a fault of access, found before any load, with what to do."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.certificates import Authority, self_signed
from tests.support.gates import gate, plan

PLAN = """
objectives: {{errors: 10 %}}
payloads: {{path: '/v1/models/m:predict', template: {{instances: [[1.0]]}}}}
engine: {engine}
stages: [{{name: s, load: {{rate: 30/s, seconds: 2s}}}}]
"""


class _Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        answer = b'{"predictions": [0.5]}'
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a handshake that the gate refuses


@contextmanager
def served(files: tuple[Path, Path] | None, client_ca: Path | None = None) -> Iterator[int]:
    """The port of a model server with this certificate and key; None: without TLS."""
    server = _Quiet(("127.0.0.1", 0), _Model)
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        # In the thread of a connection: a refused handshake must not end the server.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def tried(folder: Path, url: str, engine: str = "{}") -> tuple[int, str]:
    found = gate("--target", url, "--plan", plan(folder, PLAN.format(engine=engine)))
    return found.exit_code, " ".join(found.output.split())


@pytest.mark.parametrize(
    ("expired", "host", "said"),
    [
        (False, "localhost", "TLS (self-signed certificate) (set engine.ca_file to the authority"),
        (True, "localhost", "TLS (certificate has expired) (renew the certificate of the target)"),
    ],
)
def test_a_certificate_that_is_not_trusted(
    tmp_path: Path, expired: bool, host: str, said: str
) -> None:
    files = self_signed(tmp_path, "server", host, expired=expired)
    with served(files) as port:
        url = f"https://127.0.0.1:{port}"
        # The expired one is its own authority: with it known, its age is what is wrong.
        engine = f"{{ca_file: {files[0]}}}" if expired else "{}"
        code, output = tried(tmp_path, url, engine)
        assert (code, said in output) == (2, True), output
        assert f"target: {url} did not answer: {said}" in output
        assert "NOT MEASURED" in output
        assert "FAILED" not in output, "no verdict on the model"
        assert tried(tmp_path, url, "{verify: false}")[0] == 0
        if not expired:
            assert tried(tmp_path, url, f"{{ca_file: {files[0]}}}")[0] == 0


def test_a_certificate_of_another_authority_or_host(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with served(authority.issue("server", "model.example")) as port:
        code, output = tried(tmp_path, f"https://127.0.0.1:{port}")
        assert code == 2
        assert "unable to get local issuer certificate) (set engine.ca_file" in output
        known = f"{{ca_file: {authority.ca}}}"
        code, output = tried(tmp_path, f"https://localhost:{port}", known)
        assert code == 2
        assert "(name the target by a name in its certificate)" in output
        assert tried(tmp_path, f"https://127.0.0.1:{port}", known)[0] == 0


def test_a_target_that_wants_a_certificate(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "server", "localhost")
    with served(files, client_ca=files[0]) as port:
        code, output = tried(tmp_path, f"https://127.0.0.1:{port}", f"{{ca_file: {files[0]}}}")
        assert code == 2
        assert "want" in output
        assert "a certificate of the client)" in output


def test_tls_on_one_side_only(tmp_path: Path) -> None:
    with served(None) as port:
        code, output = tried(tmp_path, f"https://127.0.0.1:{port}")
        assert code == 2
        assert "(the target may not speak TLS: write http://)" in output
    with served(self_signed(tmp_path, "server", "localhost")) as port:
        code, output = tried(tmp_path, f"http://127.0.0.1:{port}")
        assert code == 2, output
        assert f"target: http://127.0.0.1:{port} did not answer" in output
        assert "(the target may speak TLS: write https://, or gRPC: write grpc://)" in output

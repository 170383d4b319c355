"""Requests through a real forward proxy: others' by the environment, our own services' never."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from tests.support.webhook_receiver import Receiver, receiver
from understudy.common.http import call, is_loopback
from understudy.loadtest.chaos import actions, probes
from understudy.monitor.cli import top_view as top
from understudy.monitor.cli.client import Client
from understudy.monitor.errors import ApiError, DeliveryError
from understudy.monitor.findings.post import context, post
from understudy.monitor.ingest.asgi import UnderstudyMiddleware

OUTSIDE = "hooks.example.com"
"""A name that only the proxy can resolve: it leads to the receiver."""


class Proxy:
    """A forward proxy that connects every name to ``port`` on loopback, and says what it was asked."""

    def __init__(self, port: int, password: str = "") -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _allowed(self) -> bool:
                outer.asked.append(f"{self.command} {self.path}")
                wanted = f"Basic {b64encode(password.encode()).decode()}"
                if password and self.headers["proxy-authorization"] != wanted:
                    self.send_error(407)
                    return False
                return True

            def do_CONNECT(self) -> None:
                if not self._allowed():
                    return
                with socket.create_connection(("127.0.0.1", port)) as there:
                    self.send_response(200, "Connected")
                    self.end_headers()
                    pairs = {self.connection: there, there: self.connection}
                    while True:
                        for one in select.select(list(pairs), [], [], 30.0)[0]:
                            data = one.recv(65_536)
                            if not data:
                                return
                            pairs[one].sendall(data)

            def do_POST(self) -> None:
                if not self._allowed():
                    return
                size = int(self.headers.get("content-length", 0))
                body = self.rfile.read(size)
                target = "/" + self.path.split("/", 3)[3]
                with socket.create_connection(("127.0.0.1", port)) as there:
                    lines = "".join(
                        f"{name}: {value}\r\n"
                        for name, value in self.headers.items()
                        if not name.lower().startswith("proxy-")
                    )
                    there.sendall(
                        f"{self.command} {target} HTTP/1.0\r\n{lines}\r\n".encode() + body
                    )
                    while data := there.recv(65_536):
                        self.connection.sendall(data)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def proxy(there: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(there.port)
    through(made, monkeypatch)
    yield made
    made.stop()


def through(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, user: str = "") -> None:
    for name in ("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{user}{proxy.address}")


def send(url: str, tls: ssl.SSLContext | None = None) -> int:
    return asyncio.run(post(url, b"{}", {"Authorization": "Bearer secret"}, 20.0, tls)).status


def test_notifications_go_through_the_proxy_of_the_environment(
    there: Receiver, proxy: Proxy
) -> None:
    assert send(f"http://{OUTSIDE}/services/T1") == 200
    assert proxy.asked == [f"POST http://{OUTSIDE}/services/T1"]
    assert [(one.path, one.body) for one in there.requests] == [("/services/T1", b"{}")]


def test_with_tls_the_proxy_sees_the_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, key = self_signed(tmp_path, "receiver", OUTSIDE)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(ca, key)
    with receiver(serving) as there:
        proxy = Proxy(there.port)
        try:
            through(proxy, monkeypatch)
            assert send(f"https://{OUTSIDE}/services/T1", context(str(ca), True)) == 200
            assert proxy.asked == [f"CONNECT {OUTSIDE}:443"]
            assert there.requests[0].headers["authorization"] == "Bearer secret"
            with pytest.raises(DeliveryError, match=f"^{OUTSIDE}: certificate: "):
                send(f"https://{OUTSIDE}/services/T1", context(None, True))
            assert len(there.requests) == 1
        finally:
            proxy.stop()


def test_no_proxy_is_honoured(
    there: Receiver, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.com")
    with pytest.raises(DeliveryError, match=f"^{OUTSIDE}: "):
        send(f"http://{OUTSIDE}/")
    assert (proxy.asked, there.requests) == ([], [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_receiver_on_this_machine_is_asked_directly(
    there: Receiver, proxy: Proxy, host: str
) -> None:
    assert send(f"http://{host}:{there.port}/api/v2/alerts") == 200
    assert (proxy.asked, len(there.requests)) == ([], 1)


def test_a_proxy_that_refuses_is_named_without_its_password(
    there: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy(there.port, "me:right")
    try:
        through(proxy, monkeypatch, "me:wr0ng@")
        with caplog.at_level(logging.DEBUG), pytest.raises(DeliveryError) as found:
            send(f"https://{OUTSIDE}/services/T1")
        assert str(found.value).startswith(f"{OUTSIDE}: the proxy refused: 407")
        assert send(f"http://{OUTSIDE}/services/T1") == 407
        through(proxy, monkeypatch, "me:right@")
        assert send(f"http://{OUTSIDE}/services/T1") == 200
        monkeypatch.setenv("HTTP_PROXY", "gopher://me:wr0ng@127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "gopher://me:wr0ng@127.0.0.1:1")
        with pytest.raises(DeliveryError) as unknown:
            send(f"http://{OUTSIDE}/services/T1")
    finally:
        proxy.stop()
    for text in (str(found.value), str(unknown.value), caplog.text):
        assert "wr0ng" not in text
        assert "T1" not in text
        assert "secret" not in text


def test_neither_addresses_nor_tokens_are_logged(
    there: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert send(f"{there.url}/services/T1") == 200
    assert "T1" not in caplog.text
    assert "secret" not in caplog.text


def test_redirects_are_not_followed(there: Receiver) -> None:
    there.answers = [(307, {"Location": f"{there.url}/elsewhere"}, b"")]
    assert send(f"{there.url}/here") == 307
    assert call(f"{there.url}/here", "POST", b"", timeout_seconds=20.0).status == 307
    assert {one.path for one in there.requests} == {"/here"}


def own_services(url: str) -> dict[str, Any]:
    """What asks our own services, by a name that only the proxy knows."""
    middleware = UnderstudyMiddleware(None, url=url, model="m")  # type: ignore[arg-type]
    asked = {
        "command": _error(lambda: Client(url).get("/v1/status")),
        "top": _error(lambda: top.fetch(Client(url))),
        "fault proxy": _error(lambda: actions._api("GET", url)),
        "probe": probes.answers(url),
        "metric": _error(lambda: probes.metric(url, "up")),
        "middleware": middleware._poster._post([b"{}"]),
    }
    middleware.close()
    return asked


def _error(act: Any) -> str:
    try:
        act()
    except Exception as error:
        return str(error)
    return ""


def test_our_own_services_are_never_asked_through_a_proxy(there: Receiver, proxy: Proxy) -> None:
    asked = own_services(f"http://{OUTSIDE}")
    assert proxy.asked == []
    assert there.requests == []
    assert not asked.pop("probe")
    assert not asked.pop("middleware")
    assert all(asked.values()), asked
    # The same proxy would have been used for anything else.
    assert call(f"http://{OUTSIDE}/", "POST", b"", timeout_seconds=20.0, outside=True).status == 200
    assert len(proxy.asked) == 1


def test_the_command_reaches_the_service_beside_a_proxy(there: Receiver, proxy: Proxy) -> None:
    there.answers = [(200, {}, b'{"ok": true}')]
    assert Client(there.url).post("/v1/config/reload", {}) == {"ok": True}
    there.answers = [(403, {}, b'{"error": {"message": "no"}}')]
    with pytest.raises(ApiError, match=r"no .the token comes from"):
        Client(there.url).post("/v1/config/reload", {})
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
        ("LOCALHOST", True), ("[::1]", True), ("a.localhost", True), ("10.0.0.1", False), ("example.com", False),
        ("localhost.example.com", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_httpx_is_imported_with_the_first_request_alone() -> None:
    code = (
        "import sys; import understudy.monitor.findings.notify as n;"
        "n.Notifier([], None); import understudy.monitor.service.evaluation;"
        "assert 'httpx' not in sys.modules, 'httpx'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

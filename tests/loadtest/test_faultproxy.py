"""The fault proxy: bytes suffer as asked, and Toxiproxy's own clients can drive it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.support.load_server import Server
from tests.support.patience import patient
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.faultproxy.server import FaultProxy
from understudy.monitor.cli.main import main


@pytest.fixture(scope="module")
def faults() -> Iterator[FaultProxy]:
    with FaultProxy() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def proxied(faults: FaultProxy, server: Server) -> Iterator[str]:
    data = {"name": "model", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{server.port}"}
    made = httpx.post(f"{faults.url}/proxies", json=data)
    assert made.status_code == 201, made.text
    yield f"http://{made.json()['listen']}"
    assert httpx.delete(f"{faults.url}/proxies/model").status_code == 204


def toxic(faults: FaultProxy, kind: str, stream: str = "downstream", **attributes: float) -> None:
    data = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
    answer = httpx.post(f"{faults.url}/proxies/model/toxics", json=data)
    assert answer.status_code == 200, answer.text


def test_bytes_go_through(faults: FaultProxy, proxied: str) -> None:
    body = bytes(range(256)) * 4000
    assert httpx.post(f"{proxied}/echo", content=body).content == body
    shown = httpx.get(f"{faults.url}/proxies").json()["model"]
    assert (shown["enabled"], shown["toxics"]) == (True, [])
    assert httpx.get(f"{faults.url}/version").json()["version"]


def test_latency_is_added_until_it_is_removed(faults: FaultProxy, proxied: str) -> None:
    with httpx.Client(base_url=proxied) as client:
        client.post("/")
        toxic(faults, "latency", latency=300)
        begun = time.monotonic()
        client.post("/")  # a connection that was there before
        assert time.monotonic() - begun >= 0.3
        changed = {"attributes": {"latency": 600}}
        url = f"{faults.url}/proxies/model/toxics/latency"
        assert httpx.post(url, json=changed).json()["attributes"]["latency"] == 600
        begun = time.monotonic()
        client.post("/")
        assert time.monotonic() - begun >= 0.6
        assert httpx.delete(url).status_code == 204
        assert httpx.delete(url).status_code == 404


def test_bandwidth_is_limited(faults: FaultProxy, proxied: str) -> None:
    toxic(faults, "bandwidth", rate=100)
    begun = time.monotonic()
    assert (
        len(httpx.post(f"{proxied}/echo", content=b"x" * 50_000, timeout=patient(10)).content)
        == 50_000
    )
    assert time.monotonic() - begun >= 0.45


@pytest.mark.parametrize(
    ("kind", "attributes", "errors"),
    [
        ("reset_peer", {}, (httpx.ReadError, httpx.RemoteProtocolError)),
        ("timeout", {"timeout": 100}, (httpx.RemoteProtocolError, httpx.ReadError)),
        ("timeout", {}, (httpx.ReadTimeout,)),
        ("limit_data", {"bytes": 20}, (httpx.RemoteProtocolError, httpx.ReadError)),
    ],
)
def test_interrupted_responses(
    faults: FaultProxy,
    proxied: str,
    kind: str,
    attributes: dict[str, float],
    errors: tuple[type[Exception], ...],
) -> None:
    toxic(faults, kind, **attributes)
    hangs = errors == (httpx.ReadTimeout,)
    with pytest.raises(errors):
        httpx.post(proxied, timeout=1.0 if hangs else patient(10))


@contextmanager
def echo_server() -> Iterator[int]:
    """Sends back the bytes of one connection."""

    def echo() -> None:
        connection, _ = server.accept()
        with connection:
            while part := connection.recv(65_536):
                connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(patient(10))


def test_pieces_and_wrong_bytes(faults: FaultProxy, proxied: str) -> None:
    toxic(faults, "slicer", average_size=100, size_variation=20, delay=100)
    assert httpx.post(f"{proxied}/echo", content=b"x" * 5000).content == b"x" * 5000
    with echo_server() as port:
        data = {"name": "wrong", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}"}
        made = httpx.post(f"{faults.url}/proxies", json=data).json()
        wrong = {"type": "corrupt", "stream": "upstream", "attributes": {"probability": 0.01}}
        assert httpx.post(f"{faults.url}/proxies/wrong/toxics", json=wrong).status_code == 200
        host, _, listen = made["listen"].partition(":")
        with socket.create_connection((host, int(listen)), patient(10)) as sock:
            sock.sendall(bytes(20_000))
            echo = b""
            while len(echo) < 20_000 and (part := sock.recv(65_536)):
                echo += part
        assert httpx.delete(f"{faults.url}/proxies/wrong").status_code == 204
    assert len(echo) == 20_000
    # Binomial(20,000, 0.01): 200 with a standard deviation of 14.
    assert 100 < sum(byte != 0 for byte in echo) < 300


def test_errors_are_injected(faults: FaultProxy, proxied: str) -> None:
    toxic(faults, "http_error", status=500, probability=0.5)
    statuses = [httpx.post(proxied).status_code for _ in range(60)]
    # Half of sixty; fewer than ten of either has a probability below 1e-7.
    assert 10 <= statuses.count(500) <= 50
    assert set(statuses) == {200, 500}


def test_down_refuses_and_reset_brings_everything_back(faults: FaultProxy, proxied: str) -> None:
    toxic(faults, "latency", latency=10)
    shown = httpx.post(f"{faults.url}/proxies/model", json={"enabled": False}).json()
    assert shown["enabled"] is False
    with pytest.raises(httpx.ConnectError):
        httpx.post(proxied)
    assert httpx.post(f"{faults.url}/reset").status_code == 204
    assert httpx.post(proxied).status_code == 200
    assert httpx.get(f"{faults.url}/proxies/model").json()["toxics"] == []


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/proxies", {"name": "x"}, 400),
        ("/proxies", [], 400),
        ("/proxies", {"name": "model", "upstream": "127.0.0.1:1"}, 409),
        ("/proxies/none/toxics", {"type": "latency"}, 404),
        ("/proxies/model/toxics", {"type": "plague"}, 400),
        ("/proxies/model/toxics", {"type": "latency", "attributes": {"speed": 1}}, 400),
        ("/proxies/model/toxics", {"type": "latency", "attributes": {"latency": -1}}, 400),
        ("/proxies/model/toxics", {"type": "latency", "stream": "sideways"}, 400),
    ],
)
def test_invalid_requests_are_refused(
    faults: FaultProxy, proxied: str, path: str, data: Any, status: int
) -> None:
    answer = httpx.post(faults.url + path, json=data)
    assert (answer.status_code, "error" in answer.json()) == (status, True)


def test_a_used_port_is_an_error(faults: FaultProxy) -> None:
    port = faults.url.rpartition(":")[2]
    found = CliRunner().invoke(main, ["fault-proxy", "--port", port])
    assert found.exit_code == 2
    assert f"cannot listen on {faults.url}" in found.output
    assert "Traceback" not in found.output
    with pytest.raises(LoadTestError, match="cannot listen"), FaultProxy(port=int(port)):
        pass


def test_the_toolkit_s_own_extension_drives_it(faults: FaultProxy, server: Server) -> None:
    toxi = pytest.importorskip("chaostoxi", reason="chaostoolkit-toxiproxy is not installed")
    assert toxi
    from chaostoxi.proxy.actions import create_proxy, delete_proxy
    from chaostoxi.proxy.probes import proxy_exist
    from chaostoxi.toxic.actions import create_latency_toxic, delete_toxic

    where = {"toxiproxy_host": "127.0.0.1", "toxiproxy_port": faults.port}
    create_proxy("by-toolkit", "127.0.0.1", server.port, "127.0.0.1", 0, configuration=where)
    assert proxy_exist("by-toolkit", configuration=where)
    listen = httpx.get(f"{faults.url}/proxies/by-toolkit").json()["listen"]
    create_latency_toxic("by-toolkit", "slow", 300, 0, configuration=where)
    begun = time.monotonic()
    assert httpx.post(f"http://{listen}").status_code == 200
    assert time.monotonic() - begun >= 0.3
    delete_toxic("by-toolkit", "slow", configuration=where)
    delete_proxy("by-toolkit", configuration=where)
    assert httpx.get(f"{faults.url}/proxies/by-toolkit").status_code == 404

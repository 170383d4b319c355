"""The same requests to a server directly and through the proxy: the answers must not differ.

Two different servers, uvicorn and nginx, and several hundred requests, valid and odd. What the
proxy refuses, it must refuse with an error of the 4xx or 501 kind; it may be stricter than the
server, never laxer in what it lets through as two requests instead of one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.proxy import Message, plan_for, read_message, sidecar
from tools.parts.debian import environment, need

ROOT = Path(__file__).resolve().parent.parent.parent
# Date and Server differ by nature; the rest are hop by hop, or ours to add.
IGNORED = {"date", "connection", "keep-alive", "x-request-id", "transfer-encoding"}


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    def serves() -> bool:
        if process.poll() is not None:
            pytest.fail("the server ended while starting")
        socket.create_connection(("127.0.0.1", port), patient(1)).close()
        return True

    eventually(serves, what="the server serves")


@pytest.fixture(scope="module")
def uvicorn_port() -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.support.asgi_app:app", "--port", str(port),
               "--log-level", "error", "--no-server-header"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(patient(10))


@pytest.fixture(scope="module")
def nginx_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    nginx = need("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "www").mkdir()
    (folder / "www" / "file.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "www" / "empty").touch()
    os.utime(folder / "www" / "file.txt", (1_000_000_000, 1_000_000_000))
    folder.chmod(0o755)
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    temps = " ".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
        events {{}}
        http {{ access_log off; {temps} etag on; gzip on; gzip_min_length 1; gzip_types *;
          server {{ listen 127.0.0.1:{port}; root {folder}/www;
            location = /redirect {{ return 302 /file.txt; }}
            location = /echo {{ add_header x-uri $request_uri; return 200 "$request_method"; }}
          }} }}"""
    )
    process = subprocess.Popen(
        [str(nginx), "-c", str(folder / "nginx.conf"), "-p", str(folder)], env=environment()
    )
    try:
        wait_for(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(patient(10))


def request(
    method: str, target: str, lines: list[str], body: bytes = b"", version: str = "1.1"
) -> bytes:
    head = [f"{method} {target} HTTP/{version}", "Host: example", *lines, "Connection: close"]
    return "\r\n".join((*head, "", "")).encode("latin-1") + body


def valid_requests(targets: list[str]) -> Iterator[bytes]:
    """Combinations of methods, targets, headers and bodies."""
    headers: list[list[str]] = [
        [],
        ["Accept: */*", "ACCEPT-encoding: gzip"],
        ["X-Empty:", "X-Spaces:   a  b  ", "x-tab:\ta"],
        ["Cookie: a=1", "Cookie: b=2", "X-Many: 1", "X-Many: 2", "x-many: 3"],
        ["X-Long: " + "v" * 4000],
        ["X-Latin: caf\xe9", "User-Agent: (odd; \"quoted\")"],
        ["If-None-Match: *", "If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"],
        ["Range: bytes=10-19"],
        ["Range: bytes=9000-", "Accept-Encoding: br;q=1.0, *;q=0"],
        ["Range: bytes=99999-"],
        ["Cache-Control: no-cache", "Authorization: Basic eDp5", "Referer: http://a/?b#c"],
    ]  # fmt: skip
    for method, target, lines in itertools.product(
        ("GET", "HEAD", "OPTIONS", "DELETE"), targets, headers
    ):
        yield request(method, target, lines)
    for method, size in itertools.product(("POST", "PUT", "PATCH"), (0, 1, 1000, 100_000)):
        body = bytes(i % 251 for i in range(size))
        yield request(method, "/post", [f"Content-Length: {size}", "Content-Type: x/y"], body)
        chunks = b"".join(
            b"%X\r\n%b\r\n" % (len(part), part)
            for part in (body[i : i + 777] for i in range(0, size, 777))
        )
        yield request(method, "/post", ["Transfer-Encoding: chunked"], chunks + b"0\r\n\r\n")
        yield request(
            method, "/post", ["transfer-encoding: Chunked"], chunks + b"000;e=1\r\nX-T: 1\r\n\r\n"
        )
    for target in targets:
        yield request("GET", target, [], version="1.0")


ODD = [
    "G@T / HTTP/1.1\r\nHost: a", "GET  / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1 \r\nHost: a",
    "GET / HTTP/1.2\r\nHost: a", "GET / HTTP/11\r\nHost: a", "GET / http/1.1\r\nHost: a",
    "GET /\r\nHost: a", "GET", "/ GET HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\nno colon",
    "GET / HTTP/1.1\r\nHost: a\r\n: empty", "GET / HTTP/1.1\r\nHost: a\r\nX : b",
    "GET / HTTP/1.1\r\nHost: a\r\n folded: b", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c",
    "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\nHost: b", "GET / HTTP/1.1\r\nHost: a b",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \x01", "GET /\x01 HTTP/1.1\r\nHost: a", "GET /\xe9 HTTP/1.1\r\nHost: a",
    "GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: 1", "CONNECT a:80 HTTP/1.1\r\nHost: a",
]  # fmt: skip


async def answer(port: int, raw: bytes) -> Message | None:
    """The first answer; None when the connection is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        writer.write(raw)
        while True:
            message = await read_message(reader, to_head=raw.startswith(b"HEAD "))
            if message.status >= 200:
                return message
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


def essence(message: Message | None) -> object:
    if message is None:
        return None
    lines = [line.partition(b":") for line in message.lines]
    headers = sorted(
        (name.lower().decode(), value.strip())
        for name, _, value in lines
        if name.lower().decode() not in IGNORED
    )
    return message.status, headers, message.body


async def compare(server: int, requests: list[bytes]) -> list[str]:
    differences = []
    async with sidecar(plan_for(server)) as side:
        for raw in requests:
            direct, through = await answer(server, raw), await answer(side.port, raw)
            if essence(direct) != essence(through):
                differences.append(
                    f"{raw[:200]!r}\n direct:  {essence(direct)}\n through: {essence(through)}"
                )
    return differences


UVICORN = ["/", "/a%20b/%2F?q=%26&x=a+b", "/a;b=c,d", "/stream", "/status/204", "/status/304",
           "/status/500", "/?" + "q" * 2000, "/%E2%82%AC?[]{}|\\^`<>\""]  # fmt: skip
NGINX = ["/file.txt", "/empty", "/missing", "/redirect", "/echo?a=b", "/../etc/passwd"]


@pytest.mark.anyio
async def test_uvicorn(uvicorn_port: int) -> None:
    requests = list(valid_requests(UVICORN))
    assert len(requests) > 400
    assert await compare(uvicorn_port, requests) == []


@pytest.mark.anyio
async def test_nginx(nginx_port: int) -> None:
    requests = list(valid_requests(NGINX))
    assert len(requests) > 250
    assert await compare(nginx_port, requests) == []


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["uvicorn_port", "nginx_port"])
async def test_odd_requests_are_refused_or_answered_alike(
    server: str, request: pytest.FixtureRequest
) -> None:
    port: int = request.getfixturevalue(server)

    async with sidecar(plan_for(port)) as side:
        for head in ODD:
            raw = head.encode("latin-1") + b"\r\nConnection: close\r\n\r\n"
            through = await answer(side.port, raw)
            assert through is not None, raw
            refused = 400 <= through.status < 500 or through.status == 501
            if not refused:
                assert essence(await answer(port, raw)) == essence(through), raw

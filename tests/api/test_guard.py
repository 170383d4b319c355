"""The layer in front of the control API: whom it lets through, and what it reads of them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tests.support.control_api import TOKEN, VARIABLE, config, settings_of
from tests.support.evaluation import config_of
from tests.support.patience import patient
from tests.support.ports import free_port
from understudy.monitor.api.access import BULK_BODY, SMALL_BODY, Access
from understudy.monitor.api.app import prepare
from understudy.monitor.api.findings import NewSilence
from understudy.monitor.api.guard import MAX_HEADERS, PIECE_BYTES, Guard, Limits
from understudy.monitor.api.security import refuse
from understudy.monitor.api.server import ApiServer, SeldomFilter
from understudy.monitor.evidence.settings import Settings

GOOD = f"authorization: Bearer {TOKEN}"
JSON = "content-type: application/json"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv(VARIABLE, TOKEN)
    return settings_of(config(tmp_path))


# Names --------------------------------------------------------------------------------------------

OWN = ("localhost:9090", "127.0.0.1", "[::1]:9090", "localhost.", "app.localhost")
ADDRESSES = ("10.1.2.3:9090", "[fd00::1]:9090", "169.254.1.1")
"""Of a pod or a node: probes and scrapes."""
CLUSTER = (
    "understudy",
    "delays-understudy.serving.svc:9090",
    "a.b.svc.cluster.local",
    "x.internal",
)
DECLARED = ("understudy.example.com", "a.watch.example.org:443")
LINKED = ("links.example.net", "evaluators.example.net:9090")
FOREIGN = (
    *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:9090"),
    *("localhost@evil.example", "evil.example#localhost", "x.example.com", "svc.evil.example"),
    *("", "[", "evil.example.", "understudy.example.com.evil.example"),
)


def answers_for(settings: Settings, access: Access, host: str) -> bool:
    headers = {"host": host, "authorization": f"Bearer {TOKEN}"}
    return refuse(settings, access, headers) is None


@pytest.mark.parametrize("access", Access)
def test_foreign_names_are_refused_whatever_is_asked_and_addresses_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: Access
) -> None:
    """A page whose own name leads to our address cannot read what we answer."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    notify = [{"kind": "slack", "url": "http://127.0.0.1:1", "link": "https://links.example.net/u"}]
    kafka = {"bootstrap": ["127.0.0.1:1"], "evaluators": "http://evaluators.example.net:9090"}
    hosts = ["understudy.example.com", "*.Watch.example.org"]
    for listen, allowed, refused in (
        ("0.0.0.0:9090", (*OWN, *ADDRESSES, *CLUSTER, *DECLARED, *LINKED), FOREIGN),
        ("127.0.0.1:9090", (*OWN, *DECLARED, *LINKED), (*FOREIGN, *CLUSTER)),
    ):
        control = {"listen": listen, "token_env": VARIABLE, "hosts": hosts}
        settings = settings_of(config_of(tmp_path, control=control, notify=notify, kafka=kafka))
        found = {host: answers_for(settings, access, host) for host in (*allowed, *refused)}
        assert found == {**dict.fromkeys(allowed, True), **dict.fromkeys(refused, False)}


def test_on_a_loopback_address_other_addresses_see_no_data(tmp_path: Path) -> None:
    settings = settings_of(config_of(tmp_path))
    found = {access: answers_for(settings, access, ADDRESSES[0]) for access in Access}
    assert found == {Access.PUBLIC: True, Access.READ: False, Access.CHANGE: False}


def test_without_hosts_only_private_names_and_addresses_are_known(settings: Settings) -> None:
    assert not any(answers_for(settings, Access.PUBLIC, host) for host in (*DECLARED, *LINKED))
    assert refuse(settings, Access.PUBLIC, {}) is None, "a probe of HTTP/1.0 names no host"


def test_a_name_that_the_api_listens_on_is_its_own(tmp_path: Path) -> None:
    control = {"listen": "node7.example.com:9090", "token_env": VARIABLE}
    settings = settings_of(config_of(tmp_path, control=control))
    assert answers_for(settings, Access.PUBLIC, "Node7.example.com:9090")
    assert not answers_for(settings, Access.PUBLIC, "node8.example.com:9090")


# Bodies -------------------------------------------------------------------------------------------


class Application:
    """Answers with the length of the body; with ``hold``, once it is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.hold: asyncio.Event | None = None
        self.received = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        size = 0
        async for part in Request(scope, receive).stream():
            size += len(part)
            self.received += len(part)
        if self.hold is not None:
            await self.hold.wait()
        await JSONResponse({"size": size})(scope, receive, send)


@asynccontextmanager
async def serving(guard: Guard) -> AsyncIterator[int]:
    server = ApiServer(guard, "127.0.0.1", port := free_port())
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(patient(30)):
        while not server._server.started:
            await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.stop()
        await task


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(patient(30)):
        while not check():
            await asyncio.sleep(0.01)


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, line: str, *headers: str, body: bytes = b"") -> None:
        head = [f"{line} HTTP/1.1", "host: 127.0.0.1", *headers, "", ""]
        await self.write("\r\n".join(head).encode() + body)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        async with asyncio.timeout(patient(30)):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, json.loads(body)

    async def closed(self) -> bool:
        async with asyncio.timeout(patient(30)):
            return await self._reader.read() == b""


def run(guard: Guard, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        async with serving(guard) as port, Client(port) as client:
            return await talk(client)

    return asyncio.run(connected())


@pytest.mark.parametrize("path", ["/v1/records", "/v1/silences"])
def test_a_body_is_not_read_before_the_token_is_known(settings: Settings, path: str) -> None:
    application = Application()

    async def talk(client: Client) -> Any:
        # A client that waits to be asked for its body is not asked.
        await client.send(f"POST {path}", "content-length: 1000", "expect: 100-continue")
        first = await client.answer()
        return first, await client.closed()

    (status, headers, body), closed = run(Guard(application, settings), talk)
    assert (status, closed, application.calls) == (401, True, 0)
    assert headers["www-authenticate"] == "bearer"
    assert "authorization" in body["error"]["message"].lower()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/records", "/v1/silences", "/v1/flagger/e/rollback"])
def test_a_client_that_sends_too_much_sees_why(
    settings: Settings, path: str, chunked: bool
) -> None:
    """Also one that reads nothing before it has sent everything."""
    limit = BULK_BODY if path == "/v1/records" else SMALL_BODY
    application = Application()
    guard = Guard(application, settings)
    piece = b" " * (limit // 4 + 1)

    async def talk(client: Client) -> Any:
        if chunked:
            await client.send(f"POST {path}", GOOD, "transfer-encoding: chunked")
            for _ in range(5):
                await client.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await client.write(b"0\r\n\r\n")
        else:
            await client.send(f"POST {path}", GOOD, f"content-length: {5 * len(piece)}")
            for _ in range(5):
                await client.write(piece)
        return await client.answer()

    status, headers, body = run(guard, talk)
    assert (status, body["error"]["code"]) == (413, "too_large")
    assert f"{limit:,} bytes" in body["error"]["message"]
    if path == "/v1/records" or not chunked:  # else the whole of it had arrived
        assert headers["connection"] == "close"
    assert application.received <= limit
    assert (guard.bodies.count, guard.bodies.size) == (0, 0)


def test_a_body_of_the_largest_size_arrives(settings: Settings) -> None:
    async def talk(client: Client) -> Any:
        found = []
        for path, size in (("/v1/records", BULK_BODY), ("/v1/silences", SMALL_BODY)):
            await client.send(f"POST {path}", GOOD, f"content-length: {size}", body=b" " * size)
            found.append((await client.answer())[2])
        await client.send("GET /healthz")
        return [*found, (await client.answer())[2]]

    sizes = [{"size": size} for size in (BULK_BODY, SMALL_BODY, 0)]
    assert run(Guard(Application(), settings), talk) == sizes


@pytest.mark.parametrize("path", ["/v1/records", "/v1/silences"])
def test_a_body_that_does_not_arrive_is_given_up(settings: Settings, path: str) -> None:
    guard = Guard(Application(), settings, Limits(body_seconds=0.1, linger_seconds=0.1))

    async def talk(client: Client) -> Any:
        await client.send(f"POST {path}", GOOD, "content-length: 1000", body=b"x" * 10)
        return await client.answer(), await client.closed()

    (status, _, body), closed = run(guard, talk)
    assert (status, body["error"]["code"], closed) == (408, "too_slow", True)
    assert (guard.bodies.count, guard.bodies.size) == (0, 0)


def test_an_answer_that_does_not_come_is_given_up(settings: Settings) -> None:
    application = Application()
    guard = Guard(application, settings, Limits(answer_seconds=0.1))

    async def talk(client: Client) -> Any:
        application.hold = asyncio.Event()
        await client.send("GET /v1/status", GOOD)
        first = await client.answer()
        application.hold = None
        await client.send("GET /v1/status", GOOD)
        return first[0], (await client.answer())[0]

    assert run(guard, talk) == (503, 200)


def test_bodies_are_bounded_over_all_requests_in_number_and_in_bytes(settings: Settings) -> None:
    for limits, size in ((Limits(bodies=3), 10), (Limits(bodies_bytes=3 * 1000), 1000)):
        application = Application()
        guard = Guard(application, settings, limits)

        async def talk(
            application: Application = application, guard: Guard = guard, size: int = size
        ) -> list[int]:
            application.hold = asyncio.Event()
            length = f"content-length: {size}"
            async with serving(guard) as port:
                clients = [Client(port) for _ in range(4)]
                for number, client in enumerate(clients):
                    await client.__aenter__()
                    await client.send("POST /v1/records", GOOD, length, body=b"x" * size)
                    if number < 3:
                        async with asyncio.timeout(patient(30)):
                            while application.received < (number + 1) * size:
                                await asyncio.sleep(0.01)
                found = [(await clients[3].answer())[0]]
                async with Client(port) as other:  # what has no body is still answered
                    application.hold, held = None, application.hold
                    await other.send("GET /healthz")
                    found.append((await other.answer())[0])
                held.set()
                found += [(await client.answer())[0] for client in clients[:3]]
                async with Client(port) as other:
                    await other.send("POST /v1/records", GOOD, length, body=b"x" * size)
                    found.append((await other.answer())[0])
                for client in clients:
                    await client.__aexit__()
            return found

        assert asyncio.run(talk()) == [503, 200, 200, 200, 200, 200]
        assert (guard.bodies.count, guard.bodies.size) == (0, 0)


class Large:
    """Answers with many bytes."""

    def __init__(self, size: int) -> None:
        self._body = bytes(range(256)) * (size // 256)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(self._body)(scope, receive, send)


@pytest.mark.parametrize("size", [0, 256, PIECE_BYTES, PIECE_BYTES + 256, 4 * PIECE_BYTES])
def test_an_answer_in_pieces_is_the_whole_answer(settings: Settings, size: int) -> None:
    guard = Guard(Large(size), settings)

    async def talk(client: Client) -> bytes:
        await client.send("GET /metrics", "connection: close")
        async with asyncio.timeout(patient(30)):
            return (await client._reader.read()).partition(b"\r\n\r\n")[2]

    assert run(guard, talk) == bytes(range(256)) * (size // 256)
    assert guard.bodies.answers == 0


def test_answers_that_are_not_read_are_bounded(settings: Settings) -> None:
    size = 16 * 1024 * 1024
    guard = Guard(Large(size), settings, Limits(answers_bytes=3 * size))

    async def talk() -> list[int]:
        found = []
        async with serving(guard) as port:
            clients = [Client(port) for _ in range(4)]
            for number, client in enumerate(clients):
                await client.__aenter__()
                await client.send("GET /metrics")
                await until(lambda number=number: guard.bodies.answers == min(number + 1, 3) * size)
            found.append((await clients[3].answer())[0])
            clients[0]._writer.transport.abort()
            await until(lambda: guard.bodies.answers == 2 * size)
            async with Client(port) as other:
                await other.send("GET /metrics")
                await until(lambda: guard.bodies.answers == 3 * size)
                found.append(int((await other._reader.readline()).split()[1]))
            for client in clients:
                client._writer.transport.abort()
        return found

    assert asyncio.run(talk()) == [503, 200]


def test_an_answer_that_is_not_read_is_given_up(settings: Settings) -> None:
    guard = Guard(Large(16 * 1024 * 1024), settings, Limits(answer_seconds=0.2))

    async def talk(client: Client) -> int:
        await client.send("GET /metrics")
        await until(lambda: guard.refused == {503: 1})
        return guard.bodies.answers

    assert run(guard, talk) == 0


def test_a_client_that_leaves_is_no_error(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(Application(), settings)

    async def talk() -> None:
        async with serving(guard) as port:
            for path in ("/v1/records", "/v1/silences"):
                async with Client(port) as client:
                    await client.send(f"POST {path}", GOOD, "content-length: 99", body=b"x")
            async with asyncio.timeout(patient(30)):
                while guard.bodies.count:
                    await asyncio.sleep(0.01)

    asyncio.run(talk())
    assert caplog.messages == []
    assert guard.bodies.size == 0


# Heads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET /healthz", [], 200),
        ("GET /healthz", [f"x-{n}: 1" for n in range(MAX_HEADERS)], 431),
        ("GET /healthz", [f"x: {'y' * 33_000}"], 431),
        (f"GET /healthz?{'a' * 17_000}", [], 414),
        ("GET /v1/status", [GOOD, "authorization: Bearer x"], 400),
        ("GET /nothing", [], 404),
        ("GET /v1/status/", [GOOD], 404),
        ("GET /v1/config/reload", [], 405),
        ("DELETE /healthz", [], 405),
    ],
)
def test_heads_have_limits(
    settings: Settings, line: str, headers: Sequence[str], status: int
) -> None:
    application = Application()

    async def talk(client: Client) -> Any:
        await client.send(line, *headers)
        return await client.answer()

    found = run(Guard(application, settings), talk)
    assert found[0] == status
    assert application.calls == (status == 200)
    assert found[1]["x-content-type-options"] == "nosniff"
    assert found[1]["cache-control"] == "no-store"
    assert found[1]["cross-origin-resource-policy"] == "same-origin"
    if status == 405:
        assert found[1]["allow"] == ("get" if "healthz" in line else "post")


@pytest.mark.parametrize(
    "target",
    [
        *("//v1/status", "/v1//status", "/./v1/status", "/healthz/../v1/status", "/V1/status"),
        *(
            "/v1/status%00",
            "/v1%2fstatus",
            "/v1/stat%75s",
            "/v1/status;x=1",
            "/v1/status?x=/healthz",
        ),
        *("/static/..%2f..%2fv1%2fstatus", "/healthz%3f/../v1/status", "/metrics/%2e%2e/v1/status"),
        *("http://evil.example/v1/status", "http://127.0.0.1/v1/status", "*"),
    ],
)
def test_no_way_of_writing_a_path_goes_around_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    application = Application()

    async def talk(client: Client) -> int:
        await client.send(f"GET {target}")
        async with asyncio.timeout(patient(30)):
            return int((await client._reader.readline()).split()[1])

    status = run(Guard(application, settings_of(config(tmp_path))), talk)
    assert (status in (400, 401, 404), application.calls) == (True, 0)


def test_two_hosts_are_refused_by_the_parser_and_by_the_guard(settings: Settings) -> None:
    async def parser(client: Client) -> bytes:
        await client.send("GET /healthz", "host: localhost")
        return (await client._reader.readline()).split()[1]

    application = Application()
    guard = Guard(application, settings)
    assert run(guard, parser) == b"400"
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("it has no body")

    hosts = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/healthz", "query_string": b""}
    asyncio.run(guard({**scope, "headers": hosts}, receive, send))
    assert sent[0]["status"] == 400
    assert application.calls == 0


def test_an_error_that_was_answered_lets_go_of_the_body(settings: Settings, tmp_path: Path) -> None:
    """FastAPI's error of a body refers to it, and its frames to the error: without the collector,
    which is rarely run, both would stay."""
    api: Any = FastAPI()
    prepare(api)

    @api.post("/v1/silences")
    async def silence(new: NewSilence) -> None:
        raise AssertionError("no body is valid")

    async def talk(client: Client) -> list[int]:
        found = []
        for body in (b"no JSON", b'{"seconds": "x"}', b"[]"):
            await client.send(
                "POST /v1/silences", GOOD, JSON, f"content-length: {len(body)}", body=body
            )
            found.append((await client.answer())[0])
        return found

    gc.collect()
    gc.disable()
    try:
        assert run(Guard(api, settings), talk) == [422, 422, 422]
        kept = [one for one in gc.get_objects() if isinstance(one, RequestValidationError)]
        assert kept == []
    finally:
        gc.enable()


def test_clients_cannot_fill_the_log() -> None:
    now = [0.0]
    seldom = SeldomFilter(60.0, lambda: now[0])
    logged = []
    for second in range(0, 150, 10):
        now[0] = float(second)
        for level, text in ((logging.WARNING, "invalid"), (logging.ERROR, "exception")):
            record = logging.LogRecord("uvicorn.error", level, "", 0, text, (), None)
            if seldom.filter(record):
                logged.append(text)
    assert (logged.count("invalid"), logged.count("exception")) == (3, 15)

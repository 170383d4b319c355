"""Connections to the control API: bounded, and none that does nothing keeps others out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tests.support.control_api import settings_of
from tests.support.evaluation import config_of
from tests.support.patience import patient
from tests.support.ports import free_port
from understudy.monitor.api import connections
from understudy.monitor.api import server as serving_module
from understudy.monitor.api.guard import Guard
from understudy.monitor.api.server import ApiServer

MOST = 16


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "MOST_CONNECTIONS", MOST)


async def served(app: FastAPI, use: Callable[[int], Awaitable[None]]) -> None:
    """``use`` the control API of ``app`` at a port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(config_of(Path(folder)))
    server = ApiServer(Guard(app, settings), "127.0.0.1", port)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(patient(30)):
        while not server._server.started:
            await asyncio.sleep(0.01)
        await use(port)
        server.stop()
        await serving


class Line:
    """A connection to the control API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") -> None:
        self.writer.write(data)

    async def status(self) -> int:
        return int((await self.reader.readuntil(b"\r\n")).split()[1])

    async def ends(self) -> bool:
        """Wait until the server closes it."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            pass
        return True


def test_requests_of_the_control_api_that_are_answered_together_are_bounded() -> None:
    """Calls that wait for the thread of a consumer are among them."""
    app = FastAPI()
    free = asyncio.Event()

    @app.get("/")
    async def answer() -> str:
        await free.wait()
        return "here"

    async def use(port: int) -> None:
        lines = []
        for _ in range(MOST - 1):
            lines.append(await Line.to(port))
            lines[-1].send()
        last = await Line.to(port)
        last.send()
        assert await last.status() == 503
        free.set()
        assert [await line.status() for line in lines] == [200] * len(lines)

    asyncio.run(served(app, use))


IDLE = b""
HALF_HEAD = b"GET / HTTP/1.1\r\nhost: "
HALF_BODY = b"POST /v1/feedback HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n1"
UNREAD = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [IDLE, HALF_HEAD, HALF_BODY, UNREAD])
def test_clients_that_do_nothing_do_not_keep_others_out_of_the_control_api(sent: bytes) -> None:
    app = FastAPI()

    @app.get("/")
    async def answer() -> str:
        return "here"

    @app.post("/v1/feedback")
    async def take(request: Request) -> int:
        return len(await request.body())

    @app.get("/metrics")
    async def metrics() -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(65536)
                await asyncio.sleep(0)

        return StreamingResponse(endless())

    async def use(port: int) -> None:
        first = await Line.to(port)
        first.send()
        assert await first.status() == 200
        silent = []
        for _ in range(3 * MOST):
            silent.append(await Line.to(port))
            silent[-1].send(sent)
        for _ in range(3):
            line = await Line.to(port)
            line.send()
            assert await line.status() == 200
        # The one that has been idle the longest went first.
        assert await first.ends()

    asyncio.run(served(app, use))


@pytest.mark.parametrize("sent", [IDLE, HALF_HEAD])
def test_the_head_of_a_request_to_the_control_api_has_to_come(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    app = FastAPI()
    app.get("/")(lambda: "here")

    async def use(port: int) -> None:
        new = await Line.to(port)
        new.send(sent)
        used = await Line.to(port)
        used.send()
        assert await used.status() == 200
        assert await new.ends()
        # Between requests there is more time, but not from the first byte of the next one on.
        used.send()
        await used.reader.readuntil(b'"here"')
        assert await used.status() == 200
        await used.reader.readuntil(b'"here"')
        used.send(HALF_HEAD)
        assert await used.ends()

    asyncio.run(served(app, use))

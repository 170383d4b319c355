"""Connections that the model server closes just when a request is sent: which are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.support.proxy import (
    OK,
    Message,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
)
from tests.support.proxy_mirror import challenger
from understudy.monitor.routing.plan import Capture, Plan

Ending = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


class Closing(Server):
    """Answers the first request of a connection, reads the next one, and ends the connection with
    ``partial`` as its answer: the proxy cannot have seen the end before. ``endings`` times."""

    def __init__(self, ending: Ending = close, partial: bytes = b"", endings: int = 1) -> None:
        super().__init__(handler=self._play)
        self.ending = ending
        self.partial = partial
        self.endings = endings

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.append(await read_message(reader, request=True))
        writer.write(OK)
        while True:
            self.seen.append(await read_message(reader, request=True))
            if self.endings:
                self.endings -= 1
                writer.write(self.partial)
                await self.ending(writer)
                return
            writer.write(OK)


def retrying(plan: Plan) -> Plan:
    return replace(plan, models=tuple(replace(m, retry=True) for m in plan.models))


async def second(side: Sidecar, raw: bytes, to_head: bool = False) -> Message:
    """A request on the connection that another one has used before."""
    assert (await side.ask(get("/first"))).status == 200
    return await side.ask(raw, to_head)


@pytest.mark.anyio
@pytest.mark.parametrize("ending", [close, reset])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_get_and_head_are_repeated_once(method: bytes, ending: Ending) -> None:
    upstream = await Closing(ending).start()
    async with sidecar(plan_for(upstream.port)) as side:
        raw = get("/x", b"x-request-id: mine", method=method)
        assert (await second(side, raw, method == b"HEAD")).status == 200
        assert upstream.connections == 2
        assert [m.first for m in upstream.seen[1:]] == [method + b" /x HTTP/1.1"] * 2
        assert [m.header("x-request-id") for m in upstream.seen[1:]] == [b"mine"] * 2
        assert side.counter("retries", reason="stale") == 1
        assert side.counter("requests", outcome="ok") == 2


@pytest.mark.anyio
async def test_once_means_once() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, request=True)
            fatal.append(b"/fatal" in message.first)
            if fatal[-1]:
                return
            writer.write(OK)

    fatal: list[bool] = []
    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await second(side, get("/fatal"))).status == 502
        assert fatal == [False, True, True]
        assert side.counter("retries", reason="stale") == 1
        assert side.counter("requests", outcome="upstream_reset") == 1


@pytest.mark.anyio
async def test_a_repeated_request_gets_a_new_connection() -> None:
    """Another one to the same server becomes free at this moment, and is about to end as well."""
    ends = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = upstream.connections
        while True:
            message = await read_message(reader, request=True)
            if b"/slow" in message.first:
                await ends.wait()
                writer.write(OK)
                return
            if b"/x" in message.first and number < 3:
                ends.set()
                return
            writer.write(OK)

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    plan = replace(plan, champion=replace(plan.champion, max_connections=2))
    async with sidecar(plan) as side:
        assert (await side.ask(get("/first"))).status == 200
        slow = asyncio.create_task(side.ask(get("/slow")))
        pool = side.worker.runtime.champion.pool
        await side.until(lambda: pool.busy == 1)
        assert (await side.ask(get("/second"))).status == 200
        assert (await side.ask(get("/x"))).status == 200
        assert (await slow).status == 200
        assert upstream.connections == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("retry", "status", "times"), [pytest.param(False, 502, 1), pytest.param(True, 200, 2)]
)
@pytest.mark.parametrize(
    ("body", "framing"),
    [(b"{}", None), (b"", None), (b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked")],
)
async def test_post_is_repeated_where_the_model_allows_it(
    retry: bool, status: int, times: int, body: bytes, framing: bytes | None
) -> None:
    upstream = await Closing().start()
    plan = plan_for(upstream.port)
    async with sidecar(retrying(plan) if retry else plan) as side:
        assert (await second(side, post(body, framing=framing))).status == status
        assert len(upstream.seen) == 1 + times
        payload = b"{}" if framing else body
        assert [m.body for m in upstream.seen[1:]] == [payload] * times
        if retry:
            assert upstream.seen[2].header("content-length") == b"%d" % len(payload)
        # A path that is not a model's has no such setting.
        assert (await side.ask(get("/again"))).status == 200
        upstream.endings = 1
        assert (await side.ask(post(path="/other"))).status == 502


@pytest.mark.anyio
@pytest.mark.parametrize(
    "partial",
    [
        b"H",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
async def test_nothing_is_repeated_after_a_byte_of_the_answer(partial: bytes) -> None:
    upstream = await Closing(partial=partial).start()
    async with sidecar(retrying(plan_for(upstream.port))) as side:
        assert (await side.ask(get("/first"))).status == 200
        with_body = b"200 OK" in partial
        for raw in (get("/x"), post()):
            upstream.endings = 1
            connections = upstream.connections
            reader, writer = await side.connect()
            writer.write(raw)
            if with_body:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await read_message(reader)
            else:
                message = await read_message(reader)
                if message.status == 100:
                    message = await read_message(reader)
                assert message.status == 502
            assert upstream.connections == connections
            assert (await side.ask(get("/again"))).status == 200
        assert side.counter("retries") == 0


@pytest.mark.anyio
@pytest.mark.parametrize("retry", [False, True])
async def test_what_is_lost_on_a_new_connection_is_repeated_only_if_the_model_allows_it(
    retry: bool,
) -> None:
    """The server accepts, reads, and breaks off: perhaps because of this request."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    async with sidecar(retrying(plan) if retry else plan) as side:
        # A GET of a path that is not a model's is repeated on a used connection only.
        for raw, times in ((get("/x"), 1), (post(), 2 if retry else 1)):
            before = upstream.connections
            assert (await side.ask(raw)).status == 502
            assert upstream.connections == before + times
        assert side.counter("retries", reason="unanswered") == retry


@pytest.mark.anyio
async def test_a_body_that_is_not_kept_is_not_repeated() -> None:
    upstream = await Closing().start()
    plan = replace(retrying(plan_for(upstream.port)), capture=Capture(1024))
    async with sidecar(plan) as side:
        assert (await second(side, post(b"x" * 2000))).status == 502
        assert len(upstream.seen) == 2


@pytest.mark.anyio
async def test_an_unfinished_request_is_not_repeated() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    upstream = await Server(handler=script).start()
    plan = replace(retrying(plan_for(upstream.port)), capture=Capture(1024))
    async with sidecar(plan) as side:
        await side.ask(get("/first"))
        reader, writer = await side.connect()
        writer.write(post(b"x" * 100, framing=b"Content-Length: 2000"))
        assert (await read_message(reader)).status == 502
        assert side.counter("retries") == 0


@pytest.mark.anyio
async def test_a_repeated_request_is_one_record_and_mirrored_once() -> None:
    upstream, other = await Closing().start(), await Server(OK).start()
    plan = retrying(plan_for(upstream.port, challenger(other.port)))
    async with sidecar(plan) as side:
        assert (await second(side, post())).status == 200
        await side.until(lambda: len(other.seen) == 1)
        await side.until(side.settled)
        assert side.counter("records_eligible") == 2
        assert side.counter("mirror", outcome="ok") == 1
        assert side.counter("requests", role="primary", outcome="ok") == 2


@pytest.mark.anyio
async def test_a_repeated_request_that_finds_no_server_is_a_502() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(OK)
        await read_message(reader, request=True)
        await upstream.stop()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await second(side, get("/x"))
        assert message.status == 502
        assert b'"outcome": "upstream_connect"' in message.body
        assert side.counter("requests", outcome="upstream_connect") == 1


@pytest.mark.anyio
async def test_a_request_whose_body_has_yet_to_come_is_not_repeated() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    upstream = await Server(handler=script).start()
    plan = replace(retrying(plan_for(upstream.port)), capture=Capture(1024))
    async with sidecar(plan) as side:
        await side.ask(get("/first"))
        expecting = post(b"", b"Expect: 100-continue", framing=b"Content-Length: 2000")
        assert (await side.ask(expecting)).status == 502
        assert side.counter("retries") == 0


@pytest.mark.anyio
@pytest.mark.parametrize(("retry", "outcome"), [(False, "upstream_reset"), (True, "ok")])
async def test_a_mirrored_request_is_repeated_under_the_same_rule(
    retry: bool, outcome: str
) -> None:
    champion, other = await Server(OK).start(), await Closing().start()
    plan = plan_for(champion.port, challenger(other.port))
    async with sidecar(retrying(plan) if retry else plan) as side:
        for number in (1, 2):
            assert (await side.ask(post(b'{"a": 1}'))).status == 200
            await side.until(lambda n=number: side.counter("mirror") == n)  # type: ignore[misc]
        assert side.counter("mirror", outcome=outcome) == 1 + (outcome == "ok")
        assert [m.body for m in other.seen] == [b'{"a": 1}'] * (3 if retry else 2)
        assert side.counter("retries", arm="candidate", reason="stale") == retry

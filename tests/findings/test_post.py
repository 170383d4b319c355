"""The HTTP client against servers that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.signals import signal
from understudy.monitor.errors import DeliveryError
from understudy.monitor.findings import words
from understudy.monitor.findings.finding import Contribution, Size
from understudy.monitor.findings.post import Reply, post

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def exchange(server: Server, body: bytes = b"{}", timeout: float = 20.0) -> Reply:
    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def run() -> Reply:
        listening = await asyncio.start_server(handled, "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            return await post(f"http://127.0.0.1:{port}/a?b=c", body, {"X-One": "1"}, timeout)

    return asyncio.run(run())


def answering(data: bytes) -> Server:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return server


def test_request_has_method_headers_and_body() -> None:
    seen: list[bytes] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert exchange(server, "ä{}".encode()) == Reply(204, "")
    head = seen[0].decode().split("\r\n")
    assert head[0] == "POST /a?b=c HTTP/1.1"
    assert {"Content-Length: 4", "Content-Type: application/json", "X-One: 1"} <= set(head)
    assert seen[1] == "ä{}".encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200\r\n\r\n", Reply(200, "")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", Reply(202, "")),
        (b"HTTP/1.0 302 Found\r\nLocation: http://x/\r\n\r\n", Reply(302, "")),
        (
            b"HTTP/1.1 429 Slow\r\nretry-after:  7 \r\n\r\nslow\x1b[31m\r\ndown",
            Reply(429, "slow [31m down", 7.0),
        ),
        (
            b"HTTP/1.1 503 X\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n" + b"x" * 9999,
            Reply(503, "x" * 500),
        ),
    ],
)
def test_responses_are_parsed(answer: bytes, expected: Reply) -> None:
    assert exchange(answering(answer)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"x" * 99999,
    ],
)
def test_invalid_responses_raise(answer: bytes) -> None:
    with pytest.raises(DeliveryError, match=r"^127\.0\.0\.1:\d+: "):
        exchange(answering(answer))


def test_a_slow_response_ends_at_the_deadline() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(DeliveryError, match=r"no answer within 0\.2 s"):
        exchange(server, timeout=0.2)


def test_an_early_response_is_accepted() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\n\r\n")
        await writer.drain()
        await reader.read()

    assert exchange(server, b"x" * 2_000_000).status == 413


def test_headers_cannot_be_injected() -> None:
    with pytest.raises(DeliveryError, match="line break"):
        asyncio.run(post("http://127.0.0.1:1/", b"", {"X": "a\r\nY: b"}, 1.0))


def test_texts_of_findings() -> None:
    assert [words.span(s) for s in (-5, 59, 3599, 3600 * 3 + 1200, 90_000)] == [
        "0 s",
        "59 s",
        "59 min",
        "3 h 20 min",
        "1 d 1 h",
    ]
    assert words.size(Size("x", "s", 1.0, 2.0, None, 3.0)) == "x: 2 s (at most 3), was 1"
    assert words.size(Size("x", "", None, 2.0, 1.0, None)) == "x: 2 (at least 1)"
    many = signal(features=tuple(Contribution(str(n), 0.1) for n in range(9)))
    assert words.features(many)[-1] == "and 4 more"
    assert words.moment(1e30) == "9999-12-31T23:59:59Z"

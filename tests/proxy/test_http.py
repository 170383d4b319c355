"""HTTP/1.1 through a worker, byte by byte: what is passed on, what is changed, what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from monitor.proxy.plan import Upstream
from tests.proxy.support import (
    INFER,
    OK,
    Message,
    Server,
    get,
    plan_for,
    post,
    read_message,
    run,
    sidecar,
)


def echo(message: Message) -> bytes:
    """An answer that holds the request's target and body."""
    body = message.first.split(b" ")[1] + b"|" + message.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_a_request_is_forwarded_as_it_came() -> None:
    async def main() -> None:
        upstream = await Server(echo).start()
        async with sidecar(plan_for(upstream.port)) as side:
            raw = post(
                b'{"a": 1}',
                b"X-Odd-CASE: a  b",
                b"accept: */*",
                b"Cookie: a=1",
                b"Cookie: b=2",
                b"Traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
                b"tracestate: v=1",
                b"X-Request-Id: mine",
            )
            answer = await side.ask(raw)
            assert answer.status == 200
            assert answer.body == INFER.encode() + b'|{"a": 1}'
            assert answer.header("x-request-id") == b"mine"
            seen = upstream.seen[0]
            expected = raw.split(b"\r\n\r\n")[0].split(b"\r\n")
            assert sorted(seen.head.split(b"\r\n")) == sorted(expected)
            # Order is kept, apart from the trace context, which is judged as a whole.
            moved = (b"Traceparent", b"tracestate")
            assert [x for x in seen.lines if not x.startswith(moved)] == [
                x for x in expected[1:] if not x.startswith(moved)
            ]
            assert side.counter("requests", outcome="ok", model="m") == 1

    run(main())


def test_identifiers_are_made_where_they_are_missing_or_bad() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        async with sidecar(plan_for(upstream.port)) as side:
            bad = (
                [],
                [b"traceparent: 00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", b"tracestate: v=1"],
                [b"traceparent: ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"],
                [b"traceparent: junk", b"x-request-id: with space"],
                [b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"] * 2,
            )
            for lines in bad:
                answer = await side.ask(post(b"{}", *lines))
                seen = upstream.seen[-1]
                trace = seen.header("traceparent") or b""
                version, trace_id, parent, flags = trace.split(b"-")
                assert (version, flags) == (b"00", b"00")
                assert len(trace_id) == 32
                assert len(parent) == 16
                assert trace_id not in (b"0" * 32, b"a" * 32)
                assert seen.header("tracestate") is None
                assert seen.header("x-request-id") == answer.header("x-request-id")
                assert len(answer.header("x-request-id") or b"") == 32
            ids = {message.header("x-request-id") for message in upstream.seen}
            assert len(ids) == len(bad)

    run(main())


def test_pipelined_requests_are_answered_in_order_however_they_are_cut() -> None:
    async def main() -> None:
        upstream = await Server(echo).start()
        async with sidecar(plan_for(upstream.port)) as side:
            requests = b"".join(
                post(b"b%d" % i, path=f"/p/{i}")
                if i % 2
                else post(
                    b"3\r\nabc\r\n0\r\n\r\n", path=f"/p/{i}", framing=b"Transfer-Encoding: chunked"
                )
                for i in range(6)
            )
            expected = [b"/p/%d|%b" % (i, b"b%d" % i if i % 2 else b"abc") for i in range(6)]
            for cut in range(1, len(requests), 7):
                reader, writer = await side.connect()
                writer.write(requests[:cut])
                await asyncio.sleep(0.001)
                writer.write(requests[cut:])
                assert [(await read_message(reader)).body for _ in range(6)] == expected
                writer.close()
            reader, writer = await side.connect()
            for i in range(len(requests)):
                writer.write(requests[i : i + 1])
                await asyncio.sleep(0)
            assert [(await read_message(reader)).body for _ in range(6)] == expected
            many = b"".join(get(f"/many/{i}") for i in range(500))
            reader, writer = await side.connect()
            writer.write(many)
            assert [(await read_message(reader)).body for i in range(500)] == [
                b"/many/%d|" % i for i in range(500)
            ]

    run(main())


@pytest.mark.parametrize(
    ("request_", "answer", "body", "kept_alive"),
    [
        pytest.param(get("/", method=b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", True,
                     id="HEAD"),
        pytest.param(get(), b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, id="204"),
        pytest.param(get(), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True, id="304"),
        pytest.param(get(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True, id="empty"),
        pytest.param(get(), b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x", True, id="no reason"),
        pytest.param(
            get(), b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
            b"abc", True, id="chunked with extension and trailer"),
        pytest.param(get(), b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", True, id="HTTP/1.0 answer"),
        pytest.param(get("/", version=b"1.0"), OK, b"ok", False, id="HTTP/1.0 client"),
        pytest.param(get("/", b"Connection: keep-alive", version=b"1.0"), OK, b"ok", True,
                     id="HTTP/1.0 client, keep-alive"),
        pytest.param(get("/", b"Connection: close"), OK, b"ok", False, id="close"),
        pytest.param(get(), b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", b"x", True,
                     id="the upstream closes"),
        pytest.param(get("*", method=b"OPTIONS"), OK, b"ok", True, id="OPTIONS *"),
    ],
)  # fmt: skip
def test_answers(request_: bytes, answer: bytes, body: bytes, kept_alive: bool) -> None:
    async def main() -> None:
        upstream = await Server(answer).start()
        async with sidecar(plan_for(upstream.port)) as side:
            to_head = request_.startswith(b"HEAD")
            reader, writer = await side.connect()
            for _ in range(2 if kept_alive else 1):
                writer.write(request_)
                message = await read_message(reader, to_head=to_head)
                assert message.body == body
                assert message.first.startswith(b"HTTP/1.1 ")
            if not kept_alive:
                assert message.header("connection") == b"close"
                assert await reader.read() == b""

    run(main())


def test_an_old_client_gets_chunks_without_their_framing() -> None:
    async def main() -> None:
        answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        upstream = await Server(answer).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            writer.write(get("/", b"Connection: keep-alive", version=b"1.0"))
            message = await read_message(reader)
            assert message.body == b"abcde"
            assert message.header("transfer-encoding") is None

    run(main())


def test_an_answer_that_ends_with_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart one ")
        await asyncio.sleep(0.02)
        writer.write(b"part two")

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            message = await side.ask(get())
            assert message.body == b"part one part two"
            assert message.header("connection") == b"close"
            assert side.counter("requests", outcome="ok") == 1

    run(main())


def test_hop_by_hop_fields_stay_behind() -> None:
    async def main() -> None:
        answer = (
            b"HTTP/1.1 200 OK\r\nConnection: X-Inner, keep-alive\r\nKeep-Alive: timeout=9\r\n"
            b"X-Inner: 1\r\nX-Outer: 2\r\nProxy-Connection: x\r\nContent-Length: 0\r\n\r\n"
        )
        upstream = await Server(answer).start()
        async with sidecar(plan_for(upstream.port)) as side:
            message = await side.ask(
                post(
                    b"",
                    b"Connection: X-Mine, Content-Length",
                    b"X-Mine: 1",
                    b"TE: trailers",
                    b"Keep-Alive: 5",
                    b"Proxy-Connection: y",
                    b"X-Yours: 2",
                    b"Upgrade: h2c",
                    b"HTTP2-Settings: AAA",
                )
            )
            assert [line.split(b":")[0] for line in message.lines] == [
                b"X-Outer", b"Content-Length", b"x-request-id",
            ]  # fmt: skip
            names = {line.split(b":")[0].lower() for line in upstream.seen[0].lines}
            assert names == {
                b"host",
                b"x-yours",
                b"content-length",
                b"traceparent",
                b"x-request-id",
            }

    run(main())


@pytest.mark.parametrize(
    ("target", "expected_target", "expected_host"),
    [
        (b"http://there:81/a?b=c", b"/a?b=c", b"there:81"),
        (b"http://there", b"/", b"there"),
        (b"HTTPS://there/x", b"/x", b"there"),
    ],
)
def test_absolute_targets(target: bytes, expected_target: bytes, expected_host: bytes) -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        async with sidecar(plan_for(upstream.port)) as side:
            await side.ask(b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % target)
            assert upstream.seen[0].first == b"GET %b HTTP/1.1" % expected_target
            assert upstream.seen[0].header("host") == expected_host

    run(main())


CL = b"Content-Length: 3"
REFUSED = [
    (post(b"abc", b"Transfer-Encoding: chunked"), 400, "CL and TE"),
    (post(b"abc", CL), 400, "CL twice"),
    (post(b"abc", framing=b"Content-Length: +3"), 400, "CL with sign"),
    (post(b"abc", framing=b"Content-Length: 0x3"), 400, "CL in hex"),
    (post(b"abc", framing=b"Content-Length: 3, 3"), 400, "CL list"),
    (post(b"abc", framing=b"Content-Length: "), 400, "CL empty"),
    (post(b"abc", framing=b"Content-Length: 99999999999999999999"), 400, "CL huge"),
    (post(b"abc", framing=b"Content-Length : 3"), 400, "space before colon"),
    (post(b"", framing=b"Transfer-Encoding: xchunked"), 501, "TE unknown"),
    (post(b"", framing=b"Transfer-Encoding: chunked, identity"), 501, "TE not last"),
    (post(b"", framing=b"Transfer-Encoding: gzip, chunked"), 501, "TE gzip"),
    (post(b"", b"Transfer-Encoding: chunked", framing=b"Transfer-Encoding: chunked"), 400, "TE twice"),
    (post(b"", framing=b"Transfer-Encoding:\x0bchunked"), 400, "TE vertical tab"),
    (post(b"", framing=b"Transfer-Encoding: chunked").replace(b"1.1", b"1.0"), 400, "TE in 1.0"),
    (post(b"", b"X-A: 1", b" folded"), 400, "obs-fold"),
    (post(b"", b"\tX-A: 1"), 400, "leading tab"),
    (post(b"", b"X-A: 1\nX-B: 2"), 400, "bare LF in head"),
    (b"GET / HTTP/1.1\nHost: here\n\n", 400, "LF only"),
    (post(b"", b"X-A: 1\rX-B: 2"), 400, "bare CR"),
    (post(b"", b"X-A: \x00"), 400, "NUL"),
    (post(b"", b"X A: 1"), 400, "space in name"),
    (post(b"", b": 1"), 400, "no name"),
    (post(b"", b"no colon"), 400, "no colon"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "no Host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host twice"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host malformed"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, "version"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two spaces"),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control character in target"),
    (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "no path"),
    (b"GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "user in target"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "CONNECT"),
    (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "TLS to a plain port"),
    (get("/" + "a" * 9000), 414, "long target"),
    (get("/", b"X: " + b"a" * 40_000), 431, "large head"),
    (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, 431, "large head without end"),
    (post(b"", b"Expect: the-unexpected"), 417, "Expect"),
    *(
        (post(chunk, framing=b"Transfer-Encoding: chunked"), 400, f"chunk {chunk!r}")
        for chunk in (
            b"g\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"3\nabc\r\n", b"3\r\nabcd\r\n", b"\r\n",
            b"1000000000000000\r\n", b"3 \r\nabc\r\n", b"3;\x00\r\nabc\r\n", b"0\r\nContent-Length: 3\r\n\r\n",
            b"0\r\nbad trailer\r\n\r\n", b"0\r\n folded: 1\r\n\r\n", b"3;" + b"a" * 2000 + b"\r\n",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "status", "name"), REFUSED, ids=[name for _, _, name in REFUSED])
def test_what_is_ambiguous_is_refused_and_the_connection_closed(
    raw: bytes, status: int, name: str
) -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            # What follows must never be taken for a request of its own.
            writer.write(raw + get("/smuggled"))
            message = await read_message(reader)
            assert message.status == status
            assert message.header("content-type") == b"application/json"
            assert await reader.read() == b""
            await side.until(lambda: side.counter("rejected") == 1)
            assert not [m for m in upstream.seen if b"/smuggled" in m.first]

    run(main())


def test_slow_heads_and_slow_bodies_are_refused() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        plan = plan_for(upstream.port, header_timeout=0.2)
        plan = replace(plan, champion=replace(plan.champion, total_timeout=0.4))
        async with sidecar(plan) as side:
            for raw in (b"GET / HTTP/1.1\r\nHost:", post(b"abc", framing=b"Content-Length: 9")):
                message = await side.ask(raw)
                assert message.status == 408
            assert side.counter("rejected", reason="slow_header") == 1
            assert side.counter("rejected", reason="slow_body") == 1
            reader, writer = await side.connect()
            for byte in b"GET / HTTP/1.1\r\nX-Dripping: " + b"a" * 500:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
                if reader.at_eof() or len(reader._buffer):  # type: ignore[attr-defined]
                    break
            assert (await read_message(reader)).status == 408

    run(main())


def test_too_many_connections() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        async with sidecar(plan_for(upstream.port, connections=2)) as side:
            first, second = await side.connect(), await side.connect()
            for reader, writer in (first, second):
                writer.write(get())
                assert (await read_message(reader)).status == 200
            reader, _ = await side.connect()
            message = await read_message(reader)
            assert message.status == 503
            assert message.header("retry-after") == b"1"
            first[1].close()
            await side.until(lambda: len(side.worker.clients) == 1)
            assert (await side.ask(get())).status == 200

    run(main())


def test_expect_continue_goes_through_both_ways() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)
        await reader.read()

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            writer.write(post(b"", b"Expect: 100-continue", framing=b"Content-Length: 5"))
            assert (await read_message(reader)).status == 100
            hints = await read_message(reader)
            assert (hints.status, hints.header("link")) == (103, b"</a>")
            writer.write(b"hello")
            assert (await read_message(reader)).body == b"hello"

    run(main())


def test_an_upgrade_becomes_a_tunnel() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: websocket" in head
        assert b"connection: upgrade" in head.lower()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi"
        )
        while data := await reader.read(100):
            writer.write(data.upper())

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            writer.write(get("/ws", b"Connection: Upgrade", b"Upgrade: websocket"))
            message = await read_message(reader)
            assert message.status == 101
            assert message.header("upgrade") == b"websocket"
            assert await reader.readexactly(2) == b"hi"
            for text in (b"abc", b"GET / HTTP/1.1\r\n\r\n"):
                writer.write(text)
                assert await reader.readexactly(len(text)) == text.upper()
            writer.close()
            await side.until(lambda: upstream.closed == 1)
            await side.until(lambda: side.counter("requests", outcome="ok") == 1)

    run(main())


def test_events_arrive_one_by_one() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for i in range(3):
            event = b"data: %d\n\n" % i
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await release.wait()
            release.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            writer.write(get("/stream"))
            await reader.readuntil(b"\r\n\r\n")
            for i in range(3):
                # The next event is not sent before this one has arrived.
                await reader.readuntil(b"data: %d\n\n\r\n" % i)
                release.set()
            assert await reader.readexactly(5) == b"0\r\n\r\n"

    run(main())


def test_a_client_that_leaves_cancels_the_upstream() -> None:
    started = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        started.set()
        await reader.read()

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            _, writer = await side.connect()
            writer.write(post())
            await started.wait()
            writer.close()
            await side.until(lambda: upstream.closed == 1)
            assert side.counter("requests", outcome="cancelled") == 1

    run(main())


def _silent(after: bytes = b"") -> Server:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(after)
        await reader.read()

    return Server(handler=script)


@pytest.mark.parametrize(
    ("upstream", "limit", "status"),
    [
        pytest.param(_silent(), {"first_byte_timeout": 0.2}, 504, id="first byte"),
        pytest.param(_silent(), {"total_timeout": 0.2}, 504, id="total"),
        pytest.param(_silent(b"HTTP/1.1 100 Continue\r\n\r\n"), {"first_byte_timeout": 0.2}, 504,
                     id="only an interim answer"),
    ],
)  # fmt: skip
def test_timeouts(upstream: Server, limit: dict[str, float], status: int) -> None:
    async def main() -> None:
        await upstream.start()
        plan = plan_for(upstream.port)
        async with sidecar(replace(plan, champion=replace(plan.champion, **limit))) as side:
            reader, writer = await side.connect()
            writer.write(post(b"{}", b"x-request-id: slow-one"))
            message = await read_message(reader)
            if message.status == 100:
                message = await read_message(reader)
            assert message.status == status
            assert b'"outcome": "timeout"' in message.body
            assert message.header("x-request-id") == b"slow-one"
            await side.until(lambda: upstream.closed == 1)
            assert side.counter("requests", outcome="timeout") == 1

    run(main())


def test_a_stream_that_stalls_is_cut() -> None:
    async def main() -> None:
        upstream = await _silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc").start()
        plan = plan_for(upstream.port)
        plan = replace(plan, champion=replace(plan.champion, total_timeout=0.3))
        async with sidecar(plan) as side:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await side.ask(post())
            assert side.counter("requests", outcome="timeout") == 1

    run(main())


GARBAGE = [
    b"nonsense\r\n\r\n",
    b"\x00\x01\x02\x03\x04\x05",
    b"HTTP/1.1 999 Odd\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n" + b" " * 70_000,
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_of_the_upstream_is_a_502(answer: bytes) -> None:
    async def main() -> None:
        upstream = await Server(answer).start()
        async with sidecar(plan_for(upstream.port)) as side:
            message = await side.ask(post())
            assert message.status == 502
            assert side.counter("requests", outcome="upstream_reset") == 1

    run(main())


def test_bad_chunks_in_the_middle_of_an_answer_cut_it() -> None:
    async def main() -> None:
        upstream = await _silent(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        ).start()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_message(reader, request=True)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await asyncio.sleep(0.02)
            writer.write(b"zz\r\n")
            await reader.read()

        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await side.ask(post())
            assert side.counter("requests", outcome="upstream_reset") == 1

    run(main())


def test_more_than_the_answer_is_not_the_next_answer() -> None:
    async def main() -> None:
        upstream = await Server(OK + OK.replace(b"ok", b"no")).start()
        async with sidecar(plan_for(upstream.port)) as side:
            for _ in range(3):
                assert (await side.ask(get())).body == b"ok"
            assert upstream.connections == 3

    run(main())


def test_an_early_answer_ends_an_upload() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read(1000)

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()
            writer.write(post(b"x" * 1000, framing=b"Content-Length: 1000000"))
            message = await read_message(reader)
            assert (message.status, message.body) == (413, b"big")
            assert message.header("connection") == b"close"
            writer.write(b"x" * 1000)
            assert await reader.read() == b""

    run(main())


def test_a_refused_connection_is_tried_once_more() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        port = upstream.port
        await upstream.stop()
        async with sidecar(plan_for(port)) as side:
            message = await side.ask(post())
            assert message.status == 502
            assert b'"outcome": "upstream_connect"' in message.body
            assert side.counter("retries") == 1
            assert side.counter("upstream_connect_failures") == 2
            assert side.counter("requests", outcome="upstream_connect") == 1
            upstream = await Server(OK).start(port)
            assert (await side.ask(post())).status == 200
            assert side.counter("cold_starts", arm="champion") == 1

    run(main())


def test_an_address_that_swallows_connections_times_out() -> None:
    async def main() -> None:
        plan = plan_for(1)
        # TEST-NET-1 is routed nowhere; whether it refuses or hangs, the client gets its answer.
        plan = replace(plan, champion=Upstream("champion", "192.0.2.1", 9, connect_timeout=0.2))
        async with sidecar(plan) as side:
            assert (await side.ask(post())).status == 502

    run(main())


def test_a_request_that_was_sent_is_not_sent_twice() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            assert (await side.ask(post())).status == 502
            assert upstream.connections == 1
            assert side.counter("requests", outcome="upstream_reset") == 1

    run(main())


def test_connections_are_reused_and_old_ones_are_not() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        plan = plan_for(upstream.port)
        plan = replace(plan, champion=replace(plan.champion, idle_timeout=0.15))
        async with sidecar(plan) as side:
            for _ in range(5):
                assert (await side.ask(get())).status == 200
            assert upstream.connections == 1
            await asyncio.sleep(0.3)
            assert (await side.ask(get())).status == 200
            assert upstream.connections == 2

    run(main())


def test_the_upstream_says_how_long_it_waits() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n"
        upstream = await Server(answer).start()
        async with sidecar(plan_for(upstream.port)) as side:
            await side.ask(get())
            await asyncio.sleep(0.05)
            await side.ask(get())
            assert upstream.connections == 2

    run(main())


def test_busy_connections_make_requests_wait_and_a_full_queue_refuses() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await release.wait()
            writer.write(OK)

    async def main() -> None:
        upstream = await Server(handler=script).start()
        plan = plan_for(upstream.port)
        plan = replace(plan, champion=replace(plan.champion, max_connections=1, max_waiting=1))
        async with sidecar(plan) as side:
            first = asyncio.create_task(side.ask(post()))
            await side.until(lambda: side.worker.runtime.champion.pool.busy == 1)
            second = asyncio.create_task(side.ask(post()))
            await side.until(lambda: len(side.worker.runtime.champion.pool.waiting) == 1)
            refused = await side.ask(post())
            assert refused.status == 503
            assert b'"outcome": "overload"' in refused.body
            release.set()
            assert (await first).status == (await second).status == 200
            assert side.counter("queue", outcome="ok") == 2

    run(main())


def test_large_bodies_pass_both_ways_while_the_slow_side_holds_back_the_fast_one() -> None:
    size = 48 * 1024 * 1024
    peak = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 16)))
            if left % 7 == 0:
                await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            writer.write(block)
            await writer.drain()
        await reader.read()

    async def main() -> None:
        nonlocal peak
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            reader, writer = await side.connect()

            def held() -> int:
                total = 0
                for client in side.worker.clients:
                    if client.transport is not None:
                        total += client.transport.get_write_buffer_size()
                    if client.exchange is not None and client.exchange._connection is not None:
                        transport = client.exchange._connection.transport
                        total += transport.get_write_buffer_size() if transport else 0
                return total

            writer.write(post(b"", framing=b"Content-Length: %d" % size))
            block = bytes(1 << 16)
            for _ in range(size >> 16):
                writer.write(block)
                await writer.drain()
                peak = max(peak, held())
            await reader.readuntil(b"\r\n\r\n")
            left = size
            while left:
                left -= len(await reader.read(1 << 16))
                peak = max(peak, held())
                if left % 3 == 0:
                    await asyncio.sleep(0)
            await side.until(lambda: side.counter("response_bytes") == size)
            assert side.counter("request_bytes") == size

    run(main())
    # Two buffers of at most a mark and one read each, and not the body.
    assert 0 < peak < 2 * 1024 * 1024


def test_draining_finishes_what_is_under_way() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        await release.wait()
        writer.write(OK)
        await reader.read()

    async def main() -> None:
        upstream = await Server(handler=script).start()
        async with sidecar(plan_for(upstream.port)) as side:
            idle_reader, _ = await side.connect()
            reader, writer = await side.connect()
            writer.write(post())
            await side.until(lambda: upstream.connections == 1)
            draining = asyncio.create_task(side.worker.drain())
            assert await idle_reader.read() == b""
            assert not draining.done()
            release.set()
            message = await read_message(reader)
            assert message.status == 200
            assert message.header("connection") == b"close"
            assert await reader.read() == b""

    run(main())


def test_a_new_plan_takes_over_between_requests() -> None:
    async def main() -> None:
        old = await Server(OK).start()
        new = await Server(OK.replace(b"ok", b"NU")).start()
        async with sidecar(plan_for(old.port)) as side:
            reader, writer = await side.connect()
            writer.write(get())
            assert (await read_message(reader)).body == b"ok"
            side.worker.reload(replace(plan_for(new.port), generation=2))
            writer.write(get())
            assert (await read_message(reader)).body == b"NU"
            await side.until(lambda: old.closed == 1)

    run(main())


def test_a_header_line_of_one_client_never_reaches_another() -> None:
    async def main() -> None:
        upstream = await Server(OK).start()
        async with sidecar(plan_for(upstream.port)) as side:
            for i in range(50):
                await side.ask(get("/", b"Authorization: secret-%d" % i, b"X-Shared: 1"))
            for i, seen in enumerate(upstream.seen):
                assert seen.header("authorization") == b"secret-%d" % i
            await side.ask(get("/", b"X-Shared: 1"))
            assert upstream.seen[-1].header("authorization") is None

    run(main())

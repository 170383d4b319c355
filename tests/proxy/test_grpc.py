"""gRPC through a worker, with a real server and real clients of grpcio."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import grpc
import pytest

from tests.support.grpc_calls import floats, request_message
from tests.support.grpc_world import (
    INFER,
    SERVICE,
    STREAM,
    call,
    channel,
    failure,
    grpc_plan,
    grpc_server,
)
from tests.support.ports import free_port
from tests.support.proxy import Server, plan_for, sidecar
from tests.support.proxy_peer import Peer
from tests.support.service import ROOT
from understudy.monitor.records import record
from understudy.monitor.routing.plan import Challenger, Match, Model, Split, Upstream
from understudy.shadow.assignment import POINTS


def challenger(port: int, **settings: Any) -> Challenger:
    upstream = Upstream("new", "127.0.0.1", port, http2=True)
    return Challenger(upstream, serving=upstream, **settings)


@pytest.mark.anyio
async def test_a_unary_call_keeps_metadata_message_and_trailers() -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port)) as side:
            sent = [("x-a-bin", b"\x00\x01"), ("x-twice", "1"), ("x-twice", "2")]
            direct = await asyncio.to_thread(call, server.port, b"hello", metadata=sent)
            message, initial, trailing = await asyncio.to_thread(
                call, side.port, b"hello", metadata=sent
            )
            assert (message, trailing) == (direct[0], direct[2])
            assert [one for one in initial if one[0] != "x-request-id"] == direct[1]
            asked, through = (seen[1] for seen in server.seen)
            assert [one for one in through if one[0] != "x-request-id"] == asked
            assert side.counter("grpc_calls", grpc_status="OK", arm="champion") == 1
            assert side.counter("requests", outcome="ok") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("NOT_FOUND", "client_error"),
        ("INVALID_ARGUMENT", "client_error"),
        ("RESOURCE_EXHAUSTED", "model_overload"),
        ("DEADLINE_EXCEEDED", "timeout"),
        ("CANCELLED", "cancelled"),
        ("UNAVAILABLE", "server_error"),
        ("UNIMPLEMENTED", "server_error"),
        ("INTERNAL", "server_error"),
    ],
)
async def test_a_status_passes_with_its_details_and_is_the_outcome(name: str, outcome: str) -> None:
    with grpc_server() as server:
        async with sidecar(grpc_plan(server.port)) as side:
            error = await asyncio.to_thread(
                failure, lambda: call(side.port, name.encode(), SERVICE + "Fail")
            )
            assert error.code() is getattr(grpc.StatusCode, name)
            assert error.details() == "not here: \u00e9 100%"
            assert ("grpc-status-details-bin", b"\x08\x05") in list(error.trailing_metadata())
            await side.until(side.settled)
            assert side.counter("requests", outcome=outcome) == 1
            assert side.counter("grpc_calls", grpc_status=name) == 1


@pytest.mark.anyio
async def test_a_stream_answers_each_message_before_the_next_one_is_sent() -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def talk() -> list[bytes]:
                answered = threading.Semaphore(1)
                got: list[bytes] = []

                def messages() -> Any:
                    for number in range(5):
                        assert answered.acquire(timeout=20)
                        yield b"%d" % number

                with channel(side.port) as found:
                    for message in found.stream_stream(STREAM)(messages(), timeout=30):
                        got.append(message)
                        answered.release()
                return got

            assert await asyncio.to_thread(talk) == [b"m:%d" % number for number in range(5)]
            await side.until(side.settled)
            assert side.counter("requests", outcome="ok") == 5
            assert side.counter("grpc_calls", grpc_status="OK") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("algorithm", ["Gzip", "Deflate"])
async def test_large_and_compressed_messages_pass(algorithm: str) -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port)) as side:
            data = bytes(range(256)) * 20_000
            compression = getattr(grpc.Compression, algorithm)
            message, _, _ = await asyncio.to_thread(call, side.port, data, compression=compression)
            assert message == b"m:" + data
            message, _, _ = await asyncio.to_thread(call, side.port, data)
            assert message == b"m:" + data


@pytest.mark.anyio
async def test_a_deadline_is_passed_on_as_what_is_left_and_ends_the_call_at_the_server() -> None:
    with grpc_server() as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def late() -> float:
                began = monotonic()
                with channel(side.port) as found:
                    error = failure(lambda: found.unary_unary(SERVICE + "Slow")(b"", timeout=0.3))
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                return monotonic() - began

            assert await asyncio.to_thread(late) >= 0.3
            assert await asyncio.to_thread(server.cancelled.wait, 20)
            assert server.left[0] is not None
            assert 0 < server.left[0] <= 0.3
            await side.until(side.settled)
            assert side.counter("grpc_calls") == 1


@pytest.mark.anyio
async def test_without_a_deadline_the_server_sees_none_and_a_cancel_reaches_it_at_once() -> None:
    with grpc_server() as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def cancelled() -> None:
                with channel(side.port) as found:
                    answers = found.unary_stream(SERVICE + "Never")(b"")
                    assert next(answers) == b"one"
                    assert server.begun.wait(20)
                    answers.cancel()
                    assert server.cancelled.wait(20)

            await asyncio.to_thread(cancelled)
            await side.until(side.settled)
            assert side.counter("requests", outcome="cancelled") == 1
            assert side.counter("grpc_calls", grpc_status="CANCELLED") == 1
            with channel(side.port) as found:
                future = found.unary_unary(SERVICE + "Slow").future(b"")
                await side.until(lambda: bool(server.left))
                # grpcio's way to say that there is no limit.
                assert server.left[0] is None or server.left[0] > 1e9
                future.cancel()


@pytest.mark.anyio
async def test_refusals_are_statuses_and_never_bare_http() -> None:
    # Nothing listens on that port; a server of HTTP/1.1 is none for calls; nor is one that hangs.
    async with sidecar(grpc_plan(free_port())) as side:
        error = await asyncio.to_thread(failure, lambda: call(side.port, b"x"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "cannot be reached" in str(error.details())
        assert side.counter("requests", outcome="upstream_connect") == 1
    upstream = await Server().start()
    plan = grpc_plan(upstream.port)
    async with sidecar(plan) as side:
        error = await asyncio.to_thread(failure, lambda: call(side.port, b"x"))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert side.counter("requests", outcome="garbage") == 1
    async with sidecar(replace(plan, champion=replace(plan.champion, http2=False))) as side:
        error = await asyncio.to_thread(failure, lambda: call(side.port, b"x"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "HTTP/2" in str(error.details())
    await upstream.stop()
    with grpc_server() as server:
        plan = grpc_plan(server.port)
        slow = replace(plan, champion=replace(plan.champion, first_byte_timeout=0.2))
        async with sidecar(slow) as side:
            error = await asyncio.to_thread(
                failure, lambda: call(side.port, b"x", SERVICE + "Slow")
            )
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await asyncio.to_thread(server.cancelled.wait, 20)


@pytest.mark.anyio
async def test_unary_calls_are_mirrored_and_streams_are_not() -> None:
    with grpc_server(b"old:") as champion, grpc_server(b"new:") as new:
        plan = grpc_plan(champion.port, challenger(new.port))
        async with sidecar(plan) as side:
            peer = Peer(side.folder / "records.sock")
            await peer.start()
            for number in range(5):
                message, _, _ = await asyncio.to_thread(call, side.port, b"%d" % number)
                assert message == b"old:%d" % number

            def stream() -> list[bytes]:
                with channel(side.port) as found:
                    return list(found.stream_stream(STREAM)(iter((b"a", b"b")), timeout=20))

            assert await asyncio.to_thread(stream) == [b"old:a", b"old:b"]
            await side.until(lambda: side.counter("mirror", outcome="ok") == 5)
            assert sorted(data for _, _, data in new.seen) == [b"%d" % n for n in range(5)]
            # Five calls, their copies, and one or two of the stream, whose messages have no ids.
            await side.until(lambda: len(peer.records) >= 11)
            await peer.stop()
            records = peer.records
            by_role = [one for one in records if one.role == record.ROLE_MIRROR]
            assert len(by_role) == 5
            for one in by_role:
                assert one.response_body is not None
                assert one.response_body[5:9] == b"new:"
                assert b"grpc-status: 0" in one.response_headers
            first = next(one for one in records if one.role == record.ROLE_PRIMARY)
            assert first.target == INFER.encode()
            assert first.request_body is not None
            assert first.request_body[5:] == b"0"
            assert b"content-type: application/grpc" in first.request_headers


@pytest.mark.anyio
async def test_calls_are_split_by_metadata() -> None:
    with grpc_server(b"old:") as champion, grpc_server(b"new:") as new:
        plan = grpc_plan(champion.port, challenger(new.port, rate=0.0))
        split = Split("e", 0, "salt", "header", "x-user", (0, POINTS // 2), (0, 1))
        async with sidecar(replace(plan, splits=(split,))) as side:

            def ask(user: int) -> bytes:
                return call(side.port, b"", metadata=[("x-user", f"u{user}")])[0]

            first = [await asyncio.to_thread(ask, user) for user in range(24)]
            again = [await asyncio.to_thread(ask, user) for user in range(24)]
            assert first == again
            assert set(first) == {b"old:", b"new:"}


@pytest.mark.anyio
async def test_the_model_is_found_in_the_first_message_however_it_arrives() -> None:
    message = request_message(("x", "FP32", floats(*range(20_000))), model="abc")
    data = message.SerializeToString()
    with grpc_server(b"m:") as server:
        plan = grpc_plan(server.port)
        template = Model("all", "", "auto", (INFER, STREAM), match=Match())
        async with sidecar(replace(plan, models=(template,))) as side:
            for _ in range(3):
                answer, _, _ = await asyncio.to_thread(call, side.port, data)
                assert answer == b"m:" + data
            # The first that succeeds makes it known.
            assert side.counter("requests", model="abc") == 3

            def talk() -> list[bytes]:
                got: list[bytes] = []
                answered = threading.Semaphore(1)

                def messages() -> Any:
                    for _ in range(3):
                        assert answered.acquire(timeout=20)
                        yield data

                with channel(side.port) as found:
                    for one in found.stream_stream(STREAM)(messages(), timeout=30):
                        got.append(one)
                        answered.release()
                return got

            assert await asyncio.to_thread(talk) == [b"m:" + data] * 3
            await side.until(side.settled)
            assert side.counter("requests", model="abc") == 4


@pytest.mark.anyio
async def test_many_calls_at_a_time_share_a_connection() -> None:
    with grpc_server(b"m:", **{"grpc.max_concurrent_streams": 8}) as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def many() -> None:
                with channel(side.port) as found:
                    infer = found.unary_unary(INFER)
                    futures = [infer.future(b"%d" % n, timeout=30) for n in range(200)]
                    assert [f.result() for f in futures] == [b"m:%d" % n for n in range(200)]

            await asyncio.to_thread(many)
            assert len(side.worker.clients) <= 1
            assert 1 <= len(side.worker.runtime.champion.pool.open) <= 200 // 8 + 1


@pytest.mark.anyio
async def test_a_server_that_goes_away_is_left_without_an_error() -> None:
    with grpc_server(b"m:", **{"grpc.max_connection_age_ms": 200}) as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def many() -> None:
                with channel(side.port) as found:
                    infer = found.unary_unary(INFER)
                    until = monotonic() + 1.5
                    while monotonic() < until:
                        assert infer(b"x", timeout=20) == b"m:x"

            await asyncio.to_thread(many)
            assert side.counter("upstream_connects") > 1
            assert side.counter("requests") == side.counter("requests", outcome="ok")


@pytest.mark.anyio
async def test_a_client_is_asked_to_leave_at_drain_and_its_call_ends_well() -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port, connection_age=0.3)) as side:

            def many() -> None:
                with channel(side.port) as found:
                    infer = found.unary_unary(INFER)
                    until = monotonic() + 2
                    while monotonic() < until:
                        assert infer(b"x", timeout=20) == b"m:x"

            ticking = asyncio.create_task(asyncio.to_thread(many))
            while not ticking.done():
                for client in tuple(side.worker.clients):
                    client.expire(monotonic(), side.worker.runtime)
                await asyncio.sleep(0.01)
            await ticking
            assert side.counter("connections_accepted") > 2


@pytest.mark.anyio
async def test_a_client_over_http1_and_a_server_over_http2_understand_each_other() -> None:
    plan = plan_for(1)
    with grpc_server(b"m:") as server:
        async with sidecar(replace(plan, champion=grpc_plan(server.port).champion)) as side:
            # A server of gRPC refuses what is not a call: its refusal arrives as HTTP/1.1.
            answer = await side.ask(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.status in (400, 404, 405, 415, 200, 502)


@pytest.mark.anyio
async def test_a_stream_in_flight_ends_well_while_the_worker_drains() -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port)) as side:
            peer = Peer(side.folder / "records.sock")
            await peer.start()
            go = threading.Event()

            def talk() -> list[bytes]:
                def messages() -> Any:
                    yield b"one"
                    assert go.wait(20)
                    yield b"two"

                with channel(side.port) as found:
                    return list(found.stream_stream(STREAM)(messages(), timeout=30))

            talking = asyncio.create_task(asyncio.to_thread(talk))
            await side.until(lambda: len(server.seen) == 1)
            draining = asyncio.create_task(side.worker.drain())
            (client,) = side.worker.clients
            # It is told first that nothing more is taken, and is closed when its call has ended.
            await side.until(lambda: client._ended)
            assert not draining.done()
            go.set()
            assert await talking == [b"m:one", b"m:two"]
            await draining
            await peer.stop()


@pytest.mark.anyio
async def test_a_call_that_the_drain_cuts_off_is_unavailable() -> None:
    with grpc_server() as server:
        async with sidecar(grpc_plan(server.port, drain_timeout=0.5)) as side:
            peer = Peer(side.folder / "records.sock")
            await peer.start()

            def late() -> grpc.Call:
                with channel(side.port) as found:
                    return failure(lambda: found.unary_unary(SERVICE + "Slow")(b"", timeout=30))

            calling = asyncio.create_task(asyncio.to_thread(late))
            assert await asyncio.to_thread(server.begun.wait, 20)
            await side.worker.drain()
            error = await calling
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "stopping" in str(error.details())
            await peer.stop()
            assert await asyncio.to_thread(server.cancelled.wait, 20)


@pytest.mark.anyio
async def test_a_connection_that_breaks_fails_its_calls_only() -> None:
    with grpc_server(b"m:") as server:
        async with sidecar(grpc_plan(server.port)) as side:

            def late() -> grpc.Call:
                with channel(side.port) as found:
                    return failure(lambda: found.unary_unary(SERVICE + "Slow")(b"", timeout=30))

            calling = asyncio.create_task(asyncio.to_thread(late))
            assert await asyncio.to_thread(server.begun.wait, 20)
            (session,) = side.worker.runtime.champion.pool.open
            session.transport.abort()
            error = await calling
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert (await asyncio.to_thread(call, side.port, b"x"))[0] == b"m:x"
            await side.until(side.settled)
            assert side.counter("requests", outcome="upstream_reset") == 1
            assert side.counter("requests", outcome="ok") == 1


@contextlib.contextmanager
def separate_server() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server in a process that can be stopped; it allows any number of pings."""
    program = """
import time
from tests.support.grpc_world import grpc_server
options = {"grpc.http2.min_recv_ping_interval_without_data_ms": 1, "grpc.http2.max_ping_strikes": 0}
with grpc_server(b"m:", **options) as server:
    print(server.port, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


@pytest.mark.anyio
async def test_pings_notice_a_server_that_says_nothing_any_more() -> None:
    with separate_server() as (port, process):
        plan = grpc_plan(port)
        plan = replace(plan, champion=replace(plan.champion, keepalive=2.0))
        async with sidecar(plan) as side:
            assert (await asyncio.to_thread(call, side.port, b"a"))[0] == b"m:a"
            with channel(side.port) as found:
                # A server that works and only takes its time answers pings: its call goes on.
                future = found.unary_unary(SERVICE + "Slow").future(b"")
                await asyncio.sleep(6.0)
                assert not future.done()
                process.send_signal(signal.SIGSTOP)
                try:
                    await side.until(future.done)
                    assert future.code() is grpc.StatusCode.UNAVAILABLE
                    assert side.counter("requests", outcome="upstream_reset") == 1
                finally:
                    process.send_signal(signal.SIGCONT)

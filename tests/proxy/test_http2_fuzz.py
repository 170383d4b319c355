"""Mutated conversations of HTTP/2 against the listener, and as answers of a model server.

``HTTP2_FUZZ`` is how many of each; nothing but the connection at hand may suffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from random import Random
from typing import Any

import ngh2
import pytest

from tests.support.proxy import INFER as PATH
from tests.support.proxy import Server, echo, plan_for, post, sidecar

COUNT = int(os.environ.get("HTTP2_FUZZ", "150"))
FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", PATH.encode()),
    (b"content-type", b"application/grpc"),
    (b"grpc-timeout", b"5S"),
    (b"x-long", b"v" * 300),
]


def conversation() -> tuple[bytes, bytes]:
    """What a client and its server say: three requests with bodies, two answers, a ping."""
    client = ngh2.Connection(ngh2.Role.CLIENT)
    server = ngh2.Connection(ngh2.Role.SERVER)
    client.initiate_connection({})
    server.initiate_connection({3: 10})
    asked = answered = b""
    numbers = [client.send_request(FIELDS) for _ in range(3)]
    for number in numbers:
        client.send_data(number, b"\0\0\0\0\5hello", end_stream=True)
    client.ping(b"12345678")
    asked += (data := client.data_to_send())
    server.receive_data(data)
    for number in numbers[:2]:
        server.send_response(number, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        server.send_data(number, b"\0\0\0\0\2ok")
        server.send_trailers(number, [(b"grpc-status", b"0"), (b"grpc-message", b"")])
    answered += (data := server.data_to_send())
    client.receive_data(data)
    client.reset_stream(numbers[2])
    return asked + client.data_to_send(), answered


def mutated(random: Random, data: bytes) -> bytes:
    """Some bytes changed, inserted, removed or repeated."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(len(out))
        kind = random.randrange(5)
        if kind == 0:
            out[at] = random.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            del out[at : at + random.randrange(1, 12)]
        elif kind == 3:
            out[at:at] = random.randbytes(random.randrange(1, 12))
        else:
            end = at + random.randrange(1, 60)
            out[at:at] = out[at:end] * random.choice((1, 2, 50))
        if not out:
            return b"\0"
    return bytes(out)


@pytest.fixture
def complaints() -> list[Any]:
    """Errors that reached the event loop."""
    return []


@pytest.mark.anyio
async def test_mutated_clients_hurt_themselves_only(complaints: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    random = Random(17)
    asked, _ = conversation()
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for number in range(COUNT):
            _, writer = await side.connect()
            data = mutated(random, asked)
            cut = random.randrange(len(data) + 1)
            with contextlib.suppress(ConnectionError):
                for part in (data[:cut], data[cut:]):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()
            if number % 50 == 0:
                assert (await side.ask(post(b"{}"))).status == 200
        await side.until(lambda: not side.worker.clients)
        await side.until(side.settled)
        assert side.worker.runtime.memory.used == 0
    await upstream.stop()
    assert not complaints


@pytest.mark.anyio
async def test_mutated_answers_of_a_server_end_the_request_only(complaints: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    random = Random(18)
    _, answered = conversation()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(mutated(random, answered))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0.002)

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    plan = replace(plan, champion=replace(plan.champion, http2=True, first_byte_timeout=2.0))
    async with sidecar(plan) as side:
        found: set[int] = set()
        for _ in range(COUNT):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                found.add((await side.ask(post(b"{}"))).status)
        assert 502 in found
        await side.until(side.settled)
        assert side.worker.runtime.memory.used == 0
    await upstream.stop()
    assert not complaints

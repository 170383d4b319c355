"""The requests of gRPC streams to models, through a worker: each is one in metrics and records."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton

from tests.support.forms import in_python
from tests.support.grpc_calls import HEADERS
from tests.support.grpc_world import grpc_plan
from tests.support.proxy import Sidecar, sidecar
from tests.support.v2_server import v2_server
from understudy.common.codecs import ModelSpec, Reason, Table, Undecodable, decode_exchange
from understudy.monitor.records.record import OUTCOMES, Record, decode_batch


class Streams:
    """Calls of a client, and the records of the worker."""

    def __init__(self, side: Sidecar) -> None:
        self.side = side
        self.records: list[Record] = []
        add = side.worker.runtime.handoff.add

        def kept(encoded: Any) -> None:
            self.records += decode_batch(b"".join(encoded[1]))
            add(encoded)

        side.worker.runtime.handoff.add = kept  # type: ignore[method-assign]

    async def send(
        self, *rows: float, ids: bool = True, width: int = 1, **options: Any
    ) -> list[Any]:
        """Each number is a request of one stream; what came back, in order."""

        def talk() -> list[Any]:
            results: queue.Queue[Any] = queue.Queue()
            client = triton.InferenceServerClient(f"127.0.0.1:{self.side.port}")
            client.start_stream(lambda result, error: results.put(error or result), **options)
            found = []
            for number, cell in enumerate(rows):
                one = triton.InferInput("x", [1, width], "FP32")
                one.set_data_from_numpy(np.array([[cell, *[0.0] * (width - 1)]], np.float32))
                request_id = f"r{number}" if ids else ""
                client.async_stream_infer("m", [one], request_id=request_id)
                found.append(results.get(timeout=20))
            client.stop_stream()
            client.close()
            return found

        found = await asyncio.to_thread(talk)
        await self.side.until(self.side.settled)
        return found

    def outcomes(self) -> list[str]:
        return [OUTCOMES[one.outcome] for one in self.records]


@contextlib.asynccontextmanager
async def streams(**limits: Any) -> AsyncIterator[Streams]:
    with v2_server() as server:
        async with sidecar(grpc_plan(server.grpc, **limits)) as side:
            yield Streams(side)


@in_python
@pytest.mark.anyio
@pytest.mark.parametrize("ids", [True, False])
async def test_each_request_is_a_record(ids: bool) -> None:
    async with streams() as made:
        await made.send(1.0, 2.0, 3.0, ids=ids, headers={"x-request-id": "rid"})
        names = ("r0", "r1", "r2") if ids else ("1", "2", "3")
        assert [one.request_id.decode() for one in made.records] == [f"rid/{n}" for n in names]
        assert made.outcomes() == ["ok"] * 3
        for one, cell in zip(made.records, (1.0, 2.0, 3.0), strict=True):
            decoded = decode_exchange(
                ModelSpec("m"), one.target, one.request_headers, one.request_body, one.status,
                one.response_headers, one.response_body,
            )  # fmt: skip
            assert decoded.features == Table(("x",), 1, [cell])
            assert decoded.predictions == Table(("sum",), 1, [cell])
            assert 0 < one.first_byte_ns <= one.duration_ns
            assert one.request_size == len(one.request_body or b"")
            assert one.response_size == len(one.response_body or b"")
        starts = [one.started for one in made.records]
        assert starts == sorted(starts)
        assert made.side.counter("requests", outcome="ok") == 3
        assert made.side.counter("grpc_calls", grpc_status="OK") == 1


@in_python
@pytest.mark.anyio
async def test_an_error_in_a_stream_counts_as_the_arms() -> None:
    async with streams() as made:
        first, second, third = await made.send(1.0, -2000.0, 3.0)
        assert "boom" in str(second)
        assert not isinstance(first, Exception)
        assert not isinstance(third, Exception)
        assert made.outcomes() == ["ok", "server_error", "ok"]
        failed = made.records[1]
        decoded = decode_exchange(
            ModelSpec("m"), failed.target, HEADERS, failed.request_body, failed.status, HEADERS,
            failed.response_body,
        )  # fmt: skip
        assert isinstance(decoded.features, Table)
        assert isinstance(decoded.predictions, Undecodable)
        assert decoded.predictions.reason == Reason.ERROR_RESPONSE
        for outcome, count in (("ok", 2), ("server_error", 1)):
            assert made.side.counter("requests", outcome=outcome) == count


@in_python
@pytest.mark.anyio
async def test_compressed_streams() -> None:
    async with streams() as made:
        await made.send(1.0, 2.0, width=1000, compression_algorithm="gzip")
        assert made.outcomes() == ["ok", "ok"]
        assert [one.request_id[-3:] for one in made.records] == [b"/r0", b"/r1"]
        assert made.records[0].request_body is not None
        assert made.records[0].request_body[:1] == b"\x01"
        assert b"grpc-encoding: gzip" in made.records[0].request_headers.lower()


@in_python
@pytest.mark.anyio
async def test_the_copies_count_in_the_memory_of_the_worker() -> None:
    async with streams() as made:
        memory = made.side.worker.runtime.memory
        memory.limit = 100
        await made.send(1.0, 2.0)
        assert made.outcomes() == ["ok", "ok"]
        await made.side.until(lambda: memory.used == 0)

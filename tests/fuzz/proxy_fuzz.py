"""Fuzz the request path: mutated byte streams in random pieces, llhttp as the second opinion.

``python -m tests.fuzz.proxy_fuzz --inputs 1000000 --seed 1``

A worker's connections run on transports in memory. Whatever is forwarded is read by llhttp as well,
and the two must agree on where every request begins and ends: a disagreement is request smuggling.
Further: no exception escapes, every answer that the client gets can be read by llhttp, nothing is
left under way when the client has gone. A failure prints the input and how to run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import httptools

from monitor.proxy.client import ClientConnection
from monitor.proxy.exchange import Exchange
from monitor.proxy.plan import Capture, Challenger, Limits, Model, Plan, Upstream
from monitor.proxy.pool import Pool
from monitor.proxy.upstream import UpstreamConnection
from monitor.proxy.worker import Worker

INFER = b"/v2/models/m/infer"
SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /x?y=z HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST " + INFER + b' HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{"a":1}',
    b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"a;x=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET http://b/abs HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    b"GET /h HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\nTraceparent: 00-"
    + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\nConnection: x-h\r\nX-H: 1\r\n\r\n",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
]
PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b"\x0b", b"0", b"5", b"-1", b"0x1",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"content-length:3\r\n", b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:chunked ,\r\n",
    b"transfer-encoding: CHUNKED\r\n", b" chunked\r\n", b"Connection: close\r\n",
    b"Connection: content-length, transfer-encoding\r\n", b"Host: b\r\n", b"0\r\n\r\n", b"1\r\nz\r\n",
    b"ffffffffffffffff\r\n", b";ext", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n",
    b"HTTP/1.1", b"HTTP/1.0", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"Trailer: x\r\n",
]  # fmt: skip


class Failure(AssertionError):
    """An invariant does not hold."""


class Wire:
    """A transport in memory."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.protocol: Any = None
        self.closing = False
        self.ended = False
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


class Oracle:
    """llhttp, reading what is forwarded on one upstream connection."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.complete = 0
        self.answered = 0
        self.begun = 0
        self.upgraded = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.complete += 1

    def feed(self, data: bytes) -> None:
        if self.upgraded:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgraded = True
            self.complete = max(self.complete, self.begun)


class Bench:
    """A worker without sockets."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        upstream = Upstream("champion", "127.0.0.1", 1)
        plan = Plan(
            1,
            upstream,
            (Model("m", "1", "auto", (INFER.decode(),)),),
            (Challenger(Upstream("other", "127.0.0.1", 2)),),
            Limits(head_bytes=2048, target_bytes=512, buffer_bytes=4096),
            Capture(4096),
        )
        self.worker = Worker(plan, folder, "fuzz", 0, loop)
        self.random = random.Random(seed)
        self.loop = loop
        self.problems: list[str] = []
        self.connections: list[tuple[UpstreamConnection, Wire, Oracle]] = []
        self.doubted: list[tuple[Exchange, Exception, bytes]] = []
        self.answer: bytes | None = None
        loop.set_exception_handler(self._note)
        bench = self

        async def attempt(pool: Pool) -> UpstreamConnection:
            connection = UpstreamConnection(pool)
            wire = Wire(loop)
            wire.protocol = connection
            connection.connection_made(cast(asyncio.Transport, wire))
            bench.connections.append((connection, wire, Oracle()))
            return connection

        Pool._attempt = attempt  # type: ignore[method-assign]

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def mutate(self, data: bytes) -> bytes:
        pick = self.random
        out = bytearray(data)
        for _ in range(pick.choice((0, 1, 1, 2, 3, 6))):
            at = pick.randrange(len(out) + 1)
            kind = pick.randrange(5)
            if kind == 0:
                out[at:at] = pick.choice(PIECES)
            elif kind == 1:
                del out[at : at + pick.choice((1, 2, 8))]
            elif kind == 2 and at < len(out):
                out[at] = pick.randrange(256)
            elif kind == 3:
                out[at:at] = out[at : at + pick.randrange(20)]
            else:
                lines = bytes(out).split(b"\r\n")
                lines.insert(pick.randrange(len(lines) + 1), pick.choice(PIECES).rstrip(b"\r\n"))
                out = bytearray(b"\r\n".join(lines))
        return bytes(out)

    def pieces(self, data: bytes) -> list[bytes]:
        cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(self.random.randrange(4)))
        edges = [0, *cuts, len(data)]
        return [data[a:b] for a, b in pairwise(edges) if a < b]

    async def one(self, stream: bytes) -> None:
        """Run one input. Raises Failure."""
        client = ClientConnection(self.worker)
        wire = Wire(self.loop)
        wire.protocol = client
        client.connection_made(cast(asyncio.Transport, wire))
        self.answer = None
        if self.random.random() < 0.3:
            self.answer = self.mutate(self.random.choice(ANSWERS))
        for piece in self.pieces(stream):
            if not wire.closing:
                client.data_received(piece)
            for _ in range(3):
                self._serve()
                await asyncio.sleep(0)
        for _ in range(12):
            self._serve()
            await asyncio.sleep(0)
        wire.close()
        for _ in range(4):
            self._serve()
            await asyncio.sleep(0)
        for timed in tuple(self.worker.active):
            timed.check(1 << 62)
        await asyncio.sleep(0)
        self._judge(wire)

    def _serve(self) -> None:
        """Play the upstream: read what was forwarded, answer each complete request."""
        for connection, wire, oracle in self.connections:
            data = b"".join(wire.written)
            wire.written.clear()
            if data:
                before = oracle.complete
                try:
                    oracle.feed(data)
                except httptools.HttpParserError as error:
                    if type(error).__name__ == "HttpParserInvalidMethodError":
                        wire.close()  # llhttp has a list of methods; HTTP has none
                        continue
                    # llhttp may stumble over the beginning of a line whose end we await; what we
                    # must not do is to take such a request for whole.
                    if wire.closing:
                        continue  # we have thought better of it
                    sink = connection.sink
                    if not isinstance(sink, Exchange) or sink.request_complete:
                        raise Failure(f"llhttp: {error!r}\n{data!r}") from error
                    self.doubted.append((sink, error, data))
                    oracle.upgraded = True
                    continue
                if oracle.complete - before > 1 or (
                    oracle.complete > before and oracle.begun > oracle.complete
                ):
                    raise Failure(f"one request was forwarded, llhttp sees more\n{data!r}")
            if oracle.complete > oracle.answered and not wire.closing:
                oracle.answered = oracle.complete
                answer = self.answer or self.random.choice(ANSWERS)
                for piece in self.pieces(answer):
                    if not wire.closing:
                        connection.data_received(piece)
                if b"until the end" in answer and not wire.closing:
                    wire.close()
        self.connections = [c for c in self.connections if not c[1].closing]

    def _judge(self, wire: Wire) -> None:
        if self.problems:
            raise Failure("; ".join(self.problems))
        for exchange, error, data in self.doubted:
            if exchange.request_complete:
                raise Failure(f"llhttp: {error!r}\n{data!r}")
        self.doubted.clear()
        for arm in (self.worker.runtime.champion, *(m.arm for m in self.worker.runtime.mirrors)):
            left = self.worker._stats.words[arm.in_flight]
            if left:
                raise Failure(f"{left} requests of {arm.upstream.name} are still in flight")
        if self.worker.active:
            raise Failure("something is still under way")
        data = b"".join(wire.written)
        if data and not data.startswith(b"HTTP/1."):
            raise Failure(f"the client got no HTTP: {data[:100]!r}")


async def fuzz(inputs: int, seed: int, seconds: float, quiet: bool) -> int:
    """Run; return the number of inputs. Raises Failure with a way to repeat it."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), loop, seed)
        started = told = time.monotonic()
        for number in range(inputs):
            bench.random.seed(f"{seed}/{number}")
            stream = b"".join(
                bench.mutate(bench.random.choice(SEEDS))
                for _ in range(bench.random.choice((1, 1, 2, 3)))
            )
            try:
                await bench.one(stream)
            except Exception as error:
                raise Failure(
                    f"input {number} of seed {seed}: {error!r}\nstream: {stream!r}\n"
                    f"answer: {bench.answer!r}"
                ) from error
            now = time.monotonic()
            if not quiet and now - told > 5:
                told = now
                print(
                    f"{number + 1:,} inputs, {(number + 1) / (now - started):,.0f}/s",
                    file=sys.stderr,
                )
            if seconds and now - started > seconds:
                return number + 1
        return inputs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long; 0: never")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    try:
        done = asyncio.run(fuzz(options.inputs, options.seed, options.seconds, options.quiet))
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"{done:,} inputs, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())

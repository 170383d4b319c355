"""Fuzz the proxy: mutated byte streams in random pieces, llhttp and h11 as other opinions.

``python -m tests.fuzz.proxy_fuzz --inputs 1000000 --seed 1``

With ``--target requests`` clients send mutated requests, and some answers are mutated as well. With
``--target answers`` each input is a well-formed request with a mutated answer. ``python -m
benchmarks fuzz-requests fuzz-answers`` makes a million of each and writes down the result. A
worker's connections run on transports in memory. What must hold for every input:

* no exception escapes, and nothing hangs that could go on;
* llhttp reads what is forwarded as exactly the requests that were meant: method, target, framing,
  length of the body. Anything else is request smuggling;
* the client gets one answer for each request, in order, each its own; what we pass on of an answer
  is what llhttp reads in it, and h11 reads the same in what the client gets;
* how the client's bytes are cut makes no difference, nor how many chunks are parsed in a turn;
* when all is over nothing is under way, and every record is accounted for;
* all of this also where requests are divided, by a header or by what is in the body, and then each
  arm gets what is its own.

A failure prints the input and how to run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

from tests.fuzz import inputs
from tests.fuzz.judge import CUT_SHORT, Client, Server, judge
from tests.fuzz.oracles import Failure
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy import incoming, upstream
from understudy.monitor.proxy.arm import Arm
from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.proxy.exchange import Exchange
from understudy.monitor.proxy.head import CHUNKED, NO_BODY
from understudy.monitor.proxy.mirror import MirroredRequest
from understudy.monitor.proxy.turns import PIECES
from understudy.monitor.proxy.upstream import UpstreamConnection
from understudy.monitor.proxy.worker import Worker
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.routing.plan import (
    Breaker,
    Capture,
    Challenger,
    Limits,
    Model,
    Plan,
    Split,
    Upstream,
)
from understudy.shadow.assignment import Allocation, point

_ROUNDS = 400
_WILD_ROUNDS = 30
_BREAKER = Breaker(failures=3, open_seconds=0.01, max_open_seconds=0.05)


class _Loop:
    """The event loop, but connections to model servers end in memory."""

    def __init__(self, bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
        self._bench = bench
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        """A tick for each turn of an input, however busy the machine is."""
        return self._bench.turns * 0.001

    async def create_connection(
        self, make: Callable[[], UpstreamConnection], *_: Any
    ) -> tuple[None, UpstreamConnection]:
        bench = self._bench
        if bench.wild and bench.random.random() < 0.1:
            raise ConnectionRefusedError
        server = Server(self._loop, make())
        bench.servers.append(server)
        return None, server.connection


def _watched(bench: Bench) -> type[ClientConnection]:
    """The class of connections that tell ``bench`` what becomes of their requests."""

    class Watched(Exchange):
        __slots__ = ()

        def begin(self, data: bytes) -> bytes:
            if self.head.expect is not None:
                bench.client_of(self.client).expecting.add(self)
            return super().begin(data)

        def _finish(self, outcome: int, status: int, waited_ns: int = 0) -> None:
            if not self.finished:
                bench.client_of(self.client).finished.append((self, outcome, self._answered))
            super()._finish(outcome, status, waited_ns)

    class WatchedConnection(ClientConnection):
        __slots__ = ()
        kind = Watched

        def _reject(self, error: HttpError) -> None:
            if self.transport is not None and not self.transport.is_closing():
                bench.client_of(self).rejected += 1
            super()._reject(error)

    return WatchedConnection


class Bench:
    """A worker without sockets. ``wild``: peers break off, stall and talk nonsense."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, target: str) -> None:
        self.target = target
        self.uncut = False
        """Servers send their answers in one piece."""
        champion = Upstream("champion", "127.0.0.1", 1, max_connections=2, max_waiting=1)
        other = Upstream("other", "127.0.0.1", 2, host_header="o", max_connections=2, max_waiting=1)
        plan = Plan(
            1,
            champion,
            (Model("m", "1", "auto", (inputs.INFER.decode(),)),),
            (Challenger(replace(other, max_connections=256, max_waiting=1024)),),
            limits=Limits(head_bytes=2048, target_bytes=512, memory_bytes=1 << 20),
            capture=Capture(1024),
        )
        dividing = replace(
            plan, challengers=(replace(plan.challengers[0], serving=other, breaker=_BREAKER),)
        )
        halves = self.halves = Allocation().reweighed((0.5, 0.5))
        split = Split("trial", 0, "salt", starts=halves.starts, arms=halves.arms)
        self.plans = (
            plan,
            replace(plan, champion=replace(champion, max_connections=3)),
            replace(dividing, splits=(replace(split, unit="header", unit_name="x-b"),)),
            replace(dividing, splits=(replace(split, unit="pointer", unit_name="/a"),)),
        )
        self.turns = 0
        self.connection = _watched(self)
        self.worker = Worker(
            plan, folder, "fuzz", 0, cast(asyncio.AbstractEventLoop, _Loop(self, loop))
        )
        # An input is played in turns of the loop, not in time.
        self.worker.runtime.mirror_turns._pause = 0.0
        self.random = random.Random()
        self.loop = loop
        self.wild = False
        self.problems: list[str] = []
        self.clients: list[Client] = []
        self.servers: list[Server] = []
        self.answers: dict[Any, bytearray] = {}
        self.doubted: list[tuple[Exchange, str]] = []
        self.requests = 0
        """Number of requests that were forwarded, mirrored ones included."""
        self.outcomes: Counter[str] = Counter()
        """What became of the requests of clients."""
        self.divided = [0, 0]
        """Reads of divided requests, by the arm that got them."""
        self.served = 0
        self.seed = ""
        self.forwarded = blake2b(digest_size=8)
        """Everything that model servers got."""
        loop.set_exception_handler(self._note)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def client_of(self, connection: Any) -> Client:
        """The client at the other end of a connection."""
        return next(c for c in self.clients if c.connection is connection)

    # One input ----------------------------------------------------------------------------------

    async def one(self, seed: str) -> None:
        """Run one input. Raises Failure."""
        pick = self.random
        pick.seed(seed)
        self.worker._random.seed(seed)
        if self.target == "answers":
            await self._one_answer(seed)
            return
        self.wild = pick.random() < 0.6
        # Now and then, so that a failure's seed alone tells which plan was in force.
        wanted = self.plans[pick.choice((0, 0, 2, 3))]
        if self.worker.runtime.plan is not wanted:
            self.worker.reload(wanted)
        if not self.wild:
            stream = inputs.requests(pick)
            cut = inputs.pieces(pick, stream)
            results = []
            for parts, bound in ((cut, pick.choice((1, 2, 3))), ([stream], PIECES)):
                _bound(bound)
                self.served = 0
                self.seed = seed
                results.append(await self._play([parts]))
            if results[0] != results[1]:
                raise Failure(f"cuts make a difference: {results[0]}\nand whole: {results[1]}")
            return
        _bound(pick.choice((1, 2, 3, PIECES)))
        if pick.random() < 0.01:
            self.worker.reload(self.plans[pick.randrange(4)])
        streams = [inputs.requests(pick) for _ in range(pick.choice((1, 2, 4)))]
        await self._play([inputs.pieces(pick, stream) for stream in streams])

    async def _one_answer(self, seed: str) -> None:
        """A well-formed request with a mutated answer, in pieces and whole."""
        pick = self.random
        self.seed = seed
        request = inputs.compose(pick, well=True) if pick.random() < 0.3 else None
        parts = inputs.pieces(pick, request or pick.choice(inputs.REQUESTS))
        results = []
        for self.uncut, bound in ((False, pick.choice((1, 2, 3, PIECES))), (True, PIECES)):
            _bound(bound)
            self.served = 0
            results.append([_without_status(gist) for gist in await self._play([parts])])
        if results[0] != results[1]:
            raise Failure(f"cuts make a difference: {results[0]}\nand whole: {results[1]}")

    async def _play(self, clients: list[list[bytes]]) -> list[list[Any]]:
        self.clients.clear()
        self.servers.clear()
        self.answers.clear()
        self.doubted.clear()
        for parts in clients:
            self.clients.append(Client(self.worker, parts, self.connection))
        idle = 0
        for turn in range(_ROUNDS):
            self.turns += 1
            calm = turn >= _WILD_ROUNDS
            moved = False
            for client in self.clients:
                moved = self._send(client) or moved
            for server in tuple(self.servers):
                moved = self._serve(server) or moved
            if self.wild:
                self._disturb(calm)
            # Some may have more to parse than one turn allows.
            moved = moved or any(end.connection._waits for end in (*self.clients, *self.servers))
            connecting = not moved and any(arm.pool._connecting for arm in self._arms())
            # A connection needs time, not turns: only the kernel and timers move.
            await asyncio.sleep(0.001 if connecting else 0)
            moved = moved or connecting
            idle = 0 if moved or turn == _WILD_ROUNDS else idle + 1
            if idle > 6 and (calm or not self.wild):
                break
        else:
            waits = [end.connection._waits for end in (*self.clients, *self.servers)]
            raise Failure(
                f"it does not come to rest: connecting {connecting}, to be parsed {waits}"
            )
        self._look_for_hangs()
        for client in self.clients:
            client.wire.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for timed in tuple(self.worker.active):
            timed.check(1 << 62)  # copies
        # A copy that ended with its client may have been waiting for a connection.
        while any(arm.pool._connecting for arm in self._arms()):
            await asyncio.sleep(0)
        for server in self.servers:
            server.wire.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._look_at_the_end()
        mutated = self.wild or self.target == "answers"
        gists = [judge(client, self.answers, mutated) for client in self.clients]
        for one in itertools.chain(*gists):
            self.outcomes[one if isinstance(one, str) else OUTCOMES[one[2]]] += 1
        return gists

    def _send(self, client: Client) -> bool:
        if client.wire.closing or not client.wire.reading or not client.parts:
            return False
        client.connection.data_received(client.parts.popleft())
        return True

    def _disturb(self, calm: bool) -> None:
        """Let peers stall, read again, leave, and time pass."""
        pick = self.random
        ends = [c.wire for c in self.clients] + [s.wire for s in self.servers]
        if calm:
            for wire in ends:
                wire.flow(False)
            return
        chance = pick.random()
        if chance < 0.15:
            pick.choice(ends).flow(True)
        elif chance < 0.30:
            pick.choice(ends).flow(False)
        elif chance < 0.31:
            wire = pick.choice(ends)
            wire.close()
            for client in self.clients:
                client.left = client.left or client.wire is wire
        elif chance < 0.312:
            for timed in tuple(self.worker.active):
                timed.check(1 << 62)

    # The upstream -------------------------------------------------------------------------------

    def _serve(self, server: Server) -> bool:
        """Read what was forwarded, answer, send the answer bit by bit."""
        wire, connection = server.wire, server.connection
        data = bytes(wire.out)
        wire.out.clear()
        self.forwarded.update(data)
        if data and connection.sink is not None:
            self._read(server, connection.sink, data)
        if server.ends and wire.reading and not connection._waits:
            wire.close()  # the end is read after what was sent before it
            server.ends = False
            return True
        sink = connection.sink
        if not server.parts or wire.closing or not wire.reading or sink is None:
            return bool(data)
        part = server.parts.popleft()
        self.answers.setdefault(sink, bytearray()).extend(part)
        connection.data_received(part)
        if not server.parts:
            server.answered = False
            server.ends = server.closes
        return True

    def _read(self, server: Server, sink: Any, data: bytes) -> None:
        oracle = server.oracle
        exchange = isinstance(sink, Exchange)
        head = sink.head if exchange else None
        try:
            oracle.feed(data, head.method if head is not None else data.partition(b" ")[0])
        except httptools.HttpParserError as error:
            # llhttp may stumble over the beginning of a line whose end we await; what we must not
            # do is to take such a request for whole. A head is whole when it is sent.
            if not exchange or not oracle.head or sink.request_complete:
                raise Failure(f"llhttp: {error!r}\n{data!r}") from error
            self.doubted.append((sink, f"llhttp: {error!r}\n{data!r}"))
            oracle.upgraded = True
            return
        if exchange and sink._choice is not None:
            self._look_at_division(server, sink)
        done = oracle.complete
        oracle.complete = []
        if len(done) > 1 or (done and oracle.open):
            raise Failure(f"one request was forwarded, llhttp sees more\n{data!r}")
        for method, target, fields, size in done:
            self.requests += 1
            length = fields.get(b"content-length")
            chunked = b"transfer-encoding" in fields
            if head is not None:
                meant = (head.method, head.target, head.length, sink.request_size)
                framed = CHUNKED if chunked else NO_BODY if length is None else int(length)
                if meant != (method, target, framed, size) or not sink.request_complete:
                    raise Failure(f"meant {meant}, llhttp reads {method, target, framed, size}")
                identifier = sink.request_id
            else:
                assert isinstance(sink, MirroredRequest)
                unframed = size and length is None and not chunked
                if (chunked and not sink.streams) or unframed or target != sink._target:
                    raise Failure(f"a copy is framed badly: {data!r}")
                # A streamed one learns its size when all of it was passed on.
                differs = sink.complete and size != sink.request_size
                if differs or fields[b"x-understudy-mirror"] != b"other":
                    raise Failure(f"a copy differs: {data!r}")
                identifier = sink._request_id
            if fields.get(b"x-request-id") != identifier:
                raise Failure(f"another id was forwarded than {identifier!r}: {data!r}")
            if not server.answered:
                self._answer(server, sink, identifier)
        if not done and self.wild and not server.answered and self.random.random() < 0.1:
            self._answer(server, sink, b"early")

    def _look_at_division(self, server: Server, exchange: Exchange) -> None:
        choice, arm = exchange._choice, exchange.arm
        assert choice is not None
        self.divided[arm.index] += 1
        if server.connection.pool is not arm.pool:
            raise Failure("a request was sent to another arm than the one it was given to")
        salt = blake2b(b"salt", digest_size=32).digest()
        meant = self.halves.arm(point(salt, choice.unit)) + 1 if choice.unit else 0
        if choice.assigned != meant or arm.index not in (0, meant - 1):
            raise Failure(f"{choice.unit!r} is {meant}, not {choice.assigned}, by {arm.index}")

    def _answer(self, server: Server, sink: Any, identifier: bytes) -> None:
        pick = self.random
        if not self.wild:
            # The same answers, whatever the order in which copies and requests come.
            self.served += isinstance(sink, Exchange)
            pick = random.Random(f"{self.seed}/{self.served if isinstance(sink, Exchange) else 0}")
        server.answered = True
        answer = pick.choice(inputs.ANSWERS)
        chance = pick.random()
        if chance < 0.1:
            answer = inputs.UNTIL_THE_END
        elif isinstance(sink, Exchange) and sink.head.upgrade and chance < 0.6:
            answer = inputs.SWITCH
        if self.target == "answers":
            if pick.random() < 0.5:
                answer = inputs.compose_answer(pick)
            answer = inputs.mutate(pick, answer)
            parts = inputs.pieces(pick, answer)
            server.closes = True
            server.parts.extend([answer] if self.uncut else parts)
            return
        if self.wild and pick.random() < 0.3:
            answer = inputs.mutate(pick, answer)
        else:
            answer = answer.replace(inputs.ECHO, b"X-Echo: %b\r\n" % identifier)
        server.closes = b"until the end" in answer
        server.parts.extend(inputs.pieces(pick, answer))

    # Invariants ---------------------------------------------------------------------------------

    def _look_for_hangs(self) -> None:
        for server in self.servers:
            sink = server.connection.sink
            if sink is None or server.wire.closing:
                continue
            if server.parts and not server.wire.reading:
                raise Failure("the upstream is no longer read")
            if isinstance(sink, MirroredRequest) and sink.complete and server.oracle.open:
                raise Failure("a copy was sent that has no end")
        for client in self.clients:
            connection, wire = client.connection, client.wire
            if wire.closing or connection.lingering:
                continue
            exchange = connection.exchange
            if exchange is None and b"\r\n\r\n" in connection._buffer.lstrip(b"\r\n"):
                raise Failure("a whole head waits and is not read")
            if client.parts and not wire.reading:
                waits = exchange is not None and exchange.request_complete
                if not waits or not self.wild:
                    raise Failure("the client is no longer read")
            if exchange is not None and exchange.request_complete and not exchange.tunnel:
                server = next((s for s in self.servers if s.connection.sink is exchange), None)
                if server is None and not any(s.connection.sink for s in self.servers):
                    raise Failure("a request waits though no connection is busy")
                if server is not None and not self.wild:
                    raise Failure("a request was answered and goes on")

    def _arms(self) -> list[Arm]:
        runtime = self.worker.runtime
        others = (*runtime.mirrors, *runtime.serving.values())
        return [runtime.champion, *(other.arm for other in others)]

    def _look_at_the_end(self) -> None:
        if self.problems:
            raise Failure("; ".join(self.problems))
        for exchange, text in self.doubted:
            if exchange.request_complete:
                raise Failure(text)
        worker = self.worker
        for arm in self._arms():
            if worker._stats.words[arm.in_flight]:
                raise Failure(f"requests of {arm.upstream.name} are still in flight")
            if arm.pool.open or arm.pool.idle or arm.pool.waiting:
                raise Failure(f"the pool of {arm.upstream.name} is not empty")
        if worker.active or worker.clients or worker.lingering:
            raise Failure("something is still under way")

    def accounts(self) -> None:
        """Nothing consumes records here: each one waits or was dropped."""
        handoff, words = self.worker._handoff, self.worker._stats.words
        dropped = sum(words[index] for index in handoff._dropped.values())
        if words[handoff._eligible] != dropped + handoff.pending:
            raise Failure("records are neither held nor dropped")


def _without_status(gist: list[Any]) -> list[Any]:
    """What became of a request, whichever part of an answer that broke off had been passed on."""
    return [
        (*one[:3], None, *one[4:]) if isinstance(one, tuple) and one[2] in CUT_SHORT else one
        for one in gist
    ]


def _bound(pieces: int) -> None:
    """Let connections parse so many chunks in a turn."""
    incoming.PIECES = upstream.PIECES = pieces


async def fuzz(
    target: str, count: int, first: int, seed: int, seconds: float, quiet: bool
) -> dict[str, Any]:
    """Run; return the number of inputs, of forwarded requests, and of outcomes. Raises Failure."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asyncio.get_running_loop(), target)
        started = told = time.monotonic()
        done = 0
        for number in range(first, first + count):
            try:
                await bench.one(f"{seed}/{number}")
            except Exception as error:
                sent = [bytes(c.wire.out) for c in bench.clients]
                raise Failure(
                    f"{error!r}\n"
                    f"again: --target {target} --seed {seed} --first {number} --inputs 1\n"
                    f"clients got: {sent!r}\nupstreams sent: {[*map(bytes, bench.answers.values())]!r}"
                ) from error
            done += 1
            if done % 1000 == 0:
                bench.accounts()
                if target == "requests" and not all(bench.divided):
                    raise Failure(f"nothing was divided: {bench.divided}")
            now = time.monotonic()
            if not quiet and now - told > 5:
                told = now
                rate = done / (now - started)
                print(
                    f"{done:,} inputs, {bench.requests:,} forwarded, {rate:,.0f}/s", file=sys.stderr
                )
            if seconds and now - started > seconds:
                break
        outcomes = dict(sorted(bench.outcomes.items()))
        return {"inputs": done, "forwarded": bench.requests, "outcomes": outcomes}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", choices=("requests", "answers"), default="requests")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long; 0: never")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(
                fuzz(
                    options.target, options.inputs, options.first, options.seed, options.seconds,
                    options.quiet,
                )
            )  # fmt: skip
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found))
        return 0
    outcomes = ", ".join(f"{name} {count:,}" for name, count in found["outcomes"].items())
    print(
        f"{found['inputs']:,} inputs, no failure; {found['forwarded']:,} requests were forwarded\n"
        f"requests of clients: {outcomes}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

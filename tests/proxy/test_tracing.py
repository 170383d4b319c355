"""Trace contexts: who decides, what model servers are sent, and what the record says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from random import Random

import pytest

from tests.support.proxy import (
    INFER,
    OK,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
)
from tests.support.proxy_mirror import challenger
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.head import parse_request
from understudy.monitor.proxy.tracing import Tracer
from understudy.monitor.records.record import ROLE_MIRROR, ROLE_PRIMARY, Record
from understudy.monitor.records.trace import SpanIds, attempts, span_ids
from understudy.monitor.routing.plan import Challenger, Plan, Tracing, Upstream

TRACE, PARENT = b"0af7651916cd43dd8448eb211c80319c", b"00f067aa0ba902b7"
EVERY = Tracing()
NONE = Tracing(threshold=1 << 56)


def traceparent(flags: bytes = b"01", trace: bytes = TRACE) -> bytes:
    return b"traceparent: 00-%b-%b-%b" % (trace, PARENT, flags)


@dataclass
class Bench:
    side: Sidecar
    upstream: Server
    other: Server
    peer: Peer

    async def record(self, role: int = ROLE_PRIMARY) -> Record:
        """The only record of that role."""
        await self.side.until(lambda: any(r.role == role for r in self.peer.records))
        (found,) = (r for r in self.peer.records if r.role == role)
        return found

    async def spans(self, role: int = ROLE_PRIMARY) -> SpanIds:
        record = await self.record(role)
        return span_ids(record.trace_id, record.span)

    async def sent(self, server: Server | None = None) -> tuple[list[bytes], list[bytes]]:
        """The parts of the traceparent that the model server got, and its tracestate lines."""
        server = server or self.upstream
        await self.side.until(lambda: bool(server.seen))
        lines = server.seen[0].lines
        (of,) = (line for line in lines if line.lower().startswith(b"traceparent:"))
        return of.partition(b": ")[2].split(b"-"), [
            line for line in lines if line.lower().startswith(b"tracestate")
        ]


@contextlib.asynccontextmanager
async def bench(tracing: Tracing | None, mirrored: bool = False) -> AsyncIterator[Bench]:
    upstream, other = await Server(OK).start(), await Server(OK).start()
    challengers: tuple[Challenger, ...] = (challenger(other.port),) if mirrored else ()
    plan = replace(plan_for(upstream.port, *challengers), tracing=tracing)
    async with sidecar(plan) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        yield Bench(side, upstream, other, peer)
        await peer.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("flags", [b"01", b"03", b"00", b"02", b"fd"])
async def test_a_request_with_a_context_is_sampled_as_its_parent(flags: bytes) -> None:
    sampled = int(flags, 16) & 1 == 1
    async with bench(NONE if sampled else EVERY) as one:
        await one.side.ask(
            post(b"{}", traceparent(flags), b"tracestate: a=1", b"Tracestate: ot=th:8,b=2",
                 b"baggage: k=v")
        )  # fmt: skip
        (version, trace, client, passed), states = await one.sent()
        assert (version, trace) == (b"00", TRACE)
        assert passed == b"%02x" % (int(flags, 16) & 3)
        assert states == [b"tracestate: a=1", b"Tracestate: ot=th:8,b=2"]
        assert one.upstream.seen[0].header("baggage") == b"k=v"
        record = await one.record()
        assert record.sampled == sampled
        assert record.trace_id == TRACE
        if not sampled:
            assert record.span == b""
            return
        ids = await one.spans()
        assert ids.trace == int(TRACE, 16)
        assert ids.parent == int(PARENT, 16)
        assert ids.client == int(client, 16)
        assert len({ids.parent, ids.client, ids.server, 0}) == 4
        assert (ids.method, ids.minor, ids.resent, ids.link) == ("POST", 1, False, None)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"traceparent: junk", b"tracestate: a=1"],
        [traceparent(), traceparent(), b"tracestate: a=1"],
        [b"tracestate: a=1"],
        [b"traceparent: ff-" + TRACE + b"-" + PARENT + b"-01"],
    ],
)
async def test_without_a_valid_context_a_trace_begins_here(lines: list[bytes]) -> None:
    for tracing, flags in ((EVERY, b"03"), (NONE, b"02")):
        async with bench(tracing) as one:
            await one.side.ask(post(b"{}", *lines))
            (version, trace, client, passed), states = await one.sent()
            assert (version, passed, states) == (b"00", flags, [])
            record = await one.record()
            assert record.trace_id == trace
            assert trace != TRACE
            assert record.sampled == (flags == b"03")
            if record.sampled:
                ids = await one.spans()
                assert (ids.parent, ids.client) == (0, int(client, 16))


@pytest.mark.anyio
@pytest.mark.parametrize("others", [b"x-%d: %d", b"x-%d: " + b"v" * 60 + b"%d", b"t%d: %d"])
@pytest.mark.parametrize("at", [0, 20, 40])
async def test_a_context_among_many_headers_is_replaced_once(others: bytes, at: int) -> None:
    """Modules for nginx sent several, or a wrong one, beyond twenty headers or a large block."""
    lines = [others % (number, number) for number in range(40)]
    lines[at:at] = [traceparent(), b"tracestate: a=1"]
    async with bench(EVERY) as one:
        await one.side.ask(post(b"{}", *lines))
        (_, trace, client, flags), states = await one.sent()
        assert (trace, flags, states) == (TRACE, b"01", [b"tracestate: a=1"])
        assert client != PARENT
        ids = await one.spans()
        assert (ids.parent, ids.client) == (int(PARENT, 16), int(client, 16))


@pytest.mark.anyio
async def test_what_is_no_inference_request_is_not_traced() -> None:
    async with bench(EVERY) as one:
        await one.side.ask(get("/other", traceparent(), b"tracestate: a=1"))
        seen = one.upstream.seen[0]
        assert seen.header("traceparent") == traceparent().partition(b": ")[2]
        assert seen.header("tracestate") == b"a=1"
        await one.side.ask(get("/other"))
        assert one.upstream.seen[1].header("traceparent") is None


@pytest.mark.anyio
@pytest.mark.parametrize("lines", [[], [traceparent(), b"tracestate: a=1"]])
async def test_copies_are_traces_of_their_own_that_are_linked(lines: list[bytes]) -> None:
    async with bench(EVERY, mirrored=True) as one:
        await one.side.ask(post(b"{}", *lines))
        (_, trace, client, flags), states = await one.sent(one.other)
        ids, copy = await one.spans(), await one.spans(ROLE_MIRROR)
        assert int(trace, 16) == copy.trace != ids.trace
        assert (copy.link, copy.parent, copy.server) == ((ids.trace, ids.server), 0, 0)
        assert copy.client == int(client, 16)
        assert flags == b"03"
        assert states == []
        assert (await one.record(ROLE_MIRROR)).sampled


@pytest.mark.anyio
async def test_copies_can_be_children() -> None:
    async with bench(replace(EVERY, copies="child"), mirrored=True) as one:
        await one.side.ask(post(b"{}", traceparent(), b"tracestate: a=1"))
        (_, trace, client, flags), states = await one.sent(one.other)
        ids, copy = await one.spans(), await one.spans(ROLE_MIRROR)
        assert int(trace, 16) == copy.trace == ids.trace
        assert (copy.link, copy.parent, copy.server) == (None, ids.server, 0)
        assert copy.client == int(client, 16) != ids.client
        assert (flags, states) == (b"01", [b"tracestate: a=1"])


@pytest.mark.anyio
@pytest.mark.parametrize("keep", [False, True])
async def test_copies_can_be_left_out(keep: bool) -> None:
    async with bench(replace(EVERY, copies="none", keep=keep), mirrored=True) as one:
        await one.side.ask(post(b"{}", traceparent(), b"tracestate: a=1"))
        (_, trace, _, flags), states = await one.sent(one.other)
        assert trace != TRACE
        assert (flags, states) == (b"02", [])
        copy = await one.record(ROLE_MIRROR)
        assert (copy.sampled, copy.span) == (False, b"")


@pytest.mark.anyio
async def test_with_keep_unsampled_requests_have_ids_as_well() -> None:
    async with bench(replace(NONE, keep=True), mirrored=True) as one:
        await one.side.ask(post(b"{}"))
        ids, copy = await one.spans(), await one.spans(ROLE_MIRROR)
        assert not (await one.record()).sampled
        assert ids.flags == copy.flags == 2
        assert copy.link == (ids.trace, ids.server)


class Losing(Server):
    """Answers the first request of a connection and closes it at the second one, once."""

    def __init__(self) -> None:
        super().__init__(handler=self._play)

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.seen.append(await read_message(reader, request=True))
            if len(self.seen) == 2:
                return
            writer.write(OK)

    def clients(self) -> list[int]:
        """The spans that the requests say they are children of."""
        lines = [(message.header("traceparent") or b"").split(b"-") for message in self.seen]
        return [int(parts[2], 16) for parts in lines]


@pytest.mark.anyio
async def test_each_attempt_to_send_a_request_has_its_span() -> None:
    upstream, other = await Losing().start(), await Losing().start()
    plan: Plan = replace(plan_for(upstream.port, challenger(other.port)), tracing=EVERY)
    plan = replace(plan, models=tuple(replace(m, retry=True) for m in plan.models))
    async with sidecar(plan) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        for count in (2, 4):
            assert (await side.ask(post(b"{}", b"x-order: 1"))).status == 200
            await side.until(lambda count=count: len(peer.records) == count)  # type: ignore[misc]
        for role, server in ((ROLE_PRIMARY, upstream), (ROLE_MIRROR, other)):
            first, second = (
                (span_ids(r.trace_id, r.span), r) for r in peer.records if r.role == role
            )
            one, lost, again = server.clients()
            assert (first[0].resent, first[0].earlier, first[0].client) == (False, (), one)
            ids, record = second
            assert (ids.resent, ids.client) == (True, again)
            ((before, lost_ns),) = ids.earlier
            assert before == lost
            assert 0 < lost_ns <= record.duration_ns
            assert len({one, lost, again}) == 3
            # Nothing else of the request has changed.
            heads = [
                message.head.replace(b"%016x" % lost, b"%016x" % again) for message in server.seen
            ]
            assert heads[1] == heads[2]
            assert server.seen[1].body == server.seen[2].body == b"{}"
        await peer.stop()


def test_every_attempt_is_named() -> None:
    """A model server may refuse a call several times."""
    tracer = Tracer(EVERY, Random(1).getrandbits)
    trace = tracer.begin(parse_request(b"POST /x HTTP/1.1\r\nHost: h", 8192, 128))
    clients = [trace.client]
    for lost_ns in (10, 20):
        before, after = trace.repeat(lost_ns)
        assert (before.split(b"-")[2], after.split(b"-")[2]) == (clients[-1], trace.client)
        assert trace.lines[0] == after
        clients.append(trace.client)
    of, _, span = trace.text(b"POST", 1).partition(b" ")
    ids = span_ids(of, span)
    first, second, last = (int(client, 16) for client in clients)
    assert (ids.client, ids.earlier) == (last, ((first, 10), (second, 20)))
    assert attempts(span) == 3


@pytest.mark.anyio
async def test_headers_that_are_not_for_a_server_stay_away_from_it() -> None:
    upstream = await Server(OK).start()
    plan = plan_for(upstream.port)
    champion = Upstream(
        "champion", "127.0.0.1", upstream.port, removed_headers=("traceparent", "tracestate")
    )
    async with sidecar(replace(plan, champion=champion, tracing=EVERY)) as side:
        await side.ask(post(b"{}", traceparent(), b"tracestate: a=1"))
        assert upstream.seen[0].header("traceparent") is None
        assert upstream.seen[0].header("tracestate") is None


def begin(tracing: Tracing, *lines: bytes, random: Random) -> tuple[bytes, bytes, list[bytes]]:
    """Trace id, flags and tracestate of a request with these lines."""
    block = b"\r\n".join((b"POST %b HTTP/1.1" % INFER.encode(), b"Host: h", *lines))
    trace = Tracer(tracing, random.getrandbits).begin(parse_request(block, 8192, 128))
    return trace.trace, trace.flags, trace.lines[1:]


def test_a_quarter_is_sampled_by_the_number_in_the_trace_id() -> None:
    """4,000 draws: 6 standard deviations are 0.041, so a false failure has less than 1e-8."""
    tracing, random = Tracing(threshold=3 << 54), Random(7)
    sampled = 0
    for _ in range(4000):
        trace, flags, states = begin(tracing, random=random)
        kept = int(trace[18:], 16) >= 3 << 54
        assert flags == (b"03" if kept else b"02")
        assert states == ([b"tracestate: ot=th:c"] if kept else [])
        sampled += kept
    assert abs(sampled / 4000 - 0.25) < 0.041


def test_a_copy_states_the_number_that_it_was_sampled_by() -> None:
    tracer = Tracer(Tracing(threshold=3 << 54), Random(1).getrandbits)
    copies = []
    while len(copies) < 20:
        trace = tracer.begin(parse_request(b"POST /x HTTP/1.1\r\nHost: h", 8192, 128))
        copy = trace.copy()
        assert copy.sampled == trace.sampled
        if copy.sampled:
            assert copy.lines[1:] == [b"tracestate: ot=th:c;rv:" + trace.trace[18:]]
            copies.append(copy.trace)
    assert len(set(copies)) == 20


@pytest.mark.parametrize(
    ("ratio_of", "state", "sampled", "then"),
    [
        (3 << 54, b"", False, b""),
        (3 << 54, b"a=1,ot=th:8;rv:d0000000000000", True, b"ot=th:c;rv:d0000000000000,a=1"),
        (3 << 54, b"a=1,ot=th:8;rv:b0000000000000", False, b"ot=rv:b0000000000000,a=1"),
        (3 << 54, b"ot=th:8", False, b""),
        (0, b"ot=th:8, b=2", True, b"b=2"),
        (1 << 56, b"b=2", False, b"b=2"),
    ],
)
def test_without_regard_to_the_parent(
    ratio_of: int, state: bytes, sampled: bool, then: bytes
) -> None:
    lines = [traceparent(b"03"), *([b"tracestate: " + state] if state else [])]
    tracing = Tracing(by_parent=False, threshold=ratio_of)
    trace, flags, states = begin(tracing, *lines, random=Random(1))
    assert trace == TRACE  # its number is 48eb211c80319c
    assert flags == (b"03" if sampled else b"02")
    assert states == ([b"tracestate: " + then] if then else [])


def test_a_worker_imports_no_sdk() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import understudy.monitor.proxy.worker; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

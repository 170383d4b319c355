"""The parties of a run, and what clients got, held against what became of its requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import h11
import httptools

from tests.fuzz.oracles import Answer, AnswerOracle, Failure, RequestOracle, Wire
from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.proxy.exchange import CONTINUE, Exchange
from understudy.monitor.proxy.head import NO_BODY, UNTIL_CLOSE
from understudy.monitor.proxy.upstream import UpstreamConnection
from understudy.monitor.proxy.worker import Worker
from understudy.monitor.records import record

LENIENT = ("Duplicate Content-Length", "Data after `Connection: close`")
"""Why llhttp refuses answers that we take on purpose: a length that is said twice alike is sent on
once (RFC 9110, 8.6), and an interim answer that announces the close is not the last."""
CUT_SHORT = (record.TIMEOUT, record.UPSTREAM_RESET, record.GARBAGE, record.REJECTED)


_H11_LACKS = "Only Transfer-Encoding: chunked is supported"
"""A body may have another coding below its chunks; h11 knows none."""


class Client:
    """One client, what it still has to send, and what became of its requests."""

    def __init__(
        self, worker: Worker, parts: list[bytes], kind: type[ClientConnection] = ClientConnection
    ) -> None:
        self.connection = kind(worker)
        assert worker.arrived(self.connection, False)
        self.wire = Wire(worker.loop, self.connection)
        self.parts = deque(parts)
        self.finished: list[tuple[Exchange, int, Any]] = []
        self.expecting: set[Exchange] = set()
        """Requests that expect a 100."""
        self.rejected = 0
        self.left = False
        """It went away of its own accord, so its last answers may be cut or missing."""


class Server:
    """An upstream's end of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.wire = Wire(loop, self.connection)
        self.oracle = RequestOracle()
        self.parts: deque[bytes] = deque()
        self.closes = False
        """Its answer ends with the connection."""
        self.ends = False
        """It has sent all of it."""
        self.answered = False


def judge(client: Client, answers: dict[Any, bytearray], wild: bool) -> list[Any]:
    """Are these the answers to these requests? The gist of both."""
    data = bytes(client.wire.out)
    gist: list[Any] = []
    at = 0
    for number, (exchange, outcome, answered) in enumerate(client.finished):
        last = number == len(client.finished) - 1
        if outcome in (record.CANCELLED, record.INCOMPLETE) or exchange.tunnel:
            if not last or client.rejected:
                raise Failure("a request was begun after the end")
            return [*gist, "tunnel"] if exchange.tunnel else gist
        if client.left and data[at:] in (b"", CONTINUE):
            return gist
        answer = Answer(data, at, exchange.head.method == b"HEAD")
        at = answer.end
        if client.left and not answer.whole:
            return gist
        if not answer.whole and not (outcome in CUT_SHORT and last and not client.rejected):
            raise Failure(f"an answer is not whole: {data!r}")
        if answer.until_close and not last:
            raise Failure(f"an answer without an end is not the last: {data!r}")
        if not exchange.request_complete and (not last or client.rejected):
            raise Failure("the rest of a request that was answered early was taken for another")
        if outcome in record.ANSWERED:
            _compare(exchange, answered, answer, answers, wild)
        # Who expects a 100 is not waited for: whether the unit is seen depends on what has come.
        choice = exchange._choice if exchange not in client.expecting else None
        assigned = (choice.assigned, choice.unit) if choice is not None else None
        gist.append((exchange.head.method, exchange.head.target, outcome, answer.status, assigned))
    for _ in range(client.rejected):
        answer = Answer(data, at, False)
        at = answer.end
        if answer.status not in (400, 405, 408, 414, 417, 431, 501):
            raise Failure(f"refused with {answer.status}")
        gist.append("refused")
    if at != len(data) or client.rejected > 1:
        raise Failure(f"more answers than requests: {data[at:]!r}")
    # A body that turns out to be malformed is refused, whether a part of it has been sent or not.
    return ["refused" if isinstance(g, tuple) and g[2] == record.REJECTED else g for g in gist]


def _compare(
    exchange: Exchange,
    answered: Any,
    answer: Answer,
    answers: dict[Any, bytearray],
    wild: bool,
) -> None:
    """Is this the answer that the upstream gave to this request?"""
    echo = answer.fields.get(b"x-echo")
    if echo not in (None, b"", b"early", exchange.request_id) and not wild:
        raise Failure(f"the answer to {exchange.request_id!r} is that to {echo!r}")
    if not answered.has_request_id and answer.fields[b"x-request-id"] != exchange.request_id:
        raise Failure(f"the answer has another id than {exchange.request_id!r}")
    if answered.length == NO_BODY or answer.status != answered.status:
        if answer.status != answered.status or answer.body:
            raise Failure(f"{answered.status} became {answer.status} {answer.body!r}")
        return
    sent = bytes(answers[exchange])
    oracle = AnswerOracle()
    try:
        oracle.feed(_without_trailing_tabs(sent))
    except httptools.HttpParserError as error:
        if str(error) in LENIENT:
            return
        raise Failure(f"llhttp does not take this answer: {error!r}\n{sent!r}") from error
    third_opinion(exchange.head.method, answer)
    if oracle.body != answer.body or not (oracle.whole or answered.length == UNTIL_CLOSE):
        raise Failure(f"llhttp reads {oracle.body!r}, passed on was {answer.body!r}\n{sent!r}")


def third_opinion(method: bytes, answer: Answer) -> None:
    """h11 reads the same in what the client got. Raises Failure."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(answer.raw)
    if answer.until_close:
        peer.receive_data(b"")
    status, body = 0, b""
    try:
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                raise Failure(f"h11 awaits more: {answer.raw!r}")
    except h11.RemoteProtocolError as error:
        if str(error) == _H11_LACKS:
            return
        raise Failure(f"h11 does not take this answer: {error}: {answer.raw!r}") from error
    if (status, body, peer.trailing_data[0]) != (answer.status, answer.body, b""):
        raise Failure(f"h11 reads {status} {body!r}: {answer.raw!r}")


def _without_trailing_tabs(sent: bytes) -> bytes:
    """Space behind a field's value is no part of it, and a tab is such space (RFC 9110, 5.5).

    llhttp takes it for one in most fields, and for a part of the coding in Transfer-Encoding.
    """
    head, end, body = sent.partition(b"\r\n\r\n")
    if head[9:10] == b"1":  # an interim answer: the next head follows
        body = _without_trailing_tabs(body)
    return b"\r\n".join(line.rstrip(b" \t") for line in head.split(b"\r\n")) + end + body

"""From records to spans, by the semantic conventions of HTTP.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (1.44); gRPC calls by those of RPC, and
on request those of generative AI for client spans of language models. A request of a client has a
server span, from the first byte of its head until the last byte of the response was given to its
socket, and in it a client span, from when a connection to the model server was free; a mirrored
request has a client span only. Nothing of the SDK is used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from understudy.common.events import decode_times
from understudy.monitor.config.compile import REPEAT_SUFFIX, paths_of, rewrite_of, rewrites_of
from understudy.monitor.config.fields import server_address
from understudy.monitor.config.model import Config
from understudy.monitor.proxy.rewriting import Rewriter
from understudy.monitor.proxy.target import normal_path
from understudy.monitor.records.credentials import CREDENTIAL_QUERY, matcher, names_in
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import (
    ANSWERED,
    CANCELLED,
    CLIENT,
    NOT_SENT,
    OPEN,
    OUTCOMES,
    ROLE_MIRROR,
    ROLE_PRIMARY,
    ROLES,
    SIDES,
    STREAM_FAULTS,
    UPSTREAM_RESET,
    Record,
)
from understudy.monitor.records.trace import SpanIds, attempts, span_ids
from understudy.monitor.telemetry.otlp.gen_ai import (
    MOST_BYTES,
    Value,
    operation_of,
    request_attributes,
    response_attributes,
)
from understudy.monitor.telemetry.otlp.rpc import Call, call_of, header

SERVER_KIND: Final = "server"
CLIENT_KIND: Final = "client"
SIGNATURES = ("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature")
"""Parameters of a query that are redacted, besides credentials."""
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY")
)
_CLIENT_CLOSED = 499
_OF_ANSWERS = frozenset(
    ("http.response.status_code", "http.request.resend_count", "understudy.first_byte_seconds")
)
"""Attributes of the attempt that was answered, or was the last one."""
_OF_REPLIES = ("rpc.response.", "gen_ai.response.", "gen_ai.usage.")
_CACHED = 2048
_LONGEST_KEY = 512
"""Bytes of target and headers; longer ones are of one request."""
_REQUEST_ID = "understudy.request_id"
_AFTER = {"models": "{model}", "versions": "{version}"}
"""What ``*`` stands for in a path, by the segment before it."""


@dataclass(slots=True)
class Finished:
    """What a record says of an exchange, without its payloads. ``kept`` is why it is sent although
    it was not sampled, else empty."""

    model: str
    version: str
    arm: str
    experiment: str
    role: int
    status: int
    outcome: int
    started: float
    duration_ns: int
    first_byte_ns: int
    queue_ns: int
    request_id: bytes
    target: bytes
    headers: bytes
    trace_id: bytes
    span: bytes
    kept: str
    response_headers: bytes = b""
    request_body: bytes | None = None
    """Payloads are there only if something is read from them."""
    response_body: bytes | None = None
    events: bytes = b""

    @property
    def spans(self) -> int:
        """Number of spans."""
        return attempts(self.span) + (self.role != ROLE_MIRROR)

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        texts = (
            *(self.target, self.headers, self.response_headers, self.request_id, self.span),
            self.events,
        )
        bodies = (self.request_body or b"", self.response_body or b"")
        return 512 + sum(map(len, texts)) + sum(map(len, bodies))


@dataclass(slots=True, eq=False)
class Shape:
    """What many spans have in common. ``encoded`` is for the encoder, which keeps it here."""

    name: str
    kind: str
    failed: bool
    attributes: dict[str, Value]
    encoded: bytes = b""


@dataclass(slots=True)
class Span:
    """A span as plain data; ``start`` and ``end`` in unix nanoseconds, ``parent`` 0 for none.
    ``own`` are the attributes that others of its shape do not share."""

    shape: Shape
    trace: int
    span: int
    parent: int
    remote: bool
    flags: int
    start: int
    end: int
    own: dict[str, Value]
    link: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.shape.name

    @property
    def kind(self) -> str:
        """SERVER_KIND or CLIENT_KIND."""
        return self.shape.kind

    @property
    def failed(self) -> bool:
        """Whether its status is Error; it is unset otherwise."""
        return self.shape.failed

    @property
    def attributes(self) -> dict[str, Value]:
        """All attributes."""
        return self.shape.attributes | self.own


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model server is."""

    scheme: str
    address: str
    port: int | None
    authority: str
    prefix: str
    rewriter: Rewriter | None = None
    http2: bool = False


@dataclass(slots=True)
class SpanMaker:
    """Makes the spans of records, by the configuration."""

    scheme: str
    places: dict[str, Place]
    length: int
    """Most characters of an attribute."""
    patterns: dict[str, list[tuple[re.Pattern[str], str]]]
    credentials: tuple[str, ...] = ()
    gen_ai: bool = False
    """Whether language models are described by the conventions of generative AI."""
    others: Sequence[tuple[re.Pattern[str], str]] = ()
    """Patterns of models that are not listed."""
    _routes: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _shapes: dict[tuple[object, ...], tuple[Shape, Shape]] = field(default_factory=dict)
    _is_secret: Callable[[bytes], bool] = field(init=False)

    def __post_init__(self) -> None:
        self._is_secret = matcher((*CREDENTIAL_QUERY, *SIGNATURES, *self.credentials))

    @classmethod
    def of(cls, config: Config, length: int, gen_ai: bool = False) -> SpanMaker:
        """For a configuration; ``length`` is the most characters of an attribute."""
        places = {}
        for server in (config.champion, *config.challengers):
            address = server_address(server.url)
            place = Place(
                "https" if address.secure else "http",
                address.socket or address.host,
                None if address.socket else address.port,
                address.authority,
                address.path,
                Rewriter(rewrites_of(server), rewrite_of(server)),
                address.http2 if server.http2 is None else server.http2,
            )
            places[server.name] = place
        places[config.champion.name + REPEAT_SUFFIX] = places[config.champion.name]
        patterns: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for model in config.models:
            found = [
                (re.compile(re.escape(p).replace(r"\*", "[^/]+")), _template(p))
                for p in paths_of(model)
            ]
            patterns.setdefault(model.name, []).extend(found)
        match = next((model.name for model in config.models if model.match is not None), None)
        return cls(
            "https" if config.listen.tls is not None else "http",
            places,
            length,
            patterns,
            tuple(config.credentials.query),
            gen_ai,
            patterns[match] if match is not None else (),
        )

    def spans(self, of: Finished) -> list[Span]:
        """The spans of an exchange. Raises RecordError."""
        ids = span_ids(of.trace_id, of.span)
        server, client = self._shapes_of(of, ids)
        start = int(of.started * 1e9)
        end = start + of.duration_ns
        request_id = self._cut(of.request_id)
        found: list[Span] = []
        if of.role != ROLE_MIRROR:
            found.append(
                Span(server, ids.trace, ids.server, ids.parent, True, ids.flags, start, end,
                     {_REQUEST_ID: request_id})
            )  # fmt: skip
        own: dict[str, Value] = {_REQUEST_ID: request_id}
        if of.queue_ns:
            own["understudy.queue_seconds"] = of.queue_ns / 1e9
        if of.first_byte_ns:
            own["understudy.first_byte_seconds"] = of.first_byte_ns / 1e9
        if self.gen_ai and (operation := operation_of(of.target)) is not None:
            client = replace(client, name=self._generated(of, operation, own), encoded=b"")
        last = Span(client, ids.trace, ids.client, ids.server or ids.parent, False, ids.flags,
                    start + min(of.queue_ns, of.duration_ns), end, own, ids.link)  # fmt: skip
        for number, (span, lost_ns) in enumerate(ids.earlier):
            found.append(_lost(last, number, span, start + min(lost_ns, of.duration_ns)))
        found.append(last)
        return found

    def _shapes_of(self, of: Finished, ids: SpanIds) -> tuple[Shape, Shape]:
        """The shapes of the server span and of the client span."""
        answered = of.response_headers if b"grpc-status" in of.response_headers else b""
        key = (
            *(of.model, of.version, of.arm, of.experiment, of.role, of.kept, of.status, of.outcome),
            *(of.target, of.headers, answered, ids.method, ids.minor, ids.resent),
            len(ids.earlier),
            of.first_byte_ns > 0,
        )
        known = self._shapes.get(key)
        if known is None:
            call = call_of(of.target, of.headers, of.response_headers)
            known = self._server(of, ids, call), self._client(of, ids, call)
            if len(of.target) + len(of.headers) <= _LONGEST_KEY:
                if len(self._shapes) >= _CACHED:
                    self._shapes.clear()
                self._shapes[key] = known
        return known

    def _own(self, of: Finished) -> dict[str, Value]:
        found: dict[str, Value] = {
            "understudy.model": of.model,
            "understudy.arm": of.arm,
            "understudy.role": ROLES[of.role],
        }
        if of.version:
            found["understudy.version"] = of.version
        if of.experiment:
            found["understudy.experiment"] = of.experiment
        if of.kept:
            found["understudy.kept"] = of.kept
        return found

    def _server(self, of: Finished, ids: SpanIds, call: Call | None) -> Shape:
        attributes: dict[str, Value]
        if call is not None:
            name, attributes = self._called(call)
        else:
            name, attributes = self._asked(of, ids)
        agent = header(of.headers, b"user-agent")
        if agent:
            attributes["user_agent.original"] = self._cut(agent)
        failed = call.server_failed if call is not None and call.status else server_failed(of)
        if failed:
            attributes["error.type"] = _error_type(of, call)
        return Shape(name, SERVER_KIND, failed, attributes | self._own(of))

    def _asked(self, of: Finished, ids: SpanIds) -> tuple[str, dict[str, Value]]:
        """Name and attributes of the server span of a request of HTTP."""
        path, _, query = of.target.partition(b"?")
        route = self._route(of.model, path)
        method, attributes = _method(ids.method)
        attributes["url.path"] = self._cut(path)
        attributes["url.scheme"] = self.scheme
        attributes["network.protocol.version"] = f"1.{ids.minor}" if ids.minor < 2 else "2"
        if query:
            attributes["url.query"] = self._cut(self._redacted(query))
        if route:
            attributes["http.route"] = route
        if of.status and of.status != _CLIENT_CLOSED:
            attributes["http.response.status_code"] = of.status
        return f"{method} {route}" if route else method, attributes

    def _called(self, call: Call) -> tuple[str, dict[str, Value]]:
        """Name and attributes of both spans of a gRPC call."""
        method = call.method[: self.length]
        attributes: dict[str, Value] = {
            "rpc.system.name": "grpc",
            "rpc.method": method,
            "network.protocol.version": "2",
        }
        if call.status:
            attributes["rpc.response.status_code"] = call.status
        return method, attributes

    def _client(self, of: Finished, ids: SpanIds, call: Call | None) -> Shape:
        if call is not None:
            name, attributes = self._called(call)
        else:
            name, attributes = _method(ids.method)
            attributes["network.protocol.version"] = "1.1"
        place = self.places.get(of.arm)
        if place is not None and place.http2:
            attributes["network.protocol.version"] = "2"
        if place is not None:
            attributes["server.address"] = place.address
            if place.port is not None:
                attributes["server.port"] = place.port
            if call is None:
                target = place.rewriter.target(of.target)[0] if place.rewriter else of.target
                path, separator, query = target.partition(b"?")
                target = path + separator + self._redacted(query)
                attributes["url.full"] = self._cut(
                    f"{place.scheme}://{place.authority}{place.prefix}".encode() + target
                )
        if ids.resent:
            attributes["http.request.resend_count"] = max(1, len(ids.earlier))
        if of.first_byte_ns and call is None:
            # Before the first byte, the status is one that the proxy has answered with.
            attributes["http.response.status_code"] = of.status
        failed = call.client_failed if call is not None and call.status else client_failed(of)
        if failed:
            attributes["error.type"] = _error_type(of, call)
        return Shape(name, CLIENT_KIND, failed, attributes | self._own(of))

    def _generated(self, of: Finished, operation: tuple[str, str], own: dict[str, Value]) -> str:
        """Add what the conventions of generative AI say of a request; return the span's name."""
        own["gen_ai.operation.name"], own["gen_ai.provider.name"] = operation
        for name, value in (
            request_attributes(of.headers, of.request_body)
            | response_attributes(of.response_headers, of.response_body)
        ).items():
            own[name] = value[: self.length] if isinstance(value, str) else value
        if of.first_byte_ns and "gen_ai.request.stream" in own:
            times = decode_times(of.events)
            first = of.first_byte_ns / 1e9
            if times is not None and len(times.first):
                first = times.first[0] / 1e6
            own["gen_ai.response.time_to_first_chunk"] = max(0.0, first - of.queue_ns / 1e9)
        return f"{operation[0]} {own.get('gen_ai.request.model', of.model)}"

    def _route(self, model: str, path: bytes) -> str:
        """The pattern of the path that the request's matches; empty if none does any more."""
        key = (model, path)
        known = self._routes.get(key)
        if known is None:
            patterns = self.patterns.get(model, self.others)
            spelled = (self._text(path), self._text(normal_path(path)))
            known = next((to for one in spelled for p, to in patterns if p.fullmatch(one)), "")
            if len(self._routes) >= _CACHED:
                self._routes.clear()
            self._routes[key] = known
        return known

    def _redacted(self, query: bytes) -> bytes:
        """A query without the values of credentials and signatures."""
        if not query:
            return query
        parts = []
        for part in query.split(b"&"):
            name, separator, _ = part.partition(b"=")
            if separator and any(map(self._is_secret, names_in(part))):
                part = name + b"=REDACTED"
            parts.append(part)
        return b"&".join(parts)

    def _text(self, value: bytes) -> str:
        return value.decode("utf-8", "replace")

    def _cut(self, value: bytes) -> str:
        return self._text(value)[: self.length]


class SpanSource:
    """Chooses the records whose spans are sent."""

    def __init__(self, keep: frozenset[str], slow: float, gen_ai: bool = False) -> None:
        self._gen_ai = gen_ai
        self.keep_disagreeing = "disagreeing" in keep
        self._disagreed: dict[bytes, None] = {}
        """Ids of spans that were kept because answers differ: each is compared with several."""
        self._keep_errors = "errors" in keep
        self._slow_ns = int(slow * 1e9) if "slow" in keep else None

    def choose(self, names: Names, records: Sequence[Record]) -> Iterator[Finished]:
        """Those of finished exchanges that were sampled, or are kept."""
        for record in records:
            if not record.span or record.outcome == OPEN or record.outcome in NOT_SENT:
                continue
            kept = "" if record.sampled else self._kept(record)
            if kept or record.sampled:
                yield finished(names, record, kept, self._gen_ai)

    def disagreeing(self, exchanges: Iterable[tuple[Names, Record]]) -> Iterator[Finished]:
        """Those of requests with different answers that have not been chosen before."""
        for names, record in exchanges:
            if not record.span or record.sampled or self._kept(record):
                continue
            if record.span not in self._disagreed:
                while len(self._disagreed) >= _CACHED:
                    del self._disagreed[next(iter(self._disagreed))]
                self._disagreed[record.span] = None
                yield finished(names, record, "disagreeing")

    def _kept(self, record: Record) -> str:
        if self._slow_ns is not None and record.duration_ns >= self._slow_ns:
            return "slow"
        if self._keep_errors and (
            (record.role == ROLE_PRIMARY and server_failed(record)) or client_failed(record)
        ):
            return "errors"
        return ""


def finished(names: Names, record: Record, kept: str = "", gen_ai: bool = False) -> Finished:
    """What spans need of a record, of ``gen_ai`` also payloads that language models have."""
    request = response = None
    events = b""
    if gen_ai and operation_of(record.target) is not None:
        request, response = map(_short, (record.request_body, record.response_body))
        events = record.events if len(record.events) <= MOST_BYTES else b""
    model, version, _ = names.model(record.model)
    experiment = ""
    if record.assigned:
        for split in names.splits:
            number = record.assigned - split.first
            if split.model == record.model and 0 <= number < len(names.arms):
                experiment = split.experiment
    return Finished(
        model,
        version,
        names.arm(record.arm),
        experiment,
        record.role,
        record.status,
        record.outcome,
        record.started,
        record.duration_ns,
        record.first_byte_ns,
        record.queue_ns,
        record.request_id,
        record.target,
        record.request_headers,
        record.trace_id,
        record.span,
        kept,
        record.response_headers,
        request,
        response,
        events,
    )


def _short(body: bytes | None) -> bytes | None:
    return body if body is not None and len(body) <= MOST_BYTES else None


def server_failed(of: Finished | Record) -> bool:
    """Whether the status of the server span is Error: not for what the client did wrong."""
    if of.outcome in ANSWERED and of.outcome not in STREAM_FAULTS:
        return of.status >= 500
    return SIDES[of.outcome] != CLIENT or (of.status >= 500 and of.outcome != CANCELLED)


def client_failed(of: Finished | Record) -> bool:
    """Whether the status of the client span is Error: also for 4xx, but not if the client of the
    proxy ended it."""
    if of.outcome in ANSWERED and of.outcome not in STREAM_FAULTS:
        return of.status >= 400
    return SIDES[of.outcome] != CLIENT


def _lost(last: Span, number: int, span: int, lost: int) -> Span:
    """The span of attempt ``number``, which ended at ``lost``; ``last`` begins then at the
    earliest."""
    attributes, own = (
        {
            key: value
            for key, value in of.items()
            if key not in _OF_ANSWERS and not key.startswith(_OF_REPLIES)
        }
        for of in (last.shape.attributes, last.own)
    )
    attributes["error.type"] = OUTCOMES[UPSTREAM_RESET]
    if number:
        attributes["http.request.resend_count"] = number
    shape = Shape(last.name, last.kind, True, attributes)
    end = max(lost, last.start)
    first = replace(last, shape=shape, span=span, end=end, own=own)
    last.start = end
    return first


def _error_type(of: Finished, call: Call | None) -> str:
    if call is not None and call.status:
        return call.status
    by_status = of.outcome in ANSWERED and of.outcome not in STREAM_FAULTS
    return str(of.status) if by_status else OUTCOMES[of.outcome]


def _method(method: str) -> tuple[str, dict[str, Value]]:
    """The name in a span's name, and the attributes."""
    if method in _METHODS:
        return method, {"http.request.method": method}
    return "HTTP", {"http.request.method": "_OTHER", "http.request.method_original": method}


def _template(path: str) -> str:
    segments = path.split("/")
    for index, segment in enumerate(segments[1:], start=1):
        if segment.startswith("*"):
            segments[index] = _AFTER.get(segments[index - 1], "*") + segment[1:]
    return "/".join(segments)

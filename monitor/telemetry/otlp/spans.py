"""From records to spans, by the semantic conventions of HTTP.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (1.44). A request of a client has a
server span, from the first byte of its head until the last byte of the response was given to its
socket, and in it a client span, from when a connection to the model server was free; a mirrored
request has a client span only. Nothing of the SDK is used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from understudy.monitor.config.compile import REPEAT_SUFFIX, default_paths, rewrites_of
from understudy.monitor.config.fields import server_address
from understudy.monitor.config.model import Config
from understudy.monitor.proxy.target import normal_path, rewritten
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
    Record,
)
from understudy.monitor.records.trace import SpanIds, span_ids

SERVER_KIND: Final = "server"
CLIENT_KIND: Final = "client"
SIGNATURES = ("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature")
"""Parameters of a query that are redacted, besides credentials."""
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY")
)
_CLIENT_CLOSED = 499
_CACHED = 2048
_AFTER = {"models": "{model}", "versions": "{version}"}
"""What ``*`` stands for in a path, by the segment before it."""

Value = str | int | float | bool


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

    @property
    def spans(self) -> int:
        """Number of spans."""
        return 1 if self.role == ROLE_MIRROR else 2

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return 512 + len(self.target) + len(self.headers) + len(self.request_id) + len(self.span)


@dataclass(slots=True)
class Span:
    """A span as plain data; ``start`` and ``end`` in unix nanoseconds, ``parent`` 0 for none."""

    name: str
    kind: str
    trace: int
    span: int
    parent: int
    remote: bool
    flags: int
    start: int
    end: int
    attributes: dict[str, Value]
    failed: bool
    link: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model server is."""

    scheme: str
    address: str
    port: int | None
    authority: str
    prefix: str
    rewrites: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class SpanMaker:
    """Makes the spans of records, by the configuration."""

    scheme: str
    places: dict[str, Place]
    length: int
    """Most characters of an attribute."""
    patterns: dict[str, list[tuple[re.Pattern[str], str]]]
    credentials: tuple[str, ...] = ()
    _routes: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _is_secret: Callable[[bytes], bool] = field(init=False)

    def __post_init__(self) -> None:
        self._is_secret = matcher((*CREDENTIAL_QUERY, *SIGNATURES, *self.credentials))

    @classmethod
    def of(cls, config: Config, length: int) -> SpanMaker:
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
                rewrites_of(server),
            )
            places[server.name] = place
        places[config.champion.name + REPEAT_SUFFIX] = places[config.champion.name]
        patterns: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for model in config.models:
            paths = model.paths or default_paths(model.name)
            found = [
                (re.compile(re.escape(p).replace(r"\*", "[^/]+")), _template(p)) for p in paths
            ]
            patterns.setdefault(model.name, []).extend(found)
        return cls(
            "https" if config.listen.tls is not None else "http",
            places,
            length,
            patterns,
            tuple(config.credentials.query),
        )

    def spans(self, of: Finished) -> list[Span]:
        """The spans of an exchange. Raises RecordError."""
        ids = span_ids(of.trace_id, of.span)
        own = self._own(of)
        if of.role == ROLE_MIRROR:
            return [self._client(of, ids, own)]
        return [self._server(of, ids, own), self._client(of, ids, own)]

    def _own(self, of: Finished) -> dict[str, Value]:
        found: dict[str, Value] = {
            "understudy.model": of.model,
            "understudy.arm": of.arm,
            "understudy.role": ROLES[of.role],
            "understudy.request_id": self._cut(of.request_id),
        }
        if of.version:
            found["understudy.version"] = of.version
        if of.experiment:
            found["understudy.experiment"] = of.experiment
        if of.kept:
            found["understudy.kept"] = of.kept
        return found

    def _server(self, of: Finished, ids: SpanIds, own: dict[str, Value]) -> Span:
        path, _, query = of.target.partition(b"?")
        route = self._route(of.model, path)
        method, attributes = _method(ids.method)
        attributes["url.path"] = self._cut(path)
        attributes["url.scheme"] = self.scheme
        attributes["network.protocol.version"] = f"1.{ids.minor}"
        if query:
            attributes["url.query"] = self._cut(self._redacted(query))
        if route:
            attributes["http.route"] = route
        agent = _header(of.headers, b"user-agent")
        if agent:
            attributes["user_agent.original"] = self._cut(agent)
        if of.status and of.status != _CLIENT_CLOSED:
            attributes["http.response.status_code"] = of.status
        failed = server_failed(of)
        if failed:
            attributes["error.type"] = _error_type(of)
        start = int(of.started * 1e9)
        return Span(
            f"{method} {route}" if route else method,
            SERVER_KIND,
            ids.trace,
            ids.server,
            ids.parent,
            True,
            ids.flags,
            start,
            start + of.duration_ns,
            attributes | own,
            failed,
        )

    def _client(self, of: Finished, ids: SpanIds, own: dict[str, Value]) -> Span:
        method, attributes = _method(ids.method)
        place = self.places.get(of.arm)
        if place is not None:
            target = rewritten(of.target, place.rewrites) if place.rewrites else of.target
            path, separator, query = target.partition(b"?")
            target = path + separator + self._redacted(query)
            attributes["server.address"] = place.address
            if place.port is not None:
                attributes["server.port"] = place.port
            attributes["url.full"] = self._cut(
                f"{place.scheme}://{place.authority}{place.prefix}".encode() + target
            )
        attributes["network.protocol.version"] = "1.1"
        if ids.resent:
            attributes["http.request.resend_count"] = 1
        if of.queue_ns:
            attributes["understudy.queue_seconds"] = of.queue_ns / 1e9
        if of.first_byte_ns:
            # Before the first byte, the status is one that the proxy has answered with.
            attributes["http.response.status_code"] = of.status
            attributes["understudy.first_byte_seconds"] = of.first_byte_ns / 1e9
        failed = client_failed(of)
        if failed:
            attributes["error.type"] = _error_type(of)
        start = int(of.started * 1e9)
        return Span(
            method,
            CLIENT_KIND,
            ids.trace,
            ids.client,
            ids.server or ids.parent,
            False,
            ids.flags,
            start + min(of.queue_ns, of.duration_ns),
            start + of.duration_ns,
            attributes | own,
            failed,
            ids.link,
        )

    def _route(self, model: str, path: bytes) -> str:
        """The pattern of the path that the request's matches; empty if none does any more."""
        key = (model, path)
        known = self._routes.get(key)
        if known is None:
            patterns = self.patterns.get(model, ())
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
    """Chooses the records whose spans are sent. ``offer`` gets them, with number and size."""

    def __init__(self, keep: frozenset[str], slow: float) -> None:
        self._keep_errors = "errors" in keep
        self._slow_ns = int(slow * 1e9) if "slow" in keep else None

    def choose(self, names: Names, records: Sequence[Record]) -> Iterator[Finished]:
        """Those of finished exchanges that were sampled, or are kept."""
        for record in records:
            if not record.span or record.outcome == OPEN or record.outcome in NOT_SENT:
                continue
            kept = "" if record.sampled else self._kept(record)
            if kept or record.sampled:
                yield finished(names, record, kept)

    def _kept(self, record: Record) -> str:
        if self._slow_ns is not None and record.duration_ns >= self._slow_ns:
            return "slow"
        if self._keep_errors and (
            (record.role == ROLE_PRIMARY and server_failed(record)) or client_failed(record)
        ):
            return "errors"
        return ""


def finished(names: Names, record: Record, kept: str = "") -> Finished:
    """What spans need of a record."""
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
    )


def server_failed(of: Finished | Record) -> bool:
    """Whether the status of the server span is Error: not for what the client did wrong."""
    if of.outcome in ANSWERED:
        return of.status >= 500
    return SIDES[of.outcome] != CLIENT or (of.status >= 500 and of.outcome != CANCELLED)


def client_failed(of: Finished | Record) -> bool:
    """Whether the status of the client span is Error: also for 4xx, but not if the client of the
    proxy ended it."""
    if of.outcome in ANSWERED:
        return of.status >= 400
    return SIDES[of.outcome] != CLIENT


def _error_type(of: Finished) -> str:
    return str(of.status) if of.outcome in ANSWERED else OUTCOMES[of.outcome]


def _method(method: str) -> tuple[str, dict[str, Value]]:
    """The name in a span's name, and the attributes."""
    if method in _METHODS:
        return method, {"http.request.method": method}
    return "HTTP", {"http.request.method": "_OTHER", "http.request.method_original": method}


def _header(lines: bytes, name: bytes) -> bytes:
    for line in lines.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def _template(path: str) -> str:
    segments = path.split("/")
    for index, segment in enumerate(segments[1:], start=1):
        if segment.startswith("*"):
            segments[index] = _AFTER.get(segments[index - 1], "*") + segment[1:]
    return "/".join(segments)

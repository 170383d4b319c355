"""CloudEvents in the format of KServe's payload logger: a request and a response with one id.

The first of the two waits for the other, up to :data:`MAX_WAIT_SECONDS`; at most
:data:`MAX_WAITING` wait, of :data:`MAX_WAITING_BYTES`. Payloads are of the V1 or V2 protocol, which
is detected.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from understudy.common.json_items import Document, ItemsError
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.records import MOST_ITEMS, Item, KnownModels
from understudy.monitor.records.record import CLIENT_ERROR, OK

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Payload bytes of all events that wait: they are part of the saved state."""
MAX_WAIT_SECONDS = 300.0
"""How long an event waits for its other half."""
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is REQUEST or RESPONSE; ``at`` is unix seconds, None if the event has no time."""

    id: str
    kind: str
    service: str
    at: float | None
    data: bytes


def events_of(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """Events of one request: binary, structured or a batch. ``headers`` are in lower case.

    Raises IngestError.
    """
    reader = EventReader(headers)
    reader.feed(body)
    return reader.finish()


class EventReader:
    """As :func:`events_of`, for a body that arrives in pieces: of a batch, one event at a time is
    parsed. Both methods raise IngestError."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._items = Document() if kind in (STRUCTURED, BATCH) else None
        self._attributes = {
            name[3:]: text for name, text in headers.items() if name.startswith("ce-")
        }
        self._payload = bytearray()
        self._events: list[Event] = []

    def feed(self, piece: bytes) -> None:
        """Parse the events that the next piece completes."""
        if self._items is None:
            self._payload += piece
        else:
            self._parse(self._items.feed(piece))

    def finish(self) -> list[Event]:
        """The events; call it after the last piece."""
        if self._items is None:
            return [_event(self._attributes, bytes(self._payload))]
        self._parse(self._items.finish())
        return self._events

    def _parse(self, items: Iterable[tuple[int, bytes | None]]) -> None:
        try:
            for _, text in items:
                if len(self._events) >= MOST_ITEMS:
                    raise IngestError(f"more than {MOST_ITEMS:,} events: send several batches")
                self._events.append(_structured(orjson.loads(text or b"")))
        except (ItemsError, orjson.JSONDecodeError) as error:
            raise IngestError(f"not valid JSON: {error}") from error


def _structured(event: Any) -> Event:
    if not isinstance(event, dict):
        raise IngestError("an event must be an object")
    if "data_base64" in event:
        try:
            data = base64.b64decode(str(event["data_base64"]), validate=True)
        except binascii.Error as error:
            raise IngestError(f"data_base64: {error}") from error
    else:
        data = orjson.dumps(event.get("data"))
    return _event({str(key): value for key, value in event.items()}, data)


def _event(attributes: Mapping[str, Any], data: bytes) -> Event:
    if str(attributes.get("specversion", "")) not in ("1.0", "0.3"):
        raise IngestError("ce-specversion: must be 1.0; is this a CloudEvent?")
    kind, id_ = str(attributes.get("type", "")), str(attributes.get("id", ""))
    if kind not in (REQUEST, RESPONSE):
        raise IngestError(f"ce-type: {kind!r} is neither {REQUEST} nor {RESPONSE}")
    if not id_ or len(id_) > 256:
        raise IngestError("ce-id: is required, at most 256 characters")
    at = instant(str(attributes.get("recordedtime") or attributes.get("time") or ""))
    return Event(id_, kind, str(attributes.get("inferenceservicename", "")), at, data)


class Pairs:
    """Joins requests with their responses. ``outcomes`` counts ``joined``, ``duplicate``,
    ``expired`` (the other half never came) and ``overflow`` (too many were waiting, or too many
    bytes)."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._waiting: OrderedDict[tuple[str, str], tuple[float, Event]] = OrderedDict()
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """Number of events that wait for their other half."""
        return len(self._waiting)

    def add(self, event: Event, now: float) -> tuple[Event, Event] | None:
        """Add an event received at ``now`` (unix seconds); (request, response) once complete."""
        self.expire(now)
        other = RESPONSE if event.kind == REQUEST else REQUEST
        other_half = self._waiting.pop((event.id, other), None)
        if other_half is not None:
            self._bytes -= len(other_half[1].data)
            self.outcomes["joined"] += 1
            halves = (event, other_half[1]) if event.kind == REQUEST else (other_half[1], event)
            return halves
        if (event.id, event.kind) in self._waiting:
            self.outcomes["duplicate"] += 1
            return None
        self._wait(now, event)
        return None

    def _wait(self, since: float, event: Event) -> None:
        size = len(event.data)
        if size > MAX_WAITING_BYTES:
            self.outcomes["overflow"] += 1
            return
        while len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            _, (_, oldest) = self._waiting.popitem(last=False)
            self._bytes -= len(oldest.data)
            self.outcomes["overflow"] += 1
        self._waiting[event.id, event.kind] = (since, event)
        self._bytes += size

    def dump_state(self) -> list[list[Any]]:
        """The waiting events, as plain data."""
        return [
            [since, e.id, e.kind, e.service, e.at, base64.b64encode(e.data).decode()]
            for since, e in self._waiting.values()
        ]

    def load_state(self, state: Sequence[Sequence[Any]]) -> None:
        """Restore the result of :meth:`dump_state`. Raises ValueError or TypeError for other
        data."""
        self._waiting.clear()
        self._bytes = 0
        for since, id_, kind, service, at, data in state:
            event = Event(
                str(id_),
                str(kind),
                str(service),
                None if at is None else float(at),
                base64.b64decode(data, validate=True),
            )
            self._wait(float(since), event)

    def expire(self, now: float) -> None:
        """Drop events that have waited for too long; ``now`` is unix seconds."""
        while self._waiting:
            key = next(iter(self._waiting))
            if now - self._waiting[key][0] <= MAX_WAIT_SECONDS:
                return
            self._bytes -= len(self._waiting.pop(key)[1].data)
            self.outcomes["expired"] += 1


def item_of_pair(request: Event, response: Event, declared: KnownModels, now: float) -> Item:
    """The exchange of a request and its response. Raises IngestError for an unknown model."""
    named = any(request.service == name for name, _, _ in declared.models)
    several = len(declared.models) > 1 or declared.others
    model = declared.model(request.service if named or several else None, None)
    name = model[0]
    request_body: Any = _parsed(request.data)
    v2 = isinstance(request_body, dict) and isinstance(request_body.get("inputs"), list)
    path = f"/v2/models/{name}/infer" if v2 else f"/v1/models/{name}:predict"
    response_body: Any = _parsed(response.data)
    failed = isinstance(response_body, dict) and "error" in response_body
    started = request.at if request.at is not None else now
    duration = 0.0
    if request.at is not None and response.at is not None:
        duration = min(max(response.at - request.at, 0.0), 86400.0)
    return Item(
        model, declared.arms[0], request.id, 400 if failed else 200,
        CLIENT_ERROR if failed else OK, started, duration, "", path, request.data, response.data,
    )  # fmt: skip


def _parsed(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None

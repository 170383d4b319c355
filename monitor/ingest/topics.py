"""Converts messages of source topics to records and labels. Pure.

Two formats: CloudEvents in the format of KServe's payload logger, where a request waits for its
response; and plain JSON, with a mapping in the configuration. A message that cannot be used raises
SourceError with a reason, for the dead-letter topic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.common.codecs.pointer import follow, steps
from understudy.common.codecs.shape import MAX_NAME, joined
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.config.sources import MessageMapping, SourceTopic
from understudy.monitor.errors import IngestError, SourceError
from understudy.monitor.evidence.blocks import Row
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.ingest.cloudevents import Pairs, events_of, item_of_pair
from understudy.monitor.ingest.records import MOST_ROWS, KnownModels
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import (
    CLIENT_ERROR,
    OK,
    ROLE_PRIMARY,
    SERVER_ERROR,
    Record,
    decode_batch,
)

_NANOSECONDS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_LONGEST_ID = 256
_LONGEST_LATENCY = 86400e9
_SCALARS = (str, int, float, bool)
Decoded: TypeAlias = Table | Undecodable


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka message; ``timestamp`` is unix seconds."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: float | None = None


@dataclass(slots=True)
class MessageContent:
    """What a message holds: rows for the evaluation, and labels, each with the unix time when it
    was received. Both are empty while an event waits for its other half."""

    rows: list[Row] = field(default_factory=list)
    labels: list[tuple[float, Label]] = field(default_factory=list)


class TopicReader:
    """Reads the messages of one source. Its whole state is ``pairs``, the waiting events.

    Both events of a pair must reach the same reader: in the same partition (with the id as key), or
    through one reader for all partitions.
    """

    def __init__(self, source: SourceTopic, declared: KnownModels, decoder: Decoder) -> None:
        self.source = source
        self.pairs = Pairs()
        self._declared = declared
        self._decoder = decoder
        self._names = Names(0, tuple(declared.models), tuple(declared.arms))
        self._mapping = _Mapping(source.json_) if source.json_ is not None else None

    def read(self, message: Message, now: float) -> MessageContent:
        """The content of a message; ``now`` is unix seconds. Raises SourceError."""
        value = message.value
        if value is None:
            raise SourceError("empty", "the message has no value")
        if self._mapping is not None:
            return self._json(self._mapping, message, value, now)
        return self._events(message, value, now)

    # CloudEvents --------------------------------------------------------------------------------

    def _events(self, message: Message, value: bytes, now: float) -> MessageContent:
        content = MessageContent()
        try:
            events = events_of(_headers(message.headers), value)
        except IngestError as error:
            raise SourceError("not_cloudevent", str(error)) from error
        for event in events:
            halves = self.pairs.add(event, now)
            if halves is None:
                continue
            try:
                item = item_of_pair(*halves, self._models_of(halves[0].service), now)
            except IngestError as error:
                raise SourceError("unknown_model", str(error)) from error
            model, arm = self._model_index(item.model), self._declared.arms.index(item.arm)
            (record,) = decode_batch(item.encode(model, arm))
            decoded = self._decoder.decode(item.model, record)
            content.rows.append((self._names, record, *decoded))
        return content

    def _models_of(self, service: str) -> KnownModels:
        """The models to look up ``service`` in: an InferenceService may have another name."""
        if self.source.model is None:
            return self._declared
        one = self._declared.model(self.source.model, self.source.version)
        return KnownModels([one], self._declared.arms)

    # Plain JSON ---------------------------------------------------------------------------------

    def _json(
        self, mapping: _Mapping, message: Message, value: bytes, now: float
    ) -> MessageContent:
        try:
            data: Any = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise SourceError("not_json", f"the value is not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise SourceError("wrong_shape", "the value is not an object")
        received = message.timestamp if message.timestamp is not None else now
        request_id = mapping.text(data, "request_id")
        if not request_id:
            raise SourceError("missing_field", "request_id: is required")
        content = MessageContent(labels=mapping.labels(data, request_id, received))
        features = mapping.table(data, "features")
        predictions = mapping.table(data, "predictions")
        if features is None and predictions is None:
            if not content.labels:
                raise SourceError("missing_field", "the message has neither features nor a label")
            return content
        record = mapping.record(data, request_id, received)
        record.model = self._model_index(self._model(mapping, data))
        record.arm = self._arm(mapping, data)
        missing = Undecodable(Reason.NOT_CAPTURED)
        failed = Undecodable(Reason.ERROR_RESPONSE) if record.outcome != OK else missing
        content.rows.append((self._names, record, features or missing, predictions or failed))
        return content

    def _model(self, mapping: _Mapping, data: dict[str, Any]) -> tuple[str, str, str]:
        name: str | None = mapping.text(data, "model") or self.source.model
        version = mapping.text(data, "version") or self.source.version
        try:
            return self._declared.model(name, version)
        except IngestError as error:
            raise SourceError("unknown_model", str(error)) from error

    def _arm(self, mapping: _Mapping, data: dict[str, Any]) -> int:
        arm = mapping.text(data, "arm") or self._declared.arms[0]
        if arm not in self._declared.arms:
            known = ", ".join(self._declared.arms)
            raise SourceError("unknown_arm", f"arm: {arm[:60]!r} is not one of {known}")
        return self._declared.arms.index(arm)

    def _model_index(self, model: tuple[str, str, str]) -> int:
        return self._names.models.index(model)


def _headers(headers: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Kafka headers of a CloudEvent (``ce_type``) as HTTP headers (``ce-type``)."""
    result: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name.startswith("ce_"):
            name = "ce-" + name[3:]
        result[name] = bytes(value or b"").decode("utf-8", "replace")
    return result


class _Mapping:
    """A compiled mapping. Its methods raise SourceError, which names the field."""

    def __init__(self, declared: MessageMapping) -> None:
        self._unit = _NANOSECONDS[declared.latency_unit]
        self._paths: dict[str, tuple[str, ...]] = {}
        self._tables: dict[str, dict[str, tuple[str, ...]]] = {}
        for name in MessageMapping.model_fields:
            pointer = getattr(declared, name)
            if isinstance(pointer, dict):
                self._tables[name] = {column: steps(path) for column, path in pointer.items()}
            elif isinstance(pointer, str) and name != "latency_unit":
                self._paths[name] = steps(pointer)

    def _at(self, data: dict[str, Any], name: str) -> Any:
        path = self._paths.get(name)
        return None if path is None else follow(data, path)

    def text(self, data: dict[str, Any], name: str) -> str:
        """A string, or an integer as a string; empty if the field is missing."""
        value = self._at(data, name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise SourceError("wrong_type", f"{name}: must be a text, not {_shorten(value)}")
        text = str(value)
        if len(text) > _LONGEST_ID:
            raise SourceError("too_large", f"{name}: has more than {_LONGEST_ID} characters")
        return text

    def _number(self, data: dict[str, Any], name: str) -> float | None:
        value = self._at(data, name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SourceError("wrong_type", f"{name}: must be a number, not {_shorten(value)}")
        if not math.isfinite(value):
            raise SourceError("wrong_type", f"{name}: must be finite, not {_shorten(value)}")
        return float(value)

    def _time(self, data: dict[str, Any], name: str) -> float | None:
        value = self._at(data, name)
        if value is None:
            return None
        at = instant(value)
        if at is None or not 0.0 <= at < 1e11:
            raise SourceError("wrong_type", f"{name}: {_shorten(value)} is not a valid time")
        return at

    def table(self, data: dict[str, Any], name: str) -> Table | None:
        """Features or predictions: one row, or several from lists; None if missing."""
        columns = self._tables.get(name)
        if columns is not None:
            cells = {column: follow(data, path) for column, path in columns.items()}
            if all(cell is None for cell in cells.values()):
                return None
        else:
            value = self._at(data, name)
            if value is None:
                return None
            if not isinstance(value, Mapping) or not value:
                raise SourceError("wrong_type", f"{name}: must be an object, not {_shorten(value)}")
            cells = dict(value)
            if max(map(len, cells)) > MAX_NAME:
                raise SourceError(
                    "too_large", f"{name}: a name has more than {MAX_NAME} characters"
                )
        return _table(name, cells)

    def labels(
        self, data: dict[str, Any], request_id: str, received: float
    ) -> list[tuple[float, Label]]:
        """One label for a scalar, one for each row of a list."""
        label, reward = self._at(data, "label"), self._number(data, "reward")
        if label is None and reward is None:
            return []
        at = self._time(data, "labelled_at")
        several = label if isinstance(label, list) else [label]
        for one in several:
            if one is not None and not isinstance(one, _SCALARS):
                raise SourceError("wrong_type", f"label: must be a scalar, not {_shorten(one)}")
        # A record's id is bytes; labels are compared with it as Latin-1.
        request_id = _bytes(request_id).decode("latin-1")
        return [
            (received, Label(request_id, row, one, reward, at))
            for row, one in enumerate(several)
            if one is not None or reward is not None
        ]

    def record(self, data: dict[str, Any], request_id: str, received: float) -> Record:
        """The record, without its model and arm."""
        status = self._number(data, "status")
        error = self._at(data, "error")
        latency = self._number(data, "latency")
        duration = 0.0 if latency is None else latency * self._unit
        if not 0.0 <= duration <= _LONGEST_LATENCY:
            raise SourceError(
                "wrong_type", f"latency: {latency!r} is out of range; check latency_unit"
            )
        if status is not None and not 100 <= status <= 599:
            raise SourceError("wrong_type", f"status: {status!r} is not an HTTP status")
        started = self._time(data, "time")
        code = 200 if status is None else int(status)
        outcome = OK if code < 400 else CLIENT_ERROR if code < 500 else SERVER_ERROR
        if outcome == OK and error not in (None, False, ""):
            code, outcome = 500 if status is None else code, SERVER_ERROR
        record = Record()
        record.proxy_id = 0
        record.sampled = False
        record.span = record.events = b""
        record.status, record.role, record.outcome, record.assigned = code, ROLE_PRIMARY, outcome, 0
        record.started = received - duration / 1e9 if started is None else started
        record.duration_ns = round(duration)
        record.first_byte_ns = record.queue_ns = 0
        record.request_size = record.response_size = 0
        record.request_id = _bytes(request_id)
        record.trace_id = _bytes(self.text(data, "trace_id"))
        record.unit = _bytes(self.text(data, "unit"))
        record.target = record.request_headers = record.response_headers = b""
        record.request_body = record.response_body = None
        return record


def _bytes(text: str) -> bytes:
    """Latin-1 bytes, as labels are compared with; UTF-8 if Latin-1 cannot encode it."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _table(name: str, cells: dict[str, Any]) -> Table:
    lists = {column: cell for column, cell in cells.items() if isinstance(cell, list)}
    lengths = set(map(len, lists.values()))
    if len(lists) < len(cells) and not all(
        isinstance(cells[c], _SCALARS) or cells[c] is None for c in cells if c not in lists
    ):
        lengths = set()  # something nested: lists are cells of one row like it
    if len(lengths) != 1:
        if len(lengths) > 1:
            raise SourceError("wrong_shape", f"{name}: columns differ in length")
        return Table(tuple(cells), 1, list(cells.values()))
    rows = lengths.pop()
    if not 0 < rows <= MOST_ROWS:
        raise SourceError("too_large" if rows else "wrong_shape", f"{name}: has {rows:,} rows")
    table = joined(
        tuple(cells), rows, [c if isinstance(c, list) else [c] * rows for c in cells.values()]
    )
    if isinstance(table, Undecodable):  # pragma: no cover - there are names and rows
        raise SourceError("wrong_shape", f"{name}: {table.reason}")
    return table


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"

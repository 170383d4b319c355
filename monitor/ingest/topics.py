"""Messages of other people's topics as records and labels: pure, one message in, what is known out.

Two formats: CloudEvents as KServe's payload logger sends them, of which the request waits for its
response; and plain JSON by a mapping of the configuration. What cannot be used is a SourceError
with a reason, for the topic of dead letters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from understudy.monitor.baseline.kinds import instant
from understudy.monitor.codecs import Reason, Table, Undecodable
from understudy.monitor.codecs.pointer import follow, steps
from understudy.monitor.codecs.shape import MAX_NAME, joined
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
class Taken:
    """What a message says: rows as the evaluation takes them, labels with the time at which they
    came. Both are empty while a half of a pair waits for the other."""

    rows: list[Row] = field(default_factory=list)
    labels: list[tuple[float, Label]] = field(default_factory=list)


class TopicReader:
    """Reads the messages of one source; ``pairs`` are the halves that wait, which is all its state.

    Halves have to come to the same reader: to one partition (by the id as the key), or else to one
    reader that has all of them.
    """

    def __init__(self, source: SourceTopic, declared: KnownModels, decoder: Decoder) -> None:
        self.source = source
        self.pairs = Pairs()
        self._declared = declared
        self._decoder = decoder
        self._names = Names(0, tuple(declared.models), tuple(declared.arms))
        self._mapping = _Mapping(source.json_) if source.json_ is not None else None

    def read(self, message: Message, now: float) -> Taken:
        """What a message says; ``now`` is unix seconds. Raises SourceError."""
        value = message.value
        if value is None:
            raise SourceError("empty", "the message has no value")
        if self._mapping is not None:
            return self._json(self._mapping, message, value, now)
        return self._events(message, value, now)

    # CloudEvents --------------------------------------------------------------------------------

    def _events(self, message: Message, value: bytes, now: float) -> Taken:
        taken = Taken()
        try:
            events = events_of(_headers(message.headers), value)
        except IngestError as error:
            raise SourceError("not_cloudevent", str(error)) from error
        for event in events:
            halves = self.pairs.add(event, now)
            if halves is None:
                continue
            try:
                item = item_of_pair(*halves, self._for_pairs(halves[0].service), now)
            except IngestError as error:
                raise SourceError("unknown_model", str(error)) from error
            model, arm = self._place(item.model), self._declared.arms.index(item.arm)
            (record,) = decode_batch(item.encode(model, arm))
            decoded = self._decoder.decode(item.model, record)
            taken.rows.append((self._names, record, *decoded))
        return taken

    def _for_pairs(self, service: str) -> KnownModels:
        """Events name their InferenceService, which may be called otherwise than the model."""
        if self.source.model is None:
            return self._declared
        one = self._declared.model(self.source.model, self.source.version)
        return KnownModels([one], self._declared.arms)

    # Plain JSON ---------------------------------------------------------------------------------

    def _json(self, mapping: _Mapping, message: Message, value: bytes, now: float) -> Taken:
        try:
            data: Any = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise SourceError("not_json", f"the value is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise SourceError("wrong_shape", "the value is no object")
        came = message.timestamp if message.timestamp is not None else now
        request_id = mapping.text(data, "request_id")
        if not request_id:
            raise SourceError("missing_field", "request_id: is needed")
        taken = Taken(labels=mapping.labels(data, request_id, came))
        features = mapping.table(data, "features")
        predictions = mapping.table(data, "predictions")
        if features is None and predictions is None:
            if not taken.labels:
                raise SourceError("missing_field", "there are neither features nor a label")
            return taken
        record = mapping.record(data, request_id, came)
        record.model = self._place(self._model(mapping, data))
        record.arm = self._arm(mapping, data)
        missing = Undecodable(Reason.NOT_CAPTURED)
        failed = Undecodable(Reason.ERROR_RESPONSE) if record.outcome != OK else missing
        taken.rows.append((self._names, record, features or missing, predictions or failed))
        return taken

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
            raise SourceError("unknown_arm", f"arm: {arm[:60]!r} is none of {known}")
        return self._declared.arms.index(arm)

    def _place(self, model: tuple[str, str, str]) -> int:
        return self._names.models.index(model)


def _headers(headers: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Kafka's headers of a CloudEvent, ``ce_type`` …, as HTTP has them, ``ce-type``."""
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name.startswith("ce_"):
            name = "ce-" + name[3:]
        found[name] = bytes(value or b"").decode("utf-8", "replace")
    return found


class _Mapping:
    """A compiled mapping. Its methods raise SourceError that names the field."""

    def __init__(self, declared: MessageMapping) -> None:
        self._unit = _NANOSECONDS[declared.latency_unit]
        self._paths: dict[str, tuple[str, ...]] = {}
        self._tables: dict[str, dict[str, tuple[str, ...]]] = {}
        for name in MessageMapping.model_fields:
            where = getattr(declared, name)
            if isinstance(where, dict):
                self._tables[name] = {column: steps(place) for column, place in where.items()}
            elif isinstance(where, str) and name != "latency_unit":
                self._paths[name] = steps(where)

    def _at(self, data: dict[str, Any], name: str) -> Any:
        path = self._paths.get(name)
        return None if path is None else follow(data, path)

    def text(self, data: dict[str, Any], name: str) -> str:
        """A text or a whole number as text; empty where there is none."""
        found = self._at(data, name)
        if found is None:
            return ""
        if isinstance(found, bool) or not isinstance(found, (str, int)):
            raise SourceError("wrong_type", f"{name}: must be a text, not {_shown(found)}")
        text = str(found)
        if len(text) > _LONGEST_ID:
            raise SourceError("too_large", f"{name}: has more than {_LONGEST_ID} characters")
        return text

    def _number(self, data: dict[str, Any], name: str) -> float | None:
        found = self._at(data, name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise SourceError("wrong_type", f"{name}: must be a number, not {_shown(found)}")
        if not math.isfinite(found):
            raise SourceError("wrong_type", f"{name}: must be finite, not {_shown(found)}")
        return float(found)

    def _time(self, data: dict[str, Any], name: str) -> float | None:
        found = self._at(data, name)
        if found is None:
            return None
        at = instant(found)
        if at is None or not 0.0 <= at < 1e11:
            raise SourceError("wrong_type", f"{name}: {_shown(found)} is no time")
        return at

    def table(self, data: dict[str, Any], name: str) -> Table | None:
        """Features or predictions, one row or, from lists, several."""
        columns = self._tables.get(name)
        if columns is not None:
            cells = {column: follow(data, path) for column, path in columns.items()}
            if all(cell is None for cell in cells.values()):
                return None
        else:
            found = self._at(data, name)
            if found is None:
                return None
            if not isinstance(found, Mapping) or not found:
                raise SourceError("wrong_type", f"{name}: must be an object, not {_shown(found)}")
            cells = dict(found)
            if max(map(len, cells)) > MAX_NAME:
                raise SourceError(
                    "too_large", f"{name}: a name has more than {MAX_NAME} characters"
                )
        return _table(name, cells)

    def labels(
        self, data: dict[str, Any], request_id: str, came: float
    ) -> list[tuple[float, Label]]:
        """A label for each row of a list, and one of a scalar."""
        label, reward = self._at(data, "label"), self._number(data, "reward")
        if label is None and reward is None:
            return []
        at = self._time(data, "labelled_at")
        several = label if isinstance(label, list) else [label]
        for one in several:
            if one is not None and not isinstance(one, _SCALARS):
                raise SourceError("wrong_type", f"label: must be a scalar, not {_shown(one)}")
        # A record's id is bytes, which labels are compared with as Latin-1.
        request_id = _bytes(request_id).decode("latin-1")
        return [
            (came, Label(request_id, row, one, reward, at))
            for row, one in enumerate(several)
            if one is not None or reward is not None
        ]

    def record(self, data: dict[str, Any], request_id: str, came: float) -> Record:
        """All of a record but its model and arm."""
        status = self._number(data, "status")
        error = self._at(data, "error")
        latency = self._number(data, "latency")
        duration = 0.0 if latency is None else latency * self._unit
        if not 0.0 <= duration <= _LONGEST_LATENCY:
            raise SourceError("wrong_type", f"latency: {latency!r} cannot be; is the unit right?")
        if status is not None and not 100 <= status <= 599:
            raise SourceError("wrong_type", f"status: {status!r} is no HTTP status")
        started = self._time(data, "time")
        code = 200 if status is None else int(status)
        outcome = OK if code < 400 else CLIENT_ERROR if code < 500 else SERVER_ERROR
        if outcome == OK and error not in (None, False, ""):
            code, outcome = 500 if status is None else code, SERVER_ERROR
        record = Record()
        record.status, record.role, record.outcome, record.assigned = code, ROLE_PRIMARY, outcome, 0
        record.started = came - duration / 1e9 if started is None else started
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
    """As labels are compared with it: Latin-1, where that can hold it."""
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
    found = joined(
        tuple(cells), rows, [c if isinstance(c, list) else [c] * rows for c in cells.values()]
    )
    if isinstance(found, Undecodable):  # pragma: no cover - there are names and rows
        raise SourceError("wrong_shape", f"{name}: {found.reason}")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"

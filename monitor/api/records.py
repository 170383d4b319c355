"""Recent records, decoded again and redacted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from understudy.monitor.evidence.decoding import Table, Undecodable
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OUTCOMES, ROLES, Record
from understudy.monitor.records.redaction import REDACTED, Redaction, Shown
from understudy.monitor.routing.serving import NOT_ERRORS

_MAX_ROWS = 20
"""Maximum rows of a table that are shown of one record."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are shown; None and empty for all. ``outcome`` may be ``error``: every one that
    is not the client's; durations are in seconds."""

    model: str | None = None
    arm: str | None = None
    role: str | None = None
    outcome: str | None = None
    least: float | None = None
    most: float | None = None
    ids: frozenset[str] = frozenset()

    def fits(self, names: Names, record: Record) -> bool:
        """Whether a record is one of them. Nothing is decoded."""
        outcome = OUTCOMES[record.outcome]
        seconds = record.duration_ns / 1e9
        return (
            self.model in (None, _model(names, record)[0])
            and self.arm in (None, _arm(names, record))
            and self.role in (None, ROLES[record.role] if record.role < len(ROLES) else "other")
            and (
                self.outcome in (None, outcome)
                or (self.outcome == "error" and outcome not in NOT_ERRORS)
            )
            and (self.least is None or seconds >= self.least)
            and (self.most is None or seconds <= self.most)
            and (not self.ids or _text(record.request_id) in self.ids)
        )


def recent(
    plane: EvaluationPlane,
    limit: int,
    raw: bool,
    wanted: Wanted | None = None,
    before: int | None = None,
    pairs: bool = False,
) -> tuple[list[dict[str, Any]], int | None]:
    """At most ``limit`` records, newest first, and where the next page begins; with their payloads
    if ``raw``. ``before`` is where this page begins. With ``pairs`` each has the others of the same
    request under ``others``: the answers of other arms to it."""
    wanted = wanted or Wanted()
    shown: list[dict[str, Any]] = []
    following: int | None = None
    for number, names, record in plane.pipeline.recent.newest(before):
        if not wanted.fits(names, record):
            continue
        if len(shown) >= limit:
            following = int(shown[-1]["number"])
            break
        document = {"number": number, **_one(plane, names, record, raw)}
        if pairs:
            document["others"] = []
        shown.append(document)
    if pairs:
        _add_others(plane, shown, raw)
    return shown, following


def _add_others(plane: EvaluationPlane, shown: Sequence[dict[str, Any]], raw: bool) -> None:
    of_request: dict[str, list[dict[str, Any]]] = {}
    for document in shown:
        of_request.setdefault(document["request_id"], []).append(document)
    for number, names, record in plane.pipeline.recent.newest():
        for document in of_request.get(_text(record.request_id), ()):
            if document["number"] != number:
                document["others"].append(_one(plane, names, record, raw))


def _model(names: Names, record: Record) -> tuple[str, str, str]:
    known = record.model < len(names.models)
    return names.models[record.model] if known else ("other", "", "auto")


def _arm(names: Names, record: Record) -> str:
    return names.arms[record.arm] if record.arm < len(names.arms) else "other"


def _one(plane: EvaluationPlane, names: Names, record: Record, raw: bool) -> dict[str, Any]:
    redaction = plane.redaction
    named = _model(names, record)
    decoder = plane.pipeline.decoder
    request, response = decoder.decode(named, record)
    in_request, in_response = decoder.pointers(named[:2])
    features, sent = _part(request, record.request_body, in_request, redaction)
    predictions, received = _part(response, record.response_body, in_response, redaction)
    document: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.started, UTC).isoformat(),
        "request_id": _text(record.request_id),
        "trace_id": _text(record.trace_id) or None,
        "model": named[0],
        "version": named[1],
        "arm": _arm(names, record),
        "role": ROLES[record.role] if record.role < len(ROLES) else "other",
        "outcome": OUTCOMES[record.outcome],
        "status": record.status or None,
        "target": redaction.target(_text(record.target)),
        "duration_seconds": record.duration_ns / 1e9,
        "first_byte_seconds": record.first_byte_ns / 1e9 or None,
        "queue_seconds": record.queue_ns / 1e9,
        "request_bytes": record.request_size,
        "response_bytes": record.response_size,
        "headers": _headers(record.request_headers, redaction),
        "features": features,
        "predictions": predictions,
        "undecodable": {
            part: result.reason
            for part, result in (("request", request), ("response", response))
            if isinstance(result, Undecodable)
        },
    }
    if raw:
        document["request"] = sent
        document["response"] = received
    return document


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _hidden(
    table: Table, shown: Shown | None, pointers: dict[str, str], rules: Redaction
) -> list[bool]:
    """Which columns are hidden.

    A column may be named by the configuration and not by the payload. So when something in the
    payload is hidden and no hidden column accounts for it, or when the payload cannot be looked
    into, every column may be it and all are hidden. Pointers say where a column is.
    """
    hidden = [rules.hides(name) or rules.hides(pointers.get(name, name)) for name in table.names]
    if pointers or not rules.rules:
        return hidden
    accounted = [name for name, is_hidden in zip(table.names, hidden, strict=True) if is_hidden]
    if shown is None or not shown.covered_by(accounted):
        return [True] * len(table.names)
    return hidden


def _part(
    decoded: Table | Undecodable, body: bytes | None, pointers: dict[str, str], rules: Redaction
) -> tuple[dict[str, Any] | None, Any]:
    """The decoded table and the payload, redacted."""
    data = _parsed(body)
    shown = rules.payload(data[0]) if data is not None else None
    table = None
    if isinstance(decoded, Table):
        width = len(decoded.names)
        hidden = _hidden(decoded, shown, pointers, rules)
        rows = [
            decoded.values[row * width :][:width] for row in range(min(decoded.rows, _MAX_ROWS))
        ]
        table = {
            "names": list(decoded.names),
            "rows": decoded.rows,
            "values": [
                [
                    REDACTED if is_hidden else rules.value(name, value)
                    for name, value, is_hidden in zip(decoded.names, row, hidden, strict=True)
                ]
                for row in rows
            ],
        }
        # The payload does not contain the name of a column that only the configuration names.
        covered = not any(hidden) or (
            shown is not None and _named(shown, decoded, hidden, pointers)
        )
    else:
        covered = not rules.rules
    if body is None:
        return table, None
    if not covered:
        return table, REDACTED
    return table, shown.data if shown is not None else f"{len(body)} bytes that are not JSON"


def _named(shown: Shown, table: Table, hidden: list[bool], pointers: dict[str, str]) -> bool:
    """Whether every hidden column was found and redacted in the payload."""
    names = {part.lower() for hit in (*shown.hits, *shown.credentials) for part in hit}
    return all(
        pointers.get(name, name).lower() in names
        for name, is_hidden in zip(table.names, hidden, strict=True)
        if is_hidden
    )


def _parsed(body: bytes | None) -> tuple[Any] | None:
    if not body:
        return None
    try:
        return (orjson.loads(body),)
    except orjson.JSONDecodeError:
        pass
    try:
        return (json.loads(body),)  # bare NaN and Infinity are no JSON, but some servers write them
    except (ValueError, RecursionError):
        return None


def _headers(lines: bytes, redaction: Redaction) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            key = _text(name).strip().lower()
            headers[key] = redaction.header(key, _text(value).strip())
    return headers

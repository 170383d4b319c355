"""Recent records as people may see them: decoded anew, and redacted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.evaluation.decoding import Table, Undecodable
from monitor.evaluation.plane import Plane
from monitor.evaluation.redaction import REDACTED, Redaction
from monitor.record import OUTCOMES, ROLES, Record
from monitor.transport.server import Names

_MAX_ROWS = 20
"""Rows of a table that are shown of one record."""


def recent(plane: Plane, limit: int, raw: bool) -> list[dict[str, Any]]:
    """At most ``limit`` records, newest first; with their payloads if ``raw``."""
    shown: list[dict[str, Any]] = []
    for names, record in plane.pipeline.recent.newest():
        if len(shown) >= limit:
            break
        shown.append(_one(plane, names, record, raw))
    return shown


def _one(plane: Plane, names: Names, record: Record, raw: bool) -> dict[str, Any]:
    redaction = plane.redaction
    known = record.model < len(names.models)
    named = names.models[record.model] if known else ("other", "", "auto")
    request, response = plane.pipeline.decoder.decode(named, record)
    document: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.started, UTC).isoformat(),
        "request_id": _text(record.request_id),
        "trace_id": _text(record.trace_id) or None,
        "model": named[0],
        "version": named[1],
        "arm": names.arms[record.arm] if record.arm < len(names.arms) else "other",
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
        "features": _table(request, redaction),
        "predictions": _table(response, redaction),
        "undecodable": {
            part: found.reason
            for part, found in (("request", request), ("response", response))
            if isinstance(found, Undecodable)
        },
    }
    if raw:
        document["request"] = _payload(record.request_body, request, redaction)
        document["response"] = _payload(record.response_body, response, redaction)
    return document


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _table(found: object, redaction: Redaction) -> dict[str, Any] | None:
    if not isinstance(found, Table):
        return None
    width = len(found.names)
    rows = len(found.values) // width if width else 0
    return {
        "names": list(found.names),
        "rows": rows,
        "values": [
            [
                redaction.value(name, value)
                for name, value in zip(
                    found.names, found.values[row * width : (row + 1) * width], strict=True
                )
            ]
            for row in range(min(rows, _MAX_ROWS))
        ],
    }


def _headers(lines: bytes, redaction: Redaction) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            key = _text(name).strip().lower()
            hidden = redaction.hides(key) or redaction.hides(f"headers.{key}")
            headers[key] = REDACTED if hidden else _text(value).strip()
    return headers


def _payload(body: bytes | None, found: object, redaction: Redaction) -> Any:
    """The payload as JSON with hidden fields, or None; withheld where rules cannot be applied."""
    if body is None:
        return None
    if redaction.rules and not isinstance(found, Table):
        return REDACTED  # what was not understood may hold anything anywhere
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return REDACTED if redaction.rules else f"{len(body)} bytes that are not JSON"
    return redaction.payload(data, found.names if isinstance(found, Table) else ())

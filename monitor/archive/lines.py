"""The lines of the record log: one JSON object each, written and read.

Three kinds: ``{"names": …}`` lists the names of models, arms and splits that the following records
index; ``{"record": …}`` is one exchange with its payloads; ``{"label": …}`` is feedback, with the
time when it was received. A record has an id by which :class:`understudy.monitor.archive.repeats
.Repeats` recognises it when it was written twice. Payloads are text if they are UTF-8, otherwise
``{"base64": …}``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from understudy.monitor.errors import ProtocolError, ReplayError
from understudy.monitor.labels.label import Label
from understudy.monitor.records.encode import encode
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OUTCOMES, ROLES, Record

_TIMES = ("duration", "first_byte", "queue")
_TEXTS = ("request_id", "trace_id", "unit", "target", "request_headers", "response_headers")
_BODIES = ("request", "response")


def names_line(names: Names) -> bytes:
    """The names of a batch."""
    return orjson.dumps({"names": names.to_dict()})


def record_line(record: Record, identity: str = "") -> bytes:
    """One exchange; durations in seconds. ``identity`` is the record's id, empty if it has none."""
    return orjson.dumps(
        {
            "record": {
                **({"id": identity} if identity else {}),
                "time": record.started,
                "model": record.model,
                "arm": record.arm,
                "role": ROLES[record.role],
                "outcome": OUTCOMES[record.outcome],
                "status": record.status,
                "assigned": record.assigned,
                **{name: getattr(record, f"{name}_ns") / 1e9 for name in _TIMES},
                "request_size": record.request_size,
                "response_size": record.response_size,
                "proxy_id": record.proxy_id,
                "sampled": record.sampled,
                **{name: getattr(record, name).decode("latin-1") for name in _TEXTS},
                **{name: _text(getattr(record, f"{name}_body")) for name in _BODIES},
                **({"events": _base64(record.events)} if record.events else {}),
            }
        }
    )


def label_line(label: Label, received: float) -> bytes:
    """A label that was received at unix time ``received``."""
    return orjson.dumps(
        {
            "label": {
                "received": received,
                "request_id": label.request_id,
                "row": label.row,
                "label": label.label,
                "reward": label.reward,
                "at": label.at,
                "key": label.key,
                **({"source": label.source} if label.source is not None else {}),
            }
        }
    )


def read_names(data: Mapping[str, Any]) -> Names:
    """Parse the inner object of :func:`names_line`. Raises ReplayError."""
    try:
        return Names.from_json(orjson.dumps(data))
    except (ProtocolError, TypeError) as error:
        raise ReplayError(f"names: {error}") from error


def read_record(data: Mapping[str, Any]) -> bytes:
    """The encoded record of a line's inner object. Raises ReplayError."""
    try:
        duration, first_byte, queue = (round(float(data[name]) * 1e9) for name in _TIMES)
        request_id, trace_id, unit, target, request_headers, response_headers = (
            str(data[name]).encode("latin-1") for name in _TEXTS
        )
        _, parts = encode(
            int(data["model"]),
            int(data["arm"]),
            int(data["status"]),
            ROLES.index(data["role"]),
            OUTCOMES.index(data["outcome"]),
            float(data["time"]),
            duration,
            first_byte,
            queue,
            int(data["request_size"]),
            int(data["response_size"]),
            request_id,
            trace_id,
            unit,
            target,
            request_headers,
            response_headers,
            _bytes(data.get("request")),
            _bytes(data.get("response")),
            int(data.get("assigned", 0)),
            int(data.get("proxy_id", 0)),
            data.get("sampled") is True,
            events=_bytes(data.get("events")) or b"",
        )
    except KeyError as error:
        raise ReplayError(f"record: {error.args[0]} is missing") from error
    except Exception as error:  # struct's error for a value out of range
        raise ReplayError(f"record: {error}") from error
    return b"".join(parts)


def read_label(data: Mapping[str, Any]) -> tuple[float, Label]:
    """Parse the inner object of :func:`label_line`: (received, label). Raises ReplayError."""
    try:
        label = Label(
            str(data["request_id"]),
            int(data.get("row", 0)),
            data.get("label"),
            None if data.get("reward") is None else float(data["reward"]),
            None if data.get("at") is None else float(data["at"]),
            data.get("key"),
            data.get("source"),
        )
        return float(data["received"]), label
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayError(f"label: {error!r}") from error


def _text(body: bytes | None) -> object:
    if body is None:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return _base64(body)


def _base64(body: bytes) -> object:
    return {"base64": base64.b64encode(body).decode()}


def _bytes(body: object) -> bytes | None:
    if body is None:
        return None
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, dict) and isinstance(body.get("base64"), str):
        return base64.b64decode(body["base64"], validate=True)
    raise ValueError("a payload must be a string, or an object with base64")

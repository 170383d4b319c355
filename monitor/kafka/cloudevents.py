"""Records as CloudEvents, in the format of KServe's payload logger.

Binary mode of the Kafka protocol binding: attributes are headers ``ce_…``, the value is the
payload. A request and its response are one event each, with the same id. Payloads that were not
captured have no event. Neither have mirrored requests: a consumer would take a challenger's
response for the champion's.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from understudy.monitor.ingest.cloudevents import REQUEST, RESPONSE
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import ROLE_PRIMARY, Record

Headers = list[tuple[str, bytes]]
Event = tuple[Headers, bytes, bytes]
"""(headers, key, value) of a Kafka message; the key is the request's id."""
_SPACE = uuid.UUID("6a6f0d5e-0f0e-5d0c-9c43-5a9f1d5f6c11")
_MODEL = ("other", "", "")


@dataclass(frozen=True, slots=True)
class Origin:
    """Attributes that name where events come from; ``source`` is a URI."""

    source: str = "urn:understudy"
    namespace: str = ""
    component: str = "predictor"


def events_of_record(names: Names, record: Record, origin: Origin) -> list[Event]:
    """The events of a record: one for the request, one for the response, as far as captured."""
    if record.role != ROLE_PRIMARY:
        return []
    models, arms = names.models, names.arms
    service = (models[record.model] if record.model < len(models) else _MODEL)[0]
    arm = arms[record.arm] if record.arm < len(arms) else "other"
    id_ = record.request_id.decode("latin-1") or _id_of(record)
    events: list[Event] = []
    for kind, body, headers, at in (
        (REQUEST, record.request_body, record.request_headers, record.started),
        (
            RESPONSE,
            record.response_body,
            record.response_headers,
            record.started + record.duration_ns / 1e9,
        ),
    ):
        if body is None:
            continue
        time = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        fields = _fields(headers)
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": id_,
            "ce_type": kind,
            "ce_source": origin.source,
            "ce_time": time,
            "ce_recordedtime": time,
            "ce_inferenceservicename": service,
            "ce_namespace": origin.namespace,
            "ce_component": origin.component,
            "ce_endpoint": arm,
            "ce_metadata": json.dumps(fields) if fields else "",
            "content-type": fields.get("content-type", ["application/json"])[0],
        }
        kept = [(name, text.encode()) for name, text in attributes.items() if text]
        events.append((kept, id_.encode("latin-1", "replace"), body))
    return events


def _id_of(record: Record) -> str:
    """An id for a request without one; the same record always gets the same id."""
    trace = record.trace_id.decode("latin-1")
    return str(uuid.uuid5(_SPACE, f"{record.started!r} {record.duration_ns} {trace}"))


def _fields(headers: bytes) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for line in headers.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            key = name.strip().lower().decode("latin-1")
            result.setdefault(key, []).append(value.strip().decode("latin-1"))
    return result

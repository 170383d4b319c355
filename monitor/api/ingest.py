"""Records and CloudEvents over the API."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from understudy.common.files import lines_of
from understudy.monitor.api.answers import answer, changing, refusal
from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import events_of
from understudy.monitor.ingest.records import MOST_ITEMS
from understudy.monitor.ingest.service import IngestResult, IngestService
from understudy.monitor.pipeline.plane import EvaluationPlane

MOST_BYTES = 8 * 1024 * 1024
_EXAMPLE = {
    "model": "delays",
    "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "time": "2026-01-31T12:00:00Z",
    "duration_seconds": 0.012,
    "features": {"distance": 1400, "carrier": "UA"},
    "predictions": {"p_late": 0.31},
}
_BODY = {
    "required": True,
    "description": f"One object, a list, or NDJSON; up to {MOST_ITEMS:,} items and 8 MiB.",
    "content": {
        "application/json": {"examples": {"one": {"value": _EXAMPLE}}},
        "application/x-ndjson": {},
    },
}


def add_ingest(app: FastAPI, plane: EvaluationPlane, ingest: IngestService) -> None:
    """POST /v1/records and /v1/cloudevents."""

    @app.post(
        "/v1/records",
        tags=["ingest"],
        dependencies=changing(plane),
        openapi_extra={"requestBody": _BODY},
    )
    async def records(request: Request) -> Response:
        """Exchanges that did not go through the proxy: features and predictions by name, or the
        payloads as they were (`request`, `response`, `path`).

        Good items are taken also when others are not; those are named with their place and the
        reason. What comes again with the same request id is known for a while and not counted
        twice. 422 when nothing could be taken.
        """
        body = await _read(request)
        if body is None:
            return refusal(413, f"more than {MOST_BYTES:,} bytes: send it in several calls")
        try:
            posted = _items(body, request.headers.get("content-type", ""))
        except IngestError as error:
            return refusal(422, str(error))
        return _answer(ingest.records(posted), "item")

    @app.post("/v1/cloudevents", tags=["ingest"], dependencies=changing(plane))
    async def cloudevents(request: Request) -> Response:
        """CloudEvents as KServe's payload logger sends them: let `logger.url` point here. A request
        and a response with one id are an exchange; each waits for the other for five minutes."""
        body = await _read(request)
        if body is None:
            return refusal(413, f"more than {MOST_BYTES:,} bytes")
        try:
            events = events_of(dict(request.headers.items()), body)
        except IngestError as error:
            return refusal(422, str(error))
        return _answer(ingest.events(events), "event")


async def _read(request: Request) -> bytes | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _items(body: bytes, content_type: str) -> list[Any]:
    kind = content_type.partition(";")[0].strip().lower()
    items: list[Any]
    if kind in ("application/x-ndjson", "application/jsonl", "application/ndjson"):
        items = []
        for number, line in lines_of(body):
            try:
                items.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise IngestError(f"line {number}: not valid JSON: {error}") from error
    else:
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise IngestError(f"not valid JSON: {error}") from error
        items = parsed if isinstance(parsed, list) else [parsed]
    if not items:
        raise IngestError("the body has no items")
    if len(items) > MOST_ITEMS:
        raise IngestError(f"more than {MOST_ITEMS:,} items: send them in several calls")
    return items


def _answer(result: IngestResult, word: str) -> Response:
    nothing = bool(result.refused) and not (result.accepted or result.duplicates or result.waiting)
    refused = [{word: index, "error": why} for index, why in result.refused[:100]]
    if nothing:
        return refusal(422, "; ".join(f"{word} {p}: {why}" for p, why in result.refused[:20]))
    return answer(
        {
            "taken": result.accepted,
            "duplicates": result.duplicates,
            "waiting": result.waiting,
            "refused": refused,
        }
    )

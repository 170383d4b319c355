"""Records and CloudEvents over the API."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from understudy.common.json_items import ItemsError, Lines, splitter
from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import EventReader
from understudy.monitor.ingest.records import MOST_ITEMS
from understudy.monitor.ingest.service import (
    RECORDS,
    SOURCES,
    IngestResult,
    IngestService,
    RecordPost,
)

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


def add_ingest(app: FastAPI, ingest: IngestService) -> None:
    """POST /v1/records and /v1/cloudevents."""

    @app.post(
        "/v1/records",
        tags=["ingest"],
        openapi_extra={"requestBody": _BODY},
    )
    async def records(request: Request) -> Response:
        """Exchanges that did not go through the proxy: features and predictions by name, or the
        payloads as they were (`request`, `response`, `path`).

        Good items are taken also when others are not; those are named with their place and the
        reason. What comes again with the same request id is known for a while and not counted
        twice. 422 when nothing could be taken.

        `request_base64` and `response_base64` hold bodies of any kind, with `request_headers` and
        `response_headers` to read them by. Without `model`, it is that of the path or of the gRPC
        message. `source=ext-proc` and `dropped` in the query are for the counters.
        """
        post = ingest.post()
        try:
            source, dropped = _sender(request)
            await _read_items(request, post)
        except IngestError as error:
            return refusal(422, str(error))
        return _answer(ingest.records(post, source, dropped), "item")

    @app.post("/v1/cloudevents", tags=["ingest"])
    async def cloudevents(request: Request) -> Response:
        """CloudEvents as KServe's payload logger sends them: let `logger.url` point here. A request
        and a response with one id are an exchange; each waits for the other for five minutes."""
        try:
            reader = EventReader(dict(request.headers.items()))
            async for part in request.stream():
                reader.feed(part)
            events = reader.finish()
        except IngestError as error:
            return refusal(422, str(error))
        return _answer(ingest.events(events), "event")


def _sender(request: Request) -> tuple[str, int]:
    """What posts, and how many records it has dropped. Raises IngestError."""
    source = request.query_params.get("source", RECORDS)
    dropped = request.query_params.get("dropped", "0")
    if source not in SOURCES:
        raise IngestError(f"source: {source!r} is not one of {', '.join(SOURCES)}")
    if not dropped.isdecimal() or len(dropped) > 12:
        raise IngestError(f"dropped: not a number: {dropped!r}")
    return source, int(dropped)


async def _read_items(request: Request, post: RecordPost) -> None:
    """Add the items of a body while it arrives. Raises IngestError."""
    kind = request.headers.get("content-type", "")
    items = splitter(kind)
    word = "line" if isinstance(items, Lines) else "item"
    empty = True
    try:
        async for part in request.stream():
            for number, text in items.feed(part):
                post.add(_loaded(text, word, number))
                empty = False
        for number, text in items.finish():
            post.add(_loaded(text, word, number))
            empty = False
    except ItemsError as error:
        raise IngestError(f"not valid JSON: {error}") from error
    if empty:
        raise IngestError("the body has no items")


def _loaded(text: bytes | None, word: str, number: int) -> Any:
    try:
        return orjson.loads(text or b"")
    except orjson.JSONDecodeError as error:
        raise IngestError(f"{word} {number}: not valid JSON: {error}") from error


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
